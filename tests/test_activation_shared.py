"""One activation for several supervisors: each hears of everything."""

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import IO, TypeAlias

import pytest
import trio
from etcd_cluster import Cluster
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_entrypoint import (
    ActivationChanged,
    ExitStatus,
    FileProbe,
    ProcessState,
    Readiness,
    Supervisor,
    open_all_activation,
    open_any_activation,
    open_etcd_activation,
    open_process,
    open_shared_activation,
)
from trio_entrypoint.handlers import FENCING_TOKEN_VARIABLE, ActivationHandler
from trio_entrypoint.testing import FakeActivation, FakeConfiguration, FakeProcess

Combined: TypeAlias = (
    AbstractAsyncContextManager[ActivationHandler]
    | AbstractAsyncContextManager[tuple[ActivationHandler, ...]]
)

ENTRYPOINT = [sys.executable, "-m", "trio_entrypoint.cli", "run"]


async def test_each_gets_the_first_state_and_every_later_one() -> None:
    activation = FakeActivation(active=True, token="7")
    async with open_shared_activation(activation, 3) as shared:
        for one in shared:
            assert one.events.receive_nowait() == ActivationChanged(active=True, token="7")
        activation.deactivate(deadline=5.0)
        for one in shared:
            assert not one.active, "before any task has run"
            assert one.token is None
        for one in shared:
            assert await one.events.receive() == ActivationChanged(active=False, deadline=5.0)
    assert [[event async for event in one.events] for one in shared] == [[], [], []]


async def test_who_does_not_listen_holds_nobody_up() -> None:
    activation = FakeActivation(active=False)
    async with open_shared_activation(activation, 2) as (deaf, other):
        for token in "123":
            activation.activate(token)
            await wait_all_tasks_blocked()
            assert other.events.receive_nowait() == ActivationChanged(active=True, token=token)
        assert deaf.events.receive_nowait() == ActivationChanged(active=True, token="3")


async def test_services_of_one_lease_start_and_stop_together(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    activation = FakeActivation(active=False)
    quick, slow = FakeProcess(), FakeProcess(stop_takes=9.0)
    supervisors: list[Supervisor] = []
    async with open_shared_activation(activation, 2) as shared, trio.open_nursery() as inner:
        for process, handler in zip((quick, slow), shared, strict=True):
            supervisors.append(Supervisor(process, activation=handler))
            inner.start_soon(supervisors[-1].run)
        activation.activate("1")
        for process in (quick, slow):
            run = await process.wait_for_run(1)
            assert run.env[FENCING_TOKEN_VARIABLE] == "1"
        lost = trio.current_time()
        activation.deactivate(deadline=lost + 2)
        assert await quick.runs[0].wait() == ExitStatus(signal=15)
        assert await slow.runs[0].wait() == ExitStatus(signal=9)
        assert trio.current_time() == pytest.approx(lost + 2)
        activation.activate("2")
        for process in (quick, slow):
            await process.wait_for_run(2)
        activation.close()  # nobody vouches for it any more
        for supervisor in supervisors:
            await supervisor.wait_for(lambda state: state.process is ProcessState.INACTIVE)
        inner.cancel_scope.cancel()


def shared_by_one(activation: FakeActivation) -> Combined:
    return open_shared_activation(activation, 1)


def alone_of_all(activation: FakeActivation) -> Combined:
    return open_all_activation(activation)


def one_of_any(activation: FakeActivation) -> Combined:
    return open_any_activation(activation, FakeActivation(active=False))


@pytest.mark.parametrize("follow", [shared_by_one, alone_of_all, one_of_any])
async def test_a_lease_that_is_lost_while_all_is_cancelled_is_told_to_who_stops_a_process(
    follow: Callable[[FakeActivation], Combined], autojump_clock: MockClock
) -> None:
    process, activation = FakeProcess(stop_takes=9.0), FakeActivation(token="1")

    async def entrypoint(task_status: trio.TaskStatus[None]) -> None:
        async with follow(activation) as followed:
            handler = followed[0] if isinstance(followed, tuple) else followed
            await Supervisor(process, activation=handler).run(task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(entrypoint)
        run, cancelled = process.current, trio.current_time()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
            activation.deactivate(deadline=cancelled + 5)
    assert run.status == ExitStatus(signal=9)
    assert trio.current_time() == pytest.approx(cancelled + 5)


async def test_a_handler_that_another_supervisor_follows_is_refused(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    activation, configuration = FakeActivation(), FakeConfiguration("one")
    await nursery.start(
        Supervisor(fake_process, activation=activation, configuration=configuration).run
    )
    await wait_all_tasks_blocked()
    with pytest.raises(RuntimeError, match=r"this activation.*open_shared_activation"):
        await Supervisor(FakeProcess(), activation=activation).run()
    for follow in (
        partial(open_shared_activation, activation, 2),
        partial(open_all_activation, activation),
    ):
        with pytest.raises(RuntimeError, match=r"this activation.*open_shared_activation"):
            async with follow():
                await trio.sleep_forever()
    with pytest.raises(RuntimeError, match="events of this configuration"):
        await Supervisor(FakeProcess(), configuration=configuration).run()
    third = FakeProcess()
    with pytest.raises(RuntimeError, match="events of this"):  # one error, not a group of two
        await Supervisor(third, activation=activation, configuration=configuration).run()
    assert third.runs == []
    assert len(fake_process.alive) == 1


async def test_two_that_follow_a_handler_from_the_same_moment_on_are_refused(
    autojump_clock: MockClock,
) -> None:
    async def supervise(activation: FakeActivation) -> None:
        await Supervisor(FakeProcess(), activation=activation).run()

    async def share(activation: FakeActivation) -> None:
        async with open_shared_activation(activation, 1):
            await trio.sleep_forever()

    for other in (supervise, share):
        activation = FakeActivation()
        refused = pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="this activation"))
        with refused, trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervise, activation)
                nursery.start_soon(other, activation)


