"""Files in memory as a snapshot: what a source hands over that does not come from files."""

from collections.abc import Mapping
from hashlib import sha256
from io import BytesIO
from typing import final

import attrs

from trio_entrypoint._files.tree import TreeWriter
from trio_entrypoint.configuration.source import Check


@final
@attrs.frozen
class MemorySnapshot:
    """Contents by relative path.

    Args:
        files: The contents; names that must not become part of a target are refused later,
            as in an archive.
        mode: Permission bits of all of them.
    """

    files: Mapping[str, bytes]
    mode: int = 0o644

    @property
    def digest(self) -> str:
        """The SHA-256 of the paths and contents, in hexadecimal."""
        digest = sha256()
        for path in sorted(self.files):
            digest.update(b"%s\0" % path.encode(errors="surrogateescape"))
            digest.update(sha256(self.files[path]).digest())
        return digest.hexdigest()

    @property
    def variant(self) -> str:
        """The mode."""
        return f"{self.mode:o}"

    def write(self, tree: TreeWriter, check: Check) -> None:  # noqa: ARG002 - the tree checks
        """Write the files into a new tree."""
        for path, data in self.files.items():
            tree.file(path, self.mode, len(data), BytesIO(data).read)
