"""The benchmarks conclude from differences, and refuse to conclude from noise."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.comparison import Verdict, compare, percentile, ratio, summarise

SAMPLES = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=40)


def around(middle: float, spread: float, count: int = 20) -> list[float]:
    chance = random.Random(f"{middle} {spread}")
    return [chance.uniform(middle - spread, middle + spread) for _ in range(count)]


def test_a_clear_difference_is_concluded() -> None:
    assert compare(around(10, 1), around(20, 1)) is Verdict.LOWER
    assert compare(around(20, 1), around(10, 1)) is Verdict.HIGHER


def test_nothing_is_concluded_when_the_spread_is_larger_than_the_difference() -> None:
    assert compare(around(10, 5), around(11, 5)) is Verdict.UNDECIDED


def test_a_certain_but_tiny_difference_within_the_spread_is_no_conclusion() -> None:
    # A thousand samples make the interval of the ratio narrow; the spread stays what it is.
    first, second = around(10, 5, 1000), around(11, 5, 1000)
    assert ratio(first, second).high < 1
    assert compare(first, second) is Verdict.UNDECIDED


def test_the_same_samples_are_never_different_from_themselves() -> None:
    assert compare([3.0, 3.0, 3.0], [3.0, 3.0, 3.0]) is Verdict.UNDECIDED
    assert compare([0.0, 0.0], [0.0, 0.0]) is Verdict.UNDECIDED


def test_a_goal_of_a_factor_is_judged_against_that_multiple() -> None:
    assert compare(around(30, 1), around(10, 1), factor=4) is Verdict.LOWER
    assert compare(around(50, 1), around(10, 1), factor=4) is Verdict.HIGHER


def test_more_than_nothing_is_higher_without_a_ratio() -> None:
    assert compare([5.0, 5.0], [0.0, 0.0]) is Verdict.HIGHER
    with pytest.raises(ZeroDivisionError, match="have no ratio"):
        ratio([5.0], [0.0])


@given(SAMPLES)
def test_quartiles_surround_the_median_and_stay_within_the_samples(samples: list[float]) -> None:
    summary = summarise(samples)
    assert min(samples) <= summary.lower <= summary.median <= summary.upper <= max(samples)


@settings(max_examples=20, deadline=None)
@given(SAMPLES, SAMPLES)
def test_a_ratio_lies_within_its_interval_and_is_the_same_every_time(
    first: list[float], second: list[float]
) -> None:
    found = ratio(first, second)
    assert 0 < found.low <= found.high
    assert found == ratio(first, second)


def test_percentiles_are_interpolated() -> None:
    assert percentile([1, 2, 3, 4], 50) == 2.5
    assert percentile([4, 1, 3, 2], 100) == 4
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_a_difference_that_hangs_on_a_few_samples_is_no_conclusion() -> None:
    # The quartiles are close together, but the median could well be another one.
    first, second = [10.0] * 6 + [30.0] * 2, [20.0] * 8
    assert summarise(first).spread < 10
    assert compare(first, second) is Verdict.UNDECIDED
    assert compare(second, first) is Verdict.UNDECIDED
