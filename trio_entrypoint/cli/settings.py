"""The configuration file: every section and key, with its meaning, default and rule.

These are plain values. Where a section is a value of the library (`Backoff`, `Limit`,
`Command`, `Environment`, `LogFile`), it is that class itself; where it only spells one in TOML,
its defaults and rules are taken from that class, so that file and library cannot disagree: it
is made when the section is checked. `building.py` opens what a service needs. The docstrings
below the keys are shown in the JSON Schema and in the manual.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs.validators import and_, ge, gt, le, optional

from trio_entrypoint._linux.head_start import HeadStart
from trio_entrypoint.cli.logs import LogFormat, LogLevel
from trio_entrypoint.cli.mistakes import did_you_mean
from trio_entrypoint.cli.values import (
    Action,
    Words,
    action,
    are_actions,
    are_signals,
    is_command,
    is_error_output,
    is_input,
    is_mode,
    is_output,
    is_signal,
    mode_bits,
    signal_number,
)
from trio_entrypoint.environment import Environment
from trio_entrypoint.handlers import OpenProcess, ProcessHandler
from trio_entrypoint.output import Input, LogFile, LogLines, Output
from trio_entrypoint.policies import OnChange
from trio_entrypoint.process import open_process, open_started

if TYPE_CHECKING:
    from trio_entrypoint.cli.sections import (
        ControlSettings,
        HealthSettings,
        HookSettings,
        HttpSettings,
        ReadinessSettings,
        RestartSettings,
    )
    from trio_entrypoint.cli.sources import ActivationSettings, ConfigurationSettings

__all__ = ["LogSettings", "ServiceSettings", "Settings"]

# Each class costs start-up time, so a section's class is made when the file has the section:
# `hints.type_hints` finds it here.
LAZY = {
    "ActivationSettings": "trio_entrypoint.cli.sources",
    "ConfigurationSettings": "trio_entrypoint.cli.sources",
    "ControlSettings": "trio_entrypoint.cli.sections",
    "HttpSettings": "trio_entrypoint.cli.sections",
    "HealthSettings": "trio_entrypoint.cli.sections",
    "HookSettings": "trio_entrypoint.cli.sections",
    "ReadinessSettings": "trio_entrypoint.cli.sections",
    "RestartSettings": "trio_entrypoint.cli.sections",
}

_ENVIRONMENT = Environment()

LimitValue = int | Literal["unlimited"]


@attrs.frozen(kw_only=True)
class ServiceSettings:
    """One application and everything about it."""

    command: Words = attrs.field(validator=is_command)
    """The program and its arguments; no shell is involved."""

    after: tuple[str, ...] = ()
    """Services that are started before this one, and are ready by then: the first time, and not
    again when one of them is restarted, or activated anew."""

    stop_signal: str | int = attrs.field(default="SIGTERM", validator=is_signal)
    """The signal that asks it to end."""

    grace_period: float = attrs.field(default=10.0, validator=ge(0))
    """Seconds from the stop signal until what is left is killed."""

    stop_scope: Literal["main", "group"] = "main"
    """Who gets the stop signal first: the main process, or its whole group."""

    env: Environment = _ENVIRONMENT
    """Its environment."""

    cwd: str | None = None
    """The working directory; a relative command counts from it."""

    stdin: str = attrs.field(default="null", validator=is_input)
    """"null", "inherit", or the path of a file to read."""

    stdout: str | LogFile | LogLines = attrs.field(default="inherit", validator=is_output)
    """"inherit", "null", "lines" (in the entrypoint's log), or a file with rotation."""

    stderr: str | LogFile | LogLines = attrs.field(default="inherit", validator=is_error_output)
    """Like `stdout`, or "stdout"."""

    terminal: bool = False
    """Hand it the terminal of `docker run -it`."""

    user: str | int | None = None
    """The user it runs as, by name or number; HOME, USER and LOGNAME follow."""

    group: str | int | None = None
    """Its group; by default the user's."""

    extra_groups: tuple[str | int, ...] | None = None
    """Its supplementary groups; by default those that the user is in."""

    umask: str | None = attrs.field(default=None, validator=optional(is_mode))
    """The mode bits that new files do not get, in octal such as "027"."""

    limits: Mapping[str, LimitValue | tuple[LimitValue, ...]] = attrs.field(
        factory=dict[str, LimitValue | tuple[LimitValue, ...]]
    )
    """Resource limits by the names of setrlimit(2), such as `nofile = 65536`; a number,
    "unlimited", or an array of the soft and the hard limit."""

    nice: int | None = attrs.field(default=None, validator=optional(and_(ge(-20), le(19))))
    """Niceness, -20 to 19."""

    oom_score_adj: int | None = attrs.field(
        default=None, validator=optional(and_(ge(-1000), le(1000)))
    )
    """-1000 (never killed when memory runs out) to 1000 (killed first)."""

    no_new_privileges: bool = False
    """Set-user-ID programs and file capabilities have no effect."""

    cgroup: bool = False
    """Whether it runs in a cgroup of its own, where there can be one: then nothing that it
    starts can be taken for another's, or get away. Its start takes 10 to 25 ms longer."""

    restart: "RestartSettings | None" = None
    """What happens when it ends by itself; without this table, it is started again."""

    activation: "ActivationSettings | str | None" = None
    """When it runs: a table, or the name of one that services share; without it, always."""

    configuration: "ConfigurationSettings | None" = None
    """What it is configured by; without this table, nothing is waited for."""

    on_change: Action | Mapping[str, Action] = attrs.field(
        default="restart", validator=are_actions
    )
    """What a new configuration does: "restart", "ignore", a signal or a command to reload by; or
    a table of these by glob. The first glob that matches a changed path counts, and of several
    actions the strongest."""

    confirm_within: float | None = attrs.field(default=None, validator=optional(gt(0)))
    """Seconds in which a new configuration has to prove itself, or it is rolled back."""

    readiness: "ReadinessSettings | None" = None
    """When it counts as ready; without this table, as soon as it runs."""

    health: "HealthSettings | None" = None
    """When it counts as unhealthy."""

    hooks: "HookSettings | None" = None
    """Commands around each run."""

    def __attrs_post_init__(self) -> None:
        if self.confirm_within is not None and self.configuration is None:
            raise ValueError("confirm_within is about new configurations, and there is none")
        self.process("")()  # it is never entered: the arguments are checked

    def actions(self) -> OnChange:
        """Make the action, or the actions by glob, that are meant."""
        if isinstance(self.on_change, Mapping):
            return {pattern: action(one) for pattern, one in self.on_change.items()}
        return action(self.on_change)

    def process(self, name: str, started: HeadStart | None = None) -> OpenProcess:
        """Make what opens one run of the application: the one that was started, then others.

        Raises:
            ValueError: A setting makes no sense here: there is no such user, for example.
        """
        options: dict[str, Any] = {
            field: value
            for field in (
                "cwd",
                "user",
                "group",
                "extra_groups",
                "nice",
                "oom_score_adj",
                "limits",
            )
            if (value := getattr(self, field)) not in (None, {})
        }
        stopping: dict[str, Any] = {
            "name": name,
            "stop_signal": signal_number(self.stop_signal),
            "grace_period": self.grace_period,
            "stop_scope": self.stop_scope,
        }
        start = partial(
            open_process,
            self.command,
            **stopping,
            env=self.env,
            stdin=_input(self.stdin),
            stdout=_output(self.stdout),
            stderr=_output(self.stderr),
            terminal=self.terminal,
            umask=mode_bits(self.umask),
            no_new_privileges=self.no_new_privileges,
            cgroup=self.cgroup,
            **options,
        )
        if started is None:
            return start

        def attend_or_start(
            *,
            extra_env: Mapping[str, str] = MappingProxyType({}),
            extra_fds: Mapping[int, int] = MappingProxyType({}),
        ) -> AbstractAsyncContextManager[ProcessHandler]:
            if started.claimed:
                return start(extra_env=extra_env, extra_fds=extra_fds)
            return open_started(started, **stopping)

        return attend_or_start


def _input(value: str) -> Input:
    match value:
        case "null" | "inherit":
            return value
        case _:
            return Path(value)


def _output(value: str | LogFile | LogLines) -> Output:
    match value:
        case "null" | "inherit" | "stdout":
            return value
        case "lines":
            return LogLines()
        case str():
            return LogFile(value)
        case _:
            return value


@attrs.frozen(kw_only=True)
class LogSettings:
    """The entrypoint's own log, on standard error."""

    level: LogLevel = "info"
    """What is less important is not logged."""

    format: LogFormat = "auto"
    """Columns, or JSON lines; `auto` is columns on a terminal and JSON lines otherwise."""


@attrs.frozen(kw_only=True)
class Settings:
    """The whole file."""

    service: Mapping[str, ServiceSettings]
    """The services, by name."""

    activation: "Mapping[str, ActivationSettings]" = attrs.field(
        factory=dict[str, "ActivationSettings"]
    )
    """Activations that services share, by name: those of one lease, say."""

    on_failure: Literal["end", "continue"] = "end"
    """What a service that failed for good does to the others."""

    init: bool | None = None
    """Act as init: when all services have ended, end the orphans that are left. By default when
    this is process 1. Orphans are adopted and reaped in any case."""

    termination_message: str | None = None
    """A file that gets the reason when the status is not 0, such as `/dev/termination-log`."""

    signals: Mapping[str, str] = attrs.field(factory=dict[str, str], validator=are_signals)
    """What a signal to the entrypoint does: "forward", "ignore", "reload", or the name of the
    signal that the applications get instead. SIGTERM, SIGINT and SIGQUIT always stop it."""

    log: LogSettings = LogSettings()
    """The entrypoint's own log."""

    control: "ControlSettings | None" = None
    """The control socket; without this table there is none."""

    http: "HttpSettings | None" = None
    """Health, metrics and a page over HTTP; without this table there are none."""

    def __attrs_post_init__(self) -> None:
        unused = dict(self.activation)
        for name, service in self.service.items():
            if isinstance(service.activation, str):
                if service.activation not in self.activation:
                    raise ValueError(
                        f'service.{name}.activation: no activation "{service.activation}"; '
                        f"{did_you_mean(service.activation, self.activation)}"
                    )
                unused.pop(service.activation, None)
            for other in service.after:
                if other not in self.service:
                    raise ValueError(
                        f'service.{name}.after: no service "{other}"; '
                        f"{did_you_mean(other, self.service)}"
                    )
        for name in unused:
            raise ValueError(f'activation.{name}: no service has activation = "{name}"')
        _refuse_circles({name: service.after for name, service in self.service.items()})


def _refuse_circles(after: Mapping[str, tuple[str, ...]]) -> None:
    left = dict(after)
    while left:
        free = [name for name, others in left.items() if not any(o in left for o in others)]
        if not free:
            raise ValueError(f"these services wait for each other: {', '.join(left)}")
        for name in free:
            del left[name]
