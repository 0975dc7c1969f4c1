"""HTTP to a few trusted-until-checked servers: one request or one stream of lines at a time.

`Transport` is the seam: `open_transport` speaks HTTP over sockets, by httpcore; simulations
put a server of their own in its place. A transport knows no deadlines, its callers have them
(`trio.fail_after`), and it bounds what it reads.
"""

import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from os import PathLike
from typing import Protocol, final

import attrs
import trio

from trio_entrypoint._arguments import is_path
from trio_entrypoint._nursery import open_background

try:
    import httpcore
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "etcd and Kubernetes need httpcore: install 'trio-entrypoint[etcd]' or"
        " 'trio-entrypoint[kubernetes]'",
        name="httpcore",
    ) from error

MAX_ANSWER = 2 * 1024 * 1024
"""The longest answer, or line of a stream, that is read, in bytes: etcd and the Kubernetes API
refuse objects larger than about 1.5 MiB."""

_MAX_LINES = 64

# A peer that vanished is found out in idle streams too: after 15 s, 3 probes, 5 s apart.
_SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)


class UnreachableError(OSError):
    """A server did not answer, or not in HTTP, or with more than is read from it."""


class AccessError(ValueError):
    """A file that says where a server is, or who we are to it, is not as expected."""

    exit_code = 1  # its message says it all: no traceback


@final
@attrs.frozen
class Tls:
    """How a server proves who it is, and how we do. The files are PEM.

    Example::

        Tls(ca="/etc/etcd/ca.pem", certificate="/etc/etcd/client.pem", key="/etc/etcd/client.key")
    """

    ca: str | PathLike[str] | None = attrs.field(default=None, validator=is_path)
    """The authorities that may sign the server's certificate; None for the system's."""

    certificate: str | PathLike[str] | None = attrs.field(default=None, validator=is_path)
    """Our certificate, with its chain, where the server wants one."""

    key: str | PathLike[str] | None = attrs.field(default=None, validator=is_path)
    """The private key of `certificate`; None when it is in the same file."""

    server_name: str | None = None
    """The name in the server's certificate, where it is not the address that is connected to."""

    def __attrs_post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            raise ValueError("tls: a key needs its certificate")

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            OSError: A file cannot be read, or is no PEM file of its kind; the file is named.
        """
        context = ssl.create_default_context()
        if self.ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            try:
                context.load_verify_locations(self.ca)
            except OSError as error:
                raise _file_error("ca", self.ca, error) from error
        if self.certificate is not None:
            try:
                # A password would be asked for on the terminal otherwise.
                context.load_cert_chain(self.certificate, self.key, password="")
            except OSError as error:
                pair = self.certificate if self.key is None else f"{self.certificate}, {self.key}"
                raise _file_error("certificate and key", pair, error) from error
        return context


def _file_error(field: str, path: str | PathLike[str], error: OSError) -> OSError:
    return OSError(error.errno, f"tls: {field} cannot be loaded ({error.strerror})", str(path))


@final
@attrs.frozen
class Answer:
    """A complete answer."""

    status: int
    body: bytes


class Stream(Protocol):
    """An answer that goes on: JSON values, one a line."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def lines(self) -> AsyncIterator[bytes]:
        """The lines as they come; it ends with the stream.

        Raises:
            UnreachableError: The connection broke, a line was too long, or they came faster
                than they were taken.
        """
        ...


