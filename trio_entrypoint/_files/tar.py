"""The tar format: from a stream of blocks to members. Where they may go is not known here.

Our own reader, because the standard library's `tarfile` takes the length of a name or of a
pax header from the archive and reads that much into memory, keeps an object per member, and
needs longer for the headers of 2000 small files (48 ms) than the kernel needs for the files
themselves (25 ms).

Sources: pax(1) of POSIX.1-2008 ('ustar Interchange Format', 'pax Extended Header'), and GNU
tar's manual ('Basic Tar Format', 'Sparse Formats').
"""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final, final
from zlib import adler32

from trio_entrypoint._files.errors import SourceError

BLOCK: Final = 512
_ZEROS: Final = bytes(BLOCK)
_CHUNK: Final = 64 * 1024
# The longest name that Linux opens has 4 KiB; what else is in a pax header is not for us.
_MAX_EXTENSION: Final = 256 * 1024
_MAX_DIGITS: Final = 20  # of the largest offset
_MAX_TIME_DIGITS: Final = 11
_NO_IDENTIFIER: Final = 2**32 - 1
_REGULAR: Final = "0\0" + "7"
_SPARSE_0_0: Final = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_SPARSE: Final = [b"GNU.sparse." + key for key in b"major name realsize size map".split()]
_KEYS: Final = {b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", *_SPARSE_0_0, *_SPARSE}


@final
class Member:
    """One member: what its header says, and its contents, to be read before the next one."""

    __slots__ = ("_attributes", "_block", "kind", "name", "read", "size")

    def __init__(
        self,
        block: bytes,
        attributes: Mapping[bytes, bytes],
        name: bytes,
        kind: str,
        size: int,
        read: Callable[[int], bytes],
    ) -> None:
        self._block = block
        self._attributes = attributes
        self.name = name
        self.kind = kind
        """The type flag: `0` a file, `5` a directory, `1` and `2` hard and symbolic links."""
        self.size = size
        """Bytes of contents, unpacked."""
        self.read = read
        """Gives at most so many bytes of the contents, and none at their end."""

    @property
    def mode(self) -> int:
        """Permission bits, and those beyond them."""
        return _number(self._block[100:108])

    @property
    def link(self) -> bytes:
        """What a link leads to."""
        return self._attributes.get(b"linkpath", _text(self._block[157:257]))

    @property
    def owner(self) -> tuple[int, int]:
        """User and group, by number."""
        return (
            _identifier(self._attributes, b"uid", self._block[108:116]),
            _identifier(self._attributes, b"gid", self._block[116:124]),
        )

    @property
    def time(self) -> int:
        """Time of modification in nanoseconds."""
        return _time(self._attributes, self._block[136:148])


@final
class Blocks:
    """A stream read in exact amounts.

    Args:
        read: Gives at most so many bytes of the stream, and none at its end.
        max_skipped: How many bytes may be of no interest.
        check: Called often; it may raise to give up.
    """

    def __init__(
        self, read: Callable[[int], bytes], max_skipped: int, check: Callable[[], None]
    ) -> None:
        self._read = read
        self._check = check
        self._skippable = max_skipped
        self._buffer = b""
        self._position = 0

    def exact(self, size: int) -> bytes:
        """Read so many bytes.

        Raises:
            SourceError: There are less.
        """
        end = self._position + size
        if end <= len(self._buffer):
            data = self._buffer[self._position : end]
            self._position = end
            return data
        parts = [self._buffer[self._position :]]
        missing = size - len(parts[0])
        self._buffer, self._position = b"", 0
        while missing:
            self._check()
            data = self._read(_CHUNK)
            if not data:
                raise SourceError("truncated: the archive breaks off")
            parts.append(data[:missing])
            if len(data) > missing:
                self._buffer, self._position = data, missing
            missing -= len(parts[-1])
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Read so many bytes, and forget them."""
        self._count(size)
        while size:
            self._check()
            size -= len(self.exact(min(size, _CHUNK)))

    def discard(self, size: int) -> None:
        """Read so many bytes, few of them, that belong to no file by the format.

        Raises:
            SourceError: There are less.
        """
        if self._position + size <= len(self._buffer):
            self._position += size
        else:
            self.exact(size)

    def finish(self) -> None:
        """Read to the end of the stream, because only there a decompressor knows its sums."""
        while data := self._read(_CHUNK):
            self._count(len(data))
            self._check()

    def _count(self, size: int) -> None:
        self._skippable -= size
        if self._skippable < 0:
            raise SourceError("too much in the archive that belongs to no file (max_size)")


def read_members(blocks: Blocks, max_headers: int) -> Iterator[Member]:
    """Give the members of an archive, in order.

    Raises:
        SourceError: It is no tar archive, it is broken or truncated, or it has more headers.
    """
    shared: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    extended = False
    parts: list[int] = []
    for number in range(max_headers + 1):
        block = blocks.exact(BLOCK)
        if not block[0] and block == _ZEROS:
            if extended:
                raise SourceError("truncated: an extended header without its member")
            blocks.finish()
            return
        kind = _check_header(block, number)
        extended |= kind in "LKxX"
        match kind:
            case "L" | "K":
                value = _extension(blocks, block).rstrip(b"\0")
                own[b"path" if kind == "L" else b"linkpath"] = value
            case "x" | "X":
                records = list(_records(_extension(blocks, block)))
                own.update(records)
                parts = _numbers([value for key, value in records if key in _SPARSE_0_0])
            case "g":
                shared.update(_records(_extension(blocks, block)))
            case "V":
                blocks.skip(_padded(_number(block[124:136])))
            case _:
                attributes = {**shared, **own} if shared else own
                member, contents = _member(blocks, block, kind, attributes, parts)
                yield member
                contents.skip()
                if extended:
                    own, parts, extended = {}, [], False
    raise SourceError(f"more than {max_headers} headers (max_members)")


def _check_header(block: bytes, number: int) -> str:
    """Check a header's sum, as bytes or as signed characters; return its type flag."""
    try:
        expected = _number(block[148:156])
    except SourceError:
        expected = -1
    # The low half of Adler-32 is the sum of all bytes plus 1, ten times as fast, modulo 65521.
    total = (adler32(block) & 0xFFFF) - 1 - sum(block[148:156]) + 8 * 0x20
    if (total - expected) % 65521:
        signed = total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
        if (signed - expected) % 65521:
            if number == 0:
                raise SourceError("not a tar archive, and not compressed in a known way")
            raise SourceError(f"corrupt: the checksum of header {number + 1} is wrong")
    return chr(block[156])


def _number(field: bytes) -> int:
    """A numeric field: octal digits, or (GNU) base 256 after a set first bit."""
    digits = field.rstrip(b"\0 ")
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            return _octal(digits)
    if field[0] & 0x80:
        negative = field[0] == 0xFF
        value = int.from_bytes(field, "big", signed=negative)
        return value if negative else value - (0x80 << 8 * (len(field) - 1))
    return _octal(field.split(b"\0", 1)[0].strip())


def _octal(digits: bytes) -> int:
    if digits.translate(None, b"01234567"):
        raise SourceError(f"corrupt: {digits!r} where an octal number should be")
    return int(digits or b"0", 8)


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _padded(size: int) -> int:
    if size < 0:
        raise SourceError(f"corrupt: a size of {size} bytes")
    return -(-size // BLOCK) * BLOCK


def _extension(blocks: Blocks, block: bytes) -> bytes:
    size = _number(block[124:136])
    if not 0 <= size <= _MAX_EXTENSION:
        raise SourceError(f"an extended header of {size} bytes, expected at most {_MAX_EXTENSION}")
    return blocks.exact(_padded(size))[:size]


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of a pax header: `LENGTH KEY=VALUE`, each on a line of so many bytes."""
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 10)
        length = data[position:space] if space > 0 else b""
        end = position + int(length) if length.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(data) or not equals or data[end - 1 : end] != b"\n":
            raise SourceError("corrupt: a pax header that is not made of records")
        # Others are not kept: there may be any number of them, in any number of headers.
        if key in _KEYS:
            yield key, value
        position = end


def _decimal(attributes: Mapping[bytes, bytes], key: bytes, default: int) -> int:
    value = attributes.get(key)
    if value is None:
        return default
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        raise SourceError(f"corrupt: {os.fsdecode(key)} is {value[:40]!r}, expected a number")
    return int(value)


def _identifier(attributes: Mapping[bytes, bytes], key: bytes, field: bytes) -> int:
    """A user's or group's number; the kernel's highest means 'none'."""
    value = _decimal(attributes, key, _number(field))
    if not 0 <= value < _NO_IDENTIFIER:
        raise SourceError(f"corrupt: {os.fsdecode(key)} is {value}, expected a 32-bit number")
    return value


def _time(attributes: Mapping[bytes, bytes], field: bytes) -> int:
    """Nanoseconds; pax has a decimal fraction, header fields have whole seconds."""
    value = attributes.get(b"mtime")
    if value is None:
        seconds = _number(field)
        if abs(seconds) >= 10**_MAX_TIME_DIGITS:
            raise SourceError(f"corrupt: mtime is {seconds}, expected seconds")
        return seconds * 10**9
    whole, _, fraction = value.lstrip(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > _MAX_TIME_DIGITS or not (fraction + b"0").isdigit():
        raise SourceError(f"corrupt: mtime is {value[:40]!r}, expected seconds")
    time = int(whole) * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -time if value.startswith(b"-") else time


def _member(
    blocks: Blocks,
    block: bytes,
    kind: str,
    attributes: Mapping[bytes, bytes],
    parts: list[int],
) -> "tuple[Member, _Contents]":
    """Make a member, and what its blocks are read from."""
    name = attributes.get(b"path") if attributes else None
    if name is None:
        name = _text(block[:100])
        if block[257:263] == b"ustar\0" and block[345]:
            name = _text(block[345:500]) + b"/" + name
    stored = _number(block[124:136])
    if attributes:
        stored = _decimal(attributes, b"size", stored)
    if kind in _REGULAR:
        kind = "5" if name.endswith(b"/") else "0"
    contents = _Contents(blocks, stored if kind not in "12" else 0)
    size, read = contents.left, contents.read
    if kind == "S":
        kind, size = "0", _number(block[483:495])
        read = _Sparse(contents, _gnu_map(blocks, block), size).read
    elif not attributes:
        pass
    elif b"GNU.sparse.major" in attributes:
        name = attributes.get(b"GNU.sparse.name", name)
        size = _decimal(attributes, b"GNU.sparse.realsize", 0)
        read = _Sparse(contents, _map_in_contents(contents), size).read
    elif b"GNU.sparse.size" in attributes:
        name = attributes.get(b"GNU.sparse.name", name)
        size = _decimal(attributes, b"GNU.sparse.size", 0)
        if b"GNU.sparse.map" in attributes:
            parts = _numbers(attributes[b"GNU.sparse.map"].split(b","))
        read = _Sparse(contents, _pairs(parts), size).read
    return Member(block, attributes, name, kind, size, read), contents


@final
class _Contents:
    """The blocks of one member."""

    def __init__(self, blocks: Blocks, size: int) -> None:
        self._blocks = blocks
        self._padding = _padded(size) - size
        self.left = size

    def read(self, size: int) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return self._blocks.exact(size)

    def skip(self) -> None:
        """Go on to the next header. Unread contents are of no interest; padding is a block's."""
        if self.left:
            self._blocks.skip(self.left)
        if self._padding:
            self._blocks.discard(self._padding)


@final
class _Sparse:
    """A file of which only some parts are in the archive; what is between them is zeros."""

    def __init__(self, contents: _Contents, parts: list[tuple[int, int]], size: int) -> None:
        self._contents = contents
        self._position = 0
        self._size = size
        self._parts = [part for part in parts if part[1]][::-1]
        end = 0
        for offset, length in reversed(self._parts):
            if offset < end:
                raise SourceError("corrupt: a sparse file whose parts overlap")
            end = offset + length
        if end > size or sum(length for _, length in parts) > contents.left:
            raise SourceError("corrupt: a sparse file whose parts do not fit its size")

    def read(self, size: int) -> bytes:
        offset, length = self._parts[-1] if self._parts else (self._size, 0)
        if self._position < offset:
            size = min(size, offset - self._position)
            self._position += size
            return bytes(size)
        data = self._contents.read(min(size, length))
        self._position += len(data)
        if self._parts:
            self._parts.pop()
            if len(data) < length:
                self._parts.append((offset + len(data), length - len(data)))
        return data


def _gnu_map(blocks: Blocks, block: bytes) -> list[tuple[int, int]]:
    """The map of GNU's old format: four parts in the header, 21 in each block after it."""
    fields, more = block[386:482], block[482]
    while more:
        if len(fields) > _MAX_EXTENSION:
            raise SourceError("a sparse file of too many parts")
        extension = blocks.exact(BLOCK)
        fields, more = fields + extension[:504], extension[504]
    return _pairs([_number(fields[at : at + 12]) for at in range(0, len(fields), 12)])


def _map_in_contents(contents: _Contents) -> list[tuple[int, int]]:
    """The map of the pax format 1.0: lines of decimal numbers, before the contents."""
    text, lines, wanted = b"", 0, 1
    while lines < wanted:
        if len(text) > _MAX_EXTENSION or not contents.left:
            raise SourceError("corrupt: a sparse file without a proper map")
        block = contents.read(BLOCK)
        text += block
        lines += block.count(b"\n")
        if wanted == 1 and lines:
            wanted = 1 + 2 * _numbers(text.split(b"\n", 1)[:1])[0]
    return _pairs(_numbers(text.split(b"\n")[1:wanted]))


def _numbers(values: list[bytes]) -> list[int]:
    if not all(value.isdigit() and len(value) <= _MAX_DIGITS for value in values):
        raise SourceError("corrupt: a sparse file's map is not made of numbers")
    return [int(value) for value in values]


def _pairs(numbers: list[int]) -> list[tuple[int, int]]:
    return list(zip(numbers[::2], numbers[1::2], strict=False))
