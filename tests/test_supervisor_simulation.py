"""Simulation: whatever happens in whatever order, the supervisor keeps its invariants.

Hypothesis draws a service and a list of things that happen to it; the whole of it runs in one
`trio.run` under a mock clock, over the fakes, with Trio's own scheduler seeded: the example that
Hypothesis prints is the whole of a run, and running it again gives the same one. What must never
be is checked after every step of every task, what must be so at last is checked whenever the
world has come to rest, and once more at the end when nothing disturbs it any longer.

`SIMULATIONS=20000 pytest tests/test_supervisor_simulation.py` looks longer than CI does.
"""

import math
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import pairwise

import attrs
import pytest
import trio
import trio.lowlevel
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_entrypoint.handlers import FENCING_TOKEN_VARIABLE, GENERATION_VARIABLE, ExitStatus
from trio_entrypoint.policies import (
    Always,
    Backoff,
    Health,
    Hooks,
    Ignore,
    Limit,
    Never,
    OnChange,
    OnFailure,
    Readiness,
    Reload,
    Restart,
    RestartPolicy,
)
from trio_entrypoint.states import ConfigurationState, GaveUp, ProcessState, State, Transition
from trio_entrypoint.supervisor import Supervisor
from trio_entrypoint.testing import FakeActivation, FakeConfiguration, FakeProcess, FakeRun

WITHIN = 20.0
FOREVER = 1_000.0

# --- what can happen ----------------------------------------------------------------------


@attrs.frozen
class Service:
    restart: RestartPolicy
    on_change: OnChange
    with_activation: bool
    with_configuration: bool
    ready_probe: bool
    health: bool
    confirm: bool
    failing_hook: bool
    first: str | None
    applied: bool


POLICIES: list[RestartPolicy] = [
    Always(),
    Always(backoff=Backoff(initial=3.0, maximum=40.0, reset_after=30.0)),
    Always(limit=Limit(3, within=60.0)),
    OnFailure(success_codes=[0, 3]),
    Never(),
]
ON_CHANGE: list[OnChange] = [
    Restart(),
    Restart(),
    Reload(1),
    Ignore(),
    {"certs/*": Reload(1), "notes/*": Ignore()},
]

services = st.builds(
    Service,
    restart=st.sampled_from(POLICIES),
    on_change=st.sampled_from(ON_CHANGE),
    with_activation=st.booleans(),
    with_configuration=st.booleans(),
    ready_probe=st.booleans(),
    health=st.booleans(),
    confirm=st.booleans(),
    failing_hook=st.integers(0, 7).map(lambda n: n == 7),
    first=st.sampled_from([None, "A", "B", "broken", "poison"]),
    applied=st.booleans(),
)

seconds = st.sampled_from([0.0, 0.0, 0.05, 1.0, 7.0, 15.0, 100.0])
steps = st.one_of(
    st.tuples(st.just("sleep"), st.sampled_from([0.01, 0.11, 1.0, 5.0, 19.9, 20.1, 70.0])),
    st.tuples(st.just("sleep"), st.sampled_from([0.01, 0.11, 1.0, 5.0, 19.9, 20.1, 70.0])),
    st.tuples(st.just("ticks"), st.integers(1, 12)),
    st.tuples(st.just("activate"), st.sampled_from([None, "1", "2", "3"])),
    st.tuples(st.just("deactivate"), st.sampled_from([None, 0.0, 2.0])),
    st.tuples(st.just("blink"), st.sampled_from([None, "4", "5"])),
    st.tuples(
        st.just("change"),
        st.sampled_from(["A", "B", "C", "broken", "poison", "slowpoke"]),
        seconds,
        st.sampled_from(["app", "certs/a", "notes/b"]),
    ),
    st.tuples(
        st.just("change"),
        st.sampled_from(["A", "B", "C", "broken", "poison", "slowpoke"]),
        seconds,
        st.sampled_from(["app", "certs/a", "notes/b"]),
    ),
    st.tuples(st.just("delete")),
    st.tuples(st.just("unreadable")),
    st.tuples(st.just("exit"), st.sampled_from([0, 1, 3])),
    st.tuples(st.just("exit"), st.sampled_from([0, 1, 3])),
    st.tuples(st.just("die")),
    st.tuples(st.just("sicken")),
    st.tuples(st.just("start_takes"), seconds),
    st.tuples(st.just("stop_takes"), seconds),
    st.tuples(st.just("ready_after"), seconds),
    st.tuples(st.just("execution_fails"), st.booleans()),
    st.tuples(st.just("stop")),
    st.tuples(st.just("start")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("reload")),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("signal")),
)


