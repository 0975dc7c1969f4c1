"""Simulation: whatever happens in whatever order, the supervisor keeps its invariants.

Hypothesis draws a service and a list of things that happen to it; the whole of it runs in one
`trio.run` under a mock clock, over the fakes, with Trio's own scheduler seeded: the example that
Hypothesis prints is the whole of a run, and running it again gives the same one. What must never
be is checked after every step of every task, what must be so at last is checked whenever the
world has come to rest, and once more at the end when nothing disturbs it any longer. Then a new
configuration comes, the entrypoint ends somewhere in its trial, and is started again.

`SIMULATIONS=20000 pytest tests/test_supervisor_simulation.py` looks longer than CI does.
"""

import math
import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import trio
import trio.lowlevel
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from simulated_service import FOREVER, WITHIN, Service, World, act, mend, services, steps
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_entrypoint.handlers import ExitStatus
from trio_entrypoint.policies import Always, Backoff, Never, Restart
from trio_entrypoint.states import ConfigurationState, GaveUp, ProcessState, State, Transition

SIMULATIONS = int(os.environ.get("SIMULATIONS", "150"))


async def supervise(world: World, scope: trio.CancelScope) -> None:
    with scope:
        try:
            world.outcome = await world.supervisor.run()
        except (GaveUp, OSError) as error:
            world.outcome = error
    world.over = True


async def scenario(
    world: World, script: list[tuple[object, ...]], trial_for: float, cancel_after: int
) -> None:
    told, states = world.supervisor.events, world.supervisor.states
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(supervise, world, scope)
        for step in script:
            await act(world, step)
            if step[0] != "ticks":
                await wait_all_tasks_blocked()
                world.check_at_rest()
        if not world.over:
            await mend(world)
            await wait_all_tasks_blocked()
            if not world.over:
                world.check_in_the_end()
            elif not isinstance(world.service.restart, Always) or world.service.restart.limit:
                world.check_at_rest()
            else:
                raise AssertionError(f"it ended: {world.outcome}")
        # Whatever it is doing now: after some more steps it is torn down.
        await act(world, ("restart",))
        await act(world, ("change", "E", 0.05, "app"))
        await trio.sleep(trial_for)
        await act(world, ("ticks", cancel_after))
        ended = world.over
        left = None if world.configuration is None else world.configuration.reopened()
        world.ending = True
        scope.cancel()
    assert world.violation is None, world.violation
    check_end(world, [one async for one in told])
    assert [state async for state in states][-1:] in ([world.supervisor.state], [])
    if left is not None and not ended:
        assert left.generation is None or left.generation in left.trusted
        await next_start(world)


async def next_start(world: World) -> None:
    """An end in good order was no verdict: the same configuration has another chance."""
    assert world.configuration is not None
    again = world.configuration.reopened()
    assert again.generation is None or again.generation in again.trusted
    assert again.refused == world.configuration.refused
    world.start_again(again)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(supervise, world, scope)
        await trio.sleep(5 * WITHIN)
        await wait_all_tasks_blocked()
        world.check_in_the_end()
        world.ending = True
        scope.cancel()
    assert world.process.alive == []


def check_end(world: World, transitions: list[Transition]) -> None:
    """Nothing is left after teardown, and what was told is one unbroken story."""
    assert world.process.alive == []
    assert world.supervisor.state.pid is None
    if world.configuration is not None:
        assert world.configuration.pinned == []
    final = (ProcessState.STOPPED, ProcessState.ENDED, ProcessState.GAVE_UP)
    assert world.supervisor.state.process in final
    for earlier, later in pairwise(transitions):
        assert later.before == earlier.after
        assert later.time >= earlier.time
        assert later.seconds >= 0
    for one in transitions:
        assert_possible(one.before, one.after)
    assert transitions[-1].after == world.supervisor.state


def assert_possible(before: State, after: State) -> None:
    """The drawing in `_supervisor/decisions.py`."""
    if before.process is after.process:
        return
    running = {
        ProcessState.RUNNING,
        ProcessState.READY,
        ProcessState.RELOADING,
        ProcessState.UNHEALTHY,
    }
    if after.process is ProcessState.RUNNING:
        assert before.process is ProcessState.STARTING
    if after.process in running - {ProcessState.RUNNING}:
        assert before.process in running, (before, after)
    if after.process is ProcessState.STOPPING:
        assert before.process in running, (before, after)
    if before.process in running and after.pid is not None:
        assert after.process in running | {ProcessState.STOPPING}, (before, after)


