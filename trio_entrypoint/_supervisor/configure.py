"""Applying configurations to a supervised process: staging, switches, reloads, trials.

One task does all of it, so that nothing of it overlaps: what has to be done next is decided in
`decisions.py`, each time anew. An update takes these steps:

1. Stage the newest source while the process runs. A change that comes meanwhile makes this
   staging void; a verdict on the trial that is on interrupts it.
2. It is broken, or refused: tell it. Nothing else has happened.
3. `on_change` says restart, or no process runs: hold the process down, commit, let go. The
   other task starts it again.
4. Otherwise commit under the running process, and reload it.
"""

import math
from collections.abc import Sequence
from typing import cast, final

import trio

from trio_entrypoint._channels import SoleReceiver, refuse_second_receiver
from trio_entrypoint._supervisor.attend import reload
from trio_entrypoint._supervisor.changes import choose, reloads
from trio_entrypoint._supervisor.decisions import (
    ConfigurationDuty,
    Trial,
    next_verdict,
)
from trio_entrypoint._supervisor.supervision import Supervision
from trio_entrypoint.handlers import (
    ConfigurationChanged,
    ConfigurationDeleted,
    ConfigurationEvent,
    ConfigurationFailed,
    ConfigurationHandler,
    Result,
    RevertibleConfigurationHandler,
    StagedUpdate,
)
from trio_entrypoint.policies import Ignore, OnChange, Reload, Restart
from trio_entrypoint.states import Cause, ProcessState

__all__ = ["Configurator"]

_CONFIGURATION = "configuration: each supervisor needs one of its own"

_PATIENCE = 10
"""Stagings in a row that a change makes void. A source that never rests is applied too."""


