"""`trio-entrypoint run -- COMMAND` does not make the command wait for imports.

In these tests a package that stands before Trio on the path is executed where Trio would be
imported: what it sees is what is true at that moment.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeAlias

import pytest

Entrypoint: TypeAlias = Callable[..., subprocess.Popen[bytes]]

TIMEOUT = 30.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """Where the application writes its pid."""
    return tmp_path / "started"


@pytest.fixture
def entrypoint(tmp_path: Path) -> Generator[Entrypoint]:
    """Runs the command in a directory, with code that is executed when Trio is first imported."""
    entrypoints: list[subprocess.Popen[bytes]] = []

    def run(
        shell: str,
        *,
        at_import: str = "",
        options: tuple[str, ...] = ("--restart", "never"),
        before: tuple[str, ...] = (),
    ) -> subprocess.Popen[bytes]:
        stub = tmp_path / "path" / "trio"
        stub.mkdir(parents=True)
        (stub / "__init__.py").write_text(
            textwrap.dedent("""\
            import os, signal, sys, time

            def wait_for(path):
                while not os.path.exists(path) or not open(path).read():
                    time.sleep(0.01)
            """)
            + textwrap.dedent(at_import)
            + textwrap.dedent(f"""
            sys.path.remove({str(stub.parent)!r})
            del sys.modules["trio"]
            import trio
            """)
        )
        command = [sys.executable, "-m", "trio_entrypoint.cli", "run", *options]
        application = ["sh", "-c", f"echo $$ > started.new; mv started.new started; {shell}"]
        process = subprocess.Popen(
            [*before, *command, "--", *application],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(stub.parent)},
            stderr=subprocess.PIPE,
        )
        entrypoints.append(process)
        return process

    yield run
    for process in entrypoints:
        process.kill()
        process.wait()
        assert process.stderr
        process.stderr.close()


def test_the_application_runs_before_trio_is_imported(
    entrypoint: Entrypoint, started: Path
) -> None:
    process = entrypoint("exit 7", at_import=f"wait_for({str(started)!r})")
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 7


IGNORE_CHILDREN = """\
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""
IGNORING_CHILDREN = (sys.executable, "-c", IGNORE_CHILDREN)


@pytest.mark.parametrize("before", [(), IGNORING_CHILDREN], ids=["", "sigchld-ignored"])
@pytest.mark.parametrize(("end", "status"), [("exit 3", 3), ("kill -9 $$", 128 + 9)])
def test_the_status_of_an_application_that_ended_before_trio_was_imported_is_known(
    entrypoint: Entrypoint, started: Path, end: str, status: int, before: tuple[str, ...]
) -> None:
    process = entrypoint(
        end,
        before=before,
        at_import=f"""
        wait_for({str(started)!r})
        pid = int(open({str(started)!r}).read())
        while open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        """,
    )
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == status


def test_a_stop_signal_during_the_imports_stops_the_application_politely(
    entrypoint: Entrypoint, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    process = entrypoint(
        "trap 'exit 5' TERM; echo x > ready; while :; do sleep 0.01; done",
        at_import=f"""
        wait_for({str(ready)!r})
        os.kill(os.getpid(), signal.SIGTERM)
        """,
    )
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 5


def test_nothing_of_the_application_is_left_when_the_entrypoint_cannot_be_imported(
    entrypoint: Entrypoint, started: Path, tmp_path: Path
) -> None:
    orphan = tmp_path / "orphan"
    process = entrypoint(
        "(setsid sh -c 'echo $$ > orphan; exec sleep 1000' &); exec sleep 1000",
        at_import=f"""
        wait_for({str(orphan)!r})
        raise ImportError("broken")
        """,
    )
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert b"ImportError: broken" in errors
    assert not exists(int(started.read_text()))
    assert not exists(int(orphan.read_text()))


def test_a_killed_application_is_restarted_as_any_other(
    entrypoint: Entrypoint, started: Path
) -> None:
    process = entrypoint("exec sleep 1000", options=())
    wait_until(started.exists)
    first = int(started.read_text())
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: int(started.read_text()) != first)
    second = int(started.read_text())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGTERM
    assert not exists(second)


def test_descendants_from_before_the_imports_are_gone_at_the_end(
    entrypoint: Entrypoint, tmp_path: Path
) -> None:
    orphan = tmp_path / "orphan"
    process = entrypoint(
        "(setsid sh -c 'echo $$ > orphan; exec sleep 1000' &); exec sleep 1000",
        at_import=f"wait_for({str(orphan)!r})",
    )
    wait_until(lambda: orphan.exists() and bool(orphan.read_text()))
    assert exists(int(orphan.read_text()))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=TIMEOUT)
    assert not exists(int(orphan.read_text()))


WITHOUT_DESCRIPTORS = """\
import sys

from trio_entrypoint._linux.head_start import head_start

with head_start(sys.argv[1:], stop_signal=15, grace_period=20) as start:
    import programs
    import trio

    from trio_entrypoint.process import open_started

    stop = {"stop_signal": 15, "grace_period": 20, "stop_scope": "main"}

    async def main():
        sys.stdin.readline()  # it is ready
        with programs.exhausted(0):
            async with open_started(start, name="app", **stop):
                raise AssertionError

    try:
        trio.run(main)
    except OSError as error:
        print(error)
"""


def test_an_application_that_cannot_be_attended_to_is_stopped_politely() -> None:
    shell = "trap 'echo asked; exit' TERM; echo ready >&2; while :; do sleep 0.01; done"
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS, "sh", "-c", shell],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"ready\n"
    output, errors = process.communicate(b"\n", timeout=TIMEOUT)
    assert b"Too many open files" in output
    assert b"asked" in output
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.parametrize(
    "options",
    [("--active-file", "/nonexistent/active"), ("--control", "/nonexistent/socket")],
)
def test_an_application_that_depends_on_anything_waits_for_it(
    entrypoint: Entrypoint, started: Path, options: tuple[str, ...]
) -> None:
    process = entrypoint("exit 0", at_import="raise ImportError('broken')", options=options)
    process.communicate(timeout=TIMEOUT)
    assert not started.exists()


@pytest.mark.parametrize(
    "options", [("--stop-signal", "SIGNONSENSE"), ("--grace", "-1"), ("--restart", "perhaps")]
)
def test_a_wrong_command_line_starts_nothing(
    entrypoint: Entrypoint, started: Path, options: tuple[str, ...]
) -> None:
    process = entrypoint("exit 0", options=options)
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 64
    assert not started.exists()


def test_a_command_that_does_not_exist_is_reported_as_ever() -> None:
    command = [sys.executable, "-m", "trio_entrypoint.cli", "run", "--", "/nonexistent/app"]
    process = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    assert process.returncode == 127
    assert b"/nonexistent/app" in process.stderr
