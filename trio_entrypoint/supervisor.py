"""The logic that most entrypoints share: run a process exactly while active and configured.

Two tasks share the work. This one runs the process, each run in a cancel scope of its own; the
other one (`_supervisor/configure.py`) applies configurations. What each of them has to do is
decided in `_supervisor/decisions.py`, by pure functions; the rules and a drawing are there.
What the handlers tell is taken in by `configure.py` and `activate.py`.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import final, get_args

import attrs
import trio

from trio_entrypoint._nursery import open_background
from trio_entrypoint._supervisor.activate import Activator
from trio_entrypoint._supervisor.attend import Service
from trio_entrypoint._supervisor.changes import reloads
from trio_entrypoint._supervisor.configure import Configurator, revertible
from trio_entrypoint._supervisor.decisions import (
    End,
    Facts,
    GiveUp,
    Outcome,
    Run,
    Stay,
    process_duty,
)
from trio_entrypoint._supervisor.run import ProcessRun
from trio_entrypoint._supervisor.supervision import Supervision
from trio_entrypoint.handlers import (
    ActivationHandler,
    ConfigurationHandler,
    ExitStatus,
    OpenProcess,
    Result,
)
from trio_entrypoint.policies import (
    Always,
    ChangeAction,
    Health,
    Hooks,
    OnChange,
    Readiness,
    Restart,
    RestartPolicy,
)
from trio_entrypoint.probes import ProbeError
from trio_entrypoint.states import Cause, GaveUp, ProcessState, State, Transition

__all__ = ["Supervisor"]

_ALWAYS = Always()
_NO_HOOKS = Hooks()
_RESTART = Restart()


def _expect(argument: str, value: object, kinds: tuple[type, ...]) -> None:
    if not isinstance(value, kinds):
        names = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{argument}: expected one of {names}, not {value!r}")


@final
@attrs.frozen
class _News:
    """Why the process enters its next state, and what came of the last one."""

    cause: Cause
    status: ExitStatus | None = None
    error: Exception | None = None


@final
class Supervisor:
    """Runs a process exactly while active and configured.

    * The process is started whenever this entrypoint is active and a configuration is in
      place, and stopped when it becomes a backup. There is never more than one.
    * A new configuration is staged and validated while the old process runs. If it is broken,
      that is told, and nothing else happens. If it is good, `on_change` says what it does; by
      default the process is stopped, the configuration switched, and the process started.
    * A process that ends is started again, as `restart` says.

    Example::

        async with (
            open_file_activation("/run/app/active") as activation,
            open_tar_configuration("/incoming/config.tar", "/etc/app") as configuration,
        ):
            return await Supervisor(
                partial(open_process, ["app", "--config", "/etc/app"]),
                activation=activation,
                configuration=configuration,
                readiness=Readiness(TcpProbe(8080)),
                confirm_within=30.0,
            ).run()
    """

    def __init__(
        self,
        open_process: OpenProcess,
        *,
        name: str = "app",
        activation: ActivationHandler | None = None,
        configuration: ConfigurationHandler[Result] | None = None,
        restart: RestartPolicy = _ALWAYS,
        on_change: OnChange = _RESTART,
        readiness: Readiness | None = None,
        health: Health | None = None,
        confirm_within: float | None = None,
        hooks: Hooks = _NO_HOOKS,
    ) -> None:
        """Prepare; nothing happens before `run`.

        Args:
            open_process: Opens one run of the process: `partial(open_process, [...])`.
            name: What transitions and errors call the service.
            activation: Without one, always active.
            configuration: Without one, the process needs none.
            restart: What happens when the process ends by itself.
            on_change: What a new configuration does to the process that runs.
            readiness: When the process is ready; by default as soon as it was executed.
            health: How it is watched after that.
            confirm_within: Seconds from its start in which the process on a new
                configuration has to become ready, and at whose end it has to be so; else the
                configuration is rolled back. None trusts every valid configuration. When `run`
                is cancelled before that, the next start tries the same configuration again.
            hooks: What is done around each run.

        Raises:
            ValueError: `confirm_within` is not positive.
            TypeError: `restart` or `on_change` is no policy; or the configuration handler
                cannot roll back, and `confirm_within` needs it.
        """
        if confirm_within is not None and not confirm_within > 0:
            raise ValueError(f"confirm_within must be positive, not {confirm_within}")
        _expect("restart", restart, get_args(RestartPolicy))
        for action in on_change.values() if isinstance(on_change, Mapping) else [on_change]:
            _expect("on_change", action, get_args(ChangeAction))
        if confirm_within is not None and configuration is not None:
            revertible(configuration)
        self.name = name
        self._configuration = configuration
        self._on_change = on_change
        self._service = Service(
            open_process=open_process, readiness=readiness, health=health, hooks=hooks
        )
        self._initial = list(hooks.initial)
        self._facts = Facts(
            active=activation is None,
            configured=configuration is not None,
            applied=configuration is None or configuration.applied,
        )
        self._supervision = Supervision(name, self._facts, confirm_within, restart)
        self._configurator = Configurator(
            self._supervision, configuration, on_change, hooks.timeout
        )
        self._activator = None if activation is None else Activator(self._supervision, activation)
        self._ready = False
        self._ran = False

    # --- what it tells

    @property
    def state(self) -> State:
        """The state now."""
        return self._supervision.journal.state

    @property
    def states(self) -> "trio.MemoryReceiveChannel[State]":
        """The newest state, whenever it changes; it ends with `run`."""
        return self._supervision.journal.states

    @property
    def events(self) -> "trio.MemoryReceiveChannel[Transition]":
        """Every transition since this was first asked for, in order; it ends with `run`.

        None is dropped: who asks has to read, or close the channel.
        """
        return self._supervision.journal.events

    async def wait_for(self, predicate: Callable[[State], bool]) -> State:
        """Wait for a state, however short it lasts, and give it.

        Example::

            await supervisor.wait_for(lambda state: state.ready)

        Raises:
            trio.EndOfChannel: `run` has ended, and its last state was another.
            Exception: What `predicate` raises.
        """
        return await self._supervision.journal.wait_for(predicate)

    # --- the operator's commands

    def start(self) -> None:
        """Take `stop` back; a wait before the next start is over at once."""
        self._facts.stopped = False
        if trio.lowlevel.in_trio_run():  # else nothing waits
            self._facts.start_at_once(trio.current_time())
        self._supervision.look(Cause.OPERATOR)

    def stop(self) -> None:
        """Stop the process, and keep it down until `start`. `wait_for` tells when it is."""
        self._facts.stopped = True
        self._supervision.look(Cause.OPERATOR)

    def restart(self) -> None:
        """Stop the process and start it again; start it if it was stopped."""
        self._facts.stale = self._supervision.run is not None
        self.start()

    def reload(self) -> None:
        """Let the process read its configuration again: by the reloads that `on_change` has.

        If there are none, or the process is not ready, it is restarted. If there is no process
        nothing happens: its start reads the configuration anyway. Nor if the operator has
        stopped it: only `start` and `restart` take that back.
        """
        if self._supervision.run is None or self._facts.stopped:
            return
        if reloads(self._on_change) and self.state.ready:
            self._facts.reload = True
            self._supervision.look(Cause.OPERATOR)
        else:
            self.restart()

    def rollback(self) -> None:
        """Go back to the last trusted configuration before the present one.

        The process is stopped for that and started on it. The present source is refused until
        another one was applied and trusted. `events` tell the outcome.

        Raises:
            TypeError: The configuration handler cannot.
        """
        if self._configuration is None:
            raise TypeError(f"{self.name}: there is no configuration to roll back")
        revertible(self._configuration)
        self._facts.rollback = True
        self._supervision.look(Cause.OPERATOR)

    def signal(self, signal: int) -> None:
        """Send a signal to the process.

        Raises:
            ProcessLookupError: There is none.
            PermissionError: It belongs to another user, and this program lacks CAP_KILL.
        """
        if self._supervision.run is None or self._supervision.run.process is None:
            raise ProcessLookupError(f"{self.name}: there is no process that could get a signal")
        self._supervision.run.process.signal(signal)

    # --- running

    async def run(  # noqa: ASYNC114 - what is started is no context manager
        self, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED
    ) -> ExitStatus:
        """Supervise until nothing is left to restart, and give the last exit status.

        With `await nursery.start(supervisor.run)` the call returns when the process is ready
        for the first time, so that the order of several services is plain code.

        Cancellation stops the process as its handler does it: the stop signal, the grace
        period, SIGKILL. It can be run once.

        Raises:
            GaveUp: The process failed for good: too many restarts, or a failure without a
                restart that is not its own end. Started by `nursery.start`: it ended before it
                was ready.
            OSError: The command cannot be executed, and no process ever was. A setting that
                makes no sense is a `GaveUp` then, which says what is wrong.
            RuntimeError: Another supervisor follows one of the handlers, or this one was run.
        """
        if self._ran:
            raise RuntimeError(f"{self.name}: this supervisor has been run already")
        self._ran = True
        supervision = self._supervision
        tasks: list[Callable[[], Awaitable[object]]] = []
        if self._configuration is not None or reloads(self._on_change):
            tasks.append(self._configurator.work)
        if self._activator is not None:
            tasks.append(self._activator.watch)
        if self._configuration is not None:
            tasks.append(self._configurator.watch)

        def started() -> None:
            task_status.started()

        with supervision.journal:
            self._configurator.take_over()
            if self._activator is not None:
                self._activator.take_over()
            supervision.tell(Cause.SUPERVISED)
            try:
                async with open_background(*tasks):
                    try:
                        outcome = await self._keep_running(started)
                    finally:
                        if self._activator is not None:
                            self._activator.end()
            except BaseException:
                if supervision.journal.state.process is not ProcessState.GAVE_UP:
                    supervision.tell(Cause.SHUTDOWN, ProcessState.STOPPED)
                raise
        return self._result(outcome, task_status)

    async def _keep_running(self, started: Callable[[], None]) -> Outcome:
        supervision = self._supervision
        news = _News(Cause.SUPERVISED)
        while True:
            if self._activator is not None:
                self._activator.look()
            match process_duty(self._facts, trio.current_time(), alive=False):
                case Run():
                    news = await self._run_once(news, started)
                case Stay(state=state, until=until):
                    supervision.tell(news.cause, state, status=news.status, error=news.error)
                    news = _News(await supervision.wait(until))
                case End(outcome=outcome):
                    state = ProcessState.ENDED
                    supervision.tell(news.cause, state, status=news.status, error=news.error)
                    return outcome
                case GiveUp(outcome=outcome, problem=problem):
                    error = GaveUp(self.name, problem, outcome.status)
                    supervision.tell(Cause.LIMIT, ProcessState.GAVE_UP, error=error)
                    raise error from outcome.error

    async def _run_once(self, news: _News, started: Callable[[], None]) -> _News:
        """Run the process once, and take note of how it ended."""
        facts, supervision = self._facts, self._supervision

        def tell(
            cause: Cause,
            process: ProcessState | None = None,
            *,
            error: BaseException | None = None,
            status_text: str | None = None,
        ) -> None:
            if cause is Cause.EXECUTED:
                facts.executed = True
                if facts.trial is not None and run.stopped_by is None:
                    facts.trial.since = trio.current_time()
            supervision.tell(cause, process, error=error, status_text=status_text)
            if process is ProcessState.READY and not self._ready:
                self._ready = True
                started()

        run = ProcessRun(self._service, self._initial, self._configuration, facts.token, tell)
        supervision.run = run
        try:
            supervision.tell(
                news.cause, ProcessState.STARTING, status=news.status, error=news.error
            )
            outcome = await run.live()
        finally:
            supervision.down()
        status = run.process.status if run.process is not None else None
        trial = facts.trial
        if outcome is None and trial is not None and trial.failed and trial.outcome is None:
            error = ProbeError(trial.failed)
            trial.outcome = Outcome(
                cause=Cause.NOT_READY, status=status, error=error, ended_at=run.ended_at
            )
        if outcome is None:
            return _News(run.stopped_by or Cause.STOPPED, status)
        supervision.ended(outcome)
        return _News(outcome.cause, status, outcome.error)

    def _result(self, outcome: Outcome, task_status: "trio.TaskStatus[None]") -> ExitStatus:
        """Give the status of a process that ended by itself; raise for all else."""
        if isinstance(outcome.error, OSError) and outcome.cause is Cause.NOT_EXECUTED:
            raise outcome.error
        if outcome.error is not None or outcome.status is None:
            raise GaveUp(self.name, str(outcome.error), outcome.status) from outcome.error
        if not self._ready and task_status is not trio.TASK_STATUS_IGNORED:
            raise GaveUp(self.name, "it ended before it was ready", outcome.status)
        return outcome.status
