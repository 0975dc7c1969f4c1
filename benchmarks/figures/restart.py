"""Restart: from the application's death by SIGKILL to the first statement of the next main."""

import time
from contextlib import ExitStack

from benchmarks.results import Figure, Goal, Series
from benchmarks.stage import Stage, kill, open_performance

# Supervisors may hold an application back that died within its first second, or that keeps
# dying. That is not what is measured: it has lived a little longer, and dies once.
LIVED = 1.2


def measure(stage: Stage) -> Figure:
    """Run all contenders at once, and kill the application of one after another."""
    contenders = [contender for contender in stage.contenders if contender.restarts]
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in stage.rounds(12, 3):
        with ExitStack() as stack:
            performances = []
            for contender in stage.shuffled(contenders, number):
                job, reports = stack.enter_context(stage.job())
                performance = stack.enter_context(open_performance(contender, job, reports))
                performances.append((performance, performance.main()))
            for performance, report in performances:
                performance.settle(report.pid)
                time.sleep(max(0.0, report.at / 1e9 + LIVED - time.monotonic()))
                begin = time.monotonic_ns()
                kill(report.pid)
                main = performance.main().at
                samples[performance.contender.name].append((main - begin) / 1e6)
    return Figure(
        name="restart",
        title="Application killed to the next one's main",
        unit="ms",
        series=[Series("restart", name, values) for name, values in samples.items()],
        goals=[Goal("restart", "runit")],
        notes=[f"Its first death, after at least {LIVED:g} s."],
    )
