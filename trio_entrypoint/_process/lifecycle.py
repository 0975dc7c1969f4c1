"""The life of one process, from its start until nothing of it is left.

Two tasks live as long as the block of `open_process`:

* `watch` notices that the main process has ended, whoever ended it.
* `stop_when_asked` makes everything end:

      asked -> stop signal -> main ended -> stop signal to the rest -> all gone
        |                      grace period passed, or kill()  -> SIGKILL -> all gone
        |                                                                 -> survivors

Both are shielded: cancellation is a way to ask, never a reason to leave something behind.
"""

import os
import signal as signals
from contextlib import suppress
from typing import Literal, TypeAlias, final

import attrs
import trio

from trio_entrypoint._linux.process_tree import KILL_TIMEOUT, Tree
from trio_entrypoint.handlers import ExitStatus, ProcessEnded, ProcessEvent, ProcessStarted

StopScope: TypeAlias = Literal["main", "group"]


@attrs.frozen(kw_only=True)
class StopSettings:
    """How a process is made to end."""

    signal: int
    scope: StopScope
    grace_period: float


@final
class Lifecycle:
    """What `Process` shows, and the tasks that keep it true."""

    events: trio.MemoryReceiveChannel[ProcessEvent]
    """`ProcessStarted`, then `ProcessEnded`."""

    def __init__(self, pid: int, pidfd: int, tree: Tree, stop: StopSettings) -> None:
        self.ended: trio.Event = trio.Event()
        self.stop_asked: trio.Event = trio.Event()
        self.gone: trio.Event = trio.Event()
        self.survivors: list[int] = []
        self._pidfd = pidfd
        self._tree = tree
        self._stop = stop
        self._status: ExitStatus | None = None
        self._watching = trio.CancelScope(shield=True)
        self._polite = trio.CancelScope()
        self._send, self.events = trio.open_memory_channel[ProcessEvent](2)
        # Keeps events from being lost, or refused, when the consumer closes its end.
        self._unread = self.events.clone()
        self._send.send_nowait(ProcessStarted(pid))

    @property
    def status(self) -> ExitStatus | None:
        """How the main process ended, as of now."""
        if self._status is None:
            self._look()
        return self._status

    def signal(self, number: int) -> None:
        """Send the main process a signal; never another process."""
        signals.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Send SIGKILL to everything, now."""
        self._polite.cancel()
        self.stop_asked.set()
        if not self.gone.is_set():
            # Without a descriptor to look with, `stop_when_asked` tries it again.
            with suppress(OSError):
                self._tree.kill()

    async def watch(self) -> None:
        """Notice the end of the main process as soon as it comes."""
        with self._watching:
            while self.status is None:
                await trio.lowlevel.wait_readable(self._pidfd)

    async def stop_when_asked(self) -> None:
        """Once asked to, make everything end, within bounds."""
        with trio.CancelScope(shield=True):
            await self.stop_asked.wait()
            try:
                await self._stop_all()
            except BaseException:
                self._watching.cancel()
                raise
            finally:
                # Even if it failed: who waits for it must not wait for ever.
                self.gone.set()

    def close(self) -> None:
        """Let go of the main process, and end the events."""
        self._tree.close()
        self._send.close()
        self._unread.close()

    def _look(self) -> None:
        # The main process stays a zombie for now, so that its number is not reused.
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if result is None:
            return
        if result.si_code == os.CLD_EXITED:
            self._status = ExitStatus(code=result.si_status)
        else:
            self._status = ExitStatus(signal=result.si_status)
        self._tree.note_end(self._status.shell_code)
        self._send.send_nowait(ProcessEnded(self._status))
        self.ended.set()

    async def _stop_all(self) -> None:
        if self._is_over() or await self._stop_politely():
            return
        with trio.move_on_after(KILL_TIMEOUT) as scope:
            await self._tree.killed()
        if scope.cancelled_caught:
            self.survivors = [member.pid for member in self._tree.members().own]
        if self.survivors:
            self._watching.cancel()
        else:
            await self.ended.wait()

    def _is_over(self) -> bool:
        """Whether the process ended by itself, and surely left nobody behind."""
        with suppress(OSError):
            return self.status is not None and not self._tree.exists()
        return False

    async def _stop_politely(self) -> bool:
        """Ask everything to end, within the grace period; return whether nothing is left."""
        with self._polite:
            self._polite.deadline = trio.current_time() + self._stop.grace_period
            if self._stop.scope == "group":
                self._tree.signal_group(self._stop.signal)
            elif self.status is None:
                self._tree.signal_main(self._stop.signal)
            await self.ended.wait()
            await self._tree.asked(self._stop.signal)
            return True
        return False
