"""`run` is the top of a container: signals and the exit status, seen from outside."""

import signal
import subprocess
import sys
from collections.abc import Callable

import programs
import pytest

PROLOGUE = """
import signal, sys, trio
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

    def start(body: str, arguments: str = "") -> "subprocess.Popen[str]":
        source = PROLOGUE + f"    {body}\nrun(main{arguments})\n"
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
