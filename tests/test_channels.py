"""Newest-wins channels keep one value, the newest, and never hold the producer up."""

import pytest
import trio
import trio.testing

from trio_entrypoint._channels import NewestChannel


async def test_a_slow_consumer_gets_the_newest_value_once() -> None:
    with NewestChannel[int]() as channel:
        for value in range(5):
            channel.send(value)
        assert await channel.events.receive() == 4
        with pytest.raises(trio.WouldBlock):
            channel.events.receive_nowait()


async def test_what_was_not_taken_survives_the_end_of_the_producer() -> None:
    with NewestChannel[int]() as channel:
        channel.send(1)
    assert [value async for value in channel.events] == [1]


async def test_a_consumer_that_left_does_not_break_the_producer() -> None:
    with NewestChannel[int]() as channel:
        channel.events.close()
        channel.send(1)
        channel.send(2)


async def test_a_waiting_consumer_is_woken_by_each_value() -> None:
    received: list[int] = []

    async def consume(events: trio.MemoryReceiveChannel[int]) -> None:
        received.extend([value async for value in events])

    async with trio.open_nursery() as nursery:
        with NewestChannel[int]() as channel:
            nursery.start_soon(consume, channel.events)
            for value in range(3):
                await trio.testing.wait_all_tasks_blocked()
                channel.send(value)
    assert received == [0, 1, 2]
