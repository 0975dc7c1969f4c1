"""How a supervisor finds out whether its process is ready, or still healthy.

Two kinds. *Told* probes hear it from the process, at the moment it happens: `NotifyProbe`
(systemd's protocol) and `DescriptorProbe` (s6's). *Asked* probes have a `check()` that is
called again and again: `TcpProbe`, `HttpProbe`, `CommandProbe`, `FileProbe`, `FunctionProbe`,
and any object of yours that is an `AskedProbe`.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, final, runtime_checkable

import attrs
import trio
from attrs.validators import and_, ge, in_, le

from trio_entrypoint._arguments import is_http_url, is_path
from trio_entrypoint.commands import Command, CommandFailedError

__all__ = [
    "AskedProbe",
    "CommandProbe",
    "DescriptorProbe",
    "FileProbe",
    "FunctionProbe",
    "HttpProbe",
    "NotifyProbe",
    "Probe",
    "ProbeError",
    "TcpProbe",
]


@final
class ProbeError(Exception):
    """The process is not ready, or not healthy; the message says what was seen instead."""


@runtime_checkable
class AskedProbe(Protocol):
    """A probe that is asked: whatever has a `check`."""

    async def check(self) -> None:
        """Return when all is well. Called under a timeout, never twice at a time.

        Raises:
            Exception: All is not well. Any exception counts; `ProbeError` is meant for it.
        """
        ...


# --- told ---------------------------------------------------------------------------------


@final
@attrs.frozen
class NotifyProbe:
    """The process tells by systemd's protocol: `READY=1` in a datagram to `$NOTIFY_SOCKET`.

    Understood are READY, RELOADING, STOPPING, STATUS, MAINPID, WATCHDOG, BARRIER and
    EXTEND_TIMEOUT_USEC. As a health probe it is the watchdog: a process that sends no
    `WATCHDOG=1` for as long as `$WATCHDOG_USEC` says is unhealthy.

    The protocol: sd_notify(3).
    """

    access: Literal["main", "all"] = attrs.field(default="main", validator=in_(("main", "all")))
    """Whose messages count, by the credentials that the kernel attests: the main process's
    only, or those of its descendants too (a `systemd-notify` in a shell script)."""


@final
@attrs.frozen
class DescriptorProbe:
    """The process tells as under s6: it writes a newline to descriptor `fd`.

    The protocol: https://skarnet.org/software/s6/notifywhenup.html
    """

    fd: int = attrs.field(default=3, validator=ge(3))
    """The descriptor's number in the process."""


# --- asked --------------------------------------------------------------------------------


@final
@attrs.frozen
class TcpProbe:
    """Something accepts connections there."""

    port: int = attrs.field(validator=and_(ge(1), le(65535)))
    """The port."""

    host: str = "127.0.0.1"
    """The name or address."""

    async def check(self) -> None:
        """Connect, and close the connection."""
        try:
            stream = await trio.open_tcp_stream(self.host, self.port)
        except OSError as error:
            raise ProbeError(f"nothing accepts connections at {self}: {error}") from error
        await stream.aclose()

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def _is_url(_instance: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if not re.fullmatch(r"https?://[^/\s@]+(/\S*)?", value) or not is_http_url(value):
        raise ValueError(f"{attribute.name}: expected http(s)://host:port/path, got {value!r}")


@final
@attrs.frozen
class HttpProbe:
    """A GET is answered with a status from 200 to 399, as Kubernetes sees it.

    Redirections are not followed. A certificate is not verified, as in Kubernetes: the
    answer is one bit, and comes from the process itself.
    """

    url: str = attrs.field(validator=_is_url)
    """What is asked for, such as `http://127.0.0.1:8080/ready`."""

    async def check(self) -> None:
        """Ask, and look at the status of the answer."""
        from trio_entrypoint._http import get_status

        status = await get_status(self.url)
        if not 200 <= status < 400:
            raise ProbeError(f"{self.url} answered with {status}")


def _command(value: Command | Iterable[str]) -> Command:
    return value if isinstance(value, Command) else Command(value)


@final
@attrs.frozen
class CommandProbe:
    """A command exits with 0."""

    command: Command = attrs.field(converter=_command)
    """The command, or just its words."""

    async def check(self) -> None:
        """Run it."""
        try:
            await self.command.run()
        except CommandFailedError as error:
            raise ProbeError(str(error)) from error


@final
@attrs.frozen
class FileProbe:
    """A file exists, whatever it is."""

    path: Path = attrs.field(converter=Path, validator=is_path)
    """Where."""

    async def check(self) -> None:
        """Look for it."""
        await trio.lowlevel.checkpoint()
        if not self.path.exists():
            raise ProbeError(f"{self.path} does not exist")


@final
@attrs.frozen
class FunctionProbe:
    """An async function returns, and not False."""

    function: Callable[[], Awaitable[object]]
    """The function; whatever it raises counts as 'no'."""

    async def check(self) -> None:
        """Call it."""
        if await self.function() is False:
            name = getattr(self.function, "__qualname__", repr(self.function))
            raise ProbeError(f"{name}() is False")


Probe: TypeAlias = NotifyProbe | DescriptorProbe | AskedProbe
"""What tells how a process is: `NotifyProbe`, `DescriptorProbe`, or an `AskedProbe`."""
