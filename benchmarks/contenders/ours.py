"""trio-entrypoint, as its own command."""

import json
from collections.abc import Sequence

from benchmarks.contenders import Contender, Job, write

NAME = "trio-entrypoint"


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


CONTENDERS = (Contender(name=NAME, package=NAME, program=NAME, prepare=_command, activates=True),)
