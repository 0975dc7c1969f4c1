"""Idle: wake-ups and CPU time when nothing happens, and when nothing of concern happens."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.archives import write_archive
from benchmarks.contenders import Contender
from benchmarks.processes import Activity, activity
from benchmarks.results import Figure, Limit, Series
from benchmarks.stage import Performance, Stage, open_performance

SECONDS = 10
EVENTS = 100
# Trio's idle threads end after ten seconds; what they did is not to be missed from the count.
SETTLED = 12.0
WAKEUPS, CPU = "wake-ups", "CPU, ms"


def _nothing(_directory: Path) -> None:
    time.sleep(SECONDS)


def _steady(directory: Path) -> None:
    for number in range(SECONDS * EVENTS):
        (directory / f"unrelated-{number % EVENTS}").write_text(str(number))
        time.sleep(1 / EVENTS)


def _bursts(directory: Path) -> None:
    for _ in range(SECONDS):
        for number in range(EVENTS):
            (directory / f"unrelated-{number}").write_text(str(number))
        time.sleep(1)


@contextmanager
def _performances(stage: Stage, contenders: list[Contender]) -> Iterator[dict[str, Performance]]:
    with ExitStack() as stack:
        found = {}
        for contender in contenders:
            job, reports = stack.enter_context(
                stage.job(activation=contender.configures, configured=contender.configures)
            )
            if job.activation is not None and job.source is not None:
                job.activation.touch()
                write_archive(job.source, files=10, changed=10, version="0")
            found[contender.name] = stack.enter_context(open_performance(contender, job, reports))
        yield found


def measure(stage: Stage) -> Figure:
    """Count for ten seconds: everybody idle; then us, with files changing beside ours."""
    idle: dict[str, list[Activity]] = {}
    beside: dict[str, list[Activity]] = {}
    with _performances(stage, list(stage.contenders)) as performances:
        own = {}
        for name, performance in performances.items():
            own[name] = performance.own_processes([performance.main().pid])
        time.sleep(SETTLED)
        for _ in stage.rounds(3, 1):
            for name, found in _count(own, _nothing, Path()).items():
                idle.setdefault(name, []).append(found)
        for name, performance in performances.items():
            if performance.contender.configures:
                directory = performance.job.directory
                for number in range(EVENTS):  # creating one would be an event more than writing
                    (directory / f"unrelated-{number}").touch()
                time.sleep(0.5)
                for case, happen in (("steady", _steady), ("bursts", _bursts)):
                    stage.say(f"  {case} events that concern nobody")
                    found = _count({name: own[name]}, happen, directory)[name]
                    beside.setdefault(case, []).append(found)
                assert performance.reports.receive() is None, "restarted for no reason"
    series = []
    for name, samples in idle.items():
        if performances[name].contender.package != "-":
            series.append(Series(f"idle, {WAKEUPS}", name, [found.wakeups for found in samples]))
            series.append(Series(f"idle, {CPU}", name, [found.cpu / 1e6 for found in samples]))
    ours = next((name for name, one in performances.items() if one.contender.configures), "")
    for case, samples in beside.items():
        series.append(Series(f"{case}, {WAKEUPS}", ours, [found.wakeups for found in samples]))
        series.append(Series(f"{case}, {CPU}", ours, [found.cpu / 1e6 for found in samples]))
    return Figure(
        name="idle",
        title=f"Wake-ups and CPU time in {SECONDS} s",
        unit="",
        series=series,
        goals=[
            Limit(f"idle, {WAKEUPS}", 0),
            Limit(f"idle, {CPU}", 0),
            Limit(f"steady, {WAKEUPS}", SECONDS * EVENTS),
        ],
        notes=[
            (
                f"steady: {EVENTS} files a second are written beside the watched ones, evenly; "
                f"bursts: {EVENTS} at once, each second. Every write is three or more events of "
                "inotify."
            ),
            (
                f"{ours or 'ours'} watches an activation file and a tar, in a directory above "
                "which nobody else makes files: that would wake it."
            ),
        ],
    )


def _count(
    own: dict[str, list[int]], happen: Callable[[Path], None], directory: Path
) -> dict[str, Activity]:
    before = {name: activity(pids) for name, pids in own.items()}
    happen(directory)
    return {name: activity(pids).since(before[name]) for name, pids in own.items()}
