"""How a path leads to a file: every directory entry on the way, symlinks followed one by one.

Pure: the file system is what `look` says. Watching a path means watching each of these
entries, because any of them can be replaced: Kubernetes delivers a ConfigMap by replacing
the symlink `..data`, and the file's own name never changes.
"""

import errno
import os
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

MAX_SYMLINKS = 40
"""As path_resolution(7): more in one path are a loop."""


class Entry(NamedTuple):
    """A name in a directory, which is itself no symlink."""

    directory: bytes
    name: bytes

    @property
    def path(self) -> bytes:
        """The entry's path."""
        return os.path.join(self.directory, self.name)


Look: TypeAlias = Callable[[Entry, bool], os.stat_result | bytes | None]
"""What an entry is: a symlink's target, the status of anything else, or None: nothing there.

The second argument says whether the path ends here, unless the entry is a symlink.
"""


def resolve(path: bytes, look: Look) -> tuple[Entry, os.stat_result | None]:
    """Follow `path` to its last entry, by the rules of path_resolution(7).

    `look` is called for every entry on the way in the order in which the kernel meets them, so
    that it can begin to watch the entry's directory before it reads the entry.

    Args:
        path: An absolute path; `.`, `..` and repeated slashes mean what they mean to the kernel.
        look: Tells what is at an entry.

    Returns:
        The last entry reached, and its status; no status when it, or a directory on the way
        to it, does not exist (a symlink that leads nowhere ends in the entry that is missing).

    Raises:
        OSError: `ELOOP` for a loop of symlinks, and whatever `look` raises.
    """
    directory = b"/"
    todo = _components(path)
    symlinks = 0
    while todo:
        name = todo.pop()
        if name == b"..":
            directory = os.path.dirname(directory)
            continue
        entry = Entry(directory, name)
        match look(entry, not todo):
            case None:
                return entry, None
            case bytes(target):
                symlinks += 1
                if symlinks > MAX_SYMLINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
                if target.startswith(b"/"):
                    directory = b"/"
                todo += _components(target)
            case _ if todo:
                # A file in the place of a directory fails in `look`, as ENOTDIR.
                directory = entry.path
            case status:
                return entry, status
    # The root itself, or a path that ends in `..`.
    entry = Entry(directory, b".")
    found = look(entry, True)
    return entry, None if isinstance(found, bytes) else found


def _components(path: bytes) -> list[bytes]:
    """The path's components, the first one last, without those that lead nowhere."""
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]