@pytest.mark.timeout(600)  # it computes, and a busy machine may leave it little to compute with
@given(
    service=services,
    script=st.lists(steps, max_size=30),
    trial_for=st.sampled_from([0.0, 0.05, 0.06, 7.0, 20.05, 20.06]),
    cancel_after=st.integers(0, 15),
    seed=st.integers(0, 2**32 - 1),
)
@settings(
    max_examples=SIMULATIONS,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_whatever_happens_the_invariants_hold(
    service: Service,
    script: list[tuple[object, ...]],
    trial_for: float,
    cancel_after: int,
    seed: int,
) -> None:
    from trio._core import _run

    world = World(service)
    _run._r.seed(seed)  # the order in which Trio runs the tasks that are ready
    clock = MockClock(autojump_threshold=0)

    async def bounded() -> None:
        with trio.fail_after(100 * FOREVER), world.violated:
            await scenario(world, script, trial_for, cancel_after)

    try:
        trio.run(bounded, clock=clock, instruments=[world])
        assert world.violation is None, world.violation
    except BaseException:
        note(f"at {clock.current_time():g}: {world.supervisor.state}")
        raise


# --- one thing, at each point -------------------------------------------------------------

BUSY = Service(
    restart=Always(backoff=Backoff(initial=2.0, jitter=0.0)),
    on_change=Restart(),
    with_activation=True,
    with_configuration=True,
    ready_probe=True,
    health=False,
    confirm=True,
    failing_hook=False,
    first="A",
    applied=False,
)
LIFE: list[tuple[object, ...]] = [
    ("start_takes", 1.0),
    ("ready_after", 1.0),
    ("stop_takes", 5.0),
    ("hooks_take", 1.0),
    ("sleep", 40.0),  # it starts, its trial passes
    ("change", "B", 2.0, "app"),
    ("sleep", 20.0),  # it is staged and switched; its trial is on
    ("change", "C", 2.0, "app"),
    ("sleep", 45.0),  # that is interrupted by another, which passes
    ("exit", 1),
    ("sleep", 6.0),
    ("exit", 1),
    ("sleep", 1.5),  # a hook, and backoff, so that there are some points in it
    ("sleep", 0.1),
    ("sleep", 0.1),
    ("sleep", 5.5),
    ("change", "poison", 0.0, "app"),
    ("sleep", 20.0),  # rolled back
    ("restart",),
    ("sleep", 8.0),
]
"""Whatever a service goes through: each thing takes its time, so that it can be interrupted."""


def live(disturb_at: float, disturb: Callable[[World], None]) -> World:
    """Let the busy service live, and be disturbed after a step; give it as it is a while later."""
    world = World(BUSY)
    world.disturb_at, world.disturb = disturb_at, partial(disturb, world)

    async def main() -> None:
        with world.violated:
            async with trio.open_nursery() as nursery:
                world.scope = trio.CancelScope()
                nursery.start_soon(supervise, world, world.scope)
                for step in LIFE:
                    if world.step < disturb_at:
                        await act(world, step)
                await trio.sleep(15)
                await wait_all_tasks_blocked()
                world.check_at_rest()
                world.ending = True
                world.scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[world])
    return world


def points() -> range:
    """The steps after which the busy service is disturbed: every other one, or all of them."""
    return range(1, live(math.inf, lambda world: None).step, 2 if SIMULATIONS < 1000 else 1)


def test_a_lease_that_is_lost_at_any_point_finds_the_process_gone_by_its_deadline() -> None:
    """Starting, staging, switching, on trial, stopping, waiting, in a hook: it does not matter."""
    seen: set[object] = set()

    def lose(world: World) -> None:
        state, configuration = world.supervisor.state, world.configuration
        assert configuration is not None
        seen.update({state.process, state.configuration, configuration.source})
        world.deactivate(2.0)

    for point in points():
        world = live(point, lose)
        assert world.violation is None, (point, world.violation)
    # Nothing is left out.
    assert {"starting", "running", "ready", "stopping", "backoff"} <= {
        state.value for state in seen if isinstance(state, ProcessState)
    }
    assert ConfigurationState.TRIAL in seen


def test_an_end_at_any_point_is_no_verdict_and_a_kill_leaves_nothing_untrusted() -> None:
    on_trial = adjourned = 0

    def end(world: World) -> None:
        nonlocal on_trial
        assert world.configuration is not None
        present = world.configuration.generation
        killed = world.configuration.reopened()
        assert killed.generation is None or killed.generation in killed.trusted
        if world.configuration.on_trial and present is not None and killed.generation is not None:
            assert present.digest in killed.refused
            on_trial += 1
        world.ending = True
        world.scope.cancel()

    for point in points():
        world = live(point, end)
        assert world.violation is None, (point, world.violation)
        assert world.configuration is not None
        adjourned += world.configuration.adjourned
        left = world.configuration.reopened()
        assert left.generation is None or left.generation in left.trusted
        refused = {world.contents[digest] for digest in left.refused}
        assert refused <= {"poison"}, (point, refused)
    assert on_trial > 20
    assert adjourned > 20


def test_an_exit_status_is_what_a_run_ended_with() -> None:
    """The simulation takes any outcome for granted; this one does not."""
    world = World(
        Service(Never(), Restart(), False, False, False, False, False, False, None, False)
    )
    world.process.ends_after, world.process.ends_with = 1.0, ExitStatus(code=3)
    result = trio.run(world.supervisor.run, clock=MockClock(autojump_threshold=0))
    assert result == ExitStatus(code=3)
