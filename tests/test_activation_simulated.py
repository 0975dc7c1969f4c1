"""Elections in virtual time over a network that fails: at most one application, always."""

import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import pytest
import trio
import trio.testing
from fake_etcd import FakeEtcd
from fake_kubernetes import FakeKubernetes
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from simulated_elections import Judge, Machine, hold_elections
from simulated_network import Faults, Link, SkewedClock

from trio_entrypoint._nursery import open_background
from trio_entrypoint._remote.etcd import Etcd
from trio_entrypoint._remote.kubeconfig import Access
from trio_entrypoint._remote.kubernetes import LeaseApi
from trio_entrypoint.activation._leased import open_lease_activation
from trio_entrypoint.activation.etcd import EtcdContender
from trio_entrypoint.activation.kubernetes import KubernetesContender

# `nox -s soak` has more of them.
EXAMPLES = int(os.environ.get("SIMULATIONS", "6"))

T = TypeVar("T")

TTL = 15


class EtcdWorld:
    """A fake etcd whose leaders are replaced now and then, and do not always know it."""

    stop_within = 5.0

    def __init__(self, seed: int) -> None:
        self.server = FakeEtcd()
        self._rng = random.Random(seed)

    def contender(self, link: Link) -> EtcdContender:
        return EtcdContender(Etcd(link, ("http://etcd",), None, 1.0), "/app", TTL, "machine")

    async def live(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.expire_leases)
            while True:
                await trio.sleep(self._rng.expovariate(1 / 60))
                self.server.replace_leader(unnoticed_for=self._rng.uniform(0, 1))
                self.server.drop_watches()

    def disturb(self, seconds: float) -> None:
        self.server.replace_leader(unnoticed_for=seconds)


class KubernetesWorld:
    """A fake API server that ends watches, fails, and forgets its history."""

    stop_within = TTL * 0.95 - 9.25

    def __init__(self, seed: int) -> None:
        self.server = FakeKubernetes()
        self._rng = random.Random(seed)

    def contender(self, link: Link) -> KubernetesContender:
        api = LeaseApi(link, Access("http://api"), "default", "app", 2.3)
        return KubernetesContender(api, f"machine_{self._rng.random()}", TTL, 2.0)

    async def live(self) -> None:
        while True:
            await trio.sleep(self._rng.expovariate(1 / 20))
            match self._rng.randrange(3):
                case 0:
                    self.server.end_watches()
                case 1:
                    self.server.expire_history()
                case _:
                    self.server.failures.extend([429, 500, 503])

    def disturb(self, seconds: float) -> None:
        self.server.failures.extend([500] * int(seconds))


World: TypeAlias = EtcdWorld | KubernetesWorld


def simulate(scenario: Callable[[], Awaitable[T]]) -> T:
    return trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.fixture(params=[EtcdWorld, KubernetesWorld], ids=["etcd", "kubernetes"], scope="module")
def make_world(request: pytest.FixtureRequest) -> Callable[[int], World]:
    return request.param  # type: ignore[no-any-return]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate])
def test_never_two_are_active_whatever_the_network_does(
    make_world: Callable[[int], World], seed: int
) -> None:
    faults = Faults(
        lose_request=0.05,
        lose_answer=0.05,
        refuse=0.05,
        delay=0.2,
        silence_stream=0.2,
        break_stream=0.2,
    )

    async def scenario() -> Judge:
        world = make_world(seed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.live)
            judge = await hold_elections(
                world.server,
                world.contender,
                seed=seed,
                stop_within=world.stop_within,
                faults=faults,
            )
            nursery.cancel_scope.cancel()
        return judge

    judge = simulate(scenario)

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
    make_world: Callable[[int], World],
    seed: int,
    rate: float,
    cut_after: float,
    ways: tuple[bool, bool],
    leader_replaced: float,
    unnoticed_for: float,
) -> None:
    """Its application takes all the time that it is given; leaders change behind its back."""

    async def scenario() -> None:
        world, judge, rng = make_world(seed), Judge(), random.Random(seed)
        slow = Faults(delay=0.5, longest_delay=0.9)
        first, second = (
            Machine(
                number,
                rng,
                judge,
                Link(world.server, faults, rng),
                clock,
                world.stop_within,
                world.contender,
            )
            for number, (faults, clock) in enumerate(
                [(slow, SkewedClock(rate, 5.0)), (Faults(), SkewedClock(1.0, 0.0))]
            )
        )
        async with trio.open_nursery() as nursery:
            if isinstance(world, EtcdWorld):
                nursery.start_soon(world.server.expire_leases)
            nursery.start_soon(first.contend, lambda: 1e9)
            await first.active.wait()
            nursery.start_soon(second.contend, lambda: 1e9)
            if leader_replaced < cut_after:
                await trio.sleep(cut_after - leader_replaced)
                world.disturb(unnoticed_for)
                await trio.sleep(leader_replaced)
            else:
                await trio.sleep(cut_after)
            first.link.cut_to_server, first.link.cut_from_server = ways
            with trio.fail_after(4 * TTL):
                await second.active.wait()
            nursery.cancel_scope.cancel()

    simulate(scenario)


