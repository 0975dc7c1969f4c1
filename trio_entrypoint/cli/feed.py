"""The newest entries of a log in memory, and everybody who follows it.

A follower that is too slow is dropped: nobody waits for it, and what is kept for it is bounded.
"""

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Generic, TypeVar

import trio

__all__ = ["Feed"]

T = TypeVar("T")

_BEHIND = 256


class Feed(Generic[T]):
    """Keeps the last `size` entries and passes each new one on.

    Example::

        with feed.follow() as entries:
            async for entry in entries: ...
    """

    def __init__(self, size: int) -> None:
        self._entries: deque[T] = deque(maxlen=size)
        self._followers: set[trio.MemorySendChannel[T]] = set()

    def publish(self, entry: T) -> None:
        """Keep an entry and pass it on. Never waits."""
        self._entries.append(entry)
        for follower in list(self._followers):
            try:
                follower.send_nowait(entry)
            except (trio.WouldBlock, trio.BrokenResourceError):
                self._followers.discard(follower)
                follower.close()

    def recent(self) -> list[T]:
        """Give the entries that are kept, oldest first."""
        return list(self._entries)

    @contextmanager
    def follow(self) -> Generator[trio.MemoryReceiveChannel[T], None, None]:
        """Receive every entry from now on. The channel ends when the follower falls behind."""
        send, receive = trio.open_memory_channel[T](_BEHIND)
        self._followers.add(send)
        with send, receive:
            try:
                yield receive
            finally:
                self._followers.discard(send)
