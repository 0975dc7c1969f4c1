"""Newest-wins channels: how state-like events reach a consumer.

A state that changed twice while its consumer was busy is told once, as it is now. So the
buffer holds one value, a newer value replaces it, and sending never waits: a slow consumer
neither sees a stale value nor holds its producer up.
"""

from types import TracebackType
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class NewestChannel(Generic[T]):
    """A channel whose buffer is the newest value; it ends when its block is left.

    The receiver stays open: what was buffered when the block ended can still be taken, then
    comes `trio.EndOfChannel`.

    Example::

        with NewestChannel[int]() as channel:
            channel.send(1)
            channel.send(2)
            assert await channel.events.receive() == 2
    """

    events: trio.MemoryReceiveChannel[T]
    """For the consumer, who may close it."""

    def __init__(self) -> None:
        self._send, self.events = trio.open_memory_channel[T](1)
        # A second receiver makes room, and keeps a consumer's close from breaking the producer.
        self._unread = self.events.clone()

    def send(self, value: T) -> None:
        """Make `value` the next one received. Never waits; harmless when nobody listens."""
        try:
            self._send.send_nowait(value)
        except trio.WouldBlock:
            self._unread.receive_nowait()
            self._send.send_nowait(value)

    def __enter__(self) -> "NewestChannel[T]":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._send.close()
        self._unread.close()
