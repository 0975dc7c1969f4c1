"""Background tasks live as long as their block, and errors come out as they were raised."""

import pytest
import trio

from trio_entrypoint._nursery import open_background


async def test_the_tasks_end_with_the_block() -> None:
    ended = trio.Event()

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with open_background(task):
        await trio.lowlevel.checkpoint()
    assert ended.is_set()


async def test_the_blocks_own_exception_comes_out_as_it_is() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as raised:
        async with open_background(trio.sleep_forever):
            raise error
    assert raised.value is error


async def test_a_group_that_the_block_raised_stays_a_group() -> None:
    with pytest.RaisesGroup(KeyError, ValueError):
        async with open_background(trio.sleep_forever):
            raise ExceptionGroup("mine", [KeyError(), ValueError()])


async def test_a_failing_task_cancels_the_block_and_comes_out_as_it_is() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("broken for good")

    with pytest.raises(OSError, match="broken for good"):
        async with open_background(fail):
            await trio.sleep_forever()


async def test_two_failures_are_a_group() -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("second")

    with pytest.RaisesGroup(KeyError, OSError):
        async with open_background(fail):
            await trio.lowlevel.checkpoint()
            raise KeyError("first")


async def test_cancellation_from_outside_is_cancellation() -> None:
    with trio.move_on_after(0.01) as scope:
        async with open_background(trio.sleep_forever):
            with pytest.raises(trio.Cancelled):
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
