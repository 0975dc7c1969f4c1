"""`run`: the top of a container. Signals, the duties of PID 1, the exit status.

    SIGTERM, SIGINT, SIGQUIT   cancel `main`, once; all is torn down on the way out
    SIGHUP                     the same, but only if the terminal is gone
    SIGCHLD                    reaps adopted orphans
    all others                 do nothing, unless `forward_signals` passes them on

The handlers are there before Trio runs and stay until the program ends, so no signal, and no
second one, can end the entrypoint before its processes.
"""

import logging
import math
import os
import signal as signals
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Final, Literal, NoReturn, Protocol, TypeAlias, final

import trio

from trio_entrypoint._arguments import check_path
from trio_entrypoint._linux.early import FORWARDABLE, STOP_SIGNALS, block_signals
from trio_entrypoint._linux.process_tree import end_orphans
from trio_entrypoint._linux.reaper import Reaper, shared_reaper
from trio_entrypoint._outcome import Outcome, of_error, of_result, write_message
from trio_entrypoint.handlers import ExitStatus

__all__ = [
    "DEFAULT_SIGNALS",
    "SignalAction",
    "SignalTarget",
    "block_signals",
    "forward_signals",
    "run",
]

_logger = logging.getLogger(__name__)

_ORPHANS_GRACE_PERIOD = 10.0

Main: TypeAlias = Callable[[], Awaitable[ExitStatus | int | None]]


def run(
    main: Main,
    *,
    init: bool | None = None,
    stop_signals: Collection[int] = STOP_SIGNALS,
    termination_message: str | os.PathLike[str] | None = None,
) -> NoReturn:
    """Run an entrypoint from start to end, and exit with its status.

    A stop signal cancels `main`; further ones change nothing. The exit status is

    * what `main` returns: an application's status (128+n if a signal ended it), a code, or 0
      for None;
    * if a stop signal cancelled `main`: the status of the application that ended then, the
      highest of several; if none ran, that of the last one; if none ever did, 128+n;
    * if `main` raised: the code of a `SystemExit`; the `exit_code` of an exception that has
      one (127 for a command that does not exist, 126 for one that cannot be executed), its
      message being all that is printed; else 1, and the traceback is printed. Exception
      groups are looked into.

    Args:
        main: The entrypoint.
        init: Be to a container what PID 1 is: when `main` has ended, ask the orphans that
            were adopted, whoever started them, to end, and kill them after 10 seconds. By
            default if this is PID 1. Orphans are adopted, and reaped, in any case.
        stop_signals: The signals that cancel `main`.
        termination_message: A file to write, if the exit status is not 0, why the entrypoint
            ended, its status, and the last lines of standard error (of a process whose
            output is read here): Kubernetes shows what is in `/dev/termination-log`.

    Raises:
        SystemExit: Always.
        ValueError: A stop signal is not a signal that can be handled.

    Example::

        async def main() -> ExitStatus:
            async with open_process(["app"]) as process:
                return await process.wait()

        trio_entrypoint.run(main)
    """
    for number in stop_signals:
        if number not in FORWARDABLE:
            raise ValueError(f"stop_signals: {number!r} is not a signal to stop an entrypoint by")
    if termination_message is not None:
        check_path("termination_message", termination_message)
    shutdown = _Shutdown(stop_signals)
    shutdown.listen()
    try:
        result = trio.run(_run, main, os.getpid() == 1 if init is None else init, shutdown)
    except BaseException as error:  # noqa: ASYNC103, BLE001 - it becomes the exit status
        result = of_error(error)
    finally:
        shutdown.ignore()
    if termination_message is not None and result.status != 0:
        try:
            write_message(os.fspath(termination_message), result, shutdown.last_lines)
        except OSError as error:
            _logger.warning("the termination message cannot be written: %s", error)
    sys.exit(result.status)


async def _run(main: Main, init: bool, shutdown: "_Shutdown") -> Outcome:
    with shared_reaper() as reaper:
        reaper.reap()
        try:
            with trio.CancelScope() as scope:
                shutdown.attach(scope, reaper)
                return of_result(await main())
            return shutdown.outcome
        finally:
            if init:
                with trio.CancelScope(shield=True):
                    await end_orphans(reaper, _ORPHANS_GRACE_PERIOD)


