"""`run` is the top of a container: signals and the exit status, seen from outside."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import programs
import pytest

PROLOGUE = """
import signal, sys, trio
from functools import partial
from trio_entrypoint import ExitStatus, open_process, run
async def app(*command, **arguments):
    async with open_process(command, **arguments) as process:
        return await process.wait()
async def main():
"""

Entrypoint = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def entrypoint() -> Entrypoint:
    """Starts a program that runs a main function of the given body."""

    def start(body: str, before: str = "") -> "subprocess.Popen[str]":
        source = f"{before}\n{PROLOGUE}    {body}\nrun(main)\n"
        return subprocess.Popen(
            [sys.executable, "-c", source],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def stop(process: "subprocess.Popen[str]", *numbers: int) -> tuple[int, str]:
    """Send signals once the application is ready; return exit status and standard error."""
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        for number in numbers:
            process.send_signal(number)
        return process.wait(timeout=20), process.stderr.read()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("return await app('sh', '-c', 'exit 7')", 7),
        ("return await app('sh', '-c', 'kill -KILL $$')", 137),
        ("return await app('true')", 0),
        ("return None", 0),
        ("return 5", 5),
        ("sys.exit(3)", 3),
        ("return await app('no-such-program')", 127),
        ("return await app('/etc')", 126),
        ("raise KeyError('oops')", 1),
        (
            "async with trio.open_nursery() as group: group.start_soon(app, 'no-such-program')",
            127,
        ),
    ],
)
def test_the_exit_status_is_that_of_main(entrypoint: Entrypoint, body: str, status: int) -> None:
    with entrypoint(body) as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == status, errors
    assert ("Traceback" in errors) == ("oops" in body)
    if status in (126, 127):
        assert errors.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_signal_stops_the_application_and_gives_its_status(
    entrypoint: Entrypoint, number: int
) -> None:
    command = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"
    process = entrypoint(f"await app('sh', '-c', {command!r})")
    assert stop(process, number)[0] == 9


def test_an_application_ended_by_the_stop_signal_gives_128_and_its_number(
    entrypoint: Entrypoint,
) -> None:
    process = entrypoint("await app('sh', '-c', 'echo ready; exec sleep 1000')")
    assert stop(process, signal.SIGTERM)[0] == 143


def test_more_stop_signals_reach_the_application_once(entrypoint: Entrypoint) -> None:
    process = entrypoint(f"await app(*{programs.COUNTS_TERM!r})")
    assert stop(process, *[signal.SIGTERM, signal.SIGINT, signal.SIGTERM] * 3)[0] == 1


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTSTP]
)
def test_other_signals_do_nothing(entrypoint: Entrypoint, number: int) -> None:
    process = entrypoint("await app('sh', '-c', 'echo ready; exec sleep 1000')")
    assert stop(process, number, signal.SIGTERM)[0] == 143


def test_stopped_before_anything_ran_is_no_success(entrypoint: Entrypoint) -> None:
    process = entrypoint("print('ready', flush=True); await trio.sleep_forever()")
    assert stop(process, signal.SIGTERM)[0] == 143


AT_THE_VERY_END = """
class Late:
    \"\"\"Gone when Python has taken its signal handlers away.\"\"\"
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, signal.SIGTERM)
sys.modules['late'] = Late()
"""


@pytest.mark.parametrize("body", ["return 7", "await trio.to_thread.run_sync(int); return 7"])
def test_a_signal_at_the_very_end_does_not_change_the_exit_status(
    entrypoint: Entrypoint, body: str
) -> None:
    with entrypoint(body, before=f"import os, signal, sys\n{AT_THE_VERY_END}") as process:
        process.communicate(timeout=20)
    assert process.returncode == 7


def test_python_ends_as_ever_and_writes_what_is_buffered(
    entrypoint: Entrypoint, tmp_path: Path
) -> None:
    file = tmp_path / "log"
    with entrypoint("log.write('done')", before=f"log = open({str(file)!r}, 'w')") as process:
        process.communicate(timeout=20)
    assert file.read_text() == "done"


FORWARDING = """
from trio_entrypoint import forward_signals
class Target:
    def reload(self):
        print("reload", flush=True)
    def signal(self, number):
        print("signal", number, flush=True)
        if number == signal.SIGUSR2: raise ProcessLookupError
async def forwarding(**arguments):
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(forward_signals, [Target()], **arguments))
        print("ready", flush=True)
        await trio.sleep_forever()
"""


def forwarded(process: "subprocess.Popen[str]", number: int) -> str:
    assert process.stdout is not None
    process.send_signal(number)
    return process.stdout.readline().strip()


def test_signals_are_forwarded_rewritten_ignored_or_ask_for_a_reload(
    entrypoint: Entrypoint,
) -> None:
    table = "{signal.SIGHUP: 'reload', signal.SIGUSR1: signal.SIGUSR1, signal.SIGUSR2: 15,"
    table += " signal.SIGWINCH: None, signal.SIGALRM: signal.SIGUSR2}"
    with entrypoint(f"await forwarding(table={table})", before=FORWARDING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert forwarded(process, signal.SIGHUP) == "reload"
        assert forwarded(process, signal.SIGUSR1) == f"signal {int(signal.SIGUSR1)}"
        process.send_signal(signal.SIGWINCH)
        assert forwarded(process, signal.SIGUSR2) == "signal 15"
        # A target that does not run is no error.
        assert forwarded(process, signal.SIGALRM) == f"signal {int(signal.SIGUSR2)}"
        assert forwarded(process, signal.SIGHUP) == "reload"
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (143, "", "")


@pytest.mark.parametrize("table", ["{9: 9}", "{signal.SIGTERM: 10}", "{signal.SIGHUP: 1000}"])
def test_a_table_that_cannot_be_is_refused(entrypoint: Entrypoint, table: str) -> None:
    with entrypoint(f"await forwarding(table={table})", before=FORWARDING) as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "ValueError: table: " in errors


TORRENT = """
import time
class Patient:
    def reload(self): pass
async def torrent():
    token = trio.lowlevel.current_trio_token()
    began = time.thread_time()
    for _ in range(1000):
        token.run_sync_soon(int)
    interval = 2.5 * (time.thread_time() - began) / 1000
    async with trio.open_nursery() as nursery:
        table = {signal.SIGALRM: "reload"}
        await nursery.start(partial(forward_signals, [Patient()], table))
        signal.setitimer(signal.ITIMER_REAL, interval, interval)
        await trio.sleep(0.3)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep_forever()
"""


def test_signals_that_come_about_as_fast_as_trio_can_be_told_end_nothing(
    entrypoint: Entrypoint,
) -> None:
    """A handler is interrupted by that of the next signal: Python's stack has an end."""
    with entrypoint("await torrent()", before=FORWARDING + TORRENT) as process:
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (143, "")


def test_a_burst_of_forwarded_signals_ends_with_a_clean_stop(entrypoint: Entrypoint) -> None:
    with entrypoint("await forwarding()", before=FORWARDING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(200):
            process.send_signal(signal.SIGUSR1)
            process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        for _ in range(200):
            process.send_signal(signal.SIGUSR1)
            process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (143, "")
