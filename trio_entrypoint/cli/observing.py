"""What is known of each service beyond its present state: counts, last things, and histories.

All of it is made of the supervisor's own transitions, and bounded. What comes out are plain
values, as the control socket, the HTTP server and the page tell them: one shape for all.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping

import trio

from trio_entrypoint.cli.feed import Feed
from trio_entrypoint.handlers import UpdateResult
from trio_entrypoint.states import Cause, ConfigurationState, ProcessState, State, Transition
from trio_entrypoint.supervisor import Supervisor

__all__ = ["Fleet", "Service"]

_logger = logging.getLogger("trio_entrypoint.services")

Plain = Mapping[str, object]

EVENTS_KEPT = 1000
TIMELINE_KEPT = 500
GENERATIONS_KEPT = 100
PATHS_KEPT = 200


class Service:
    """One service, and what was seen of it."""

    def __init__(self, name: str, supervisor: Supervisor, *, has_activation: bool) -> None:
        self.name = name
        self.supervisor = supervisor
        self.executions: int = 0
        self.last_exit: int | None = None
        self.generation: int | None = None
        self.update_succeeded_at: float | None = None
        self.update_failed_at: float | None = None
        self.history: deque[Plain] = deque(maxlen=GENERATIONS_KEPT)
        self.timeline: deque[Plain] = deque(maxlen=TIMELINE_KEPT)
        self.events: trio.MemoryReceiveChannel[Transition] = supervisor.events
        self._has_activation = has_activation
        self._changed_at = time.time()
        self._up_since: float | None = None
        self._last_change: str | None = None
        self._last_error: str | None = None
        self._last_error_at: float | None = None
        self._add_to_timeline(self._changed_at, supervisor.state)

    @property
    def restarts(self) -> int:
        """How often the process was started again."""
        return max(0, self.executions - 1)

    def note(self, transition: Transition) -> Plain:
        """Take a transition in, and give it as a plain value."""
        now = time.time()
        after = transition.after
        if transition.cause is Cause.EXECUTED:
            self.executions += 1
            self._up_since = now
        if not after.alive:
            self._up_since = None
        if transition.status is not None:
            self.last_exit = transition.status.shell_code
        if transition.error is not None:
            self._last_error = f"{transition.cause.value}: {transition.error}"
            self._last_error_at = now
        self._last_change = transition.cause.value
        self._changed_at = now
        if isinstance(transition.result, UpdateResult):
            self._note_update(transition.result, now)
        self._add_to_timeline(now, after)
        return self._event(transition, now)

    def status(self) -> dict[str, object]:
        """Give the present status as plain values."""
        state = self.supervisor.state
        return {
            "name": self.name,
            "state": state.process.value,
            "ready": state.ready,
            "activation": self._activation(state),
            "configuration": _configuration(state),
            "pid": state.pid,
            "up_since": self._up_since,
            "restarts": self.restarts,
            "generation": self.generation,
            "last_change": self._last_change,
            "changed_at": self._changed_at,
            "last_exit": self.last_exit,
            "last_error": self._last_error,
            "last_error_at": self._last_error_at,
            "status_text": state.status_text or None,
        }

    def _activation(self, state: State) -> str | None:
        if not self._has_activation:
            return None
        return "active" if state.activation else "inactive"

    def _note_update(self, result: UpdateResult, now: float) -> None:
        if result.error is None:
            self.update_succeeded_at = now
        else:
            self.update_failed_at = now
        generation = result.generation
        if generation is not None:
            self.generation = generation.number
        changed = list(result.changed.items())
        self.history.append(
            {
                "timestamp": _timestamp(now),
                "service": self.name,
                "generation": generation.number if generation and result.error is None else None,
                "digest": generation.digest if generation else None,
                "error": str(result.error) if result.error else None,
                "changed": {path: how.value for path, how in changed[:PATHS_KEPT]},
                "changed_count": len(changed),
                "size": result.size,
                "seconds": round(result.seconds, 6),
            }
        )

    def _add_to_timeline(self, now: float, state: State) -> None:
        entry = {
            "activation": self._activation(state),
            "configuration": _configuration(state),
            "process": state.process.value,
        }
        last = self.timeline[-1] if self.timeline else None
        if last is None or {**last, "time": 0} != {**entry, "time": 0}:
            self.timeline.append({"time": round(now, 3), **entry})

    def _event(self, transition: Transition, now: float) -> Plain:
        before, after = transition.before, transition.after
        event: dict[str, object] = {
            "timestamp": _timestamp(now),
            "service": self.name,
            "event": transition.cause.value,
            "before": before.process.value,
            "after": after.process.value,
            "seconds": round(transition.seconds, 6),
            "activation": self._activation(after),
            "configuration": _configuration(after),
            "pid": after.pid,
        }
        if transition.status is not None:
            event["status"] = str(transition.status)
        if transition.error is not None:
            event["error"] = str(transition.error)
        if isinstance(transition.result, UpdateResult):
            event["generation"] = self.generation
            event["changed"] = len(transition.result.changed)
        return event


class Fleet:
    """All services of this entrypoint, and the feeds of what happens to them."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.events: Feed[Plain] = Feed[Plain](EVENTS_KEPT)
        self.log: Feed[Plain] = Feed[Plain](EVENTS_KEPT)
        self.listeners: list[Callable[[Service, Transition], None]] = []

    async def observe(self, service: Service) -> None:
        """Note, tell and log everything that happens to a service, until its run has ended."""
        # The end of a run is told while everything is cancelled: read on to the last event.
        with trio.CancelScope(shield=True):
            async for transition in service.events:
                event = service.note(transition)
                for listener in self.listeners:
                    listener(service, transition)
                self.events.publish(event)
                _log(transition, event)

    def status(self) -> dict[str, object]:
        """Give the status of everything as plain values."""
        return {"services": [service.status() for service in self.services.values()]}


def _log(transition: Transition, event: Plain) -> None:
    if transition.after.process is ProcessState.GAVE_UP:
        level = logging.ERROR
    elif transition.error is not None:
        level = logging.WARNING
    else:
        quiet = transition.cause in (Cause.SUPERVISED, Cause.STATUS_TEXT, Cause.RETRIED)
        level = logging.DEBUG if quiet else logging.INFO
    known = ("timestamp", "event", "before", "after")
    fields = {key: value for key, value in event.items() if key not in known and value is not None}
    _logger.log(level, transition.cause.value, extra={**fields, "state": event["after"]})


def _configuration(state: State) -> str | None:
    none = state.configuration is ConfigurationState.NONE
    return None if none else state.configuration.value


def _timestamp(now: float) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{seconds}.{int(now % 1 * 1000):03d}Z"
