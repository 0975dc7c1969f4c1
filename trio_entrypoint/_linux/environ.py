"""The environment that a process was executed with: of any user's, where the kernel lets us.

Root may read it of its own processes. To read that of others takes CAP_SYS_PTRACE, which no
container has by default; so it is read as the user whose process it is, which takes
CAP_SETUID. That is no more than starting a process as this user took.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager

from trio_entrypoint._linux.procfs import suppress_gone


def read_variable(pid: int, name: str) -> str | None:
    """A variable of the environment that a process's program was executed with.

    None when it has none, when a program wrote over its own environment (many do, to change
    the title that `ps` shows), and when reading it is not permitted.
    """
    contents = b"\0" + _read(f"/proc/{pid}/environ")
    _, found, rest = contents.partition(b"\0" + name.encode() + b"=")
    return os.fsdecode(rest.partition(b"\0")[0]) if found else None


def _read(path: str) -> bytes:
    with suppress_gone():
        try:
            return _contents(path)
        except PermissionError:
            owner = os.stat(path)
            with _file_system_identity(owner.st_uid, owner.st_gid):
                return _contents(path)
    return b""


def _contents(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()


@contextmanager
def _file_system_identity(user: int, group: int) -> Generator[None]:
    """Be another user for access to files, in this thread (setfsuid(2)), if we may."""
    import ctypes  # heavy, and without other users not needed

    libc = ctypes.CDLL(None)
    for function in (libc.setfsuid, libc.setfsgid):
        function.restype = ctypes.c_uint
        function.argtypes = [ctypes.c_uint]
    group_before = libc.setfsgid(group)
    user_before = libc.setfsuid(user)
    try:
        yield
    finally:
        libc.setfsuid(user_before)
        libc.setfsgid(group_before)
