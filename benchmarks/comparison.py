"""From samples to conclusions: pure functions, no clock, no process.

A conclusion has to pass two tests, so that noise is never reported as a result:

1. the bootstrap confidence interval of the ratio of the medians excludes 1 (or the goal), and
2. the medians are further apart than the samples of either side spread (the larger of the
   two interquartile ranges).

When either fails, the verdict is `UNDECIDED`, whatever the medians say. The bootstrap is
seeded: the same samples always give the same report.
"""

import random
import statistics
from collections.abc import Sequence
from enum import Enum
from typing import final

import attrs

CONFIDENCE = 0.99
RESAMPLES = 2000


@final
@attrs.frozen
class Summary:
    """The middle and the spread of one series of samples."""

    count: int
    median: float
    lower: float
    """First quartile."""
    upper: float
    """Third quartile."""

    @property
    def spread(self) -> float:
        """The interquartile range."""
        return self.upper - self.lower


@final
@attrs.frozen
class Ratio:
    """A ratio of two medians, with its confidence interval."""

    value: float
    low: float
    high: float


@final
class Verdict(Enum):
    """What may be said about a first series against a second one."""

    LOWER = "lower"
    HIGHER = "higher"
    UNDECIDED = "undecided"


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value that `percent` per cent of the samples do not exceed, interpolated."""
    if not samples:
        raise ValueError("no samples, so no percentile")
    ordered = sorted(samples)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def summarise(samples: Sequence[float]) -> Summary:
    """Median and quartiles."""
    return Summary(
        len(samples), percentile(samples, 50), percentile(samples, 25), percentile(samples, 75)
    )


def ratio(first: Sequence[float], second: Sequence[float], *, seed: int = 7) -> Ratio:
    """Median of `first` over median of `second`, with a bootstrapped confidence interval."""
    middle = statistics.median(second)
    if middle == 0:
        raise ZeroDivisionError("the second median is 0: such series have no ratio")
    chance = random.Random(seed)
    resampled = []
    for _ in range(RESAMPLES):
        below = statistics.median(chance.choices(second, k=len(second)))
        if below:
            above = statistics.median(chance.choices(first, k=len(first)))
            resampled.append(above / below)
    outside = (1 - CONFIDENCE) / 2 * 100
    return Ratio(
        statistics.median(first) / middle,
        percentile(resampled, outside),
        percentile(resampled, 100 - outside),
    )


def compare(first: Sequence[float], second: Sequence[float], *, factor: float = 1.0) -> Verdict:
    """Whether `first` is lower or higher than `factor` times `second`, if that can be said."""
    second = [factor * sample for sample in second]
    one, other = summarise(first), summarise(second)
    difference = one.median - other.median
    if abs(difference) <= max(one.spread, other.spread):
        return Verdict.UNDECIDED
    if other.median == 0:
        return Verdict.HIGHER if difference > 0 else Verdict.LOWER
    interval = ratio(first, second)
    if interval.high < 1:
        return Verdict.LOWER
    if interval.low > 1:
        return Verdict.HIGHER
    return Verdict.UNDECIDED
