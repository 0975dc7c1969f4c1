"""The store of a target's generations: staged, put in place, trusted or refused, collected.

Each generation is a directory with a number, in the store next to (or in) the target::

    store/3/tree        what the target shows while it is in place
    store/3/manifest    seals it: paths, modes, hashes, and the digest of its source
    store/3/trial       it was put in place, and nobody has confirmed it yet
    store/3/adjourned   the same, and the entrypoint ended in good order before that
    store/3/refused     it was rolled back, and why

An update takes these steps. After each of them a reader sees what the last column says, and
an entrypoint that is killed leaves what the next start (`recover`) makes of it.

| | step | a crash after it leaves | readers see |
| --- | --- | --- | --- |
| 1 | make `store/4`, fill `store/4/tree` | no manifest: removed | the old |
| 2 | write `manifest.new`, rename it to `manifest` | not in place: removed | the old |
| 3 | for a trial, make `store/4/trial` | as before | the old |
| 4 | for `disk`, syncfs(2) | as before | the old |
| 5 | make the new pointer beside the old one | as before | the old |
| 6 | rename it over the old one | the new is in place; on trial it is rolled back | the new |
| 7 | for `disk`, sync the pointer's directory | as before | the new |
| 8 | remove what is too old: its manifest, then the rest | no manifest: removed | the new |

A rollback writes `refused` with its reason into the generation in place, and then takes
steps 4 to 8 with an older one. In place and refused is a rollback that was interrupted:
`recover` completes it. So the switch of the pointer is also what makes a source refused,
and there is no second record that could disagree.

At the next start what is on trial is rolled back, and refused. What was adjourned is put back
only: its source is as good as new. Adjourning renames one mark to the other.
"""

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TypeAlias, final

import attrs

from trio_entrypoint._files.lock import lock_store
from trio_entrypoint._files.manifest import Manifest
from trio_entrypoint._files.pointers import TREE, FilePointer, Pointer
from trio_entrypoint._files.records import (
    ADJOURNED,
    NOTHING,
    REFUSED,
    TRIAL,
    Records,
)
from trio_entrypoint._files.retention import Retention, Unwanted
from trio_entrypoint._files.tree import Limits, Previous, TreeWriter
from trio_entrypoint._linux.syscalls import sync_file_system

NOT_CONFIRMED = "the entrypoint ended before the configuration was confirmed"

Fill: TypeAlias = Callable[[TreeWriter], None]
"""Writes a source into a new tree."""


@final
@attrs.frozen
class Sealed:
    """A generation that is complete and never changes."""

    number: int
    manifest: Manifest
    path: str
    """The path of its own target."""


class NoGenerationError(Exception):
    """There is no earlier trusted generation to go back to."""


