"""An entrypoint whose application cannot be stopped politely, elected in etcd.

supervised_contender.py RECORD hold KEYWORDS ENDPOINTS...

The application records when it ran, as `contender.py` does: its fencing token and the time.
"""

import json
import sys
from functools import partial

import trio

from trio_entrypoint import Supervisor, open_etcd_activation, open_process

APPLICATION = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
token = os.environ["TRIO_ENTRYPOINT_FENCING_TOKEN"]
while True:
    os.write(fd, f"{token} {time.monotonic_ns()}\\n".encode())
    time.sleep(0.001)
"""


async def main(record: str, keywords: str, endpoints: list[str]) -> None:
    command = [sys.executable, "-SEc", APPLICATION, record]
    async with open_etcd_activation(endpoints, **json.loads(keywords)) as activation:
        await Supervisor(
            partial(open_process, command, grace_period=60), activation=activation
        ).run()


trio.run(main, sys.argv[1], sys.argv[3], sys.argv[4:])
