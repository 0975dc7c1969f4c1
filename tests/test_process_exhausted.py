"""An entrypoint that has no descriptor left to look with still leaves nothing behind."""

import errno
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import programs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_entrypoint import LogLines, open_process
from trio_entrypoint._linux.environ import read_variable
from trio_entrypoint._linux.procfs import children, read_stat
from trio_entrypoint._process import lifecycle, start
from trio_entrypoint.process import StopScope

STUBBORN = ["sh", "-c", "trap '' TERM; setsid sleep 1000 & echo ready; wait"]

ALONE = ["sh", "-c", "trap '' TERM; echo ready; exec sleep 1000"]


@pytest.mark.parametrize("free", [0, 1])
@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("stop_scope", ["main", "group"])
async def test_nothing_is_left_although_descriptors_were_used_up_for_a_while(
    free: int, kill: bool, stop_scope: StopScope
) -> None:
    async def give_back_after(pidfd: int, give_back: Callable[[], None]) -> None:
        await trio.lowlevel.wait_readable(pidfd)
        await trio.sleep(0.2)  # so long somebody lives whom nobody can see
        give_back()

    with trio.fail_after(20), ExitStack() as stack:
        async with (
            trio.open_nursery() as nursery,
            programs.started(STUBBORN, grace_period=0.1, stop_scope=stop_scope) as watched,
        ):
            pidfd = os.pidfd_open(watched.process.pid)
            stack.callback(os.close, pidfd)
            give_back = stack.enter_context(programs.exhausted(free))
            nursery.start_soon(give_back_after, pidfd, give_back)
            if kill:
                watched.process.kill()


async def test_no_descriptor_to_the_end_is_an_error_and_no_endless_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifecycle, "KILL_TIMEOUT", 0.3)
    before = children(os.getpid())
    with (
        trio.fail_after(20),
        pytest.raises(OSError, match="Too many open files") as caught,
        ExitStack() as stack,
    ):
        async with programs.started(ALONE, check=False, grace_period=0.1):
            stack.enter_context(programs.exhausted(0))
    assert caught.value.errno == errno.EMFILE
    assert children(os.getpid()) == before


@pytest.mark.parametrize("settings", [{}, {"umask": 0o077}], ids=["", "launcher"])
async def test_a_process_that_nobody_can_look_at_from_its_start_is_ended(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    before = children(os.getpid())
    with ExitStack() as stack:

        def spawn(*arguments: Any, **keywords: Any) -> int:
            pid = real(*arguments, **keywords)
            stack.enter_context(programs.exhausted(0))
            return pid

        real = start.spawn  # type: ignore[attr-defined]
        monkeypatch.setattr(start, "spawn", spawn)
        with trio.fail_after(20), pytest.raises(OSError, match="Too many open files"):
            async with open_process(["sleep", "1000"], **settings):
                raise AssertionError
    assert children(os.getpid()) == before


@pytest.mark.parametrize(
    "settings", [{}, {"user": "nobody", "stdout": LogLines()}], ids=["plain", "launcher"]
)
async def test_whatever_lacks_a_descriptor_leaves_none_open(settings: dict[str, Any]) -> None:
    before = os.listdir("/proc/self/fd")
    for free in range(16):
        with programs.exhausted(free), suppress(OSError):
            async with open_process(["true"], **settings) as process:
                await process.wait()
                await wait_all_tasks_blocked()  # the guard is started behind it
        assert os.listdir("/proc/self/fd") == before


async def test_a_guard_that_could_not_be_started_is_tried_with_the_next_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(open_process(["sleep", "1000"]))
            with programs.exhausted(0):  # the guard is started behind it
                await wait_all_tasks_blocked()
        await stack.enter_async_context(open_process(["sleep", "1000"]))
        await wait_all_tasks_blocked()
        assert [record.message for record in caplog.records] == [
            "processes would survive a SIGKILL of this program: [Errno 24] Too many open files"
        ]
        arguments = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(os.getpid())]
        assert sum(b"guard_program.py" in words for words in arguments) == 1


async def test_orphans_that_end_while_nobody_can_look_are_reaped_later() -> None:
    async with programs.started(programs.SLEEPER):
        with programs.exhausted(0):
            signal.raise_signal(signal.SIGCHLD)
            for _ in range(3):
                await trio.lowlevel.checkpoint()


def test_what_cannot_be_looked_at_is_not_said_to_be_gone() -> None:
    for look in (read_stat, children, partial(read_variable, name="PATH")):
        with programs.exhausted(0), pytest.raises(OSError, match="Too many open files"):
            look(os.getpid())


def test_what_there_is_no_memory_to_read_is_not_said_to_be_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(*_: int) -> bytes:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    for look in (read_stat, children):
        with monkeypatch.context() as patched:
            patched.setattr(os, "read", read)
            with pytest.raises(OSError, match="allocate memory"):
                look(os.getpid())
