"""What the tasks of one supervisor share: its facts, its run of the process, its journal."""

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

import trio

from trio_entrypoint._supervisor.decisions import (
    ConfigurationDuty,
    Facts,
    History,
    Outcome,
    Run,
    after_end,
    configuration_duty,
    judge_trial,
    process_duty,
)
from trio_entrypoint._supervisor.journal import Journal
from trio_entrypoint._supervisor.run import ProcessRun
from trio_entrypoint.handlers import ExitStatus
from trio_entrypoint.policies import RestartPolicy
from trio_entrypoint.states import Cause, ProcessState, State

__all__ = ["Supervision"]


@final
class Supervision:
    """The facts, and what happens when they change. Nothing here waits, except who asks to."""

    def __init__(
        self, name: str, facts: Facts, within: float | None, restart: RestartPolicy
    ) -> None:
        self.facts = facts
        self.restart = restart
        self.history = History()
        self.within = within
        """`confirm_within`."""
        self.run: ProcessRun | None = None
        """The run that is alive, from its first hook to its last."""
        self.staging: trio.CancelScope | None = None
        """A staging that a verdict on the trial may interrupt."""
        self.journal = Journal(name, State(configuration=facts.configuration))
        self._changed = trio.lowlevel.ParkingLot()
        self._news = Cause.SUPERVISED

    def look(self, cause: Cause) -> None:
        """A fact has changed: stop what must not go on, and wake who may have to do something."""
        self._news = cause
        if self.run is not None:
            duty = process_duty(self.facts, trio.current_time(), alive=self.run.alive)
            if not isinstance(duty, Run):
                if self.facts.trial is not None:
                    self.facts.trial.since = None  # how long it takes to stop proves nothing
                self.run.stop(cause)
        if self.staging is not None and self.configuration_duty(trio.current_time()) in (
            ConfigurationDuty.ROLL_BACK,
            ConfigurationDuty.CONFIRM,
        ):
            self.staging.cancel()
        self._changed.unpark_all()

    def down(self) -> None:
        """The run of the process is over."""
        self.run = None
        self.facts.stale = self.facts.reload = False
        self._changed.unpark_all()

    async def wait(self, until: float) -> Cause:
        """Wait until a fact changes, or for a time, and say which cause it was."""
        with trio.move_on_at(until) as scope:
            await self._changed.park()
        return Cause.RETRIED if scope.cancelled_caught else self._news

    def ended(self, outcome: Outcome) -> None:
        """A run ended that nobody had stopped."""
        jitter = random.random()  # noqa: S311 - no secret
        now = trio.current_time()
        after_end(self.facts, self.history, self.restart, outcome, now, jitter)
        self.look(outcome.cause)

    def configuration_duty(self, now: float) -> ConfigurationDuty:
        """What has to be done about the configuration now, at a time in seconds."""
        ready = self.journal.state.ready and self.run is not None and self.run.alive
        judge_trial(self.facts, now, ready=ready, within=self.within)
        return configuration_duty(self.facts)

    def tell(
        self,
        cause: Cause,
        process: ProcessState | None = None,
        *,
        status: ExitStatus | None = None,
        error: BaseException | None = None,
        result: object = None,
        status_text: str | None = None,
    ) -> None:
        """Record a transition to the state that the facts and the arguments make."""
        before, run = self.journal.state, self.run
        handler = run.process if run is not None else None
        alive = handler is not None and handler.status is None
        state = State(
            activation=self.facts.active,
            configuration=self.facts.configuration,
            process=before.process if process is None else process,
            pid=handler.pid if handler is not None and alive else None,
            status_text=(before.status_text if status_text is None else status_text)
            if alive
            else "",
        )
        self.journal.enter(state, cause, status=status, error=error, result=result)
        if process is not None and process is not before.process:
            # A process that became ready may be what the trial waits for.
            self._changed.unpark_all()

    @asynccontextmanager
    async def process_down(self, cause: Cause) -> AsyncGenerator[None]:
        """Hold the process down within the block: stop it first, start none meanwhile."""
        self.facts.switching = True
        self.look(cause)
        try:
            while self.run is not None:
                await self._changed.park()
            yield
        finally:
            self.facts.switching = False
            self.look(cause)
