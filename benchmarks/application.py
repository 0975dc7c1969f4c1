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
    """The application did not report in time: the contender did not start it, or has ended."""


@final
class Reports:
    """Receives the reports of one contender's applications."""

    def __init__(self, receiver: socket.socket, path: Path) -> None:
        self._receiver = receiver
        self.path = path

    def fileno(self) -> int:
        """The descriptor that is readable when there is a report."""
        return self._receiver.fileno()

    def receive(self) -> Report | None:
        """Take the next report, if there is one."""
        try:
            told = self._receiver.recv(256, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        pid, at, contents = told.decode().split(" ", 2)
        return Report(int(pid), int(at), contents.strip())


@contextmanager
def open_reports(directory: Path) -> Iterator[Reports]:
    """Listen in a directory for the applications that are told this path."""
    path = directory / "reports"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as receiver:
        receiver.bind(str(path))
        yield Reports(receiver, path)
