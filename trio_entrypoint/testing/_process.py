"""Processes that live and die as a test says."""

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from signal import SIGKILL, SIGTERM
from typing import final

import trio

from trio_entrypoint._nursery import open_background
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
        self.env: dict[str, str] = dict(env)
        """What its supervisor added to the environment."""
        self.fds: dict[int, int] = dict(fds)
        """The descriptors that its supervisor added."""
        self.signals: list[int] = []
        """Every signal that it got, the stop signal included."""
        self.started_at: float = trio.current_time()
        """When it was started, in seconds of the (mock) clock."""
        self.ready: bool = process.ready_after == 0
        """Whether `FakeProcess.probe` finds it ready."""
        self._process = process
        self._ready_after = process.ready_after
        self._ends_after, self._ends_with = process.ends_after, process.ends_with
        self._pid = pid
        self._status: ExitStatus | None = None
        self._over = trio.Event()
        self._stop_asked = trio.Event()
        self._gone_at = math.inf
        self.living: trio.CancelScope = trio.CancelScope(shield=True)
        """What `live` runs in."""
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

    def ask_to_stop(self) -> None:
        """Get the stop signal, once."""
        if self._status is None and not self._stop_asked.is_set():
            takes = min(self._process.stop_takes, self._process.grace_period)
            self._gone_at = trio.current_time() + takes
            self.signals.append(SIGTERM)
            self._stop_asked.set()

    async def live(self) -> None:
        """Become ready, end, and stop, when the `FakeProcess` says so."""
        # As with a real process, a cancellation around it does not stop its stopping.
        with self.living:
            async with trio.open_nursery() as nursery:
                if not self.ready and self._ready_after < math.inf:
                    nursery.start_soon(self._become_ready_after, self._ready_after)
                if self._ends_after is not None:
                    nursery.start_soon(self._end_after, self._ends_after, self._ends_with)
                await self._stop_asked.wait()
                await self.stop_in_time()
                nursery.cancel_scope.cancel()

    async def _become_ready_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.become_ready()

    async def _end_after(self, seconds: float, status: ExitStatus) -> None:
        await trio.sleep(seconds)
        self.end(status)

    async def stop_in_time(self) -> None:
        """Wait for the end that the stop signal brings, or for SIGKILL after it."""
        self.ask_to_stop()
        with trio.CancelScope(shield=True, deadline=self._gone_at):
            await self._over.wait()
        obeys = self._process.stop_takes < self._process.grace_period
        self.end(ExitStatus(signal=SIGTERM if obeys else SIGKILL))

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
        self.ask_to_stop()
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
        self.probe: FunctionProbe = FunctionProbe(self._is_ready)
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
        async with open_background(run.live):
            try:
                yield run
            finally:
                with trio.move_on_after(self.grace_period, shield=True):
                    await run.stop_in_time()
                run.living.cancel()
