"""Thousands of processes one after the other, hundreds at once: nothing grows, nothing wakes."""

import gc
import os
import resource
import threading
from collections.abc import Generator
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_entrypoint import open_process


def resources() -> dict[str, int]:
    gc.collect()
    status = Path("/proc/self/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "children": len(children),
        "memory": int(resident.split()[1]),
    }


async def test_two_thousand_processes_leave_nothing_behind() -> None:
    async def one_after_the_other(count: int) -> None:
        for _ in range(count):
            async with open_process(["true"]) as process:
                await process.wait()

    async with open_process(["sleep", "1000"]):  # keeps the reaper
        await one_after_the_other(200)
        before = resources()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(one_after_the_other, 500)
        after = resources()
    assert after["memory"] - before["memory"] < 1024  # kB
    # Trio's threads of an earlier test may end meanwhile.
    assert after["threads"] <= before["threads"]
    for counted in ("memory", "threads"):
        del before[counted], after[counted]
    assert after == before


@pytest.fixture
def many_descriptors() -> Generator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
async def test_an_entrypoint_of_five_hundred_idle_processes_never_wakes_up() -> None:
    def switches() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("voluntary_ctxt")).split()[1])

    async def run_one(ready: trio.Event) -> None:
        async with open_process(["sleep", "1000"]):
            ready.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        memory = resources()["memory"]
        for _ in range(500):
            ready = trio.Event()
            nursery.start_soon(run_one, ready)
            await ready.wait()
        assert (resources()["memory"] - memory) / 500 < 60  # kB, with room for noise
        await trio.testing.wait_all_tasks_blocked(0.05)
        before = switches()
        await trio.sleep(2)
        assert switches() - before <= 1  # that of this task
        nursery.cancel_scope.cancel()
