"""Where a measurement takes place: scratch directories, contenders that run, repetitions."""

import os
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

import attrs

from benchmarks.application import ApplicationSilentError, Report, Reports, open_reports
from benchmarks.contenders import Contender, Job
from benchmarks.processes import (
    activity,
    children,
    end_orphans,
    end_tree,
    ended,
    open_pidfd,
    spawn,
    tree,
)

SETTLED = 0.3
"""Seconds in which a program that has started up uses less than 2 % of a processor."""


@final
@attrs.frozen(kw_only=True)
class Stage:
    """What every figure is given."""

    directory: Path
    application: Path
    contenders: Sequence[Contender]
    quick: bool = False

    def rounds(self, full: int, quick: int) -> Iterator[int]:
        """Count repetitions, telling how far we are."""
        total = quick if self.quick else full
        for number in range(total):
            self.say(f"  round {number + 1} of {total}", end="\r")
            yield number
        self.say("", end="\033[K")

    def say(self, text: str, end: str = "\n") -> None:
        """Tell the person who waits; standard output is for results."""
        print(text, end=end, file=sys.stderr, flush=True)

    def shuffled(self, contenders: Sequence[Contender], number: int) -> list[Contender]:
        """The contenders of one round, in an order of its own, the same in every run."""
        return random.Random(number).sample(contenders, len(contenders))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory of one's own (with a short path: it holds Unix sockets)."""
        with tempfile.TemporaryDirectory(dir=self.directory, ignore_cleanup_errors=True) as path:
            yield Path(path)

    @contextmanager
    def job(
        self, *, copies: int = 1, activation: bool = False, configured: bool = False
    ) -> Iterator[tuple[Job, Reports]]:
        """What a contender shall run, and the ear for its reports."""
        with self.scratch() as directory, open_reports(directory) as reports:
            command = [str(self.application), str(reports.path)]
            target = directory / "configuration"
            if configured:
                command.append(str(target / "version"))
            yield (
                Job(
                    directory=directory,
                    application=command,
                    copies=copies,
                    activation=directory / "active" if activation else None,
                    source=directory / "configuration.tar" if configured else None,
                    target=target if configured else None,
                ),
                reports,
            )


@final
@attrs.frozen
class Performance:
    """A contender that runs its job."""

    contender: Contender
    job: Job
    reports: Reports
    pid: int
    begin: int
    """When it was started, in nanoseconds of the monotonic clock."""

    def main(self, timeout: float = 15.0) -> Report:
        """The next start of its application; it fails at once when the contender has ended."""
        with open_pidfd(self.pid) as entrypoint:
            poll = select.poll()
            poll.register(entrypoint, select.POLLIN)
            poll.register(self.reports.fileno(), select.POLLIN)
            poll.poll(timeout * 1000)
        report = self.reports.receive()
        if report is None:
            log = (self.job.directory / "log").read_text(errors="replace")[-800:]
            raise ApplicationSilentError(
                f"{self.contender.name} did not start the application within {timeout:g} s, "
                f"or ended:\n{log}"
            )
        return report

    def own_processes(self, applications: Sequence[int]) -> list[int]:
        """The processes of the contender itself."""
        return [pid for pid in tree(self.pid) if pid not in applications]

    def settle(self, application: int, timeout: float = 30.0) -> None:
        """Wait until it is done with its own start, which may go on after the application's."""
        deadline = time.monotonic() + timeout
        before, now = -1, 0
        while now - before > SETTLED * 1e9 * 0.02:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.contender.name} is busy after {timeout:g} s")
            before = activity(self.own_processes([application])).cpu
            time.sleep(SETTLED)
            now = activity(self.own_processes([application])).cpu

    def shut_down(self, applications: Sequence[int], timeout: float = 30.0) -> None:
        """End it by its own signal and wait until it and the applications have gone."""
        descriptors = [os.pidfd_open(pid) for pid in (self.pid, *applications)]
        try:
            os.kill(self.pid, self.contender.shutdown_signal)
            if not ended(descriptors, timeout):
                raise TimeoutError(f"{self.contender.name} did not end within {timeout:g} s")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


@contextmanager
def open_performance(contender: Contender, job: Job, reports: Reports) -> Iterator[Performance]:
    """Start a contender; afterwards nothing of it is left."""
    others = set(children(os.getpid()))
    command = contender.prepare(job)
    pid, begin = spawn(command, job.directory / "log", os.environ)
    try:
        yield Performance(contender, job, reports, pid, begin)
    finally:
        end_tree(pid)
        end_orphans(others)


@contextmanager
def stopped(pid: int) -> Iterator[int]:
    """A pidfd of an application that is expected to end inside the block."""
    with open_pidfd(pid) as descriptor:
        yield descriptor
        if not ended([descriptor], 15.0):
            raise TimeoutError(f"process {pid} did not end")


def kill(pid: int) -> None:
    """End an application as a crash would."""
    os.kill(pid, signal.SIGKILL)
