"""The application under the entrypoints: building it, and hearing when its main began."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

import attrs

SOURCE = Path(__file__).with_name("application.c")


def build_application(directory: Path) -> Path:
    """Compile the application, statically: the loader's time is not what is measured."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("no C compiler found: install gcc (and libc6-dev)")
    program = directory / "application"
    subprocess.run([compiler, "-O2", "-static", "-o", program, SOURCE], check=True)
    return program


@final
@attrs.frozen
class Report:
    """What one start of the application told."""

    pid: int
    at: int
    """When main began, in nanoseconds of `time.monotonic_ns`."""
    contents: str
    """The beginning of the file that the application was given."""


class ApplicationSilentError(Exception):
    """The application did not report in time, so the contender did not start it."""


@final
class Reports:
    """Receives the reports of one contender's applications."""

    def __init__(self, receiver: socket.socket, path: Path) -> None:
        self._receiver = receiver
        self.path = path

    def receive(self, timeout: float = 15.0) -> Report:
        """Wait for the next report, at most `timeout` seconds."""
        self._receiver.settimeout(timeout)
        try:
            pid, at, contents = self._receiver.recv(256).decode().split(" ", 2)
        except (TimeoutError, BlockingIOError):
            message = f"the application did not start within {timeout:g} s ({self.path.parent})"
            raise ApplicationSilentError(message) from None
        return Report(int(pid), int(at), contents.strip())

    def drain(self) -> list[Report]:
        """Take what has come unexpectedly, without waiting."""
        found: list[Report] = []
        while True:
            try:
                found.append(self.receive(0))
            except ApplicationSilentError:
                return found


@contextmanager
def open_reports(directory: Path) -> Iterator[Reports]:
    """Listen in a directory for the applications that are told this path."""
    path = directory / "reports"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as receiver:
        receiver.bind(str(path))
        yield Reports(receiver, path)
