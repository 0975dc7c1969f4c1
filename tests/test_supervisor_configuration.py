"""A new configuration is staged beside the old process, switched between two, or rolled back."""

import math
from collections.abc import Mapping
from signal import SIGHUP, SIGTERM, SIGUSR1

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from trio_entrypoint.handlers import GENERATION_VARIABLE
from trio_entrypoint.policies import (
    Always,
    Backoff,
    ChangeAction,
    Hooks,
    Ignore,
    Limit,
    OnFailure,
    Readiness,
    Reload,
    Restart,
)
from trio_entrypoint.states import Cause, ConfigurationState, ProcessState
from trio_entrypoint.supervisor import Supervisor
from trio_entrypoint.testing import FakeConfiguration, FakeProcess, FakeRun, recording


def generation(run: FakeRun) -> str:
    return run.env[GENERATION_VARIABLE]


async def test_the_old_process_runs_until_the_new_configuration_is_staged(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process, configuration = FakeProcess(stop_takes=2.0), FakeConfiguration("one")
    await nursery.start(Supervisor(process, configuration=configuration).run)
    first, changed_at = process.current, trio.current_time()
    configuration.change("two", takes=7.0)
    await trio.sleep(6.9)
    assert first.signals == []
    second = await process.wait_for_run(2)
    assert second.started_at - changed_at == pytest.approx(9.0)
    assert generation(second) == "/generations/2"
    assert configuration.pinned == [configuration.generation]


async def test_the_switch_happens_between_two_processes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process, configuration = FakeProcess(stop_takes=2.0), FakeConfiguration("one")
    await nursery.start(Supervisor(process, configuration=configuration).run)
    configuration.change("two")
    await trio.sleep(1)
    assert len(configuration.history) == 1
    await process.wait_for_run(2)
    assert len(configuration.history) == 2


@pytest.mark.parametrize("attempt", range(20))
async def test_a_source_that_is_gone_and_back_is_applied_whoever_looks_first(
    attempt: int, autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    """One task has the old event in its hands while another one wakes up and looks.

    Which of them Trio runs first is a matter of chance.
    """
    configuration = FakeConfiguration("one")
    fake_process.ends_after = 1.0
    restart = Always(backoff=Backoff(initial=30.0))
    supervisor = Supervisor(fake_process, configuration=configuration, restart=restart)
    await nursery.start(supervisor.run)
    await supervisor.wait_for(lambda state: state.process is ProcessState.BACKOFF)
    fake_process.ends_after = None
    supervisor.start()
    configuration.delete()
    configuration.change("two")
    await trio.sleep(100)
    assert len(configuration.history) == 2
    assert generation(fake_process.current) == "/generations/2"


async def test_a_broken_configuration_is_reported_and_nothing_else_happens(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("one")
    supervisor = Supervisor(fake_process, configuration=configuration)
    async with recording(supervisor.events) as seen, recording(configuration.results) as results:
        await nursery.start(supervisor.run)
        error = ValueError("line 3")
        configuration.change("two", error=error)
        await trio.sleep(60)
    assert [one.error for one in seen if one.cause is Cause.CONFIGURATION_REFUSED] == [error]
    assert results[-1].error is error
    assert len(fake_process.runs) == 1


async def test_a_configuration_that_is_superseded_while_it_is_staged_restarts_nothing(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("one")
    await nursery.start(Supervisor(fake_process, configuration=configuration).run)
    for contents in ("two", "three", "four"):
        configuration.change(contents, takes=5.0)
        await trio.sleep(3.0)
    second = await fake_process.wait_for_run(2)
    await trio.sleep(60)
    assert len(fake_process.runs) == 2
    assert generation(second) == "/generations/2"
    assert configuration.source is not None
    assert configuration.generation is not None
    assert configuration.generation.digest == configuration.source.digest


async def test_a_source_that_never_rests_is_applied_all_the_same(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("one")
    await nursery.start(Supervisor(fake_process, configuration=configuration).run)
    for number in range(100):
        configuration.change(f"busy {number}", takes=1.0)
        await trio.sleep(0.6)
    assert len(configuration.history) > 2


async def test_the_same_contents_again_restart_nothing(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("one")
    await nursery.start(Supervisor(fake_process, configuration=configuration).run)
    configuration.change("one")
    await trio.sleep(60)
    assert len(fake_process.runs) == 1


async def test_a_configuration_applied_earlier_is_used_when_there_is_no_newer_one(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("one", applied=True)
    await nursery.start(Supervisor(fake_process, configuration=configuration).run)
    assert generation(fake_process.current) == "/generations/1"


async def test_a_deleted_or_unreadable_source_leaves_the_process_alone(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("one")
    supervisor = Supervisor(fake_process, configuration=configuration)
    async with recording(supervisor.events) as seen:
        await nursery.start(supervisor.run)
        configuration.delete()
        await trio.sleep(1)
        configuration.fail(PermissionError("no"))
        await trio.sleep(60)
    assert Cause.CONFIGURATION_UNREADABLE in [one.cause for one in seen]
    assert len(fake_process.runs) == 1


# --- reloads


@pytest.mark.parametrize(
    ("changed", "signals", "runs"),
    [
        (["certs/a.pem"], [SIGHUP], 1),
        (["certs/a.pem", "rules/x"], [SIGHUP, SIGUSR1], 1),
        (["notes.txt"], [], 1),
        (["notes.txt", "rules/x"], [SIGUSR1], 1),
        (["certs/a.pem", "bin/app"], [SIGTERM], 2),
        (["unheard-of"], [SIGTERM], 2),
    ],
)
async def test_the_strongest_of_the_actions_for_the_changed_paths_is_taken(
    autojump_clock: MockClock,
    fake_process: FakeProcess,
    nursery: trio.Nursery,
    changed: list[str],
    signals: list[int],
    runs: int,
) -> None:
    on_change: Mapping[str, ChangeAction] = {
        "certs/*.pem": Reload(SIGHUP),
        "rules/*": Reload(SIGUSR1),
        "*.txt": Ignore(),
        "bin/*": Restart(),
    }
    configuration = FakeConfiguration("one")
    supervisor = Supervisor(fake_process, configuration=configuration, on_change=on_change)
    await nursery.start(supervisor.run)
    configuration.change("two", changed=changed)
    await trio.sleep(1)
    assert fake_process.runs[0].signals == signals
    assert len(fake_process.runs) == runs
    assert supervisor.state.ready


async def test_a_reloaded_process_keeps_its_first_generation_and_the_last_two(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("0")
    await nursery.start(
        Supervisor(fake_process, configuration=configuration, on_change=Reload(SIGHUP)).run
    )
    for number in range(1, 6):
        configuration.change(str(number))
        await trio.sleep(1)
    assert [generation.number for generation in configuration.pinned] == [1, 5, 6]


async def test_a_process_is_reloaded_as_often_as_there_are_configurations_and_the_operator_asks(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("0")
    supervisor = Supervisor(fake_process, configuration=configuration, on_change=Reload(SIGHUP))
    async with recording(supervisor.events) as seen:
        await nursery.start(supervisor.run)
        for number in range(1, 4):
            configuration.change(str(number))
            await trio.sleep(1)
        supervisor.reload()
        await trio.sleep(1)
    assert [one.error for one in seen if one.error is not None] == []
    assert fake_process.current.signals == 4 * [SIGHUP]
    assert len(fake_process.runs) == 1


async def test_a_reload_by_function_has_a_state_and_its_failure_is_reported(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    async def reload() -> None:
        await trio.sleep(3)
        raise ValueError("not now")

    configuration = FakeConfiguration("one")
    supervisor = Supervisor(fake_process, configuration=configuration, on_change=Reload(reload))
    async with recording(supervisor.events) as seen:
        await nursery.start(supervisor.run)
        configuration.change("two")
        await supervisor.wait_for(lambda state: state.process is ProcessState.RELOADING)
        await supervisor.wait_for(lambda state: state.ready)
        await trio.sleep(1)
    assert [str(one.error) for one in seen if one.cause is Cause.RELOAD_FAILED] == ["not now"]
    assert len(fake_process.runs) == 1


async def test_a_process_that_is_not_ready_is_restarted_rather_than_reloaded(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process, configuration = FakeProcess(ready_after=20.0), FakeConfiguration("one")
    supervisor = Supervisor(
        process,
        configuration=configuration,
        on_change=Reload(SIGHUP),
        readiness=Readiness(process.probe),
    )
    nursery.start_soon(supervisor.run)
    await process.wait_for_run(1)
    configuration.change("two")
    await process.wait_for_run(2)
    assert process.runs[0].signals == [SIGTERM]


async def test_the_operator_reloads_or_where_there_is_no_reload_restarts(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    one, other = FakeProcess(), FakeProcess()
    reloading = Supervisor(one, on_change={"*": Reload(SIGHUP)})
    restarting = Supervisor(other)
    await nursery.start(reloading.run)
    await nursery.start(restarting.run)
    reloading.reload()
    restarting.reload()
    await trio.sleep(1)
    assert (len(one.runs), one.current.signals) == (1, [SIGHUP])
    assert len(other.runs) == 2


async def test_a_process_that_is_being_started_gets_the_configuration_put_in_place_meanwhile(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process, configuration = FakeProcess(start_takes=5.0), FakeConfiguration("one")
    supervisor = Supervisor(process, configuration=configuration, on_change=Ignore())
    nursery.start_soon(supervisor.run)
    await trio.sleep(2)
    configuration.change("two")
    assert generation(await process.wait_for_run(1)) == "/generations/2"


async def test_a_process_that_has_just_ended_is_not_reloaded(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    supervisor = Supervisor(fake_process, on_change=Reload(SIGHUP))
    async with recording(supervisor.events) as seen:
        await nursery.start(supervisor.run)
        fake_process.current.exit(1)
        supervisor.reload()
        await fake_process.wait_for_run(2)
        await trio.sleep(1)
    states = [one.after.process for one in seen if one.after.pid in (None, 1000)]
    assert ProcessState.RELOADING not in states
    assert fake_process.runs[0].signals == []


# --- trials


async def test_a_configuration_that_proves_itself_is_confirmed(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("one")
    supervisor = Supervisor(fake_process, configuration=configuration, confirm_within=30.0)
    await nursery.start(supervisor.run)
    await trio.sleep(29)
    assert configuration.trusted == []
    await supervisor.wait_for(lambda state: state.configuration is ConfigurationState.APPLIED)
    assert trio.current_time() == pytest.approx(30)
    assert configuration.trusted == configuration.history


async def on_trial(
    process: FakeProcess, nursery: trio.Nursery, **options: object
) -> tuple[Supervisor, FakeConfiguration]:
    """A service that runs on a trusted generation 1 and was just given a second one."""
    configuration = FakeConfiguration("one")
    supervisor = Supervisor(process, configuration=configuration, confirm_within=30.0, **options)  # type: ignore[arg-type]
    await nursery.start(supervisor.run)
    await trio.sleep(60)
    configuration.change("two")
    return supervisor, configuration


async def test_a_process_that_dies_on_trial_is_rolled_back_at_once(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    supervisor, configuration = await on_trial(fake_process, nursery)
    async with recording(supervisor.events) as seen:
        second = await fake_process.wait_for_run(2)
        await trio.sleep(29)
        second.exit(0)
        third = await fake_process.wait_for_run(3)
        await trio.lowlevel.checkpoint()
    assert third.started_at == pytest.approx(second.started_at + 29)
    assert generation(third) == "/generations/1"
    assert supervisor.state.configuration is ConfigurationState.APPLIED
    rolled_back = [one for one in seen if one.cause is Cause.ROLLED_BACK]
    assert "exit code 0" in str(rolled_back[0].error)
    # The same source is not tried again, until it changes.
    configuration.change("two")
    await trio.sleep(60)
    assert len(fake_process.runs) == 3
    configuration.change("three")
    assert generation(await fake_process.wait_for_run(4)) == "/generations/3"


async def test_a_process_that_does_not_become_ready_on_trial_is_rolled_back(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process = FakeProcess()
    readiness = Readiness(process.probe, timeout=100.0)
    _, _ = await on_trial(process, nursery, readiness=readiness)
    process.ready_after = 1000.0
    second = await process.wait_for_run(2)
    process.ready_after = 0.0
    third = await process.wait_for_run(3)
    assert third.started_at == pytest.approx(second.started_at + 30)
    assert generation(third) == "/generations/1"


async def test_a_process_that_cannot_be_executed_on_trial_is_rolled_back(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    supervisor, _ = await on_trial(fake_process, nursery)
    fake_process.error = FileNotFoundError("the configuration brings no program")
    fake_process.start_takes = 1.0
    async with recording(supervisor.events) as seen:
        await trio.sleep(1.5)
        fake_process.error = None
    assert Cause.NOT_EXECUTED in [one.cause for one in seen]
    second = await fake_process.wait_for_run(2)
    assert generation(second) == "/generations/1"


async def test_a_reload_that_fails_on_trial_is_rolled_back(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    async def reload() -> None:
        raise ValueError("no")

    await on_trial(fake_process, nursery, on_change=Reload(reload))
    second = await fake_process.wait_for_run(2)
    assert generation(second) == "/generations/1"


async def test_a_rollback_uses_up_no_restart_and_no_backoff(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    policy = OnFailure(limit=Limit(0, within=60.0))
    await on_trial(fake_process, nursery, restart=policy)
    (await fake_process.wait_for_run(2)).exit(1)
    third = await fake_process.wait_for_run(3)
    assert generation(third) == "/generations/1"


async def test_without_an_earlier_generation_a_failed_trial_is_a_failure_like_another(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("one")
    supervisor = Supervisor(fake_process, configuration=configuration, confirm_within=30.0)
    async with recording(supervisor.events) as seen:
        await nursery.start(supervisor.run)
        for count in (2, 3, 4):
            fake_process.current.exit(1)
            await fake_process.wait_for_run(count)
        assert fake_process.current.started_at > 0.2
        await trio.sleep(31)
    assert [one.cause for one in seen].count(Cause.ROLLBACK_FAILED) == 1
    assert configuration.trusted == configuration.history


async def test_a_newer_configuration_replaces_the_one_on_trial(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    supervisor, configuration = await on_trial(fake_process, nursery)
    await fake_process.wait_for_run(2)
    await trio.sleep(10)
    configuration.change("three")
    third = await fake_process.wait_for_run(3)
    await trio.sleep(25)
    assert supervisor.state.configuration is ConfigurationState.TRIAL
    third.exit(1)
    assert generation(await fake_process.wait_for_run(4)) == "/generations/1"


async def test_a_verdict_interrupts_a_slow_staging_which_is_then_done_again(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    _, configuration = await on_trial(fake_process, nursery)
    second = await fake_process.wait_for_run(2)
    configuration.change("three", takes=20.0)
    await trio.sleep(5)
    second.exit(1)
    third = await fake_process.wait_for_run(3)
    assert third.started_at - second.started_at == pytest.approx(5)
    fourth = await fake_process.wait_for_run(4)
    assert (generation(third), generation(fourth)) == ("/generations/1", "/generations/3")
    assert fourth.started_at - third.started_at == pytest.approx(20)


async def test_deactivation_neither_fails_nor_passes_a_trial(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    supervisor, configuration = await on_trial(fake_process, nursery)
    await fake_process.wait_for_run(2)
    supervisor.stop()
    await trio.sleep(100)
    assert supervisor.state.configuration is ConfigurationState.TRIAL
    supervisor.start()
    await trio.sleep(31)
    assert configuration.trusted == configuration.history
    assert len(configuration.history) == 2


async def test_a_stop_that_outlasts_the_trial_neither_fails_nor_passes_it(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    supervisor, configuration = await on_trial(fake_process, nursery)
    await fake_process.wait_for_run(2)
    await trio.sleep(25)
    fake_process.stop_takes = 9.0
    supervisor.stop()
    await trio.sleep(100)
    assert supervisor.state.configuration is ConfigurationState.TRIAL
    assert configuration.refused == {}


async def test_a_trial_that_failed_is_not_adjourned_however_soon_the_end_comes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process = FakeProcess()
    configuration = FakeConfiguration("one")
    supervisor = Supervisor(
        process,
        configuration=configuration,
        readiness=Readiness(process.probe, timeout=100.0),
        confirm_within=30.0,
    )
    async with trio.open_nursery() as entrypoint:
        await entrypoint.start(supervisor.run)
        await trio.sleep(60)
        process.ready_after, process.stop_takes = 1000.0, 9.0
        configuration.change("two")
        await process.wait_for_run(2)
        await trio.sleep(29)
        await trio.sleep(5)  # it failed, and its process is being stopped
        entrypoint.cancel_scope.cancel()
    assert configuration.on_trial
    assert not configuration.adjourned
    assert len(configuration.reopened().refused) == 1


async def test_a_process_that_died_is_not_confirmed_while_the_hooks_after_it_run(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    async def slow() -> None:
        await trio.sleep(5)

    supervisor, configuration = await on_trial(
        fake_process, nursery, hooks=Hooks(after_stop=[slow])
    )
    second = await fake_process.wait_for_run(2)
    await trio.sleep(28)
    second.exit(1)
    await trio.lowlevel.checkpoint()
    state = await supervisor.wait_for(lambda state: not state.ready)
    assert (state.process, state.pid) == (ProcessState.STOPPING, None)
    assert generation(await fake_process.wait_for_run(3)) == "/generations/1"
    assert len(configuration.refused) == 1


async def test_the_operator_rolls_back(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("one")
    supervisor = Supervisor(fake_process, configuration=configuration)
    await nursery.start(supervisor.run)
    configuration.change("two")
    await fake_process.wait_for_run(2)
    supervisor.rollback()
    assert generation(await fake_process.wait_for_run(3)) == "/generations/1"


def test_a_rollback_needs_a_configuration_that_can() -> None:
    with pytest.raises(TypeError, match="no configuration"):
        Supervisor(FakeProcess()).rollback()
    with pytest.raises(ValueError, match="confirm_within"):
        Supervisor(FakeProcess(), configuration=FakeConfiguration(), confirm_within=0.0)


async def test_a_first_configuration_that_never_becomes_ready_can_be_replaced_at_any_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Its trial ran out long ago, and nothing could be rolled back to."""
    process, configuration = FakeProcess(ready_after=math.inf), FakeConfiguration("one")
    readiness = Readiness(process.probe, timeout=1000.0)
    supervisor = Supervisor(
        process, configuration=configuration, readiness=readiness, confirm_within=30.0
    )
    nursery.start_soon(supervisor.run)
    await trio.sleep(100)
    process.ready_after = 0.0
    configuration.change("two", takes=1.0)
    with trio.fail_after(2):
        await supervisor.wait_for(lambda state: state.ready)
    assert len(configuration.history) == 2
