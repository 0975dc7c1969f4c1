"""`open_process`: one run of a program, which is gone, with all that it started, at the end."""

import errno
import os
import signal as signals
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import Literal, TypeAlias, final

import trio

from trio_entrypoint._lifecycle import Lifecycle, StopScope, StopSettings
from trio_entrypoint._linux.descendants import MARKER_VARIABLE
from trio_entrypoint._linux.process_tree import KILL_TIMEOUT, Tree
from trio_entrypoint._linux.reaper import shared_reaper
from trio_entrypoint._linux.spawn import (
    CommandError,
    CommandNotExecutableError,
    CommandNotFoundError,
    Program,
    find_program,
    spawn,
)
from trio_entrypoint.handlers import ExitStatus, ProcessEvent

__all__ = [
    "CommandError",
    "CommandNotExecutableError",
    "CommandNotFoundError",
    "Process",
    "ProcessSurvivedError",
    "StopScope",
    "open_process",
]

StrOrBytesPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

Input: TypeAlias = "Literal['null', 'inherit'] | int | os.PathLike[str]"
Output: TypeAlias = "Literal['null', 'inherit'] | int | os.PathLike[str]"


@final
class ProcessSurvivedError(RuntimeError):
    """Processes exist although SIGKILL was sent: they hang in the kernel (state D, mostly).

    Starting the same service again would mean to run it twice.
    """

    def __init__(self, name: str, pids: Sequence[int]) -> None:
        super().__init__(
            f"process {name!r}: {len(pids)} of its processes did not end within "
            f"{KILL_TIMEOUT:g} s of SIGKILL: {', '.join(map(str, pids))}"
        )
        self.pids = tuple(pids)


@final
class Process:
    """A process that runs, or ran. `open_process` makes it."""

    events: trio.MemoryReceiveChannel[ProcessEvent]
    """`ProcessStarted`, then `ProcessEnded`; neither is ever dropped."""

    pid: int
    """The main process's number. It may belong to another process after the block."""

    name: str
    """What it is called in logs."""

    def __init__(self, name: str, pid: int, lifecycle: Lifecycle) -> None:
        self.name = name
        self.pid = pid
        self.events = lifecycle.events
        self._lifecycle = lifecycle

    def __repr__(self) -> str:
        return f"<Process {self.name!r} pid {self.pid}: {self.status or 'running'}>"

    @property
    def status(self) -> ExitStatus | None:
        """How the process ended; None while it runs."""
        return self._lifecycle.status

    async def wait(self) -> ExitStatus:
        """Wait until the main process has ended. Any number of tasks may wait.

        Cancellation ends the wait and leaves the process as it is.
        """
        await self._lifecycle.ended.wait()
        status = self.status
        assert status is not None
        return status

    async def stop(self) -> ExitStatus:
        """Stop the process politely, then by force, and return its status.

        The stop signal is sent once, however often and by however many tasks this is called.
        It goes to the main process (or to its group, as `stop_scope` says), then, once that
        has ended, to what is left of the others; each process gets it once, followed by
        SIGCONT. What exists after the grace period is killed. When this returns, nothing that
        the process had started is alive. Cancellation ends the wait, not the stopping.

        Raises:
            ProcessSurvivedError: Something did not even end by SIGKILL.
        """
        self._lifecycle.stop_asked.set()
        await self._lifecycle.gone.wait()
        if self._lifecycle.survivors:
            raise ProcessSurvivedError(self.name, self._lifecycle.survivors)
        return await self.wait()

    def kill(self) -> None:
        """Send SIGKILL to everything that this run started; the block's end waits for it."""
        self._lifecycle.kill()

    def signal(self, signal: int) -> None:
        """Send a signal to the main process.

        Raises:
            ProcessLookupError: The process has ended. No other process ever gets the signal.
            ValueError: There is no such signal.
        """
        _check_signal("signal", signal)
        if self.status is not None:
            raise ProcessLookupError(
                errno.ESRCH, f"process {self.name!r} (pid {self.pid}) has ended: {self.status}"
            )
        self._lifecycle.signal(signal)


