"""What a lease allows: decided without I/O, so tested by the thousand."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_entrypoint.activation._lease import Lease, Tenure

STOP_WITHIN = 5.0
DURATION = 15.0

times = st.floats(0, 100)


def held(sent: float = 0.0) -> Lease:
    lease = Lease()
    lease.extend(sent, Tenure(sent, DURATION, STOP_WITHIN))
    return lease


@given(sent=times, duration=st.floats(1, 1000), stop=st.floats(0, 0.8))
def test_renewal_deactivation_and_the_end_come_in_this_order_before_others_may_start(
    sent: float, duration: float, stop: float
) -> None:
    tenure = Tenure(sent, duration, stop * duration)
    assert sent < tenure.renew_at < tenure.demote_at <= tenure.gone_by < sent + duration
    assert tenure.gone_by - tenure.demote_at == pytest.approx(stop * duration)


steps = st.lists(
    st.tuples(
        st.floats(0, 20),  # how much later
        st.one_of(
            st.tuples(st.just("renewed"), st.floats(0, 10)),  # how long ago it was sent
            st.tuples(st.just("elected"), st.just(0.0)),
            st.tuples(st.just("checked"), st.just(0.0)),
            st.tuples(st.just("lost"), st.just(0.0)),
        ),
    ),
    max_size=20,
)


@given(steps=steps)
def test_whatever_happens_it_is_never_active_beyond_its_last_renewal_and_never_twice(
    steps: list[tuple[float, tuple[str, float]]],
) -> None:
    lease, now, latest_sent = Lease(), 0.0, -1.0
    was_active: list[bool] = []
    for later, (what, ago) in steps:
        now += later
        active_before = lease.active(now)
        match what:
            case "renewed":
                latest_sent = max(latest_sent, now - ago)
                lease.extend(now, Tenure(now - ago, DURATION, STOP_WITHIN))
                assert lease.active(now) == active_before, "a renewal does not activate"
            case "elected" if lease.token is None:
                assert lease.elect(now, "1") == lease.active(now)
            case "checked":
                lease.check(now)
                assert lease.active(now) == active_before
            case "lost":
                lease.lose(now)
                assert not lease.active(now)
            case _:
                pass
        was_active.append(lease.active(now))
        if lease.active(now):
            assert now < latest_sent + DURATION * 0.95 - STOP_WITHIN + 1e-6
            assert lease.gone_by is None
        elif any(was_active):
            lease.check(now)
            assert lease.gone_by is not None
            assert lease.gone_by < latest_sent + DURATION
    assert len([1 for _ in itertools.groupby(was_active)]) <= 3, "inactive, active, inactive"


def test_after_a_stall_the_missed_deadline_comes_before_the_news_of_a_renewal() -> None:
    lease = held(sent=0)
    assert lease.elect(1, "7")

    lease.extend(40, Tenure(39.9, DURATION, STOP_WITHIN))

    assert not lease.active(40)
    assert lease.gone_by == pytest.approx(DURATION * 0.95), "long ago: kill at once"


def test_a_renewal_that_is_confirmed_late_counts_from_when_it_was_sent() -> None:
    lease = held(sent=0)
    assert lease.elect(1, "7")
    lease.extend(9, Tenure(4.0, DURATION, STOP_WITHIN))

    assert lease.active(4 + DURATION * 0.95 - STOP_WITHIN - 0.01)
    assert not lease.active(4 + DURATION * 0.95 - STOP_WITHIN + 0.01)


def test_confirmations_out_of_order_never_shorten_a_lease() -> None:
    lease = held(sent=5)
    assert lease.elect(6, "7")
    lease.extend(7, Tenure(1.0, DURATION, STOP_WITHIN))

    assert lease.tenure == Tenure(5, DURATION, STOP_WITHIN)


def test_who_is_elected_when_its_lease_is_nearly_over_does_not_become_active() -> None:
    lease = held(sent=0)
    assert not lease.elect(DURATION * 0.95 - STOP_WITHIN, "7")
    assert not lease.active(DURATION * 0.95 - STOP_WITHIN)


def test_a_lost_lease_leaves_no_time() -> None:
    lease = held(sent=0)
    assert lease.elect(1, "7")
    lease.lose(2)
    assert lease.gone_by == 2


def test_a_lease_is_elected_once() -> None:
    lease = held(sent=0)
    assert lease.elect(1, "7")
    lease.lose(2)
    with pytest.raises(RuntimeError, match="once"):
        lease.elect(3, "8")
