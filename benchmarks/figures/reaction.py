"""Reaction percentiles over a thousand events, on a quiet machine and on a loaded one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.comparison import percentile
from benchmarks.contenders import Contender
from benchmarks.results import Figure, Series
from benchmarks.stage import Stage, open_performance, stopped

EVENTS = 1000
PERCENTS = (50, 90, 99, 100)


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Keep as many processors busy."""
    with ExitStack() as stack:
        for _ in range(processes):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(busy.wait)
            stack.callback(busy.kill)
        yield


def _react(stage: Stage, contender: Contender, events: int) -> list[float]:
    samples: list[float] = []
    with (
        stage.job(activation=True) as (job, reports),
        open_performance(contender, job, reports) as performance,
    ):
        assert job.activation is not None
        waiting = job.activation.with_name("waiting")
        waiting.touch()
        time.sleep(1.0)
        for _ in range(events // 2):
            begin = time.monotonic_ns()
            waiting.rename(job.activation)
            report = performance.main()
            samples.append((report.at - begin) / 1e6)
            with stopped(report.pid):
                begin = time.monotonic_ns()
                job.activation.rename(waiting)
            samples.append((time.monotonic_ns() - begin) / 1e6)
    return samples


def measure(stage: Stage) -> Figure:
    """Activate and deactivate, again and again, with no pause between."""
    series: list[Series] = []
    events = EVENTS // 10 if stage.quick else EVENTS
    for contender in stage.contenders:
        if not contender.activates:
            continue
        for case, processes in (("quiet", 0), ("loaded", len(os.sched_getaffinity(0)))):
            stage.say(f"  {events} events, {case}")
            with load(processes):
                samples = _react(stage, contender, events)
            series += [
                Series(f"{case}, {percent} %", contender.name, [percentile(samples, percent)])
                for percent in PERCENTS
            ]
    return Figure(
        name="reaction",
        title=f"Reaction to {EVENTS} events, percentiles",
        unit="ms",
        series=series,
        notes=[
            (
                "Half of the events activate (to the application's main), half deactivate (to its "
                "end), each as soon as the one before was done."
            ),
            "loaded: as many busy processes as there are processors.",
        ],
    )
