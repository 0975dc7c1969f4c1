"""trio-entrypoint, as its own command."""

from collections.abc import Sequence

from benchmarks.contenders import Contender, Job

NAME = "trio-entrypoint"


def _command(job: Job) -> Sequence[str]:
    options: list[str] = []
    if job.activation is not None:
        options += ["--active-file", str(job.activation)]
    if job.source is not None:
        options += ["--config-tar", f"{job.source}:{job.target}"]
    return [NAME, "run", *options, "--", *job.application]


CONTENDERS = (
    Contender(name=NAME, package=NAME, program=NAME, prepare=_command, many=False, activates=True),
)
