"""Sections of the file: how a service is kept running, and how it can be looked at."""

from typing import Literal

import attrs
from attrs.validators import ge, optional

from trio_entrypoint.cli.values import (
    Action,
    Words,
    action,
    address,
    command,
    exactly_one,
    is_action,
    is_address,
    like,
)
from trio_entrypoint.commands import Command
from trio_entrypoint.policies import (
    Always,
    Backoff,
    Health,
    Hooks,
    Limit,
    Never,
    OnFailure,
    Readiness,
    RestartPolicy,
)
from trio_entrypoint.probes import (
    CommandProbe,
    DescriptorProbe,
    FileProbe,
    HttpProbe,
    NotifyProbe,
    Probe,
    TcpProbe,
)

__all__ = [
    "ControlSettings",
    "HealthSettings",
    "HookSettings",
    "HttpSettings",
    "ReadinessSettings",
    "RestartSettings",
]

_BACKOFF = Backoff()


@attrs.frozen(kw_only=True)
class RestartSettings:
    """What happens when the application ends by itself."""

    policy: Literal["always", "on-failure", "never"] = "always"
    """Whether it is started again."""

    success_codes: tuple[int, ...] = attrs.field(
        default=(0,), validator=attrs.fields_dict(OnFailure)["success_codes"].validator
    )
    """Exit codes that `on-failure` takes for a success."""

    backoff: Backoff = _BACKOFF
    """How long to wait before a restart, in seconds."""

    limit: Limit | None = None
    """How many restarts are too many; without it there is no limit."""

    def make(self) -> RestartPolicy:
        """Make the policy that is meant."""
        match self.policy:
            case "always":
                return Always(backoff=self.backoff, limit=self.limit)
            case "on-failure":
                return OnFailure(
                    success_codes=frozenset(self.success_codes),
                    backoff=self.backoff,
                    limit=self.limit,
                )
            case "never":
                return Never()


PROBES = ("http", "tcp", "command", "file", "notify", "descriptor")


@attrs.frozen(kw_only=True)
class ReadinessSettings:
    """When the application counts as ready; exactly one of the first six keys."""

    http: str | None = None
    """A URL whose answer is a status from 200 to 399."""

    tcp: int | str | None = attrs.field(default=None, validator=optional(is_address))
    """A port, or `host:port`, that accepts connections."""

    command: Words | Command | None = None
    """A command that exits with 0."""

    file: str | None = None
    """A file that exists."""

    notify: Literal["main", "all"] | None = None
    """`READY=1` by sd_notify, from the main process or from all of its descendants."""

    descriptor: int | None = attrs.field(default=None, validator=optional(ge(3)))
    """A newline on this descriptor, as s6 has it."""

    timeout: float = like(Readiness, "timeout")
    """Seconds from the start; an application that is not ready by then has failed."""

    period: float = like(Readiness, "period")
    """Seconds between the end of one question and the next."""

    probe_timeout: float = like(Readiness, "probe_timeout")
    """Seconds that one answer may take."""

    successes: int = like(Readiness, "successes")
    """Good answers in a row that make it ready."""

    def __attrs_post_init__(self) -> None:
        exactly_one(self, PROBES)
        self.make()  # the library's own rules

    def make(self) -> Readiness:
        """Make the rule that is meant."""
        return Readiness(
            _probe(self, self.descriptor),
            timeout=self.timeout,
            period=self.period,
            probe_timeout=self.probe_timeout,
            successes=self.successes,
        )


@attrs.frozen(kw_only=True)
class HealthSettings:
    """When the application counts as unhealthy; exactly one of the first five keys."""

    http: str | None = None
    """A URL whose answer is a status from 200 to 399."""

    tcp: int | str | None = attrs.field(default=None, validator=optional(is_address))
    """A port, or `host:port`, that accepts connections."""

    command: Words | Command | None = None
    """A command that exits with 0."""

    file: str | None = None
    """A file that exists."""

    notify: Literal["main", "all"] | None = None
    """`WATCHDOG=1` by sd_notify, at least every `period` times `failures` seconds."""

    period: float = like(Health, "period")
    """Seconds between the end of one question and the next."""

    probe_timeout: float = like(Health, "probe_timeout")
    """Seconds that one answer may take."""

    failures: int = like(Health, "failures")
    """Bad answers in a row that make it unhealthy."""

    successes: int = like(Health, "successes")
    """Good answers in a row that make it healthy again."""

    on_failure: Action = attrs.field(default="restart", validator=is_action)
    """What an unhealthy application gets: "restart", "ignore", a signal or a command."""

    def __attrs_post_init__(self) -> None:
        exactly_one(self, PROBES[:-1])
        self.make()

    def make(self) -> Health:
        """Make the rule that is meant."""
        return Health(
            _probe(self, None),
            period=self.period,
            probe_timeout=self.probe_timeout,
            failures=self.failures,
            successes=self.successes,
            on_failure=action(self.on_failure),
        )


def _probe(settings: ReadinessSettings | HealthSettings, descriptor: int | None) -> Probe:
    if settings.http is not None:
        return HttpProbe(settings.http)
    if settings.tcp is not None:
        host, port = address(settings.tcp, "127.0.0.1")
        return TcpProbe(port, host)
    if settings.command is not None:
        return CommandProbe(command(settings.command))
    if settings.file is not None:
        return FileProbe(settings.file)
    if settings.notify is not None:
        return NotifyProbe(settings.notify)
    assert descriptor is not None
    return DescriptorProbe(descriptor)


@attrs.frozen(kw_only=True)
class HookSettings:
    """Commands around each run; each is an array of words, or a table with a `timeout`."""

    initial: tuple[Words | Command, ...] = ()
    """Before the first start; each is done with once it has succeeded."""

    before_start: tuple[Words | Command, ...] = ()
    """Before each start."""

    after_ready: tuple[Words | Command, ...] = ()
    """Each time the application has become ready."""

    before_stop: tuple[Words | Command, ...] = ()
    """Before the stop signal; not when the application ended by itself."""

    after_stop: tuple[Words | Command, ...] = ()
    """After each run, however it ended; after one that could not be started, too."""

    timeout: float = like(Hooks, "timeout")
    """Seconds that a command without a `timeout` of its own may take."""

    def __attrs_post_init__(self) -> None:
        self.make()

    def make(self) -> Hooks:
        """Make the hooks that are meant."""
        lists = {
            field.name: [command(words, self.timeout) for words in getattr(self, field.name)]
            for field in attrs.fields(type(self))
            if field.name != "timeout"
        }
        return Hooks(timeout=self.timeout, **lists)


@attrs.frozen(kw_only=True)
class ControlSettings:
    """The control socket, for `trio-entrypoint status` and its kin."""

    socket: str = "/run/trio-entrypoint.sock"
    """Where it is made, with mode 0600."""


@attrs.frozen(kw_only=True)
class HttpSettings:
    """Health, metrics and a page over HTTP; needs `trio-entrypoint[http]`."""

    listen: str = attrs.field(default=":8080", validator=is_address)
    """`host:port`, or `:port` for all addresses."""

    ready: Literal["active", "always"] = "active"
    """What `/readyz` says while this entrypoint is inactive: not ready, or ready (`always`) as
    long as nothing is wrong."""
