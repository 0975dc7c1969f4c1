"""The entrypoint as a parent: who its children are, and the reaping of those it adopted.

A program can reap only its own children, and everybody in it shares them: a reaper that
takes whatever ended (`waitpid(-1)`) takes the statuses that others wait for. So this one
reaps adopted orphans only:

* A run is registered in the same synchronous step that starts its main process: nobody can
  come in between. Main processes are reaped by their run.
* Children that other code started through `subprocess` or Trio are left to it. They are
  told from orphans by the `Popen` objects that exist.

What other code starts by bare `os.fork()` or `os.posix_spawn()` cannot be told from an
orphan, and is reaped as one.

There is one reaper in a Trio run. SIGCHLD drives it; nothing polls, and it is no task.
"""

import gc
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NamedTuple, final

import trio

from trio_entrypoint._linux.cgroup import find_hierarchy
from trio_entrypoint._linux.descendants import MARKER_VARIABLE, Run, run_of, subtree
from trio_entrypoint._linux.environ import read_variable
from trio_entrypoint._linux.guard import Guard
from trio_entrypoint._linux.head_start import unclaimed
from trio_entrypoint._linux.prctl import set_subreaper
from trio_entrypoint._linux.procfs import Stat, children, executing, read_stat
from trio_entrypoint._linux.shared import one_per_run

_logger = logging.getLogger(__name__)

# Whose orphans were that ended while we looked cannot be known any more. If they were this
# run's, one that lives would have been seen in so many looks.
_LOOKS_FOR_NOTHING = 30


class Members(NamedTuple):
    """Who is there, at one moment."""

    own: list[Stat]
    """The living processes of a run."""

    ending: Sequence[Stat] = ()
    """Orphans that are just ending, and whose marker is gone already.

    They could be any run's, and what they leave behind too: their end has to be waited for.
    """

    executing: Sequence[Stat] = ()
    """Orphans that are just executing a program, and whose marker is not there yet.

    They could be any run's, and another look tells whose.
    """

    @property
    def exist(self) -> bool:
        """Whether anybody has to be waited for."""
        return bool(self.own or self.ending or self.executing)


