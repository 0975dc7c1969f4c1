"""Results for observers: every one since somebody first asked, none dropped."""

import math
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class ResultChannel(Generic[T]):
    """An unbounded channel that is only filled once there is somebody to empty it."""

    def __init__(self) -> None:
        self._sender: trio.MemorySendChannel[T] | None = None
        self._receiver: trio.MemoryReceiveChannel[T] | None = None
        self._ended = False

    @property
    def receiver(self) -> "trio.MemoryReceiveChannel[T]":
        """For the observer; the same one every time."""
        if self._receiver is None:
            self._sender, self._receiver = trio.open_memory_channel[T](math.inf)
            if self._ended:
                self._sender.close()
        return self._receiver

    def send(self, value: T) -> None:
        """Hand a result to the observer, if there is one."""
        if self._sender is not None:
            with suppress(trio.BrokenResourceError):  # the observer went away
                self._sender.send_nowait(value)

    def __enter__(self) -> "ResultChannel[T]":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        if self._sender is not None:
            self._sender.close()
