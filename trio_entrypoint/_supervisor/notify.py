"""systemd's notification protocol, the receiving end: sd_notify(3).

A datagram is a list of `KEY=value` lines. Its sender is whom the kernel says it is: each one
comes with the credentials of the process that sent it (SCM_CREDENTIALS, unix(7)). The socket
lives in the abstract namespace, under a name that the kernel picks: nothing is left behind,
whatever happens, and a process that runs as another user or in another root can reach it.

Descriptors that come with a message are never accepted. The kernel closes them when the
message is read, which is just what `BARRIER=1` waits for.
"""

import os
import socket
import struct
from typing import final

import trio

__all__ = ["NotifySocket"]

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
_MAXIMUM = 4096
"""Bytes of a message; systemd's own limit."""


@final
class NotifySocket:
    """Where one run of a process sends its notifications to."""

    def __init__(self, *, descendants: bool) -> None:
        self.main_pid = 0
        """Whose messages count; 0 for nobody's yet."""
        self._descendants = descendants
        # Blocking mode is the sender's affair; Trio waits for readability.
        flags = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, flags)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._socket.bind("")  # the kernel picks a name
        except BaseException:
            self._socket.close()
            raise

    @property
    def address(self) -> str:
        """The value of `$NOTIFY_SOCKET`."""
        name: bytes = self._socket.getsockname()
        return "@" + os.fsdecode(name[1:])

    def close(self) -> None:
        """Close it; what was sent and not received is lost."""
        self._socket.close()

    async def receive(self) -> dict[str, str]:
        """Wait for the next message that counts, and give its fields."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    _MAXIMUM, socket.CMSG_SPACE(_CREDENTIALS.size), socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                continue
            if flags & socket.MSG_TRUNC or not self._may_tell(_sender(ancillary)):
                continue
            lines = data.decode("utf-8", "replace").split("\n")
            return dict(line.split("=", 1) for line in lines if "=" in line)

    def adopt(self, pid: int) -> None:
        """Take another process for the main one (`MAINPID=`), if it descends from it."""
        if _descends(pid, self.main_pid):
            self.main_pid = pid

    def _may_tell(self, pid: int) -> bool:
        if pid == self.main_pid:
            return True
        return self._descendants and _descends(pid, self.main_pid)


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid: int = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
            return pid
    return -1


def _descends(pid: int, ancestor: int) -> bool:
    """Whether a process is, or descends from, another. Orphans descend from nobody."""
    for _ in range(64):  # the tree can change under us, but not trap us
        if pid == ancestor:
            return True
        if pid <= 1:
            return False
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
    return False
