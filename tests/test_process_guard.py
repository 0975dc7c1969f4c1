"""An entrypoint that is killed takes its processes with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import programs
import pytest

SOURCE = """
import os, signal, sys, trio
sys.path.insert(0, {tests!r})
import programs
from trio_entrypoint import open_process

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background

async def main():
    pipe = int(sys.argv[1])
    async with open_process({command!r}, stdout=pipe):
        print("started", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""

KILLABLE = {
    name: command
    for name, command in programs.AWKWARD.items()
    if command is not programs.ANONYMOUS_DAEMON  # the documented limit
}


@contextmanager
def started(command: list[str]) -> Generator[tuple["subprocess.Popen[bytes]", BinaryIO]]:
    """An entrypoint that runs a command, and the reading end of what that prints to."""
    reading, writing = os.pipe()
    source = SOURCE.format(tests=str(Path(__file__).parent), command=command)
    with (
        os.fdopen(reading, "rb") as pipe,
        subprocess.Popen(
            [sys.executable, "-c", source, str(writing)],
            stdout=subprocess.PIPE,
            pass_fds=[writing],
        ) as process,
    ):
        os.close(writing)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            yield process, pipe
        finally:
            process.kill()


@pytest.mark.parametrize("command", KILLABLE.values(), ids=KILLABLE.keys())
def test_no_process_survives_the_sigkill_of_its_entrypoint(command: list[str]) -> None:
    with started(command) as (process, pipe):
        assert b"ready" in pipe.readline()
        guard_of(process)
        process.kill()
        pipe.read()  # to its end: nobody has it open any more


def test_a_guard_that_gets_signals_guards_on() -> None:
    with started(programs.SLEEPER) as (process, pipe):
        assert pipe.readline() == b"ready\n"
        guard = guard_of(process)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGRTMIN):
            os.kill(guard, number)
        process.kill()
        pipe.read()


def test_a_guard_is_gone_after_a_clean_end() -> None:
    with started(programs.SLEEPER) as (process, pipe):
        assert pipe.readline() == b"ready\n"
        guard = guard_of(process)
        process.send_signal(signal.SIGINT)  # trio.run raises KeyboardInterrupt: a clean end
        pipe.read()
        process.wait(timeout=10)
        assert not Path(f"/proc/{guard}").exists()


def guard_of(process: "subprocess.Popen[bytes]") -> int:
    """Wait until the guard is there."""
    while True:
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                if b"guard_program.py" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        assert process.poll() is None


IGNORED = """
import os, signal, sys, trio
from trio_entrypoint import open_process

signal.signal(signal.SIGCHLD, signal.SIG_IGN)

async def main():
    async with open_process(["sh", "-c", "exit 3"]) as process:
        assert (await process.wait()).code == 3
        await trio.sleep(0)  # the guard is started behind it
        await trio.testing.wait_all_tasks_blocked()

trio.run(main)
assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
print(*os.listdir("/proc/self/fd"))
print(open(f"/proc/self/task/{os.getpid()}/children").read())
"""


def test_a_parent_that_ignored_the_end_of_children_changes_nothing() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import trio.testing" + IGNORED],
        stdout=subprocess.PIPE,
        timeout=20,
        check=True,
    )
    # The standard ones, and that of the listing itself.
    assert ran.stdout.split() == [b"0", b"1", b"2", b"3"]
