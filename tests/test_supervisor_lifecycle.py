"""A supervised process runs exactly while active and configured, and never twice."""

import errno
from collections.abc import Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_entrypoint.handlers import (
    FENCING_TOKEN_VARIABLE,
    GENERATION_VARIABLE,
    ActivationHandler,
    ConfigurationHandler,
    ExitStatus,
    OpenProcess,
    RevertibleConfigurationHandler,
    UpdateResult,
)
from trio_entrypoint.policies import Always, Backoff, Hooks, Never
from trio_entrypoint.process import open_process
from trio_entrypoint.states import Cause, ConfigurationState, GaveUp, ProcessState, State
from trio_entrypoint.supervisor import Supervisor
from trio_entrypoint.testing import FakeActivation, FakeConfiguration, FakeProcess, recording


async def settle() -> None:
    await wait_all_tasks_blocked()


async def test_the_process_runs_exactly_while_active(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    activation = FakeActivation(active=False)
    supervisor = Supervisor(fake_process, activation=activation)
    nursery.start_soon(supervisor.run)
    await settle()
    assert supervisor.state.process is ProcessState.INACTIVE
    assert fake_process.runs == []
    activation.activate()
    await supervisor.wait_for(lambda state: state.ready)
    assert len(fake_process.alive) == 1
    activation.deactivate()
    await supervisor.wait_for(lambda state: state.process is ProcessState.INACTIVE)
    assert fake_process.alive == []


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def test_in_an_hour_in_which_nothing_happens_nobody_does_anything(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    supervisor = Supervisor(
        fake_process,
        activation=FakeActivation(),
        configuration=FakeConfiguration("one", applied=True),
        confirm_within=10.0,
    )
    await nursery.start(supervisor.run)
    await trio.sleep(60)  # what a start is followed by is over
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    await trio.sleep(3600)
    trio.lowlevel.remove_instrument(steps)
    assert supervisor.state.ready
    assert steps.count == 1, "only this test's own"


async def test_the_process_waits_for_the_first_valid_configuration(
    autojump_clock: MockClock,
    fake_process: FakeProcess,
    fake_configuration: FakeConfiguration,
    nursery: trio.Nursery,
) -> None:
    supervisor = Supervisor(fake_process, configuration=fake_configuration)
    nursery.start_soon(supervisor.run)
    await settle()
    assert supervisor.state.process is ProcessState.WAITING
    fake_configuration.change("broken", error=ValueError("line 3"))
    await settle()
    assert not supervisor.state.applied
    assert fake_process.runs == []
    fake_configuration.change("good")
    run = await fake_process.wait_for_run(1)
    assert run.env[GENERATION_VARIABLE] == "/generations/1"
    assert supervisor.state.configuration is ConfigurationState.APPLIED


async def test_a_backup_is_configured_and_starts_at_once_when_activated(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    activation, configuration = FakeActivation(active=False), FakeConfiguration("one")
    supervisor = Supervisor(fake_process, activation=activation, configuration=configuration)
    nursery.start_soon(supervisor.run)
    await settle()
    assert configuration.applied
    activation.activate(token="41")
    run = await fake_process.wait_for_run(1)
    assert run.env == {FENCING_TOKEN_VARIABLE: "41", GENERATION_VARIABLE: "/generations/1"}


async def test_off_and_on_again_during_the_teardown_leaves_the_process_running(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process, activation = FakeProcess(stop_takes=3.0), FakeActivation()
    supervisor = Supervisor(process, activation=activation)
    await nursery.start(supervisor.run)
    activation.deactivate()
    await trio.sleep(1)
    activation.activate()
    await process.wait_for_run(2)
    assert len(process.alive) == 1
    assert supervisor.state.active


async def test_off_and_on_again_in_one_breath_leaves_one_process_running(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    activation = FakeActivation()
    await nursery.start(Supervisor(fake_process, activation=activation).run)
    activation.deactivate()
    activation.activate()
    await trio.sleep(60)
    assert len(fake_process.alive) == 1


@pytest.mark.parametrize("attempt", range(20))
async def test_off_and_on_again_counts_whoever_looks_first(
    attempt: int, autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    """One task has the old event in its hands while another one wakes up and looks.

    Which of them Trio runs first is a matter of chance.
    """
    fake_process.ends_after = 1.0
    activation = FakeActivation()
    restart = Always(backoff=Backoff(initial=30.0))
    supervisor = Supervisor(fake_process, activation=activation, restart=restart)
    await nursery.start(supervisor.run)
    await supervisor.wait_for(lambda state: state.process is ProcessState.BACKOFF)
    fake_process.ends_after = None
    supervisor.start()
    activation.deactivate()
    activation.activate()
    await trio.sleep(100)
    assert supervisor.state.active
    assert len(fake_process.alive) == 1
    activation.activate()
    activation.deactivate()
    supervisor.restart()
    await trio.sleep(100)
    assert not supervisor.state.active
    assert fake_process.alive == []


@pytest.mark.parametrize("attempt", range(20))
async def test_the_deadline_of_an_old_lease_is_none_for_the_process_of_a_new_one(
    attempt: int, autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    fake_process.ends_after = 1.0
    activation = FakeActivation(token="1")
    restart = Always(backoff=Backoff(initial=30.0))
    supervisor = Supervisor(fake_process, activation=activation, restart=restart)
    await nursery.start(supervisor.run)
    await supervisor.wait_for(lambda state: state.process is ProcessState.BACKOFF)
    fake_process.ends_after, fake_process.stop_takes = None, 5.0
    supervisor.start()
    activation.deactivate(deadline=trio.current_time() + 1)
    activation.activate(token="2")
    await trio.sleep(0.5)
    process = fake_process.current
    assert process.env[FENCING_TOKEN_VARIABLE] == "2"
    supervisor.stop()
    assert await process.wait() == ExitStatus(signal=15)


async def test_a_new_lease_restarts_the_process_with_the_new_fencing_token(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    activation = FakeActivation(token="1")
    await nursery.start(Supervisor(fake_process, activation=activation).run)
    activation.deactivate()
    activation.activate(token="2")
    second = await fake_process.wait_for_run(2)
    assert second.env[FENCING_TOKEN_VARIABLE] == "2"
    assert len(fake_process.alive) == 1


async def test_a_lost_lease_kills_a_process_that_does_not_stop_by_its_deadline(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process, activation = FakeProcess(stop_takes=9.0), FakeActivation(token="1")
    await nursery.start(Supervisor(process, activation=activation).run)
    started = trio.current_time()
    activation.deactivate(deadline=started + 2)
    status = await process.current.wait()
    assert status == ExitStatus(signal=9)
    assert trio.current_time() == pytest.approx(started + 2)


async def test_a_process_of_a_lost_lease_is_gone_by_its_deadline_though_there_is_a_new_one(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process, activation = FakeProcess(stop_takes=9.0), FakeActivation(token="1")
    await nursery.start(Supervisor(process, activation=activation).run)
    await settle()
    started = trio.current_time()
    activation.deactivate(deadline=started + 2)
    activation.activate(token="2")
    assert await process.current.wait() == ExitStatus(signal=9)
    assert trio.current_time() == pytest.approx(started + 2)
    second = await process.wait_for_run(2)
    assert second.env[FENCING_TOKEN_VARIABLE] == "2"


async def test_a_lease_that_is_lost_while_a_cancelled_supervisor_stops_its_process_counts(
    autojump_clock: MockClock, fake_process: FakeProcess
) -> None:
    fake_process.stop_takes = 9.0
    activation = FakeActivation(token="1")
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(fake_process, activation=activation).run)
        process, cancelled = fake_process.current, trio.current_time()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
            activation.deactivate(deadline=cancelled + 5)
    assert process.status == ExitStatus(signal=9)
    assert trio.current_time() == pytest.approx(cancelled + 5)


async def test_a_second_supervisor_of_the_same_handlers_goes_on_where_the_first_ended(
    autojump_clock: MockClock, fake_process: FakeProcess
) -> None:
    activation, configuration = FakeActivation(token="7"), FakeConfiguration("one")
    for count in (1, 2):
        supervisor = Supervisor(fake_process, activation=activation, configuration=configuration)
        async with trio.open_nursery() as nursery:
            with trio.fail_after(5):
                await nursery.start(supervisor.run)
            nursery.cancel_scope.cancel()
        assert len(fake_process.runs) == count
        assert fake_process.runs[-1].env[FENCING_TOKEN_VARIABLE] == "7"


async def test_an_activation_handler_that_ends_vouches_for_nothing(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    activation = FakeActivation()
    supervisor = Supervisor(fake_process, activation=activation)
    await nursery.start(supervisor.run)
    activation.close()
    await supervisor.wait_for(lambda state: state.process is ProcessState.INACTIVE)


async def test_run_gives_the_exit_status_when_nothing_is_left_to_restart(
    autojump_clock: MockClock, fake_process: FakeProcess
) -> None:
    fake_process.ends_after, fake_process.ends_with = 5.0, ExitStatus(code=7)
    supervisor = Supervisor(fake_process, restart=Never())
    assert await supervisor.run() == ExitStatus(code=7)
    assert supervisor.state.process is ProcessState.ENDED


async def test_nursery_start_returns_when_the_process_is_ready(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    supervisor = Supervisor(FakeProcess(start_takes=4.0))
    started = trio.current_time()
    await nursery.start(supervisor.run)
    assert supervisor.state.ready
    assert trio.current_time() - started == pytest.approx(4.0)


async def test_nursery_start_fails_when_the_process_ends_before_it_is_ready(
    autojump_clock: MockClock,
) -> None:
    process = FakeProcess(start_takes=1.0, error=OSError(errno.EAGAIN, "try again"))
    with pytest.RaisesGroup(OSError):
        async with trio.open_nursery() as nursery:
            await nursery.start(Supervisor(process, restart=Never()).run)


async def test_a_command_that_does_not_exist_raises_at_once(
    autojump_clock: MockClock, fake_process: FakeProcess
) -> None:
    fake_process.error = FileNotFoundError(errno.ENOENT, "No such file", "/bin/typo")
    with pytest.raises(FileNotFoundError, match="typo"):
        await Supervisor(fake_process).run()


async def test_a_setting_that_makes_no_sense_gives_up_at_once(autojump_clock: MockClock) -> None:
    with pytest.raises(GaveUp, match="grace_period"), trio.fail_after(60):
        await Supervisor(partial(open_process, ["true"], grace_period=-1.0)).run()


async def test_a_hook_that_finds_no_file_is_tried_again_like_any_that_fails(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    left: list[OSError] = [FileNotFoundError(errno.ENOENT, "not mounted yet", "/data")]

    async def fail_once() -> None:
        if left:
            raise left.pop()

    await nursery.start(Supervisor(fake_process, hooks=Hooks(before_start=[fail_once])).run)
    assert len(fake_process.alive) == 1


async def test_cancellation_stops_the_process_and_ends_every_channel(
    autojump_clock: MockClock,
) -> None:
    process, configuration = FakeProcess(stop_takes=3.0), FakeConfiguration("one")
    supervisor = Supervisor(process, configuration=configuration)
    transitions, states = supervisor.events, supervisor.states
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        nursery.cancel_scope.cancel()
    assert process.alive == []
    assert configuration.pinned == []
    assert process.runs[0].signals == [15]
    assert supervisor.state.process is ProcessState.STOPPED
    assert [state async for state in states][-1:] == [supervisor.state]
    seen = [transition async for transition in transitions]
    assert seen[-1].after == supervisor.state
    with pytest.raises(trio.EndOfChannel):
        await supervisor.wait_for(lambda state: state.ready)


async def test_who_asks_late_for_the_states_gets_the_newest_one(
    autojump_clock: MockClock, fake_process: FakeProcess
) -> None:
    for late in (False, True):
        supervisor = Supervisor(fake_process)
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            if not late:
                assert (await supervisor.states.receive()).ready
            nursery.cancel_scope.cancel()
        assert [state.process async for state in supervisor.states] == [ProcessState.STOPPED]


async def test_whoever_waits_for_a_state_that_never_comes_is_told_at_the_end(
    autojump_clock: MockClock, fake_process: FakeProcess
) -> None:
    fake_process.ends_after = 5.0
    supervisor = Supervisor(fake_process, restart=Never())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        with pytest.raises(trio.EndOfChannel, match="ended"):
            await supervisor.wait_for(lambda state: state.process is ProcessState.BACKOFF)


async def test_every_transition_is_told_with_its_time_cause_and_duration(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process = FakeProcess(ready_after=2.0, stop_takes=3.0)
    activation = FakeActivation()
    supervisor = Supervisor(process, activation=activation, name="db")
    async with recording(supervisor.events) as seen:
        await nursery.start(supervisor.run)
        await trio.sleep(10)
        activation.deactivate()
        await supervisor.wait_for(lambda state: state.process is ProcessState.INACTIVE)
        await settle()
    assert [one.before for one in seen[1:]] == [one.after for one in seen[:-1]]
    assert [one.time for one in seen] == sorted(one.time for one in seen)
    last = seen[-1]
    assert (last.cause, last.status) == (Cause.DEACTIVATED, ExitStatus(signal=15))
    assert last.seconds == pytest.approx(3.0)
    stopping = next(one for one in seen if one.after.process is ProcessState.STOPPING)
    assert stopping.seconds == pytest.approx(10.0)
    assert "db: inactive" in str(last)


async def test_events_that_nobody_asked_for_are_not_kept(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    supervisor = Supervisor(fake_process)
    await nursery.start(supervisor.run)
    assert supervisor.events.statistics().current_buffer_used == 0


async def test_the_operator_stops_starts_restarts_and_signals(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    supervisor = Supervisor(fake_process)
    await nursery.start(supervisor.run)
    supervisor.signal(10)
    assert fake_process.current.signals == [10]
    supervisor.stop()
    await supervisor.wait_for(lambda state: state.process is ProcessState.STOPPED)
    with pytest.raises(ProcessLookupError):
        supervisor.signal(10)
    supervisor.start()
    await supervisor.wait_for(lambda state: state.ready)
    supervisor.restart()
    await fake_process.wait_for_run(3)
    assert len(fake_process.alive) == 1
    await trio.sleep(60)
    assert len(fake_process.runs) == 3


def test_the_operator_may_command_before_there_is_a_loop_and_after_it() -> None:
    supervisor = Supervisor(FakeProcess(ends_after=0.0), restart=Never())
    supervisor.stop()
    supervisor.start()
    assert supervisor.state.process is ProcessState.STOPPED
    assert trio.run(supervisor.run) == ExitStatus(code=1)
    supervisor.restart()
    assert str(supervisor.state).endswith("process ended")


async def test_a_supervisor_is_run_once(
    autojump_clock: MockClock, fake_process: FakeProcess
) -> None:
    fake_process.ends_after = 1.0
    supervisor = Supervisor(fake_process, restart=Never())
    await supervisor.run()
    with pytest.raises(RuntimeError, match="already"):
        await supervisor.run()


async def test_an_error_of_the_process_handler_comes_out_as_it_is(
    autojump_clock: MockClock,
) -> None:
    def open_process(**_: object) -> object:
        raise RuntimeError("cannot be")

    with pytest.raises(RuntimeError, match="cannot be"):
        await Supervisor(open_process).run()  # type: ignore[arg-type]


def test_the_fakes_are_handlers() -> None:
    process: OpenProcess = FakeProcess()
    activation: ActivationHandler = FakeActivation()
    configuration: RevertibleConfigurationHandler[UpdateResult] = FakeConfiguration()
    plain: ConfigurationHandler[UpdateResult] = configuration
    assert callable(process)
    assert activation.active
    assert not plain.applied


@pytest.mark.parametrize(
    ("process", "text"),
    [(ProcessState.READY, "process ready"), (ProcessState.GAVE_UP, "process gave up")],
)
def test_a_state_says_what_it_is(process: ProcessState, text: str) -> None:
    assert str(State(activation=True, process=process)) == f"active, configuration none, {text}"


def test_giving_up_never_ends_with_success() -> None:
    make: Callable[..., GaveUp] = partial(GaveUp, "app", "too many restarts")
    assert make(ExitStatus(code=0)).exit_status == ExitStatus(code=1)
    assert make(None).exit_status == ExitStatus(code=1)
    assert make(ExitStatus(signal=9)).exit_status == ExitStatus(signal=9)
