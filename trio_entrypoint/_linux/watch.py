"""Watching a path: say when the file that it leads to is another one, or was written.

Events are hints, the file system is the truth. A `PathWatch` keeps what it saw (device,
inode, modification time, size, mode: its *identity*); an inotify event only says 'look
again'. So overflow, coalescing, replaced symlinks and directories that go and come back
cannot lose a change.

1. Every directory on the way to the file is watched *before* its entry is read: a change
   after the reading leaves an event, a change before it is in what was read.
2. An event about an entry on the way marks the watch, and it looks again from the root.
3. A file that somebody holds open for writing is not looked at: it counts as what it was
   before, until it is closed.

All watches of a Trio run share one inotify instance, because the kernel limits instances
per user, for all containers of a node together. There is no task that reads it: every
watch waits on a duplicate of the descriptor, and whoever wakes up first reads for all.

What inotify does not see, so that nothing here does: a file system mounted over a directory
on the way, and changes that another machine makes on a network file system.
"""

import errno
import fcntl
import logging
import os
import signal
import stat
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple, final

import attrs
import trio

from trio_entrypoint._linux.inotify import Inotify, Mask
from trio_entrypoint._linux.paths import Entry, resolve

_logger = logging.getLogger(__name__)

POLL_INTERVAL = 1.0
"""Seconds between two looks where inotify cannot be used."""

_NAMES = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO
_CONTENTS = Mask.CLOSE_WRITE | Mask.ATTRIB
_WRITTEN = Mask.CLOSE_WRITE | Mask.MOVED_TO
# Two watches on one directory are one to the kernel: the later must not narrow the earlier.
_MASK_ADD = 0x2000_0000

_NO_INOTIFY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOSYS, errno.EPERM})


class Identity(NamedTuple):
    """What tells one state of a file from another."""

    device: int
    inode: int
    modified: int
    size: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Identity":
        """The identity in an answer of `stat(2)`."""
        return cls(
            status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode
        )


@final
class _Hub:
    """The one inotify instance of a Trio run, and who is interested in which of its watches."""

    def __init__(self) -> None:
        self.users = 0
        self.interests: dict[int, dict[_Interest, set[bytes]]] = {}
        self._warned = False
        self.inotify: Inotify | None = None
        try:
            self.inotify = Inotify()
        except OSError as error:
            self.warn(error)

    def warn(self, error: OSError) -> None:
        """Say, once, that somebody has to poll."""
        if not self._warned:
            self._warned = True
            _logger.warning(
                "inotify is not available (%s): looking every %g s instead; "
                "raise fs.inotify.max_user_instances or max_user_watches",
                error,
                POLL_INTERVAL,
            )

    def add(self, interest: "_Interest", path: bytes, names: set[bytes], mask: int) -> int:
        assert self.inotify is not None
        wd = self.inotify.add_watch(path, mask | _MASK_ADD)
        self.interests.setdefault(wd, {}).setdefault(interest, set()).update(names)
        return wd

    def keep(self, interest: "_Interest", wanted: set[int]) -> None:
        """Drop the interest in all watches but the wanted ones."""
        for wd in interest.watches - wanted:
            interests = self.interests.get(wd)
            if interests is None:
                continue
            interests.pop(interest, None)
            if not interests:
                del self.interests[wd]
                assert self.inotify is not None
                self.inotify.rm_watch(wd)
        interest.watches = wanted

    def dispatch(self) -> None:
        """Read what happened, and mark those whom it concerns."""
        assert self.inotify is not None
        for wd, mask, name in self.inotify.read():
            if mask & Mask.Q_OVERFLOW:
                for interests in self.interests.values():
                    for interest in interests:
                        interest.stale = True
                continue
            interests = self.interests.get(wd, {})
            for interest, names in interests.items():
                if not name or name in names:
                    interest.stale = True
                    interest.written = interest.written or bool(mask & _WRITTEN)
            if mask & Mask.IGNORED:
                self.interests.pop(wd, None)

    def close(self) -> None:
        if self.inotify is not None:
            self.inotify.close()


_hub: trio.lowlevel.RunVar[_Hub | None] = trio.lowlevel.RunVar("trio_entrypoint_inotify", None)


@contextmanager
def _shared_hub() -> Generator[_Hub]:
    hub = _hub.get()
    if hub is None:
        hub = _Hub()
        _hub.set(hub)
    hub.users += 1
    try:
        yield hub
    finally:
        hub.users -= 1
        if not hub.users:
            _hub.set(None)
            hub.close()


@final
@attrs.define(eq=False)
class _Interest:
    """What one watch asked the hub for, and whether it was heard."""

    watches: set[int] = attrs.Factory(set[int])
    stale: bool = False
    written: bool = False


