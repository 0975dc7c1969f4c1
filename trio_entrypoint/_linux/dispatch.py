"""One inotify instance for a whole Trio run, shared by all who watch something.

The kernel limits instances per user, for all containers of a node together, so an entrypoint
has one. No task of its own reads it: of those who wait, one reads for all, wakes those whom
the events concern, and hands the reading on when it leaves.

Where inotify cannot be had (no instance, no watch left, a directory that may be searched but
not read), those whom it concerns look every `POLL_INTERVAL` instead, after one warning.
"""

import logging
import math
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import final

import attrs
import trio

from trio_entrypoint._linux.inotify import Event, Inotify, Mask
from trio_entrypoint._linux.shared import one_per_run

_logger = logging.getLogger(__name__)

POLL_INTERVAL = 1.0
"""Seconds between two looks where inotify cannot be used."""

# Seconds for which events are left to gather, after so many that concerned nobody came each so
# soon after another: a burst of files beside ours wakes us a few times, not for each of them. A
# writer who makes a file beside ours, and moves it into place, is heard before that.
_HOLD_OFF = 0.005
_PATIENCE = 10

# How many events at a time make others wait for too long, were there more of them.
_BURST = 50


@final
@attrs.define(eq=False)
class Interest:
    """What one watcher asked for, and what it has not looked at yet."""

    names: dict[int, set[bytes] | None] = attrs.Factory(dict[int, "set[bytes] | None"])
    """For each watch the entries that matter; None when all of them do."""

    news: int = 0
    """What happened since this was last cleared, all masks together; 0 for nothing."""

    polling: bool = False
    """Whether something cannot be watched, so that only looking again and again tells."""


@final
class Dispatcher:
    """The inotify instance of a Trio run, and who is interested in which of its watches."""

    def __init__(self) -> None:
        self._interested: dict[int, set[Interest]] = {}
        self._waiting: dict[Interest, trio.Event] = {}
        self._reading = False
        self._noises = 0
        self._last_noise = -math.inf
        self._warned = False
        self._inotify: Inotify | None = None
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._warn(error)

    def watch(self, interest: Interest, path: bytes, mask: Mask, name: bytes | None) -> int | None:
        """Report events about one entry (None for every one) of a directory, or about a file.

        Returns:
            The watch's number; None where `interest` has to poll, because it cannot be had.

        Raises:
            FileNotFoundError, NotADirectoryError: There is no such directory.
        """
        if self._inotify is None:
            interest.polling = True
            return None
        try:
            # Two watches on one directory are one to the kernel: the later must not narrow
            # what the earlier asked for.
            wd = self._inotify.add_watch(path, mask | Mask.MASK_ADD)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            self._warn(error)
            interest.polling = True
            return None
        self._interested.setdefault(wd, set()).add(interest)
        names = interest.names.setdefault(wd, set())
        if name is None:
            interest.names[wd] = None
        elif names is not None:
            names.add(name)
        return wd

    def retain(self, interest: Interest, wanted: set[int]) -> None:
        """Give up all watches of an interest but the wanted ones."""
        for wd in interest.names.keys() - wanted:
            del interest.names[wd]
            interested = self._interested.get(wd)
            if interested is None:
                continue
            interested.discard(interest)
            if not interested:
                del self._interested[wd]
                assert self._inotify is not None
                self._inotify.rm_watch(wd)

    async def wait(self, interest: Interest) -> None:
        """Wait until there is news for `interest`. Cancellation loses none."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not interest.news:
            if interest.polling or self._inotify is None:
                await trio.sleep(POLL_INTERVAL)
                interest.news = Mask.Q_OVERFLOW
            elif self._reading:
                await self._wait_for_the_reader(interest)
            else:
                self._reading = True
                try:
                    while not interest.news:
                        await trio.lowlevel.wait_readable(self._inotify.fd)
                        if not await self._read(self._inotify):
                            await self._hold_off()
                finally:
                    self._reading = False
                    self._hand_on()

    async def _wait_for_the_reader(self, interest: Interest) -> None:
        event = self._waiting[interest] = trio.Event()
        try:
            await event.wait()
        except trio.Cancelled:
            # It may have been chosen as the next reader in the moment of its cancellation.
            if event.is_set() and not self._reading:
                self._hand_on()
            raise
        finally:
            self._waiting.pop(interest, None)

    def _hand_on(self) -> None:
        """Wake one of those who wait: it becomes the reader."""
        if self._waiting:
            self._waiting.popitem()[1].set()

    async def _read(self, inotify: Inotify) -> bool:
        """Read what happened until nothing is left, wake whom it concerns; say if anybody."""
        concerned = False
        while events := inotify.read():
            for event in events:
                concerned |= self._take(event)
            if len(events) > _BURST:
                await trio.lowlevel.checkpoint()  # the queue holds thousands
        return concerned

    async def _hold_off(self) -> None:
        """Let events that concern nobody gather, if they come one right after another."""
        if trio.current_time() > self._last_noise + _HOLD_OFF:
            self._noises = 0
        self._noises += 1
        if self._noises > _PATIENCE:
            await trio.sleep(_HOLD_OFF)
        self._last_noise = trio.current_time()

    def _take(self, event: Event) -> bool:
        """Tell those whom an event concerns; return whether there are any."""
        wd, mask, name = event
        concerned = False
        if mask & Mask.Q_OVERFLOW:
            for interested in self._interested.values():
                for interest in interested:
                    self._tell(interest, mask)
            return True
        for interest in self._interested.get(wd, ()):
            names = interest.names[wd]
            if names is None or not name or name in names:
                concerned = True
                self._tell(interest, mask)
        if mask & Mask.IGNORED:
            for interest in self._interested.pop(wd, ()):
                interest.names.pop(wd, None)
        return concerned

    def _tell(self, interest: Interest, mask: int) -> None:
        interest.news |= mask
        event = self._waiting.pop(interest, None)
        if event is not None:
            event.set()

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(
                "inotify cannot be used (%s): looking every %g s instead; raise fs.inotify."
                "max_user_instances or max_user_watches, or allow reading the directory",
                error,
                POLL_INTERVAL,
            )

    def close(self) -> None:
        """Close the instance; nobody may be waiting."""
        if self._inotify is not None:
            self._inotify.close()


@one_per_run
@contextmanager
def shared_dispatcher() -> Generator[Dispatcher]:
    """Share the Trio run's instance; the last one to leave closes it."""
    with closing(Dispatcher()) as dispatcher:
        yield dispatcher
