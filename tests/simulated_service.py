"""A simulated service: a supervisor over fakes, what can happen to it, and the eye on it.

`test_supervisor_simulation.py` draws what happens, or lets it happen at each point in turn. What
must never be is looked for after every step of every task.
"""

import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import attrs
import trio
import trio.lowlevel
from hypothesis import strategies as st

from trio_entrypoint.handlers import FENCING_TOKEN_VARIABLE, GENERATION_VARIABLE
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
from trio_entrypoint.states import ConfigurationState, ProcessState
from trio_entrypoint.supervisor import Supervisor
from trio_entrypoint.testing import FakeActivation, FakeConfiguration, FakeProcess, FakeRun

WITHIN = 20.0
LEASE = 2.0
"""Seconds, at most, in which the process of a lost lease has to be gone."""
FOREVER = 1_000.0
AT_ONCE = 5_000
"""Steps of tasks, more than anything here needs while no time passes."""

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
moves = st.one_of(
    st.tuples(st.just("activate"), st.sampled_from([None, "1", "2", "3"])),
    st.tuples(st.just("deactivate"), st.sampled_from([None, 0.0, LEASE])),
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
    st.tuples(st.just("hooks_take"), seconds),
    st.tuples(st.just("execution_fails"), st.booleans()),
    st.tuples(st.just("stop")),
    st.tuples(st.just("start")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("reload")),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("signal")),
)
waits = st.one_of(
    st.tuples(st.just("sleep"), st.sampled_from([0.01, 0.11, 1.0, 5.0, 19.9, 20.1, 70.0])),
    st.tuples(st.just("ticks"), st.integers(1, 12)),
)
steps = st.one_of(
    waits,
    moves,
    moves,
    moves,
    st.tuples(st.just("at once"), st.lists(moves, min_size=2, max_size=5)),
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
        self.hooks_take = 0.0
        self.hooks_running = 0
        self.stopped = False
        self.outcome: object = None
        self.scope = trio.CancelScope()
        self.instant = not service.failing_hook
        self.violation: str | None = None
        self.violated = trio.CancelScope()
        """Cancelled as soon as there is one: it might never come to an end."""
        self.step = 0
        """Steps of tasks so far."""
        self.disturb_at = math.inf
        self.disturb: Callable[[], None] = lambda: None
        """What happens after which step."""
        self._idle_steps, self._now = 0, 0.0
        self._seen = 0
        self._times: dict[FakeRun, tuple[int, float]] = {}
        self._asked: dict[FakeRun, float] = {}
        self._activations = 0
        self._deadlines: dict[int, float] = {}
        self._begin()

    def _begin(self) -> None:
        service = self.service
        self.over = self.ending = False
        self.switches = 0 if self.configuration is None else len(self.configuration.history)
        self._refused = {} if self.configuration is None else dict(self.configuration.refused)
        self.supervisor = Supervisor(
            self.open_process,
            activation=self.activation,
            configuration=self.configuration,
            restart=service.restart,
            on_change=service.on_change,
            readiness=Readiness(self.process.probe, timeout=60.0) if service.ready_probe else None,
            health=Health(HealthOf(self), period=5.0) if service.health else None,
            confirm_within=WITHIN if service.confirm else None,
            hooks=Hooks(
                before_start=[self.before_start],
                after_ready=[self.take_time],
                before_stop=[self.before_stop],
                after_stop=[self.take_time],
            ),
        )

    def start_again(self, configuration: FakeConfiguration) -> None:
        """Be the entrypoint that is started after this one ended."""
        self.configuration = configuration
        self._begin()

    async def before_start(self) -> None:
        await self.take_time()
        if self.broken_hook:
            raise ValueError("the hook fails")

    async def before_stop(self) -> None:
        self._asked.update({run: trio.current_time() for run in self.process.alive})
        await self.take_time()

    async def take_time(self) -> None:
        self.hooks_running += 1
        try:
            await trio.sleep(self.hooks_take)
        finally:
            self.hooks_running -= 1

    # --- what happens to it

    def activate(self, token: str | None) -> None:
        assert self.activation is not None
        if trio.current_time() < self._deadlines.get(self._activations, 0.0):
            return  # a lease is not given anew before
        self._activations += 1
        if self._activations - 1 in self._deadlines:
            token = f"{token}.{self._activations}"  # and never with a token that it gave before
        self.token = token
        self.activation.activate(token)

    def deactivate(self, within: float | None) -> None:
        """Let it lose its activation, and with a lease let another one have it so soon."""
        assert self.activation is not None
        deadline = None if within is None else trio.current_time() + within
        if deadline is not None:
            earlier = self._deadlines.get(self._activations, math.inf)
            self._deadlines[self._activations] = min(deadline, earlier)
        self.activation.deactivate(deadline)

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
            finally:  # unless something else has happened to it meanwhile
                if contents == "poison" and fake.ends_after == 0.5:
                    fake.ends_after = ends_after
                if contents == "slowpoke" and fake.ready_after == math.inf:
                    fake.ready_after = ready_after
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

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._look_for(self._overdue)  # time has passed since the last step, and this may hide it

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._look_for(self._violation)
        self.step += 1
        if self.step == self.disturb_at:
            self.disturb()

    def _look_for(self, violation: Callable[[], str | None]) -> None:
        if self.violation is None:
            self.violation = violation()
            if self.violation is not None:
                self.violated.cancel()

    def _overdue(self) -> str | None:
        now = trio.current_time()
        for run in self.process.alive:
            activation, _ = self._times[run]
            if now > self._deadlines.get(activation, math.inf) + 1e-6:  # as exact as a float
                return "a process is alive although another entrypoint may have become active"
        return None

    def _violation(self) -> str | None:
        now, alive = trio.current_time(), self.process.alive
        self._idle_steps = self._idle_steps + 1 if now == self._now else 0
        self._now = now
        if self._idle_steps > AT_ONCE:
            return "it spins: it is always busy, and no time passes"
        if len(alive) > 1:
            return "two processes are alive"
        new = self.process.runs[self._seen :]
        self._seen = len(self.process.runs)
        for run in new:
            self._times[run] = (self._activations, now)
        for run in alive:
            activation, _ = self._times[run]
            self._times[run] = (activation, now)
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
        restart = self.service.restart
        always = isinstance(restart, Always)
        endless = isinstance(restart, Always) and restart.limit is None
        if self.configuration.adjourned and endless and not self.ending:
            return "a trial was adjourned although nothing ends"
        refused = self.configuration.refused
        for digest in refused.keys() - self._refused.keys():
            if f"within {WITHIN:g} s" in refused[digest] and self._ran_on(digest) < WITHIN:
                return "a trial failed for lack of time, and its process did not have that time"
        self._refused = dict(refused)
        # Under the other policies an end with success passes a trial, ready or not.
        if self.service.confirm and self.service.ready_probe and always:
            for generation in self.configuration.trusted:
                if self.contents.get(generation.digest) == "slowpoke":
                    return "a configuration is trusted whose process is never ready"
        return None

    def _ran_on(self, digest: str) -> float:
        """How long the last process ran that was started on a configuration, or got it."""
        last = self.process.runs[-1]
        number = int(last.env[GENERATION_VARIABLE].rpartition("/")[2])
        assert self.configuration is not None
        started_on = {one.number: one.digest for one in self.configuration.history}[number]
        if started_on != digest and isinstance(self.service.on_change, Restart):
            return 0.0
        return self._asked.get(last, self._times[last][1]) - last.started_at

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
        if state.process is not ProcessState.STOPPING:  # while hooks run it may end by itself
            assert (state.pid is not None) == bool(alive)
        wanted = active and applied and not self.stopped
        going_down = state.process in (ProcessState.STOPPING, ProcessState.STARTING)
        if alive and not wanted:
            assert going_down, state
            assert self.hooks_running or {15, 9} & set(alive[0].signals)
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
        died = last.status is not None and last not in self._asked
        died = died and self.supervisor.state.process is not ProcessState.STOPPING
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


# --- what happens to it --------------------------------------------------------------------


async def act(world: World, step: tuple[object, ...]) -> None:
    if step[0] in ("start_takes", "stop_takes", "hooks_take", "change") and 0.0 not in step:
        world.instant = False
    match step:
        case ("sleep", float(time)):
            await trio.sleep(time)
        case ("ticks", int(count)):
            for _ in range(count):
                await trio.lowlevel.checkpoint()
        case ("at once", list(together)):
            for move in together:
                await act(world, move)
        case ("activate", token) if world.activation is not None:
            world.activate(token if isinstance(token, str) else None)
        case ("deactivate", within) if world.activation is not None:
            world.deactivate(within if isinstance(within, float) else None)
        case ("blink", token) if world.activation is not None:
            world.deactivate(None)
            world.activate(token if isinstance(token, str) else None)
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
        case ("hooks_take", float(time)):
            world.hooks_take = time
        case ("execution_fails", bool(fails)):
            world.process.error = OSError(11, "try again") if fails else None
        case ("stop",):
            world.stopped = True
            world.supervisor.stop()
        case ("start" | "restart" as name,):
            world.stopped = False
            getattr(world.supervisor, name)()
        case ("reload",):
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
    process.error, world.hooks_take = None, 0.0
    await trio.sleep(LEASE)
    world.supervisor.start()
    if world.activation is not None:
        world.deactivate(None)
        world.activate("last")
    if world.configuration is not None:
        world.configuration.delete()
        world.change("D", 0.0, "app")
    await trio.sleep(FOREVER)