@final
class PathWatch:
    """The state of the file that a path leads to. `open_path_watch` makes it."""

    identity: Identity | None
    """The file as it was last seen; None when there was none."""

    error: OSError | None
    """Why it could not be looked at, when it was last tried; None when it could."""

    def __init__(self, path: bytes, hub: _Hub, descriptor: int | None) -> None:
        self._path = path
        self._hub = hub
        self._descriptor = descriptor
        self.interest = _Interest()
        self._polling = descriptor is None
        self.identity = None
        self.error = None
        self._look()

    async def changed(self) -> None:
        """Wait until the file is not the one last seen, was written anew, came or went.

        A file that appears is reported when its writer has closed it. Cancellation loses
        nothing: the next call reports what happened in between.
        """
        await trio.lowlevel.checkpoint()
        while not self._look_if_stale():
            await self._hint()

    async def _hint(self) -> None:
        if self._polling or self._descriptor is None:
            await trio.sleep(POLL_INTERVAL)
            self.interest.stale = True
        else:
            await trio.lowlevel.wait_readable(self._descriptor)
            self._hub.dispatch()

    def _look_if_stale(self) -> bool:
        """Look again if there is a reason to; say whether something changed."""
        if not self.interest.stale:
            return False
        before = (self.identity, repr(self.error))
        written = self.interest.written
        settled = self._look()
        if not settled:
            return False
        self.interest.written = False
        return (self.identity, repr(self.error)) != before or (
            written and self.identity is not None
        )

    def _look(self) -> bool:
        """Read the truth, and keep it unless the file is just being written."""
        self.interest.stale = False
        wanted: set[int] = set()
        try:
            entry, status = resolve(self._path, lambda entry: self._watch_and_read(entry, wanted))
            writing = status is not None and self._is_being_written(entry, status, wanted)
        except OSError as error:
            if error.errno in _NO_INOTIFY:
                raise
            self.identity, self.error = None, error
            return True
        finally:
            self._hub.keep(self.interest, wanted)
        if writing:
            return False
        self.identity = None if status is None else Identity.of(status)
        self.error = None
        return True

    def _watch_and_read(self, entry: Entry, wanted: set[int]) -> os.stat_result | bytes | None:
        self._watch(entry.directory, {entry.name}, _NAMES | _CONTENTS | Mask.ONLYDIR, wanted)
        try:
            status = os.lstat(entry.path)
            return os.readlink(entry.path) if stat.S_ISLNK(status.st_mode) else status
        except FileNotFoundError:
            return None

    def _watch(self, path: bytes, names: set[bytes], mask: int, wanted: set[int]) -> None:
        if self._polling:
            return
        try:
            wanted.add(self._hub.add(self.interest, path, names, mask))
        except (FileNotFoundError, NotADirectoryError):
            pass  # what was read next says so too, or the directory above has an event waiting
        except OSError as error:
            # Out of watches, or a directory that may be searched but not read.
            self._hub.warn(error)
            self._polling = True

    def _is_being_written(self, entry: Entry, status: os.stat_result, wanted: set[int]) -> bool:
        if not stat.S_ISREG(status.st_mode) or not is_open_for_writing(entry.path):
            return False
        # Its writer may close it by another name, which the directory's watch does not tell.
        self._watch(entry.path, set(), Mask.CLOSE_WRITE, wanted)
        return is_open_for_writing(entry.path)


def is_open_for_writing(path: bytes) -> bool:
    """Whether somebody has a regular file open for writing, as far as that can be known.

    A read lease (`F_SETLEASE` in fcntl(2)) is granted only on a file that nobody has open
    for writing. It needs the file's owner or CAP_LEASE, and a file system that knows leases;
    where it cannot be had the answer is False, and a writer is noticed by its closing only.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # Should somebody open the file in this very moment, the kernel tells the lease's
        # holder by a signal: one that is ignored by default, where SIGIO would terminate.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@asynccontextmanager
async def open_path_watch(path: "str | bytes | os.PathLike[str]") -> AsyncGenerator[PathWatch]:
    """Watch the file that a path leads to, whether or not it exists yet.

    Args:
        path: The path; a relative one counts from the working directory of this moment.

    Example::

        async with open_path_watch("/incoming/config.tar") as watch:
            while True:
                print("is there" if watch.identity else "is not there")
                await watch.changed()
    """
    absolute = os.path.join(os.getcwdb(), os.fsencode(path))
    with _shared_hub() as hub:
        descriptor = None if hub.inotify is None else os.dup(hub.inotify.fd)
        watch = None
        try:
            watch = PathWatch(absolute, hub, descriptor)
            yield watch
        finally:
            if watch is not None:
                hub.keep(watch.interest, set())
            if descriptor is not None:
                trio.lowlevel.notify_closing(descriptor)
                os.close(descriptor)
