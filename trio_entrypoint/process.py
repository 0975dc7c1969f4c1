"""`open_process`: one run of a program, which is gone, with all that it started, at the end.

`_process/start.py` starts it, `_process/lifecycle.py` ends it, and `_linux/` is where the kernel
is asked.
"""

import errno
import os
import signal as signals
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import TypeAlias, final

import trio

from trio_entrypoint._arguments import check_path, check_variables
from trio_entrypoint._linux.head_start import HeadStart
from trio_entrypoint._linux.launch import Launch, LimitValue, SettingError
from trio_entrypoint._linux.process_tree import KILL_TIMEOUT
from trio_entrypoint._linux.reaper import shared_reaper
from trio_entrypoint._linux.spawn import (
    CommandError,
    CommandNotExecutableError,
    CommandNotFoundError,
)
from trio_entrypoint._nursery import only_cause
from trio_entrypoint._process.lifecycle import Lifecycle, StopScope, StopSettings
from trio_entrypoint._process.start import (
    Request,
    adopt,
    check_limits,
    check_range,
    check_signal,
    start,
)
from trio_entrypoint.environment import Environment
from trio_entrypoint.handlers import ExitStatus, ProcessEvent
from trio_entrypoint.output import Input, Output, Pump

__all__ = [
    "CommandError",
    "CommandNotExecutableError",
    "CommandNotFoundError",
    "Process",
    "ProcessSurvivedError",
    "SettingError",
    "StopScope",
    "open_process",
]

StrOrBytesPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]


@final
class ProcessSurvivedError(RuntimeError):
    """Processes exist although SIGKILL was sent: they hang in the kernel (state D, mostly).

    Or they belong to another user, and this program may not signal them: it lacks CAP_KILL.

    Starting the same service again would mean to run it twice.
    """

    def __init__(self, name: str, pids: Sequence[int]) -> None:
        super().__init__(
            f"process {name!r}: {len(pids)} of its processes did not end within "
            f"{KILL_TIMEOUT:g} s of SIGKILL: {', '.join(map(str, pids))}"
        )
        self.pids: tuple[int, ...] = tuple(pids)


