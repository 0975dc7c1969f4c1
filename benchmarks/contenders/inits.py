"""No entrypoint at all (the floor), and the two init programs that only start and forward."""

from collections.abc import Sequence

from benchmarks.contenders import Contender, Job

NOTHING = "none"


def _bare(job: Job) -> Sequence[str]:
    return job.application


def _tini(job: Job) -> Sequence[str]:
    # Not PID 1 here, so it has to be told to adopt orphans.
    return ["tini", "-s", "--", *job.application]


def _dumb_init(job: Job) -> Sequence[str]:
    return ["dumb-init", "--", *job.application]


CONTENDERS = (
    Contender(
        name=NOTHING, package="-", program="true", prepare=_bare, restarts=False, many=False
    ),
    Contender(
        name="tini", package="tini", program="tini", prepare=_tini, restarts=False, many=False
    ),
    Contender(
        name="dumb-init",
        package="dumb-init",
        program="dumb-init",
        prepare=_dumb_init,
        restarts=False,
        many=False,
    ),
)