def test_a_lease_is_kept_while_a_cancelled_body_stops_its_process(
    make_world: Callable[[int], World],
) -> None:
    """However long that takes: cancellation reaches the lease when nothing is left."""

    async def scenario() -> None:
        world, judge, rng = make_world(1), Judge(), random.Random(1)
        first, second = (
            Machine(
                number,
                rng,
                judge,
                Link(world.server, Faults(), rng),
                SkewedClock(1.0, 0.0),
                world.stop_within,
                world.contender,
            )
            for number in range(2)
        )
        async with trio.open_nursery() as nursery:
            if isinstance(world, EtcdWorld):
                nursery.start_soon(world.server.expire_leases)
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


def test_who_waits_in_etcd_renews_and_does_nothing_else() -> None:
    """No polling, and no herd: of many that wait, one looks when the holder leaves."""

    async def scenario() -> None:
        world, rng = EtcdWorld(1), random.Random(1)
        link = Link(world.server, Faults(), rng)
        clock = SkewedClock(1.0, 0.0)

        async def wait_in_line() -> None:
            contender = world.contender(link)
            async with open_lease_activation(clock, world.stop_within, contender.contend):
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.server.expire_leases)
            holder = world.contender(link)
            async with open_lease_activation(clock, world.stop_within, holder.contend) as first:
                while not (await first.events.receive()).active:
                    pass
                for _ in range(20):
                    nursery.start_soon(wait_in_line)
                await trio.sleep(TTL / 2)
                world.server.requests.clear()
                await trio.sleep(10 * TTL)
                requests = Counter(method for method, _ in world.server.requests)
                renewals = requests["lease/keepalive"]
                assert set(requests) == {"lease/keepalive", "kv/range"}
                # Each renewal is confirmed by a read; a watch is renewed once in a time to live.
                assert requests["kv/range"] <= renewals + 21 * 11
            world.server.requests.clear()
            await holder.release()
            await trio.sleep(0.5)
            looks = [body for method, body in world.server.requests if method == "kv/range"]
            assert len(looks) < 20, "the 19 others were not woken"
            nursery.cancel_scope.cancel()

    simulate(scenario)


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_lease_that_is_shorter_than_was_asked_for_is_renewed_with_pauses(when: str) -> None:
    async def scenario() -> None:
        world = EtcdWorld(1)
        link = Link(world.server, Faults(), random.Random(1))
        clock = SkewedClock(1.0, 0.0)
        holder, other = world.contender(link), world.contender(link)
        async with (
            open_lease_activation(clock, world.stop_within, holder.contend) as first,
            open_background(world.server.expire_leases),
        ):
            while not (await first.events.receive()).active:
                pass
            if when == "at once":
                world.server.longest = 2
            async with open_lease_activation(clock, world.stop_within, other.contend):
                await trio.sleep(1)
                world.server.longest = 2
                await trio.sleep(TTL)
        requests = Counter(method for method, _ in world.server.requests)
        # Each of the two renews it every half second, and at once after each grant.
        assert requests["lease/keepalive"] < 2 * 2 * TTL + requests["lease/grant"] + 10
        assert requests["lease/grant"] < 30, "it is too short to be elected with"

    simulate(scenario)
