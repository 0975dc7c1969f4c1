"""Watching a path: say when the file that it leads to is another one, or was written.

Events are hints, the file system is the truth. A watch keeps what it saw (device, inode,
modification time, size, mode: its *identity*); an inotify event only says 'look again'. So
overflow, coalescing, replaced symlinks and directories that go and come back cannot lose a
change.

1. Every directory on the way to the file is watched *before* its entry is read: a change
   after the reading leaves an event, a change before it is in what was read.
2. An event about an entry on the way marks the watch, and it looks again from the root.
3. A file that somebody holds open for writing is not looked at: it counts as what it was
   before, until it is closed.
4. A file that is itself a mount point (`docker run -v FILE:FILE`, a Kubernetes `subPath`) is
   watched, too: the kernel tells what is written to it only to the directory it comes from.

What inotify does not see, so that nothing here does: a file system mounted over a directory
on the way, and changes that another machine makes on a network file system.
"""

import errno
import fcntl
import os
import signal
import stat
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from typing import NamedTuple, final

import trio

from trio_entrypoint._arguments import AnyPath
from trio_entrypoint._linux.dispatch import Dispatcher, Interest, shared_dispatcher
from trio_entrypoint._linux.inotify import Mask
from trio_entrypoint._linux.mounts import mount_points
from trio_entrypoint._linux.paths import Entry, resolve

_NAMES = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.ATTRIB | Mask.ONLYDIR
_WRITTEN = Mask.CLOSE_WRITE | Mask.MOVED_TO
_MOUNTED_FILE = Mask.CLOSE_WRITE | Mask.ATTRIB

_TRIES = 20


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
class PathWatch:
    """The state of the file that a path leads to. `open_path_watch` makes it."""

    identity: Identity | None = None
    """The file as it was last seen; None when there was none."""

    error: OSError | None = None
    """Why it could not be looked at, when it was last tried; None when it could."""

    def __init__(self, path: bytes, dispatcher: Dispatcher, contents: bool) -> None:
        self._path = path
        self._dispatcher = dispatcher
        self._contents = contents
        self._interest = Interest()
        # Something was written that nobody was told of, because it is still being written.
        self._written = False
        self._look()

    async def changed(self) -> None:
        """Wait until the file is not the one last seen, was written anew, came or went.

        A file that appears is reported when its writer has closed it. Cancellation loses
        nothing: the next call reports what happened in between.
        """
        while True:
            await self._dispatcher.wait(self._interest)
            if self._look_again():
                return

    def close(self) -> None:
        """Give up all watches."""
        self._dispatcher.retain(self._interest, set())

    def _look_again(self) -> bool:
        """Look because there is news; say whether something changed."""
        before = (self.identity, repr(self.error))
        news, self._interest.news = self._interest.news, 0
        if not self._look():
            # What was written is told when the writer is done.
            self._written = self._written or bool(news & _WRITTEN)
            return False
        written = self._contents and (self._written or bool(news & _WRITTEN))
        self._written = False
        after = (self.identity, repr(self.error))
        return after != before or (written and self.identity is not None)

    def _look(self) -> bool:
        """Read the truth, and keep it unless the file is just being written."""
        wanted: set[int] = set()
        status: os.stat_result | None = None
        try:
            entry, status = follow(
                self._dispatcher,
                self._interest,
                self._path,
                wanted,
                contents=self._contents,
                mounts=known_mounts() if self._contents else (),
            )
            if (
                self._contents
                and status is not None
                and is_being_written(self._dispatcher, self._interest, entry.path, status, wanted)
            ):
                return False
        except OSError as error:
            self.identity, self.error = None, error
            return True
        finally:
            self._dispatcher.retain(self._interest, wanted)
        self.identity = None if status is None else Identity.of(status)
        self.error = None
        return True


def follow(
    dispatcher: Dispatcher,
    interest: Interest,
    path: bytes,
    wanted: set[int],
    *,
    contents: bool,
    mounts: Collection[bytes] = (),
) -> tuple[Entry, os.stat_result | None]:
    """Resolve an absolute path as `paths.resolve` does, watching each entry before it is read.

    Args:
        dispatcher: Who watches.
        interest: Who is told.
        path: The absolute path.
        wanted: Gets the numbers of the watches.
        contents: Whether writing the file at the path's end is news as well.
        mounts: Where something is mounted; at the path's end it is watched by itself.

    Raises:
        OSError: The path cannot be followed: a loop, a file among the directories, no access.
    """

    def look(entry: Entry, last: bool) -> os.stat_result | bytes | None:
        mask = _NAMES | Mask.CLOSE_WRITE if contents and last else _NAMES
        try:
            wd = dispatcher.watch(interest, entry.directory, mask, entry.name)
        except (FileNotFoundError, NotADirectoryError):
            pass  # what is read next says so too, or the directory above has an event waiting
        else:
            wanted.update(() if wd is None else (wd,))
        try:
            if last and entry.path in mounts:
                watch_mounted(dispatcher, interest, entry.path, wanted)
            tries = 0
            while True:
                tries += 1
                status = os.lstat(entry.path)
                if not stat.S_ISLNK(status.st_mode):
                    return status
                try:
                    return os.readlink(entry.path)
                except OSError as error:
                    # EINVAL: it was replaced in this very moment, and is no symlink any more. Or
                    # the file system cannot tell where it leads: some over a network do so.
                    if error.errno != errno.EINVAL or tries == _TRIES:
                        raise
        except FileNotFoundError:
            return None

    return resolve(path, look)


def known_mounts() -> frozenset[bytes]:
    """Where something is mounted; nowhere, if the kernel does not tell."""
    try:
        return mount_points()
    except OSError:
        return frozenset()


def watch_mounted(
    dispatcher: Dispatcher, interest: Interest, path: bytes, wanted: set[int]
) -> None:
    """Watch a file that is a mount point, which its directory's watch does not do.

    Raises:
        FileNotFoundError: It is not there any more.
    """
    wd = dispatcher.watch(interest, path, _MOUNTED_FILE, None)
    wanted.update(() if wd is None else (wd,))


def is_being_written(
    dispatcher: Dispatcher,
    interest: Interest,
    path: bytes,
    status: os.stat_result,
    wanted: set[int],
) -> bool:
    """Whether somebody has a file open for writing; if so, its closing will be news."""
    if not stat.S_ISREG(status.st_mode) or not is_open_for_writing(path):
        return False
    try:
        # Its writer may close it by another name, which the directory's watch does not tell.
        wd = dispatcher.watch(interest, path, Mask.CLOSE_WRITE, None)
    except FileNotFoundError:
        return False
    wanted.update(() if wd is None else (wd,))
    return is_open_for_writing(path)


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


def absolute(path: AnyPath) -> bytes:
    """The path from the root, as the working directory of this moment has it; not normalised."""
    return os.path.join(os.getcwdb(), os.fsencode(path))


@asynccontextmanager
async def open_path_watch(path: AnyPath, *, contents: bool = True) -> AsyncGenerator[PathWatch]:
    """Watch the file that a path leads to, whether or not it exists yet.

    Args:
        path: The path; a relative one counts from the working directory of this moment.
        contents: Whether writing the file counts as a change, and whether a file that is
            still being written is waited for. Without, it is only its being there that counts.

    Example::

        async with open_path_watch("/incoming/config.tar") as watch:
            while True:
                print("is there" if watch.identity else "is not there")
                await watch.changed()
    """
    await trio.lowlevel.checkpoint()
    with shared_dispatcher() as dispatcher:
        watch = PathWatch(absolute(path), dispatcher, contents)
        try:
            yield watch
        finally:
            watch.close()
