"""Virtual time and a network that loses, delays and cuts: many elections in a moment.

Servers are fakes that answer at once; between them and a contender lies a `Link` that decides
by a seeded random number what becomes of each message.
"""

import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

import attrs
import trio

from trio_entrypoint._nursery import open_background
from trio_entrypoint._remote.http import MAX_ANSWER, Answer, Stream, UnreachableError


@attrs.frozen
class Request:
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return "/" + self.url.split("://", 1)[1].split("/", 1)[1]


class Server(Protocol):
    """What a fake implements: both are immediate."""

    def answer(self, request: Request) -> Answer: ...

    def subscribe(self, request: Request) -> tuple[int, trio.MemoryReceiveChannel[bytes]]: ...


@attrs.define
class Faults:
    """Probabilities, for each message; what is delayed takes up to `longest_delay` seconds."""

    lose_request: float = 0.0
    lose_answer: float = 0.0
    refuse: float = 0.0
    delay: float = 0.0
    longest_delay: float = 3.0
    silence_stream: float = 0.0
    break_stream: float = 0.0


@attrs.define
class Link:
    """A `Transport` from one contender to a server."""

    server: Server
    faults: Faults
    rng: random.Random
    cut_to_server: bool = False
    cut_from_server: bool = False

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        limit: int = MAX_ANSWER,
    ) -> Answer:
        await self._carry(url, lost=self.cut_to_server or self._happens(self.faults.lose_request))
        answer = self.server.answer(Request(method, url, headers, body))
        await self._carry(url, lost=self.cut_from_server or self._happens(self.faults.lose_answer))
        return answer

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncGenerator[Stream]:
        await self._carry(url, lost=self.cut_to_server or self._happens(self.faults.lose_request))
        status, lines = self.server.subscribe(Request(method, url, headers, body))
        silent = self._happens(self.faults.silence_stream)
        breaks = self._happens(self.faults.break_stream)
        life = self.rng.uniform(0, self.faults.longest_delay) if breaks else math.inf
        send, receive = trio.open_memory_channel[bytes](100)

        async def forward() -> None:
            with send, lines, trio.move_on_after(life):
                async for line in lines:
                    if silent or self.cut_from_server:
                        await trio.sleep_forever()
                    send.send_nowait(line)

        async def received() -> AsyncGenerator[bytes]:
            async for line in receive:
                yield line
            if breaks:
                raise UnreachableError(f"{url}: broken")

        async with open_background(forward), aclosing(received()) as told:
            yield _Lines(status, told)

    async def _carry(self, url: str, *, lost: bool) -> None:
        if lost:
            await trio.sleep_forever()
        if self._happens(self.faults.refuse):
            await trio.lowlevel.checkpoint()
            raise UnreachableError(f"{url}: refused")
        longest = self.faults.longest_delay if self._happens(self.faults.delay) else 0.01
        await trio.sleep(self.rng.uniform(0, longest))

    def _happens(self, probability: float) -> bool:
        return self.rng.random() < probability


@attrs.frozen
class _Lines:
    status: int
    lines: AsyncIterator[bytes]


@attrs.define
class SkewedClock:
    """A machine's clock: another zero, another rate."""

    rate: float
    offset: float

    def now(self) -> float:
        return trio.current_time() * self.rate + self.offset

    async def sleep_until(self, deadline: float) -> None:
        await trio.sleep(max(0.0, (deadline - self.now()) / self.rate + 1e-6))
