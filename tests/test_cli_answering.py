"""What a client is told while things change under its request."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_entrypoint.cli.answering import answer
from trio_entrypoint.cli.observing import Fleet, Service
from trio_entrypoint.cli.protocol import ProtocolError, Request
from trio_entrypoint.cli.serving import end_unstarted
from trio_entrypoint.policies import Hooks, Never, Readiness
from trio_entrypoint.supervisor import Supervisor
from trio_entrypoint.testing import FakeProcess


@asynccontextmanager
async def running(**processes: FakeProcess) -> AsyncGenerator[Fleet]:
    """Services over fakes, each ready when its process is."""
    fleet = Fleet()
    async with trio.open_nursery() as nursery:
        for name, process in processes.items():
            supervisor = Supervisor(
                process, name=name, readiness=Readiness(process.probe), restart=Never()
            )
            fleet.services[name] = Service(name, supervisor, has_activation=False)
            nursery.start_soon(fleet.observe, fleet.services[name])
            nursery.start_soon(supervisor.run)
        await wait_all_tasks_blocked()
        yield fleet
        nursery.cancel_scope.cancel()


async def nothing(item: object) -> None:
    await trio.lowlevel.checkpoint()


async def test_a_follower_is_told_what_happens_while_it_is_sent_the_first_status(
    autojump_clock: MockClock,
) -> None:
    states: list[str] = []

    async with running(web=FakeProcess(stop_takes=1.0)) as fleet, trio.open_nursery() as nursery:

        async def send(item: object) -> None:
            [service] = cast("dict[str, list[dict[str, str]]]", item)["services"]
            states.append(service["state"])
            if len(states) == 1:
                fleet.services["web"].supervisor.stop()
                await trio.sleep(60)  # a client that takes its time

        nursery.start_soon(answer, fleet, Request("status", {"follow": True}), send)
        await trio.sleep(120)
        nursery.cancel_scope.cancel()
    assert (states[0], states[-1]) == ("ready", "stopped")


async def test_all_services_are_ready_at_the_end_of_the_wait(autojump_clock: MockClock) -> None:
    slow, flapping = FakeProcess(ready_after=10.0), FakeProcess()
    async with running(flapping=flapping, slow=slow) as fleet, trio.open_nursery() as nursery:
        supervisor = fleet.services["flapping"].supervisor

        async def flap() -> None:
            await trio.sleep(5)
            flapping.ready_after = 50.0
            supervisor.restart()

        nursery.start_soon(flap)
        await answer(fleet, Request("wait-ready", {}), nothing)
        assert supervisor.state.ready
        assert trio.current_time() >= 55


async def test_a_service_that_was_ready_and_has_ended_is_waited_for_no_more(
    autojump_clock: MockClock,
) -> None:
    once, web = FakeProcess(), FakeProcess(ready_after=10.0)
    async with running(once=once, web=web) as fleet, trio.open_nursery() as nursery:

        async def end() -> None:
            await trio.sleep(5)
            once.current.exit(0)

        nursery.start_soon(end)
        await answer(fleet, Request("wait-ready", {}), nothing)
        assert trio.current_time() == pytest.approx(10, abs=2)
        with pytest.raises(ProtocolError, match="once is not going to be ready: ended"):
            await answer(fleet, Request("wait-ready", {}), nothing)


async def test_a_service_that_is_never_started_has_ended_and_none_of_its_hooks_was_called(
    autojump_clock: MockClock, fake_process: FakeProcess
) -> None:
    called: list[str] = []

    async def hook() -> None:
        called.append("initial")
        await trio.lowlevel.checkpoint()

    supervisor = Supervisor(fake_process, name="web", hooks=Hooks(initial=[hook]))
    fleet = Fleet()
    fleet.services["web"] = Service("web", supervisor, has_activation=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_unstarted, supervisor)
        with pytest.raises(ProtocolError, match="web is not going to be ready: stopped"):
            await answer(fleet, Request("wait-ready", {}), nothing)
    assert (called, fake_process.runs) == ([], [])
