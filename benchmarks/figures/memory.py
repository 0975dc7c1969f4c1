"""Memory of the entrypoint itself, idle, with one application and with a hundred."""

import time

from benchmarks.contenders import Contender
from benchmarks.processes import memory
from benchmarks.results import Figure, Goal, Series
from benchmarks.stage import Stage, open_performance

MANY = 100
ONE_CASE, PEAK_CASE, MANY_CASE = "idle, PSS", "peak (VmHWM)", f"{MANY} processes, PSS"


def measure(stage: Stage) -> Figure:
    """One contender at a time: processes of one program share pages, and so its PSS."""
    samples: dict[tuple[str, str], list[float]] = {}
    for number in stage.rounds(3, 1):
        for contender in stage.shuffled(stage.contenders, number):
            _measure_one(stage, contender, 1, samples)
            if contender.many:
                _measure_one(stage, contender, MANY, samples)
    order = [contender.name for contender in stage.contenders if contender.package != "-"]
    return Figure(
        name="memory",
        title="Memory of the entrypoint",
        unit="MB",
        series=[
            Series(case, name, samples[case, name])
            for case in (ONE_CASE, PEAK_CASE, MANY_CASE)
            for name in order
            if (case, name) in samples
        ],
        goals=[Goal(ONE_CASE, "circus"), Goal(ONE_CASE, "supervisord")],
        notes=[
            "All processes of the contender together, without the applications.",
            (
                "The harness is a Python program too: the interpreter's own pages count half for "
                "every contender written in Python."
            ),
        ],
    )


def _measure_one(
    stage: Stage, contender: Contender, copies: int, samples: dict[tuple[str, str], list[float]]
) -> None:
    with (
        stage.job(copies=copies) as (job, reports),
        open_performance(contender, job, reports) as performance,
    ):
        applications = [performance.main(60.0).pid for _ in range(copies)]
        time.sleep(2.0)
        found = memory(performance.own_processes(applications))
        if copies == 1:
            samples.setdefault((ONE_CASE, contender.name), []).append(found.pss / 1000)
            samples.setdefault((PEAK_CASE, contender.name), []).append(found.peak / 1000)
        else:
            samples.setdefault((MANY_CASE, contender.name), []).append(found.pss / 1000)
