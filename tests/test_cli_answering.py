"""What a client is told while things change under its request."""

import re
import signal
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import programs
import pytest
import trio
from pages import DOCS
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_entrypoint.cli.answering import answer
from trio_entrypoint.cli.logs import open_log
from trio_entrypoint.cli.metrics import Metrics
from trio_entrypoint.cli.observing import Fleet, Service
from trio_entrypoint.cli.protocol import COMMANDS, ProtocolError, Request
from trio_entrypoint.cli.serving import end_unstarted
from trio_entrypoint.policies import Hooks, Never, Readiness, Reload
from trio_entrypoint.process import open_process
from trio_entrypoint.supervisor import Supervisor
from trio_entrypoint.testing import FakeActivation, FakeConfiguration, FakeProcess


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


async def test_a_signal_that_may_not_be_sent_is_refused() -> None:
    supervisor = Supervisor(partial(open_process, programs.SLEEPER, name="web"))
    fleet = Fleet()
    fleet.services["web"] = Service("web", supervisor, has_activation=False)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        with programs.powerless(), pytest.raises(ProtocolError, match=r"'web'.*: not permitted"):
            await answer(fleet, Request("signal", {"signal": "SIGTERM"}), nothing)
        nursery.cancel_scope.cancel()


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


def told() -> Mapping[str, tuple[set[str], str]]:
    """What the page says of each command: its arguments, and the items of its answer."""
    page = (DOCS / "reference/control.md").read_text()
    table = page[page.index("| command | arguments | items |") :].partition("\n\n")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return {
        command: (set(re.findall(r"`([a-z]+)`", arguments)), items)
        for commands, arguments, items in rows
        for command in re.findall(r"`([a-z-]+)`", commands)
    }


async def test_each_command_takes_and_sends_what_the_reference_says(
    autojump_clock: MockClock,
) -> None:
    assert {command: set(takes) for command, takes in COMMANDS.items()} == {
        command: arguments for command, (arguments, _) in told().items()
    }
    fleet, configuration = Fleet(), FakeConfiguration("one")
    supervisor = Supervisor(FakeProcess(), name="web", configuration=configuration)
    fleet.services["web"] = Service("web", supervisor, has_activation=False)
    async with open_log("info", "json", fleet.log), trio.open_nursery() as nursery:
        nursery.start_soon(fleet.observe, fleet.services["web"])
        nursery.start_soon(supervisor.run)
        for command, (arguments, items) in told().items():
            sent: list[dict[str, object]] = []

            async def send(item: object) -> None:
                sent.append(cast("dict[str, object]", item))  # noqa: B023 - sent at once
                await trio.lowlevel.checkpoint()

            await wait_all_tasks_blocked()
            values = {"signal": "USR1"} if "signal" in arguments else {}
            await answer(fleet, Request(command, values), send)
            assert bool(sent) == (items.strip() != "none"), command
            members = set(re.findall(r"`([a-z]+)`", items)) - set(COMMANDS[command])
            assert members - {"services"} <= set(sent[0] if sent else {}), command
        nursery.cancel_scope.cancel()


async def test_the_last_entries_of_a_service_are_its_own(autojump_clock: MockClock) -> None:
    async with running(web=FakeProcess(), noisy=FakeProcess()) as fleet:
        for _ in range(5):
            fleet.services["noisy"].supervisor.restart()
            await wait_all_tasks_blocked()
        events: list[tuple[str, str]] = []

        async def send(item: object) -> None:
            event = cast("dict[str, str]", item)
            events.append((event["service"], event["event"]))
            await trio.lowlevel.checkpoint()

        await answer(fleet, Request("events", {"services": ["web"], "lines": 2}), send)
        assert events == [("web", "the process was executed"), ("web", "the process is ready")]
        events.clear()
        await answer(fleet, Request("events", {"services": ["web"], "lines": 0}), send)
        assert not events


async def test_a_reaction_is_counted_from_what_the_execution_answers(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    fleet = Fleet()
    metrics = Metrics(fleet)
    activation, configuration = FakeActivation(active=False), FakeConfiguration()
    supervisor = Supervisor(
        fake_process,
        name="web",
        activation=activation,
        configuration=configuration,
        on_change=Reload(signal.SIGHUP),
    )
    fleet.services["web"] = Service("web", supervisor, has_activation=True)
    nursery.start_soon(fleet.observe, fleet.services["web"])
    nursery.start_soon(supervisor.run)

    def reactions() -> tuple[float, float]:
        text = metrics.render().decode()
        count, total = (
            re.search(rf'reaction_seconds_{what}{{service="web"}} (.*)', text)
            for what in ("count", "sum")
        )
        return float(count[1]) if count else 0.0, float(total[1]) if total else 0.0

    happenings: list[tuple[Callable[[], None], int]] = [
        (activation.activate, 0),  # nothing was applied yet
        (lambda: configuration.change("one"), 1),
        (lambda: configuration.change("two"), 1),  # a reload
        (supervisor.restart, 1),
        (lambda: fake_process.current.exit(1), 2),
        (supervisor.stop, 2),
        (lambda: configuration.change("three"), 2),
        (supervisor.start, 2),
        (activation.deactivate, 2),
        (lambda: configuration.change("four"), 2),
        (activation.activate, 3),
    ]
    for happen, count in happenings:
        happen()
        await trio.sleep(100)
        assert reactions()[0] == count
    assert reactions()[1] < 1
