"""Elections in virtual time over a network that fails: at most one application, always."""

import os
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio.testing
from fake_etcd import FakeEtcd
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from simulated_elections import Judge, Machine, hold_elections
from simulated_network import Faults, Link, SkewedClock

from trio_entrypoint._remote.etcd import Etcd
from trio_entrypoint.activation.etcd import _Contender

# A soak run has more of them: SIMULATED_ELECTIONS=1000.
EXAMPLES = int(os.environ.get("SIMULATED_ELECTIONS", "10"))

T = TypeVar("T")

TTL = 15
STOP_WITHIN = 5.0


def etcd_contender(link: Link) -> _Contender:
    return _Contender(Etcd(link, ("http://etcd",), None, 1.0), "/app", TTL, "machine")


def simulate(scenario: Callable[[], Awaitable[T]]) -> T:
    return trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


async def elections(seed: int, faults: Faults, *, partitions: bool) -> Judge:
    server = FakeEtcd()
    rng = random.Random(seed)

    async def replace_leaders() -> None:
        while True:
            await trio.sleep(rng.expovariate(1 / 60))
            server.replace_leader(unnoticed_for=rng.uniform(0, 1))
            server.drop_watches()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.expire_leases)
        nursery.start_soon(replace_leaders)
        judge = await hold_elections(
            server,
            etcd_contender,
            seed=seed,
            stop_within=STOP_WITHIN,
            faults=faults,
            partitions=partitions,
        )
        nursery.cancel_scope.cancel()
    return judge


@given(seed=st.integers(0, 2**32))
@settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate])
def test_never_two_are_active_whatever_the_network_does(seed: int) -> None:
    faults = Faults(
        lose_request=0.05, lose_answer=0.05, refuse=0.05, delay=0.2, silence_stream=0.2
    )

    judge = simulate(lambda: elections(seed, faults, partitions=True))

    assert judge.activations > 5


@given(
    seed=st.integers(0, 2**32),
    rate=st.sampled_from([0.98, 1.0, 1.02]),
    cut_after=st.floats(0, 12),
    ways=st.sampled_from([(True, False), (False, True), (True, True)]),
    leader_replaced=st.floats(0, 6),
    unnoticed_for=st.floats(0, 6),
)
@settings(max_examples=20 * EXAMPLES, deadline=None, database=None, phases=[Phase.generate])
def test_a_holder_that_is_cut_off_at_any_moment_is_gone_before_the_next_one_starts(
    seed: int,
    rate: float,
    cut_after: float,
    ways: tuple[bool, bool],
    leader_replaced: float,
    unnoticed_for: float,
) -> None:
    """Its application takes all the time that it is given; leaders change behind its back."""

    async def scenario() -> None:
        server, judge, rng = FakeEtcd(), Judge(), random.Random(seed)
        slow = Faults(delay=0.5, longest_delay=0.9)
        first, second = (
            Machine(
                number, rng, judge, Link(server, faults, rng), clock, STOP_WITHIN, etcd_contender
            )
            for number, (faults, clock) in enumerate(
                [(slow, SkewedClock(rate, 5.0)), (Faults(), SkewedClock(1.0, 0.0))]
            )
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.expire_leases)
            nursery.start_soon(first.contend, lambda: 1e9)
            await first.active.wait()
            nursery.start_soon(second.contend, lambda: 1e9)
            if leader_replaced < cut_after:
                await trio.sleep(cut_after - leader_replaced)
                server.replace_leader(unnoticed_for)
                await trio.sleep(leader_replaced)
            else:
                await trio.sleep(cut_after)
            first.link.cut_to_server, first.link.cut_from_server = ways
            with trio.fail_after(4 * TTL):
                await second.active.wait()
            nursery.cancel_scope.cancel()

    simulate(scenario)


def test_a_lease_is_kept_while_a_cancelled_body_stops_its_process() -> None:
    """However long that takes: cancellation reaches the lease when nothing is left."""

    async def scenario() -> None:
        server, judge, rng = FakeEtcd(), Judge(), random.Random(1)
        first, second = (
            Machine(
                number,
                rng,
                judge,
                Link(server, Faults(), rng),
                SkewedClock(1.0, 0.0),
                STOP_WITHIN,
                etcd_contender,
            )
            for number in range(2)
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.expire_leases)
            lifetime = trio.CancelScope()

            async def contend() -> None:
                with lifetime:
                    await first.contend(lambda: 0.0, leaving=3.0 * TTL)

            nursery.start_soon(contend)
            await first.active.wait()
            nursery.start_soon(second.contend, lambda: 0.0)
            await trio.sleep(1)
            lifetime.cancel()
            with trio.fail_after(4 * TTL):
                await second.active.wait()
            assert trio.current_time() - judge.idle_since < 1, "and then released at once"
            nursery.cancel_scope.cancel()

    simulate(scenario)
