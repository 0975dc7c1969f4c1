"""A process that ends is started again as its policy says: soon, then ever later, then never."""

import errno
from itertools import pairwise

import programs
import pytest
import trio
from trio.testing import MockClock

from trio_entrypoint.handlers import ExitStatus
from trio_entrypoint.policies import (
    Always,
    Backoff,
    Hooks,
    Limit,
    Never,
    OnFailure,
    Readiness,
    RestartPolicy,
)
from trio_entrypoint.probes import DescriptorProbe, NotifyProbe, Probe
from trio_entrypoint.states import GaveUp, ProcessState
from trio_entrypoint.supervisor import Supervisor
from trio_entrypoint.testing import FakeActivation, FakeConfiguration, FakeProcess

STEADY = Backoff(initial=1.0, factor=2.0, maximum=6.0, jitter=0.0, reset_after=10.0)


def starts(process: FakeProcess) -> list[float]:
    return [round(run.started_at, 3) for run in process.runs]


async def test_the_first_restart_is_immediate_and_the_next_ones_wait_ever_longer(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process = FakeProcess(ends_after=1.0)
    await nursery.start(Supervisor(process, restart=Always(backoff=STEADY)).run)
    await process.wait_for_run(7)
    waits = [later - earlier - 1.0 for earlier, later in pairwise(starts(process))]
    assert waits == [0.0, 1.0, 2.0, 4.0, 6.0, 6.0]


async def test_a_time_of_readiness_makes_the_next_failure_the_first_one_again(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process = FakeProcess(ends_after=1.0)
    await nursery.start(Supervisor(process, restart=Always(backoff=STEADY)).run)
    process.ends_after = 12.0
    await process.wait_for_run(3)
    process.ends_after = 1.0
    await process.wait_for_run(5)
    assert starts(process) == [0.0, 1.0, 13.0, 25.0, 27.0]


async def test_a_failing_first_start_is_retried_like_any_other(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process = FakeProcess(error=OSError(errno.EAGAIN, "no more processes"))
    nursery.start_soon(Supervisor(process, restart=Always(backoff=STEADY)).run)
    await trio.sleep(2.5)
    process.error = None
    await process.wait_for_run(1)
    assert starts(process) == [3.0]


async def test_too_many_restarts_raise_with_the_last_exit_status(
    autojump_clock: MockClock,
) -> None:
    process = FakeProcess(ends_after=1.0, ends_with=ExitStatus(code=9))
    policy = Always(backoff=Backoff(initial=0.0), limit=Limit(3, within=60.0))
    supervisor = Supervisor(process, restart=policy, name="web")
    with pytest.raises(GaveUp, match="web: more than 3 restarts within 60 s") as caught:
        await supervisor.run()
    assert len(process.runs) == 4
    assert caught.value.exit_status == ExitStatus(code=9)
    assert supervisor.state.process is ProcessState.GAVE_UP


async def test_restarts_that_are_far_apart_do_not_reach_the_limit(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process = FakeProcess(ends_after=31.0)
    policy = Always(limit=Limit(2, within=60.0))
    await nursery.start(Supervisor(process, restart=policy).run)
    await process.wait_for_run(20)


@pytest.mark.parametrize(
    ("policy", "status", "restarted"),
    [
        (Always(), ExitStatus(code=0), True),
        (OnFailure(), ExitStatus(code=0), False),
        (OnFailure(), ExitStatus(code=1), True),
        (OnFailure(), ExitStatus(signal=15), True),
        (OnFailure(success_codes=[0, 3]), ExitStatus(code=3), False),
        (Never(), ExitStatus(code=1), False),
    ],
)
async def test_each_policy_restarts_what_it_says(
    autojump_clock: MockClock, policy: RestartPolicy, status: ExitStatus, restarted: bool
) -> None:
    process = FakeProcess(ends_after=1.0, ends_with=status)
    result = None
    with trio.move_on_after(10):
        result = await Supervisor(process, restart=policy).run()
    assert (len(process.runs) > 1) == restarted
    assert result == (None if restarted else status)


async def test_a_stop_on_deactivation_is_no_failure_whatever_the_policy(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    activation = FakeActivation()
    policy = OnFailure(limit=Limit(0, within=60.0))
    supervisor = Supervisor(fake_process, activation=activation, restart=policy)
    await nursery.start(supervisor.run)
    for _ in range(5):
        activation.deactivate()
        await supervisor.wait_for(lambda state: not state.alive)
        activation.activate()
        await supervisor.wait_for(lambda state: state.ready)
    assert len(fake_process.runs) == 6


@pytest.mark.parametrize("mend", ["configuration", "operator", "activation"])
async def test_what_may_mend_it_ends_the_wait_at_once(
    autojump_clock: MockClock, nursery: trio.Nursery, mend: str
) -> None:
    process, activation = FakeProcess(ends_after=0.5), FakeActivation()
    configuration = FakeConfiguration("one")
    slow = Always(backoff=Backoff(initial=3600.0, maximum=3600.0))
    supervisor = Supervisor(
        process, activation=activation, configuration=configuration, restart=slow
    )
    await nursery.start(supervisor.run)
    await supervisor.wait_for(lambda state: state.process is ProcessState.BACKOFF)
    await trio.sleep(1)
    match mend:
        case "configuration":
            configuration.change("two")
        case "operator":
            supervisor.start()
        case _:
            activation.deactivate()
            await supervisor.wait_for(lambda state: state.process is ProcessState.INACTIVE)
            activation.activate()
    await process.wait_for_run(3)
    assert trio.current_time() < 5


@pytest.mark.parametrize("mend", ["start", "restart", "activation"])
async def test_what_may_mend_it_while_hooks_run_after_a_crash_leaves_no_wait_after_them(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery, mend: str
) -> None:
    async def after_stop() -> None:
        await trio.sleep(5)

    activation = FakeActivation()
    slow = Always(backoff=Backoff(initial=3600.0, maximum=3600.0))
    hooks = Hooks(after_stop=[after_stop])
    supervisor = Supervisor(fake_process, activation=activation, restart=slow, hooks=hooks)
    await nursery.start(supervisor.run)
    for count in (1, 2):  # the first crash is answered at once anyway
        await fake_process.wait_for_run(count)
        await trio.sleep(1)
        fake_process.current.exit(1)
        await trio.sleep(1)
    match mend:
        case "start" | "restart":
            getattr(supervisor, mend)()
        case _:
            activation.deactivate()
            await supervisor.wait_for(lambda state: not state.active)
            activation.activate()
    with trio.fail_after(10):
        await fake_process.wait_for_run(3)
    await trio.sleep(1)
    fake_process.current.exit(1)  # what ended one wait ends no other
    await trio.sleep(100)
    assert supervisor.state.process is ProcessState.BACKOFF


async def test_an_hour_of_backoff_costs_a_test_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process = FakeProcess(ends_after=0.0)
    hourly = Always(backoff=Backoff(initial=3600.0, maximum=3600.0, jitter=0.0))
    await nursery.start(Supervisor(process, restart=hourly).run)
    third = await process.wait_for_run(3)
    assert third.started_at == pytest.approx(3600.0)


@pytest.mark.parametrize("probe", [DescriptorProbe(3), NotifyProbe()])
async def test_a_start_without_a_descriptor_for_its_readiness_is_tried_again(
    fake_process: FakeProcess, nursery: trio.Nursery, probe: Probe
) -> None:
    supervisor = Supervisor(fake_process, readiness=Readiness(probe))
    with programs.exhausted(0) as give_back, trio.fail_after(10):
        nursery.start_soon(supervisor.run)
        await supervisor.wait_for(lambda state: state.process is ProcessState.BACKOFF)
        give_back()
        await fake_process.wait_for_run(1)
