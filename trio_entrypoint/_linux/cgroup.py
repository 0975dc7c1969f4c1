"""A cgroup for a run, where there is a hierarchy to put it in: exact attribution.

No process leaves its cgroup by forking, by beginning a session or by changing its environment,
and `cgroup.kill` ends all of one in a single step (cgroups(7), Linux 5.14).

A process has to be moved there before its program is executed, by itself, or what it forks
first stays outside. The kernel takes its time for a move, 10 to 25 ms unless others have
just happened (it waits for an RCU grace period): so this is for those who ask for it.

Used only by who sees the root of a writable cgroup2 hierarchy, as in a container with a cgroup
namespace of its own. Elsewhere the hierarchy has a manager, who does not expect others.
"""

import errno
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import final

from trio_entrypoint._linux.procfs import raise_if_exhausted, suppress_gone

PREFIX = "trio-entrypoint-"


def find_hierarchy() -> str | None:
    """The directory to make cgroups in; None if there is none for us."""
    try:
        # As bytes: a mount point's name may be anything.
        with open("/proc/self/cgroup", "rb") as file:
            if b"0::/\n" not in file.readlines():
                return None
        with open("/proc/self/mountinfo", "rb") as file:
            for line in file:
                fields, _, kind = line.partition(b" - ")
                _, _, _, root, directory, *_ = fields.split(b" ")
                if kind.startswith(b"cgroup2 ") and root == b"/" and _usable(directory):
                    return os.fsdecode(directory)
    except OSError:
        return None
    return None


def _usable(directory: bytes) -> bool:
    return b"\\" not in directory and os.access(directory, os.W_OK)


@final
class Cgroup:
    """A cgroup of ours, by its directory. One that somebody removed has nobody in it.

    Raises:
        OSError: From every look: it is there, but there is no descriptor left to look with.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def make(cls, hierarchy: str, marker: str) -> "Cgroup":
        """Make one for a run.

        Raises:
            OSError: It cannot be made; nothing is left.
        """
        path = f"{hierarchy}/{PREFIX}{marker}"
        os.mkdir(path)
        if not os.path.exists(f"{path}/cgroup.kill"):
            os.rmdir(path)
            raise FileNotFoundError(errno.ENOENT, "the kernel is too old", "cgroup.kill")
        return cls(path)

    @property
    def entrance(self) -> bytes:
        """The file by which a process gets in: it writes `0` to it."""
        return os.fsencode(f"{self._path}/cgroup.procs")

    def pids(self) -> list[int]:
        """The processes that are here, or in a cgroup below."""
        found: list[int] = []
        for directory, _, _ in os.walk(self._path, onerror=raise_if_exhausted):
            with suppress_gone(), open(f"{directory}/cgroup.procs", "rb") as file:
                found.extend(map(int, file.read().split()))
        return found

    @property
    def populated(self) -> bool:
        """Whether a living process is here, or in a cgroup below.

        Unlike `pids` this misses none, however fast they fork (cgroups(7), `cgroup.events`).
        """
        with self.open_events() as events:
            return events is not None

    @contextmanager
    def open_events(self) -> Generator[int | None]:
        """What to wait for with `EPOLLPRI` until it may be empty; None if it is."""
        with ExitStack() as stack:
            events: int | None = None
            with suppress_gone():
                path = f"{self._path}/cgroup.events"
                file = stack.enter_context(open(path, "rb", buffering=0))
                events = file.fileno() if b"populated 1\n" in file.readall() else None
            yield events

    def kill(self) -> None:
        """Send SIGKILL to all that are here, or in a cgroup below, in one step."""
        with suppress_gone(), open(f"{self._path}/cgroup.kill", "wb", buffering=0) as file:
            file.write(b"1")

    def remove(self) -> None:
        """Remove it, with those that were made below it, if nobody is left."""
        for directory, _, _ in os.walk(self._path, topdown=False):
            with suppress(OSError):
                os.rmdir(directory)
