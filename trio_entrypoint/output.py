"""What becomes of a process's output: a rotated file, or lines in the log.

The process writes to a pipe; a task reads it and hands what it read to a *sink*. Three rules:

* The pipe is read as long as anything of the process lives, whatever happens to the sink: a
  full disk loses output, it does not hold the application up.
* The end of the pipe says nothing about the process, and the end of the process nothing
  about the pipe. When all processes are gone, what is in the pipe is read, and that is all.
* Sinks may block, so they run in a worker thread. While one does, the pipe fills up, and
  then the application waits: that is the only back-pressure there is.
"""

import errno
import logging
import os
import stat
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal, Protocol, TypeAlias, final, get_args

import attrs
import trio

from trio_entrypoint._arguments import is_path

__all__ = ["LogFile", "LogLines"]

_logger = logging.getLogger(__name__)

OUTPUT_LOGGER = "trio_entrypoint.output"
"""The logger that gets the lines; `record.service` and `record.stream` say whose they are."""

_READ_SIZE = 65536
_PIPE_SIZE = 1024 * 1024  # the most that a pipe can be made to hold, by default (pipe(7))
_SINK_TIMEOUT = 5.0
_TAIL_LINES = 20
_TAIL_LINE_LENGTH = 1024

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


@final
@attrs.frozen
class LogFile:
    """Output goes to a file, byte by byte, and the file is rotated by size.

    `app.log` is the newest; a full one becomes `app.log.1`, that one `app.log.2`, and so on.
    """

    path: str = attrs.field(validator=is_path)
    """Where it is: a regular file, or none yet. The directory has to exist. A symlink, such as
    `/dev/stdout`, is refused."""

    max_size: int = attrs.field(
        default=10 * 1024 * 1024, kw_only=True, validator=attrs.validators.ge(1)
    )
    """Bytes; a file that would become larger is rotated first."""

    keep: int = attrs.field(default=5, kw_only=True, validator=attrs.validators.ge(0))
    """How many rotated files are kept; 0 begins anew."""


@final
@attrs.frozen
class LogLines:
    r"""Each line becomes a record of the logger `trio_entrypoint.output`.

    The record has the time, the process's name (`service`) and `stdout` or `stderr`
    (`stream`). A last line without an end is a line too, and bytes that are not UTF-8 are
    kept as `\xff`.
    """

    level: Level = attrs.field(default="info", validator=attrs.validators.in_(get_args(Level)))
    """The records' level: `debug`, `info`, `warning` or `error`."""

    max_length: int = attrs.field(default=16384, kw_only=True, validator=attrs.validators.ge(1))
    """Bytes; a longer line is split, so that memory stays bounded."""


Input: TypeAlias = Literal["null", "inherit"] | int | os.PathLike[str]
"""Where standard input comes from: a descriptor, or the path of a file."""

Output: TypeAlias = Literal["null", "inherit", "stdout"] | int | LogFile | LogLines
"""Where output goes; `"stdout"`, for standard error: where standard output goes."""


class Sink(Protocol):
    """Takes output; it may block, and raise `OSError`."""

    def write(self, data: bytes) -> None:
        """Take the next piece."""
        ...

    def close(self) -> None:
        """There is no more."""
        ...


@final
class FileSink:
    """Writes to a file, and rotates it."""

    def __init__(self, settings: LogFile) -> None:
        self._settings = settings
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        """Append, after a rotation if the file would become too large."""
        if self._fd < 0:
            self._reopen()
        if self._size and self._size + len(data) > self._settings.max_size:
            self._rotate()
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            self._size += written
            view = view[written:]

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _reopen(self) -> None:
        self.close()
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size

    def _open(self) -> int:
        # Not through a symlink, and never waiting for the reader of a FIFO: who may write to
        # the log's directory must not choose what this program, often root, writes to.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(self._settings.path, flags | os.O_CLOEXEC | os.O_NOCTTY, 0o644)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a symlink, a FIFO without a reader
                raise self._no_regular_file() from None
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._no_regular_file()
        return fd

    def _no_regular_file(self) -> OSError:
        problem = "expected a regular file to log to, and no symlink"
        return OSError(errno.EINVAL, problem, self._settings.path)

    def _rotate(self) -> None:
        path, keep = self._settings.path, self._settings.keep
        if not self._is_in_place():  # somebody else has rotated, or removed, it
            self._reopen()
            return
        if keep == 0:
            os.ftruncate(self._fd, 0)
            self._size = 0
            return
        for number in range(keep - 1, 0, -1):
            try:
                os.rename(f"{path}.{number}", f"{path}.{number + 1}")
            except FileNotFoundError:
                continue
        os.rename(path, f"{path}.1")
        self._reopen()

    def _is_in_place(self) -> bool:
        try:
            there = os.stat(self._settings.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))


