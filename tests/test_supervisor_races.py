"""What comes between a decision and its effect, or in one breath with something else.

Which task Trio runs first is a matter of chance: what depends on it is tried twenty times.
"""

import errno
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from signal import SIGHUP
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from trio_entrypoint.handlers import ExitStatus, Modification, UpdateResult
from trio_entrypoint.policies import (
    Always,
    Backoff,
    Health,
    Hooks,
    Ignore,
    Never,
    OnFailure,
    Reload,
)
from trio_entrypoint.states import Cause, ProcessState, State
from trio_entrypoint.supervisor import Supervisor
from trio_entrypoint.testing import FakeConfiguration, FakeProcess, recording
from trio_entrypoint.testing._configuration import FakeStaged

WITHIN = 20.0
CONFIRMING = 5.0
COMMITTING = 5.0


class SlowlyConfirmed(FakeConfiguration):  # type: ignore[misc]
    """A configuration whose confirmation takes its time, as one does that goes to the disk."""

    def __init__(self, contents: str, takes: float = CONFIRMING) -> None:
        super().__init__(contents)
        self._takes = takes

    async def confirm(self) -> None:
        await trio.sleep(self._takes)
        await super().confirm()


async def test_news_while_a_configuration_is_confirmed_stop_no_process(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = SlowlyConfirmed("one")
    supervisor = Supervisor(fake_process, configuration=configuration, confirm_within=WITHIN)
    await nursery.start(supervisor.run)
    await trio.sleep(WITHIN + CONFIRMING / 2)
    configuration.delete()
    supervisor.start()
    await trio.sleep(CONFIRMING)
    assert configuration.trusted == configuration.history
    assert len(fake_process.runs) == 1


async def test_the_operator_can_stop_a_process_while_its_configuration_is_confirmed(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = SlowlyConfirmed("one")
    supervisor = Supervisor(fake_process, configuration=configuration, confirm_within=WITHIN)
    await nursery.start(supervisor.run)
    await trio.sleep(WITHIN + CONFIRMING / 2)
    supervisor.stop()
    await trio.sleep(CONFIRMING / 4)
    assert fake_process.alive == []
    await trio.sleep(CONFIRMING)
    assert configuration.trusted == configuration.history
    assert fake_process.alive == []


async def test_a_process_that_dies_while_its_configuration_is_confirmed_is_restarted_as_ever(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = SlowlyConfirmed("one")
    restart = Always(backoff=Backoff(initial=30.0, jitter=0.0, reset_after=1000.0))
    supervisor = Supervisor(
        fake_process, configuration=configuration, confirm_within=WITHIN, restart=restart
    )
    await nursery.start(supervisor.run)
    await trio.sleep(WITHIN + CONFIRMING / 2)
    fake_process.current.exit(1)
    second = await fake_process.wait_for_run(2)
    assert configuration.trusted == configuration.history
    second.exit(1)  # the second failure: the backoff begins
    third = await fake_process.wait_for_run(3)
    assert third.started_at == pytest.approx(second.started_at + 30)


async def test_a_process_that_ends_while_its_configuration_is_confirmed_is_over_if_never_restarted(
    autojump_clock: MockClock, fake_process: FakeProcess
) -> None:
    configuration = SlowlyConfirmed("one")
    supervisor = Supervisor(
        fake_process, configuration=configuration, confirm_within=WITHIN, restart=Never()
    )
    statuses: list[ExitStatus] = []

    async def run() -> None:
        with trio.fail_after(100):
            statuses.append(await supervisor.run())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await supervisor.wait_for(lambda state: state.ready)
        await trio.sleep(WITHIN + CONFIRMING / 2)
        fake_process.current.exit(3)
    assert statuses == [ExitStatus(code=3)]
    assert len(fake_process.runs) == 1
    assert configuration.trusted == configuration.history


@pytest.mark.parametrize("takes", [CONFIRMING, 1000.0])
async def test_a_trial_that_passed_is_confirmed_although_the_end_came_meanwhile(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery, takes: float
) -> None:
    """Unless that takes too long: then the next start tries it again."""
    configuration = SlowlyConfirmed("one", takes)
    supervisor = Supervisor(fake_process, configuration=configuration, confirm_within=WITHIN)
    async with trio.open_nursery() as supervising:
        await supervising.start(supervisor.run)
        await trio.sleep(WITHIN + CONFIRMING / 2)
        supervising.cancel_scope.cancel()
    assert (configuration.trusted == configuration.history) is (takes == CONFIRMING)
    assert configuration.adjourned is (takes != CONFIRMING)


class NeverConfirmed(FakeConfiguration):  # type: ignore[misc]
    """A configuration on a disk that fails."""

    broken = True

    async def confirm(self) -> None:
        if self.broken:
            await trio.lowlevel.checkpoint()
            raise OSError(errno.EIO, "the disk")
        await super().confirm()


async def test_a_trial_that_passed_and_cannot_be_confirmed_costs_nobody_the_service(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = NeverConfirmed("one", applied=True)
    supervisor = Supervisor(fake_process, configuration=configuration, confirm_within=WITHIN)
    async with recording(supervisor.events) as seen:
        await nursery.start(supervisor.run)
        configuration.change("two")
        second = await fake_process.wait_for_run(2)
        await trio.sleep(WITHIN + 1)
        second.exit(1)  # long after it has proved itself: no reason to roll back
        await fake_process.wait_for_run(3)
        await trio.sleep(WITHIN + 1)
    assert [one.cause for one in seen].count(Cause.CONFIRM_FAILED) == 2
    assert configuration.refused == {}


@pytest.mark.parametrize("mended", [True, False])
async def test_what_proved_itself_is_confirmed_at_the_end_or_tried_again_but_not_refused(
    autojump_clock: MockClock, fake_process: FakeProcess, mended: bool
) -> None:
    configuration = NeverConfirmed("one", applied=True)
    supervisor = Supervisor(fake_process, configuration=configuration, confirm_within=WITHIN)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        configuration.change("two")
        await fake_process.wait_for_run(2)
        await trio.sleep(WITHIN + 1)
        configuration.broken = not mended
        nursery.cancel_scope.cancel()
    assert configuration.on_trial is not mended
    assert configuration.reopened().refused == {}


class SlowlyCleared(FakeConfiguration):  # type: ignore[misc]
    """A configuration for which it takes its time to remove what was staged."""

    @asynccontextmanager
    async def stage(self) -> AsyncGenerator[FakeStaged]:
        try:
            async with super().stage() as staged:
                yield staged
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(CONFIRMING)


async def test_a_trial_that_passed_does_not_fail_any_more_before_that_is_noted(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = SlowlyCleared("one")
    supervisor = Supervisor(
        fake_process,
        configuration=configuration,
        confirm_within=WITHIN,
        health=Health(fake_process.probe, period=0.5, failures=1, on_failure=Ignore()),
    )
    async with recording(supervisor.events) as seen:
        await nursery.start(supervisor.run)
        ends = trio.current_time() + WITHIN
        await trio.sleep_until(ends - 1)
        configuration.change("two", error=ValueError("line 3"), takes=10.0)
        await trio.sleep_until(ends + 1)
        supervisor.start()  # it is judged while what was staged is removed
        fake_process.current.ready = False
        await supervisor.wait_for(lambda state: state.process is ProcessState.UNHEALTHY)
        assert configuration.trusted == []
        supervisor.start()
        await trio.sleep(60)
    assert Cause.CONFIRMED in [one.cause for one in seen]
    assert Cause.ROLLBACK_FAILED not in [one.cause for one in seen]


class BusyClock(trio.abc.Clock):
    """A clock that goes on whenever somebody looks at it."""

    def __init__(self, step: float) -> None:
        self._step = step
        self._now = 0.0

    def start_clock(self) -> None:
        """It is not real."""

    def current_time(self) -> float:
        self._now += self._step
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return 0.0


@pytest.mark.parametrize("attempt", range(60))
def test_a_trial_that_ends_while_it_is_judged_is_judged(attempt: int) -> None:
    process, configuration = FakeProcess(), FakeConfiguration("one")
    supervisor = Supervisor(process, configuration=configuration, confirm_within=1.0)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            with trio.move_on_after(1.0 - 0.0002 * attempt):
                while True:
                    supervisor.start()  # so that it is judged until shortly before the end
                    await trio.lowlevel.checkpoint()
            await trio.sleep(0.1)
            assert configuration.trusted == configuration.history
            nursery.cancel_scope.cancel()

    trio.run(main, clock=BusyClock(0.001))


async def test_a_reload_waits_for_a_staging_and_restarts_what_is_not_ready_any_more(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("one")
    supervisor = Supervisor(
        fake_process,
        configuration=configuration,
        on_change=Reload(SIGHUP),
        health=Health(fake_process.probe, period=1.0, failures=1, on_failure=Ignore()),
    )
    await nursery.start(supervisor.run)
    configuration.change("broken", error=ValueError("line 3"), takes=5.0)
    await trio.sleep(0.5)
    supervisor.reload()
    fake_process.current.ready = False
    await supervisor.wait_for(lambda state: state.process is ProcessState.UNHEALTHY)
    with trio.fail_after(100):
        second = await fake_process.wait_for_run(2)
    assert second.signals == []


async def test_a_reload_that_waits_for_a_staging_is_over_with_its_process(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    configuration = FakeConfiguration("one")
    supervisor = Supervisor(fake_process, configuration=configuration, on_change=Reload(SIGHUP))
    await nursery.start(supervisor.run)
    configuration.change("broken", error=ValueError("line 3"), takes=5.0)
    await trio.sleep(0.5)
    supervisor.reload()
    fake_process.current.exit(1)
    second = await fake_process.wait_for_run(2)
    await trio.sleep(20)
    assert second.signals == []
    assert second.status is None


class SlowlyCommitted(FakeConfiguration):  # type: ignore[misc]
    """A configuration that takes its time to be put in place."""

    @asynccontextmanager
    async def stage(self) -> AsyncGenerator[Any]:
        async with super().stage() as staged:
            yield SlowCommit(staged)


@attrs.define
class SlowCommit:
    staged: FakeStaged

    @property
    def error(self) -> Exception | None:
        return self.staged.error

    @property
    def changed(self) -> Mapping[str, Modification]:
        return self.staged.changed

    async def commit(self, *, trial: bool = False) -> UpdateResult:
        await trio.sleep(COMMITTING)
        return await self.staged.commit(trial=trial)


@pytest.mark.parametrize("code", [0, 1])
async def test_a_process_that_ended_before_a_configuration_was_in_place_is_no_verdict_on_it(
    autojump_clock: MockClock, fake_process: FakeProcess, code: int
) -> None:
    """The hooks after its end last longer than that."""

    async def after_stop() -> None:
        await trio.sleep(2 * COMMITTING)

    configuration = SlowlyCommitted("one", applied=True)
    supervisor = Supervisor(
        fake_process,
        configuration=configuration,
        confirm_within=WITHIN,
        on_change=Reload(SIGHUP),
        restart=OnFailure(),
        hooks=Hooks(after_stop=[after_stop]),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await trio.sleep(2 * COMMITTING)
        configuration.change("two")
        await trio.sleep(COMMITTING / 2)
        fake_process.current.exit(code)
        await trio.sleep(COMMITTING)
        assert configuration.on_trial
        if code:
            await fake_process.wait_for_run(2)
            await trio.sleep(WITHIN + 1)
            nursery.cancel_scope.cancel()
    assert configuration.refused == {}
    assert configuration.on_trial is (code == 0)


async def test_a_source_that_a_supervisor_did_not_get_to_apply_is_applied_by_the_next(
    autojump_clock: MockClock, fake_process: FakeProcess
) -> None:
    """Its handler tells a change once."""
    configuration = FakeConfiguration()
    configuration.change("one", takes=5.0)
    with trio.move_on_after(1.0):
        await Supervisor(fake_process, configuration=configuration).run()
    assert not configuration.applied
    async with trio.open_nursery() as nursery:
        with trio.fail_after(10.0):
            await nursery.start(Supervisor(fake_process, configuration=configuration).run)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("attempt", range(20))
async def test_a_state_that_is_over_at_once_is_seen_by_who_waited_for_it_before(
    attempt: int, autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    supervisor = Supervisor(fake_process)
    states: list[ProcessState] = []

    async def wait() -> None:
        state = await supervisor.wait_for(lambda state: state.process is ProcessState.STARTING)
        states.append(state.process)

    nursery.start_soon(supervisor.run)
    nursery.start_soon(wait)
    await trio.sleep(1)
    assert states == [ProcessState.STARTING]


async def test_who_waits_for_a_state_is_cancelled_though_it_is_there(
    fake_process: FakeProcess,
) -> None:
    supervisor = Supervisor(fake_process)
    with trio.CancelScope() as scope:
        scope.cancel()
        await supervisor.wait_for(lambda _: True)
    assert scope.cancelled_caught


async def test_a_predicate_that_fails_fails_who_waits_and_nobody_else(
    autojump_clock: MockClock, fake_process: FakeProcess, nursery: trio.Nursery
) -> None:
    def predicate(state: State) -> bool:
        if state.process is ProcessState.STOPPING:
            raise ZeroDivisionError
        return False

    supervisor = Supervisor(fake_process)
    failed = trio.Event()

    async def wait() -> None:
        with pytest.raises(ZeroDivisionError):
            await supervisor.wait_for(predicate)
        failed.set()

    await nursery.start(supervisor.run)
    nursery.start_soon(wait)
    await trio.sleep(1)
    supervisor.restart()
    await fake_process.wait_for_run(2)
    with trio.fail_after(1):
        await failed.wait()


async def test_a_reload_does_not_take_back_a_stop_that_goes_on(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    process = FakeProcess(stop_takes=5.0)
    supervisor = Supervisor(process)
    await nursery.start(supervisor.run)
    supervisor.stop()
    await trio.sleep(1)
    supervisor.reload()
    await trio.sleep(10)
    assert supervisor.state.process is ProcessState.STOPPED
