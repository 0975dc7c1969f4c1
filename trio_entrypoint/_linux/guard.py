"""What remains of an entrypoint that was killed by SIGKILL: a guard, which ends its processes.

The guard is a child that waits for the end of a pipe, whose only writer is the entrypoint.
The kernel closes it whichever way the entrypoint ends. While it waits the guard is a shell
(0.2 MB, no wake-ups); then it becomes `guard_program.py`. What there is to end it reads from
a memory file that the entrypoint keeps up to date. Signals meant for an entrypoint are blocked
in it: who sends one to all processes of a container does not mean it.

A PID 1 needs none: the kernel ends its whole namespace.

Limits: it finds what is below a main process or in its session, and what carries the
marker. A descendant that left the session, lost its ancestors and wrote over its environment
is not found; nor is anything ended if the guard itself was killed, or if a copy of the
entrypoint made by bare `os.fork()` lives on and holds the pipe.
"""

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from typing import final

from trio_entrypoint._linux.descendants import MARKER_VARIABLE, Run
from trio_entrypoint._linux.early import FORWARDABLE
from trio_entrypoint._linux.spawn import CommandError, Program, spawn

_PROGRAM = os.path.join(os.path.dirname(__file__), "guard_program.py")
_SHELL = b"/bin/sh"
_WAIT = b'read -r _; exec "$@"'


@final
class Guard:
    """A guard, from its start to the entrypoint's regular end."""

    pid: int

    def __init__(self, identity: str, hierarchy: str | None) -> None:
        """Start it.

        Args:
            identity: What the markers of all runs of this entrypoint begin with.
            hierarchy: Where the runs have their cgroups.

        Raises:
            OSError: There is neither a shell nor Python to run it, or no descriptor left.
        """
        with ExitStack() as unless_started:
            self._runs = os.memfd_create("trio-entrypoint-runs")
            unless_started.callback(os.close, self._runs)
            reading, self._pipe = os.pipe()
            unless_started.callback(os.close, self._pipe)
            try:
                self.pid = self._start(identity, hierarchy or "", reading)
            finally:
                os.close(reading)
            unless_started.pop_all()

    def know(self, runs: Iterable[Run]) -> None:
        """Note which runs there are now."""
        text = "".join(f"{run.main} {run.started} {run.session or 0}\n" for run in runs).encode()
        os.pwrite(self._runs, text, 0)
        os.ftruncate(self._runs, len(text))

    def dismiss(self) -> None:
        """End it: there is nothing to guard any more."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED)
        os.close(self._pipe)
        os.close(self._runs)

    def _start(self, identity: str, hierarchy: str, reading: int) -> int:
        python = os.fsencode(sys.executable)
        arguments = (os.fsencode(_PROGRAM), identity.encode(), os.fsencode(hierarchy))
        program = (python, b"-I", b"-S", b"-B", *arguments)
        # It belongs to what we belong to.
        marker = os.environb.get(MARKER_VARIABLE.encode())
        environment = {} if marker is None else {MARKER_VARIABLE.encode(): marker}
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        descriptors = {0: reading, 1: null, 2: null, 3: self._runs}
        shell = (b"sh", b"-c", _WAIT, b"trio-entrypoint-guard", *program)
        try:
            return spawn(Program(_SHELL, shell, environment, descriptors), blocked=FORWARDABLE)
        except CommandError:  # a container without a shell
            return spawn(Program(python, program, environment, descriptors), blocked=FORWARDABLE)
        finally:
            os.close(null)
