"""What the entrypoint serves over HTTP.

/livez      200 while nothing has failed for good and no service is unhealthy
/readyz     200 while all services are ready or have ended with success; for a backup as
            `http.ready` says
/status     the status of all services, in JSON
/metrics    for Prometheus
/events     server-sent events: a snapshot, then whatever happens
/           a page that shows them
"""

import json
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import cast

import trio

from trio_entrypoint.cli.http import Response, Write, open_http
from trio_entrypoint.cli.metrics import Metrics
from trio_entrypoint.cli.observing import Fleet
from trio_entrypoint.cli.sections import HttpSettings
from trio_entrypoint.cli.values import address
from trio_entrypoint.states import ProcessState

__all__ = ["open_pages"]

# What a page needs is in it: nothing is loaded from anywhere else.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

EVENTS_SHOWN = 200


class Pages:
    """Answers each path."""

    def __init__(self, settings: HttpSettings, fleet: Fleet, metrics: Metrics) -> None:
        self._settings = settings
        self._fleet = fleet
        self._metrics = metrics

    async def answer(self, path: str) -> Response:
        """Answer a request for a path."""
        await trio.lowlevel.checkpoint()
        match path:
            case "/":
                page = files("trio_entrypoint.cli").joinpath("page.html").read_bytes()
                headers = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
                return Response(type="text/html; charset=utf-8", body=page, headers=headers)
            case "/livez":
                return _verdict(self._dead())
            case "/readyz":
                return _verdict(self._not_ready())
            case "/status":
                return Response(body=_json(self._fleet.status()) + b"\n")
            case "/metrics":
                return Response(type=self._metrics.content_type, body=self._metrics.render())
            case "/events":
                return Response(type="text/event-stream", stream=self._stream)
            case _:
                return Response(status=404, type="text/plain", body=b"not found\n")

    def _dead(self) -> Mapping[str, str]:
        return {
            name: service.supervisor.state.process.value
            for name, service in self._fleet.services.items()
            if service.supervisor.state.process in (ProcessState.GAVE_UP, ProcessState.UNHEALTHY)
        }

    def _not_ready(self) -> Mapping[str, str]:
        waiting: dict[str, str] = {}
        for name, service in self._fleet.services.items():
            state = service.supervisor.state
            idle = state.process is ProcessState.INACTIVE and self._settings.ready == "always"
            done = state.process is ProcessState.ENDED and service.last_exit == 0
            if not (state.ready or idle or done):
                waiting[name] = state.process.value
        return waiting

    def _snapshot(self) -> object:
        services = self._fleet.services.values()
        return {
            **self._fleet.status(),
            "now": time.time(),
            "events": self._fleet.events.recent()[-EVENTS_SHOWN:],
            "timelines": {service.name: list(service.timeline) for service in services},
            "histories": {service.name: list(service.history) for service in services},
        }

    async def _stream(self, write: Write) -> None:
        with self._fleet.events.follow() as events:
            await write(_event("snapshot", self._snapshot()))
            async for event in events:
                service = self._fleet.services[cast("str", event["service"])]
                news = {
                    "event": event,
                    "status": service.status(),
                    "timeline": service.timeline[-1],
                    "generation": service.history[-1] if "changed" in event else None,
                }
                await write(_event("news", news))


@asynccontextmanager
async def open_pages(settings: HttpSettings, fleet: Fleet) -> AsyncGenerator[int]:
    """Serve everything over HTTP for as long as the block lasts; gives the port."""
    host, port = address(settings.listen, "")
    metrics = Metrics(fleet)
    pages = Pages(settings, fleet, metrics)
    async with open_http(host or None, port, pages.answer) as bound:
        logging.getLogger(__name__).info("HTTP listens on port %d", bound)
        yield bound


def _verdict(against: Mapping[str, str]) -> Response:
    if not against:
        return Response(type="text/plain", body=b"ok\n")
    text = "".join(f"{name}: {state}\n" for name, state in against.items())
    return Response(status=503, type="text/plain", body=text.encode())


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(name: str, value: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), _json(value))
