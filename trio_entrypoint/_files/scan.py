"""Reading a directory that is there: what it consists of, and copying it into a tree."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from trio_entrypoint._files.directories import Directories
from trio_entrypoint._files.errors import SourceChangedError, SourceError
from trio_entrypoint._files.manifest import Entry, Kind
from trio_entrypoint._files.tree import MAX_DEPTH, TreeWriter

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1024 * 1024
_SPECIAL = "a device, FIFO or socket"
_EXPECTED = "expected files, directories and symlinks"


class _Found(NamedTuple):
    path: str
    status: os.stat_result
    parent: int
    name: str


def scan_tree(
    directories: Directories,
    *,
    ignore: Callable[[str], bool] = lambda _: False,
    strict: bool = True,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Entry]:
    """What a directory consists of, contents hashed.

    Args:
        directories: The directory, opened.
        ignore: Whether to leave a path out, with all that is below it.
        strict: Whether a device, FIFO or socket is an error, and what is too deep for a
            `TreeWriter`; else the former are left out.
        check: Called often; it may raise to give up.

    Raises:
        SourceError: It holds what is no file, directory or symlink.
        OSError: Something in it cannot be read, or vanished meanwhile.
    """
    entries = {".": Entry(Kind.DIRECTORY, _mode(os.fstat(directories.descriptor(""))))}
    for path, status, parent, name in _walk(directories, "", ignore):
        check()
        if strict and path.count("/") >= MAX_DEPTH:
            raise SourceError(f"{path[:100]!r}...: deeper than {MAX_DEPTH} directories")
        match stat.S_IFMT(status.st_mode):
            case stat.S_IFDIR:
                entries[path] = Entry(Kind.DIRECTORY, _mode(status))
            case stat.S_IFLNK:
                entries[path] = Entry(Kind.SYMLINK, 0, os.readlink(name, dir_fd=parent))
            case stat.S_IFREG:
                content, size = _hash(name, parent, check)
                entries[path] = Entry(
                    Kind.FILE, _mode(status), content, size, sealed=status.st_mtime_ns
                )
            case _:
                if strict:
                    raise SourceError(f"{path!r} is {_SPECIAL}; {_EXPECTED}")
    return entries


def copy_tree(directories: Directories, expected: Mapping[str, Entry], tree: TreeWriter) -> None:
    """Copy what `scan_tree` found into a tree.

    Raises:
        SourceChangedError: It is not what was found any more.
        SourceError: It holds what must not become part of a target.
        OSError: Something in it cannot be read.
    """
    for path, entry in expected.items():
        parent, _, name = path.rpartition("/")
        match entry.kind:
            case Kind.DIRECTORY:
                tree.directory(path, entry.mode)
            case Kind.SYMLINK:
                tree.symlink(path, entry.content)
            case Kind.FILE:
                descriptor = os.open(name, _FILE, dir_fd=directories.descriptor(parent))
                try:
                    tree.file(path, entry.mode, entry.size, partial(os.read, descriptor))
                finally:
                    os.close(descriptor)
                if tree.entries[path].content != entry.content:
                    raise SourceChangedError(f"{path!r}: written while it was read")


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


def _mode(status: os.stat_result) -> int:
    return stat.S_IMODE(status.st_mode) & 0o777


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
