"""Stop: from the signal that ends the container to the end of entrypoint and application."""

import time
from contextlib import ExitStack

from benchmarks.contenders.inits import NOTHING
from benchmarks.results import Figure, Goal, Series
from benchmarks.stage import Stage, open_performance

# Some peers take an application for started only after a second.
LIVED = 1.5


def measure(stage: Stage) -> Figure:
    """Run all contenders at once, settled, and shut one after another down."""
    samples: dict[str, list[float]] = {contender.name: [] for contender in stage.contenders}
    for number in stage.rounds(12, 3):
        with ExitStack() as stack:
            performances = []
            for contender in stage.shuffled(stage.contenders, number):
                job, reports = stack.enter_context(stage.job())
                performance = stack.enter_context(open_performance(contender, job, reports))
                performances.append((performance, performance.main().pid))
            for performance, application in performances:
                performance.settle(application)
                time.sleep(max(0.0, performance.begin / 1e9 + LIVED - time.monotonic()))
                begin = time.monotonic_ns()
                performance.shut_down([application])
                samples[performance.contender.name].append((time.monotonic_ns() - begin) / 1e6)
    return Figure(
        name="stop",
        title="Stop signal to the end of entrypoint and application",
        unit="ms",
        series=[Series("stop", name, values) for name, values in samples.items()],
        goals=[Goal("stop", NOTHING, plus=3.0)],
        notes=["runit gets SIGHUP: after SIGTERM its services would go on running."],
    )
