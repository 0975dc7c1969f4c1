"""A process that SIGKILL does not end is told of; nobody waits for it for ever."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import programs
import pytest
import trio

from trio_entrypoint import ProcessSurvivedError
from trio_entrypoint._process import lifecycle


@pytest.fixture
def freezer(tmp_path: Path) -> Generator[Path]:
    """A cgroup of version 1 that stops its processes so that SIGKILL has to wait (cgroups(7))."""
    hierarchy = tmp_path / "freezer"
    hierarchy.mkdir()
    subprocess.run(["mount", "-t", "cgroup", "-o", "freezer", "freezer", hierarchy], check=True)
    try:
        cgroup = hierarchy / f"trio-entrypoint-{os.getpid()}"
        cgroup.mkdir()
        try:
            yield cgroup
        finally:
            (cgroup / "freezer.state").write_text("THAWED")
            os.wait()
            cgroup.rmdir()
    finally:
        subprocess.run(["umount", hierarchy], check=True)


async def stop_frozen(freezer: Path) -> None:
    async with programs.started(programs.SLEEPER, grace_period=0.1, name="db") as watched:
        (freezer / "tasks").write_text(str(watched.process.pid))
        (freezer / "freezer.state").write_text("FROZEN")
        await watched.process.stop()


async def test_a_process_that_sigkill_does_not_end_is_named(
    freezer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "KILL_TIMEOUT", 0.2)
    with pytest.raises(ProcessSurvivedError) as caught, trio.fail_after(10):
        await stop_frozen(freezer)
    (pid,) = caught.value.pids
    assert (freezer / "tasks").read_text() == f"{pid}\n"
    assert str(caught.value) == (
        f"process 'db': 1 of its processes did not end within 10 s of SIGKILL: {pid}"
    )


POWERLESS = """
import sys
import trio
import programs
from contextlib import ExitStack
from trio_entrypoint import LogLines, ProcessSurvivedError, open_process
from trio_entrypoint._process import lifecycle

lifecycle.KILL_TIMEOUT = 0.2

async def main():
    with ExitStack() as stack:
        async with open_process(
            ["sleep", "1000"], user="nobody", stdout=LogLines(), grace_period=0.1
        ) as process:
            print(process.pid, flush=True)
            if sys.argv[1] == "blind":
                stack.enter_context(programs.exhausted(0))

try:
    trio.run(main)
except ProcessSurvivedError as error:
    print(type(error).__name__, *error.pids)
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize(
    ("how", "expected"),
    [("seeing", "ProcessSurvivedError {pid}"), ("blind", "Too many open files")],
)
def test_a_process_that_may_not_be_signalled_is_told_of_and_not_waited_for(
    how: str, expected: str
) -> None:
    without = ["setpriv", "--bounding-set", "-kill", "--inh-caps", "-kill"]
    with subprocess.Popen(
        [*without, sys.executable, "-c", POWERLESS, how],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
    ) as entrypoint:
        assert entrypoint.stdout is not None
        pid = int(entrypoint.stdout.readline())
        try:
            assert entrypoint.wait(timeout=20) == 0
            assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
        finally:
            entrypoint.kill()
            os.kill(pid, signal.SIGKILL)
        assert entrypoint.stdout.read() == expected.format(pid=pid) + "\n"
