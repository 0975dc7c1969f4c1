"""Contenders in virtual time, and a judge who sees every application start and end."""

import random
from collections.abc import Callable
from typing import Protocol

import attrs
import trio
from simulated_network import Faults, Link, Server, SkewedClock

from trio_entrypoint.activation._leased import LeaseActivation, open_lease_activation


class Contender(Protocol):
    async def contend(self, activation: LeaseActivation) -> None: ...

    async def release(self) -> None: ...


@attrs.define
class Judge:
    """At most one application runs, tokens grow, and the time without one is noted."""

    running: set[int] = attrs.Factory(set)
    activations: int = 0
    last_token: int = 0
    idle_since: float = 0.0
    gaps: list[float] = attrs.Factory(list)

    def started(self, who: int, token: str | None) -> None:
        assert not self.running, f"{who} became active beside {self.running}"
        assert int(token or "") > self.last_token, f"{token} after {self.last_token}"
        self.last_token = int(token or "")
        self.running.add(who)
        self.activations += 1
        self.gaps.append(trio.current_time() - self.idle_since)

    def ended(self, who: int) -> None:
        self.running.remove(who)
        self.idle_since = trio.current_time()


@attrs.define
class Machine:
    """One contender with its clock, its link and its application."""

    number: int
    rng: random.Random
    judge: Judge
    link: Link
    clock: SkewedClock
    stop_within: float
    make: Callable[[Link], Contender]
    active: trio.Event = attrs.Factory(trio.Event)

    async def restart_now_and_then(self) -> None:
        """Contend for ever, with a clean restart now and then."""
        while True:
            with trio.move_on_after(self.rng.expovariate(1 / 30)):
                await self.contend(
                    lambda: self.rng.uniform(0, 2 * self.stop_within),
                    leaving=self.rng.uniform(0, self.stop_within),
                )
            await trio.sleep(self.rng.uniform(0, 2))

    async def contend(self, stopping: Callable[[], float], *, leaving: float = 0.0) -> None:
        """Contend until cancelled, with an application that takes its time to stop.

        When it is cancelled nobody kills it: it takes the time `leaving`.
        """
        contender = self.make(self.link)
        try:
            async with open_lease_activation(
                self.clock, self.stop_within, contender.contend
            ) as activation:
                await self._application(activation, stopping, leaving)
        finally:
            with trio.move_on_after(2, shield=True):
                await contender.release()

    async def _application(
        self, activation: LeaseActivation, stopping: Callable[[], float], leaving: float
    ) -> None:
        """What a supervisor does: start, stop politely, kill when the deadline has come."""
        try:
            async for event in activation.events:
                if event.active:
                    self.judge.started(self.number, event.token)
                    self.active.set()
                elif self.number in self.judge.running:
                    assert event.deadline is not None
                    left = event.deadline - trio.current_time()
                    with trio.CancelScope(shield=True):
                        await trio.sleep(max(0.0, min(left / self.clock.rate, stopping())))
                    self.judge.ended(self.number)
        finally:
            if self.number in self.judge.running:
                with trio.CancelScope(shield=True):
                    await trio.sleep(leaving)
                self.judge.ended(self.number)

    async def cut_now_and_then(self) -> None:
        """Partitions: each way by itself, or both."""
        while True:
            await trio.sleep(self.rng.expovariate(1 / 40))
            self.link.cut_to_server = self.rng.random() < 0.6
            self.link.cut_from_server = self.rng.random() < 0.6
            await trio.sleep(self.rng.expovariate(1 / 12))
            self.link.cut_to_server = self.link.cut_from_server = False


async def hold_elections(
    server: Server,
    make: Callable[[Link], Contender],
    *,
    seed: int,
    machines: int = 3,
    seconds: float = 600,
    stop_within: float,
    faults: Faults | None = None,
    partitions: bool = True,
) -> Judge:
    """Let machines contend for some virtual time; the judge raises at the first offence."""
    rng = random.Random(seed)
    judge = Judge()
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for number in range(machines):
                machine = Machine(
                    number,
                    rng,
                    judge,
                    Link(server, faults or Faults(), rng),
                    SkewedClock(rng.uniform(0.98, 1.02), rng.uniform(0, 1e6)),
                    stop_within,
                    make,
                )
                nursery.start_soon(machine.restart_now_and_then)
                if partitions:
                    nursery.start_soon(machine.cut_now_and_then)
    return judge
