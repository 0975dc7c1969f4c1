"""A process handler runs one program once, and tells its life."""

import errno
import fcntl
import os
import resource
import signal
import stat
from pathlib import Path

import programs
import pytest
import trio

from trio_entrypoint import (
    CommandError,
    ExitStatus,
    ProcessEnded,
    ProcessHandler,
    ProcessStarted,
    open_process,
)


async def test_the_events_are_the_start_and_the_end() -> None:
    async with open_process(["sh", "-c", "exit 7"]) as process:
        status = await process.wait()
    assert status == process.status == ExitStatus(code=7)
    events = [event async for event in process.events]
    assert events == [ProcessStarted(process.pid), ProcessEnded(status)]


async def test_the_end_by_a_signal_is_told_with_its_number() -> None:
    async with open_process(["sh", "-c", "kill -USR1 $$"]) as process:
        assert await process.wait() == ExitStatus(signal=signal.SIGUSR1)


async def test_the_end_is_told_even_if_the_block_was_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with open_process(["sleep", "1000"]) as process:
            scope.cancel()
            await trio.sleep_forever()
    assert [event async for event in process.events][-1] == ProcessEnded(
        ExitStatus(signal=signal.SIGTERM)
    )


async def test_a_consumer_that_closes_its_channel_breaks_nothing() -> None:
    async with open_process(["true"]) as process:
        process.events.close()
        assert (await process.wait()).success


async def test_a_signal_reaches_the_main_process() -> None:
    command = ["sh", "-c", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done"]
    async with programs.started(command) as watched:
        watched.process.signal(signal.SIGUSR1)
        assert await watched.process.wait() == ExitStatus(code=5)


async def test_a_signal_after_the_end_is_a_clear_error() -> None:
    async with open_process(["true"]) as process:
        await process.wait()
        with pytest.raises(ProcessLookupError, match="has ended: exit code 0"):
            process.signal(signal.SIGTERM)
    with pytest.raises(ProcessLookupError, match="has ended: exit code 0"):
        process.signal(signal.SIGTERM)


async def test_the_program_starts_with_a_clean_slate() -> None:
    # None blocked, none ignored, a session of its own, and no descriptors but 0, 1 and 2.
    inherited = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    reading, writing = os.pipe()
    try:  # directly: a shell would clear its mask
        command = ["cat", "/proc/self/status", "/proc/self/stat"]
        async with open_process(command, stdout=writing) as process:
            await process.wait()
        async with open_process(["ls", "-l", "/proc/self/fd"], stdout=writing) as listing:
            await listing.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGHUP, before)
        os.close(inherited)
        os.close(writing)
    with os.fdopen(reading) as pipe:
        output = pipe.read()
    masks = dict(line.split(":\t") for line in output.splitlines() if line.startswith("Sig"))
    assert int(masks["SigBlk"], 16) == 0
    # 32 and 33 are the C library's own: its posix_spawn ignores them, its threads set them.
    assert int(masks["SigIgn"], 16) & ~(0b11 << 31) == 0
    assert f" {process.pid} {process.pid} 0 -1 " in output
    descriptors = {line.split()[8] for line in output.splitlines() if " -> " in line}
    assert descriptors == {"0", "1", "2", "3"}  # 3 is the listing's own
    assert "0 -> /dev/null" in output


async def test_extra_descriptors_get_the_numbers_asked_for_even_if_crossed() -> None:
    first, first_end = os.pipe()
    second, second_end = os.pipe()
    extra_fds = {first_end: second_end, second_end: first_end}
    command = ["sh", "-c", f"echo a >/dev/fd/{first_end}; echo b >/dev/fd/{second_end}"]
    async with open_process(command, extra_fds=extra_fds) as process:
        assert (await process.wait()).success
    assert (os.read(second, 10), os.read(first, 10)) == (b"a\n", b"b\n")
    for descriptor in (first, first_end, second, second_end):
        os.close(descriptor)


async def test_a_descriptor_beyond_the_present_limit_is_in_nobodys_way() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptor = fcntl.fcntl(0, fcntl.F_DUPFD, 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor, before[1]))
    try:
        async with programs.started(["sh", "-c", "ls /proc/self/fd; echo ready"]) as watched:
            assert str(descriptor).encode() not in watched.output.split()
        assert os.get_inheritable(descriptor)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        os.close(descriptor)


async def test_the_environment_is_the_given_one_and_what_is_added() -> None:
    command = ["/bin/sh", "-c", "env; echo ready"]
    async with programs.started(
        command, env={"A": "1", "B": "2"}, extra_env={"B": "3"}
    ) as watched:
        lines = watched.output.decode().splitlines()
    assert {"A=1", "B=3"} <= set(lines)
    assert not any(line.startswith("HOME=") for line in lines)


@pytest.mark.parametrize(
    "case", ["missing", "directory", "not executable", "empty", "interpreter"]
)
async def test_a_command_that_cannot_be_executed_raises_at_entry(
    case: str, tmp_path: Path
) -> None:
    command = tmp_path / "command"
    expected: tuple[type[OSError], str, int, int] = (OSError, "", 0, 0)
    match case:
        case "missing":
            expected = (FileNotFoundError, "command not found", errno.ENOENT, 127)
        case "directory":
            command.mkdir()
            expected = (PermissionError, "is a directory", errno.EACCES, 126)
        case "not executable":
            command.write_text("#!/bin/sh\n")
            expected = (PermissionError, "is not executable", errno.EACCES, 126)
        case "empty":
            command.write_text("echo without an interpreter")
            command.chmod(command.stat().st_mode | stat.S_IXUSR)
            expected = (OSError, "neither a program", errno.ENOEXEC, 126)
        case "interpreter":
            command.write_text("#!/no/such/interpreter\n")
            command.chmod(command.stat().st_mode | stat.S_IXUSR)
            expected = (OSError, "/no/such/interpreter", errno.ENOENT, 126)
    kind, message, code, exit_code = expected
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(kind, match=message) as caught:
        async with open_process([command]):
            raise AssertionError
    assert isinstance(caught.value, CommandError)
    assert (caught.value.errno, caught.value.exit_code) == (code, exit_code)
    assert caught.value.filename == str(command)
    assert os.listdir("/proc/self/fd") == descriptors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"command": []}, "command"),
        ({"command": "sleep 10"}, "command"),
        ({"grace_period": -1}, "grace_period"),
        ({"grace_period": float("nan")}, "grace_period"),
        ({"stop_signal": 0}, "stop_signal"),
        ({"stop_scope": "everything"}, "stop_scope"),
    ],
)
async def test_a_bad_argument_is_named(arguments: dict[str, object], message: str) -> None:
    defaults: dict[str, object] = {"command": ["true"]}
    with pytest.raises(ValueError, match=message):
        open_process(**(defaults | arguments))  # type: ignore[arg-type]


async def test_a_process_is_a_process_handler() -> None:
    async with open_process(["true"]) as process:
        handler: ProcessHandler = process
        assert (await handler.wait()).success


async def test_blocks_that_follow_each_other_leave_each_its_status() -> None:
    for _ in range(30):
        async with open_process(["sh", "-c", "exit 3"]) as process:
            assert (await process.wait()).code == 3