@final
class Reaper:
    """The runs of this program, and the adopted children. `shared_reaper()` gives it."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._runs: dict[int, Run] = {}
        self._finished: set[Run] = set()
        starts = unclaimed()
        self._kept = {start.pid for start in starts}
        self._identity = starts[0].identity if starts else os.urandom(8).hex()
        self._started = 0
        self.hierarchy: str | None = find_hierarchy()
        """Where each run gets a cgroup of its own; None if that cannot be."""
        self._guard: Guard | None = None
        self._guard_failed = False
        self._closed = False
        self.last_lines: list[str] = []
        """The last lines of output of the process that ended last, as far as they are known."""

        self._keeping_codes = False
        self.codes: list[int] = []
        """How main processes ended, as a shell says it: the last one, or all (`keep_codes`)."""

    def guard(self) -> None:
        """Have somebody end the runs, should this program be killed; each start tries it."""
        if self._closed or self._guard is not None or self._pid == 1:
            return
        try:
            self._guard = Guard(self._identity, self.hierarchy)
        except OSError as error:
            if not self._guard_failed:
                self._guard_failed = True
                _logger.warning("processes would survive a SIGKILL of this program: %s", error)
        else:
            self._kept.add(self._guard.pid)
            self._guard.know(self._runs.values())

    def close(self) -> None:
        """Reap nobody any more, not for a SIGCHLD that came just now either.

        Another reaper may be there by then, whose runs this one does not know. And dismiss the
        guard: no run is left.
        """
        self._closed = True
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None

    def new_marker(self) -> str:
        """A marker component for the next run."""
        self._started += 1
        return f"{self._identity}.{self._started}"

    def register(self, run: Run) -> None:
        """Know a run. Must happen in the same synchronous step in which it was started."""
        self._runs[run.main] = run
        self._kept.discard(run.main)
        if self._guard is not None:
            self._guard.know(self._runs.values())

    def forget(self, run: Run) -> None:
        """The run is over: its main process was reaped, and its processes are gone."""
        del self._runs[run.main]
        self._finished.discard(run)
        if self._guard is not None:
            self._guard.know(self._runs.values())

    def note_end(self, shell_code: int) -> None:
        """Remember how a main process ended."""
        if not self._keeping_codes:
            self.codes.clear()
        self.codes.append(shell_code)

    def keep_codes(self) -> None:
        """From now on remember how each main process ended, not only the last one."""
        self._keeping_codes = True

    def members(self, run: Run) -> Members:
        """The living processes of a run, as they are now.

        If there is nobody, those that have ended are reaped by the way.

        Raises:
            OSError: There is no descriptor left to look with.
        """
        dead: set[int] = set()
        for _ in range(_LOOKS_FOR_NOTHING):
            # A process that ended after the list was made may have left children, that are
            # not on it. One that ended before has not: its children were adopted first.
            ended_before = self._has_ended(run)
            found, changed = self._look(run, dead)
            if found.exist:
                return found
            if not (changed or (not ended_before and self._has_ended(run))):
                break
        # Not before: to find out whose the dead are may take longer than a fork takes.
        if not dead <= self._runs.keys():
            self.reap()
        return Members([])

    def _look(self, run: Run, dead: set[int]) -> tuple[Members, bool]:
        foreign = _Once(_children_of_others)
        roots: list[Stat] = []
        ending: list[Stat] = []
        beginning: list[Stat] = []
        changed = False
        # The newest first: of processes that fork and end all the time only that one lives.
        for pid in reversed(children(self._pid)):
            if (pid in self._runs and pid != run.main) or pid in self._kept or pid in dead:
                continue
            stat = read_stat(pid)
            if stat is None:
                changed = True
            elif stat.ended:
                changed |= pid not in self._runs
                # Those that fork and end all the time must not pile up.
                if pid in self._runs or not (stat.forked and self._reap(stat, foreign)):
                    dead.add(pid)
            elif (owner := self._run_of(stat, foreign)) is run:
                roots.append(stat)
            elif owner is None:
                # It may have begun to end before its marker could be read. Then its children,
                # whoever's they are, come to us at its end, which is waited for. Or it executed
                # a program at that moment.
                now = read_stat(pid)
                if now is None or now.ended:
                    changed = True
                elif now.ending:
                    ending.append(now)
                elif executing(pid):
                    beginning.append(now)
                elif self._run_of(now, foreign) is run:
                    roots.append(now)
        own = [stat for stat in subtree(roots) if not stat.ended]
        return Members(own, ending, beginning), changed

    def _has_ended(self, run: Run) -> bool:
        main = read_stat(run.main)
        return main is None or main.ended

    def orphans(self) -> list[Stat]:
        """The living adopted children that belong to no run, and their descendants."""
        foreign = _Once(_children_of_others)
        roots: list[Stat] = []
        for pid in children(self._pid):
            if pid in self._runs or pid in self._kept:
                continue
            stat = read_stat(pid)
            if stat is not None and self._run_of(stat, foreign) is None and pid not in foreign():
                roots.append(stat)
        return [stat for stat in subtree(roots) if not stat.ended]

    def reap(self) -> None:
        """Reap every adopted child that has ended."""
        if self._closed:
            return
        foreign = _Once(_children_of_others)
        # Without a descriptor to look with, the next SIGCHLD or the end of a run looks again.
        with suppress(OSError):
            for pid in children(self._pid):
                if pid in self._runs or pid in self._kept:
                    continue
                stat = read_stat(pid)
                if stat is not None and stat.ended:
                    self._reap(stat, foreign)

    def finish(self, run: Run) -> None:
        """Nothing is left of a run: what is found from now on belongs to others.

        Whose an orphan is that could be of several runs is settled by the last of them.
        """
        self._finished.add(run)

    def _run_of(self, child: Stat, foreign: Callable[[], Collection[int]]) -> Run | None:
        def others() -> Collection[int]:
            # What ends meanwhile has no marker any more. To look for it would take too long.
            now = read_stat(child.pid)
            return _Everything() if now is None or now.ending else foreign()

        return run_of(
            child,
            [run for run in self._runs.values() if run not in self._finished],
            own_session=os.getsid(0),
            marker=lambda pid: read_variable(pid, MARKER_VARIABLE),
            foreign=others,
        )

    def _reap(self, child: Stat, foreign: Callable[[], Collection[int]]) -> bool:
        """Reap a child that has ended, unless other code may wait for it."""
        # Other code's children execute a program, in our session or one that they began: all
        # else must be adopted.
        ours_or_own = child.session in (os.getsid(0), child.pid)
        if ours_or_own and not child.forked and child.pid in foreign():
            return False
        try:
            return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG) is not None
        except ChildProcessError:
            return True


@final
class _Once:
    """A function of no arguments that is asked once, and only if its answer is needed."""

    def __init__(self, function: Callable[[], Collection[int]]) -> None:
        self._function = function
        self._answer: Collection[int] | None = None

    def __call__(self) -> Collection[int]:
        if self._answer is None:
            self._answer = self._function()
        return self._answer


@final
class _Everything(Collection[int]):
    """Contains every number."""

    def __contains__(self, item: object) -> bool:
        return True

    def __iter__(self) -> "Generator[int]":
        raise TypeError("everything cannot be enumerated")

    def __len__(self) -> int:
        raise TypeError("everything cannot be counted")


def _children_of_others() -> Collection[int]:
    """The children for which a `Popen` exists: other code waits for them, or will.

    While a thread is just starting one, whose number is not known yet, it could be any: then
    the answer is 'all', and the next SIGCHLD, or the end of a run, looks again.
    """
    found: set[int] = set()
    for candidate in gc.get_objects():
        if issubclass(type(candidate), subprocess.Popen) and candidate.returncode is None:
            pid = getattr(candidate, "pid", None)
            if pid is None:
                return _Everything()
            found.add(pid)
    return found


@one_per_run
@contextmanager
def shared_reaper() -> Generator[Reaper]:
    """The reaper of this Trio run; it adopts and reaps as long as somebody is in the block.

    Raises:
        OSError: The kernel cannot make this program a subreaper.
    """
    reaper = Reaper()
    with _adopting(), _on_sigchld(reaper.reap):
        try:
            yield reaper
        finally:
            # Not later: were SIGCHLD ignored again, the guard's end could not be waited for.
            reaper.close()


@contextmanager
def _adopting() -> Generator[None]:
    """Adopt orphans; PID 1 does so by nature."""
    if os.getpid() == 1:
        yield
        return
    before = set_subreaper(True)
    try:
        yield
    finally:
        if not before:
            set_subreaper(False)


@contextmanager
def _on_sigchld(action: Callable[[], object]) -> Generator[None]:
    """Have an action done by Trio after each SIGCHLD; a handler that was there is kept.

    Python delivers signals to the main thread only. Trio in another thread goes without:
    orphans are reaped when a run ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    token = trio.lowlevel.current_trio_token()
    before = signal.getsignal(signal.SIGCHLD)

    def handler(number: int, frame: FrameType | None) -> None:
        # A signal can come when Trio's loop has ended, between its end and our own.
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(action, idempotent=True)
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGCHLD, handler)
    try:
        yield
    finally:
        # Whoever installed another handler meanwhile keeps it. None: it was not Python's.
        if signal.getsignal(signal.SIGCHLD) is handler and before is not None:
            signal.signal(signal.SIGCHLD, before)
