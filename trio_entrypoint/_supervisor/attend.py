"""Attending to a process while it runs: when is it ready, is it healthy, what does it tell."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from typing import IO, TYPE_CHECKING, Protocol, final

import attrs
import trio

from trio_entrypoint._nursery import cancelled_or_failed
from trio_entrypoint.commands import Command
from trio_entrypoint.handlers import OpenProcess, ProcessHandler
from trio_entrypoint.policies import Function, Health, Hooks, Readiness, Reload, Restart
from trio_entrypoint.probes import AskedProbe, DescriptorProbe, NotifyProbe, ProbeError
from trio_entrypoint.states import Cause, ProcessState

if TYPE_CHECKING:
    from trio_entrypoint._supervisor.notify import NotifySocket

__all__ = ["Attendant", "Service", "Tell", "call", "reload"]


@final
@attrs.frozen(kw_only=True)
class Service:
    """What is the same for each run of a process."""

    open_process: OpenProcess
    readiness: Readiness | None
    health: Health | None
    hooks: Hooks


class Tell(Protocol):
    """How a run tells what happens to it."""

    def __call__(
        self,
        cause: Cause,
        process: ProcessState | None = None,
        *,
        error: BaseException | None = None,
        status_text: str | None = None,
    ) -> None:
        """Take note; `process` and `status_text` are the new ones, None is 'as before'."""
        ...


async def call(
    what: Command | Function, seconds: float, env: Mapping[str, str] | None = None
) -> None:
    """Run a command, or an async function under a timeout in seconds.

    Raises:
        Exception: It failed; `TimeoutError` when it took too long.
    """
    if isinstance(what, Command):
        await what.run(env)
        return
    try:
        with trio.fail_after(seconds):
            await cancelled_or_failed(what())
    except trio.TooSlowError:
        name = getattr(what, "__qualname__", repr(what))
        raise TimeoutError(f"{name}() took longer than {seconds:g} s") from None


async def reload(action: Reload, process: ProcessHandler, seconds: float) -> None:
    """Ask a process to read its configuration again.

    Raises:
        Exception: That failed. A process that has just ended is no failure: the next one
            reads it anyway.
    """
    if not isinstance(action.how, int):
        await call(action.how, seconds)
        return
    with suppress(ProcessLookupError):
        process.signal(action.how)
    await trio.lowlevel.checkpoint()


@final
class Attendant:
    """Attends to one run of a process."""

    def __init__(
        self,
        service: Service,
        tell: Tell,
        fail: Callable[[Cause, Exception], None],
        hook_env: Mapping[str, str],
    ) -> None:
        self.env: dict[str, str] = {}
        """What the process needs in its environment to tell how it is."""
        self.fds: dict[int, int] = {}
        """The descriptors that it needs for that."""
        self.ready_at = float("inf")
        """When it became ready, in seconds of the clock."""
        self._service = service
        self._tell = tell
        self._fail = fail
        self._hook_env = hook_env
        self._notify: NotifySocket | None = None
        self._pipe: tuple[IO[bytes], IO[bytes]] | None = None
        self._told_ready = trio.Event()
        self._last_no: Exception | None = None
        self._starting = trio.CancelScope()
        self._silence = trio.CancelScope()
        self._unhealthy = False
        self._says_it_stops = False

    # --- before the start

    def open(self, stack: ExitStack) -> None:
        """Open what the process will tell through: `env` and `fds`."""
        health = self._service.health
        probes = [part.probe for part in (self._service.readiness, health) if part is not None]
        told = [probe for probe in probes if isinstance(probe, NotifyProbe)]
        if told:
            from trio_entrypoint._supervisor.notify import NotifySocket

            descendants = any(probe.access == "all" for probe in told)
            self._notify = stack.enter_context(closing(NotifySocket(descendants=descendants)))
            self.env["NOTIFY_SOCKET"] = self._notify.address
            if health is not None and health.watchdog is not None:
                self.env["WATCHDOG_USEC"] = str(int(health.watchdog * 1_000_000))
        if probes and isinstance(probes[0], DescriptorProbe):
            reading, writing = os.pipe()
            self._pipe = (
                stack.enter_context(os.fdopen(reading, "rb", buffering=0)),
                stack.enter_context(os.fdopen(writing, "wb", buffering=0)),
            )
            os.set_blocking(reading, False)
            self.fds[probes[0].fd] = writing

    # --- while it runs

    async def attend(self, process: ProcessHandler) -> None:
        """Attend until the process has ended."""
        service = self._service
        if self._pipe is not None:
            self._pipe[1].close()
        if service.readiness is None and service.health is None and not service.hooks.after_ready:
            self._become_ready()
            await process.wait()
            return
        async with trio.open_nursery() as nursery:
            if self._notify is not None:
                self._notify.main_pid = process.pid
                nursery.start_soon(self._hear, self._notify)
            nursery.start_soon(self._watch, process)
            await process.wait()
            nursery.cancel_scope.cancel()

    def _become_ready(self) -> None:
        self.ready_at = trio.current_time()
        self._tell(Cause.READY, ProcessState.READY)

    async def _watch(self, process: ProcessHandler) -> None:
        if self._service.readiness is not None:
            self._starting.deadline = trio.current_time() + self._service.readiness.timeout
            with self._starting:
                await self._until_ready(self._service.readiness)
            if self._starting.cancelled_caught:
                last = f": {self._last_no}" if self._last_no else ""
                seconds = self._service.readiness.timeout
                self._fail(Cause.NOT_READY, ProbeError(f"not ready within {seconds:g} s{last}"))
                return
        self._become_ready()
        try:
            for hook in self._service.hooks.after_ready:
                await call(hook, self._service.hooks.timeout, self._hook_env)
        except Exception as error:  # noqa: BLE001 - the user's code
            self._fail(Cause.HOOK_FAILED, error)
            return
        match self._service.health:
            case Health(probe=NotifyProbe()) as health:
                await self._watch_for_silence(health, process)
            case Health(probe=AskedProbe() as probe) as health:
                await self._ask_for_health(health, probe, process)
            case _:
                pass

    async def _until_ready(self, readiness: Readiness) -> None:
        match readiness.probe:
            case NotifyProbe():
                await self._told_ready.wait()
            case DescriptorProbe():
                await self._until_newline()
            case probe:
                successes = 0
                while successes < readiness.successes:
                    if successes or self._last_no:
                        await trio.sleep(readiness.period)
                    self._last_no = await _ask(probe, readiness.probe_timeout)
                    successes = successes + 1 if self._last_no is None else 0

    async def _until_newline(self) -> None:
        assert self._pipe is not None
        reading = self._pipe[0]
        with reading:
            while True:
                await trio.lowlevel.wait_readable(reading)
                data = reading.read(512)
                if data == b"":
                    self._last_no = ProbeError("it closed the descriptor without a newline")
                    await trio.sleep_forever()
                if b"\n" in (data or b""):
                    return

    # --- health

    async def _ask_for_health(
        self, health: Health, probe: AskedProbe, process: ProcessHandler
    ) -> None:
        in_a_row = 0
        while True:
            await trio.sleep(health.period)
            error = await _ask(probe, health.probe_timeout)
            in_a_row = in_a_row + 1 if (error is None) is self._unhealthy else 0
            if error is None and in_a_row >= health.successes:
                self._become_healthy()
                in_a_row = 0
            elif error is not None and in_a_row >= health.failures and not self._unhealthy:
                await self._become_unhealthy(health, error, process)
                in_a_row = 0

    async def _watch_for_silence(self, health: Health, process: ProcessHandler) -> None:
        """Be the watchdog: `_take` moves the moment at which the silence was too long."""
        assert health.watchdog is not None
        self._silence.deadline = trio.current_time() + health.watchdog
        while True:
            with self._silence:
                await trio.sleep_forever()
            self._silence = trio.CancelScope()
            error = ProbeError(f"it sent no WATCHDOG=1 for {health.watchdog:g} s")
            await self._become_unhealthy(health, error, process)

    async def _become_unhealthy(
        self, health: Health, error: Exception, process: ProcessHandler
    ) -> None:
        if self._says_it_stops:
            return
        self._unhealthy = True
        self._tell(Cause.UNHEALTHY, ProcessState.UNHEALTHY, error=error)
        match health.on_failure:
            case Restart():
                self._fail(Cause.UNHEALTHY, error)
            case Reload() as action:
                try:
                    await reload(action, process, self._service.hooks.timeout)
                except Exception as failure:  # noqa: BLE001 - the user's code
                    self._tell(Cause.RELOAD_FAILED, error=failure)
            case _:
                pass

    def _become_healthy(self) -> None:
        self._unhealthy = False
        self._tell(Cause.HEALTHY, ProcessState.READY)

    # --- what it tells

    async def _hear(self, notify: "NotifySocket") -> None:
        while True:
            self._take(notify, await notify.receive())

    def _take(self, notify: "NotifySocket", fields: Mapping[str, str]) -> None:
        """Act on one message; what is malformed is passed over."""
        now = trio.current_time()
        if (status := fields.get("STATUS")) is not None:
            self._tell(Cause.STATUS_TEXT, status_text=status)
        if (pid := _number(fields.get("MAINPID"))) is not None:
            notify.adopt(pid)
        if (extension := _number(fields.get("EXTEND_TIMEOUT_USEC"))) is not None:
            deadline = now + extension / 1_000_000
            self._starting.deadline = max(self._starting.deadline, deadline)
            if self._silence.deadline != float("inf"):
                self._silence.deadline = max(self._silence.deadline, deadline)
        if fields.get("STOPPING") == "1":
            self._says_it_stops = True
            self._tell(Cause.PROCESS_STOPPING, ProcessState.STOPPING)
        elif fields.get("RELOADING") == "1" and self._told_ready.is_set():
            self._tell(Cause.RELOADING, ProcessState.RELOADING)
        elif fields.get("READY") == "1":
            if self._told_ready.is_set():
                self._tell(Cause.READY, ProcessState.READY)
            self._told_ready.set()
        health = self._service.health
        if health is not None and health.watchdog is not None and "WATCHDOG" in fields:
            if fields["WATCHDOG"] == "trigger":
                self._silence.deadline = now
            elif self.ready_at <= now:
                self._silence.deadline = now + health.watchdog
                if self._unhealthy:
                    self._become_healthy()


async def _ask(probe: AskedProbe, seconds: float) -> Exception | None:
    """Ask once, and say why the answer is 'no'; None is a 'yes'."""
    try:
        with trio.fail_after(seconds):
            await cancelled_or_failed(probe.check())
    except trio.TooSlowError:
        return ProbeError(f"{probe} took longer than {seconds:g} s")
    except Exception as error:  # noqa: BLE001 - the user's code; whatever it raises is a 'no'
        return error
    return None


def _number(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 18:
        return None
    return int(text)
