"""The kernel's inotify, as inotify(7) describes it: one descriptor, its watches, its events.

Called through ctypes, because the published bindings look the C library up by running
`ldconfig`: a child process at start, under a PID 1 that reaps.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from enum import IntFlag
from typing import NamedTuple, final


@final
class Mask(IntFlag):
    """What to report of a watched directory, and how an event says what happened."""

    ATTRIB = 0x004
    CLOSE_WRITE = 0x008
    MOVED_FROM = 0x040
    MOVED_TO = 0x080
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    UNMOUNT = 0x2000
    Q_OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x0100_0000
    MASK_ADD = 0x2000_0000
    ISDIR = 0x4000_0000


class Event(NamedTuple):
    """One event: the watch (-1 when the queue overflowed), what happened, and to which entry."""

    wd: int
    mask: int
    name: bytes


_HEADER = struct.Struct("iIII")
# Of the kernel's queue at most this much is read at once: 4 KiB hold some hundred events.
_READ_SIZE = 4096


@final
class Inotify:
    """One inotify instance. The user's limit counts instances, so an entrypoint has one.

    Raises:
        OSError: `EMFILE` or `ENOSYS`, from the constructor: no instance is to be had.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._add_watch = libc.inotify_add_watch
        self._add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        self._rm_watch = libc.inotify_rm_watch
        self._rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)
        self.fd: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise _last_error()

    def add_watch(self, path: bytes, mask: int) -> int:
        """Watch a directory, or replace the mask of its watch; return the watch's number.

        Raises:
            OSError: `ENOSPC` when the user's watches are used up; `ENOENT`, `ENOTDIR`,
                `EACCES` and the like for the path.
        """
        wd: int = self._add_watch(self.fd, path, mask)
        if wd < 0:
            raise _last_error(path)
        return wd

    def rm_watch(self, wd: int) -> None:
        """End a watch; one that has ended with its directory is no error."""
        if self._rm_watch(self.fd, wd) < 0 and ctypes.get_errno() != errno.EINVAL:
            raise _last_error()

    def read(self) -> list[Event]:
        """Take events that wait in the kernel's queue, a hundred or so at most; never blocks.

        Returns:
            The events in order; none when none wait.
        """
        try:
            return list(parse_events(os.read(self.fd, _READ_SIZE)))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Close the descriptor, and with it all watches."""
        os.close(self.fd)


def parse_events(buffer: bytes) -> Iterator[Event]:
    """Split what `read(2)` gave into events."""
    position = 0
    while position < len(buffer):
        wd, mask, _cookie, length = _HEADER.unpack_from(buffer, position)
        position += _HEADER.size
        yield Event(wd, mask, buffer[position : position + length].rstrip(b"\0"))
        position += length


def _last_error(path: bytes | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), *([] if path is None else [os.fsdecode(path)]))
