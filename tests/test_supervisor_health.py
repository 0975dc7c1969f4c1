"""Readiness is asked until ready, health afterwards; both failures are failures like others."""

import math
from signal import SIGUSR1

import pytest
import trio
from trio.testing import MockClock

from trio_entrypoint.handlers import ExitStatus
from trio_entrypoint.policies import Always, Health, Hooks, Ignore, Never, Readiness, Reload
from trio_entrypoint.probes import FunctionProbe
from trio_entrypoint.states import Cause, GaveUp, ProcessState
from trio_entrypoint.supervisor import Supervisor
from trio_entrypoint.testing import FakeConfiguration, FakeProcess, recording


class Answers:
    """A probe whose answer the test sets, and which counts the questions."""

    def __init__(self, well: bool = True) -> None:
        self.well = well
        self.asked = 0
        self.takes = 0.0

    async def check(self) -> None:
        self.asked += 1
        await trio.sleep(self.takes)
        if not self.well:
            raise ValueError("not well")


async def test_a_service_is_ready_when_its_probe_says_so(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process = FakeProcess(ready_after=5.0)
    supervisor = Supervisor(process, readiness=Readiness(process.probe, period=0.5))
    await nursery.start(supervisor.run)
    assert 5.0 <= trio.current_time() <= 5.5


async def test_readiness_is_not_asked_any_more_once_ready(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    probe = Answers()
    await nursery.start(Supervisor(fake_process, readiness=Readiness(probe)).run)
    probe.well = False
    await trio.sleep(1000)
    assert probe.asked == 1
    assert len(fake_process.runs) == 1


async def test_several_good_answers_in_a_row_may_be_needed(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    probe = Answers()
    readiness = Readiness(probe, successes=4, period=1.0)
    await nursery.start(Supervisor(fake_process, readiness=readiness).run)
    assert trio.current_time() == pytest.approx(3.0)


async def test_a_process_that_is_not_ready_in_time_is_stopped_and_started_again(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process = FakeProcess(ready_after=math.inf)
    supervisor = Supervisor(process, readiness=Readiness(process.probe, timeout=20.0))
    nursery.start_soon(supervisor.run)
    async with recording(supervisor.events) as seen:
        process.ready_after = math.inf
        await process.wait_for_run(1)
        process.ready_after = 0.0
        second = await process.wait_for_run(2)
        await supervisor.wait_for(lambda state: state.ready)
    assert second.started_at == pytest.approx(20.0)
    assert Cause.NOT_READY in [one.cause for one in seen]


async def test_not_ready_in_time_without_a_restart_gives_up_loudly(
    autojump_clock: MockClock,
) -> None:
    process = FakeProcess(ready_after=math.inf)
    supervisor = Supervisor(
        process, readiness=Readiness(process.probe, timeout=20.0), restart=Never()
    )
    with pytest.raises(GaveUp, match=r"not ready within 20 s.*_is_ready"):
        await supervisor.run()


async def test_ended_before_it_was_ready_fails_the_start(autojump_clock: MockClock) -> None:
    process = FakeProcess(ready_after=math.inf, ends_after=3.0, ends_with=ExitStatus(code=4))
    supervisor = Supervisor(process, readiness=Readiness(process.probe), restart=Never())
    with pytest.RaisesGroup(pytest.RaisesExc(GaveUp, match="before it was ready")):
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)


async def test_a_sick_process_is_restarted_after_so_many_bad_answers(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    probe = Answers()
    health = Health(probe, period=10.0, failures=3)
    await nursery.start(Supervisor(fake_process, health=health).run)
    probe.well = False
    await trio.sleep(25)
    probe.well = True
    await trio.sleep(10)
    probe.well = False
    await trio.sleep(25)
    assert len(fake_process.runs) == 1
    second = await fake_process.wait_for_run(2)
    assert second.started_at == pytest.approx(60.0)


async def test_an_answer_that_takes_too_long_is_a_bad_one(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    probe = Answers()
    probe.takes = 5.0
    health = Health(probe, period=1.0, probe_timeout=2.0, failures=1)
    await nursery.start(Supervisor(fake_process, health=health).run)
    second = await fake_process.wait_for_run(2)
    assert second.started_at == pytest.approx(3.0)


@pytest.mark.parametrize(("action", "signals"), [(Ignore(), []), (Reload(SIGUSR1), [SIGUSR1])])
async def test_a_sick_process_gets_what_was_said_once_and_may_recover(
    autojump_clock: MockClock,
    fake_process: FakeProcess,
    nursery: trio.Nursery,
    action: Ignore | Reload,
    signals: list[int],
) -> None:
    probe = Answers()
    health = Health(probe, period=1.0, failures=2, successes=3, on_failure=action)
    supervisor = Supervisor(fake_process, health=health)
    await nursery.start(supervisor.run)
    probe.well = False
    await supervisor.wait_for(lambda state: state.process is ProcessState.UNHEALTHY)
    await trio.sleep(100)
    assert fake_process.current.signals == signals
    probe.well, healthy_at = True, trio.current_time()
    await supervisor.wait_for(lambda state: state.ready)
    assert 2.0 <= trio.current_time() - healthy_at <= 3.0
    assert len(fake_process.runs) == 1


async def test_a_function_that_returns_false_or_raises_says_no(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    answers: list[bool | None] = [False, False, None]

    async def ready() -> bool | None:
        answer = answers.pop(0)
        if answer is False and len(answers) == 1:
            raise LookupError("not there yet")
        return answer

    supervisor = Supervisor(FakeProcess(), readiness=Readiness(FunctionProbe(ready), period=1.0))
    await nursery.start(supervisor.run)
    assert trio.current_time() == pytest.approx(2.0)


# --- hooks


async def test_hooks_run_around_each_run_and_initial_ones_once(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    told: list[str] = []
    process = FakeProcess()

    def hook(name: str) -> "list[object]":
        async def call() -> None:
            told.append(f"{name} {len(process.alive)}")
            await trio.sleep(1)

        return [call]

    hooks = Hooks(
        initial=hook("initial"),  # type: ignore[arg-type]
        before_start=hook("before start"),  # type: ignore[arg-type]
        after_ready=hook("after ready"),  # type: ignore[arg-type]
        before_stop=hook("before stop"),  # type: ignore[arg-type]
        after_stop=hook("after stop"),  # type: ignore[arg-type]
    )
    supervisor = Supervisor(process, hooks=hooks)
    async with trio.open_nursery() as inner:
        await inner.start(supervisor.run)
        await trio.sleep(5)
        supervisor.restart()
        await process.wait_for_run(2)
        await trio.sleep(5)
        process.current.exit(1)
        await process.wait_for_run(3)
        await trio.sleep(5)
        inner.cancel_scope.cancel()
    start, down = ["before start 0", "after ready 1"], ["before stop 1", "after stop 0"]
    assert told == ["initial 0", *start, *down, *start, "after stop 0", *start, *down]


async def test_a_hook_that_fails_or_hangs_before_the_start_is_a_failed_start(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    tries: list[float] = []

    async def migrate() -> None:
        tries.append(trio.current_time())
        if len(tries) == 1:
            raise ValueError("no database yet")
        if len(tries) == 2:
            await trio.sleep_forever()

    hooks = Hooks(initial=[migrate], timeout=7.0)
    supervisor = Supervisor(fake_process, hooks=hooks, restart=Always())
    async with recording(supervisor.events) as seen:
        await nursery.start(supervisor.run)
        await trio.sleep(0.1)
    assert len(tries) == 3
    errors = [one.error for one in seen if one.cause is Cause.HOOK_FAILED]
    assert [type(error) for error in errors] == [ValueError, TimeoutError]


async def test_a_hook_that_fails_on_the_way_down_is_reported_and_holds_nothing_up(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    async def fail() -> None:
        raise ValueError("cannot deregister")

    supervisor = Supervisor(fake_process, hooks=Hooks(before_stop=[fail], after_stop=[fail]))
    async with recording(supervisor.events) as seen:
        await nursery.start(supervisor.run)
        supervisor.restart()
        await fake_process.wait_for_run(2)
        await trio.sleep(1)
    assert [one.cause for one in seen].count(Cause.HOOK_FAILED) == 2


async def test_the_generation_of_a_process_is_kept_until_its_last_hook_has_ended(
    autojump_clock: MockClock, fake_process: FakeProcess
) -> None:
    configuration, kept = FakeConfiguration("one"), list[int]()

    async def after_stop() -> None:
        await trio.lowlevel.checkpoint()
        kept.extend(generation.number for generation in configuration.pinned)

    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(
            fake_process, configuration=configuration, hooks=Hooks(after_stop=[after_stop])
        )
        await nursery.start(supervisor.run)
        nursery.cancel_scope.cancel()
    assert kept == [1]
    assert configuration.pinned == []


async def test_a_start_can_be_cancelled_while_a_hook_runs(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("one")
    supervisor = Supervisor(
        fake_process, configuration=configuration, hooks=Hooks(before_start=[trio.sleep_forever])
    )
    nursery.start_soon(supervisor.run)
    await trio.sleep(1)
    assert supervisor.state.process is ProcessState.STARTING
    supervisor.stop()
    await supervisor.wait_for(lambda state: state.process is ProcessState.STOPPED)
    assert fake_process.runs == []
    assert configuration.pinned == []


async def fail_on_the_way_out() -> None:
    """Be a user's function whose nursery raises two things at once when it is cancelled."""

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        await trio.sleep_forever()


async def test_a_hook_that_fails_while_it_is_cancelled_costs_nobody_the_service(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    supervisor = Supervisor(fake_process, hooks=Hooks(after_ready=[fail_on_the_way_out]))
    nursery.start_soon(supervisor.run)
    await supervisor.wait_for(lambda state: state.ready)
    supervisor.stop()
    await supervisor.wait_for(lambda state: state.process is ProcessState.STOPPED)


async def test_a_probe_that_fails_while_it_is_cancelled_costs_nobody_the_service(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    readiness = Readiness(FunctionProbe(fail_on_the_way_out))
    nursery.start_soon(Supervisor(fake_process, readiness=readiness).run)
    first = await fake_process.wait_for_run(1)
    await trio.sleep(0.5)
    first.exit(1)
    await fake_process.wait_for_run(2)
