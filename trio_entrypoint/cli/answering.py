"""What the entrypoint does for the clients of its control socket."""

from collections.abc import Mapping, Sequence

import trio

from trio_entrypoint.cli.control import Send
from trio_entrypoint.cli.feed import Feed
from trio_entrypoint.cli.mistakes import did_you_mean
from trio_entrypoint.cli.observing import Fleet, Service
from trio_entrypoint.cli.protocol import ProtocolError, Request
from trio_entrypoint.cli.values import signal_number
from trio_entrypoint.states import ProcessState

__all__ = ["answer"]


async def answer(fleet: Fleet, request: Request, send: Send) -> None:
    """Carry out a request, and send the items of its answer.

    Raises:
        ProtocolError: It cannot be carried out. Of several services, those before the one that
            the message names have done it.
    """
    services = _choose(fleet, request)
    match request.command:
        case "status":
            if not request.follow:
                await send(_status(services))
                return
            # Followed first: nothing is lost between this status and the next.
            with fleet.events.follow() as events:
                await send(_status(services))
                async for _ in events:
                    _skip(events)
                    await send(_status(services))
        case "logs" | "events":
            feed = fleet.log if request.command == "logs" else fleet.events
            await _send_entries(feed, request, services, send)
        case "history":
            for service in services:
                for generation in list(service.history):
                    await send(generation)
        case "wait-ready":
            await _wait_ready(services, request.timeout)
        case _:
            for service in services:
                _operate(service, request)


def _operate(service: Service, request: Request) -> None:
    supervisor = service.supervisor
    try:
        match request.command:
            case "start":
                supervisor.start()
            case "stop":
                supervisor.stop()
            case "restart":
                supervisor.restart()
            case "reload":
                supervisor.reload()
            case "rollback":
                supervisor.rollback()
            case "signal":
                supervisor.signal(signal_number(request.signal))
            case other:
                raise AssertionError(other)
    except (ValueError, TypeError, ProcessLookupError, PermissionError) as error:
        raise ProtocolError("refused", str(error)) from None  # it names the service


def _choose(fleet: Fleet, request: Request) -> Sequence[Service]:
    """The services that a request is about; what changes something names them, if several."""
    for name in request.services:
        if name not in fleet.services:
            raise ProtocolError(
                "unknown-service", f"no service {name!r:.80}; {did_you_mean(name, fleet.services)}"
            )
    if request.services:
        return [fleet.services[name] for name in dict.fromkeys(request.services)]
    everything = list(fleet.services.values())
    asks = ("status", "logs", "events", "history", "wait-ready", "reload")
    if len(everything) > 1 and request.command not in asks:
        names = ", ".join(fleet.services)
        raise ProtocolError("unknown-service", f"which of the services? There are: {names}")
    return everything


def _status(services: Sequence[Service]) -> object:
    return {"services": [service.status() for service in services]}


def _skip(events: "trio.MemoryReceiveChannel[Mapping[str, object]]") -> None:
    """A status is newer than all that waits."""
    try:
        while True:
            events.receive_nowait()
    except (trio.WouldBlock, trio.EndOfChannel):
        pass


async def _send_entries(
    feed: Feed[Mapping[str, object]],
    request: Request,
    services: Sequence[Service],
    send: Send,
) -> None:
    names = {service.name for service in services} if request.services else None
    # Followed first: nothing is lost between the last entry and the next.
    with feed.follow() as coming:
        entries = [e for e in feed.recent() if names is None or e.get("service") in names]
        for entry in entries[max(0, len(entries) - request.lines) :]:
            await send(entry)
        if request.follow:
            async for entry in coming:
                if names is None or entry.get("service") in names:
                    await send(entry)


def _has_been_ready(service: Service) -> bool:
    """Whether one that was ready a moment ago is so still, or has done what it was for."""
    state = service.supervisor.state
    return state.ready or state.process is ProcessState.ENDED


async def _wait_ready(services: Sequence[Service], within: float | None) -> None:
    limit = float("inf") if within is None else within
    late = services
    with trio.move_on_after(limit):
        while late:
            for service in late:
                try:
                    await service.supervisor.wait_for(lambda state: state.ready)
                except trio.EndOfChannel:
                    state = service.supervisor.state.process.value
                    raise ProtocolError(
                        "refused", f"{service.name} is not going to be ready: {state}"
                    ) from None
            late = [service for service in services if not _has_been_ready(service)]
        return
    late = [service for service in services if not service.supervisor.state.ready]
    told = ", ".join(f"{one.name} ({one.supervisor.state.process.value})" for one in late)
    raise ProtocolError("timeout", f"not ready within {limit:g} s: {told}")
