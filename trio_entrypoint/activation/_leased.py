"""The activation that a lease gives: `Lease`'s decisions, a clock, and the events channel.

What talks to the engine (etcd, Kubernetes) reports here: a renewal was confirmed, elected,
lost. One task of its own ends activity when the time has come, so that no request, however
long it hangs, can delay that.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol, final

import trio

from trio_entrypoint._channels import NewestChannel
from trio_entrypoint._nursery import open_lasting_background
from trio_entrypoint.activation._lease import Lease, Tenure
from trio_entrypoint.handlers import ActivationChanged


class Clock(Protocol):
    """`BootClock`, or a simulation's."""

    def now(self) -> float:
        """Seconds since some point in the past."""
        ...

    async def sleep_until(self, deadline: float) -> None:
        """Sleep until `now()` is the deadline or later."""
        ...


@final
class LeaseActivation:
    """An `ActivationHandler` that is active while it holds a lease that others respect."""

    def __init__(
        self, clock: Clock, stop_within: float, channel: NewestChannel[ActivationChanged]
    ) -> None:
        self.clock = clock
        self._stop_within = stop_within
        self._channel = channel
        self._lease = Lease()
        self._elected = trio.Event()
        self._attempt = trio.CancelScope()

    @property
    def events(self) -> trio.MemoryReceiveChannel[ActivationChanged]:
        """The newest state; the first is 'inactive'."""
        return self._channel.events

    @property
    def active(self) -> bool:
        """Whether this entrypoint is active now: looked up on the clock at each reading."""
        return self._lease.active(self.clock.now())

    @property
    def token(self) -> str | None:
        """The fencing token of the present activation; None while inactive."""
        return self._lease.token if self.active else None

    @property
    def tenure(self) -> Tenure | None:
        """What the last confirmed renewal of this attempt allows."""
        return self._lease.tenure

    # --- what the engine's tasks report -----------------------------------------------------

    def extend(self, sent: float, duration: float) -> None:
        """A renewal that was about to be sent at `sent` is confirmed."""
        self._lease.extend(self.clock.now(), Tenure(sent, duration, self._stop_within))
        self._tell_end()

    def elect(self, token: str) -> None:
        """This attempt's lease is the one. When its time is over already, it is given up."""
        if self._lease.elect(self.clock.now(), token):
            self._elected.set()
            self._channel.send(ActivationChanged(active=True, token=token))
        else:
            self.lose()

    def lose(self) -> None:
        """This attempt's lease is known to be gone."""
        self._lease.lose(self.clock.now())
        self._tell_end()

    async def attempt(self, contend: Callable[[], Awaitable[None]]) -> None:
        """Run one attempt to be elected and to stay so, until its lease is given up.

        When this returns, nothing of that attempt's application is left: it has waited for
        the time by which that is promised.
        """
        self._lease = Lease()
        with trio.CancelScope() as self._attempt:
            await contend()
        self.lose()
        if self._lease.gone_by is not None:
            await self.clock.sleep_until(self._lease.gone_by)

    async def demote_in_time(self) -> None:
        """End activity whenever its time has come; runs as long as the handler."""
        while True:
            await self._elected.wait()
            assert self._lease.tenure is not None, "nobody is elected without a tenure"
            await self.clock.sleep_until(self._lease.tenure.demote_at)
            self._lease.check(self.clock.now())
            self._tell_end()

    def end(self) -> None:
        """The handler's block is left: there is nothing to be active for."""
        self._lease.lose(self.clock.now())

    def _tell_end(self) -> None:
        if not self._lease.ended:
            return
        self._attempt.cancel()
        if self._elected.is_set() and self._lease.gone_by is not None:
            self._elected = trio.Event()
            deadline = trio.current_time() + self._lease.gone_by - self.clock.now()
            self._channel.send(ActivationChanged(active=False, deadline=deadline))


@asynccontextmanager
async def open_lease_activation(
    clock: Clock,
    stop_within: float,
    contend: Callable[[LeaseActivation], Awaitable[None]],
) -> AsyncGenerator[LeaseActivation]:
    """Contend as long as the block lives. The block's body ends first, then its lease.

    Cancellation from outside does not reach the contending task: the lease is kept while the
    body stops its process, and released when nothing of it is left.
    """
    with NewestChannel[ActivationChanged]() as channel:
        channel.send(ActivationChanged(active=False))
        activation = LeaseActivation(clock, stop_within, channel)
        contending = partial(contend, activation)
        async with open_lasting_background(activation.demote_in_time, contending):
            try:
                yield activation
            finally:
                activation.end()