def open_process(
    command: Sequence[StrOrBytesPath],
    *,
    stop_signal: int = signals.SIGTERM,
    grace_period: float = 10.0,
    stop_scope: StopScope = "main",
    env: Mapping[str, str] | None = None,
    stdin: Input = "null",
    stdout: Output = "inherit",
    stderr: Output = "inherit",
    name: str | None = None,
    extra_env: Mapping[str, str] | None = None,
    extra_fds: Mapping[int, int] | None = None,
) -> AbstractAsyncContextManager[Process]:
    """Run a program for the duration of a block.

    Entering starts it. However the block is left, everything that the program started is
    gone afterwards: the stop signal, at most `grace_period` seconds, then SIGKILL.

    Args:
        command: The program, looked for in `PATH` unless it contains a slash, and arguments.
        stop_signal: The signal that asks it to end.
        grace_period: Seconds from the stop signal until what is left is killed.
        stop_scope: Who gets the stop signal first: `"main"`, the main process alone, or
            `"group"`, all of its process group at once.
        env: The environment; that of this program if None.
        stdin: `"null"`, `"inherit"`, a descriptor, or the path of a file to read.
        stdout: `"inherit"`, `"null"` or a descriptor.
        stderr: Like `stdout`.
        name: What it is called in logs; by default the program's file name.
        extra_env: Variables added to the environment.
        extra_fds: Descriptors added: the number in the process, to the number here.

    Returns:
        A context manager that gives the `Process`.

    Raises:
        CommandError: From the entry of the block: the command cannot be executed; it is a
            `FileNotFoundError` or a `PermissionError` where that is the reason.
        OSError: From the entry of the block: a file or descriptor cannot be had.
        ValueError: An argument is out of range; the message names it.
        ProcessSurvivedError: From the end of the block: something did not end by SIGKILL.

    Example::

        async with open_process(["nginx", "-g", "daemon off;"], stop_signal=SIGQUIT) as nginx:
            status = await nginx.wait()
    """
    if not command or isinstance(command, str | bytes):
        raise ValueError(f"command: expected a list of program and arguments, got {command!r}")
    _check_signal("stop_signal", stop_signal)
    if not grace_period >= 0:
        raise ValueError(f"grace_period: expected seconds of at least 0, got {grace_period!r}")
    if stop_scope not in ("main", "group"):
        raise ValueError(f"stop_scope: expected 'main' or 'group', got {stop_scope!r}")
    arguments = tuple(os.fsencode(word) for word in command)
    if any(b"\0" in word for word in arguments):
        raise ValueError(f"command: contains a NUL byte: {command!r}")
    files: dict[int, Input | Output] = {0: stdin, 1: stdout, 2: stderr}
    files.update(extra_fds or {})
    return _open_process(
        arguments,
        dict(os.environ if env is None else env) | dict(extra_env or {}),
        files,
        StopSettings(signal=stop_signal, scope=stop_scope, grace_period=grace_period),
        name or os.fsdecode(os.path.basename(arguments[0])),
    )


@asynccontextmanager
async def _open_process(
    arguments: tuple[bytes, ...],
    env: dict[str, str],
    files: "Mapping[int, Input | Output]",
    stop: StopSettings,
    name: str,
) -> AsyncGenerator[Process]:
    await trio.lowlevel.checkpoint()
    with ExitStack() as stack:
        reaper = stack.enter_context(shared_reaper())
        marker = reaper.new_marker()
        outer = os.environ.get(MARKER_VARIABLE)
        env[MARKER_VARIABLE] = f"{outer}/{marker}" if outer else marker
        environment = {os.fsencode(key): os.fsencode(value) for key, value in env.items()}
        with ExitStack() as opened:
            program = Program(
                find_program(arguments[0], environment),
                arguments,
                environment,
                {n: fd for n, file in files.items() if (fd := _open(opened, n, file)) is not None},
            )
            pid = spawn(program)
        # No checkpoint from here to the nursery: a child that nobody watches cannot be.
        tree = Tree(pid, marker, reaper)
        pidfd = os.pidfd_open(pid)
        stack.callback(os.close, pidfd)
        lifecycle = Lifecycle(pid, pidfd, tree, stop)
        # The nursery does not get to see the block's own exception: it would put it in a group.
        manager = trio.open_nursery()
        nursery = await manager.__aenter__()
        nursery.start_soon(lifecycle.watch)
        nursery.start_soon(lifecycle.stop_when_asked)
        try:
            yield Process(name, pid, lifecycle)
        finally:
            lifecycle.stop_asked.set()
            with trio.CancelScope(shield=True):
                await lifecycle.gone.wait()
            nursery.cancel_scope.cancel()
            await manager.__aexit__(None, None, None)  # noqa: ASYNC102 - waits for nothing
            lifecycle.close()
        if lifecycle.survivors:
            raise ProcessSurvivedError(name, lifecycle.survivors)


def _open(stack: ExitStack, number: int, file: "Input | Output") -> int | None:
    """The descriptor for a standard stream; None to inherit it."""
    if file == "inherit":
        return None
    if isinstance(file, int):
        return file
    path = "/dev/null" if file == "null" else file
    flags = os.O_RDONLY if number == 0 else os.O_WRONLY
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY)
    stack.callback(os.close, descriptor)
    return descriptor


def _check_signal(field: str, number: int) -> None:
    if number not in signals.valid_signals():
        raise ValueError(f"{field}: expected a signal's number, got {number!r}")
