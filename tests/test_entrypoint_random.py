"""The original's random driver, as a proof: whatever happens in whatever order, nothing is lost.

Activation, three configurations and kills come at random, over the real handlers and a real
process. What the application itself writes down must satisfy every invariant, and the final
state is what the last events say.
"""

import io
import os
import random
import signal
import tarfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from trio_entrypoint import (
    ProcessState,
    Supervisor,
    Transition,
    open_file_activation,
    open_process,
    open_tar_configuration,
)

SEEDS = range(25)
EVENTS = 40

# The application says on which generation it runs, and whether another one runs beside it.
APPLICATION = """
exec 9>lock
flock -n 9 || echo 'two at a time' >>log
echo run $(cat "$TRIO_ENTRYPOINT_GENERATION"/*) >>log
exec sleep 1000
"""


@attrs.define
class Pod:
    top: Path
    newest: str | None = None
    moved: int = 0

    @property
    def active(self) -> Path:
        return self.top / "active"

    def configure(self, name: str) -> None:
        """Move a configuration into place: twenty files that all say its name."""
        self.moved += 1
        self.newest = name
        staged = self.top / f"staged {self.moved}"
        with tarfile.open(staged, "w") as tar:
            for number in range(20):
                member = tarfile.TarInfo(f"{name}-{number}" if number % 2 else f"{number}")
                member.size = len(name) + 1
                tar.addfile(member, io.BytesIO(f"{name}\n".encode()))
        staged.rename(self.top / "config.tar")

    def runs(self) -> list[str]:
        log = self.top / "log"
        return log.read_text().splitlines() if log.exists() else []


@asynccontextmanager
async def supervised(pod: Pod) -> AsyncGenerator[Supervisor]:
    async with (
        open_file_activation(pod.active) as activation,
        open_tar_configuration(pod.top / "config.tar", pod.top / "etc") as configuration,
        trio.open_nursery() as nursery,
    ):
        supervisor = Supervisor(
            partial(open_process, ["sh", "-c", APPLICATION], cwd=pod.top, grace_period=5),
            activation=activation,
            configuration=configuration,
        )
        nursery.start_soon(supervisor.run)
        yield supervisor
        nursery.cancel_scope.cancel()


async def collect(events: "trio.MemoryReceiveChannel[Transition]", seen: list[Transition]) -> None:
    async for transition in events:
        seen.append(transition)  # noqa: PERF401 - what was seen counts, should it be cancelled


@pytest.mark.parametrize("seed", SEEDS)
async def test_random_events_end_in_the_state_that_the_last_ones_say(
    seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    pod = Pod(tmp_path)
    seen: list[Transition] = []
    async with trio.open_nursery() as nursery, supervised(pod) as supervisor:
        nursery.start_soon(collect, supervisor.events, seen)
        for _ in range(EVENTS):
            match chance.choice(["activate", "deactivate", "configure", "wait", "kill"]):
                case "activate":
                    pod.active.touch()
                case "deactivate":
                    pod.active.unlink(missing_ok=True)
                case "configure":
                    pod.configure(chance.choice(["red", "green", "blue"]))
                case "kill" if supervisor.state.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(supervisor.state.pid, signal.SIGKILL)
                case _:
                    await trio.sleep(chance.choice([0, 0.001, 0.01, 0.05]))
        pod.configure(chance.choice(["red", "green", "blue"]))
        active = chance.random() < 0.7
        pod.active.touch() if active else pod.active.unlink(missing_ok=True)
        await final_state(pod, supervisor, active)
    assert_invariants(pod, seen)


async def final_state(pod: Pod, supervisor: Supervisor, active: bool) -> None:
    """Wait until what runs is what the last events say, and stays so."""

    def settled() -> bool:
        runs = pod.runs()
        state = supervisor.state
        if not active:
            return state.process is ProcessState.INACTIVE
        return state.ready and bool(runs) and runs[-1].split()[1:2] == [pod.newest]

    # It may look settled before the last events have been seen: it has to stay so.
    quiet = 0
    with trio.fail_after(20):
        while quiet < 10:
            before = pod.runs(), supervisor.state
            await trio.sleep(0.01)
            quiet = quiet + 1 if settled() and before == (pod.runs(), supervisor.state) else 0


def assert_invariants(pod: Pod, seen: list[Transition]) -> None:
    for line in pod.runs():
        assert line != "two at a time"
        word, *contents = line.split()
        assert word == "run"
        assert len(contents) == 20, "every file of the generation"
        assert len(set(contents)) == 1, "of one configuration"
    for transition in seen:
        before, after = transition.before, transition.after
        if after.process is ProcessState.STARTING is not before.process:
            assert after.active
            assert after.pid is None
