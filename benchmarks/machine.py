"""What was measured on: enough to judge the figures, nothing that names the machine."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.contenders import Contender

# How a program tells its version; the others are asked of the package manager.
_PYTHON = ("supervisor", "circus", "honcho", "trio", "trio-entrypoint")


def describe_machine(scratch: Path) -> dict[str, str]:
    """Processor, memory, kernel, file system, Python."""
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    file_system = subprocess.run(
        ["stat", "-f", "-c", "%T", scratch], check=True, capture_output=True, text=True
    ).stdout.strip()
    return {
        "processor": f"{len(os.sched_getaffinity(0))} x {processor}",
        "memory": f"{memory:.0f} GB",
        "kernel": ".".join(platform.release().split(".")[:2]),
        "file system of the configuration": file_system,
        "Python": platform.python_version(),
    }


def _output(command: Sequence[str]) -> str:
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else ""


def versions(contenders: Sequence[Contender], pythons: Mapping[str, str]) -> dict[str, str]:
    """The version of each contender, from where it was installed.

    Args:
        contenders: Whom to ask for.
        pythons: The interpreter in whose environment a Python package is installed.
    """
    found: dict[str, str] = {}
    for contender in contenders:
        if contender.package in _PYTHON:
            python = pythons.get(contender.package, "python3")
            code = f"from importlib.metadata import version; print(version('{contender.package}'))"
            version = _output([python, "-c", code])
        elif shutil.which("dpkg-query"):
            version = _output(["dpkg-query", "-W", "-f", "${Version}", contender.package])
        else:
            version = ""
        if contender.package != "-":
            found[contender.name] = version or "unknown"
    return found