@final
class Store:
    """The generations of one target. `trio_entrypoint._files.opening` makes it.

    Everything blocks, in proportion to the number of files, but `begin_trial`, `publish`,
    `confirm` and `put_back` only for a few system calls.

    Args:
        pointer: How the target says what is in place.
        keep: How many generations before the one in place are kept.
        share: Whether unchanged files are links to those of the generation before.
    """

    def __init__(self, pointer: Pointer, *, keep: int, share: bool) -> None:
        self._pointer = pointer
        self._share = share
        self._lock = lock_store(pointer.store, pointer.target)
        self.records: Records = Records(pointer.store)
        self.retention: Retention = Retention(self.records, keep)
        self.current: Sealed | None = None
        self.on_trial: bool = False
        self.adjourned: bool = False
        self.refused: dict[str, str] = {}
        """Reasons by the digest of the source."""

    @property
    def applied(self) -> bool:
        """Whether a generation is in place, other than the nothing before the first."""
        return self.current is not None and self.current.number > NOTHING

    def close(self) -> None:
        """Let another handler have the target."""
        os.close(self._lock)

    # --- recovery -------------------------------------------------------------------------

    def recover(self) -> str | None:
        """Find out what is in place; complete or undo what a crash interrupted.

        Returns:
            Why the generation in place was not trusted, if it was not.
        """
        number = self._pointer.read()
        found = None if number is None else self._load(number)
        self.current = found
        reason = None
        if found is not None:
            reason = self.records.mark(found.number, REFUSED)
            if reason is None and self.records.mark(found.number, TRIAL) is not None:
                reason = NOT_CONFIRMED
            if reason is not None or self.records.mark(found.number, ADJOURNED) is not None:
                self._recover_from_trial(reason)
            self.tidy()
        self.read_refused()
        return reason

    def _recover_from_trial(self, reason: str | None) -> None:
        assert self.current is not None
        failed = self.current.number
        try:
            if reason is None:
                to = self.before()
                self.prepare(to)
            else:
                to = self.refuse(reason)
            self.put_back(to)
        except NoGenerationError:
            # Nothing is better than this source, which need not be at fault: it may be
            # tried again, but it is not trusted.
            nothing = self._load(NOTHING)
            if nothing is None:
                self._pointer.clear()
                self.current = None
            else:
                self.prepare(nothing)
                self._switch(nothing)
            self.records.remove(failed)

    def read_refused(self) -> None:
        """Find out which sources are refused, and why.

        A refusal counts until another source has proved itself: a later generation is in
        place, and not on trial.
        """
        present = NOTHING if self.current is None else self.current.number
        self.refused = {}
        for number in self.records.numbers():
            reason = self.records.mark(number, REFUSED)
            digest = self.records.digest(number)
            counts = number > present or (self.on_trial and number != present)
            if reason is not None and digest is not None and counts:
                self.refused[digest] = reason

    # --- going forward --------------------------------------------------------------------

    def stage(
        self,
        number: int,
        source: tuple[str, str],
        fill: Fill,
        limits: Limits,
        check: Callable[[], None] = lambda: None,
    ) -> Sealed:
        """Make a new generation, complete and sealed, not yet in place.

        Args:
            number: Its number, from `next_number`.
            source: The digest and the variant of its source.
            fill: Writes the source into the tree.
            limits: How much is accepted.
            check: Called often; it may raise to give up.

        Raises:
            OSError, ValueError: It cannot be made, and nothing of it is left.
        """
        os.mkdir(self.records.path(number), 0o755)
        try:
            tree = self.records.path(number, TREE)
            os.mkdir(tree, 0o755)
            with TreeWriter(tree, limits=limits, previous=self._previous(), check=check) as writer:
                fill(writer)
                manifest = Manifest(writer.finish(), *source)
            self.records.seal(number, manifest)
        except BaseException:
            self.records.remove(number)
            raise
        return Sealed(number, manifest, self._pointer.published(number))

    def _previous(self) -> Previous | None:
        if not self._share or self.current is None or isinstance(self._pointer, FilePointer):
            return None
        return Previous(
            self.records.path(self.current.number, TREE), self.current.manifest.entries
        )

    def begin_trial(self, staged: Sealed) -> None:
        """Note that a staged generation will not be trusted before `confirm`."""
        self.records.set_mark(staged.number, TRIAL)

    def prepare(self, to: Sealed) -> None:
        """Do all that a switch needs and no reader notices; `publish` or `put_back` follows.

        Raises:
            OSError: It cannot be put in place, and nothing of the preparation is left.
        """
        try:
            self._pointer.prepare(to.number, to.manifest.top_level)
        except OSError:
            self.tidy()
            raise

    def publish(self, staged: Sealed, *, trial: bool) -> None:
        """Put a generation in place that was prepared; `tidy` should follow.

        Raises:
            OSError: It cannot be; what was in place still is.
        """
        self._switch(staged)
        self.on_trial = trial
        self.adjourned = False
        if not trial:
            self.refused = {}

    def _switch(self, to: Sealed) -> None:
        try:
            self._pointer.switch()
        except OSError:
            self.tidy()
            raise
        if self.current is not None:
            self.retention.note_replaced(self.current.number)
        self.current = to

    def tidy(self) -> None:
        """Remove what only the generations before needed, or one that was not put in place."""
        # What fails here is tried again at the next update and at the next start.
        with suppress(OSError):
            self._pointer.tidy([] if self.current is None else self.current.manifest.top_level)

    def confirm(self) -> None:
        """Trust the generation in place."""
        if self.current is not None and self.on_trial:
            self.records.remove_mark(self.current.number, ADJOURNED if self.adjourned else TRIAL)
            self.on_trial = self.adjourned = False
            self.refused = {}

    def adjourn(self) -> None:
        """Note that the trial that is on ends without a verdict."""
        if self.current is not None and self.on_trial and not self.adjourned:
            self.records.rename_mark(self.current.number, TRIAL, ADJOURNED)
            self.adjourned = True

    # --- going back -----------------------------------------------------------------------

    def before(self) -> Sealed:
        """The last trusted generation before the one in place.

        Raises:
            NoGenerationError: There is none.
        """
        if self.current is not None:
            for number in sorted(self.records.numbers(), reverse=True):
                if number in self.retention.being_removed:
                    continue
                if NOTHING < number < self.current.number and self.records.trusted(number):
                    found = self._load(number)
                    if found is not None:
                        return found
        raise NoGenerationError(
            f"{self._pointer.target}: there is no earlier trusted configuration to go back to"
        )

    def refuse(self, reason: str, *, sync: bool = False) -> Sealed:
        """Note why the generation in place has to go, and prepare the last trusted one before it.

        Args:
            reason: Why.
            sync: Whether to bring that to the disk.

        Returns:
            What `put_back` has to be called with.

        Raises:
            OSError, NoGenerationError: There is none, or it cannot be put in place.
        """
        to = self.before()
        assert self.current is not None
        self.records.set_mark(self.current.number, REFUSED, reason)
        try:
            self.prepare(to)
            if sync:
                self.sync_contents()
        except OSError:
            self._forgive(self.current)
            raise
        return to

    def put_back(self, to: Sealed) -> None:
        """Put back what `refuse` prepared; `tidy` should follow.

        Raises:
            OSError: It cannot be; the present one stays in place, and is not refused.
        """
        assert self.current is not None
        failed = self.current
        try:
            self._switch(to)
        except OSError:
            self._forgive(failed)
            raise
        self.on_trial = self.adjourned = False
        reason = self.records.mark(failed.number, REFUSED)
        if reason is not None:
            self.refused[failed.manifest.digest] = reason

    def _forgive(self, generation: Sealed) -> None:
        with suppress(OSError):
            self.records.remove_mark(generation.number, REFUSED)

    def _load(self, number: int) -> Sealed | None:
        manifest = self.records.manifest(number)
        if manifest is None:
            return None
        return Sealed(number, manifest, self._pointer.published(number))

    # --- durability -----------------------------------------------------------------------

    def sync_contents(self) -> None:
        """Bring the staged generation to the disk."""
        sync_file_system(self._pointer.store)

    def sync_pointer(self) -> None:
        """Bring the switch to the disk."""
        descriptor = os.open(self._pointer.parent(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # --- collection -----------------------------------------------------------------------

    def unwanted(self, held: Collection[int]) -> list[Unwanted]:
        """What `retention.remove` is to remove. From now on nothing goes back to one of these.

        Args:
            held: Numbers of generations that processes were started with, or that are staged.
        """
        return self.retention.unwanted(
            {*held, self._pointer.read()},
            present=None if self.current is None else self.current.number,
            on_trial=self.on_trial,
        )
