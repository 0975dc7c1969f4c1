"""Reading a directory that is there: what it consists of, and copying it into a tree."""

import os
import stat
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import NamedTuple

from trio_entrypoint._files.directories import Directories
from trio_entrypoint._files.errors import SourceError
from trio_entrypoint._files.manifest import Entry, Kind
from trio_entrypoint._files.tree import TreeWriter

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1024 * 1024


class _Found(NamedTuple):
    path: str
    status: os.stat_result
    parent: int
    name: str


def scan_tree(
    root: str,
    *,
    ignore: Callable[[str], bool] = lambda _: False,
    strict: bool = True,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Entry]:
    """What a directory consists of, contents hashed.

    Args:
        root: The directory.
        ignore: Whether to leave a path out, with all that is below it.
        strict: Whether a device, FIFO or socket is an error; else it is left out.
        check: Called often; it may raise to give up.

    Raises:
        SourceError: It holds what is no file, directory or symlink.
        OSError: Something in it cannot be read, or vanished meanwhile.
    """
    with Directories(root) as directories:
        status = os.fstat(directories.descriptor(""))
        entries = {".": Entry(Kind.DIRECTORY, stat.S_IMODE(status.st_mode) & 0o777)}
        for path, status, parent, name in _walk(directories, "", ignore):
            check()
            mode = stat.S_IMODE(status.st_mode) & 0o777
            match stat.S_IFMT(status.st_mode):
                case stat.S_IFDIR:
                    entries[path] = Entry(Kind.DIRECTORY, mode)
                case stat.S_IFLNK:
                    entries[path] = Entry(Kind.SYMLINK, 0, os.readlink(name, dir_fd=parent))
                case stat.S_IFREG:
                    content, size = _hash(name, parent, check)
                    entries[path] = Entry(
                        Kind.FILE, mode, content, size, sealed=status.st_mtime_ns
                    )
                case _:
                    if strict:
                        raise _special(path)
    return entries


def copy_tree(
    root: str, tree: TreeWriter, *, ignore: Callable[[str], bool] = lambda _: False
) -> None:
    """Copy a directory into a tree, its own mode included.

    Raises:
        SourceError: It holds what must not become part of a target.
        OSError: Something in it cannot be read, or vanished meanwhile.
    """
    with Directories(root) as directories:
        tree.directory(".", stat.S_IMODE(os.fstat(directories.descriptor("")).st_mode))
        for path, status, parent, name in _walk(directories, "", ignore):
            mode = stat.S_IMODE(status.st_mode)
            match stat.S_IFMT(status.st_mode):
                case stat.S_IFDIR:
                    tree.directory(path, mode)
                case stat.S_IFLNK:
                    tree.symlink(path, os.readlink(name, dir_fd=parent))
                case stat.S_IFREG:
                    descriptor = os.open(name, _FILE, dir_fd=parent)
                    try:
                        tree.file(path, mode, os.fstat(descriptor).st_size, _reader(descriptor))
                    finally:
                        os.close(descriptor)
                case _:
                    raise _special(path)


def _walk(directories: Directories, path: str, ignore: Callable[[str], bool]) -> Iterator[_Found]:
    for name in sorted(os.listdir(directories.descriptor(path))):
        below = f"{path}/{name}" if path else name
        if ignore(below):
            continue
        parent = directories.descriptor(path)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        yield _Found(below, status, parent, name)
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(directories, below, ignore)


def _special(path: str) -> SourceError:
    return SourceError(f"{path!r} is a device, FIFO or socket; expected files, directories, links")


def _reader(descriptor: int) -> Callable[[int], bytes]:
    return lambda size: os.read(descriptor, size)


def _hash(name: str, parent: int, check: Callable[[], None]) -> tuple[str, int]:
    descriptor = os.open(name, _FILE, dir_fd=parent)
    try:
        digest, size = sha256(), 0
        while data := os.read(descriptor, _CHUNK):
            check()
            digest.update(data)
            size += len(data)
        return digest.hexdigest(), size
    finally:
        os.close(descriptor)