@final
class LineSink:
    """Logs lines."""

    def __init__(self, settings: LogLines, service: str, stream: str) -> None:
        self._level = logging.getLevelNamesMapping()[settings.level.upper()]
        self._max_length = settings.max_length
        self._extra = {"service": service, "stream": stream}
        self._logger = logging.getLogger(OUTPUT_LOGGER)
        self._partial = b""

    def write(self, data: bytes) -> None:
        """Log the lines that are complete now."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._log(line)
        while len(self._partial) > self._max_length:
            self._log(self._partial[: self._max_length])
            self._partial = self._partial[self._max_length :]

    def close(self) -> None:
        """Log the last line, even if it has no end."""
        if self._partial:
            self._log(self._partial)
            self._partial = b""

    def _log(self, line: bytes) -> None:
        pieces = range(0, max(len(line), 1), self._max_length)
        for start in pieces:
            text = line[start : start + self._max_length].decode(errors="backslashreplace")
            self._logger.log(self._level, "%s", text, extra=self._extra)


@final
class Pump:
    """Reads a pipe for as long as anything of a process lives, and remembers the last lines."""

    def __init__(self, pipe: int, sink: Sink, label: str) -> None:
        os.set_blocking(pipe, False)
        self._pipe = pipe
        self._sink = sink
        self._label = label
        self._failing = False
        self._running = False
        self._waiting = trio.CancelScope()
        self._tail: deque[bytes] = deque([b""], maxlen=_TAIL_LINES + 1)

    @property
    def last_lines(self) -> list[str]:
        """The last lines that were read."""
        lines = [line for line in self._tail if line][-_TAIL_LINES:]
        return [line.decode(errors="backslashreplace") for line in lines]

    async def run(self, gone: trio.Event) -> None:
        """Hand on all output, until nothing of the process lives and the pipe is empty.

        Args:
            gone: Set when nothing lives any more. What was written before that is read.
        """
        self._running = True
        with trio.CancelScope(shield=True) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._bound, gone, scope)
                while True:
                    last = gone.is_set()
                    if not await self._pass_on() or last:
                        break
                    if not gone.is_set():
                        with trio.CancelScope() as self._waiting:
                            await trio.lowlevel.wait_readable(self._pipe)
                await self._use_sink(self._sink.close)
                nursery.cancel_scope.cancel()

    def discard(self) -> None:
        """Let go of the sink, unless `run` does."""
        if not self._running:
            self._sink.close()

    async def _bound(self, gone: trio.Event, scope: trio.CancelScope) -> None:
        await gone.wait()
        scope.deadline = trio.current_time() + _SINK_TIMEOUT
        self._waiting.cancel()

    async def _pass_on(self) -> bool:
        """Hand on what is in the pipe now; say whether more can come."""
        for _ in range(_PIPE_SIZE // _READ_SIZE):
            try:
                data = os.read(self._pipe, _READ_SIZE)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._remember(data)
            await self._use_sink(self._sink.write, data)
        return True

    async def _use_sink(self, function: Callable[..., None], *arguments: bytes) -> None:
        try:
            await trio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True)
        except OSError as error:
            if not self._failing:
                self._failing = True
                _logger.error("%s: output is lost: %s", self._label, error)
        else:
            if self._failing:
                self._failing = False
                _logger.info("%s: output is written again", self._label)

    def _remember(self, data: bytes) -> None:
        first, *others = data.split(b"\n")
        self._tail[-1] = (self._tail[-1] + first)[-_TAIL_LINE_LENGTH:]
        self._tail.extend(line[-_TAIL_LINE_LENGTH:] for line in others)


def open_output(
    stack: ExitStack, opened: ExitStack, output: "LogFile | LogLines", service: str, stream: str
) -> tuple[int, Pump]:
    """A pipe for a process to write to, and the pump that empties it.

    Args:
        stack: Closes the reading end, and the file if nothing is ever read.
        opened: Closes the writing end, here, as soon as the process has its own.
        output: What becomes of the output.
        service: The process's name.
        stream: `stdout` or `stderr`.

    Raises:
        OSError: The file cannot be opened; the message names the stream.
    """
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    opened.callback(os.close, writing)
    if isinstance(output, LogFile):
        try:
            sink: Sink = FileSink(output)
        except OSError as error:
            reason = f"{stream}: cannot open the log file: {error.strerror}"
            raise type(error)(error.errno, reason, output.path) from None
    else:
        sink = LineSink(output, service, stream)
    pump = Pump(reading, sink, f"{stream} of {service}")
    stack.callback(pump.discard)
    return writing, pump
