"""Start: from the exec of the entrypoint to the first statement of the application's main."""

from benchmarks.contenders.ours import NAME as OURS
from benchmarks.results import Figure, Goal, Series
from benchmarks.stage import Stage, open_performance


def measure(stage: Stage) -> Figure:
    """Start each contender, once a round."""
    samples: dict[str, list[float]] = {contender.name: [] for contender in stage.contenders}
    for number in stage.rounds(15, 3):
        for contender in stage.shuffled(stage.contenders, number):
            with (
                stage.job() as (job, reports),
                open_performance(contender, job, reports) as performance,
            ):
                samples[contender.name].append((performance.main().at - performance.begin) / 1e6)
    return Figure(
        name="start",
        title="Start of the entrypoint to the application's main",
        unit="ms",
        series=[Series("start", name, values) for name, values in samples.items()],
        goals=[Goal("start", "circus")],
        notes=[f"`{OURS}` is the installed command, its byte code compiled, the cache warm."],
    )
