"""What a supervisor does when something happens, as small frozen values.

* A process ended by itself: a restart policy (`Always`, `OnFailure`, `Never`) with its
  `Backoff` and `Limit`.
* A new configuration came: a change action (`Restart`, `Reload`, `Ignore`), or a mapping from
  globs to them.
* A process is not ready in time, or becomes unhealthy: `Readiness`, `Health`.
* Around a process's life: `Hooks`.

They hold no state, so that one value serves any number of services; what is wrong with a value
is said when it is made.
"""

import signal as signals
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias, final, get_args

import attrs
from attrs.validators import and_, deep_iterable, ge, gt, instance_of, le, optional

from trio_entrypoint.commands import Command
from trio_entrypoint.handlers import ExitStatus
from trio_entrypoint.probes import DescriptorProbe, NotifyProbe, Probe

__all__ = [
    "Always",
    "Backoff",
    "ChangeAction",
    "Health",
    "Hook",
    "Hooks",
    "Ignore",
    "Limit",
    "Never",
    "OnChange",
    "OnFailure",
    "Readiness",
    "Reload",
    "Restart",
    "RestartPolicy",
]

Function: TypeAlias = Callable[[], Awaitable[object]]
"""An async function of the user's."""


# --- restarts -----------------------------------------------------------------------------


@final
@attrs.frozen(kw_only=True)
class Backoff:
    """How long to wait before a process that keeps ending is started again.

    The first restart is immediate. If that run ends too, before it was ready for `reset_after`
    seconds, the next one waits `initial` seconds, then `factor` times as long each time.

    Example::

        Always(backoff=Backoff(initial=1.0, maximum=300.0))  # 0, 1, 2, 4, … 300 seconds
    """

    initial: float = attrs.field(default=0.1, validator=ge(0))
    """Seconds before the second restart in a row."""

    factor: float = attrs.field(default=2.0, validator=ge(1))
    """What each further delay is multiplied by."""

    maximum: float = attrs.field(default=30.0, validator=ge(0))
    """Seconds that no delay exceeds."""

    jitter: float = attrs.field(default=0.1, validator=and_(ge(0), le(1)))
    """The part of a delay, 0 to 1, by which it is shortened at random: services that fell
    together do not come back together."""

    reset_after: float = attrs.field(default=10.0, validator=ge(0))
    """Seconds of readiness after which the next failure is the first one again."""

    def delay(self, failures: int, random: float) -> float:
        """Give the seconds to wait after this many failures in a row.

        Args:
            failures: 1 for the first failure, which is answered at once.
            random: A number from 0 to 1 that decides how much of the jitter is used.
        """
        if failures <= 1 or self.initial == 0:
            return 0.0
        try:
            delay = min(self.initial * self.factor ** (failures - 2), self.maximum)
        except OverflowError:
            delay = self.maximum
        return delay * (1 - self.jitter * random)


@final
@attrs.frozen
class Limit:
    """How many restarts are too many: then the supervisor gives up.

    A container should end with its application, so that its platform sees it.

    Example::

        Always(limit=Limit(5, within=60.0))  # the sixth within a minute is not made
    """

    count: int = attrs.field(validator=ge(0))
    """Restarts that are allowed within that time."""

    within: float = attrs.field(validator=gt(0))
    """Seconds."""


@final
@attrs.frozen(kw_only=True)
class Always:
    """Start the process again however it ended."""

    backoff: Backoff = attrs.field(default=Backoff(), validator=instance_of(Backoff))
    """How long to wait before."""

    limit: Limit | None = attrs.field(default=None, validator=optional(instance_of(Limit)))
    """When to give up; None for never."""


def _codes(values: Iterable[int]) -> frozenset[int]:
    return frozenset(values)


@final
@attrs.frozen(kw_only=True)
class OnFailure:
    """Start the process again unless it ended with success.

    Ended by a signal, not ready in time, unhealthy, or not startable are failures too.
    """

    success_codes: frozenset[int] = attrs.field(
        default=frozenset({0}), converter=_codes, validator=deep_iterable(and_(ge(0), le(255)))
    )
    """Exit codes that are a success."""

    backoff: Backoff = attrs.field(default=Backoff(), validator=instance_of(Backoff))
    """How long to wait before."""

    limit: Limit | None = attrs.field(default=None, validator=optional(instance_of(Limit)))
    """When to give up; None for never."""


@final
@attrs.frozen
class Never:
    """Run the process once: when it ended, whether well or not, the supervisor has too.

    Deactivation and new configurations stop it and start it again all the same.
    """


RestartPolicy: TypeAlias = Always | OnFailure | Never
"""What happens when a process ends by itself: `Always`, `OnFailure` or `Never`."""


# --- changes ------------------------------------------------------------------------------


def command_or_function(value: "Command | Function | Iterable[str]") -> Command | Function:
    """Take the words of a command for a command."""
    return value if isinstance(value, Command) or callable(value) else Command(value)


@final
@attrs.frozen
class Restart:
    """Stop the process, switch, start it on the new configuration."""


def _how(value: "int | Command | Function | Iterable[str]") -> int | Command | Function:
    if not isinstance(value, int):
        return command_or_function(value)
    if value not in signals.valid_signals():
        raise ValueError(f"{value} is not the number of a signal")
    return value