async def test_sharing_among_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one handler, not 0"):
        async with open_shared_activation(FakeActivation(), 0):
            pass


async def test_two_services_hold_one_lease_and_give_it_back_when_both_are_gone(
    etcd: Cluster, tmp_path: Path
) -> None:
    """The next one starts when the slower of the two has stopped, and not before."""
    prepared = Readiness(FileProbe(tmp_path / "prepared"))
    touch = f"touch '{tmp_path}/prepared'"
    trap = f"stop() {{ sleep 0.5; date +%s.%N > '{tmp_path}/stopped'; exit; }}; trap stop TERM"
    commands = (
        f"{touch}; exec sleep 1000",
        f"{trap}; {touch}; sleep 1000 & wait",
    )
    elect = partial(open_etcd_activation, etcd.endpoints, "/shared")
    elected_at = 0.0

    async def be_next() -> None:
        nonlocal elected_at
        async with elect() as second:
            while not second.active:
                await second.events.receive()
            elected_at = time.time()

    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 20
        async with (
            elect() as first,
            open_shared_activation(first, 2) as shared,
            trio.open_nursery() as services,
        ):
            for handler, command in zip(shared, commands, strict=True):
                process = partial(open_process, ["sh", "-c", command])
                service = Supervisor(process, activation=handler, readiness=prepared)
                await services.start(service.run)
                (tmp_path / "prepared").unlink()
            nursery.start_soon(be_next)
            services.cancel_scope.cancel()
    assert elected_at > float((tmp_path / "stopped").read_text())


def two_lines(output: IO[str]) -> set[str]:
    return {output.readline(), output.readline()}


def test_services_of_the_command_share_an_activation_by_its_name(tmp_path: Path) -> None:
    active, file = tmp_path / "active", tmp_path / "entrypoint.toml"
    say = (
        """command = ["sh", "-c", "trap 'echo {name} off; exit' TERM; """
        """echo {name} on; sleep 1000 & wait"]"""
    )
    file.write_text(f"""\
[activation.leader]
file = "{active}"
[service.database]
{say.format(name="database")}
activation = "leader"
[service.web]
{say.format(name="web")}
activation = "leader"
[service.exporter]
{say.format(name="exporter")}
""")
    entrypoint = subprocess.Popen(
        [*ENTRYPOINT, "-f", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert entrypoint.stdout
    try:
        assert entrypoint.stdout.readline() == "exporter on\n"
        for _ in range(3):
            active.touch()
            assert two_lines(entrypoint.stdout) == {"database on\n", "web on\n"}
            active.unlink()
            assert two_lines(entrypoint.stdout) == {"database off\n", "web off\n"}
    finally:
        entrypoint.terminate()
        assert entrypoint.wait(20) == 143
        entrypoint.stdout.close()
