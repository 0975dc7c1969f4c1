"""Where something is mounted, a directory or a single file: proc_pid_mountinfo(5)."""

import re

_MOUNT_POINT = 4  # the field of that number, counted from 0


def mount_points() -> frozenset[bytes]:
    """The paths at which something is mounted, be it from the same file system.

    Raises:
        OSError: The kernel does not tell: /proc is not mounted.
    """
    with open("/proc/self/mountinfo", "rb") as file:
        return frozenset(_unescaped(line.split(b" ")[_MOUNT_POINT]) for line in file)


def _unescaped(path: bytes) -> bytes:
    """Space, tab, newline and backslash are written in octal."""
    if b"\\" not in path:
        return path
    return re.sub(rb"\\(\d{3})", lambda found: bytes([int(found[1], 8)]), path)
