"""s6 and runit: a directory of services, one small supervisor process for each."""

import shlex
from collections.abc import Sequence
from signal import SIGHUP, SIGTERM

from benchmarks.contenders import Contender, Job, write


def _services(job: Job) -> str:
    run = f"#!/bin/sh\nexec {shlex.join(job.application)}\n"
    for number in range(job.copies):
        write(job.directory / "services" / f"app{number}" / "run", run, executable=True)
    return str(job.directory / "services")


def _service(job: Job) -> str:
    return str(job.directory / "services" / "app0")


def _s6(job: Job) -> Sequence[str]:
    return ["s6-svscan", _services(job)]


def _runit(job: Job) -> Sequence[str]:
    return ["runsvdir", "-P", _services(job)]


CONTENDERS = (
    Contender(
        name="s6",
        package="s6",
        program="s6-svscan",
        prepare=_s6,
        shutdown_signal=SIGTERM,
        up=lambda job: ["s6-svc", "-u", _service(job)],
        down=lambda job: ["s6-svc", "-d", _service(job)],
    ),
    Contender(
        name="runit",
        package="runit",
        program="runsvdir",
        prepare=_runit,
        shutdown_signal=SIGHUP,  # SIGTERM would leave the services running
        up=lambda job: ["sv", "up", _service(job)],
        down=lambda job: ["sv", "down", _service(job)],
    ),
)