class Transport(Protocol):
    """What carries requests to servers."""

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        limit: int = MAX_ANSWER,
    ) -> Answer:
        """Send one request and read its whole answer.

        Raises:
            UnreachableError: There was no answer, or it was longer than `limit` bytes.
        """
        ...

    def stream(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AbstractAsyncContextManager[Stream]:
        """Send one request and hand out its answer while it comes.

        Raises:
            UnreachableError: There was no answer.
        """
        ...


@asynccontextmanager
async def open_transport(
    context: ssl.SSLContext | None, server_name: str | None = None
) -> AsyncGenerator[Transport]:
    """Open connections as they are needed, keep them, close all of them at the end.

    Args:
        context: For `https` addresses.
        server_name: The name in the servers' certificates, where it is not their address.
    """
    async with httpcore.AsyncConnectionPool(
        ssl_context=context,
        max_connections=None,
        socket_options=_SOCKET_OPTIONS,
    ) as pool:
        yield _PooledTransport(pool, server_name)


@final
class _PooledTransport:
    def __init__(self, pool: httpcore.AsyncConnectionPool, server_name: str | None) -> None:
        self._pool = pool
        self._extensions = {} if server_name is None else {"sni_hostname": server_name}

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        limit: int = MAX_ANSWER,
    ) -> Answer:
        async with self._response(method, url, headers, body) as response:
            answer = bytearray()
            # Httpcore's generators must not be left half-way: no loop here is broken off or
            # waits for anything but the next chunk, and what ends one early is a cancellation.
            with trio.CancelScope() as too_long:
                async for chunk in response.aiter_stream():
                    answer += chunk
                    if len(answer) > limit:
                        too_long.cancel()
            if len(answer) > limit:
                raise UnreachableError(f"{url}: the answer is longer than {limit} bytes")
            return Answer(response.status, bytes(answer))

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncGenerator["_PooledStream"]:
        async with self._response(method, url, headers, body) as response:
            stream = _PooledStream(url, response)
            async with open_background(stream.read):
                yield stream

    @asynccontextmanager
    async def _response(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncGenerator[httpcore.Response]:
        with _telling_unreachable(url):
            async with self._pool.stream(
                method,
                url,
                headers=[
                    ("User-Agent", "trio-entrypoint"),
                    ("Content-Length", str(len(body))),
                    *headers.items(),
                ],
                content=_Body(body),
                extensions=self._extensions,
            ) as response:
                yield response


@contextmanager
def _telling_unreachable(url: str) -> Generator[None]:
    try:
        yield
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
        raise UnreachableError(f"{url}: {str(error) or type(error).__name__}") from error


@final
class _Body:
    """A request's body; httpcore's own, a generator, complains when it is cancelled half-way."""

    def __init__(self, data: bytes) -> None:
        self._left = [data] if data else []

    def __aiter__(self) -> "_Body":
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


@final
class _PooledStream:
    """What broke the connection is told where the lines are taken, after the last of them.

    Raised by the reading task it would come beside whatever its end makes of them there.
    """

    def __init__(self, url: str, response: httpcore.Response) -> None:
        self._url = url
        self._response = response
        self._failure: UnreachableError | None = None
        self._send, self._receive = trio.open_memory_channel[bytes](_MAX_LINES)
        self.status = response.status

    @property
    def lines(self) -> "_PooledStream":
        return self

    def __aiter__(self) -> "_PooledStream":
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self._failure is not None:
                raise self._failure from self._failure.__cause__
            raise StopAsyncIteration from None

    async def read(self) -> None:
        with self._send:
            try:
                with _telling_unreachable(self._url):
                    await self._read()
            except UnreachableError as error:
                self._failure = error

    async def _read(self) -> None:
        rest = b""
        failure = None
        with trio.CancelScope() as failed:
            async for chunk in self._response.aiter_stream():
                *lines, rest = (rest + chunk).split(b"\n")
                try:
                    for line in filter(bytes.strip, lines):
                        self._send.send_nowait(line)
                except trio.WouldBlock:
                    failure = f"more than {_MAX_LINES} lines wait to be taken"
                if len(rest) > MAX_ANSWER:
                    failure = f"a line is longer than {MAX_ANSWER} bytes"
                if failure is not None:
                    failed.cancel()
        if failure is not None:
            raise UnreachableError(f"{self._url}: {failure}")
        if rest.strip():  # a refusal, say, has no newline at its end
            await self._send.send(rest)
