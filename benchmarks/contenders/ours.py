"""trio-entrypoint, as its own command, and the library in the shortest program."""

import json
import sys
from collections.abc import Sequence

from benchmarks.contenders import Contender, Job, write

NAME = "trio-entrypoint"
LIBRARY = "trio-entrypoint (library)"


def _command(job: Job) -> Sequence[str]:
    if job.copies > 1:
        services = "".join(
            f"[service.app{number}]\ncommand = {json.dumps(list(job.application))}\n"
            for number in range(job.copies)
        )
        write(job.directory / "entrypoint.toml", services)
        return [NAME, "run", "-f", str(job.directory / "entrypoint.toml")]
    options: list[str] = []
    if job.activation is not None:
        options += ["--active-file", str(job.activation)]
    if job.source is not None:
        options += ["--config-tar", f"{job.source}:{job.target}"]
    return [NAME, "run", *options, "--", *job.application]


_PROGRAM = """\
from functools import partial

import trio
from trio_entrypoint import Supervisor, open_process, run


async def main() -> None:
    async with trio.open_nursery() as nursery:
        for _ in range({copies}):
            nursery.start_soon(Supervisor(partial(open_process, {application})).run)


run(main)
"""


def _library(job: Job) -> Sequence[str]:
    text = _PROGRAM.format(copies=job.copies, application=list(job.application))
    write(job.directory / "entrypoint.py", text)
    return [sys.executable, "-I", str(job.directory / "entrypoint.py")]


CONTENDERS = (
    Contender(
        name=NAME, package=NAME, program=NAME, prepare=_command, activates=True, configures=True
    ),
    Contender(name=LIBRARY, package=NAME, program=NAME, prepare=_library),
)