@final
@attrs.frozen
class Reload:
    """Switch under the running process, then ask it to read its configuration again.

    Such a process has to read it through the target: the path in its environment
    (`GENERATION_VARIABLE`) stays that of the generation it was started with.

    Example::

        Reload(signal.SIGHUP)
        Reload(["nginx", "-s", "reload"])
        Reload(reload_over_admin_api)
    """

    how: int | Command | Function = attrs.field(converter=_how)
    """A signal to the main process, a command, or an async function."""


@final
@attrs.frozen
class Ignore:
    """Only switch: the process watches its configuration itself, or reads it each time."""


ChangeAction: TypeAlias = Restart | Reload | Ignore
"""What a new configuration does to the process that runs: `Restart`, `Reload` or `Ignore`."""

OnChange: TypeAlias = ChangeAction | Mapping[str, ChangeAction]
"""One action, or actions by changed path: a mapping from globs, relative to the target.

For each path that changed, the first glob that matches it counts (`*` matches `/` too); a
path that none matches restarts. Of several actions the strongest is taken: restart, then
reload, then ignore. A custom configuration does not know beforehand what its function will change:
by path it always restarts.
"""


# --- readiness and health -----------------------------------------------------------------


_is_probe = instance_of(get_args(Probe))


@final
@attrs.frozen
class Readiness:
    """When a process counts as ready. It is asked until then, and not afterwards.

    Example::

        Readiness(HttpProbe("http://127.0.0.1:8080/ready"), timeout=30.0)
    """

    probe: Probe = attrs.field(validator=_is_probe)
    """What tells."""

    timeout: float = attrs.field(default=60.0, validator=gt(0), kw_only=True)
    """Seconds from the start; a process that is not ready by then has failed."""

    period: float = attrs.field(default=0.1, validator=gt(0), kw_only=True)
    """Seconds between the end of one question and the next."""

    probe_timeout: float = attrs.field(default=1.0, validator=gt(0), kw_only=True)
    """Seconds that one answer may take."""

    successes: int = attrs.field(default=1, validator=ge(1), kw_only=True)
    """Good answers in a row that make it ready."""


def _can_tell_health(_health: object, _attribute: object, value: Probe) -> None:
    if isinstance(value, DescriptorProbe):
        raise ValueError("a DescriptorProbe tells readiness only, not health")


@final
@attrs.frozen
class Health:
    """When a process that was ready counts as unhealthy, and what it gets then.

    With `NotifyProbe` this is a watchdog: the process has to send `WATCHDOG=1` at least every
    `period` times `failures` seconds, which `$WATCHDOG_USEC` tells it.

    Example::

        Health(TcpProbe(5432), period=5.0, on_failure=Restart())
    """

    probe: Probe = attrs.field(validator=[_is_probe, _can_tell_health])
    """What tells; a `DescriptorProbe` cannot, it speaks only once."""

    period: float = attrs.field(default=10.0, validator=gt(0), kw_only=True)
    """Seconds between the end of one question and the next."""

    probe_timeout: float = attrs.field(default=1.0, validator=gt(0), kw_only=True)
    """Seconds that one answer may take."""

    failures: int = attrs.field(default=3, validator=ge(1), kw_only=True)
    """Bad answers in a row that make it unhealthy."""

    successes: int = attrs.field(default=1, validator=ge(1), kw_only=True)
    """Good answers in a row that make it healthy again."""

    on_failure: ChangeAction = attrs.field(
        default=Restart(), validator=instance_of(get_args(ChangeAction)), kw_only=True
    )
    """What an unhealthy process gets, once: a restart, which counts as a failure; a signal, a
    command or a function (`Reload`); or nothing but the report (`Ignore`)."""

    @property
    def watchdog(self) -> float | None:
        """Seconds without `WATCHDOG=1` that make it unhealthy; None for an asked probe."""
        return self.period * self.failures if isinstance(self.probe, NotifyProbe) else None


# --- hooks --------------------------------------------------------------------------------

Hook: TypeAlias = Command | Function
"""A command (a sequence of words becomes one) or an async function without parameters."""


def _hooks(values: "Iterable[Hook | Iterable[str]]") -> tuple[Hook, ...]:
    return tuple(command_or_function(value) for value in values)


@final
@attrs.frozen(kw_only=True)
class Hooks:
    """What is done around each run of the process, one after the other.

    As under systemd (ExecStartPre= and its kin), a failure before the process is ready, or of
    what is done when it is, fails the run; a failure on the way down is reported and does not
    hold the way down up.

    Example::

        Hooks(initial=[["createdb"]], before_start=[migrate], after_stop=[["umount", "/data"]])
    """

    initial: tuple[Hook, ...] = attrs.field(default=(), converter=_hooks)
    """Before the first start; each of them is done with once it has succeeded."""

    before_start: tuple[Hook, ...] = attrs.field(default=(), converter=_hooks)
    """Before each start."""

    after_ready: tuple[Hook, ...] = attrs.field(default=(), converter=_hooks)
    """Each time the process has become ready."""

    before_stop: tuple[Hook, ...] = attrs.field(default=(), converter=_hooks)
    """Before the stop signal; not when the process ended by itself."""

    after_stop: tuple[Hook, ...] = attrs.field(default=(), converter=_hooks)
    """After each run, however it ended; after one that could not be started, too."""

    timeout: float = attrs.field(default=30.0, validator=gt(0))
    """Seconds that a function may take; a command has its own."""


def is_success(policy: RestartPolicy, status: ExitStatus) -> bool:
    """Whether the policy takes this end of a process for a success."""
    codes = policy.success_codes if isinstance(policy, OnFailure) else {0}
    return status.code in codes
