"""Reading a compressed stream piece by piece, with bounded memory and clear errors.

The kind is told by the first bytes, never by a name. Several streams after each other are
one, as gzip, bzip2, xz and zstd themselves have it; zeros after the last are padding.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Protocol, final

from trio_entrypoint._files.errors import SourceError

_INPUT = 64 * 1024
# What the highest preset of xz needs (65 MiB), and half of what zstd's format recommends to
# refuse: a stream may claim a dictionary of gigabytes.
_DECODER_MEMORY = 128 * 1024 * 1024


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


def open_compressed(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Make a function that reads a stream unpacked, whatever it was packed with.

    Args:
        read: Gives at most so many bytes of the stream, and none at its end.

    Returns:
        The same for what is in it; it raises `SourceError` where that breaks off.
    """
    head = read(_INPUT)
    while 0 < len(head) < 6 and (more := read(_INPUT)):
        head += more
    if not head:
        raise SourceError("an empty file, expected a tar archive")
    for magic, name, make in _KINDS:
        if head.startswith(magic):
            return _Stream(name, make, head, read).read
    return _Plain(head, read).read


@final
class _Plain:
    def __init__(self, head: bytes, read: Callable[[int], bytes]) -> None:
        self._head = head
        self._read = read

    def read(self, size: int) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._read(size)


@final
class _Stream:
    def __init__(
        self,
        name: str,
        make: Callable[[], _Decompressor],
        head: bytes,
        read: Callable[[int], bytes],
    ) -> None:
        self._name = name
        self._make = make
        self._decompressor = make()
        self._input = head
        self._read = read

    def read(self, size: int) -> bytes:
        try:
            return self._unpack(size)
        except SourceError:
            raise
        except Exception as error:  # each library has its own, and zlib's is no OSError
            raise SourceError(f"corrupt {self._name} stream: {error}") from error

    def _unpack(self, size: int) -> bytes:
        while True:
            if self._decompressor.eof:
                rest = (self._decompressor.unused_data or self._read(_INPUT)).lstrip(b"\0")
                if not rest:
                    return b""
                self._decompressor, self._input = self._make(), rest
            if self._decompressor.needs_input and not self._input:
                self._input = self._read(_INPUT)
                if not self._input:
                    raise SourceError(f"truncated: the {self._name} stream breaks off")
            data = self._decompressor.decompress(self._input, size)
            self._input = b""
            if data:
                return data


@final
class _Gzip:
    """zlib's decompressor in the shape of the others."""

    def __init__(self) -> None:
        import zlib

        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


def _bzip2() -> _Decompressor:
    import bz2

    return bz2.BZ2Decompressor()


def _xz() -> _Decompressor:
    import lzma

    return lzma.LZMADecompressor(memlimit=_DECODER_MEMORY)


def _zstd() -> _Decompressor:
    # Part of Python since 3.14, and before that in a package of the same interface.
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        zstd = import_module(name)
    except ImportError:
        raise SourceError(
            "a zstd stream, which needs the extra: install trio-entrypoint[zstd]"
        ) from None
    limit = _DECODER_MEMORY.bit_length() - 1
    decompressor: _Decompressor = zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: limit}
    )
    return decompressor


_KINDS: tuple[tuple[bytes, str, Callable[[], _Decompressor]], ...] = (
    (b"\x1f\x8b", "gzip", _Gzip),
    (b"BZh", "bzip2", _bzip2),
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
)
