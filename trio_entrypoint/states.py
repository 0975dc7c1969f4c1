"""What a supervisor tells about itself: its state, the transitions, and how it gives up."""

from enum import Enum
from typing import final

import attrs

from trio_entrypoint.handlers import ExitStatus

__all__ = [
    "Cause",
    "ConfigurationState",
    "GaveUp",
    "ProcessState",
    "State",
    "Transition",
]


@final
class ProcessState(Enum):
    """What the supervised process is doing."""

    INACTIVE = "inactive"
    """It does not run, because this entrypoint is not the active one."""
    STOPPED = "stopped"
    """It does not run, because the operator stopped it, or the supervisor is not run (yet)."""
    WAITING = "waiting"
    """It does not run, because there is no configuration yet."""
    STARTING = "starting"
    """It is about to run: hooks, a switch of the configuration, the execution itself."""
    RUNNING = "running"
    """It runs, and is not ready yet."""
    READY = "ready"
    """It runs and is ready."""
    RELOADING = "reloading"
    """It runs and reads its configuration again."""
    UNHEALTHY = "unhealthy"
    """It runs, was ready, and its health probe fails."""
    STOPPING = "stopping"
    """It is being stopped, hooks included; or it ended and left others; or says that it stops."""
    BACKOFF = "backoff"
    """It ended, or could not be started, and is started again in a while."""
    ENDED = "ended"
    """It ended for good, as its restart policy has it."""
    GAVE_UP = "gave up"
    """It failed for good."""


@final
class ConfigurationState(Enum):
    """What is known of the configuration in place."""

    NONE = "none"
    """The process has no configuration handler."""
    WAITING = "waiting"
    """Nothing was applied yet."""
    APPLIED = "applied"
    """A configuration is in place."""
    TRIAL = "trial"
    """A configuration is in place that has yet to prove itself (`confirm_within`)."""


@final
@attrs.frozen
class State:
    """A supervisor's state: is it active, is it configured, what does the process do."""

    activation: bool = False
    """Whether this entrypoint is the active one; True without an activation handler."""

    configuration: ConfigurationState = ConfigurationState.NONE
    """What is in place."""

    process: ProcessState = ProcessState.STOPPED
    """What the process is doing."""

    pid: int | None = None
    """The main process's number while there is one."""

    status_text: str = ""
    """What the process said last about itself (`STATUS=` of sd_notify)."""

    @property
    def active(self) -> bool:
        """The same as `activation`."""
        return self.activation

    @property
    def applied(self) -> bool:
        """Whether the process has the configuration that it needs."""
        return self.configuration is not ConfigurationState.WAITING

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self.pid is not None

    @property
    def ready(self) -> bool:
        """Whether the process runs and is ready."""
        return self.process is ProcessState.READY

    def __str__(self) -> str:
        active = "active" if self.activation else "inactive"
        return f"{active}, configuration {self.configuration.value}, process {self.process.value}"


@final
class Cause(Enum):
    """Why a state changed."""

    SUPERVISED = "the supervisor began"
    SHUTDOWN = "the supervisor was cancelled"
    ACTIVATED = "activated"
    DEACTIVATED = "deactivated"
    REACTIVATED = "activated anew"
    OPERATOR = "the operator asked for it"
    CONFIGURATION_CHANGED = "a new configuration came"
    CONFIGURATION_APPLIED = "a configuration was applied"
    CONFIGURATION_REFUSED = "a configuration was refused"
    CONFIGURATION_DELETED = "the configuration's source does not exist"
    CONFIGURATION_UNREADABLE = "the configuration's source cannot be read"
    CONFIRMED = "the new configuration proved itself"
    CONFIRM_FAILED = "the new configuration proved itself, which cannot be noted"
    ROLLED_BACK = "the new configuration failed and was rolled back"
    ROLLBACK_FAILED = "nothing could be rolled back to"
    ADJOURN_FAILED = "the trial could not be adjourned, its configuration will be refused"
    EXECUTED = "the process was executed"
    NOT_EXECUTED = "the process could not be executed"
    READY = "the process is ready"
    NOT_READY = "the process was not ready in time"
    RELOADING = "the process reads its configuration again"
    RELOAD_FAILED = "the reload failed"
    UNHEALTHY = "the process is unhealthy"
    HEALTHY = "the process is healthy again"
    PROCESS_STOPPING = "the process said that it stops"
    STATUS_TEXT = "the process told its status"
    HOOK_FAILED = "a hook failed"
    ENDED = "the process ended"
    STOPPED = "the process was stopped"
    RETRIED = "the wait before the next start is over"
    LIMIT = "too many restarts"


@final
@attrs.frozen(kw_only=True)
class Transition:
    """One change of a supervisor's state, or something that happened within a state.

    Example::

        async for transition in supervisor.events:
            match transition:
                case Transition(cause=Cause.ENDED, status=status): ...
                case Transition(cause=Cause.ROLLED_BACK, error=error): ...
    """

    time: float
    """When, in seconds of `trio.current_time()`, a monotonic clock."""

    name: str
    """The name of the supervised service."""

    before: State
    """The state until then."""

    after: State
    """The state from then on."""

    cause: Cause
    """Why."""

    seconds: float
    """How long the process had been in `before.process`."""

    status: ExitStatus | None = None
    """How the process ended, if it did."""

    error: BaseException | None = None
    """What went wrong, if something did."""

    result: object = None
    """The result of the update or rollback, if there was one."""

    def __str__(self) -> str:
        detail = self.error or self.status
        return f"{self.name}: {self.after} ({self.cause.value}{f': {detail}' if detail else ''})"


@final
class GaveUp(Exception):  # noqa: N818 - it says what happened
    """The supervisor gave up: the process failed for good, and its policy allows no restart.

    An entrypoint should end then, with `exit_status`, so that its platform sees it.
    """

    def __init__(self, name: str, problem: str, status: ExitStatus | None = None) -> None:
        super().__init__(f"{name}: {problem}" + (f" (last: {status})" if status else ""))
        self.status = status
        """How the last process ended; None if it never could be started."""

    @property
    def exit_status(self) -> ExitStatus:
        """What the entrypoint should end with: the last status, or 1 if that was a success."""
        if self.status is None or self.status.success:
            return ExitStatus(code=1)
        return self.status
