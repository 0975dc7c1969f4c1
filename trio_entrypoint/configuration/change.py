"""What putting a generation in place changes: worked out in a thread, when it was staged."""

from collections.abc import Mapping
from typing import final

import attrs

from trio_entrypoint._files.generations import Sealed
from trio_entrypoint._files.manifest import Entry, difference
from trio_entrypoint.handlers import Modification

_MODIFICATIONS = {what.value: what for what in Modification}


@final
@attrs.frozen
class Change:
    """What leads from one generation, or from none, to another."""

    old: Sealed | None
    new: Sealed
    paths: Mapping[str, Modification]
    """By relative path."""

    @classmethod
    def between(cls, old: Sealed | None, new: Sealed) -> "Change":
        """Compare two generations; with thousands of files this takes its time."""
        entries: Mapping[str, Entry] = {} if old is None else old.manifest.entries
        changed = difference(entries, new.manifest.entries)
        return cls(old, new, {path: _MODIFICATIONS[what] for path, what in changed.items()})
