"""The figures, one file each; `FIGURES` has them all by the name that selects them."""

from collections.abc import Callable, Mapping

from benchmarks.figures import (
    activation,
    idle,
    imports,
    memory,
    processes,
    reaction,
    reconfiguration,
    restart,
    start,
    stop,
)
from benchmarks.results import Figure
from benchmarks.stage import Stage

FIGURES: Mapping[str, Callable[[Stage], Figure]] = {
    "start": start.measure,
    "restart": restart.measure,
    "stop": stop.measure,
    "activation": activation.measure,
    "reconfiguration": reconfiguration.measure,
    "memory": memory.measure,
    "idle": idle.measure,
    "processes": processes.measure,
    "reaction": reaction.measure,
    "imports": imports.measure,
}