@final
class _Shutdown:
    """The stop signals, from before Trio runs until the program ends."""

    def __init__(self, stop_signals: Collection[int]) -> None:
        self._stop_signals = frozenset(stop_signals)
        self._received: int | None = None
        self._attached: tuple[trio.lowlevel.TrioToken, trio.CancelScope, Reaper] | None = None

    def listen(self) -> None:
        """Take every signal that could end or stop this program; let those held back through.

        Handlers, not 'ignored': a handler is not inherited by what other code executes.
        """
        for number in FORWARDABLE:
            signals.signal(number, self._receive if number in self._stop_signals else _nothing)
        if signals.SIGHUP not in self._stop_signals and _has_terminal():
            signals.signal(signals.SIGHUP, self._hang_up)
        # A background process may write to its terminal, and hand it to another.
        for number in (signals.SIGTTIN, signals.SIGTTOU):
            signals.signal(number, signals.SIG_IGN)
        signals.pthread_sigmask(signals.SIG_UNBLOCK, FORWARDABLE)

    def attach(self, scope: trio.CancelScope, reaper: Reaper) -> None:
        """Have the first stop signal, which may have come already, cancel a scope."""
        self._attached = (trio.lowlevel.current_trio_token(), scope, reaper)
        if self._received is not None:
            self._stop()

    def ignore(self) -> None:
        """From now on nothing keeps the program from ending with its own status.

        Not by handlers: Python takes its own away before it ends. Nor by holding signals back:
        that is a matter of each thread, and Trio's workers may still be there.
        """
        for number in FORWARDABLE:
            signals.signal(number, signals.SIG_IGN)

    @property
    def outcome(self) -> Outcome:
        """How an entrypoint ends that was stopped."""
        assert self._attached is not None
        assert self._received is not None
        _, _, reaper = self._attached
        status = max(reaper.codes, default=128 + self._received)
        return Outcome(status, f"stopped by {ExitStatus(signal=self._received)}")

    @property
    def last_lines(self) -> list[str]:
        """The last lines of output of the process that ended last."""
        return self._attached[2].last_lines if self._attached is not None else []

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self._received is None:
            self._received = number
            if self._attached is not None:
                token, _, _ = self._attached
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(self._stop)

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        # It is a request, unless the terminal that we had is gone.
        if not _has_terminal():
            self._receive(number, frame)

    def _stop(self) -> None:
        assert self._attached is not None
        assert self._received is not None
        _, scope, reaper = self._attached
        _logger.info("stopping: received %s", signals.Signals(self._received).name)
        reaper.keep_codes()
        scope.cancel()


def _has_terminal() -> bool:
    """Whether this program has a controlling terminal."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(descriptor)
    return True


def _nothing(number: int, _frame: FrameType | None) -> None:
    """Handle a signal by not being ended by it."""


# --- passing signals on ----------------------------------------------------------------------


SignalAction: TypeAlias = "int | Literal['reload'] | None"
"""What to do on a signal: send this one instead, `"reload"`, or nothing (None)."""

DEFAULT_SIGNALS: Final[Mapping[int, SignalAction]] = {
    signals.SIGHUP: "reload",
    signals.SIGUSR1: signals.SIGUSR1,
    signals.SIGUSR2: signals.SIGUSR2,
    signals.SIGWINCH: signals.SIGWINCH,
}
"""SIGHUP asks for a reload; SIGUSR1, SIGUSR2 and SIGWINCH are passed on as they are."""


class SignalTarget(Protocol):
    """Who gets forwarded signals: a `Supervisor`."""

    def reload(self) -> None:
        """Have the application read its configuration again; does not wait for it."""
        ...

    def signal(self, signal: int, /) -> None:
        """Send the application a signal.

        Raises:
            ProcessLookupError: It does not run.
            PermissionError: That is not permitted.
        """
        ...


async def forward_signals(  # noqa: ASYNC114
    targets: Iterable[SignalTarget],
    table: Mapping[int, SignalAction] = DEFAULT_SIGNALS,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Pass the signals that this program gets on to its applications, until cancelled.

    A signal for an application that does not run is dropped. Use it once in an entrypoint,
    for all of its supervisors. The stop signals are not forwarded: they end the entrypoint,
    and each process is then told by its own `stop_signal`.

    Args:
        targets: Who gets them.
        table: What to do on which signal. Signals that are not in it keep their meaning.
        task_status: Told as soon as no signal can be missed.

    Raises:
        ValueError: The table has a signal that cannot be forwarded, or sends one that does
            not exist.

    Example::

        async with trio.open_nursery() as nursery:
            await nursery.start(forward_signals, [supervisor])
            status = await supervisor.run()
            nursery.cancel_scope.cancel()
    """
    targets = list(targets)
    for number, action in table.items():
        if number not in FORWARDABLE or number in STOP_SIGNALS:
            raise ValueError(f"table: signal {number!r} cannot be forwarded")
        if isinstance(action, int) and action not in signals.valid_signals():
            raise ValueError(f"table: there is no signal {action!r} to send for {number!r}")
    send, receive = trio.open_memory_channel[int](math.inf)
    token = trio.lowlevel.current_trio_token()
    pending: set[int] = set()

    def handler(number: int, frame: FrameType | None) -> None:
        # As in the kernel, a signal that is pending already is not pending twice. Besides, a
        # handler is interrupted by that of the next signal: in a burst of them, only one that
        # has next to nothing to do comes to its end before Python's stack does.
        if number not in pending:
            pending.add(number)
            token.run_sync_soon(send.send_nowait, number)
        # That of `run`, which stops if a SIGHUP means that the terminal is gone.
        if callable(previous := before.get(number)):
            previous(number, frame)

    before = {number: signals.getsignal(number) for number in table}
    for number in table:
        signals.signal(number, handler)
    try:
        task_status.started()
        while True:
            number = await receive.receive()
            pending.discard(number)
            for target in targets:
                _forward(target, table[number])
    finally:
        for number, previous in before.items():
            signals.signal(number, previous)


def _forward(target: SignalTarget, action: SignalAction) -> None:
    if action == "reload":
        target.reload()
    elif isinstance(action, int):
        try:
            target.signal(action)
        except ProcessLookupError:
            _logger.debug("signal %d dropped: the application does not run", action)
        except PermissionError as error:
            _logger.warning("signal %d dropped: %s", action, error)
