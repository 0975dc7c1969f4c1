"""Reading a source file that somebody else may be writing to."""

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from typing import final

from trio_entrypoint._files.errors import SourceChangedError
from trio_entrypoint._linux.watch import is_open_for_writing
from trio_entrypoint.configuration.source import Check


@contextmanager
def open_settled(path: str | os.PathLike[str]) -> Generator[int]:
    """Open a file that nobody is writing to, for reading.

    Raises:
        FileNotFoundError: It does not exist.
        OSError: It cannot be read, or is no regular file.
        SourceChangedError: Somebody has it open for writing.
    """
    # Non-blocking, because opening a FIFO would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{os.fspath(path)}: no regular file, expected one")
        if is_open_for_writing(os.fsencode(path)):
            raise SourceChangedError(f"{os.fspath(path)}: is being written by another process")
        yield descriptor
    finally:
        os.close(descriptor)


@final
class HashingReader:
    """Reads a descriptor from its beginning, and knows the SHA-256 of what was read."""

    def __init__(self, descriptor: int, check: Check) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        self._descriptor = descriptor
        self._check = check
        self._digest = sha256()

    def read(self, size: int) -> bytes:
        """Read at most so many bytes; none at the end."""
        self._check()
        data = os.read(self._descriptor, size)
        self._digest.update(data)
        return data

    def digest(self) -> str:
        """Read what is left, and tell the digest of the whole."""
        while self.read(1024 * 1024):
            pass
        return self._digest.hexdigest()
