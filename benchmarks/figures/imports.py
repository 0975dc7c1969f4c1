"""Import time: what each module costs, beside the bare interpreter and Trio."""

import os
import sys
import time

from benchmarks.processes import spawn
from benchmarks.results import Figure, Series
from benchmarks.stage import Stage

STATEMENTS = (
    "pass",
    "import trio",
    "import attrs",
    "import trio_entrypoint",
    "import trio_entrypoint.cli",
    "import trio_entrypoint.handlers",
    "import trio_entrypoint.process",
    "import trio_entrypoint.configuration",
    "import trio_entrypoint.activation",
    "import trio_entrypoint.supervisor",
    "import trio_entrypoint.entrypoint",
)
TOP = 25


def measure(stage: Stage) -> Figure:
    """Time whole interpreters, in turn; then let the last one tell its modules."""
    samples: dict[str, list[float]] = {}
    with stage.scratch() as directory:
        for _ in stage.rounds(15, 3):
            for statement in STATEMENTS:
                command = [sys.executable, "-I", "-c", statement]
                pid, begin = spawn(command, directory / "log", os.environ)
                status = os.waitpid(pid, 0)[1]
                if status == 0:
                    samples.setdefault(statement, []).append((time.monotonic_ns() - begin) / 1e6)
        command = [sys.executable, "-I", "-X", "importtime", "-c", STATEMENTS[-1]]
        pid, _ = spawn(command, directory / "modules", os.environ)
        os.waitpid(pid, 0)
        modules = (directory / "modules").read_text()
    return Figure(
        name="imports",
        title="Import time",
        unit="ms",
        series=[Series(f"`{case}`", "Python", values) for case, values in samples.items()],
        notes=["The whole interpreter, from its start to its end.", *_dearest(modules)],
    )


def _dearest(output: str) -> list[str]:
    """The modules that take most time themselves, as `-X importtime` tells it."""
    own: list[tuple[int, str]] = []
    for line in output.splitlines():
        if line.startswith("import time:") and "self" not in line:
            microseconds, _, module = line.removeprefix("import time:").split("|")
            own.append((int(microseconds), module.strip()))
    own.sort(reverse=True)
    listed = ", ".join(f"{module} {micro / 1000:.1f}" for micro, module in own[:TOP])
    return [f"Dearest modules of `{STATEMENTS[-1]}`, in ms of their own: {listed}."]
