"""Refusing a source that an update of its target would take away, or apply to itself.

A source that is the target, or that leads through it or through where its generations are kept,
is gone after the first switch. A directory that has the target in it would be applied with all
its generations, each time.

Every entry on the way to the source counts, not only where it ends: a symlink in the target
that leads to an archive elsewhere goes with the target. Directories are compared by name and by
what they are, because a bind mount gives them another name.
"""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from trio_entrypoint._arguments import AnyPath
from trio_entrypoint._files.pointers import sibling_store
from trio_entrypoint._linux.paths import Entry, resolve


def refuse_overlap(target: str, sources: Sequence[AnyPath]) -> None:
    """Check that no source is in the target, or has the target in it.

    Args:
        target: The target's path, absolute and without symlinks but its own pointer.
        sources: Paths of sources; they need not exist.

    Raises:
        OSError: One is; the message names both.
    """
    path = os.fsencode(target)
    managed = [path, os.fsencode(sibling_store(target))]
    for source in sources:
        why = _overlap(path, managed, os.path.join(os.getcwdb(), os.fsencode(source)))
        if why is not None:
            raise OSError(
                errno.EINVAL,
                f"the source {os.fsdecode(source)!r} {why}: have it delivered elsewhere",
                target,
            )


def _overlap(target: bytes, managed: Sequence[bytes], source: bytes) -> str | None:
    end = os.path.realpath(source)
    if end == target:
        return "is the target itself"
    on_the_way = set(map(_directory, _way(source))) - {None}
    if any(_is_within(end, path) or _directory(path) in on_the_way for path in managed):
        return "leads through the target, and an update would take it away"
    above = {_directory(parent) for parent in _parents(target)}
    if _is_within(target, end) or _directory(end) in above - {None}:
        return "contains the target, and would be applied to itself"
    return None


def _way(path: bytes) -> list[bytes]:
    """Every entry on the way of a path, as far as it can be followed."""
    entries: list[bytes] = []

    def look(entry: Entry, last: bool) -> os.stat_result | bytes | None:  # noqa: ARG001
        entries.append(entry.path)
        try:
            status = os.lstat(entry.path)
        except FileNotFoundError:
            return None
        return os.readlink(entry.path) if stat.S_ISLNK(status.st_mode) else status

    with suppress(OSError):  # what is wrong with a source may mend itself: its watch tells
        resolve(path, look)
    return entries


def _directory(path: bytes) -> tuple[int, int] | None:
    """What a directory is, whatever it is called; None for what is none."""
    with suppress(OSError):
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return status.st_dev, status.st_ino
    return None


def _is_within(path: bytes, directory: bytes) -> bool:
    return os.path.commonpath((path, directory)) == directory


def _parents(path: bytes) -> list[bytes]:
    parents: list[bytes] = []
    while path != b"/":
        path = os.path.dirname(path)
        parents.append(path)
    return parents
