"""Many processes that contend in etcd, and what their records say."""

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest
import trio


@attrs.frozen
class Interval:
    """One activation, as the active process itself saw it."""

    start: float
    end: float
    token: int
    who: str


class Contenders:
    """The processes of one election, by name."""

    def __init__(self, directory: Path, program: Path, **settings: object) -> None:
        self._directory = directory
        self._program = program
        self._settings = json.dumps(settings)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        who: str,
        endpoints: Sequence[str],
        mode: str = "hold",
        *,
        prefix: Sequence[str] = (),
    ) -> None:
        record = self._directory / f"{who}.record"
        with (self._directory / f"{who}.log").open("ab") as log:
            self._processes[who] = subprocess.Popen(
                [
                    *prefix,
                    sys.executable,
                    str(self._program),
                    str(record),
                    mode,
                    self._settings,
                    *endpoints,
                ],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

    def signal(self, who: str, number: int) -> None:
        self._processes[who].send_signal(number)

    def kill(self, who: str) -> None:
        process = self._processes.pop(who)
        process.kill()
        process.wait()

    def kill_all(self) -> None:
        for who in list(self._processes):
            self.kill(who)

    def running(self) -> list[str]:
        return [who for who, process in self._processes.items() if process.poll() is None]

    def assert_nobody_gave_up(self) -> None:
        for who in self._processes.keys() - set(self.running()):
            pytest.fail(f"{who} ended: {(self._directory / f'{who}.log').read_text()}")

    def intervals(self) -> list[Interval]:
        """All activations of all contenders, in the order of their start."""
        found: dict[tuple[str, int], list[float]] = {}
        for record in self._directory.glob("*.record"):
            for line in record.read_text().splitlines():
                token, _, nanoseconds = line.partition(" ")
                found.setdefault((record.stem, int(token)), []).append(int(nanoseconds) / 1e9)
        return sorted(
            (Interval(min(t), max(t), token, who) for (who, token), t in found.items()),
            key=lambda interval: interval.start,
        )

    async def next_active(
        self, *, after: float = 0.0, but: str = "", within: float = 20
    ) -> Interval:
        """Wait for somebody who was seen active after a moment."""
        with trio.fail_after(within):
            while True:
                for interval in self.intervals():
                    if interval.end > after and interval.who != but:
                        return interval
                await trio.sleep(0.02)

    async def hold_elections(self, number: int, *, among: Sequence[str], within: float) -> None:
        """Wait until there were so many activations, and each was elected."""
        with trio.fail_after(within):
            while True:
                intervals = self.intervals()
                if len(intervals) >= number and {each.who for each in intervals} == {*among}:
                    return
                await trio.sleep(0.5)

    def judge(self) -> list[Interval]:
        """Never two, and tokens in the order of activity."""
        intervals = self.intervals()
        for first, second in itertools.pairwise(intervals):
            assert first.end < second.start, f"two were active: {first}, {second}"
            assert first.token < second.token, f"tokens went back: {first}, {second}"
        return intervals


@contextlib.contextmanager
def contenders(
    directory: Path, *, program: str = "contender.py", **settings: object
) -> Iterator[Contenders]:
    """Run a program of this directory in many processes; the settings are its activation's."""
    group = Contenders(directory, Path(__file__).with_name(program), **settings)
    try:
        yield group
    finally:
        for who in group.running():
            group.signal(who, signal.SIGCONT)
        group.kill_all()


def now() -> float:
    return time.monotonic_ns() / 1e9
