"""CLOCK_BOOTTIME: a clock that only goes forward and counts a suspended machine's time too.

Trio's own clock stands still while the machine is suspended, so its sleeps come late by that
much. A timerfd (timerfd_create(2)) on this clock is due as soon as the machine resumes.
"""

import ctypes
import os
import time
from typing import final

import trio

_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK  # TFD_CLOEXEC, TFD_NONBLOCK: timerfd_create(2)
_TIMER_ABSTIME = 1
_NEVER = 2.0**33  # seconds: the kernel counts nanoseconds in 63 bits


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


@final
class BootClock:
    """Tells the time since boot, suspensions included, and sleeps by it."""

    def now(self) -> float:
        """Seconds on CLOCK_BOOTTIME."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep_until(self, deadline: float) -> None:
        """Sleep until that time; return at once, after a checkpoint, if it has passed.

        Raises:
            OSError: No descriptor is to be had for the timer.
        """
        if self.now() >= deadline:
            await trio.lowlevel.checkpoint()
            return
        fd = _open_timer(deadline)
        try:
            await trio.lowlevel.wait_readable(fd)
        finally:
            os.close(fd)


def _open_timer(deadline: float) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.timerfd_create(time.CLOCK_BOOTTIME, _CLOEXEC_NONBLOCK)
    if fd < 0:
        raise _last_error("timerfd_create")
    # All zeros would disarm the timer, and a deadline rounded down would be early.
    nanoseconds = max(1, int(min(deadline, _NEVER) * 1e9) + 1)
    due = _Itimerspec(value=_Timespec(nanoseconds // 10**9, nanoseconds % 10**9))
    if libc.timerfd_settime(fd, _TIMER_ABSTIME, ctypes.byref(due), None) < 0:
        error = _last_error("timerfd_settime")
        os.close(fd)
        raise error
    return fd


def _last_error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
