"""The clock on which leases are counted."""

import os
import time

import pytest
import trio
import trio.testing

from trio_entrypoint._linux.boottime import BootClock


async def test_it_is_the_time_since_boot() -> None:
    with open("/proc/uptime") as file:
        uptime = float(file.read().split()[0])
    # A time namespace may shift both by as much.
    assert BootClock().now() == pytest.approx(uptime, abs=0.5)


async def test_it_sleeps_until_a_time_and_not_less() -> None:
    clock = BootClock()
    deadline = clock.now() + 0.05
    await clock.sleep_until(deadline)
    assert deadline <= clock.now() < deadline + 0.5


async def test_a_time_that_has_passed_is_a_checkpoint() -> None:
    with trio.testing.assert_checkpoints():
        await BootClock().sleep_until(0)


@pytest.mark.parametrize("deadline", [2.0**63, 1e300, float("inf")])
async def test_a_time_beyond_every_clock_is_never(deadline: float) -> None:
    with trio.move_on_after(0.01) as scope:
        await BootClock().sleep_until(deadline)
    assert scope.cancelled_caught


async def test_a_cancelled_sleep_leaves_no_descriptor_open() -> None:
    clock = BootClock()
    before = os.listdir("/proc/self/fd")
    with trio.move_on_after(0.01):
        await clock.sleep_until(clock.now() + 3600)
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_sleeping_takes_no_cpu_time() -> None:
    clock = BootClock()
    used = time.process_time()
    await clock.sleep_until(clock.now() + 0.5)
    assert time.process_time() - used < 0.05
