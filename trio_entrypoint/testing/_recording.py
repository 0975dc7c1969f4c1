"""Recording what a channel tells, while a test does something."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from trio_entrypoint._nursery import open_background

__all__ = ["recording"]

T = TypeVar("T")


@asynccontextmanager
async def recording(events: "trio.MemoryReceiveChannel[T]") -> AsyncGenerator[list[T]]:
    """Record every event of a channel within the block, in a list that grows.

    It works for every channel here: a handler's `events` and `results`, a supervisor's
    `events` and `states`. Before a look at the list let the tasks come to rest.

    Example::

        async with recording(supervisor.events) as transitions:
            process.current.exit(1)
            await trio.testing.wait_all_tasks_blocked()
        assert Cause.ENDED in [transition.cause for transition in transitions]
    """
    recorded: list[T] = []

    async def record() -> None:
        async for event in events:
            recorded.append(event)  # noqa: PERF401 - the list is looked at while it grows

    async with open_background(record):
        yield recorded
