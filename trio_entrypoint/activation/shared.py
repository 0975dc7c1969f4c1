"""`open_shared_activation`: one activation for several supervisors.

The events of a handler go to whoever receives them first. What several have to hear is told
to each of them here.
"""

from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import final

import trio

from trio_entrypoint._channels import ACTIVATION, NewestChannel, SoleReceiver
from trio_entrypoint._nursery import open_lasting_background
from trio_entrypoint.activation.combined import first_event
from trio_entrypoint.handlers import ActivationChanged, ActivationHandler


@final
class SharedActivation:
    """One of several handlers of one activation. `open_shared_activation` makes it."""

    def __init__(
        self, handler: ActivationHandler, channel: NewestChannel[ActivationChanged]
    ) -> None:
        self._handler = handler
        self._channel = channel

    @property
    def events(self) -> trio.MemoryReceiveChannel[ActivationChanged]:
        """The newest state; the first is the state at opening time."""
        return self._channel.events

    @property
    def active(self) -> bool:
        """Whether the activation is active now: the handler is asked at each reading."""
        return self._handler.active

    @property
    def token(self) -> str | None:
        """The fencing token of the activation now."""
        return self._handler.token


@asynccontextmanager
async def open_shared_activation(
    handler: ActivationHandler, count: int
) -> AsyncGenerator[tuple[SharedActivation, ...]]:
    """Let several supervisors follow one activation: services of one lease, say.

    Each of them starts and stops its process on its own. All processes have to be gone by a
    lease's deadline, and the lease is given back when the last one is.

    Args:
        handler: An open handler. Its events are taken: nobody else can receive them.
        count: How many handlers are needed, one for each supervisor.

    Raises:
        RuntimeError: Somebody else receives the handler's events.
        ValueError: The count is not positive.

    Example::

        async with (
            open_etcd_activation(endpoints, "/services/shop") as elected,
            open_shared_activation(elected, 2) as (for_database, for_web),
            trio.open_nursery() as nursery,
        ):
            await nursery.start(Supervisor(database, activation=for_database).run)
            await nursery.start(Supervisor(web, activation=for_web).run)
    """
    if count < 1:
        raise ValueError(f"count: expected at least one handler, not {count}")
    channels = [NewestChannel[ActivationChanged]() for _ in range(count)]
    first = first_event(handler)
    for channel in channels:
        channel.send(first)
    async with open_lasting_background(partial(_tell_all, handler, channels)):
        yield tuple(SharedActivation(handler, channel) for channel in channels)


async def _tell_all(
    handler: ActivationHandler, channels: list[NewestChannel[ActivationChanged]]
) -> None:
    with ExitStack() as stack:
        for channel in channels:
            stack.enter_context(channel)
        async for event in SoleReceiver(handler.events, ACTIVATION):
            for channel in channels:
                channel.send(event)
