"""Opening a target: which pointer it gets, and how what is already there is adopted.

| what is at the target | pointer |
| --- | --- |
| nothing, or a symlink into its own store | `SymlinkPointer` (a file: `FilePointer`) |
| a directory with a `..data` of ours | `InsidePointer` |
| a directory that can be exchanged for a symlink | `SymlinkPointer`; it is adopted |
| a directory that has to stay | `InsidePointer`; its entries are adopted |
| a file, where a file is wanted | `FilePointer`; the file is adopted |

What has to stay is a mount point, a directory of an image's layer (overlayfs), or one in a
directory that may not be written to.

Adopted means: it becomes the first generation as it is, and at no moment it is missing. (An
empty directory is nothing to adopt: it becomes generation 0, that nobody rolls back to.)
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeAlias

from trio_entrypoint._files.directories import Directories
from trio_entrypoint._files.generations import NOTHING, Store
from trio_entrypoint._files.manifest import Entry, Manifest, tree_digest
from trio_entrypoint._files.pointers import (
    FilePointer,
    InsidePointer,
    SymlinkPointer,
    sibling_store,
)
from trio_entrypoint._files.scan import scan_tree
from trio_entrypoint._linux.syscalls import exchange

Layout: TypeAlias = Literal["auto", "symlink", "inside"]
Share: TypeAlias = Literal["link", "copy"]

# What says that a directory cannot be replaced by another entry, or not here, or not by us.
_MUST_STAY = frozenset(
    {
        errno.EBUSY,
        errno.EXDEV,
        errno.EINVAL,
        errno.ENOSYS,
        errno.EPERM,
        errno.EACCES,
        errno.EROFS,
    }
)


def open_directory(target: str, *, layout: Layout, keep: int, share: Share) -> Store:
    """Open the store of a directory target, adopt what is there, and recover from a crash.

    Raises:
        OSError, InUseError: The target cannot be managed; the message names it.
        ValueError: An argument is none of those that are known.
    """
    _check_choice("layout", layout, ("auto", "symlink", "inside"))
    _check_choice("share", share, ("link", "copy"))
    target = _resolve(target)
    status = _status(target)
    if status is not None and not stat.S_ISDIR(status.st_mode) and not _is_ours(target):
        raise NotADirectoryError(
            errno.ENOTDIR, "a file, expected a directory (or nothing yet)", target
        )
    os.makedirs(os.path.dirname(target), exist_ok=True)
    is_directory = status is not None and stat.S_ISDIR(status.st_mode)
    if layout == "inside" or (is_directory and InsidePointer(target).read() is not None):
        return _open_inside(target, keep=keep, share=share)
    if not is_directory:
        return _open(SymlinkPointer(target), keep=keep, share=share)
    try:
        return _open_adopting(SymlinkPointer(target), keep=keep, share=share)
    except OSError as error:
        if layout == "symlink" or error.errno not in _MUST_STAY:
            raise
        with suppress(OSError):
            os.rmdir(sibling_store(target))
        return _open_inside(target, keep=keep, share=share)


def open_file(target: str, *, keep: int) -> Store:
    """Open the store of a single-file target, adopt what is there, and recover from a crash.

    Raises:
        OSError, InUseError: The target cannot be managed; the message names it.
    """
    target = _resolve(target)
    status = _status(target)
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise IsADirectoryError(
            errno.EISDIR, "no regular file, expected one (or nothing yet)", target
        )
    os.makedirs(os.path.dirname(target), exist_ok=True)
    pointer = FilePointer(target)
    store = _open(pointer, keep=keep, share="copy")
    try:
        if status is not None and pointer.read() is None:
            number = store.next_number()
            os.makedirs(os.path.dirname(pointer.published(number)))
            pointer.adopt(number)
            entries = _scan(os.path.dirname(pointer.published(number)))
            digest = entries[pointer.name].content
            store.seal(number, Manifest(entries, digest))
            store.recover()
    except BaseException:
        store.close()
        raise
    return store


def _open(
    pointer: SymlinkPointer | InsidePointer | FilePointer, *, keep: int, share: Share
) -> Store:
    if keep < 1:
        raise ValueError(
            f"keep is {keep!r}, expected at least 1 generation before the present one"
        )
    try:
        os.makedirs(pointer.store, mode=0o755, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"the generations of {pointer.target} cannot be kept next to it: {error.strerror}",
            pointer.store,
        ) from error
    store = Store(pointer, keep=keep, share=share == "link")
    try:
        store.recover()
    except BaseException:
        store.close()
        raise
    return store


def _open_adopting(pointer: SymlinkPointer, *, keep: int, share: Share) -> Store:
    if os.path.ismount(pointer.target):
        raise OSError(errno.EBUSY, "a mount point cannot be replaced", pointer.target)
    store = _open(pointer, keep=keep, share=share)
    try:
        entries = _scan(pointer.target)
        number = store.next_number() if len(entries) > 1 else NOTHING
        os.makedirs(os.path.dirname(pointer.published(number)), exist_ok=True)
        store.seal(number, Manifest(entries, tree_digest(entries)))
        try:
            pointer.adopt(number)
        except OSError:
            store.remove(number)
            raise
        store.recover()
    except BaseException:
        store.close()
        raise
    return store


def _open_inside(target: str, *, keep: int, share: Share) -> Store:
    os.makedirs(target, exist_ok=True)
    pointer = InsidePointer(target)
    store = _open(pointer, keep=keep, share=share)
    try:
        if pointer.read() is None:
            entries = _scan(target, ignore=pointer.foreign)
            if len(entries) > 1:
                number = store.next_number()
                os.makedirs(pointer.published(number))
                store.seal(number, Manifest(entries, tree_digest(entries)))
                pointer.prepare(number, ())
                pointer.switch()
        store.recover()
        if store.current is not None:
            _adopt_entries(pointer, store.current.number, store.current.manifest)
    except BaseException:
        store.close()
        raise
    return store


def _adopt_entries(pointer: InsidePointer, number: int, manifest: Manifest) -> None:
    """Move the entries of the target into its first generation, one by one.

    Each changes places with the symlink that leads to it there. What was interrupted is
    continued at the next start: an entry that is no symlink through `..data` is not done.
    """
    tree = pointer.published(number)
    for name in manifest.top_level():
        inside, outside = os.path.join(tree, name), os.path.join(pointer.target, name)
        if not pointer.is_own(name) and os.path.lexists(outside) and not os.path.exists(inside):
            with suppress(FileExistsError):
                os.symlink(pointer.link(name), inside)
            exchange(inside, outside)


def _scan(path: str, ignore: Callable[[str], bool] = lambda _: False) -> dict[str, Entry]:
    with Directories(path) as directories:
        return scan_tree(directories, ignore=ignore, strict=False)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


def _resolve(target: str) -> str:
    """The target, absolute and without symlinks but its own pointer."""
    directory, name = os.path.split(os.path.abspath(target))
    if not name:
        raise OSError(errno.EBUSY, "the root directory cannot be a target", target)
    resolved = os.path.join(os.path.realpath(directory), name)
    return resolved if _is_ours(resolved) else os.path.realpath(resolved)


def _is_ours(target: str) -> bool:
    try:
        return os.readlink(target).startswith(os.path.basename(sibling_store(target)) + "/")
    except OSError:
        return False


def _status(target: str) -> os.stat_result | None:
    try:
        return os.lstat(target)
    except FileNotFoundError:
        return None
