"""The one process attribute that Python has no call for: being a subreaper (prctl(2))."""

import os

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def set_subreaper(on: bool) -> bool:
    """Adopt the orphans of all descendants, as PID 1 does, or stop to; return how it was.

    Raises:
        OSError: The kernel is older than 3.4.
    """
    import ctypes  # ctypes is heavy, and a PID 1 has no need of it

    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int()
    if libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0) or libc.prctl(
        _PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0
    ):
        error = ctypes.get_errno()
        raise OSError(error, f"cannot become a subreaper: {os.strerror(error)}")
    return bool(before.value)
