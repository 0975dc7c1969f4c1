"""The original's contract, from outside: an activation file, a tar and a target are given to an
entrypoint, and hundreds of activations and swaps lose nothing.

The examples and the ready-made command keep it alike.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from configurations import archive, move_into_place

ROOT = Path(__file__).parent.parent
ROUNDS = 60

# It says on which configuration it runs; the lock tells from outside whether one runs.
APPLICATION = """
cd "$1"; exec 9>>lock
flock -n 9 || echo 'two at a time' >>log
echo run $(cat "$TRIO_ENTRYPOINT_GENERATION"/*) >>log
exec sleep 1000
"""


@attrs.frozen
class Pod:
    """Where an entrypoint runs, and what an operator does to it."""

    top: Path

    @property
    def active(self) -> Path:
        return self.top / "active"

    @property
    def tar(self) -> Path:
        return self.top / "config.tar"

    @property
    def application(self) -> list[str]:
        return ["sh", "-c", APPLICATION, "application", str(self.top)]

    def example(self, name: str) -> list[str]:
        options = ["--active", self.active, "--tar", self.tar, "--target", self.top / "etc"]
        return [sys.executable, str(ROOT / "examples" / name), *map(str, options), "--"]

    def command(self) -> list[str]:
        options = ["--active-file", self.active, "--config-tar", f"{self.tar}:{self.top / 'etc'}"]
        program = Path(sys.executable).with_name("trio-entrypoint")
        return [str(program), "run", *map(str, options), "--"]

    def configure(self, name: str) -> None:
        files = {f"{number}": f"{name}\n" for number in range(10)}
        move_into_place(self.tar, archive(files))

    def break_configuration(self) -> None:
        move_into_place(self.tar, b"this is no archive" * 100)

    @property
    def runs(self) -> list[str]:
        log = self.top / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def alive(self) -> bool:
        """Whether the application holds its lock; trying to lock would disturb its start."""
        lock = self.top / "lock"
        if not lock.exists():
            return False
        held = Path("/proc/locks").read_text().splitlines()
        return any(line.split()[5].endswith(f":{lock.stat().st_ino}") for line in held)

    def runs_on(self, name: str) -> bool:
        return self.runs[-1:] == [" ".join(["run", *[name] * 10])]


async def until(reached: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not reached():  # noqa: ASYNC110 - another program's state has no event here
            await trio.sleep(0.001)


@contextmanager
def started(command: list[str]) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, env=environment()
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def environment() -> dict[str, str]:
    """With the output of an example unbuffered, so that a pipe has it at once."""
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


@pytest.fixture(params=["active_backup.py", "by_hand.py", "trio-entrypoint run"])
def entrypoint(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Pod, list[str]]:
    pod = Pod(tmp_path)
    name: str = request.param
    entry = pod.example(name) if name.endswith(".py") else pod.command()
    return pod, [*entry, *pod.application]


async def test_hundreds_of_activations_and_swaps_lose_nothing(
    entrypoint: tuple[Pod, list[str]],
) -> None:
    pod, command = entrypoint
    with started(command) as process:
        pod.configure("first")
        pod.active.touch()
        await until(lambda: pod.runs_on("first"))
        for number in range(ROUNDS):
            pod.configure(f"{number}")
            runs_on_the_newest = partial(pod.runs_on, f"{number}")
            if number % 3 == 0:  # a swap while it runs
                await until(runs_on_the_newest)
            pod.active.unlink()
            await until(lambda: not pod.alive)
            pod.active.touch()
            await until(runs_on_the_newest)
        process.send_signal(signal.SIGTERM)
        await until(lambda: process.poll() is not None)
        assert not pod.alive
    assert "two at a time" not in pod.runs
    assert all(len(set(run.split()[1:])) == 1 for run in pod.runs), "each run saw one generation"


async def test_a_broken_configuration_does_not_disturb_what_runs(
    entrypoint: tuple[Pod, list[str]],
) -> None:
    pod, command = entrypoint
    with started(command) as process:
        pod.configure("good")
        pod.active.touch()
        await until(lambda: pod.runs_on("good"))
        runs = len(pod.runs)
        pod.break_configuration()
        pod.configure("better")
        await until(lambda: pod.runs_on("better"))
        assert len(pod.runs) == runs + 1
        process.send_signal(signal.SIGINT)
        await until(lambda: process.poll() is not None)
        assert not pod.alive


@pytest.mark.parametrize("example", ["active_backup.py", "by_hand.py"])
def test_an_example_explains_itself(example: str) -> None:
    answer = subprocess.run(
        [sys.executable, ROOT / "examples" / example, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"python examples/{example}" in answer.stdout
    assert "--tar" in answer.stdout


def test_the_demo_prints_what_the_readme_shows() -> None:
    answer = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    _, _, block = (ROOT / "README.md").read_text().partition("```console\n")
    assert without_times(answer.stdout) == without_times(block.partition("```")[0])
    assert answer.stderr == ""


def without_times(timeline: str) -> list[str]:
    return [re.sub(r"^ *[0-9.]+ ms", "", line) for line in timeline.splitlines()]
