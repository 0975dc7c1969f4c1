"""Elections in a real etcd: one active, handed over, lost, and never two."""

import os
import random
import signal
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from etcd_cluster import Cluster, new_cluster
from etcd_contenders import contenders, now
from tcp_proxy import open_proxy

from trio_entrypoint import ActivationChanged, open_etcd_activation

TTL = 2
STOP_WITHIN = 0.5
# What comes on top of the lease's time, on a loaded machine: a watch's event and two reads.
SLACK = 3.0


async def test_the_only_contender_is_elected_with_a_token(etcd: Cluster) -> None:
    async with open_etcd_activation(etcd.endpoints, "/one", identity="me") as activation:
        assert await activation.events.receive() == ActivationChanged(active=False)
        with trio.fail_after(5):
            event = await activation.events.receive()
        assert event.active
        assert activation.active
        assert activation.token == event.token
        assert int(event.token or "") > 0
        assert list(etcd.keys("/one/").values()) == ["me"]
    assert not activation.active
    assert etcd.keys("/one/") == {}


async def test_leaving_hands_over_at_once(etcd: Cluster) -> None:
    """Long before the lease would have ended."""
    leave = trio.Event()

    async def first(task_status: trio.TaskStatus[None]) -> None:
        async with open_etcd_activation(etcd.endpoints, "/over", ttl=60) as activation:
            await activation.events.receive()
            assert (await activation.events.receive()).active
            task_status.started()
            await leave.wait()

    async with trio.open_nursery() as nursery:
        await nursery.start(first)
        async with open_etcd_activation(etcd.endpoints, "/over", ttl=60) as second:
            assert not (await second.events.receive()).active
            await trio.sleep(0.2)
            assert not second.active
            leave.set()
            with trio.fail_after(5):
                assert (await second.events.receive()).active
    assert etcd.keys("/over/") == {}


async def test_a_lease_that_an_operator_revokes_ends_activity_at_once(etcd: Cluster) -> None:
    """Others may be active already: the deadline has passed when it is told."""
    async with open_etcd_activation(etcd.endpoints, "/revoked", ttl=60) as activation:
        await activation.events.receive()
        assert (await activation.events.receive()).active
        for key in etcd.keys("/revoked/"):
            etcd.call("lease/revoke", {"ID": str(int(key.removeprefix("/revoked/"), 16))})
        with trio.fail_after(2):
            event = await activation.events.receive()
            assert not event.active
            assert event.deadline is not None
            assert event.deadline <= trio.current_time()
            assert (await activation.events.receive()).active, "it contends again"


async def test_a_killed_holder_is_replaced_when_its_lease_ends(
    etcd: Cluster, tmp_path: Path
) -> None:
    with contenders(tmp_path, name="/killed", ttl=TTL, stop_within=STOP_WITHIN) as group:
        for who in ("a", "b", "c"):
            group.start(who, etcd.endpoints)
        first = await group.next_active()
        group.kill(first.who)
        killed = now()
        second = await group.next_active(after=killed)

        assert second.start - killed < TTL + SLACK
        group.judge()


async def test_a_holder_that_is_frozen_for_longer_than_its_lease_wakes_up_inactive(
    etcd: Cluster, tmp_path: Path
) -> None:
    """Before it does anything else: it records nothing that overlaps with its successor."""
    with contenders(tmp_path, name="/frozen", ttl=TTL, stop_within=STOP_WITHIN) as group:
        group.start("a", etcd.endpoints)
        first = await group.next_active()
        group.start("b", etcd.endpoints)
        for _ in range(2):
            group.signal(first.who, signal.SIGSTOP)
            frozen = now()
            second = await group.next_active(after=frozen, but=first.who)
            group.signal(first.who, signal.SIGCONT)
            await trio.sleep(0.3)
            group.judge()
            assert second.start - frozen < TTL + SLACK
            first = second


async def test_a_member_that_dies_is_no_reason_to_stop(tmp_path: Path, etcd: Cluster) -> None:
    """The next one is asked, and the lease goes on."""
    async with open_proxy(etcd.members[0].client_url) as proxy:
        endpoints = [proxy.url, *etcd.endpoints[1:]]
        async with open_etcd_activation(
            endpoints, "/failover", ttl=3, stop_within=1
        ) as activation:
            await activation.events.receive()
            assert (await activation.events.receive()).active
            proxy.isolate()
            with trio.move_on_after(5):
                event = await activation.events.receive()
                pytest.fail(f"it was demoted: {event}")
            assert activation.active


