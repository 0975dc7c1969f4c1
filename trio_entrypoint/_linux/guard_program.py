"""The program that a guard becomes when its entrypoint is gone: ends all of its processes.

Run as `python -I -S -B guard_program.py IDENTITY HIERARCHY`, with the list of runs as
descriptor 3. On standard input it waits for the entrypoint's end, unless a shell did that.
"""

import os
import signal
import sys
import time
from contextlib import suppress

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from trio_entrypoint._linux.cgroup import PREFIX, Cgroup
from trio_entrypoint._linux.environ import read_variable
from trio_entrypoint._linux.procfs import Stat, read_stat
from trio_entrypoint._linux.signals import send

MARKER_VARIABLE = "TRIO_ENTRYPOINT_RUN"
TIMEOUT = 10.0
QUIET_ROUNDS = 3
CHASES = 200


def main() -> None:
    """Wait for the end of the entrypoint, then end what it left."""
    while os.read(0, 1024):
        pass
    remains = Remains(os.pread(3, 1 << 20, 0).decode(), sys.argv[1])
    deadline = time.monotonic() + TIMEOUT
    quiet = 0
    while quiet < QUIET_ROUNDS and time.monotonic() < deadline:
        try:
            for cgroup in cgroups(*sys.argv[1:3]):
                cgroup.kill()
            quiet = 0 if remains.kill() else quiet + 1
        except OSError:  # no descriptor left in the whole system
            quiet = 0
            time.sleep(0.01)
    for cgroup in cgroups(*sys.argv[1:3]):
        cgroup.remove()


def cgroups(identity: str, hierarchy: str) -> list[Cgroup]:
    """The cgroups of the runs; none if there is no hierarchy for them."""
    names = os.listdir(hierarchy) if hierarchy else []
    prefix = f"{PREFIX}{identity}."
    return [Cgroup(f"{hierarchy}/{name}") for name in names if name.startswith(prefix)]


class Remains:
    """The processes of runs whose entrypoint is gone."""

    def __init__(self, runs: str, identity: str) -> None:
        self._prefix = f"{identity}."
        self._mains: dict[int, int] = {}
        self._sessions: dict[int, int] = {}
        for line in runs.splitlines():
            main, started, session = map(int, line.split())
            self._mains[main] = started
            if session:
                self._sessions[session] = started

    def kill(self) -> bool:
        """Send SIGKILL to all that can be found; say whether there was anybody."""
        for main, started in self._mains.items():
            # The group at once, so that nobody can fork out of it. While the entrypoint
            # lived its number was reserved, by a main process that was not reaped.
            leader = read_stat(main)
            if leader is None or leader.started == started:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(main, signal.SIGKILL)
        found = self._look()
        for process in found:
            send(process, signal.SIGKILL)
        return self._chase() or bool(found)

    def _look(self) -> list[Stat]:
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
        stats = {pid: stat for pid in pids if (stat := read_stat(pid)) is not None}
        stats.pop(os.getpid(), None)
        found = {pid for pid, stat in stats.items() if self._is_root(stat)}
        while True:
            more = {pid for pid, stat in stats.items() if stat.parent in found} - found
            if not more:
                return [stats[pid] for pid in found if not stats[pid].ended]
            found |= more

    def _chase(self) -> bool:
        """Look at the newest processes only, and fast: some fork and end all the time."""
        caught = False
        for _ in range(CHASES):
            with open("/proc/loadavg") as file:  # its last field is the newest pid
                newest = int(file.read().split()[-1])
            for pid in range(newest, newest - 4, -1):
                stat = read_stat(pid)
                if stat is not None and not stat.ended and self._is_root(stat):
                    send(stat, signal.SIGKILL)
                    caught = True
        return caught

    def _is_root(self, stat: Stat) -> bool:
        in_session = stat.started >= self._sessions.get(stat.session, stat.started + 1)
        if self._mains.get(stat.pid) == stat.started or in_session:
            return True
        marker = read_variable(stat.pid, MARKER_VARIABLE) or ""
        return any(part.startswith(self._prefix) for part in marker.split("/"))


if __name__ == "__main__":
    main()
