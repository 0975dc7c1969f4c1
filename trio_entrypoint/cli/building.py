"""Makes the library's objects of the configuration file's sections."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from trio_entrypoint._linux.head_start import HeadStart
from trio_entrypoint.cli.settings import ServiceSettings, Settings
from trio_entrypoint.cli.values import Action, Words, address, signal_number
from trio_entrypoint.commands import Command
from trio_entrypoint.handlers import (
    ActivationHandler,
    ConfigurationHandler,
    OpenProcess,
    ProcessHandler,
    UpdateResult,
)
from trio_entrypoint.output import Input, LogFile, LogLines, Output
from trio_entrypoint.policies import (
    Always,
    ChangeAction,
    Health,
    Hooks,
    Ignore,
    Never,
    OnChange,
    OnFailure,
    Readiness,
    Reload,
    Restart,
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
from trio_entrypoint.process import open_process, open_started
from trio_entrypoint.supervisor import Supervisor

if TYPE_CHECKING:
    from trio_entrypoint._remote.etcd import EtcdAuth
    from trio_entrypoint._remote.http import Tls
    from trio_entrypoint.cli.sections import (
        HealthSettings,
        HookSettings,
        ReadinessSettings,
        RestartSettings,
    )
    from trio_entrypoint.cli.sources import (
        ActivationSettings,
        ConfigurationSettings,
        EtcdSettings,
        KeysSettings,
        KubernetesSettings,
        MergedSettings,
    )
    from trio_entrypoint.configuration.source import Source

__all__ = [
    "action",
    "health",
    "hooks",
    "on_change",
    "open_configuration",
    "open_shared",
    "open_supervisor",
    "readiness",
    "restart",
]


@asynccontextmanager
async def open_supervisor(
    name: str,
    settings: ServiceSettings,
    started: HeadStart | None = None,
    shared: ActivationHandler | None = None,
) -> AsyncGenerator[Supervisor]:
    """Open the handlers of a service, and give the supervisor over them.

    Args:
        name: What it is called.
        settings: Its section of the file.
        started: Its first run, if it runs already.
        shared: Its activation, if it shares one.
    """
    async with AsyncExitStack() as stack:
        activation, configuration = shared, None
        if settings.activation is not None and not isinstance(settings.activation, str):
            activation = await stack.enter_async_context(_open_activation(settings.activation))
        if settings.configuration is not None:
            configuration = await stack.enter_async_context(
                open_configuration(settings.configuration)
            )
        yield Supervisor(
            process(name, settings, started),
            name=name,
            activation=activation,
            configuration=configuration,
            restart=Always() if settings.restart is None else restart(settings.restart),
            on_change=on_change(settings.on_change),
            readiness=None if settings.readiness is None else readiness(settings.readiness),
            health=None if settings.health is None else health(settings.health),
            confirm_within=settings.confirm_within,
            hooks=Hooks() if settings.hooks is None else hooks(settings.hooks),
        )


@asynccontextmanager
async def open_shared(settings: Settings) -> AsyncGenerator[Mapping[str, ActivationHandler]]:
    """Open the activations that services share; give each of those services its handler."""
    from trio_entrypoint.activation.shared import open_shared_activation

    handlers: dict[str, ActivationHandler] = {}
    async with AsyncExitStack() as stack:
        for name, activation in settings.activation.items():
            services = [key for key, one in settings.service.items() if one.activation == name]
            handler = await stack.enter_async_context(_open_activation(activation))
            shared = open_shared_activation(handler, len(services))
            handlers |= zip(services, await stack.enter_async_context(shared), strict=True)
        yield handlers


def process(name: str, settings: ServiceSettings, started: HeadStart | None = None) -> OpenProcess:
    """Make what opens one run of the application: the one that was started, then others.

    Raises:
        ValueError: A setting makes no sense here: there is no such user, for example.
    """
    umask = None if settings.umask is None else int(settings.umask, 8)
    options: dict[str, Any] = {
        field: value
        for field in ("cwd", "user", "group", "extra_groups", "nice", "oom_score_adj", "limits")
        if (value := getattr(settings, field)) not in (None, {})
    }
    stopping: dict[str, Any] = {
        "name": name,
        "stop_signal": signal_number(settings.stop_signal),
        "grace_period": settings.grace_period,
        "stop_scope": settings.stop_scope,
    }
    start = partial(
        open_process,
        settings.command,
        **stopping,
        env=settings.env,
        stdin=_input(settings.stdin),
        stdout=_output(settings.stdout),
        stderr=_output(settings.stderr),
        terminal=settings.terminal,
        umask=umask,
        no_new_privileges=settings.no_new_privileges,
        cgroup=settings.cgroup,
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


@asynccontextmanager
async def _open_activation(settings: "ActivationSettings") -> AsyncGenerator[ActivationHandler]:
    async with AsyncExitStack() as stack:
        if settings.file is not None:
            from trio_entrypoint.activation.file import open_file_activation

            yield await stack.enter_async_context(open_file_activation(settings.file))
        elif settings.etcd is not None:
            yield await stack.enter_async_context(_open_etcd(settings.etcd))
        elif settings.kubernetes is not None:
            yield await stack.enter_async_context(_open_kubernetes(settings.kubernetes))
        else:
            from trio_entrypoint.activation.combined import (
                open_all_activation,
                open_any_activation,
            )

            combine = open_any_activation if settings.all is None else open_all_activation
            handlers = [
                await stack.enter_async_context(_open_activation(inner))
                for inner in settings.all or settings.any or ()
            ]
            yield await stack.enter_async_context(combine(*handlers))


def _open_etcd(settings: "EtcdSettings") -> AbstractAsyncContextManager[ActivationHandler]:
    from trio_entrypoint.activation.etcd import open_etcd_activation

    tls, auth = _etcd_access(settings)
    return open_etcd_activation(
        settings.endpoints,
        settings.name,
        ttl=settings.ttl,
        stop_within=settings.stop_within,
        identity=settings.identity,
        tls=tls,
        auth=auth,
    )


def _etcd_access(settings: "EtcdSettings | KeysSettings") -> "tuple[Tls | None, EtcdAuth | None]":
    from trio_entrypoint._remote.etcd import EtcdAuth
    from trio_entrypoint._remote.http import Tls

    auth = None
    if settings.user is not None and settings.password_file is not None:
        auth = EtcdAuth(settings.user, settings.password_file)
    return Tls(**attrs.asdict(settings.tls)) if settings.tls else None, auth


def _open_kubernetes(
    settings: "KubernetesSettings",
) -> AbstractAsyncContextManager[ActivationHandler]:
    from trio_entrypoint.activation.kubernetes import open_kubernetes_activation

    return open_kubernetes_activation(**attrs.asdict(settings))


def open_configuration(
    settings: "ConfigurationSettings",
) -> AbstractAsyncContextManager[ConfigurationHandler[UpdateResult]]:
    """Make what opens a configuration."""
    from trio_entrypoint.configuration.validation import ValidateCommand

    validate = None
    if settings.validate is not None:
        command = _command(settings.validate)
        validate = ValidateCommand(command.command, timeout=command.timeout)
    options: dict[str, Any] = {
        name: value
        for name in (
            *("keep", "durability", "settle", "share", "layout", "max_members", "max_size"),
            *("owner", "keep_owner", "keep_time"),
        )
        if (value := getattr(settings, name)) is not None
    }
    if settings.mode is not None:
        options["mode"] = int(settings.mode, 8)
    if settings.file is not None:
        from trio_entrypoint.configuration.file import open_file_configuration

        return open_file_configuration(
            settings.file, settings.target, validate=validate, **options
        )
    if settings.tar is not None:
        from trio_entrypoint.configuration.tar import open_tar_configuration

        return open_tar_configuration(settings.tar, settings.target, validate=validate, **options)
    if settings.merged is not None:
        from trio_entrypoint.configuration.merged import open_merged_configuration

        sources = [_source(source) for source in settings.merged]
        return open_merged_configuration(sources, settings.target, validate=validate, **options)
    if settings.etcd is not None:
        from trio_entrypoint.configuration.etcd import open_etcd_configuration

        tls, auth = _etcd_access(settings.etcd)
        return open_etcd_configuration(
            settings.etcd.endpoints,
            settings.etcd.prefix,
            settings.target,
            tls=tls,
            auth=auth,
            validate=validate,
            **options,
        )
    from trio_entrypoint.configuration.directory import open_directory_configuration

    assert settings.directory is not None
    return open_directory_configuration(
        settings.directory, settings.target, validate=validate, **options
    )


def _source(settings: "MergedSettings") -> "Source":
    from trio_entrypoint.configuration.directory import DirectorySource
    from trio_entrypoint.configuration.file import FileSource
    from trio_entrypoint.configuration.tar import TarSource

    if settings.tar is not None:
        return TarSource(settings.tar)
    if settings.directory is not None:
        return DirectorySource(settings.directory)
    assert settings.file is not None
    assert settings.name is not None
    mode = None if settings.mode is None else int(settings.mode, 8)
    return FileSource(settings.file, settings.name, mode=mode)


def restart(settings: "RestartSettings") -> RestartPolicy:
    """Make a restart policy."""
    match settings.policy:
        case "always":
            return Always(backoff=settings.backoff, limit=settings.limit)
        case "on-failure":
            return OnFailure(
                success_codes=frozenset(settings.success_codes),
                backoff=settings.backoff,
                limit=settings.limit,
            )
        case "never":
            return Never()


def action(value: Action) -> ChangeAction:
    """Make the action that a word, a signal's name or a command stands for."""
    match value:
        case "restart":
            return Restart()
        case "ignore":
            return Ignore()
        case str():
            return Reload(signal_number(value))
        case _:
            return Reload(Command(value))


