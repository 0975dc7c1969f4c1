"""In a cgroup of its own nothing of a process can be taken for another's, or get away."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import programs
import pytest
import trio

from trio_entrypoint import open_process
from trio_entrypoint._linux.cgroup import Cgroup
from trio_entrypoint._linux.procfs import children

BELOW = "d=$1$(sed -n 's/^0:://p' /proc/self/cgroup)/below; mkdir $d; echo 0 >$d/cgroup.procs;"
POLITE = 'trap "echo asked; exit" TERM; echo ready; while :; do sleep 0.01; done'


@pytest.fixture
def hierarchy() -> Generator[Path]:
    """The cgroup2 hierarchy, which has no cgroup of ours before and after."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            found = Path(line.split()[4])
            assert not list(found.glob("trio-entrypoint-*"))
            yield found
            assert not list(found.glob("trio-entrypoint-*"))
            return
    pytest.skip("there is no cgroup2 hierarchy")


async def test_a_process_runs_in_a_cgroup_of_its_own(hierarchy: Path) -> None:
    async with programs.started(["sh", "-c", "cat /proc/self/cgroup; echo ready"], cgroup=True):
        assert len(list(hierarchy.glob("trio-entrypoint-*"))) == 1


async def test_an_anonymous_daemon_is_known_to_be_this_process_and_no_other(
    hierarchy: Path,
) -> None:
    for command in programs.AWKWARD.values():
        async with programs.started(programs.ANONYMOUS_DAEMON, cgroup=True) as survivor:
            async with programs.started(command, cgroup=True, grace_period=0.1):
                pass
            assert survivor.process.status is None
            assert not survivor.all_gone()
            stopped = await survivor.process.stop()
            assert stopped.signal is not None


async def test_a_failed_start_leaves_no_cgroup(hierarchy: Path) -> None:
    before = children(os.getpid())
    with pytest.raises(FileNotFoundError):
        async with open_process(["/no/such/program"], cgroup=True):
            raise AssertionError
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_process(["true"], cgroup=True):
            raise AssertionError
    with trio.move_on_after(0.005):  # within the start, most of the time
        async with open_process(["sleep", "1000"], cgroup=True):
            await trio.sleep_forever()
    assert children(os.getpid()) == before


@pytest.mark.parametrize("place", ["", BELOW], ids=["in its cgroup", "in a cgroup below"])
async def test_even_an_anonymous_daemon_is_asked_before_it_is_killed(
    hierarchy: Path, place: str
) -> None:
    command = [
        "sh",
        "-c",
        f"{place} setsid env -i sh -c '{POLITE}' & exit 0",
        "sh",
        str(hierarchy),
    ]
    async with programs.started(programs.SLEEPER):  # it could be this one's
        async with programs.started(command, cgroup=True, grace_period=1000) as watched:
            await watched.process.wait()
            with trio.fail_after(10):
                await watched.process.stop()
        assert b"asked" in watched.output


async def test_a_cgroup_is_ended_in_one_step(hierarchy: Path) -> None:
    cgroup = Cgroup.make(str(hierarchy), "test.1")
    try:
        storm = subprocess.Popen(
            ["sh", "-c", 'read _; exec "$@"', "sh", *programs.FORK_STORM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert storm.stdin is not None
        assert storm.stdout is not None
        Path(os.fsdecode(cgroup.entrance)).write_text(str(storm.pid))
        storm.stdin.write(b"\n")
        storm.stdin.flush()
        assert storm.stdout.readline() == b"ready\n"
        assert cgroup.populated
        assert len(cgroup.pids()) > 1
        cgroup.kill()
        with storm:
            assert not storm.stdout.read().strip(b"ready\n")
        assert storm.returncode == -signal.SIGKILL
        with trio.fail_after(10):
            while cgroup.populated:  # noqa: ASYNC110 - the last ones take their time to end
                await trio.sleep(0.001)
    finally:
        cgroup.kill()
        cgroup.remove()


def test_a_mount_point_whose_name_is_no_utf8_is_in_nobodys_way(tmp_path: Path) -> None:
    place = os.fsencode(tmp_path) + b"/\xff\xc2\xa0"
    os.mkdir(place)
    source = "from trio_entrypoint._linux.cgroup import find_hierarchy; print(find_hierarchy())"
    script = 'mount -t tmpfs none "$1" && exec "$2" -c "$3"'
    ran = subprocess.run(
        [
            "unshare",
            "--mount",
            "--cgroup",
            "sh",
            "-c",
            script,
            "sh",
            place,
            sys.executable,
            source,
        ],
        stdout=subprocess.PIPE,
        check=True,
    )
    assert os.path.isfile(ran.stdout.rstrip() + b"/cgroup.procs")


def test_a_cgroup_that_somebody_removed_has_nobody_in_it(hierarchy: Path) -> None:
    cgroup = Cgroup.make(str(hierarchy), "test.2")
    with cgroup.open_events() as events:
        assert events is None
    cgroup.remove()
    cgroup.kill()
    assert cgroup.pids() == []
    assert not cgroup.populated
    with cgroup.open_events() as events:
        assert events is None


def test_a_cgroup_that_nobody_can_look_at_is_not_said_to_be_empty(hierarchy: Path) -> None:
    cgroup = Cgroup.make(str(hierarchy), "test.3")
    try:
        for look in (cgroup.pids, cgroup.kill, lambda: cgroup.populated):
            with programs.exhausted(0), pytest.raises(OSError, match="Too many open files"):
                look()
    finally:
        cgroup.remove()
