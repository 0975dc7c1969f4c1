"""Processes that live and die as a test says."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from signal import SIGKILL, SIGTERM
from typing import final

import trio

from trio_entrypoint.handlers import (
    ExitStatus,
    ProcessEnded,
    ProcessEvent,
    ProcessStarted,
)
from trio_entrypoint.probes import FunctionProbe

__all__ = ["FakeProcess", "FakeRun"]


@final
class FakeRun:
    """One run of a `FakeProcess`: a `ProcessHandler`, and the test's hand on it."""

    def __init__(
        self,
        process: "FakeProcess",
        pid: int,
        env: Mapping[str, str],
        fds: Mapping[int, int],
    ) -> None:
        self.env = dict(env)
        """What its supervisor added to the environment."""
        self.fds = dict(fds)
        """The descriptors that its supervisor added."""
        self.signals: list[int] = []
        """Every signal that it got, the stop signal included."""
        self.started_at = trio.current_time()
        """When it was started, in seconds of the (mock) clock."""
        self.ready = process.ready_after == 0
        """Whether `FakeProcess.probe` finds it ready."""
        self._process = process
        self._pid = pid
        self._status: ExitStatus | None = None
        self._over = trio.Event()
        self._stopping = False
        self._send, self._events = trio.open_memory_channel[ProcessEvent](2)
        self._send.send_nowait(ProcessStarted(pid))

    def exit(self, code: int = 0) -> None:
        """End by itself with an exit code."""
        self.end(ExitStatus(code=code))

    def die(self, signal: int = SIGKILL) -> None:
        """End by a signal that came from nowhere."""
        self.end(ExitStatus(signal=signal))

    def become_ready(self) -> None:
        """Let `FakeProcess.probe` find it ready."""
        self.ready = True

    def end(self, status: ExitStatus) -> None:
        """End with this status; nothing happens if it has ended."""
        if self._status is None:
            self._status = status
            self._send.send_nowait(ProcessEnded(status))
            self._send.close()
            self._over.set()

    @property
    def events(self) -> "trio.MemoryReceiveChannel[ProcessEvent]":
        """As in `ProcessHandler`."""
        return self._events

    @property
    def pid(self) -> int:
        """As in `ProcessHandler`; counts up from 1000."""
        return self._pid

    @property
    def status(self) -> ExitStatus | None:
        """As in `ProcessHandler`."""
        return self._status

    async def wait(self) -> ExitStatus:
        """As in `ProcessHandler`."""
        await self._over.wait()
        assert self._status is not None
        return self._status

    async def stop(self) -> ExitStatus:
        """As in `ProcessHandler`; how long it takes is `FakeProcess.stop_takes`."""
        if self._status is None and not self._stopping:
            self._stopping = True
            self.signals.append(SIGTERM)
            with trio.move_on_after(self._process.stop_takes, shield=True) as scope:
                await self._over.wait()
            if scope.cancelled_caught:
                hangs = self._process.stop_takes >= self._process.grace_period
                self.end(ExitStatus(signal=SIGKILL if hangs else SIGTERM))
        return await self.wait()

    def kill(self) -> None:
        """As in `ProcessHandler`."""
        self.signals.append(SIGKILL)
        self.end(ExitStatus(signal=SIGKILL))

    def signal(self, signal: int) -> None:
        """As in `ProcessHandler`; look at `signals`."""
        if self._status is not None:
            raise ProcessLookupError(f"the process {self._pid} has ended")
        self.signals.append(signal)


@final
class FakeProcess:
    """What a `Supervisor` opens its process with (`OpenProcess`), for tests.

    Nothing runs. `current` is the run that is alive, `runs` are all of them; the attributes
    say how the following runs behave.

    Example::

        process = FakeProcess(stop_takes=3.0)
        async with trio.open_nursery() as nursery:
            await nursery.start(Supervisor(process).run)
            process.current.exit(1)
            second = await process.wait_for_run(2)
    """

    def __init__(
        self,
        *,
        start_takes: float = 0.0,
        ready_after: float = 0.0,
        ends_after: float | None = None,
        ends_with: ExitStatus = ExitStatus(code=1),  # noqa: B008 - frozen
        stop_takes: float = 0.0,
        grace_period: float = 10.0,
        error: OSError | None = None,
    ) -> None:
        self.start_takes = start_takes
        """Seconds until a run has been executed."""
        self.ready_after = ready_after
        """Seconds until a run is ready; `math.inf` leaves it to `become_ready()`."""
        self.ends_after = ends_after
        """Seconds after which a run ends by itself; None for never."""
        self.ends_with = ends_with
        """How it ends then."""
        self.stop_takes = stop_takes
        """Seconds from the stop signal to the end; from `grace_period` on SIGKILL ends it."""
        self.grace_period = grace_period
        """Seconds after which a run that is being stopped is killed."""
        self.error = error
        """What an execution fails with; None when it succeeds."""
        self.runs: list[FakeRun] = []
        """Every run so far."""
        self.probe = FunctionProbe(self._is_ready)
        """For `Readiness` and `Health`: whether the current run's `ready` is true."""
        self._started = trio.lowlevel.ParkingLot()

    @property
    def alive(self) -> list[FakeRun]:
        """The runs that are alive: at most one, if the supervisor is right."""
        return [run for run in self.runs if run.status is None]

    @property
    def current(self) -> FakeRun:
        """The run that is alive.

        Raises:
            LookupError: There is none.
        """
        if not self.alive:
            raise LookupError("no process is alive")
        return self.alive[-1]

    async def wait_for_run(self, count: int) -> FakeRun:
        """Wait until so many runs have been started, and give that one."""
        await trio.lowlevel.checkpoint()
        while len(self.runs) < count:
            await self._started.park()
        return self.runs[count - 1]

    async def _is_ready(self) -> bool:
        await trio.lowlevel.checkpoint()
        return any(run.ready for run in self.alive)

    @asynccontextmanager
    async def __call__(
        self, *, extra_env: Mapping[str, str] = {}, extra_fds: Mapping[int, int] = {}
    ) -> AsyncGenerator[FakeRun]:
        """Start a run, as in `OpenProcess`."""
        await trio.sleep(self.start_takes)
        if self.error is not None:
            raise self.error
        run = FakeRun(self, 1000 + len(self.runs), extra_env, extra_fds)
        self.runs.append(run)
        self._started.unpark_all()
        async with trio.open_nursery() as nursery:
            try:
                nursery.start_soon(self._live, run)
                yield run
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await run.stop()

    async def _live(self, run: FakeRun) -> None:
        async with trio.open_nursery() as nursery:
            if not run.ready and self.ready_after != float("inf"):
                nursery.start_soon(self._become_ready, run, self.ready_after)
            if self.ends_after is not None:
                await trio.sleep(self.ends_after)
                run.end(self.ends_with)
                nursery.cancel_scope.cancel()

    @staticmethod
    async def _become_ready(run: FakeRun, seconds: float) -> None:
        await trio.sleep(seconds)
        run.become_ready()
