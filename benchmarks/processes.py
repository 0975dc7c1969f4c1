"""Starting contenders, and reading from /proc what they cost."""

import ctypes
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import final

import attrs

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of what contenders leave behind, so that it can be found and ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def children(pid: int) -> list[int]:
    """The direct children of a process, zombies included."""
    found: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for number in found:
        found += children(number)
    return found


@final
@attrs.frozen
class Memory:
    """Kilobytes of a set of processes."""

    pss: float
    peak: float
    """The sum of the highest resident sizes (VmHWM); shared pages count in each process."""


def _field(path: str, name: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ValueError(f"{path} has no field {name}")


def memory(pids: Sequence[int]) -> Memory:
    """Proportional set size and peak of processes."""
    return Memory(
        sum(_field(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in pids),
        sum(_field(f"/proc/{pid}/status", "VmHWM:") for pid in pids),
    )


@final
@attrs.frozen
class Activity:
    """How often processes went to sleep (so: were woken), and for how long they ran."""

    threads: AbstractSet[str]
    """Whose it is."""
    wakeups: int
    cpu: int
    """Nanoseconds on a CPU."""

    def since(self, before: "Activity") -> "Activity":
        """The difference to an earlier reading.

        Raises:
            ValueError: A thread has ended meanwhile, and what it did is not known any more.
        """
        if missing := before.threads - self.threads:
            raise ValueError(f"threads ended while they were measured: {sorted(missing)}")
        return Activity(self.threads, self.wakeups - before.wakeups, self.cpu - before.cpu)


def activity(pids: Sequence[int]) -> Activity:
    """Voluntary context switches and CPU time of all threads of processes."""
    threads: set[str] = set()
    wakeups = cpu = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            threads.add(task)
            wakeups += _field(f"/proc/{pid}/task/{task}/status", "voluntary_ctxt_switches:")
            cpu += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return Activity(threads, wakeups, cpu)


def spawn(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> tuple[int, int]:
    """Start a command in a session of its own; its pid, and the time just before."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    begin = time.monotonic_ns()
    pid = os.posix_spawnp(
        command[0], list(command), environment, file_actions=actions, setsid=True
    )
    return pid, begin


def ended(descriptors: Sequence[int], timeout: float) -> bool:
    """Wait until the processes behind all these pidfds have ended."""
    deadline = time.monotonic() + timeout
    for descriptor in descriptors:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return False
    return True


@contextmanager
def open_pidfd(pid: int) -> Iterator[int]:
    """A descriptor that becomes readable when the process has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def end_tree(pid: int) -> None:
    """Kill a process that was started here, with all that it started, and reap it."""
    doomed = tree(pid)
    for number in doomed:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    for number in doomed:
        with suppress(ChildProcessError):
            os.waitpid(number, 0)


def end_orphans(keep: set[int]) -> None:
    """End what contenders left behind: our children that are not among those to keep."""
    for pid in children(os.getpid()):
        if pid not in keep:
            end_tree(pid)
