"""Opens what the sections of the configuration file stand for."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from trio_entrypoint._linux.head_start import HeadStart
from trio_entrypoint.cli.settings import ServiceSettings, Settings
from trio_entrypoint.handlers import ActivationHandler
from trio_entrypoint.policies import Always, Hooks
from trio_entrypoint.supervisor import Supervisor

__all__ = ["open_shared", "open_supervisor"]


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
            activation = await stack.enter_async_context(settings.activation.open())
        if settings.configuration is not None:
            configuration = await stack.enter_async_context(settings.configuration.open())
        yield Supervisor(
            settings.process(name, started),
            name=name,
            activation=activation,
            configuration=configuration,
            restart=Always() if settings.restart is None else settings.restart.make(),
            on_change=settings.actions(),
            readiness=None if settings.readiness is None else settings.readiness.make(),
            health=None if settings.health is None else settings.health.make(),
            confirm_within=settings.confirm_within,
            hooks=Hooks() if settings.hooks is None else settings.hooks.make(),
        )


@asynccontextmanager
async def open_shared(settings: Settings) -> AsyncGenerator[Mapping[str, ActivationHandler]]:
    """Open the activations that services share; give each of those services its handler."""
    from trio_entrypoint.activation.shared import open_shared_activation

    handlers: dict[str, ActivationHandler] = {}
    async with AsyncExitStack() as stack:
        for name, activation in settings.activation.items():
            services = [key for key, one in settings.service.items() if one.activation == name]
            handler = await stack.enter_async_context(activation.open())
            shared = open_shared_activation(handler, len(services))
            handlers |= zip(services, await stack.enter_async_context(shared), strict=True)
        yield handlers
