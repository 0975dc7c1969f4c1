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
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, TypeAlias

from trio_entrypoint._arguments import AnyPath, check_path
from trio_entrypoint._files.adoption import adopt_directory, adopt_entries, adopt_file
from trio_entrypoint._files.generations import Store
from trio_entrypoint._files.overlap import refuse_overlap
from trio_entrypoint._files.pointers import (
    FilePointer,
    InsidePointer,
    Pointer,
    SymlinkPointer,
    sibling_store,
)
from trio_entrypoint._linux.mounts import mount_points

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


def open_directory(
    target: str, sources: Sequence[AnyPath], *, layout: Layout, keep: int, share: Share
) -> Store:
    """Open the store of a directory target, adopt what is there, and recover from a crash.

    Raises:
        OSError, InUseError: The target cannot be managed, or not from these sources' paths;
            the message names it.
        ValueError: An argument is none of those that are known.
    """
    _check_choice("layout", layout, ("auto", "symlink", "inside"))
    _check_choice("share", share, ("link", "copy"))
    target = resolve(target)
    refuse_overlap(target, sources)
    status = _status(target)
    if status is not None and not stat.S_ISDIR(status.st_mode) and not _is_ours(target):
        raise NotADirectoryError(
            errno.ENOTDIR, "a file, expected a directory (or nothing yet)", target
        )
    os.makedirs(os.path.dirname(target), exist_ok=True)
    found = _layout_of(target)
    if layout not in ("auto", found or layout):
        raise FileExistsError(
            errno.EEXIST, f"has the layout {found!r}, expected {layout!r}: move it away", target
        )
    if "inside" in (layout, found):
        return _open_inside(target, keep=keep, share=share)
    pointer = SymlinkPointer(target)
    if found is not None or status is None:
        return _open(pointer, keep=keep, share=share)
    try:
        return _open(pointer, keep=keep, share=share, adopt=lambda store: _replace(store, pointer))
    except OSError as error:
        if layout == "symlink" or error.errno not in _MUST_STAY:
            raise
        with suppress(OSError):
            os.rmdir(sibling_store(target))
        return _open_inside(target, keep=keep, share=share)


def open_file(target: str, sources: Sequence[AnyPath], *, keep: int) -> Store:
    """Open the store of a single-file target, adopt what is there, and recover from a crash.

    Args:
        target: The path that `resolve` gave.
        sources: Where the contents come from.
        keep: How many generations before the one in place are kept.

    Raises:
        OSError, InUseError: The target cannot be managed, or not from these sources' paths;
            the message names it.
    """
    refuse_overlap(target, sources)
    status = _status(target)
    if status is not None and not stat.S_ISREG(status.st_mode):
        code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EEXIST
        raise OSError(code, "no regular file, expected one (or nothing yet)", target)
    if _is_mount_point(target):
        raise OSError(
            errno.EBUSY, "a mount point cannot be replaced: mount its directory instead", target
        )
    os.makedirs(os.path.dirname(target), exist_ok=True)
    pointer = FilePointer(target)

    def adopt(store: Store) -> None:
        if status is not None and store.current is None:
            adopt_file(store, pointer)

    return _open(pointer, keep=keep, share="copy", adopt=adopt)


def _open_inside(target: str, *, keep: int, share: Share) -> Store:
    os.makedirs(target, exist_ok=True)
    pointer = InsidePointer(target)
    return _open(
        pointer, keep=keep, share=share, adopt=lambda store: adopt_entries(store, pointer)
    )


def _replace(store: Store, pointer: SymlinkPointer) -> None:
    if _is_mount_point(pointer.target):
        raise OSError(errno.EBUSY, "a mount point cannot be replaced", pointer.target)
    adopt_directory(store, pointer)


def _open(
    pointer: Pointer,
    *,
    keep: int,
    share: Share,
    adopt: Callable[[Store], None] = lambda _: None,
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
            f"the generations of {pointer.target} cannot be kept here: {error.strerror}",
            pointer.store,
        ) from error
    store = Store(pointer, keep=keep, share=share == "link")
    try:
        store.recover()
        adopt(store)
    except BaseException:
        store.close()
        raise
    return store


def _layout_of(target: str) -> Layout | None:
    if _is_ours(target):
        return "symlink"
    return None if InsidePointer(target).read() is None else "inside"


def _is_mount_point(path: str) -> bool:
    """Whether something is mounted at a path, be it from the same file system."""
    try:
        return os.fsencode(path) in mount_points()
    except OSError:
        return os.path.ismount(path)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


def resolve(target: str) -> str:
    """The target, absolute and without symlinks but its own pointer."""
    check_path("target", target)
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
