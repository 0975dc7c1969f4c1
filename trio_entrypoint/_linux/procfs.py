"""What /proc tells about processes: their state, and their children.

Read with plain system calls: a look at one process costs a few microseconds. A process that
is gone is `None`, never an error. That there is no descriptor, or no memory, left to look with is
an error.
"""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

_READ_SIZE = 65536

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that keep us from looking, and say nothing of what is there."""

# include/linux/sched.h
_PF_EXITING = 0x4
_PF_FORKNOEXEC = 0x40


def raise_if_exhausted(error: OSError) -> None:
    """Raise an error again that says nothing of what is there."""
    if error.errno in EXHAUSTED:
        raise error


@contextmanager
def suppress_gone() -> Generator[None]:
    """Let what is gone be no error."""
    try:
        yield
    except OSError as error:
        raise_if_exhausted(error)


Image: TypeAlias = tuple[int, int, bool]
"""A process and, of the programs that it may run one after the other, which it runs."""


class Stat(NamedTuple):
    """One process, as /proc/PID/stat describes it (proc_pid_stat(5))."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int
    """Clock ticks since boot: with the pid it names one process for good."""

    threads: int
    flags: int

    @property
    def forked(self) -> bool:
        """Whether it still runs its parent's program: it was forked, and has executed none."""
        return bool(self.flags & _PF_FORKNOEXEC)

    @property
    def image(self) -> Image:
        """Changes when a process that was forked executes a program."""
        return self.pid, self.started, self.forked

    @property
    def ending(self) -> bool:
        """Whether it runs its program no more; its children may not have been adopted yet."""
        return self.ended or (bool(self.flags & _PF_EXITING) and self.threads <= 1)

    @property
    def ended(self) -> bool:
        """Whether it ran to its end; a zombie waits for its parent only."""
        # The state is that of the first thread, which the others may outlive.
        return self.state in "ZX" and self.threads <= 1


def read_stat(pid: int) -> Stat | None:
    """Look at one process; None when there is none of that number."""
    contents = _read(f"/proc/{pid}/stat")
    if contents is None:
        return None
    # The program's name is in parentheses and may itself contain any byte.
    fields = contents.rpartition(b")")[2].split()
    parent, group, session, flags, threads, started = (
        int(fields[each]) for each in (1, 2, 3, 6, 17, 19)
    )
    return Stat(pid, fields[0].decode(), parent, group, session, started, threads, flags)


def executing(pid: int) -> bool:
    """Whether its program is just being set up: until then it has no environment to be read.

    The kernel gives every program at least one argument, if only an empty one.
    """
    return _read(f"/proc/{pid}/cmdline") == b""


def children(pid: int) -> list[int]:
    """The children of all threads of a process, zombies included.

    The kernel may leave some out when others end meanwhile (proc_tid_children(5)): whoever
    needs the truth looks until nothing changes.
    """
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError as error:
        raise_if_exhausted(error)
        return []
    found: list[int] = []
    for thread in threads:
        contents = _read(f"/proc/{pid}/task/{thread}/children")
        if contents:
            found.extend(map(int, contents.split()))
    return found


def _read(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            contents = b""
            while block := os.read(descriptor, _READ_SIZE):
                contents += block
                if len(block) < _READ_SIZE and path.endswith("/stat"):
                    break
        finally:
            os.close(descriptor)
    except OSError as error:  # among others ESRCH: it ended between two calls
        raise_if_exhausted(error)
        return None
    return contents
