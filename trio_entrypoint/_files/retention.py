"""Which generations are kept, and the removal of all others: the last step of an update.

Kept are the one in place, the last trusted ones before it, those that somebody holds, and for
a moment each that was replaced. Of a refused one only the record is kept, that its source is
refused, until another source has proved itself.
"""

import time
from collections.abc import Collection, Iterable
from typing import NamedTuple, final

from trio_entrypoint._files.pointers import TREE
from trio_entrypoint._files.records import REFUSED, Records, remove_tree

LINGER = 1.0
"""Seconds for which a generation is complete after it was replaced, however many follow.

Who opened it before has that long to read it; a process that was started with it has for ever.
"""


class Unwanted(NamedTuple):
    """A generation to remove."""

    number: int
    whole: bool
    """Or all but the record that it was refused."""


@final
class Retention:
    """Decides what goes, and removes it.

    Args:
        records: The records of the store.
        keep: How many trusted generations before the one in place are kept.
    """

    def __init__(self, records: Records, keep: int) -> None:
        self._records = records
        self._keep = keep
        self._replaced: dict[int, float] = {}
        self.being_removed: frozenset[int] = frozenset()
        """What may be half removed at any moment: nothing may go back to it."""

    def note_replaced(self, number: int) -> None:
        """A generation was in place until now: it lingers."""
        self._replaced[number] = time.monotonic()

    @property
    def lingering(self) -> bool:
        """Whether something will be unwanted that is not yet, for the sake of its readers."""
        return bool(self._replaced)

    def unwanted(
        self, needed: Collection[int | None], *, present: int | None, on_trial: bool
    ) -> list[Unwanted]:
        """What is neither needed, nor kept, nor was in place a moment ago.

        Args:
            needed: The numbers of those to keep in any case.
            present: The one in place, if there is one.
            on_trial: Whether nobody has confirmed that one yet.
        """
        oldest = time.monotonic() - LINGER
        self._replaced = {
            number: since for number, since in self._replaced.items() if since > oldest
        }
        trusted = 0
        unwanted: list[Unwanted] = []
        for number in sorted(self._records.numbers(), reverse=True):
            if number in needed or number in self._replaced:
                continue
            newer = present is None or number > present
            complete = self._records.digest(number) is not None
            if complete and self._records.mark(number, REFUSED) is not None:
                if newer or on_trial:
                    unwanted.append(Unwanted(number, whole=False))
                    continue
            elif complete and not newer and trusted < self._keep and self._records.trusted(number):
                trusted += 1
                continue
            unwanted.append(Unwanted(number, whole=True))
        self.being_removed = frozenset(number for number, _ in unwanted)
        return unwanted

    def remove(self, unwanted: Iterable[Unwanted]) -> None:
        """Remove what `unwanted` said. This may take its time, the rest goes on meanwhile."""
        for number, whole in unwanted:
            if whole:
                self._records.remove(number)
            else:
                remove_tree(self._records.path(number, TREE))
