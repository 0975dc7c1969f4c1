"""What each further supervised process costs: memory, and time until it runs."""

import time

from benchmarks.contenders.ours import LIBRARY
from benchmarks.processes import memory
from benchmarks.results import Figure, Limit, Series
from benchmarks.stage import Stage, open_performance

FEW, MANY = 1, 101
MEMORY_CASE, TIME_CASE = "memory (PSS), kB", "time until it runs, ms"


def measure(stage: Stage) -> Figure:
    """Run one and then a hundred and one, and share the difference out."""
    contenders = [contender for contender in stage.contenders if contender.many]
    sizes: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in stage.rounds(3, 1):
        for contender in stage.shuffled(contenders, number):
            found: dict[int, tuple[float, float]] = {}
            for copies in (FEW, MANY):
                with (
                    stage.job(copies=copies) as (job, reports),
                    open_performance(contender, job, reports) as performance,
                ):
                    started = [performance.main(60.0) for _ in range(copies)]
                    time.sleep(2.0)
                    own = performance.own_processes([report.pid for report in started])
                    last = max(report.at for report in started)
                    found[copies] = memory(own).pss, (last - performance.begin) / 1e6
            more = MANY - FEW
            sizes[contender.name].append((found[MANY][0] - found[FEW][0]) / more)
            times[contender.name].append((found[MANY][1] - found[FEW][1]) / more)
    return Figure(
        name="processes",
        title="Cost of each further supervised process",
        unit="",
        series=[
            *(Series(MEMORY_CASE, name, values) for name, values in sizes.items()),
            *(Series(TIME_CASE, name, values) for name, values in times.items()),
        ],
        goals=[Limit(MEMORY_CASE, 30.0), Limit(MEMORY_CASE, 30.0, LIBRARY)],
        notes=[f"({MANY} processes - {FEW} process) / {MANY - FEW}."],
    )
