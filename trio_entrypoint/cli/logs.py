"""Renders what the library logs: coloured columns on a terminal, JSON lines otherwise.

Logging must neither delay the application's start nor ever hold up the entrypoint. So records
are queued, and a task writes them in a worker thread, where a reader that does not read blocks
nobody else. The queue is bounded; what did not fit is counted and said. structlog is loaded by
that thread, and only for columns: JSON needs nothing but the standard library.
"""

import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Literal

import trio

from trio_entrypoint._nursery import open_background
from trio_entrypoint.cli.feed import Feed

__all__ = ["LogFormat", "LogLevel", "open_log"]

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "columns", "json"]

_QUEUED = 2000
_FLUSH_WITHIN = 1.0
_GATHERED_FOR = 0.02
_HARMLESS = {"event": "\t", "exception": "\t\n"}  # a trace of Java's or Go's has tabs
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@asynccontextmanager
async def open_log(
    level: LogLevel, style: LogFormat, entries: Feed[Mapping[str, object]]
) -> AsyncGenerator[None]:
    """Render the log of everything in this process on standard error while the block lasts.

    Args:
        level: What is less important is not rendered.
        style: `auto` is columns on a terminal, JSON lines otherwise.
        entries: Gets every entry as well, for `logs -f`.
    """
    if style == "auto":
        style = "columns" if sys.stderr.isatty() else "json"
    queue = _Queue(style, entries)
    root = logging.getLogger()
    former = root.level
    root.addHandler(queue)
    root.setLevel(level.upper())
    try:
        async with open_background(queue.write_all):
            yield
    finally:
        root.removeHandler(queue)
        root.setLevel(former)
        queue.flush()


_Render = Callable[[Mapping[str, object]], str]


class _Queue(logging.Handler):
    def __init__(self, style: LogFormat, entries: Feed[Mapping[str, object]]) -> None:
        super().__init__()
        self._style: LogFormat = style
        self._render: _Render | None = None
        self._writing = threading.Lock()
        self._entries = entries
        self._waiting: deque[Mapping[str, object]] = deque()
        self._dropped = 0
        self._woken = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None

    def emit(self, record: logging.LogRecord) -> None:
        entry = _entry(record)
        if len(self._waiting) < _QUEUED:
            self._waiting.append(entry)
        else:
            self._dropped += 1
        try:
            trio.lowlevel.current_trio_token()
        except RuntimeError:  # logged by another thread: rendered, but not followed
            if self._token is not None:
                self._token.run_sync_soon(self._wake)
        else:
            self._wake()
            self._entries.publish(entry)

    def _wake(self) -> None:
        self._woken.set()

    async def write_all(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        while True:
            self._woken = trio.Event()
            if not self._waiting:
                await self._woken.wait()
                # What follows from one event comes in one piece, and the thread does not take
                # the interpreter from a restart that has just begun.
                await trio.sleep(_GATHERED_FOR)
            # Whoever does not read its lines keeps this thread, which is left alone at the end.
            await trio.to_thread.run_sync(self._write_waiting, abandon_on_cancel=True)

    def _write_waiting(self) -> None:
        with self._writing:
            lines = self._take()
            with suppress(OSError):  # nobody reads any more: there is nowhere to say so
                while lines:
                    lines = lines[os.write(2, lines) :]

    def flush(self) -> None:
        """Write what waits, but wait no longer than a second for whoever has to read it."""
        deadline = time.monotonic() + _FLUSH_WITHIN
        if not self._writing.acquire(timeout=_FLUSH_WITHIN):
            return
        try:
            lines = self._take()
            writable = select.poll()
            writable.register(2, select.POLLOUT)
            with suppress(OSError):
                while lines and writable.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    # A pipe that is writable takes this much without blocking.
                    lines = lines[os.write(2, lines[: select.PIPE_BUF]) :]
        finally:
            self._writing.release()

    def _take(self) -> bytes:
        if not self._waiting:
            return b""
        render = self._render = self._render or _renderer(self._style)
        lines: list[str] = []
        while self._waiting:
            lines.append(render(self._waiting.popleft()))
        if self._dropped:
            message = f"{self._dropped} entries of the log were lost: standard error is not read"
            self._dropped = 0
            record = logging.makeLogRecord(
                {"name": __name__, "levelname": "WARNING", "msg": message}
            )
            lines.append(render(_entry(record)))
        return "".join(lines).encode(errors="backslashreplace")


def _entry(record: logging.LogRecord) -> Mapping[str, object]:
    """Give a record as plain values: when, how important, where from, what, and its fields."""
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    entry: dict[str, object] = {
        "timestamp": f"{seconds}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": record.getMessage(),
    }
    for name, value in vars(record).items():
        if name not in _STANDARD:
            plain = value is None or isinstance(value, str | int | float | bool)
            entry[name] = value if plain else str(value)
    if record.exc_info:
        import traceback

        entry["exception"] = "".join(traceback.format_exception(record.exc_info[1])).rstrip()
    return entry


def _renderer(style: LogFormat) -> _Render:
    if style != "columns":
        import json

        return lambda entry: json.dumps(entry) + "\n"

    import structlog

    from trio_entrypoint.cli.table import printable

    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    )

    def render(entry: Mapping[str, object]) -> str:
        # The date is the reader's, and the logger's name says where the code is, not what is.
        shown = {key: value for key, value in entry.items() if key != "logger"}
        shown["timestamp"] = str(entry["timestamp"])[11:23]
        for key, value in shown.items():  # an application's line must not steer the terminal
            if isinstance(value, str):
                kept = _HARMLESS.get(key, "")
                shown[key] = "".join(one if one in kept else printable(one) for one in value)
        return renderer(None, str(entry["level"]), shown) + "\n"

    return render
