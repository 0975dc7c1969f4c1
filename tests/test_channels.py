"""Channels keep the newest value, or all once somebody asked, and never hold a producer up."""

import pytest
import trio
import trio.testing

from trio_entrypoint._channels import NewestChannel, ObserverChannel


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


async def test_an_observer_gets_every_value_since_it_asked_first() -> None:
    with ObserverChannel[int]() as channel:
        channel.send(0)
        assert not channel.observed
        observer = channel.events
        assert channel.observed
        for value in range(1, 4):
            channel.send(value)
        assert channel.events is observer
    assert [value async for value in observer] == [1, 2, 3]


async def test_who_asks_after_the_end_is_told_that_it_has_ended() -> None:
    with ObserverChannel[int]() as channel:
        pass
    assert [value async for value in channel.events] == []


async def test_an_observer_that_left_costs_no_more() -> None:
    with ObserverChannel[int]() as channel:
        channel.events.close()
        channel.send(1)
        assert not channel.observed
        channel.send(2)
