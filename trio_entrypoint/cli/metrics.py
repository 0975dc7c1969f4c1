"""Metrics in Prometheus' text format, made by prometheus-client.

States are read when they are asked for; only what has to be counted is counted on the way.
"""

from collections.abc import Iterator
from functools import cache

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trio_entrypoint.cli.observing import Fleet, Service
from trio_entrypoint.handlers import UpdateResult
from trio_entrypoint.states import Cause, ProcessState, Transition

__all__ = ["Metrics"]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics(Collector):
    """The metrics of all services."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._update_seconds = Histogram(
            "trio_entrypoint_update_seconds",
            "How long an update of the configuration took.",
            ["service"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._reaction_seconds = Histogram(
            "trio_entrypoint_reaction_seconds",
            "From what happened (an activation, an end, a new configuration) to the execution "
            "that answers it.",
            ["service"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._asked_at: dict[str, float] = {}
        fleet.listeners.append(self._note)

    def render(self) -> bytes:
        """Give all metrics as text."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Read the states; for the registry."""
        build = GaugeMetricFamily("trio_entrypoint_build_info", "The version.", labels=["version"])
        build.add_metric([_version()], 1)
        yield build
        state = GaugeMetricFamily(
            "trio_entrypoint_service_state",
            "1 for the state that the service's process is in, 0 for the others.",
            labels=["service", "state"],
        )
        for service in self._fleet.services.values():
            for known in ProcessState:
                is_it = service.supervisor.state.process is known
                state.add_metric([service.name, known.value], int(is_it))
        yield state
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        values = (
            ("active", "Whether the service is active.", _active),
            ("ready", "Whether the service is ready.", _ready),
            ("last_exit_code", "The last exit code, or 128 plus the signal.", _last_exit),
            ("configuration_generation", "The configuration in place.", _generation),
            (
                "configuration_last_success_timestamp_seconds",
                "When a configuration was last applied.",
                _succeeded,
            ),
            (
                "configuration_last_failure_timestamp_seconds",
                "When a configuration was last refused.",
                _failed,
            ),
        )
        for name, text, read in values:
            gauge = GaugeMetricFamily(f"trio_entrypoint_{name}", text, labels=["service"])
            for service in self._fleet.services.values():
                value = read(service)
                if value is not None:
                    gauge.add_metric([service.name], value)
            yield gauge
        restarts = CounterMetricFamily(
            "trio_entrypoint_restarts",
            "How often the process was started again.",
            labels=["service"],
        )
        for service in self._fleet.services.values():
            restarts.add_metric([service.name], service.restarts)
        yield restarts

    def _note(self, service: Service, transition: Transition) -> None:
        if isinstance(transition.result, UpdateResult):
            self._update_seconds.labels(service.name).observe(transition.result.seconds)
        match transition.cause:
            case Cause.EXECUTED if service.name in self._asked_at:
                seconds = transition.time - self._asked_at.pop(service.name)
                self._reaction_seconds.labels(service.name).observe(seconds)
            case Cause.ACTIVATED | Cause.ENDED | Cause.CONFIGURATION_CHANGED:
                self._asked_at[service.name] = transition.time
            case Cause.CONFIGURATION_APPLIED if transition.before.process is ProcessState.WAITING:
                self._asked_at[service.name] = transition.time  # there was no process to stop
            case Cause.OPERATOR | Cause.DEACTIVATED | Cause.ROLLED_BACK:
                self._asked_at.pop(service.name, None)  # what comes answers something else
            case _:
                pass


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("trio-entrypoint")


def _active(service: Service) -> float:
    return float(service.supervisor.state.activation)


def _ready(service: Service) -> float:
    return float(service.supervisor.state.ready)


def _last_exit(service: Service) -> float | None:
    return service.last_exit


def _generation(service: Service) -> float | None:
    return service.generation


def _succeeded(service: Service) -> float | None:
    return service.update_succeeded_at


def _failed(service: Service) -> float | None:
    return service.update_failed_at
