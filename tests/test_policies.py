"""Policies are values: wrong ones are refused when they are made, right ones are plain."""

import math
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_entrypoint._supervisor.changes import choose, reloads
from trio_entrypoint.commands import Command
from trio_entrypoint.policies import (
    Always,
    Backoff,
    ChangeAction,
    Health,
    Hooks,
    Ignore,
    Limit,
    OnFailure,
    Readiness,
    Reload,
    Restart,
)
from trio_entrypoint.probes import DescriptorProbe, FileProbe, NotifyProbe
from trio_entrypoint.supervisor import Supervisor
from trio_entrypoint.testing import FakeProcess


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Backoff(initial=-1.0), "initial"),
        (lambda: Backoff(factor=0.5), "factor"),
        (lambda: Backoff(maximum=math.nan), "maximum"),
        (lambda: Backoff(jitter=1.5), "jitter"),
        (lambda: Limit(-1, within=1.0), "count"),
        (lambda: Limit(1, within=0.0), "within"),
        (lambda: Readiness(NotifyProbe(), timeout=0.0), "timeout"),
        (lambda: Readiness(NotifyProbe(), successes=0), "successes"),
        (lambda: Health(NotifyProbe(), period=0.0), "period"),
        (lambda: Health(DescriptorProbe()), "DescriptorProbe"),
        (lambda: NotifyProbe("anybody"), "access"),  # type: ignore[arg-type]
        (lambda: Reload(99), "99 is not the number of a signal"),
        (lambda: Hooks(timeout=0.0), "timeout"),
        (lambda: OnFailure(success_codes=[256]), "success_codes"),
        (lambda: Always(backoff=1.0), "backoff"),  # type: ignore[arg-type]
        (lambda: Always(limit=3), "limit"),  # type: ignore[arg-type]
        (lambda: Readiness(8080), "probe"),  # type: ignore[arg-type]
        (lambda: Health(None), "probe"),  # type: ignore[arg-type]
        (lambda: Health(FileProbe("/"), on_failure="restart"), "on_failure"),  # type: ignore[arg-type]
        (lambda: Supervisor(FakeProcess(), restart="always"), "restart: expected one of Always"),  # type: ignore[arg-type]
        (lambda: Supervisor(FakeProcess(), on_change="restart"), "on_change: expected"),  # type: ignore[arg-type]
        (lambda: Supervisor(FakeProcess(), on_change={"*": 1}), "on_change: expected"),  # type: ignore[dict-item]
        (lambda: Hooks(before_start=["true"]), "sequence of words"),
    ],
)
def test_a_wrong_value_is_refused_and_named(make: Callable[[], object], field: str) -> None:
    with pytest.raises((ValueError, TypeError), match=field):
        make()


def test_words_are_taken_for_a_command() -> None:
    assert Reload(["nginx", "-s", "reload"]).how == Command(["nginx", "-s", "reload"])
    assert Hooks(initial=[["true"]]).initial == (Command(["true"]),)


def test_values_can_be_compared_and_hashed() -> None:
    assert Always(limit=Limit(3, within=1.0)) == Always(limit=Limit(3, within=1.0))
    assert len({Restart(), Restart(), Ignore(), Reload(1), Reload(1), OnFailure()}) == 4


@given(
    st.integers(1, 10**6),
    st.floats(0, 1),
    st.builds(
        Backoff,
        initial=st.floats(0, 1e6),
        factor=st.floats(1, 1e3),
        maximum=st.floats(0, 1e6),
        jitter=st.floats(0, 1),
    ),
)
def test_a_delay_is_never_negative_nor_above_the_maximum(
    failures: int, random: float, backoff: Backoff
) -> None:
    delay = backoff.delay(failures, random)
    assert 0 <= delay <= backoff.maximum
    assert backoff.delay(1, random) == 0
    assert backoff.initial or delay == 0


def test_no_number_of_failures_makes_a_delay_out_of_none() -> None:
    assert Backoff(initial=0.0).delay(10**6, 0.0) == 0.0


def test_jitter_only_shortens_a_delay() -> None:
    backoff = Backoff(initial=8.0, jitter=0.25)
    assert (backoff.delay(2, 0.0), backoff.delay(2, 1.0)) == (8.0, 6.0)


@pytest.mark.parametrize(
    ("changed", "action"),
    [
        ([], Restart()),
        (["a/cert.pem"], [Reload(1)]),
        (["a/cert.pem", "x.txt"], [Reload(1)]),
        (["x.txt"], Ignore()),
        (["a/first.txt"], [Reload(2)]),
        (["a/cert.pem", "a/first.txt"], [Reload(2), Reload(1)]),
        (["a/cert.pem", "else"], Restart()),
    ],
)
def test_the_first_glob_that_matches_counts_and_the_strongest_action_is_taken(
    changed: list[str], action: object
) -> None:
    on_change: Mapping[str, ChangeAction] = {
        "a/*.txt": Reload(2),
        "*.txt": Ignore(),
        "*.pem": Reload(1),
    }
    assert choose(on_change, dict.fromkeys(changed)) == action
    assert reloads(on_change) == [Reload(2), Reload(1)]


def test_a_watchdog_is_what_a_notify_probe_is_as_health() -> None:
    assert Health(NotifyProbe(), period=2.0, failures=3).watchdog == 6.0
    assert Health(FileProbe("/")).watchdog is None
