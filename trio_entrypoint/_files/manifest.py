"""What a tree consists of, and how two trees differ. Pure: no file is touched here.

A manifest is the sealed description of a generation: every path with its type, mode, owner
and contents. The difference of two manifests is the report of an update; it is exact after
a crash too, because it does not depend on what the update did.
"""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from itertools import islice
from typing import Literal, NamedTuple, TypeAlias

import attrs

Difference: TypeAlias = Literal["created", "modified", "deleted"]


class Kind(StrEnum):
    """What an entry of a tree is."""

    FILE = "f"
    DIRECTORY = "d"
    SYMLINK = "l"


class Entry(NamedTuple):
    """One path of a tree."""

    kind: Kind
    mode: int
    """The nine permission bits; 0 for a symlink, which has none."""

    content: str = ""
    """A file's SHA-256 in hexadecimal, a symlink's target."""

    size: int = 0
    owner: tuple[int, int] | None = None
    """User and group where they were asked for, else those of the entrypoint."""

    time: int | None = None
    """Time of modification in nanoseconds where it was asked for."""

    sealed: int = 0
    """Modification time (ns) of the file when it was written: a later one means tampering."""


# The interpreter does nothing else while it turns one line into JSON, or back: with 256 entries
# that takes less than a millisecond.
_ENTRIES_IN_A_LINE = 256


@attrs.frozen
class Manifest:
    """A tree's entries by relative path (`os.fsdecode`); `.` is the tree itself."""

    entries: Mapping[str, Entry]
    digest: str
    """The SHA-256 of the source that the tree was made from."""

    variant: str = ""
    """What else, beside the source's contents, the tree was made by: a mode asked for, say."""

    # Counted when it is made, in a worker thread: for thousands of files that takes its time.
    size: int = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: _size(self.entries), takes_self=True),
    )
    """Bytes of file contents."""

    top_level: Sequence[str] = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: _top_level(self.entries), takes_self=True),
    )
    """The names directly in the tree."""

    def dumps(self) -> bytes:
        """Write it down: the digest on the first line, so that it can be read alone."""
        lines = [self.digest, json.dumps(self.variant)]
        entries = iter(self.entries.items())
        while part := dict(islice(entries, _ENTRIES_IN_A_LINE)):
            lines.append(json.dumps(part))
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def loads(cls, text: bytes) -> "Manifest":
        """Read what `dumps` wrote.

        Raises:
            ValueError: It is something else.
        """
        try:
            digest, variant, *parts = text.splitlines()
            entries = {
                path: Entry(
                    Kind(kind), mode, content, size, tuple(owner) if owner else None, time, sealed
                )
                for part in parts
                for path, (kind, mode, content, size, owner, time, sealed) in json.loads(
                    part
                ).items()
            }
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a manifest: {error}") from error
        return cls(entries, digest.decode(), json.loads(variant))


def _size(entries: Mapping[str, Entry]) -> int:
    return sum(entry.size for entry in entries.values())


def _top_level(entries: Mapping[str, Entry]) -> Sequence[str]:
    return [path for path in entries if "/" not in path and path != "."]


def difference(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> dict[str, Difference]:
    """What leads from one tree to another, by path.

    A change of type, contents, mode or owner counts; one of times does not. The tree itself
    (`.`) is reported when its mode or owner changed.
    """
    changed: dict[str, Difference] = {}
    for path, entry in new.items():
        before = old.get(path)
        if before is None:
            changed[path] = "created"
        elif before[:3] != entry[:3] or before.owner != entry.owner:
            changed[path] = "modified"
    for path in old.keys() - new.keys():
        changed[path] = "deleted"
    if "." not in old or "." not in new:
        changed.pop(".", None)
    return changed


def tree_digest(entries: Mapping[str, Entry]) -> str:
    """The SHA-256 of a tree, whatever the order and the times of its entries."""
    digest = sha256()
    for path in sorted(entries):
        kind, mode, content, size, owner, _, _ = entries[path]
        line = "\0".join((path, kind.value, str(mode), content, str(size), str(owner)))
        digest.update(line.encode(errors="surrogateescape") + b"\0\0")
    return digest.hexdigest()


def leads_outside(path: str, target: str, entries: Mapping[str, Entry]) -> bool:
    """Whether a symlink at `path` leads out of the tree, by any symlinks on its way.

    Loops, and targets that do not exist, lead nowhere: they stay inside. One that leads through
    more names than any real one is said to lead outside: to find out would take too long.
    """
    here = path.split("/")[:-1]
    todo = target.split("/")[::-1]
    if target.startswith("/"):
        return True
    symlinks = names = 0
    while todo:
        names += 1
        if names > _MAX_NAMES:
            return True
        match todo.pop():
            case "" | ".":
                continue
            case "..":
                if not here:
                    return True
                here.pop()
            case name:
                here.append(name)
                entry = entries.get("/".join(here))
                if entry is not None and entry.kind is Kind.SYMLINK:
                    symlinks += 1
                    if symlinks > _MAX_SYMLINKS:
                        return False
                    if entry.content.startswith("/"):
                        return True
                    here.pop()
                    todo += entry.content.split("/")[::-1]
    return False


# As path_resolution(7): the kernel follows no more.
_MAX_SYMLINKS = 40

_MAX_NAMES = 1024
