"""The running entrypoint: its services in a nursery, and what looks at them beside.

serve
open_log                          renders the log
open_shared                       the activations that several services follow
open_supervisor, for each service   its handlers
open_control_server, open_pages   if asked for
forward_signals
run_service, for each service     its supervisor, and what it tells
"""

import gc
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

import trio

from trio_entrypoint._linux.head_start import HeadStart
from trio_entrypoint.cli.building import open_shared, open_supervisor
from trio_entrypoint.cli.logs import open_log
from trio_entrypoint.cli.observing import Fleet, Service
from trio_entrypoint.cli.settings import Settings
from trio_entrypoint.cli.values import signal_number
from trio_entrypoint.entrypoint import DEFAULT_SIGNALS, SignalAction, forward_signals
from trio_entrypoint.handlers import ActivationHandler, ExitStatus
from trio_entrypoint.states import GaveUp, Transition
from trio_entrypoint.supervisor import Supervisor

__all__ = ["end_unstarted", "serve"]

_logger = logging.getLogger(__name__)


async def serve(settings: Settings, started: HeadStart | None = None) -> ExitStatus:
    """Run the services until all have ended, or one of them has failed for good.

    Args:
        settings: What to run.
        started: The first run of the only service, if it runs already.

    Returns:
        The status of the first service that failed, else success.

    Raises:
        OSError: A handler, a socket or a program cannot be opened; nothing is left running.
    """
    gc.freeze()
    gc.enable()
    fleet = Fleet()
    async with AsyncExitStack() as stack:
        log = open_log(settings.log.level, settings.log.format, fleet.log)
        await stack.enter_async_context(log)
        shared: Mapping[str, ActivationHandler] = {}
        if settings.activation:
            shared = await stack.enter_async_context(open_shared(settings))
        for name, service in settings.service.items():
            opening = open_supervisor(name, service, started, shared.get(name))
            supervisor = await stack.enter_async_context(opening)
            has_activation = service.activation is not None
            fleet.services[name] = Service(name, supervisor, has_activation=has_activation)
        if settings.control is not None:
            from trio_entrypoint.cli.answering import answer
            from trio_entrypoint.cli.control import open_control_server

            control = open_control_server(settings.control.socket, partial(answer, fleet))
            await stack.enter_async_context(control)
        if settings.http is not None:
            from trio_entrypoint.cli.pages import open_pages

            await stack.enter_async_context(open_pages(settings.http, fleet))
        return await _run_all(settings, fleet)


class _Gate:
    """Whether a service has been ready; what comes after it waits here."""

    def __init__(self) -> None:
        self.decided = trio.Event()
        self.passed = False

    def decide(self, *, passed: bool) -> None:
        if not self.decided.is_set():
            self.passed = passed
            self.decided.set()


async def _run_all(settings: Settings, fleet: Fleet) -> ExitStatus:
    failures: list[ExitStatus] = []
    gates = {name: _Gate() for name in settings.service}

    def pass_when_ready(service: Service, transition: Transition) -> None:
        if transition.after.ready:
            gates[service.name].decide(passed=True)

    fleet.listeners.append(pass_when_ready)
    async with trio.open_nursery() as beside:
        targets = [service.supervisor for service in fleet.services.values()]
        await beside.start(forward_signals, targets, _signal_table(settings.signals))
        async with trio.open_nursery() as services:

            async def run_service(name: str) -> None:
                status = await _run_one(name, settings, fleet, gates)
                if not status.success:
                    failures.append(status)
                    if settings.on_failure == "end":
                        services.cancel_scope.cancel()

            for name in settings.service:
                services.start_soon(run_service, name)
        beside.cancel_scope.cancel()
    return failures[0] if failures else ExitStatus(code=0)


async def _run_one(
    name: str, settings: Settings, fleet: Fleet, gates: Mapping[str, _Gate]
) -> ExitStatus:
    service = fleet.services[name]
    try:
        for other in settings.service[name].after:
            await gates[other].decided.wait()
            if not gates[other].passed:
                _logger.error("not started: %s was never ready", other, extra={"service": name})
                await end_unstarted(service.supervisor)
                return ExitStatus(code=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.observe, service)
            try:
                status = await service.supervisor.run()
            except GaveUp as error:
                status = error.exit_status
            except OSError as error:
                if settings.on_failure == "end":
                    raise
                _logger.error("%s", error, extra={"service": name})
                status = ExitStatus(code=getattr(error, "exit_code", 1))
        return status
    finally:
        gates[name].decide(passed=False)


async def end_unstarted(supervisor: Supervisor) -> None:
    """Tell whoever waits for a service that is not going to be started."""
    supervisor.stop()
    with trio.CancelScope() as scope:
        scope.cancel()
        await supervisor.run()


def _signal_table(signals: Mapping[str, str]) -> Mapping[int, SignalAction]:
    table = dict(DEFAULT_SIGNALS)
    for name, action in signals.items():
        number = signal_number(name)
        match action:
            case "forward":
                table[number] = number
            case "ignore":
                table[number] = None
            case "reload":
                table[number] = "reload"
            case other:
                table[number] = signal_number(other)
    return table