def on_change(value: Action | Mapping[str, Action]) -> OnChange:
    """Make an action, or actions by glob."""
    if isinstance(value, Mapping):
        return {pattern: action(inner) for pattern, inner in value.items()}
    return action(value)


def readiness(settings: "ReadinessSettings") -> Readiness:
    """Make the rule of readiness."""
    return Readiness(
        _probe(settings, settings.descriptor),
        timeout=settings.timeout,
        period=settings.period,
        probe_timeout=settings.probe_timeout,
        successes=settings.successes,
    )


def health(settings: "HealthSettings") -> Health:
    """Make the rule of health."""
    return Health(
        _probe(settings, None),
        period=settings.period,
        probe_timeout=settings.probe_timeout,
        failures=settings.failures,
        successes=settings.successes,
        on_failure=action(settings.on_failure),
    )


def hooks(settings: "HookSettings") -> Hooks:
    """Make the hooks."""
    lists = {
        field.name: [_command(words, settings.timeout) for words in getattr(settings, field.name)]
        for field in attrs.fields(type(settings))
        if field.name != "timeout"
    }
    return Hooks(timeout=settings.timeout, **lists)


def _probe(settings: "ReadinessSettings | HealthSettings", descriptor: int | None) -> Probe:
    if settings.http is not None:
        return HttpProbe(settings.http)
    if settings.tcp is not None:
        host, port = address(settings.tcp, "127.0.0.1")
        return TcpProbe(port, host)
    if settings.command is not None:
        return CommandProbe(_command(settings.command))
    if settings.file is not None:
        return FileProbe(settings.file)
    if settings.notify is not None:
        return NotifyProbe(settings.notify)
    assert descriptor is not None
    return DescriptorProbe(descriptor)


def _command(value: Command | Words, timeout: float | None = None) -> Command:
    if isinstance(value, Command):
        return value
    return Command(value) if timeout is None else Command(value, timeout=timeout)
