"""The three kinds of handler, as protocols, and every event that they tell: read this first.

An entrypoint is a loop over events. Three kinds of handler produce them, and each kind is a
`typing.Protocol`, so that the logic of an entrypoint is written once and runs over real
processes, over leases in a cluster, or over the fakes in `trio_entrypoint.testing`.

Rules that all handlers keep:

* A handler is an async context manager (`async with open_…() as handler`). Its tasks live
  exactly as long as the block; there is no `close()`.
* `handler.events` is a `trio.MemoryReceiveChannel`; it ends (`trio.EndOfChannel`) when the
  handler does, after the last event.
* State-like events (activation, 'the configuration changed') are conflated: the newest one
  waits for a slow consumer, older ones do not. The first one is the state at opening time.
  One task receives them: of two, one may have an old one in its hands when the other has taken
  a newer one. Whoever else needs the state looks at the handler's attributes.
* Events that each count (a process started, a process ended, the result of an update) are
  never dropped and never merged.
* What may mend itself (a broken archive, a source that was deleted) is an event or a result
  with an `error`. What is broken for good raises out of the handler's block.
"""

import signal as signals
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeAlias, TypeVar, final

import attrs
import trio

__all__ = [
    "FENCING_TOKEN_VARIABLE",
    "GENERATION_VARIABLE",
    "ActivationChanged",
    "ActivationHandler",
    "ConfigurationChanged",
    "ConfigurationDeleted",
    "ConfigurationEvent",
    "ConfigurationFailed",
    "ConfigurationHandler",
    "ExitStatus",
    "Generation",
    "Modification",
    "OpenProcess",
    "ProcessEnded",
    "ProcessEvent",
    "ProcessHandler",
    "ProcessStarted",
    "Result",
    "RevertibleConfigurationHandler",
    "StagedUpdate",
    "UpdateResult",
]

GENERATION_VARIABLE = "TRIO_ENTRYPOINT_GENERATION"
"""Environment variable that tells a process the path of the generation it was started with."""

FENCING_TOKEN_VARIABLE = "TRIO_ENTRYPOINT_FENCING_TOKEN"  # noqa: S105 - not a secret
"""Environment variable that tells a process the fencing token of its activation."""


# --- process ------------------------------------------------------------------------------


@final
@attrs.frozen
class ExitStatus:
    """How a process ended: with an exit code, or by a signal.

    Exactly one of `code` and `signal` is set, so that both can be matched:

    Example::

        match await process.wait():
            case ExitStatus(code=0): ...
            case ExitStatus(signal=signal.SIGKILL): ...
    """

    code: int | None = None
    """The code given to `exit()`, 0 to 255, or None when a signal ended the process."""

    signal: int | None = None
    """The number of the signal that ended the process, or None when it exited."""

    def __attrs_post_init__(self) -> None:
        if (self.code is None) == (self.signal is None):
            raise ValueError(
                f"an exit status is either a code or a signal, not {self.code=}, {self.signal=}"
            )

    @property
    def success(self) -> bool:
        """Whether the process exited with code 0."""
        return self.code == 0

    @property
    def shell_code(self) -> int:
        """The status that a POSIX shell gives in `$?`: the code, or 128 plus the signal."""
        return self.code if self.code is not None else 128 + (self.signal or 0)

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit code {self.code}"
        try:
            return f"signal {self.signal} ({signals.Signals(self.signal).name})"
        except ValueError:  # real-time signals have no names of their own
            return f"signal {self.signal}"


@final
@attrs.frozen
class ProcessStarted:
    """The process runs: its program was executed successfully."""

    pid: int


@final
@attrs.frozen
class ProcessEnded:
    """The process ended, by itself or because it was asked to."""

    status: ExitStatus


ProcessEvent: TypeAlias = ProcessStarted | ProcessEnded
"""What a process handler tells: `ProcessStarted`, then `ProcessEnded`."""


