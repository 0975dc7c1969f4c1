"""Writing one new file, never an existing one, and never through a link."""

import os
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from trio_entrypoint._files.errors import SourceError

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

CHUNK = 1024 * 1024
"""Larger files are written piece by piece, so that memory does not depend on their size."""


class Attributes(NamedTuple):
    """What a file is given beside its contents."""

    mode: int
    owner: tuple[int, int] | None = None
    time: int | None = None


def write_file(parent: int, name: str, data: bytes, attributes: Attributes) -> int:
    """Make a file; return its time of modification (ns) as the kernel keeps it."""
    descriptor = os.open(name, _CREATE, 0o600, dir_fd=parent)
    try:
        _write_all(descriptor, data)
        return _finish(descriptor, attributes)
    finally:
        os.close(descriptor)


def stream_file(
    parent: int,
    name: str,
    size: int,
    data: bytes,
    read: Callable[[int], bytes],
    attributes: Attributes,
    check: Callable[[], None],
) -> tuple[str, int]:
    """Make a file that is not held in memory as a whole.

    Args:
        parent: Descriptor of its directory.
        name: Its name there.
        size: How many bytes it has.
        data: The first of them.
        read: Gives at most so many of the others, and none at the end.
        attributes: What it is given.
        check: Called often; it may raise to give up.

    Returns:
        The SHA-256 of its contents, and its time of modification (ns).
    """
    digest = sha256()
    missing = size
    descriptor = os.open(name, _CREATE, 0o600, dir_fd=parent)
    try:
        while data:
            check()
            digest.update(data)
            _write_all(descriptor, data)
            missing -= len(data)
            data = read(min(missing, CHUNK)) if missing else b""
        if missing:
            raise SourceError(f"{name!r}: ends {missing} bytes before its size, {size}")
        return digest.hexdigest(), _finish(descriptor, attributes)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data) if data else 0
    while written < len(data):
        written += os.write(descriptor, data[written:])


def _finish(descriptor: int, attributes: Attributes) -> int:
    mode, owner, time = attributes
    if owner is not None:
        os.fchown(descriptor, *owner)
    os.fchmod(descriptor, mode)
    if time is not None:
        os.utime(descriptor, ns=(time, time))
    return os.fstat(descriptor).st_mtime_ns
