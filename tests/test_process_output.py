"""Output is never lost, and never holds anything up: files with rotation, lines in the log."""

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import programs
import pytest
import trio

from trio_entrypoint import LogFile, LogLines, open_process
from trio_entrypoint.output import Pump


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, "trio_entrypoint.output"):
        yield caplog


def lines_of(log: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    return [
        (vars(record)["service"], vars(record)["stream"], record.getMessage())
        for record in log.records
        if record.name == "trio_entrypoint.output"
    ]


async def test_each_line_becomes_a_labelled_record(log: pytest.LogCaptureFixture) -> None:
    command = sh("echo one; echo two; echo three >&2; printf 'no end'")
    async with open_process(
        command, name="app", stdout=LogLines(), stderr=LogLines("error")
    ) as process:
        await process.wait()
    assert [line for line in lines_of(log) if line[1] == "stdout"] == [
        ("app", "stdout", "one"),
        ("app", "stdout", "two"),
        ("app", "stdout", "no end"),
    ]
    assert ("app", "stderr", "three") in lines_of(log)
    assert {record.levelname for record in log.records} == {"INFO", "ERROR"}


async def test_what_is_not_utf8_is_kept(log: pytest.LogCaptureFixture) -> None:
    async with open_process(sh(r"printf 'a\377b\n\303\244\n'"), stdout=LogLines()) as process:
        await process.wait()
    assert [line for *_, line in lines_of(log)] == [r"a\xffb", "ä"]


async def test_a_line_without_end_is_split_and_nothing_of_it_is_lost(
    log: pytest.LogCaptureFixture,
) -> None:
    command = sh("head -c 100000 /dev/zero | tr '\\0' x")
    async with open_process(command, stdout=LogLines(max_length=1000)) as process:
        await process.wait()
    lines = [line for *_, line in lines_of(log)]
    assert "".join(lines) == "x" * 100_000
    assert max(map(len, lines)) == 1000


async def test_what_was_written_just_before_the_death_is_not_lost(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for length in (1, 1000, 60_000):
        log.unlink(missing_ok=True)
        command = sh(f"head -c {length} /dev/zero; kill -KILL $$")
        async with open_process(command, stdout=LogFile(str(log))) as process:
            await process.wait()
        assert log.stat().st_size == length


async def test_a_descendant_that_writes_while_it_is_stopped_is_heard(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = "trap 'echo last words; exit' TERM; echo up >&2; while :; do sleep 0.01; done"
    reading, writing = os.pipe()
    async with open_process(sh(f"({child}) & wait"), stdout=LogFile(str(log)), stderr=writing):
        await trio.lowlevel.wait_readable(reading)
    os.close(reading)
    os.close(writing)
    assert log.read_text() == "last words\n"


async def test_a_file_is_rotated_by_size_and_count(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = sh("for i in 1 2 3 4 5 6 7 8; do printf '%0100d' $i; sleep 0.02; done")
    async with open_process(command, stdout=LogFile(str(log), max_size=200, keep=2)) as process:
        await process.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    contents = [(tmp_path / name).read_text() for name in ("log.2", "log.1", "log")]
    assert all(0 < len(content) <= 200 for content in contents)
    assert contents[-1].endswith("8")


@pytest.mark.parametrize("keep", [0, 3])
@pytest.mark.parametrize("by", ["removal", "renaming", "replacement"])
async def test_a_file_that_somebody_else_took_away_is_begun_anew_and_costs_no_older_ones(
    tmp_path: Path, by: str, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    log, older = tmp_path / "log", [tmp_path / f"log.{number}" for number in (1, 2, 3)]
    for path in older:
        path.write_text(path.name)
    command = sh("read _; printf '%0100d' 1; read _; printf '%0100d' 2")
    reading, writing = os.pipe()
    output = LogFile(str(log), max_size=150, keep=keep)
    with open(writing, "wb", buffering=0) as orders, open(reading, "rb") as stdin:
        async with open_process(command, stdout=output, stdin=stdin.fileno()) as process:
            orders.write(b"\n")
            with trio.fail_after(5):
                while log.stat().st_size < 100:  # noqa: ASYNC110 - a file
                    await trio.sleep(0.005)
            log.unlink() if by == "removal" else log.rename(tmp_path / "mine")
            if by == "replacement":
                log.touch()
            orders.write(b"\n")
            with trio.fail_after(5):
                assert (await process.wait()).success
    assert "output is lost" not in caplog.text
    assert log.read_text() == f"{2:0100d}"
    assert [path.read_text() for path in older] == [path.name for path in older]


async def test_standard_error_can_go_the_same_way_in_order(tmp_path: Path) -> None:
    for stderr in ("stdout", LogFile(str(tmp_path / "log"))):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        command = sh("for i in 1 2 3; do echo out; echo err >&2; done")
        async with open_process(command, stdout=LogFile(str(log)), stderr=stderr) as process:
            await process.wait()
        assert log.read_text() == "out\nerr\n" * 3


async def test_a_full_disk_loses_output_but_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        command = sh("head -c 3000000 /dev/zero; exit 5")
        with trio.fail_after(20):
            output = LogFile(str(tmp_path / "log"))
            async with open_process(command, stdout=output) as process:
                assert (await process.wait()).code == 5
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert len([record for record in caplog.records if "output is lost" in record.message]) == 1


async def test_a_stranger_that_holds_the_pipe_open_delays_nothing(tmp_path: Path) -> None:
    command = sh("echo ready; exec sleep 1000")
    async with open_process(command, stdout=LogFile(str(tmp_path / "log"))) as process:
        stolen = os.open(f"/proc/{process.pid}/fd/1", os.O_WRONLY)
        with trio.fail_after(5):
            await process.stop()
    os.close(stolen)


async def test_the_last_lines_are_remembered(tmp_path: Path) -> None:
    command = sh("seq 100 >&2; printf partial >&2; echo other")
    async with open_process(
        command, stdout=LogFile(str(tmp_path / "log")), stderr=LogFile(str(tmp_path / "errors"))
    ) as process:
        await process.wait()
    assert process.last_lines == [*map(str, range(82, 101)), "partial"]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("missing/log", "No such file"),
        ("directory", "Is a directory"),
        ("symlink", "expected a regular file to log to, and no symlink"),
        ("fifo", "expected a regular file"),
    ],
)
async def test_a_bad_log_file_is_named_and_leaves_nothing(
    tmp_path: Path, path: str, problem: str
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "symlink").symlink_to("elsewhere")
    os.mkfifo(tmp_path / "fifo")
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=f"stdout: cannot open the log file: {problem}.*{path}"):
        async with open_process(["true"], stdout=LogFile(str(tmp_path / path))):
            raise AssertionError
    assert os.listdir("/proc/self/fd") == descriptors


async def test_bad_settings_of_a_log_are_named() -> None:
    with pytest.raises(ValueError, match="max_size"):
        LogFile("log", max_size=0)
    with pytest.raises(ValueError, match="keep"):
        LogFile("log", keep=-1)
    with pytest.raises(ValueError, match="max_length"):
        LogLines(max_length=0)
    with pytest.raises(ValueError, match=r"level.*debug.*nope"):
        LogLines("nope")  # type: ignore[arg-type]


async def test_output_is_inherited_or_thrown_away() -> None:
    async with programs.started(sh("echo lost >&2; echo ready"), stderr="null") as watched:
        await watched.process.wait()
    assert watched.output == b"ready\n"


async def test_what_is_in_the_pipe_when_all_processes_are_gone_is_read() -> None:
    class Collected:
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: bytes) -> None:
            self.data += data

        def close(self) -> None:
            self.data += b" closed"

    reading, writing = os.pipe()
    os.write(writing, b"last words")
    gone, sink = trio.Event(), Collected()
    gone.set()
    with trio.fail_after(10):
        await Pump(reading, sink, "output of a test").run(gone)
    assert sink.data == b"last words closed"
    os.close(writing)
    os.close(reading)


@pytest.mark.parametrize(
    "arguments",
    [
        {"command": ["no-such-command"]},
        {"command": ["true"], "env": {"PATH": "/bin:/usr/bin", "A=B": ""}},
        {"command": ["true"], "stderr": LogFile("/no/such/directory/log")},
        {"command": ["true"], "limits": {"nofile": 2**40}},
    ],
    ids=["no-command", "bad-environment", "bad-stderr", "launcher"],
)
async def test_a_failed_start_closes_its_log_file(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises((OSError, ValueError)):
        async with open_process(**arguments, stdout=LogFile(str(tmp_path / "log"))):
            raise AssertionError
    assert os.listdir("/proc/self/fd") == descriptors
