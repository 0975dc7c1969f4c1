"""Results as Markdown: a table for each figure, and what may be concluded from it."""

from collections.abc import Iterator, Sequence

from benchmarks.comparison import CONFIDENCE, Verdict, compare, ratio, summarise
from benchmarks.contenders.ours import NAME as OURS
from benchmarks.results import Figure, Goal, Limit, Results

VERDICTS = {
    Verdict.LOWER: "lower",
    Verdict.HIGHER: "higher",
    Verdict.UNDECIDED: "no conclusion: the spread is larger than the difference",
}
GOALS = {
    Verdict.LOWER: "reached",
    Verdict.HIGHER: "**missed**",
    Verdict.UNDECIDED: "undecided: within the spread",
}


def number(value: float) -> str:
    """Three significant digits, without exponents."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def judge(figure: Figure, goal: Goal | Limit) -> tuple[str, Verdict | None]:
    """A goal in words, and whether our samples are below it; None when it was not measured."""
    ours = figure.samples(goal.case, goal.contender if isinstance(goal, Limit) else OURS)
    if isinstance(goal, Limit):
        words = f"{goal.case}: at most {number(goal.value)} {figure.unit}".rstrip()
        words += f", {goal.contender}" if goal.contender != OURS else ""
        if not ours:
            return words, None
        summary = summarise(ours)
        if summary.upper <= goal.value:
            return words, Verdict.LOWER
        return words, Verdict.HIGHER if summary.lower > goal.value else Verdict.UNDECIDED
    words = f"{goal.case}: at most "
    words += f"{goal.factor:g} times " if goal.factor != 1 else ""
    words += f"{number(goal.plus)} {figure.unit} more than " if goal.plus else ""
    words += goal.reference
    theirs = figure.samples(goal.reference_case or goal.case, goal.reference)
    if not ours or not theirs:
        return words, None
    return words, compare([sample - goal.plus for sample in ours], theirs, factor=goal.factor)


def _row(figure: Figure, case: str, contender: str, samples: Sequence[float]) -> str:
    summary = summarise(samples)
    cells = [
        case,
        contender,
        number(summary.median),
        f"{number(summary.lower)} to {number(summary.upper)}",
        str(summary.count),
    ]
    ours = figure.samples(case, OURS)
    if contender == OURS or not ours:
        cells += ["", ""]
    else:
        verdict = VERDICTS[compare(ours, samples)]
        if summary.median == 0:
            cells += ["", verdict]
        else:
            found = ratio(ours, samples)
            between = f"{number(found.low)} to {number(found.high)}"
            cells += [f"{number(found.value)} ({between})", verdict]
    return f"| {' | '.join(cells)} |"


def _figure(figure: Figure) -> Iterator[str]:
    yield f"## {figure.title}"
    yield ""
    median = f"median, {figure.unit}" if figure.unit else "median"
    yield f"| case | contender | {median} | quartiles | samples | ours / theirs | ours is |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | --- |"
    for case in figure.cases:
        for series in figure.series:
            if series.case == case and series.samples:
                yield _row(figure, case, series.contender, series.samples)
    yield ""
    for goal in figure.goals:
        words, verdict = judge(figure, goal)
        yield f"- {words}: {'not measured' if verdict is None else GOALS[verdict]}"
    for cited in figure.cited:
        yield (
            f"- {cited.case}: {cited.name} had {number(cited.value)} {figure.unit} as first "
            "measured on a machine of this kind; it is not part of this run"
        )
    for note in figure.notes:
        yield f"- {note}"
    yield ""


def markdown(results: Results) -> str:
    """The whole report."""
    lines = ["# Measured against the field", ""]
    lines += [
        (
            "Each figure is one run, all contenders in turn, in another order each round. "
            f"Medians; the ratio is of medians, with its {CONFIDENCE:.0%} bootstrap interval. "
            "Nothing is concluded where the medians are closer than the larger interquartile "
            "range, or the interval includes 1."
        ),
        "",
    ]
    if results.quick:
        lines += ["**A quick run: few samples, for developing the harness only.**", ""]
    lines += [f"- {key}: {value}" for key, value in results.machine.items()]
    lines += [f"- {name}: {version}" for name, version in results.versions.items()]
    lines += [f"- not installed, so not measured: {name}" for name in results.missing]
    lines.append("")
    for figure in results.figures:
        lines += _figure(figure)
    return "\n".join(lines).rstrip() + "\n"
