"""Processes tell how they are by systemd's and s6's protocols; only the right ones are heard."""

import array
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing
from functools import partial

import pytest
import trio

from trio_entrypoint._supervisor.notify import NotifySocket
from trio_entrypoint.handlers import OpenProcess
from trio_entrypoint.policies import Health, Ignore, Never, Readiness
from trio_entrypoint.probes import DescriptorProbe, NotifyProbe
from trio_entrypoint.process import open_process
from trio_entrypoint.states import Cause, GaveUp, ProcessState
from trio_entrypoint.supervisor import Supervisor
from trio_entrypoint.testing import recording

TELL = """
import os, socket, sys, time
def tell(text):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), "\\0" + address[1:] if address[0] == "@" else address)
"""


@pytest.fixture
def mine() -> Generator[NotifySocket]:
    """A socket that hears this very process."""
    with closing(NotifySocket(descendants=False)) as notify:
        notify.main_pid = os.getpid()
        yield notify


def send(notify: NotifySocket, data: bytes, *fds: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sender.sendmsg([data], rights, 0, "\0" + notify.address[1:])


def send_from_child(notify: NotifySocket, text: str) -> None:
    """Send from a child of this process, as `systemd-notify` in a script does."""
    command = [sys.executable, "-Sc", f"{TELL}\ntell({text!r}); sys.stdin.read()"]
    child = subprocess.Popen(command, env={"NOTIFY_SOCKET": notify.address}, stdin=subprocess.PIPE)
    waiting.append(child)


waiting: list["subprocess.Popen[bytes]"] = []


@pytest.fixture(autouse=True)
def _no_child_stays() -> Generator[None]:
    yield
    while waiting:
        child = waiting.pop()
        child.communicate()


async def test_a_message_is_a_list_of_fields(mine: NotifySocket) -> None:
    send(mine, b"READY=1\nSTATUS=1 + 1 = 2\nnonsense\nX=\xff")
    assert await mine.receive() == {"READY": "1", "STATUS": "1 + 1 = 2", "X": "\ufffd"}


async def test_a_message_that_is_too_long_is_passed_over(mine: NotifySocket) -> None:
    send(mine, b"STATUS=" + b"x" * 5000)
    send(mine, b"READY=1")
    assert await mine.receive() == {"READY": "1"}


async def test_another_process_is_not_heard(mine: NotifySocket) -> None:
    send_from_child(mine, "READY=1")
    with trio.move_on_after(0.5) as scope:
        await mine.receive()
    assert scope.cancelled_caught


async def test_a_descendant_is_heard_where_that_is_allowed() -> None:
    with closing(NotifySocket(descendants=True)) as notify:
        notify.main_pid = os.getpid()
        send_from_child(notify, "READY=1")
        with trio.fail_after(20):
            assert await notify.receive() == {"READY": "1"}
        # A process that does not descend from the main one is nobody.
        notify.main_pid = waiting[0].pid
        send(notify, b"READY=1")
        with trio.move_on_after(0.2) as scope:
            await notify.receive()
        assert scope.cancelled_caught


async def test_only_a_descendant_can_become_the_main_process(mine: NotifySocket) -> None:
    mine.adopt(1)
    assert mine.main_pid == os.getpid()
    send_from_child(mine, "READY=1")
    mine.adopt(waiting[0].pid)
    assert mine.main_pid == waiting[0].pid


async def test_descriptors_are_not_accepted_and_a_barrier_is_passed(mine: NotifySocket) -> None:
    before = len(os.listdir("/proc/self/fd"))
    reading, writing = os.pipe()
    send(mine, b"BARRIER=1", writing)
    os.close(writing)
    await mine.receive()
    assert os.read(reading, 1) == b""  # nobody holds the other end
    os.close(reading)
    assert len(os.listdir("/proc/self/fd")) == before


# --- by a real process


def program(text: str) -> OpenProcess:
    return partial(open_process, [sys.executable, "-Sc", TELL + text], grace_period=1.0)


async def test_ready_status_reload_and_stopping_are_told() -> None:
    tell = """
tell("STATUS=reading the database"); time.sleep(0.1)
tell("READY=1"); time.sleep(0.1)
tell("RELOADING=1"); time.sleep(0.1)
tell("READY=1\\nSTATUS=serving"); time.sleep(0.1)
tell("STOPPING=1"); time.sleep(0.2)
"""
    supervisor = Supervisor(
        program(tell),
        readiness=Readiness(NotifyProbe(), timeout=30.0),
        restart=Never(),
    )
    async with recording(supervisor.events) as seen:
        assert (await supervisor.run()).success
        await trio.testing.wait_all_tasks_blocked()
    states = [one.after.process for one in seen if one.after.process != one.before.process]
    assert states == [
        ProcessState.STARTING,
        ProcessState.RUNNING,
        ProcessState.READY,
        ProcessState.RELOADING,
        ProcessState.READY,
        ProcessState.STOPPING,
        ProcessState.ENDED,
    ]
    texts = [one.after.status_text for one in seen if one.cause is Cause.STATUS_TEXT]
    assert texts == ["reading the database", "serving"]
    assert Cause.PROCESS_STOPPING in [one.cause for one in seen]
    assert supervisor.state.status_text == ""


async def test_a_start_can_ask_for_more_time() -> None:
    tell = 'tell("EXTEND_TIMEOUT_USEC=20000000"); time.sleep(3.1); tell("READY=1")'
    supervisor = Supervisor(
        program(tell),
        readiness=Readiness(NotifyProbe(), timeout=3.0),
        restart=Never(),
    )
    assert (await supervisor.run()).success


async def test_a_watchdog_that_is_not_fed_bites() -> None:
    tell = """
assert os.environ["WATCHDOG_USEC"] == "400000"
tell("READY=1")
for _ in range(8):
    time.sleep(0.1); tell("WATCHDOG=1")
time.sleep(60)
"""
    supervisor = Supervisor(
        program(tell),
        readiness=Readiness(NotifyProbe(), timeout=30.0),
        health=Health(NotifyProbe(), period=0.2, failures=2),
        restart=Never(),
    )
    with pytest.raises(GaveUp, match=r"no WATCHDOG=1 for 0\.4 s"):
        await supervisor.run()


async def test_a_watchdog_can_be_triggered_and_be_fed_again() -> None:
    tell = """
tell("READY=1"); time.sleep(0.3); tell("WATCHDOG=trigger"); time.sleep(0.3)
tell("WATCHDOG=1"); time.sleep(0.3)
"""
    supervisor = Supervisor(
        program(tell),
        readiness=Readiness(NotifyProbe(), timeout=30.0),
        health=Health(NotifyProbe(), period=1000.0, on_failure=Ignore()),
        restart=Never(),
    )
    async with recording(supervisor.events) as seen:
        await supervisor.run()
        await trio.testing.wait_all_tasks_blocked()
    causes = [one.cause for one in seen]
    assert causes.index(Cause.UNHEALTHY) < causes.index(Cause.HEALTHY)


@pytest.mark.parametrize("fd", [3, 7])
async def test_a_newline_on_a_descriptor_makes_it_ready_as_under_s6(fd: int) -> None:
    text = f'import time; time.sleep(0.2); os.write({fd}, b"\\n"); os.close({fd}); time.sleep(60)'
    supervisor = Supervisor(
        program(text),
        readiness=Readiness(DescriptorProbe(fd), timeout=30.0),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        assert supervisor.state.ready
        nursery.cancel_scope.cancel()


async def test_a_descriptor_that_is_closed_without_a_newline_is_not_ready() -> None:
    supervisor = Supervisor(
        program("os.close(3); time.sleep(60)"),
        readiness=Readiness(DescriptorProbe(), timeout=2.0),
        restart=Never(),
    )
    with pytest.raises(GaveUp, match="not ready within 2 s: it closed the descriptor"):
        await supervisor.run()
