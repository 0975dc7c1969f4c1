"""The peers that are written in Python: supervisord, circus, honcho."""

import shlex
from collections.abc import Sequence

from benchmarks.contenders import Contender, Job, write


def _supervisord(job: Job) -> Sequence[str]:
    copies = f"numprocs = {job.copies}\nprocess_name = app%(process_num)d\n"
    write(
        job.directory / "supervisord.conf",
        f"[supervisord]\nnodaemon = true\n"
        f"logfile = {job.directory}/supervisord.log\npidfile = {job.directory}/pid\n"
        f"childlogdir = {job.directory}\nminfds = 4096\n"
        f"[program:app]\ncommand = {shlex.join(job.application)}\nautorestart = true\n"
        + (copies if job.copies > 1 else ""),
    )
    return ["supervisord", "-c", str(job.directory / "supervisord.conf")]


def _circus(job: Job) -> Sequence[str]:
    write(
        job.directory / "circus.ini",
        f"[circus]\nendpoint = ipc://{job.directory}/endpoint\n"
        f"pubsub_endpoint = ipc://{job.directory}/pubsub\n"
        f"[watcher:app]\ncmd = {shlex.join(job.application)}\n"
        f"numprocesses = {job.copies}\ncopy_env = true\n",
    )
    return ["circusd", str(job.directory / "circus.ini")]


def _honcho(job: Job) -> Sequence[str]:
    write(job.directory / "Procfile", f"app: {shlex.join(job.application)}\n")
    return [
        "honcho",
        "start",
        "-f",
        str(job.directory / "Procfile"),
        "-d",
        str(job.directory),
        "-c",
        f"app={job.copies}",
    ]


CONTENDERS = (
    Contender(
        name="supervisord", package="supervisor", program="supervisord", prepare=_supervisord
    ),
    Contender(name="circus", package="circus", program="circusd", prepare=_circus),
    Contender(name="honcho", package="honcho", program="honcho", prepare=_honcho, restarts=False),
)
