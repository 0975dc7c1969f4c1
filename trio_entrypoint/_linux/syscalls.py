"""System calls that the standard library lacks: renameat2(2) and syncfs(2)."""

import ctypes
import os

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(one: str, other: str) -> None:
    """Swap two directory entries of any types, in one step.

    Raises:
        OSError: `EBUSY` for a mount point, `EXDEV` for a directory of an image's layer
            (overlayfs), `EINVAL` where the file system cannot do it.
    """
    result = ctypes.CDLL(None, use_errno=True).renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
    )
    if result < 0:
        raise _last_error(one)


def sync_file_system(path: str) -> None:
    """Bring all that was written to the file system of `path` to the disk.

    One call for thousands of files, where each fsync(2) would wait for the disk.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) < 0:
            raise _last_error(path)
    finally:
        os.close(descriptor)


def _last_error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
