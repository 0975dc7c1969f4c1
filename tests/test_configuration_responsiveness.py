"""The event loop goes on, whatever a configuration does with thousands of files.

A task that wants to run each millisecond notes how late it was, without the time for which the
machine had no CPU for us: as the kernel's scheduler tells it, and at most the CPU time that we
had meanwhile, because a hypervisor takes some and tells nobody. What blocks the loop, or keeps the
interpreter to itself in a thread, does so each time: so one of several rounds has to be without
any longer block, from its first moment to its last. The interpreter's own garbage collection, a
pass over all objects of a program, is left out.
"""

import gc
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from configurations import archive, move_into_place
from surroundings import overflow_inotify

from trio_entrypoint import (
    ConfigurationChanged,
    open_directory_configuration,
    open_tar_configuration,
)
from trio_entrypoint._linux.watch import open_path_watch

LONGEST = 0.015
"""Seconds. A thread may keep the interpreter to itself for 5 ms, before it is asked to let go, and
who notes the time needs it twice: after the loop's system call, and after its own."""

LONGEST_IN_THE_LOOP = 0.003

ROUNDS = 8


@pytest.fixture
def memory() -> Generator[Path]:
    """A directory in memory, so that no disk is waited for; and no garbage collection."""
    gc.collect()
    gc.disable()
    try:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            yield Path(directory)
    finally:
        gc.enable()


class Blocks(NamedTuple):
    """How long nothing else could run, in seconds, at most at a time."""

    late: float
    """How late other tasks were for something that we did."""

    own: float
    """CPU time of the event loop's thread: only what was done in the loop itself."""

    @property
    def are_short(self) -> bool:
        return self.late < LONGEST and self.own < LONGEST_IN_THE_LOOP


@contextmanager
def open_clocks() -> Generator[Callable[[], tuple[float, float, float, float]]]:
    """Clocks that are read with one system call, for after each the interpreter is waited for."""
    with open("/proc/thread-self/schedstat", "rb") as statistics:

        def clocks() -> tuple[float, float, float, float]:
            waited = int(os.pread(statistics.fileno(), 100, 0).split()[1])
            return time.perf_counter(), waited / 1e9, time.process_time(), time.thread_time()

        yield clocks


async def longest_blocks(action: Callable[[], Awaitable[object]]) -> Blocks:
    """What blocks the loop while something is done."""
    blocks: list[tuple[float, float]] = []

    async def beat() -> None:
        before = clocks()
        while True:
            await trio.sleep(0.001)
            after = clocks()
            wall, waited, ours, own = (a - b for a, b in zip(after, before, strict=True))
            before = after
            # Its sleep of a millisecond may be full of steps that are short.
            blocks.append((min(wall - 0.001 - max(0, waited), ours), own - 0.001))

    with open_clocks() as clocks:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            await trio.sleep(0.003)
            blocks.clear()
            await action()
            await trio.sleep(0.003)
            nursery.cancel_scope.cancel()
    return Blocks(*map(max, zip(*blocks, strict=True)))


Round = Callable[[int], Awaitable[Sequence[Blocks]]]


@asynccontextmanager
async def updating(directory: Path) -> AsyncGenerator[Round]:
    source, target = directory / "c.tar", directory / "app"
    async with open_tar_configuration(source, target) as configuration:

        async def update_and_roll_back(number: int) -> list[Blocks]:
            files = {f"d{n % 20}/f{n}": f"{number} {n}" for n in range(10_000)}
            blocks: list[Blocks] = []
            for again in ("", "again"):
                move_into_place(source, archive({**files, "again": again}))
                blocks.append(await longest_blocks(configuration.update))
            blocks.append(await longest_blocks(configuration.rollback))
            assert (target / "again").read_text() == ""
            return blocks

        yield update_and_roll_back


@asynccontextmanager
async def at_the_top(directory: Path) -> AsyncGenerator[Round]:
    source, target = directory / "c.tar", directory / "app"
    async with open_tar_configuration(source, target, layout="inside") as configuration:

        async def update(number: int) -> list[Blocks]:
            move_into_place(source, archive({f"{number}-{n}": "" for n in range(2000)}))
            blocks = await longest_blocks(configuration.update)
            assert len([name for name in target.iterdir() if name.name[0] != "."]) == 2000
            return [blocks]

        yield update


@asynccontextmanager
async def watching_a_directory(directory: Path) -> AsyncGenerator[Round]:
    source, target = directory / "in", directory / "app"
    source.mkdir()
    for number in range(2000):
        (source / f"f{number}").write_text("")
    async with open_directory_configuration(source, target) as configuration:
        await configuration.events.receive()

        async def change(number: int) -> list[Blocks]:
            async def follow() -> None:
                (source / "f0").write_text(str(number))
                assert await configuration.events.receive() == ConfigurationChanged()
                assert (await configuration.update()).error is None

            return [await longest_blocks(follow)]

        yield change


@asynccontextmanager
async def opening(directory: Path) -> AsyncGenerator[Round]:
    source, target, store = directory / "c.tar", directory / "app", directory / ".app.generations"
    async with open_tar_configuration(source, target, keep=ROUNDS + 1) as configuration:
        for number in range(ROUNDS + 2):
            move_into_place(source, archive({f"f{n}": f"{number} {n}" for n in range(2000)}))
            assert (await configuration.update()).error is None

    async def open_and_collect(number: int) -> list[Blocks]:
        keep = ROUNDS - number

        async def collect() -> None:
            async with open_tar_configuration(source, target, keep=keep):
                while len(os.listdir(store)) > keep + 1:  # noqa: ASYNC110
                    await trio.sleep(0.001)

        return [await longest_blocks(collect)]

    yield open_and_collect


@asynccontextmanager
async def a_storm_of_events(directory: Path) -> AsyncGenerator[Round]:
    async with open_path_watch(directory / "file") as watch:

        async def listen() -> None:
            with trio.move_on_after(0.1):
                await watch.changed()

        async def storm(_: int) -> list[Blocks]:
            overflow_inotify(directory)
            return [await longest_blocks(listen)]

        yield storm


WORK: Sequence[Callable[[Path], AbstractAsyncContextManager[Round]]] = [
    updating,
    at_the_top,
    watching_a_directory,
    opening,
    a_storm_of_events,
]


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
async def test_the_event_loop_is_never_blocked_for_long(
    memory: Path, work: Callable[[Path], AbstractAsyncContextManager[Round]]
) -> None:
    rounds: list[Blocks] = []
    async with work(memory) as next_round:
        while not rounds or (not rounds[-1].are_short and len(rounds) < ROUNDS):
            blocks = await next_round(len(rounds))
            rounds.append(Blocks(*map(max, zip(*blocks, strict=True))))
    assert rounds[-1].are_short, rounds
