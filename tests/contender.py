"""A program that contends for activation, and records when it was active, on CLOCK_MONOTONIC.

contender.py RECORD cycle|hold KEYWORDS ENDPOINTS...

One line for each moment at which it was seen to be active: the activation's token and the time
in nanoseconds, taken before looking. `cycle` gives each activation back after a moment and
contends again; `hold` keeps it.
"""

import json
import math
import os
import random
import sys
import time

import trio

from trio_entrypoint import open_etcd_activation
from trio_entrypoint.activation._leased import LeaseActivation


async def main(record: str, mode: str, keywords: str, endpoints: list[str]) -> None:
    fd = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    settings = json.loads(keywords)
    while True:
        async with open_etcd_activation(endpoints, **settings) as activation:
            async for event in activation.events:
                if event.active:
                    hold = random.uniform(0, 0.01) if mode == "cycle" else math.inf
                    with trio.move_on_after(hold):
                        await be_active(activation, event.token, fd)
                    if mode == "cycle":
                        break


async def be_active(activation: LeaseActivation, token: str | None, fd: int) -> None:
    while True:
        now = time.monotonic_ns()
        if activation.token != token:
            return
        os.write(fd, f"{token} {now}\n".encode())
        await trio.sleep(0.001)


trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