@final
class Configurator:
    """Does what has to be done about the configuration of one supervised process."""

    def __init__(
        self,
        supervision: Supervision,
        handler: ConfigurationHandler[Result] | None,
        on_change: OnChange,
        reload_timeout: float,
    ) -> None:
        self._supervision = supervision
        self._facts = supervision.facts
        self._optional = handler
        self._on_change = on_change
        self._reload_timeout = reload_timeout
        self._superseded = 0

    @property
    def _handler(self) -> ConfigurationHandler[Result]:
        assert self._optional is not None  # without one there is nothing to apply
        return self._optional

    def take_over(self) -> None:
        """Take in the state at the beginning, unless another supervisor follows the handler.

        There may be a trial that another supervisor of the same handler has adjourned.
        """
        facts, handler = self._facts, self._optional
        if handler is not None:
            refuse_second_receiver(handler.events, _CONFIGURATION)
            if self._supervision.within is not None:
                facts.trial = Trial() if revertible(handler).on_trial else None
            try:
                self._take(handler.events.receive_nowait())
            except trio.WouldBlock:
                facts.changed = True  # whom it was told to may have ended before it was applied
            except trio.EndOfChannel:
                pass
        facts.looked = not facts.changed  # it has told its state by now, or has nothing new

    async def watch(self) -> None:
        """Take in what the handler tells; from now on nobody else may.

        A second receiver could take a newer event while this one has an older one in its hands.
        """
        async for event in SoleReceiver(self._handler.events, _CONFIGURATION):
            self._take(event)

    def _take(self, event: ConfigurationEvent) -> None:
        match event:
            case ConfigurationChanged():
                self._facts.changed = True
                self._supervision.look(Cause.CONFIGURATION_CHANGED)
            case ConfigurationDeleted():
                self._nothing_to_apply(Cause.CONFIGURATION_DELETED, None)
            case ConfigurationFailed(error=error):
                self._nothing_to_apply(Cause.CONFIGURATION_UNREADABLE, error)

    def _nothing_to_apply(self, cause: Cause, error: Exception | None) -> None:
        self._facts.changed = False
        self._facts.looked = True
        self._supervision.tell(cause, error=error)
        self._supervision.look(cause)

    async def work(self) -> None:
        """Do for ever what has to be done; at the end, adjourn the trial that is on.

        The end comes here when it comes to the process: that may take its grace period, and be
        killed meanwhile, and the trial is adjourned all the same.
        """
        try:
            await self._work()
        finally:
            with trio.move_on_after(self._reload_timeout, shield=True):
                await self._adjourn()

    async def _work(self) -> None:
        while True:
            now = trio.current_time()  # for both: no moment is between the verdict and the wait
            match self._supervision.configuration_duty(now):
                case ConfigurationDuty.ROLL_BACK:
                    await self._roll_back()
                case ConfigurationDuty.CONFIRM:
                    await self._confirm()
                case ConfigurationDuty.STAGE:
                    await self._stage(self._next_verdict(now))
                case ConfigurationDuty.RELOAD:
                    await self._reload_as_asked()
                case ConfigurationDuty.NOTHING:
                    await self._supervision.wait(self._next_verdict(now))

    # --- updates

    async def _stage(self, until: float) -> None:
        facts, supervision = self._facts, self._supervision
        facts.changed = False  # whatever comes from now on may not be in it
        with trio.CancelScope(deadline=until) as supervision.staging:
            async with self._handler.stage() as staged:
                supervision.staging.deadline = math.inf
                supervision.staging = None
                await self._switch(staged)
                return
        supervision.staging = None
        facts.changed = True

    async def _switch(self, staged: StagedUpdate[Result]) -> None:
        facts, supervision = self._facts, self._supervision
        if facts.changed and self._superseded < _PATIENCE:
            self._superseded += 1
            return
        self._superseded = 0
        if supervision.configuration_duty(trio.current_time()) in (
            ConfigurationDuty.ROLL_BACK,
            ConfigurationDuty.CONFIRM,
        ):
            facts.changed = True
            return
        changed = staged.changed
        if staged.error is not None or (not changed and facts.applied and self._tells_changes):
            # The same contents in another wrapping: they are as trusted as they were.
            await self._commit(staged, trial=facts.trial is not None)
            return
        trial = supervision.within is not None
        action = choose(self._on_change, changed)
        can_reload = supervision.journal.state.ready or isinstance(action, Ignore)
        if action == Restart() or supervision.run is None or not can_reload:
            async with supervision.process_down(Cause.CONFIGURATION_CHANGED):
                if await self._commit(staged, trial=trial):
                    self._applied()
            return
        facts.committing = True
        supervision.look(Cause.CONFIGURATION_CHANGED)
        try:
            committed = await self._commit(staged, trial=trial)
        finally:
            facts.committing = False
            supervision.look(Cause.CONFIGURATION_CHANGED)
        if committed:
            self._applied()
            actions = action if isinstance(action, list) else []
            if not await self._reload(actions, Cause.CONFIGURATION_APPLIED) and actions:
                # It ended meanwhile, and its successor may have read either configuration.
                self._replace(Cause.CONFIGURATION_APPLIED)

    @property
    def _tells_changes(self) -> bool:
        """Whether no changed path means no change: a handler with generations compares them."""
        return is_revertible(self._handler)

    async def _commit(self, staged: StagedUpdate[Result], *, trial: bool) -> bool:
        """Put a staged update in place, and take note of how that went."""
        error: Exception | None
        result: Result | None = None
        try:
            result = await staged.commit(trial=trial)
            error = result.error
        except Exception as raised:  # noqa: BLE001 - a function of the user's that applies it
            error = raised
        self._facts.looked = True
        if error is not None:
            self._supervision.tell(Cause.CONFIGURATION_REFUSED, error=error, result=result)
            self._supervision.look(Cause.CONFIGURATION_REFUSED)
            return False
        self._facts.applied = True
        self._supervision.tell(Cause.CONFIGURATION_APPLIED, result=result)
        self._supervision.look(Cause.CONFIGURATION_APPLIED)
        return True

    def _applied(self) -> None:
        """Another configuration is in place: it is a new start."""
        facts, supervision = self._facts, self._supervision
        now = trio.current_time()
        facts.trial = Trial(begun_at=now) if supervision.within is not None else None
        facts.start_at_once(now)
        supervision.history.failures = 0
        supervision.tell(Cause.CONFIGURATION_APPLIED)

    # --- reloads

    async def _reload_as_asked(self) -> None:
        """Do what the operator asked for while this task was busy: `Supervisor.reload`."""
        self._facts.reload = False
        if not await self._reload(reloads(self._on_change), Cause.OPERATOR):
            self._replace(Cause.OPERATOR)

    def _replace(self, cause: Cause) -> None:
        """Let another process take the place of the one that cannot be reloaded."""
        self._facts.stale = self._supervision.run is not None
        self._supervision.look(cause)

    async def _reload(self, actions: Sequence[Reload], cause: Cause) -> bool:
        """Let the process read its configuration again; give whether there is one that can."""
        facts, supervision = self._facts, self._supervision
        run = supervision.run
        if run is None or run.process is None or not run.alive:
            return False
        if actions:
            if not supervision.journal.state.ready:
                return False
            supervision.tell(cause, ProcessState.RELOADING)
        run.pin()
        failure: Exception | None = None
        try:
            with trio.CancelScope() as run.reloading:
                for action in actions:
                    await reload(action, run.process, self._reload_timeout)
        except Exception as error:  # noqa: BLE001 - the user's code
            failure = error
        if not run.alive:
            return True
        if supervision.journal.state.process is ProcessState.RELOADING:
            cause = Cause.READY if failure is None else Cause.RELOAD_FAILED
            supervision.tell(cause, ProcessState.READY, error=failure)
        if facts.trial is not None:
            facts.trial.since = trio.current_time()
            if failure is not None and not facts.trial.hopeless:
                facts.trial.failed = f"the reload failed: {failure}"
        return True

    # --- trials

    def _next_verdict(self, now: float) -> float:
        return next_verdict(self._facts, now, self._supervision.within)

    async def _confirm(self) -> None:
        facts, supervision = self._facts, self._supervision
        try:
            await revertible(self._handler).confirm()
        except OSError as error:
            # It has proved itself: nothing is rolled back. With the next process it is tried anew.
            facts.trial = Trial(hopeless=True, proved=True)
            supervision.tell(Cause.CONFIRM_FAILED, error=error)
            supervision.look(Cause.CONFIRM_FAILED)
            return
        facts.trial = None
        supervision.tell(Cause.CONFIRMED)
        supervision.look(Cause.CONFIRMED)

    async def _adjourn(self) -> None:
        """Let the next start try again what has neither passed its trial nor failed it.

        What has passed is confirmed yet, if that does not take too long.
        """
        trial = self._facts.trial
        if trial is None or trial.failed is not None:
            return
        proved = trial.passed or trial.proved
        if trial.hopeless and not proved:
            return
        try:
            await revertible(self._handler).adjourn()
        except OSError as error:
            self._supervision.tell(Cause.ADJOURN_FAILED, error=error)
        if proved:
            await self._confirm()

    async def _roll_back(self) -> None:
        facts, supervision = self._facts, self._supervision
        trial = facts.trial
        failed = trial.failed if trial is not None else None
        cause = Cause.OPERATOR if failed is None else Cause.ROLLED_BACK
        async with supervision.process_down(cause):
            facts.rollback = False
            reason = failed or "the operator asked for it"
            result = await revertible(self._handler).rollback(reason)
            if result.error is None:
                facts.trial = None
                facts.retry_at = 0.0
                supervision.history.failures = 0
                supervision.tell(Cause.ROLLED_BACK, error=RuntimeError(reason), result=result)
                return
            supervision.tell(Cause.ROLLBACK_FAILED, error=result.error, result=result)
            if trial is not None and failed is not None:
                trial.failed = None
                trial.hopeless = True
                if trial.outcome is not None:
                    supervision.ended(trial.outcome)


def is_revertible(handler: ConfigurationHandler[Result]) -> bool:
    """Whether a handler keeps its former generations."""
    return all(hasattr(handler, name) for name in ("rollback", "confirm", "adjourn"))


def revertible(handler: ConfigurationHandler[Result]) -> RevertibleConfigurationHandler[Result]:
    """Take a handler for one that can roll back.

    Raises:
        TypeError: It cannot.
    """
    if not is_revertible(handler):
        raise TypeError(f"{handler!r} cannot roll back: it keeps no former generations")
    return cast("RevertibleConfigurationHandler[Result]", handler)