class ProcessHandler(Protocol):
    """One run of one process: entering the block starts it, leaving makes sure it is gone."""

    @property
    def events(self) -> "trio.MemoryReceiveChannel[ProcessEvent]":
        """`ProcessStarted`, then `ProcessEnded`; neither is ever dropped."""
        ...

    @property
    def pid(self) -> int:
        """The main process's number. It may belong to another process after the end."""
        ...

    @property
    def status(self) -> ExitStatus | None:
        """How the process ended; None while it runs."""
        ...

    async def wait(self) -> ExitStatus:
        """Wait until the main process has ended. Any number of tasks may wait.

        Cancellation ends the wait and leaves the process as it is.
        """
        ...

    async def stop(self) -> ExitStatus:
        """Stop the process politely, then by force, and return its status.

        The stop signal is sent once, however often and by however many tasks this is called;
        what is left after the grace period is killed. When this returns, nothing that the
        process had started is alive. Cancellation ends the wait, not the stopping.
        """
        ...

    def kill(self) -> None:
        """Send SIGKILL to everything that this run started; the block's end waits for it."""
        ...

    def signal(self, signal: int) -> None:
        """Send a signal to the main process.

        Raises:
            ProcessLookupError: The process has ended. No other process ever gets the signal.
        """
        ...


class OpenProcess(Protocol):
    """What opens one run of a process: `functools.partial(open_process, [...])`, or a fake's."""

    def __call__(
        self, *, extra_env: Mapping[str, str] = ..., extra_fds: Mapping[int, int] = ...
    ) -> AbstractAsyncContextManager[ProcessHandler]:
        """Start the process with what its supervisor adds to it.

        Args:
            extra_env: Variables added to the process's environment.
            extra_fds: Descriptors added: the number in the process, to the number here.
        """
        ...


# --- configuration ------------------------------------------------------------------------


@final
@attrs.frozen
class ConfigurationChanged:
    """The source has contents that were not applied: `update()` applies the newest."""


@final
@attrs.frozen
class ConfigurationDeleted:
    """The source does not exist (any more); what was applied stays applied."""


@final
@attrs.frozen
class ConfigurationFailed:
    """The source exists but cannot be observed or read; this may mend itself."""

    error: Exception


ConfigurationEvent: TypeAlias = ConfigurationChanged | ConfigurationDeleted | ConfigurationFailed
"""What a configuration handler tells of its source: `ConfigurationChanged`,
`ConfigurationDeleted` or `ConfigurationFailed`."""


@final
class Modification(Enum):
    """What an update did to one path."""

    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"


@final
@attrs.frozen
class Generation:
    """One complete, sealed configuration as it was applied. It never changes afterwards."""

    number: int
    """Counts up from 1 with each configuration applied to this target, rollbacks excepted."""

    digest: str
    """The SHA-256 of the source that it was made from, in hexadecimal."""

    path: Path
    """Where it is, for readers that must not follow the target to a newer one."""


class Result(Protocol):
    """What any update tells: whether it was applied, whole, or why nothing of it was."""

    @property
    def error(self) -> Exception | None:
        """None when all of the new configuration is in place, else why nothing of it is."""
        ...


def _read_only(changed: Mapping[str, Modification]) -> Mapping[str, Modification]:
    return MappingProxyType(dict(changed))


@final
@attrs.frozen(kw_only=True)
class UpdateResult:
    """The outcome of one update of a target. Either all of it is in place, or nothing is."""

    error: Exception | None = None
    """None when the configuration is in place, else why nothing of it is."""

    changed: Mapping[str, Modification] = attrs.field(
        factory=dict[str, Modification], converter=_read_only, hash=False
    )
    """What changed, by path relative to the target (`os.fsdecode` of its bytes)."""

    generation: Generation | None = None
    """The generation in place after the update; None when there is none."""

    size: int = 0
    """Bytes of file contents in that generation."""

    seconds: float = 0.0
    """How long the update took."""

    durability_error: Exception | None = None
    """Set when the update is visible but it is unknown whether it would survive a power loss."""


ResultT = TypeVar("ResultT", bound=Result)
ResultT_co = TypeVar("ResultT_co", bound=Result, covariant=True)