async def test_an_unreachable_cluster_means_inactive_and_nothing_worse() -> None:
    async with open_etcd_activation(["http://127.0.0.1:1"], "/nobody") as activation:
        assert await activation.events.receive() == ActivationChanged(active=False)
        with trio.move_on_after(0.5):
            await activation.events.receive()
            pytest.fail("nobody could have elected it")


async def test_hundreds_of_elections_among_processes_never_overlap(
    etcd: Cluster, tmp_path: Path
) -> None:
    wanted = int(os.environ.get("ELECTIONS", "300"))
    with contenders(tmp_path, name="/fast", ttl=10) as group:
        names = [f"c{number}" for number in range(4)]
        for who in names:
            group.start(who, etcd.endpoints, "cycle")
        await group.hold_elections(wanted, among=names, within=10 + wanted / 3)
        group.kill_all()
        elections = group.judge()
    print(f"{len(elections)} elections")  # noqa: T201


async def test_elections_among_processes_never_overlap_while_everything_fails(
    tmp_path: Path,
) -> None:
    """Members die, leaders are cut off, connections fall silent, contenders die and freeze."""
    seconds = float(os.environ.get("ELECTIONS_SECONDS", "8"))
    rng = random.Random(8)
    names = [f"c{number}" for number in range(4)]
    async with AsyncExitStack() as stack:
        cluster = stack.enter_context(new_cluster(3))
        clients, peers = [], {}
        for member in cluster.members:
            clients.append(await stack.enter_async_context(open_proxy(member.client_url)))
            peers[member.name] = await stack.enter_async_context(open_proxy(member.peer_url))
            member.advertised_peer_url = peers[member.name].url
        await trio.to_thread.run_sync(cluster.start_all)
        group = stack.enter_context(
            contenders(tmp_path, name="/many", ttl=TTL, stop_within=STOP_WITHIN)
        )
        for who in names:
            group.start(who, rng.sample([proxy.url for proxy in clients], 3), "cycle")
        start = now()
        while now() < start + seconds:
            await trio.sleep(rng.uniform(0.3, 0.8))
            match rng.randrange(6):
                case 0:
                    member = rng.choice(cluster.members)
                    member.kill()
                    await trio.sleep(rng.uniform(0, 1))
                    cluster.start(member)
                    await trio.to_thread.run_sync(cluster.wait_until_healthy)
                case 1:
                    proxy = rng.choice(clients)
                    proxy.drop_to_server = rng.random() < 0.6
                    proxy.drop_from_server = rng.random() < 0.6
                    await trio.sleep(rng.uniform(0, 2 * TTL))
                    proxy.mend()
                case 2:
                    rng.choice(clients).delay = rng.uniform(0, 0.3)
                case 3:
                    who = rng.choice(names)
                    group.signal(who, signal.SIGSTOP)
                    await trio.sleep(rng.uniform(0, 2 * TTL))
                    group.signal(who, signal.SIGCONT)
                case 4:
                    # What the leader says reaches nobody: the others elect another one.
                    leader = await trio.to_thread.run_sync(cluster.leader)
                    peers[leader.name].isolate()
                    await trio.sleep(rng.uniform(0, 2 * TTL))
                    peers[leader.name].mend()
                case _:
                    who = rng.choice(names)
                    group.kill(who)
                    group.start(who, rng.sample([proxy.url for proxy in clients], 3), "cycle")
            group.assert_nobody_gave_up()
        # A slow machine gets to them later.
        await group.hold_elections(int(2 * seconds), among=names, within=60)
        group.kill_all()
        elections = group.judge()
    gaps = [second.start - first.end for first, second in pairwise(elections)]
    print(f"{len(elections)} elections, at most {max(gaps):.1f} s without one")  # noqa: T201


async def test_an_application_that_will_not_stop_is_killed_before_the_next_one_starts(
    etcd: Cluster, tmp_path: Path
) -> None:
    """Its grace period of a minute notwithstanding: the lease's deadline counts."""
    with contenders(
        tmp_path, program="supervised_contender.py", name="/stubborn", ttl=3, stop_within=1.0
    ) as group:
        async with open_proxy(etcd.members[0].client_url) as proxy:
            group.start("cut", [proxy.url])
            first = await group.next_active()
            group.start("well", etcd.endpoints)
            await trio.sleep(1)
            proxy.isolate()
            cut = now()
            second = await group.next_active(after=cut, but=first.who)

            killed = next(each for each in group.judge() if each.who == first.who)
            # It ran on after the deactivation, for its time to stop, and not longer.
            assert 0 < second.start - killed.end < 1
            assert second.start - cut < 3 + SLACK
