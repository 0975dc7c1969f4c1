"""All processes of one run: signalled, waited for, and made to be gone.

What decides that a run is over is its processes, never a pipe or a timer. Every wait is for
the end of some process, by its pidfd, and then the truth is looked at again: how many there
are, and how they are related, may change at any time.
"""

import math
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import final

import trio

from trio_entrypoint._linux.cgroup import Cgroup
from trio_entrypoint._linux.descendants import Run
from trio_entrypoint._linux.procfs import EXHAUSTED, Image, Stat, read_stat
from trio_entrypoint._linux.reaper import Members, Reaper
from trio_entrypoint._linux.signals import open_pidfd, send, send_to_group

KILL_TIMEOUT = 10.0
"""Seconds after SIGKILL when a process that still exists is given up."""

# So many looks in a row are made before other tasks get their turn: a process that forks and
# ends all the time is only caught by looking faster than it forks.
_LOOKS = 50

# The end of so many processes is waited for at a time: each takes a descriptor.
_WATCHED = 64


@final
class Tree:
    """The processes of a run whose main process is a child of ours, and not reaped yet.

    That is what keeps the numbers of its process group and session from being reused. Must
    be made in the same synchronous step in which the main process was started.

    Raises:
        OSError: There is no descriptor left to look at the main process with: it is no run.
    """

    def __init__(
        self,
        main: int,
        marker: str,
        reaper: Reaper,
        *,
        session: bool,
        cgroup: Cgroup | None = None,
    ) -> None:
        stat = read_stat(main)
        assert stat is not None
        self._run = Run(marker, main, stat.started, main if session else None)
        self._reaper = reaper
        reaper.register(self._run)
        self._image = stat.image
        self._told: set[Image] = set()
        self._cgroup = cgroup

    def members(self) -> Members:
        """The living processes, as they are now.

        Raises:
            OSError: There is no descriptor left to look with.
        """
        members = self._reaper.members(self._run)
        if self._cgroup is not None:
            known = {member.pid for member in members.own}
            for pid in self._cgroup.pids():
                stat = read_stat(pid) if pid not in known else None
                if stat is not None and not stat.ended:
                    members.own.append(stat)
        return members

    def close(self) -> None:
        """Reap the main process, which has ended unless it survived SIGKILL."""
        os.waitid(os.P_PID, self._run.main, os.WEXITED | os.WNOHANG)
        self._reaper.forget(self._run)

    def note_end(self, shell_code: int) -> None:
        """Tell the reaper how the main process ended."""
        self._reaper.note_end(shell_code)

    def signal_main(self, number: int) -> None:
        """Send the main process a signal, if we may, and let it continue if it is stopped."""
        self._told.add(self._image)
        # Not to be allowed to is no reason to stop waiting: whoever lives on is told of.
        with suppress(PermissionError):
            for each in (number, signal.SIGCONT):
                os.kill(self._run.main, each)

    def signal_group(self, number: int) -> None:
        """Send a signal to the process group of the main process."""
        self._told.add(self._image)
        # Without a descriptor to look with, the others get it once more when one can look.
        with suppress(OSError):
            self._told.update(
                member.image for member in self.members().own if member.group == self._run.main
            )
        send_to_group(self._run.main, number, signal.SIGCONT)

    def kill(self) -> Members:
        """Send SIGKILL to every process; return those that were there."""
        # The group first: the kernel does that in one step, so nobody can fork out of it.
        send_to_group(self._run.main, signal.SIGKILL)
        if self._cgroup is not None:
            self._cgroup.kill()
        members = self.members()
        for member in members.own:
            send(member, signal.SIGKILL)
        return members

    def exists(self) -> bool:
        """Whether any process is left."""
        return (self._cgroup is not None and self._cgroup.populated) or self.members().exist

    async def asked(self, number: int) -> None:
        """Send each process that got none yet a signal, until no process is left."""
        await _gone(partial(_ask, self.members, self._told, number), self._cgroup)

    async def killed(self) -> None:
        """Send SIGKILL until no process is left, however fast they fork."""
        await _gone(self.kill, self._cgroup)
        self._reaper.finish(self._run)


async def end_orphans(reaper: Reaper, grace_period: float) -> None:
    """Make the adopted orphans that belong to no run end; those that cannot are left."""
    told: set[Image] = set()
    with trio.move_on_after(grace_period):
        await _gone(partial(_ask, lambda: Members(reaper.orphans()), told, signal.SIGTERM))

    def kill() -> Members:
        orphans = reaper.orphans()
        for orphan in orphans:
            send(orphan, signal.SIGKILL)
        return Members(orphans)

    with trio.move_on_after(KILL_TIMEOUT):
        await _gone(kill)


def _ask(look: Callable[[], Members], told: set[Image], number: int) -> Members:
    """Send those who are there a signal, unless they were told; return all who are there."""
    members = look()
    for member in members.own:
        if member.image not in told:
            send(member, number, signal.SIGCONT)
            told.add(member.image)
    return members


async def _gone(look: Callable[[], Members], cgroup: Cgroup | None = None) -> None:
    pauses = _pauses()
    looks = 0
    while True:
        looks += 1
        if looks % _LOOKS == 0:
            await trio.lowlevel.checkpoint()
        try:
            if not await _look_and_wait(look, cgroup, pauses):
                return
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            # Not even a look is possible: that says nothing, and others may close something.
            await trio.sleep(next(pauses))


async def _look_and_wait(
    look: Callable[[], Members], cgroup: Cgroup | None, pauses: Iterator[float]
) -> bool:
    """Look who is there, and wait until that has changed; say whether anybody was."""
    members = look()
    # Asked second: whoever forks between the two is still seen.
    if members.exist or (cgroup is not None and cgroup.populated):
        # A child that was just forked may get a signal while it has its parent's handler,
        # and forgets it with the program that it executes: no event tells of that. Nor does one
        # tell of those in a cgroup that fork faster than they can be listed.
        everyone = [*members.own, *members.ending]
        again = members.executing or not everyone or any(member.forked for member in everyone)
        with trio.move_on_after(next(pauses) if again else math.inf):
            await _one_ended(everyone[-_WATCHED:], cgroup)
        return True
    return False


def _pauses() -> Iterator[float]:
    """Seconds until another look: short at first, which is when most children execute."""
    seconds = 0.01
    while True:
        yield seconds
        seconds = min(2 * seconds, 1.0)


async def _one_ended(processes: Sequence[Stat], cgroup: Cgroup | None) -> None:
    """Wait until one of some processes has ended, or all in a cgroup."""
    with ExitStack() as stack:
        ends = stack.enter_context(select.epoll())
        for process in processes:
            pidfd = stack.enter_context(open_pidfd(process))
            if pidfd is None:
                return
            ends.register(pidfd, select.EPOLLIN)
        if cgroup is not None:
            events = stack.enter_context(cgroup.open_events())
            if events is None:
                return
            ends.register(events, select.EPOLLPRI)
        await trio.lowlevel.wait_readable(ends.fileno())