class StagedUpdate(Protocol[ResultT_co]):
    """An update that is complete and validated, but not in place yet."""

    @property
    def error(self) -> Exception | None:
        """Why it cannot be put in place; None when it can."""
        ...

    @property
    def changed(self) -> Mapping[str, Modification]:
        """What putting it in place would change, by relative path; empty for none, or unknown."""
        ...

    async def commit(self, *, trial: bool = False) -> ResultT_co:
        """Put it in place, in one step, and publish the result.

        A staged update with an `error` changes nothing, and the result carries that error.
        Cancellation is possible only before the step: whoever sees `trio.Cancelled` knows
        that nothing was changed.

        Args:
            trial: The new generation is not trusted until `confirm()`. An entrypoint that
                is killed before that goes back to the last trusted one at its next start,
                and refuses this one, unless the trial was adjourned.
        """
        ...


class ConfigurationHandler(Protocol[ResultT_co]):
    """Watches a source, tells when it changed, and applies it on demand, atomically."""

    @property
    def events(self) -> "trio.MemoryReceiveChannel[ConfigurationEvent]":
        """The newest state of the source; the first is its state at opening time."""
        ...

    @property
    def results(self) -> "trio.MemoryReceiveChannel[ResultT_co]":
        """Every result since this was first asked for, in order, for observers."""
        ...

    @property
    def applied(self) -> bool:
        """Whether a configuration is in place, from this run or from an earlier one."""
        ...

    def stage(self) -> "AbstractAsyncContextManager[StagedUpdate[ResultT_co]]":
        """Prepare the newest source next to the target, validated, not yet in place.

        Leaving the block without `commit()` removes what was prepared. Neither a broken
        source nor a validator's refusal raises: it is `StagedUpdate.error`.
        """
        ...

    async def update(self) -> ResultT_co:
        """Apply the newest source: `stage()` and `commit()` in one.

        The result also goes to `results`. Cancellation waits for the current step and then
        leaves the old configuration in place.
        """
        ...

    def pin(self) -> AbstractContextManager[Mapping[str, str]]:
        """Hold the generation in place for a process, and give the environment that names it.

        Within the block that generation is not collected, whatever is applied meanwhile.
        """
        ...


class RevertibleConfigurationHandler(ConfigurationHandler[ResultT_co], Protocol[ResultT_co]):
    """A configuration handler that keeps its former generations."""

    @property
    def on_trial(self) -> bool:
        """Whether the generation in place was committed as a trial, and not confirmed yet."""
        ...

    async def confirm(self) -> None:
        """Trust the generation in place; what it replaced may be collected.

        Raises:
            OSError: It cannot be noted: nothing has changed.
        """
        ...

    async def adjourn(self) -> None:
        """End without a verdict on the generation that is on trial, if one is.

        It stays in place and is not trusted: the next start goes back to the last trusted one,
        and tries this source again. It is to be called as soon as the end is near: whatever
        kills the entrypoint afterwards is no verdict either. `confirm()` and `rollback()` still
        can be called. Cancellation is possible only before it.
        """
        ...

    async def rollback(self, reason: str = "rolled back on request") -> ResultT_co:
        """Put the last trusted generation before the present one in place, in one step.

        The source that is rolled back from is remembered by its digest and refused, for
        `reason`, until another one was applied and trusted.
        """
        ...


# --- activation ---------------------------------------------------------------------------


@final
@attrs.frozen
class ActivationChanged:
    """This entrypoint became the active one, or a backup."""

    active: bool

    token: str | None = None
    """A fencing token: it grows with each activation, whoever gets it. None without a lease."""

    deadline: float | None = None
    """With `active=False` from a lease: the time of `trio.current_time()` by which the
    application has to be gone, killed if need be, because another may become active then. It
    may have passed. None: there is no such time."""


class ActivationHandler(Protocol):
    """Tells whether this entrypoint is the active one."""

    @property
    def events(self) -> "trio.MemoryReceiveChannel[ActivationChanged]":
        """The newest state; the first is the state at opening time."""
        ...

    @property
    def active(self) -> bool:
        """Whether this entrypoint is active now."""
        ...

    @property
    def token(self) -> str | None:
        """The fencing token of the activation now; None while inactive, or without a lease."""
        ...
