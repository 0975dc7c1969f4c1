"""Whose is this process? Attribution of descendants to the runs that started them.

An entrypoint adopts every orphan among its descendants (as PID 1, or as a subreaper). So the
processes of a run are the subtree below its main process, plus orphans among the
entrypoint's own children, plus their subtrees. Only the entrypoint's own children need a
decision. In this order:

1. The *marker*: a variable in the environment that a process was started with names its
   runs, outermost first (a nested entrypoint appends its own). A marker that names a run of
   this entrypoint decides.
2. The *session*: each run begins one, and no process can enter a session from outside. A
   process in our own session was started by other code of this program, so it is nobody's.
3. *Elimination*: a process that wrote over its environment and left the session belongs to
   the only run that is older than it. Were there several, it is left to the last of them.

This file decides and looks; it sends no signals.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from trio_entrypoint._linux.procfs import Stat, children, read_stat

MARKER_VARIABLE = "TRIO_ENTRYPOINT_RUN"
"""Environment variable that names the runs that a process belongs to, outermost first."""


def nested_marker(component: str) -> str:
    """The value of the variable for a run of ours: what we are part of, then the run."""
    outer = os.environ.get(MARKER_VARIABLE)
    return f"{outer}/{component}" if outer else component


class Run(NamedTuple):
    """What identifies one run and its processes."""

    marker: str
    """This run's component of the marker; it is unique on this machine."""

    main: int
    """Pid of the main process, and so the number of its process group."""

    started: int
    """When the main process started, in clock ticks since boot."""

    session: int | None
    """The session that the run began; None when it shares the entrypoint's terminal."""


def run_of(
    child: Stat,
    runs: Collection[Run],
    *,
    own_session: int,
    marker: Callable[[int], str | None],
    foreign: Callable[[], Collection[int]],
) -> Run | None:
    """Which run a child of the entrypoint belongs to; None when to none, or not surely.

    Args:
        child: The child.
        runs: The runs that were started and did not end yet.
        own_session: The entrypoint's session.
        marker: Reads the marker of a process.
        foreign: Tells the children that other code of this program started.
    """
    for run in runs:
        if child.pid == run.main:
            return run
    components = (marker(child.pid) or "").split("/")
    for run in runs:
        if run.marker in components:
            return run
    for run in runs:
        if run.session is not None and child.session == run.session:
            return run
        if child.group == run.main and child.started >= run.started:
            return run
    candidates = [run for run in runs if run.started <= child.started]
    if len(candidates) != 1 or child.session == own_session or child.pid in foreign():
        return None
    return candidates[0]


def subtree(
    roots: Iterable[Stat],
    children_of: Callable[[int], list[int]] = children,
    stat_of: Callable[[int], Stat | None] = read_stat,
) -> Iterator[Stat]:
    """The processes below some roots, roots included, parents before their children."""
    pending = list(roots)
    seen = {root.pid for root in pending}
    while pending:
        process = pending.pop()
        yield process
        for pid in children_of(process.pid):
            if pid not in seen and (stat := stat_of(pid)) is not None:
                seen.add(pid)
                pending.append(stat)
