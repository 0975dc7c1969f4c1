#!/usr/bin/env python3
r"""Two services in one container: the web server starts when the database is ready.

The order, and what the failure of one means for the other, are plain nursery code. Try it:

    python examples/two_services.py                # ends with the service that gives up first
    python examples/two_services.py --independent  # the others go on; ends with the last one

In another terminal kill one of the two servers until it has been restarted three times.
"""

import argparse
import logging
import sys
from functools import partial

import trio

import trio_entrypoint
from trio_entrypoint import (
    Always,
    ExitStatus,
    GaveUp,
    Health,
    HttpProbe,
    Limit,
    NotifyProbe,
    Readiness,
    Supervisor,
    TcpProbe,
    open_process,
)

# A 'database' that takes a while to read its files, and says by systemd's protocol when it is
# ready; any program that runs under `Type=notify` does the same.
DATABASE = """
import os, socket, time
server = socket.create_server(("127.0.0.1", PORT))
time.sleep(1.0)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(b"READY=1\\nSTATUS=42 tables", "\\0" + os.environ["NOTIFY_SOCKET"][1:])
while True:
    server.accept()[0].close()
"""

# A give-up after three restarts within a minute: the container ends, and its platform sees it.
RESTART = Always(limit=Limit(3, within=60.0))


def database(port: int) -> Supervisor:
    """Supervise the database."""
    return Supervisor(
        partial(open_process, [sys.executable, "-c", DATABASE.replace("PORT", str(port))]),
        name="database",
        restart=RESTART,
        readiness=Readiness(NotifyProbe(), timeout=30.0),
        health=Health(TcpProbe(port), period=5.0),
    )


def web(port: int) -> Supervisor:
    """Supervise the web server."""
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    probe = HttpProbe(f"http://127.0.0.1:{port}/")
    return Supervisor(
        partial(open_process, command),
        name="web",
        restart=RESTART,
        readiness=Readiness(probe, timeout=30.0),
        health=Health(probe, period=5.0),
    )


async def show(supervisor: Supervisor) -> None:
    """Print what happens."""
    async for transition in supervisor.events:
        print(transition, flush=True)


async def main(database_port: int, web_port: int, independent: bool) -> ExitStatus:
    """Run both, until one gives up; or, if they are independent, until both did."""
    services = [database(database_port), web(web_port)]
    failures: list[GaveUp] = []

    async def supervise(  # noqa: ASYNC114, ASYNC128 - the supervisor tells when it is ready
        service: Supervisor, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED
    ) -> None:
        # The policy of the group, in three lines: who gives up either takes the others along,
        # by cancelling the nursery that they share, or does not.
        try:
            await service.run(task_status)
        except GaveUp as error:
            failures.append(error)
            if not independent:
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for service in services:
            nursery.start_soon(show, service)
        for service in services:  # each is ready before the next one starts
            await nursery.start(partial(supervise, service))
    return failures[-1].exit_status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database-port", type=int, default=5433)
    parser.add_argument("--web-port", type=int, default=8081)
    parser.add_argument("--independent", action="store_true", help="the others go on")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    trio_entrypoint.run(partial(main, **vars(arguments)))
