"""One run of a supervised process: its hooks, its end, its cancel scope."""

import math
from contextlib import ExitStack
from typing import final

import trio

from trio_entrypoint._supervisor.attend import Attendant, Service, Tell, call
from trio_entrypoint._supervisor.decisions import Outcome
from trio_entrypoint.commands import Command
from trio_entrypoint.handlers import (
    FENCING_TOKEN_VARIABLE,
    ConfigurationHandler,
    ProcessHandler,
    Result,
)
from trio_entrypoint.policies import Hook
from trio_entrypoint.states import Cause, ProcessState

__all__ = ["ProcessRun"]

_TOLD_AFTER = 0.05
"""Seconds after the end of a process when it is told that others, which it left, still live."""


@final
class ProcessRun:
    """One run of the process, from its first hook to its last.

    Whoever wants it to end calls `stop`; the task that is in `live` tears it down.
    """

    def __init__(
        self,
        service: Service,
        initial: list[Hook],
        configuration: ConfigurationHandler[Result] | None,
        token: str | None,
        tell: Tell,
    ) -> None:
        self.token = token
        """The fencing token that the process gets."""
        self.process: ProcessHandler | None = None
        """The process, once it has been executed."""
        self.stopped_by: Cause | None = None
        """Why it is being stopped from outside."""
        self.ended_at = math.inf
        """When it ended, or began to be stopped, in seconds of the clock."""
        self.reloading = trio.CancelScope()
        """The reload that is going on; it is over with the process."""
        self._service = service
        self._initial = initial
        self._configuration = configuration
        self._env = {} if token is None else {FENCING_TOKEN_VARIABLE: token}
        self._tell = tell
        self._scope = trio.CancelScope()
        self._pins = ExitStack()
        self._reload_pins: list[ExitStack] = []
        self._gone_by = math.inf
        self._stopping = trio.CancelScope()
        self._asked = False
        self._failure: tuple[Cause, Exception] | None = None
        self._attendant = Attendant(service, tell, self._fail, self._env)

    @property
    def alive(self) -> bool:
        """Whether there is a process, and nobody is stopping it."""
        return self.process is not None and self.process.status is None and self.stopped_by is None

    def stop(self, cause: Cause) -> None:
        """Let it end. The first cause is the one that counts."""
        if self.stopped_by is None:
            self.stopped_by = cause
            self._scope.cancel()

    def be_gone_by(self, time: float) -> None:
        """Let it be killed if it still exists at that time of the clock, in seconds."""
        self._gone_by = min(self._gone_by, time)
        self._stopping.deadline = min(self._stopping.deadline, self._gone_by)

    def pin(self) -> None:
        """Hold the generation in place for a process that reads it now.

        The one that it was started with is held until its end: its environment names it. Of
        those that it was reloaded with, the last two: a reload may still be reading the former.
        """
        if self._configuration is None:
            return
        pin = self._pins.enter_context(ExitStack())
        env = pin.enter_context(self._configuration.pin())
        if self.process is None:
            self._env.update(env)
            return
        self._reload_pins.append(pin)
        if len(self._reload_pins) > 2:
            self._reload_pins.pop(0).close()

    def _fail(self, cause: Cause, error: Exception) -> None:
        if self._failure is None and self.stopped_by is None:
            self._failure = (cause, error)
            self._scope.cancel()

    async def live(self) -> Outcome | None:
        """Run the process to its end, and give its outcome; None if it was stopped.

        Cancellation stops it as `stop` does.
        """
        hooks = self._service.hooks
        with self._pins:
            try:
                with self._scope:
                    self.pin()
                    await self._live()
            finally:
                self.reloading.cancel()
                self.ended_at = min(self.ended_at, trio.current_time())
                if hooks.after_stop and self.process is not None:
                    ended = Cause.SHUTDOWN if self._asked else Cause.ENDED
                    cause = self.stopped_by or self._failed_by or ended
                    self._tell(cause, ProcessState.STOPPING)
                with trio.move_on_after(self._seconds_for(hooks.after_stop), shield=True):
                    await self._call_on_the_way_down(hooks.after_stop)
        status = self.process.status if self.process is not None else None
        ready_for = max(0.0, self.ended_at - self._attendant.ready_at)
        by_itself = status is not None and not self._asked
        if self._failure is None and self.stopped_by is not None and not by_itself:
            return None
        cause, error = self._failure or (Cause.ENDED, None)
        return Outcome(
            cause=cause, status=status, error=error, ready_for=ready_for, ended_at=self.ended_at
        )

    async def _live(self) -> None:
        hooks = self._service.hooks
        try:
            while self._initial:
                await call(self._initial[0], hooks.timeout, self._env)
                self._initial.pop(0)
            for hook in hooks.before_start:
                await call(hook, hooks.timeout, self._env)
        except Exception as error:  # noqa: BLE001 - the user's code
            self._fail(Cause.HOOK_FAILED, error)
            return
        with ExitStack() as stack:
            attendant = self._attendant
            try:
                attendant.open(stack)
                async with self._service.open_process(
                    extra_env={**self._env, **attendant.env}, extra_fds=attendant.fds
                ) as process:
                    self.process = process
                    self._tell(Cause.EXECUTED, ProcessState.RUNNING)
                    try:
                        await attendant.attend(process)
                    finally:
                        self.ended_at = trio.current_time()
                        with trio.CancelScope(
                            shield=True, deadline=self._gone_by
                        ) as self._stopping:
                            await self._end(process)
                        if self._stopping.cancelled_caught:
                            process.kill()
            except (OSError, ValueError) as error:  # a setting, a file, no descriptor left
                if self.process is not None:
                    raise
                self._fail(Cause.NOT_EXECUTED, error)

    async def _end(self, process: ProcessHandler) -> None:
        """Stop the process, or what it left when it ended by itself: mostly nothing."""
        cause = self.stopped_by or self._failed_by
        if process.status is None:
            self._tell(cause or Cause.SHUTDOWN, ProcessState.STOPPING)
            self._asked = True
            await self._call_on_the_way_down(self._service.hooks.before_stop)
        else:
            with trio.move_on_after(_TOLD_AFTER) as scope:
                await process.stop()
            if not scope.cancelled_caught:
                return
            self._tell(cause or Cause.ENDED, ProcessState.STOPPING)
        await process.stop()

    @property
    def _failed_by(self) -> Cause | None:
        return self._failure[0] if self._failure is not None else None

    def _seconds_for(self, hooks: tuple[Hook, ...]) -> float:
        """The time that hooks may take together."""
        timeout = self._service.hooks.timeout
        return sum(hook.timeout + 1 if isinstance(hook, Command) else timeout for hook in hooks)

    async def _call_on_the_way_down(self, hooks: tuple[Hook, ...]) -> None:
        """Call hooks whose failure holds nothing up."""
        for hook in hooks:
            try:
                await call(hook, self._service.hooks.timeout, self._env)
            except Exception as error:  # noqa: BLE001 - the user's code
                self._tell(Cause.HOOK_FAILED, error=error)
