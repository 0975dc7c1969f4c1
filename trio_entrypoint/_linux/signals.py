"""Signals to processes by pidfd: never to another process that got the same number."""

import errno
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager

from trio_entrypoint._linux.procfs import Stat, read_stat

SIGNALS = frozenset(map(int, signal.valid_signals()))
"""Every signal's number. (`valid_signals()` takes a tenth of a millisecond each time.)"""

DEFAULTED = tuple(sorted(SIGNALS - {signal.SIGKILL, signal.SIGSTOP}))
"""Every signal whose disposition can be set."""


@contextmanager
def open_pidfd(process: Stat) -> Generator[int | None]:
    """A descriptor of exactly this process; None when it is gone, or the number is another's."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError as error:
        # EINVAL: the number is that of a thread.
        if error.errno not in (errno.ESRCH, errno.EINVAL):
            raise
        yield None
        return
    try:
        now = read_stat(process.pid)
        same = now is not None and now.started == process.started
        yield pidfd if same else None
    finally:
        os.close(pidfd)


def send(process: Stat, *numbers: int) -> None:
    """Send signals to a process, if it is still there and we may."""
    with open_pidfd(process) as pidfd:
        if pidfd is None:
            return
        for number in numbers:
            try:
                signal.pidfd_send_signal(pidfd, number)
            except (ProcessLookupError, PermissionError):
                return


def send_to_group(leader: int, *numbers: int) -> None:
    """Send signals to a process group whose number is reserved: its leader is not reaped."""
    for number in numbers:
        try:
            os.killpg(leader, number)
        except (ProcessLookupError, PermissionError):
            return