# --- the world ----------------------------------------------------------------------------


class World(trio.abc.Instrument):
    """A supervisor over fakes, and the eye on it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.process = FakeProcess()
        self.activation = FakeActivation() if service.with_activation else None
        self.configuration = (
            FakeConfiguration(None, applied=service.applied)
            if service.with_configuration
            else None
        )
        self.contents: dict[str, str] = {}
        if self.configuration is not None and service.first is not None:
            if service.applied:
                self.configuration = FakeConfiguration("earlier", applied=True)
            self.change(service.first, 0.0, "app")
        self.healthy = True
        self.broken_hook = service.failing_hook
        self.stopped = False
        self.over = False
        self.outcome: object = None
        self.seen = 0
        self.switches = 0 if self.configuration is None else len(self.configuration.history)
        self.instant = not service.failing_hook
        self.violation: str | None = None
        self.supervisor = Supervisor(
            self.open_process,
            activation=self.activation,
            configuration=self.configuration,
            restart=service.restart,
            on_change=service.on_change,
            readiness=Readiness(self.process.probe, timeout=60.0) if service.ready_probe else None,
            health=Health(HealthOf(self), period=5.0) if service.health else None,
            confirm_within=WITHIN if service.confirm else None,
            hooks=Hooks(before_start=[self.before_start]),
        )
        self.transitions = self.supervisor.events
        self.states = self.supervisor.states

    async def before_start(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken_hook:
            raise ValueError("the hook fails")

    @asynccontextmanager
    async def open_process(
        self, *, extra_env: Mapping[str, str] = {}, extra_fds: Mapping[int, int] = {}
    ) -> AsyncGenerator[FakeRun]:
        """Open a fake process that behaves as its configuration lets it."""
        number = extra_env.get(GENERATION_VARIABLE, "").rpartition("/")[2]
        contents = self.contents_of(int(number)) if number else ""
        fake = self.process
        ready_after, ends_after = fake.ready_after, fake.ends_after
        if contents == "poison":
            fake.ends_after = 0.5
        if contents == "slowpoke":
            fake.ready_after = math.inf
        async with AsyncExitStack() as stack:
            try:
                run = await stack.enter_async_context(
                    fake(extra_env=extra_env, extra_fds=extra_fds)
                )
            finally:
                fake.ready_after, fake.ends_after = ready_after, ends_after
            yield run

    def contents_of(self, number: int) -> str:
        assert self.configuration is not None
        digests = {one.number: one.digest for one in self.configuration.history}
        return self.contents.get(digests[number], "")

    def change(self, contents: str, takes: float, path: str) -> None:
        assert self.configuration is not None
        error = ValueError(contents) if contents == "broken" else None
        self.configuration.change(contents, changed=[path], error=error, takes=takes)
        assert self.configuration.source is not None
        self.contents[self.configuration.source.digest] = contents

    # --- what must never be

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.violation is None:
            self.violation = self._violation()

    def _violation(self) -> str | None:
        if len(self.process.alive) > 1:
            return "two processes are alive"
        new = self.process.runs[self.seen :]
        self.seen = len(self.process.runs)
        for run in new:
            if self.configuration is None:
                continue
            in_place = self.configuration.generation
            if in_place is None or run.env.get(GENERATION_VARIABLE) != str(in_place.path):
                return f"a process was started on {run.env}, in place is {in_place}"
            if in_place not in self.configuration.pinned:
                return "a process runs on a generation that is not pinned"
        return self._configuration_violation()

    def _configuration_violation(self) -> str | None:
        if self.configuration is None:
            return None
        if len(self.configuration.history) > self.switches:
            self.switches = len(self.configuration.history)
            if self.process.alive and isinstance(self.service.on_change, Restart):
                return "the configuration was switched under a process"
        # Under the other policies an end with success passes a trial, ready or not.
        always = isinstance(self.service.restart, Always)
        if self.service.confirm and self.service.ready_probe and always:
            for generation in self.configuration.trusted:
                if self.contents.get(generation.digest) == "slowpoke":
                    return "a configuration is trusted whose process is never ready"
        return None

    # --- what must be so whenever nothing moves

    def check_at_rest(self) -> None:
        assert self.violation is None, self.violation
        state, alive = self.supervisor.state, self.process.alive
        if self.over:
            assert alive == []
            return
        active = self.activation is None or self.activation.active
        applied = self.configuration is None or self.configuration.applied
        assert state.activation == active
        assert state.applied == applied
        assert (state.pid is not None) == bool(alive)
        wanted = active and applied and not self.stopped
        going_down = state.process in (ProcessState.STOPPING, ProcessState.STARTING)
        if alive and not wanted:
            assert going_down, state
            assert 15 in alive[0].signals or 9 in alive[0].signals
        if not wanted:
            assert alive or going_down or state.process in DOWN, state
        if wanted:
            assert state.process not in DOWN, state
        if self.instant:
            assert state.process is not ProcessState.STARTING, state
        self.check_trial()
        if alive and self.configuration is not None and state.process is ProcessState.READY:
            assert self.configuration.pinned
        if alive and self.activation is not None and not going_down:
            token = alive[0].env.get(FENCING_TOKEN_VARIABLE)
            assert token == self.token, (token, self.token)

    def check_trial(self) -> None:
        """A configuration on trial whose process died is not in place, if there is another."""
        if self.configuration is None or not self.service.confirm or not self.process.runs:
            return
        last, in_place = self.process.runs[-1], self.configuration.generation
        died = last.status is not None and not {9, 15} & set(last.signals)
        trusted = self.configuration.trusted
        if died and in_place is not None and trusted and in_place not in trusted:
            assert last.env[GENERATION_VARIABLE] != str(in_place.path), "it was not rolled back"

    token: str | None = None

    # --- what must be so in the end

    def check_in_the_end(self) -> None:
        """Nothing has disturbed it for a long time, and everything works."""
        self.check_at_rest()
        assert not self.over, self.outcome
        state = self.supervisor.state
        assert state.ready, state
        assert len(self.process.alive) == 1
        if self.configuration is None:
            return
        source, in_place = self.configuration.source, self.configuration.generation
        assert source is not None
        assert in_place is not None
        if source.digest not in self.configuration.refused:
            assert in_place.digest == source.digest, "the newest valid configuration is not it"
        if isinstance(self.service.on_change, Restart):
            assert self.process.current.env[GENERATION_VARIABLE] == str(in_place.path)
        assert state.configuration is ConfigurationState.APPLIED
        if self.service.confirm:
            assert in_place in self.configuration.trusted


DOWN = {ProcessState.INACTIVE, ProcessState.STOPPED, ProcessState.WAITING}


@attrs.frozen
class HealthOf:
    world: World

    async def check(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.world.healthy:
            raise ValueError("sick")


# --- running it ---------------------------------------------------------------------------


async def act(world: World, step: tuple[object, ...]) -> None:
    if step[0] in ("start_takes", "stop_takes", "change") and 0.0 not in step:
        world.instant = False
    match step:
        case ("sleep", float(time)):
            await trio.sleep(time)
        case ("ticks", int(count)):
            for _ in range(count):
                await trio.lowlevel.checkpoint()
        case ("activate", token) if world.activation is not None:
            world.token = token if isinstance(token, str) else None
            world.activation.activate(world.token)
        case ("deactivate", within) if world.activation is not None:
            deadline = trio.current_time() + within if isinstance(within, float) else None
            world.activation.deactivate(deadline)
        case ("blink", token) if world.activation is not None:
            world.activation.deactivate()
            world.token = token if isinstance(token, str) else None
            world.activation.activate(world.token)
        case ("change", str(contents), float(takes), str(path)) if world.configuration:
            world.change(contents, takes, path)
        case ("delete",) if world.configuration is not None:
            world.configuration.delete()
        case ("unreadable",) if world.configuration is not None:
            world.configuration.fail(PermissionError("not now"))
        case ("exit", int(code)) if world.process.alive:
            world.process.current.exit(code)
        case ("die",) if world.process.alive:
            world.process.current.die()
        case ("sicken",):
            world.healthy = not world.healthy
        case ("start_takes" | "stop_takes" | "ready_after" as name, float(time)):
            setattr(world.process, name, time)
        case ("execution_fails", bool(fails)):
            world.process.error = OSError(11, "try again") if fails else None
        case ("stop",):
            world.stopped = True
            world.supervisor.stop()
        case ("start" | "restart" as name,):
            world.stopped = False
            getattr(world.supervisor, name)()
        case ("reload",):
            # Where there is nothing to reload by, it is a restart, which undoes a stop.
            if not world.stopped:
                world.supervisor.reload()
        case ("rollback",) if world.configuration is not None:
            world.supervisor.rollback()
        case ("signal",):
            with suppress(ProcessLookupError):
                world.supervisor.signal(10)
        case _:
            pass


async def mend(world: World) -> None:
    """Let everything work from now on, and give it time."""
    process = world.process
    world.healthy, world.broken_hook, world.stopped = True, False, False
    process.start_takes = process.stop_takes = process.ready_after = 0.0
    process.error = None
    if world.activation is not None:
        world.token = "last"
        world.activation.activate(world.token)
    if world.configuration is not None:
        world.change("D", 0.0, "app")
    world.supervisor.start()
    await trio.sleep(FOREVER)


async def scenario(world: World, script: list[tuple[object, ...]], cancel_after: int) -> None:
    async def supervise(scope: trio.CancelScope) -> None:
        with scope:
            try:
                world.outcome = await world.supervisor.run()
            except (GaveUp, OSError) as error:
                world.outcome = error
        world.over = True

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(supervise, scope)
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
        await act(world, ("ticks", cancel_after))
        scope.cancel()
    assert world.violation is None, world.violation
    check_end(world, [one async for one in world.transitions])
    assert [state async for state in world.states][-1:] in ([world.supervisor.state], [])


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
    cancel_after=st.integers(0, 15),
    seed=st.integers(0, 2**32 - 1),
)
@settings(
    max_examples=int(os.environ.get("SIMULATIONS", "150")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_whatever_happens_the_invariants_hold(
    service: Service, script: list[tuple[object, ...]], cancel_after: int, seed: int
) -> None:
    from trio._core import _run

    world = World(service)
    _run._r.seed(seed)  # the order in which Trio runs the tasks that are ready
    clock = MockClock(autojump_threshold=0)

    async def bounded() -> None:
        with trio.fail_after(100 * FOREVER):
            await scenario(world, script, cancel_after)

    try:
        trio.run(bounded, clock=clock, instruments=[world])
    except BaseException:
        note(f"at {clock.current_time():g}: {world.supervisor.state}")
        raise


def test_an_exit_status_is_what_a_run_ended_with() -> None:
    """The simulation takes any outcome for granted; this one does not."""
    world = World(
        Service(Never(), Restart(), False, False, False, False, False, False, None, False)
    )
    world.process.ends_after, world.process.ends_with = 1.0, ExitStatus(code=3)
    result = trio.run(world.supervisor.run, clock=MockClock(autojump_threshold=0))
    assert result == ExitStatus(code=3)
