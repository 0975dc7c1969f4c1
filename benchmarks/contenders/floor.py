"""The floor of a Trio program: the least that starts, restarts, activates and stops.

It promises nothing: it signals one process, does not look for others, and keeps no state. What
ours takes beyond this is the price of its promises, and what can still be gained.
"""

import sys
from collections.abc import Sequence

from benchmarks.contenders import Contender, Job, write

FLOOR = "bare Trio"

_PROGRAM = """\
import os
import signal
import sys

import trio

from trio_entrypoint._linux.inotify import Inotify, Mask

active, *command = sys.argv[1:]


async def activation() -> None:
    inotify = Inotify()
    inotify.add_watch(os.fsencode(os.path.dirname(active)), Mask.MOVED_TO | Mask.MOVED_FROM)
    while True:
        while not os.path.exists(active):
            await trio.lowlevel.wait_readable(inotify.fd)
            inotify.read()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service)
            while os.path.exists(active):
                await trio.lowlevel.wait_readable(inotify.fd)
                inotify.read()
            nursery.cancel_scope.cancel()


async def service() -> None:
    while True:
        pid = os.posix_spawn(command[0], command, os.environ)
        pidfd = os.pidfd_open(pid)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        except trio.Cancelled:
            os.kill(pid, signal.SIGTERM)
            with trio.CancelScope(shield=True):
                await trio.lowlevel.wait_readable(pidfd)
            raise
        finally:
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            os.close(pidfd)


async def main() -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(activation if active else service)
            async for _ in signals:
                nursery.cancel_scope.cancel()


trio.run(main)
os._exit(0)
"""


def _prepare(job: Job) -> Sequence[str]:
    program = job.directory / "floor.py"
    write(program, _PROGRAM)
    return [sys.executable, "-I", str(program), str(job.activation or ""), *job.application]


CONTENDERS = (
    Contender(
        name=FLOOR,
        package="trio",
        program=sys.executable,
        prepare=_prepare,
        many=False,
        activates=True,
        configures=False,
    ),
)
