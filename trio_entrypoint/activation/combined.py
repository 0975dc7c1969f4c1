"""`open_all_activation`, `open_any_activation`: several activations as one.

Both follow handlers that are open already, and take their events from them.
"""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import final

import trio

from trio_entrypoint._channels import ACTIVATION, NewestChannel, SoleReceiver
from trio_entrypoint._nursery import open_lasting_background
from trio_entrypoint.handlers import ActivationChanged, ActivationHandler


@final
class CombinedActivation:
    """Several activations as one. `open_all_activation` or `open_any_activation` makes it."""

    def __init__(
        self,
        handlers: tuple[ActivationHandler, ...],
        combine: Callable[[Iterable[bool]], bool],
        channel: NewestChannel[ActivationChanged],
    ) -> None:
        self._handlers = handlers
        self._combine = combine
        self._channel = channel
        self._newest = [first_event(handler) for handler in handlers]
        self._ended: set[int] = set()
        self._told = self._active_or(None)
        channel.send(self._told)

    @property
    def events(self) -> trio.MemoryReceiveChannel[ActivationChanged]:
        """The newest state; the first is the state at opening time."""
        return self._channel.events

    @property
    def active(self) -> bool:
        """Whether the combination is active now: each handler is asked at each reading."""
        return self._combine(self._is_active(index) for index in range(len(self._handlers)))

    @property
    def token(self) -> str | None:
        """The token of the first handler that has one; None while the combination is inactive."""
        tokens = (
            handler.token for index, handler in enumerate(self._handlers) if self._is_active(index)
        )
        return next(filter(None, tokens), None) if self.active else None

    def _is_active(self, index: int) -> bool:
        """Whether a handler is active now. For one that has ended nobody vouches."""
        return index not in self._ended and self._handlers[index].active

    async def follow(self, index: int) -> None:
        """Tell what one handler's events change, as long as they come."""
        async for event in SoleReceiver(self._handlers[index].events, ACTIVATION):
            self._tell(index, event)
        self._ended.add(index)
        self._tell(index, ActivationChanged(active=False))

    def _tell(self, index: int, event: ActivationChanged) -> None:
        self._newest[index] = event
        if self.active and not self._all_told():
            return  # another event is on its way: nothing is made of half of the news
        # Only who ends the activity, or hurries the end, has a say in its deadline.
        deadlines = [] if event.deadline is None else [event.deadline]
        if not self._told.active and self._told.deadline is not None:
            deadlines.append(self._told.deadline)
        state = self._active_or(min(deadlines, default=None))
        if state != self._told:
            self._told = state
            self._channel.send(state)

    def _all_told(self) -> bool:
        """Whether each handler is what its newest event says."""
        return all(
            self._is_active(index) == event.active for index, event in enumerate(self._newest)
        )

    def _active_or(self, deadline: float | None) -> ActivationChanged:
        if not self.active:
            return ActivationChanged(active=False, deadline=deadline)
        tokens = (event.token for event in self._newest if event.active and event.token)
        return ActivationChanged(active=True, token=next(tokens, None))


def first_event(handler: ActivationHandler) -> ActivationChanged:
    """Take the state at the beginning from a handler."""
    try:
        return handler.events.receive_nowait()
    except (trio.WouldBlock, trio.EndOfChannel):  # somebody took it
        return ActivationChanged(handler.active, handler.token)


@asynccontextmanager
async def open_all_activation(*handlers: ActivationHandler) -> AsyncGenerator[CombinedActivation]:
    """Be active while all of several activations are: a lease, say, and an operator's consent.

    The first handler that has a fencing token gives the token, and the earliest deadline
    counts. A lease is kept while another handler forbids activity: a veto stops the service,
    it does not hand the service over.

    Args:
        handlers: Open handlers. Their events are taken: nobody else can receive them.

    Raises:
        RuntimeError: Somebody else receives a handler's events.
        ValueError: There is no handler.

    Example::

        async with (
            open_file_activation("/run/app/allowed") as allowed,
            open_etcd_activation(endpoints, "/services/app") as elected,
            open_all_activation(allowed, elected) as activation,
        ):
            ...
    """
    async with _open(all, handlers) as activation:
        yield activation


@asynccontextmanager
async def open_any_activation(*handlers: ActivationHandler) -> AsyncGenerator[CombinedActivation]:
    """Be active while at least one of several activations is: an operator may force it, say.

    No lease protects an activity that another handler gives: with a file beside a lease, two
    may be active if the operator says so. The token, and a deadline, come from whichever
    handler is active, or was the last one.

    Args:
        handlers: Open handlers. Their events are taken: nobody else can receive them.

    Raises:
        RuntimeError: Somebody else receives a handler's events.
        ValueError: There is no handler.
    """
    async with _open(any, handlers) as activation:
        yield activation


@asynccontextmanager
async def _open(
    combine: Callable[[Iterable[bool]], bool], handlers: tuple[ActivationHandler, ...]
) -> AsyncGenerator[CombinedActivation]:
    if not handlers:
        raise ValueError("handlers: expected at least one activation to combine")
    with NewestChannel[ActivationChanged]() as channel:
        activation = CombinedActivation(handlers, combine, channel)
        async with open_lasting_background(
            *(partial(activation.follow, index) for index in range(len(handlers)))
        ):
            yield activation
