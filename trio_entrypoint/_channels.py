"""The two kinds of channel that handlers and supervisors tell by; neither holds a producer up.

States are told by a `NewestChannel`. A state that changed twice while its consumer was busy is
told once, as it is now: the buffer holds one value, and a newer one replaces it.

What each counts, as results and transitions do, is told by an `ObserverChannel`: it drops and
merges nothing, but costs nothing either before somebody asks for it.
"""

import math
from types import TracebackType
from typing import Generic, TypeVar, final

import trio

T = TypeVar("T")

ACTIVATION = "activation: share it with open_shared_activation"
"""For `refuse_second_receiver`."""


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


class ObserverChannel(Generic[T]):
    """An unbounded channel that is only filled once there is somebody to empty it.

    It ends when its block is left, as a `NewestChannel` does.
    """

    def __init__(self) -> None:
        self._send: trio.MemorySendChannel[T] | None = None
        self._events: trio.MemoryReceiveChannel[T] | None = None
        self._ended = False

    @property
    def events(self) -> "trio.MemoryReceiveChannel[T]":
        """Every value since this was first asked for; the same receiver every time."""
        if self._events is None:
            self._send, self._events = trio.open_memory_channel[T](math.inf)
            if self._ended:
                self._send.close()
        return self._events

    @property
    def observed(self) -> bool:
        """Whether anybody asked, so that a value is worth making."""
        return self._send is not None

    def send(self, value: T) -> None:
        """Hand a value to the observer, if there is one. Never waits."""
        if self._send is None:
            return
        try:
            self._send.send_nowait(value)
        except trio.BrokenResourceError:  # the observer went away
            self._send.close()
            self._send = None

    def __enter__(self) -> "ObserverChannel[T]":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        if self._send is not None:
            self._send.close()


def refuse_second_receiver(events: "trio.MemoryReceiveChannel[T]", of: str) -> None:
    """Make sure that nobody else waits for a handler's events: each goes to one task only.

    Args:
        events: The events.
        of: What they are of, and what to do instead.

    Raises:
        RuntimeError: Somebody does.
    """
    if events.statistics().tasks_waiting_receive:
        raise RuntimeError(f"somebody else receives the events of this {of}")


@final
class SoleReceiver(Generic[T]):
    """Iterates over a handler's events as `refuse_second_receiver` has it, before each of them.

    Once would not do: of two that begin at the same moment, one has the first event in its hands
    when the other looks.
    """

    def __init__(self, events: "trio.MemoryReceiveChannel[T]", of: str) -> None:
        self._events = events
        self._of = of

    def __aiter__(self) -> "SoleReceiver[T]":
        return self

    async def __anext__(self) -> T:
        refuse_second_receiver(self._events, self._of)
        return await self._events.__anext__()
