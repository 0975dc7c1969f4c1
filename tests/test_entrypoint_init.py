"""`run` does the duties of an init: in a process, as PID 1 of a namespace, in a container."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import surroundings
from surroundings import Surroundings

SHELL = "sh"


@pytest.fixture(params=surroundings.ALL, ids=[each.name for each in surroundings.ALL])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Surroundings:
    made: Surroundings = request.param(tmp_path)
    return made


def outcome(
    place: Surroundings, source: str, *numbers: int, within: float = 60
) -> tuple[int, str]:
    """Run a program; after each line that it prints send it the next signal."""
    with place.running(source) as process:
        assert process.stdout is not None
        output = ""
        for number in numbers:
            output += process.stdout.readline()
            place.signal(process, number)
        rest, errors = process.communicate(timeout=within)
        assert "Traceback" not in errors, errors
        return process.returncode, output + rest


MATRIX = """
import os, trio
import programs
from trio_entrypoint import run

async def main():
    for command in programs.AWKWARD.values():
        async with programs.started(command, grace_period=0.1):
            pass
        others = [pid for pid in os.listdir("/proc") if pid.isdecimal() and int(pid) > 1]
        assert os.getpid() != 1 or not others, others
    async with trio.open_nursery() as nursery:
        for command in programs.AWKWARD.values():
            nursery.start_soon(start_and_stop, command)
    return 7

async def start_and_stop(command):
    async with programs.started(command, grace_period=0.1, check=False):
        pass

run(main)
"""


@pytest.mark.timeout(200)
def test_no_awkward_program_leaves_anything_behind(place: Surroundings) -> None:
    status, output = outcome(place, MATRIX, within=150)  # storms, on two processors
    assert status == 7, output


OTHER_USERS = """
import trio
import programs
from trio_entrypoint import run

async def main():
    async with programs.started(programs.DAEMON, user="nobody", grace_period=0.1):
        pass
    async with programs.started(programs.DAEMON, user="nobody") as survivor:
        async with programs.started(programs.DAEMON, user="nobody", grace_period=0.1):
            pass
        assert not survivor.all_gone()
    return 7

run(main)
"""


def test_the_processes_of_other_users_are_told_apart_without_reading_what_they_are(
    place: Surroundings,
) -> None:
    # In a container there is no CAP_SYS_PTRACE, and so nobody else's environment.
    assert outcome(place, OTHER_USERS) == (7, "")


ORPHANS = """
import os, trio
from trio_entrypoint import open_process, run

async def main():
    # Twenty orphans that end, while the main process lives; and a child of other code's.
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do (true & setsid true & exit); done; exec sleep 1000"
    async with open_process(["sh", "-c", script]) as process:
        for _ in range(50):
            completed = await trio.run_process(["sh", "-c", "exit 7"], check=False)
            assert completed.returncode == 7, completed
        while len(children()) > 2:  # the process, and the guard that a PID 1 has no need of
            await trio.sleep(0.01)
    return 0

def children():
    tasks = os.listdir("/proc/self/task")
    return "".join(open(f"/proc/self/task/{task}/children").read() for task in tasks).split()

run(main)
"""


def test_orphans_are_reaped_without_stealing_the_children_of_others(place: Surroundings) -> None:
    assert outcome(place, ORPHANS) == (0, "")


STOPPED = """
import sys
from trio_entrypoint import open_process, run

async def main():
    script = "trap 'echo bye; exit 9' TERM; echo up; sleep 1000 & wait"
    async with open_process(["sh", "-c", script]) as process:
        await process.wait()

run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_lets_the_application_end_and_gives_its_status(
    place: Surroundings, number: int
) -> None:
    assert outcome(place, STOPPED, number) == (9, "up\nbye\n")


EARLY = """
from trio_entrypoint import block_signals
block_signals()
print("blocked", flush=True)
import time
time.sleep(0.5)
import trio
from trio_entrypoint import open_process, run

async def main():
    async with open_process(["sleep", "1000"]) as process:
        await process.wait()

run(main)
"""


def test_a_signal_that_comes_before_everything_is_imported_is_honoured(
    place: Surroundings,
) -> None:
    started = time.monotonic()
    assert outcome(place, EARLY, signal.SIGTERM) == (128 + signal.SIGTERM, "blocked\n")
    assert time.monotonic() - started < 30


LEFTOVER = """
import trio
from trio_entrypoint import run

async def main():
    script = "(trap 'echo told; exit' TERM; echo up; while :; do sleep 0.01; done) & exit 0"
    await trio.run_process(["sh", "-c", script])
    await trio.sleep(0.2)
    return 3

run(main, init=True)
"""


def test_an_init_asks_the_orphans_of_others_to_end(place: Surroundings) -> None:
    assert outcome(place, LEFTOVER) == (3, "up\ntold\n")


def test_the_termination_message_says_why_and_shows_the_last_lines(tmp_path: Path) -> None:
    message = tmp_path / "termination-log"
    message.write_text("something older, and longer" * 1000)
    source = f"""
from trio_entrypoint import LogLines, open_process, run

async def main():
    script = "seq 30 >&2; echo 'out of luck' >&2; exit 3"
    async with open_process(["sh", "-c", script], stderr=LogLines()) as process:
        return await process.wait()

run(main, termination_message={str(message)!r})
"""
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 3
    lines = message.read_text().splitlines()
    assert lines[:2] == ["the application ended: exit code 3", "exit status 3"]
    assert lines[-2:] == ["30", "out of luck"]


def test_a_termination_message_is_never_longer_than_what_is_read(tmp_path: Path) -> None:
    message = tmp_path / "termination-log"
    source = f"""
from trio_entrypoint import run

async def main():
    raise ValueError("x" * 10000)

run(main, termination_message={str(message)!r})
"""
    subprocess.run([sys.executable, "-c", source], check=False, stderr=subprocess.DEVNULL)
    assert message.stat().st_size == 4096
    assert message.read_text().startswith("ValueError: xxx")