@final
class Process:
    """A process that runs, or ran. `open_process` makes it."""

    events: trio.MemoryReceiveChannel[ProcessEvent]
    """`ProcessStarted`, then `ProcessEnded`; neither is ever dropped."""

    pid: int
    """The main process's number. It may belong to another process after the block."""

    name: str
    """What it is called in logs."""

    def __init__(
        self, name: str, pid: int, lifecycle: Lifecycle, pumps: Sequence[Pump] = ()
    ) -> None:
        self.name = name
        self.pid = pid
        self.events = lifecycle.events
        self._lifecycle = lifecycle
        self._pumps = pumps

    def __repr__(self) -> str:
        return f"<Process {self.name!r} pid {self.pid}: {self.status or 'running'}>"

    @property
    def status(self) -> ExitStatus | None:
        """How the process ended; None while it runs."""
        return self._lifecycle.status

    @property
    def last_lines(self) -> list[str]:
        """The last lines of output, those of standard error if they are read apart.

        Empty unless `stdout` or `stderr` is a `LogFile` or `LogLines`.
        """
        return self._pumps[-1].last_lines if self._pumps else []

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
            PermissionError: It belongs to another user, and this program lacks CAP_KILL.
            ValueError: There is no such signal.
        """
        check_signal("signal", signal)
        if self.status is not None:
            raise ProcessLookupError(
                errno.ESRCH, f"process {self.name!r} (pid {self.pid}) has ended: {self.status}"
            )
        try:
            self._lifecycle.signal(signal)
        except PermissionError as error:
            message = f"process {self.name!r} (pid {self.pid}): not permitted to send it a signal"
            raise PermissionError(error.errno, message) from None


def open_process(
    command: Sequence[StrOrBytesPath],
    *,
    stop_signal: int = signals.SIGTERM,
    grace_period: float = 10.0,
    stop_scope: StopScope = "main",
    env: Mapping[str, str] | Environment | None = None,
    cwd: StrOrBytesPath | None = None,
    stdin: Input = "null",
    stdout: Output = "inherit",
    stderr: Output = "inherit",
    terminal: bool = False,
    user: str | int | None = None,
    group: str | int | None = None,
    extra_groups: Sequence[str | int] | None = None,
    umask: int | None = None,
    limits: Mapping[str, LimitValue | tuple[LimitValue, LimitValue]] | None = None,
    nice: int | None = None,
    oom_score_adj: int | None = None,
    no_new_privileges: bool = False,
    cgroup: bool = False,
    name: str | None = None,
    extra_env: Mapping[str, str] | None = None,
    extra_fds: Mapping[int, int] | None = None,
) -> AbstractAsyncContextManager[Process]:
    """Run a program for the duration of a block.

    Entering starts it. However the block is left, everything that the program started is
    gone afterwards: the stop signal, at most `grace_period` seconds, then SIGKILL.

    A plain command starts in a fraction of a millisecond. What only the process itself can
    set (from `terminal` to `cgroup`, and `cwd`) costs a small Python
    program in between, about 10 ms.

    Args:
        command: The program, looked for in `PATH` unless it contains a slash, and arguments.
        stop_signal: The signal that asks it to end.
        grace_period: Seconds from the stop signal until what is left is killed.
        stop_scope: Who gets the stop signal first: `"main"`, the main process alone, or
            `"group"`, all of its process group at once.
        env: The environment; that of this program if None.
        cwd: The working directory. A relative command counts from it.
        stdin: `"null"`, `"inherit"`, a descriptor, or the path of a file to read. A FIFO that
            nobody has open for writing at the start is empty.
        stdout: `"inherit"`, `"null"`, a descriptor, or what to do with the output:
            `LogFile(path)`, `LogLines()`.
        stderr: Like `stdout`; `"stdout"` sends it the same way.
        terminal: Inherit standard input and, if that is the terminal that this program has
            in the foreground, hand the terminal over, as a shell does: Ctrl-C and the like
            go to the process alone. Only for one process at a time.
        user: Name or number; HOME, USER and LOGNAME follow unless `env` sets them.
        group: Name or number; by default the user's.
        extra_groups: Supplementary groups; by default those that the user is in.
        umask: The mode bits that new files do not get.
        limits: Resource limits by the name that `setrlimit(2)` gives them, in lower case and
            without RLIMIT: `{"nofile": 65536, "core": ("unlimited", "unlimited")}`; a pair
            is the soft and the hard limit.
        nice: Niceness, -20 to 19.
        oom_score_adj: -1000 (never killed when memory runs out) to 1000 (killed first).
        no_new_privileges: Set-user-ID programs and file capabilities have no effect.
        cgroup: Run it in a cgroup of its own, if this program sees the root of a writable
            cgroup2 hierarchy: then even a descendant that begins a session, loses its parent
            and cleans its environment is known to be this process's, and not another's of the
            same entrypoint. Costs another 10 to 25 ms at the start.
        name: What it is called in logs; by default the program's file name.
        extra_env: Variables added to the environment.
        extra_fds: Descriptors added: the number in the process, to the number here.

    Returns:
        A context manager that gives the `Process`.

    Raises:
        CommandError: From the entry of the block: the command cannot be executed; it is a
            `FileNotFoundError` or a `PermissionError` where that is the reason.
        SettingError: From the entry: the kernel refused a setting; `field` names it.
        OSError: From the entry: a file or descriptor cannot be had.
        ValueError: An argument is out of range, or there is no such user; the message names
            the field.
        ProcessSurvivedError: From the end of the block: something did not end by SIGKILL.
            (`OSError` if there is not even a descriptor left to look who lives.)

    Example::

        async with open_process(["nginx", "-g", "daemon off;"], stop_signal=SIGQUIT) as nginx:
            status = await nginx.wait()
    """
    if not command or isinstance(command, str | bytes):
        raise ValueError(f"command: expected a list of program and arguments, got {command!r}")
    check_signal("stop_signal", stop_signal)
    if not grace_period >= 0:
        raise ValueError(f"grace_period: expected seconds of at least 0, got {grace_period!r}")
    if stop_scope not in ("main", "group"):
        raise ValueError(f"stop_scope: expected 'main' or 'group', got {stop_scope!r}")
    for field, words in {
        "command": command,
        "cwd": [cwd],
        "stdin": [stdin],
        "user": [user],
        "group": [group],
        "extra_groups": extra_groups or (),
    }.items():
        for word in words:
            if word is not None and not isinstance(word, int):
                check_path(field, word)
    if isinstance(env, Mapping):
        check_variables("env", env)
    check_variables("extra_env", extra_env or {})
    arguments = tuple(os.fsencode(word) for word in command)
    request = Request(
        name=name or os.fsdecode(os.path.basename(arguments[0])),
        arguments=arguments,
        env=env,
        extra_env=extra_env or {},
        stdin="inherit" if terminal else stdin,
        stdout=stdout,
        stderr=stderr,
        extra_fds=extra_fds or {},
        user=user,
        group=group,
        extra_groups=extra_groups,
        cgroup=cgroup,
        launch=Launch(
            oom_score_adj=check_range("oom_score_adj", oom_score_adj, -1000, 1000),
            nice=check_range("nice", nice, -20, 19),
            limits=check_limits(limits or {}),
            umask=check_range("umask", umask, 0, 0o777),
            terminal=terminal,
            no_new_privileges=no_new_privileges,
            cwd=None if cwd is None else os.fsencode(cwd),
        ),
    )
    stop = StopSettings(signal=stop_signal, scope=stop_scope, grace_period=grace_period)
    return _open_process(request, request.name, stop)


def open_started(
    start: HeadStart,
    *,
    name: str,
    stop_signal: int,
    grace_period: float,
    stop_scope: StopScope,
) -> AbstractAsyncContextManager[Process]:
    """As `open_process`, for a process that was started before Trio was imported."""
    stop = StopSettings(signal=stop_signal, scope=stop_scope, grace_period=grace_period)
    return _open_process(start, name, stop)


@asynccontextmanager
async def _open_process(
    request: Request | HeadStart, name: str, stop: StopSettings
) -> AsyncGenerator[Process]:
    await trio.lowlevel.checkpoint()
    with ExitStack() as stack:
        reaper = stack.enter_context(shared_reaper())
        if isinstance(request, HeadStart):
            started = adopt(request, reaper, stack)
        else:
            started = await start(request, reaper, stack)
        # No checkpoint from here to the nursery: a child that nobody watches cannot be.
        lifecycle = Lifecycle(started.pid, started.pidfd, started.tree, stop)
        # The nursery does not get to see the block's own exception: it would put it in a group.
        manager = trio.open_nursery()
        nursery = await manager.__aenter__()
        nursery.start_soon(lifecycle.watch)
        nursery.start_soon(lifecycle.stop_when_asked)
        for pump in started.pumps:
            nursery.start_soon(pump.run, lifecycle.gone)
        # Not before the process runs, which it would delay.
        trio.lowlevel.current_trio_token().run_sync_soon(reaper.guard, idempotent=True)
        process = Process(name, started.pid, lifecycle, started.pumps)
        try:
            yield process
        finally:
            lifecycle.stop_asked.set()
            try:
                await manager.__aexit__(None, None, None)  # noqa: ASYNC102 - its tasks are bounded
            except BaseExceptionGroup as group:
                cause = only_cause(group)
                if cause is None:
                    raise
                raise cause from cause.__cause__
            finally:
                lifecycle.close()
                reaper.last_lines = process.last_lines
        if lifecycle.survivors:
            raise ProcessSurvivedError(name, lifecycle.survivors)
