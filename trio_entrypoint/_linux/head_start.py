"""A head start: a plain command runs before Trio is imported, and is attended to afterwards.

Nothing between the start of an entrypoint and that of its application takes as long as
importing Trio and what is built on it. A command that needs only to be executed does not have
to wait for that. So this module imports next to nothing.

The process is what `open_process(command)` starts: the same environment, descriptors, session
and marker. `open_process` claims it by making it a run; until then the reaper leaves it alone,
and whoever leaves the block of `head_start` ends it.
"""

import os
import select
import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import final

from trio_entrypoint._linux.descendants import MARKER_VARIABLE, nested_marker
from trio_entrypoint._linux.prctl import set_subreaper
from trio_entrypoint._linux.procfs import children
from trio_entrypoint._linux.spawn import Program, find_program, spawn

_unclaimed: "list[HeadStart]" = []


@final
class HeadStart:
    """A process that runs although nobody attends to it yet."""

    def __init__(self, pid: int, identity: str, marker: str) -> None:
        self.pid = pid
        self.identity = identity
        """What the markers of all runs of this entrypoint begin with."""
        self.marker = marker
        self.claimed: bool = False
        """Whether it is a run like any other now."""

    def claim(self) -> None:
        """Take over. Must happen in the same synchronous step in which it becomes a run."""
        self.claimed = True
        _unclaimed.remove(self)


def unclaimed() -> Sequence[HeadStart]:
    """The children of this program that were started in this way and are no runs yet."""
    return _unclaimed


@contextmanager
def head_start(
    command: Sequence[str], *, stop_signal: int, grace_period: float
) -> Generator[HeadStart]:
    """Start a command for `open_process` to claim. Only for a program with no other children.

    If nobody has claimed it by the end of the block, the stop signal came first: the process
    gets it, then the grace period, then SIGKILL, and the program exits with its status.

    Args:
        command: The program, looked for in `PATH` unless it contains a slash, and arguments.
        stop_signal: What asks it to end.
        grace_period: Seconds from then until SIGKILL.

    Raises:
        CommandError: It cannot be executed.
        OSError: /dev/null cannot be opened, or the kernel knows no subreapers.
    """
    arguments = tuple(os.fsencode(word) for word in command)
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        # As some parents leave it; then the kernel would throw away how the process ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.getpid() != 1:
        set_subreaper(True)
    identity = os.urandom(8).hex()
    marker = f"{identity}.0"
    environment = {**os.environb, MARKER_VARIABLE.encode(): nested_marker(marker).encode()}
    path = find_program(arguments[0], environment)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pid = spawn(Program(path, arguments, environment, {0: null}))
    finally:
        os.close(null)
    start = HeadStart(pid, identity, marker)
    _unclaimed.append(start)
    try:
        yield start
    except SystemExit:
        if start.claimed:
            raise
        raise SystemExit(_end(start, stop_signal, grace_period)) from None
    finally:
        if not start.claimed:
            _end(start, stop_signal, grace_period)


def _end(start: HeadStart, stop_signal: int, grace_period: float) -> int:
    """End the process with all that it started; return its status as a shell gives it."""
    start.claim()
    pidfd = os.pidfd_open(start.pid)
    try:
        for number in (stop_signal, signal.SIGCONT):
            signal.pidfd_send_signal(pidfd, number)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(grace_period * 1000):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    finally:
        os.close(pidfd)
    # All our children descend from it: what it left behind came to us.
    while orphans := children(os.getpid()):
        for pid in orphans:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitid(os.P_PID, pid, os.WEXITED)
    assert result is not None
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
