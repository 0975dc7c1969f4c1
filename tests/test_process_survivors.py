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
import trio
from trio_entrypoint import ProcessSurvivedError, open_process
from trio_entrypoint._process import lifecycle

lifecycle.KILL_TIMEOUT = 0.2

async def main():
    async with open_process(["sleep", "1000"], user="nobody", stdout="null", grace_period=0.1):
        pass

try:
    trio.run(main)
except ProcessSurvivedError as error:
    print(*error.pids)
"""


def test_a_process_that_may_not_be_signalled_is_named_and_not_waited_for() -> None:
    without = ["setpriv", "--bounding-set", "-kill", "--inh-caps", "-kill"]
    ran = subprocess.run(
        [*without, sys.executable, "-c", POWERLESS], stdout=subprocess.PIPE, timeout=20, check=True
    )
    (pid,) = map(int, ran.stdout.split())
    assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    os.kill(pid, signal.SIGKILL)
