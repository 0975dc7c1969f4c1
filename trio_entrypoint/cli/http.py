"""A small HTTP/1.1 server over h11: health, status, metrics and the page, all read-only.

Clients may be slow or hostile: their number, the size of a request's head, and every wait for
them are bounded. For one too many the slowest is dropped, so that slow ones cannot keep a kubelet
from its answer. Only GET and HEAD are answered, and bodies of requests are not read.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial

import attrs
import h11
import trio

from trio_entrypoint._nursery import open_background
from trio_entrypoint.cli.accepting import accept_all

__all__ = ["Handler", "Response", "Write", "open_http"]

logger: logging.Logger = logging.getLogger(__name__)

HEAD_WITHIN = 10.0
"""Seconds for a request's head, and for the next one on the same connection."""
SEND_WITHIN = 10.0
MAX_CLIENTS = 64
MAX_HEAD = 16 * 1024


@attrs.frozen(kw_only=True)
class Response:
    """What a request gets."""

    status: int = 200
    type: str = "application/json"
    body: bytes = b""
    stream: "Callable[[Write], Awaitable[None]] | None" = None
    """Writes what follows the body, for as long as the client listens."""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])


Write = Callable[[bytes], Awaitable[None]]
"""Writes a piece of a stream."""

Handler = Callable[[str], Awaitable[Response]]
"""Answers the path of a request."""


@asynccontextmanager
async def open_http(host: str | None, port: int, handler: Handler) -> AsyncGenerator[int]:
    """Serve HTTP for as long as the block lasts; gives the port.

    Args:
        host: The address to listen on, or None for all of them.
        port: The port, or 0 for a free one.
        handler: Answers the requests.

    Raises:
        OSError: The address cannot be listened on.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=MAX_CLIENTS)
    except OSError as error:
        message = f"http.listen {host or ''}:{port}: {error.strerror or error}"
        raise OSError(error.errno, message) from None
    serve = _Server(handler).serve
    accept = [partial(accept_all, "HTTP", one.accept, serve) for one in listeners]
    try:
        async with open_background(*accept):
            yield listeners[0].socket.getsockname()[1]
    finally:
        for listener in listeners:
            listener.socket.close()


class _Server:
    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._clients: set[_Client] = set()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one client."""
        if len(self._clients) >= MAX_CLIENTS:
            slowest = min(self._clients, key=lambda one: (one.answering, one.since))
            self._clients.remove(slowest)
            slowest.scope.cancel()
        client = _Client(stream, self._handler)
        self._clients.add(client)
        try:
            with client.scope:
                async with stream:
                    await client.converse()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
            pass  # the client went away
        except* Exception:  # a fault of ours in an answer must not end what is looked at
            logger.exception("HTTP: cannot answer")
        finally:
            self._clients.discard(client)


class _Client:
    def __init__(self, stream: trio.SocketStream, handler: Handler) -> None:
        self._stream = stream
        self._handler = handler
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self.scope = trio.CancelScope()
        self.answering = False
        """Whether it is being answered; else its next request is waited for."""
        self.since: float = trio.current_time()

    async def converse(self) -> None:
        """Answer one request after the other."""
        while True:
            request = None
            try:
                with trio.move_on_after(HEAD_WITHIN):
                    request = await self._receive_request()
            except h11.RemoteProtocolError as error:
                await self._send(_text(error.error_status_hint, str(error)), head_only=False)
            if request is None:
                return
            self.answering, self.since = True, trio.current_time()
            if request.method not in (b"GET", b"HEAD"):
                response = _text(405, "only GET and HEAD", {"Allow": "GET, HEAD"})
            else:
                response = await self._handler(request.target.partition(b"?")[0].decode("latin-1"))
            await self._send(response, head_only=request.method == b"HEAD")
            if {self._protocol.our_state, self._protocol.their_state} != {h11.DONE}:
                return
            self._protocol.start_next_cycle()
            self.answering, self.since = False, trio.current_time()

    async def _receive_request(self) -> h11.Request | None:
        while True:
            event = self._protocol.next_event()
            if event is h11.NEED_DATA:
                self._protocol.receive_data(await self._stream.receive_some(4096))
            elif isinstance(event, h11.Request):
                self._protocol.next_event()  # the end of a request that has no body
                return event
            else:
                return None

    async def _send(self, response: Response, *, head_only: bool) -> None:
        headers = {
            "Content-Type": response.type,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            **response.headers,
        }
        if response.stream is None:
            headers["Content-Length"] = str(len(response.body))
        if self._protocol.their_state is not h11.DONE:  # a body that nobody reads
            headers["Connection"] = "close"
        await self._write(h11.Response(status_code=response.status, headers=list(headers.items())))
        if not head_only:
            await self._write(h11.Data(data=response.body))
            if response.stream is not None:
                await self._write_stream(response.stream)
        await self._write(h11.EndOfMessage())

    async def _write_stream(self, stream: "Callable[[Write], Awaitable[None]]") -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_gone, nursery.cancel_scope)
            await stream(lambda chunk: self._write(h11.Data(data=chunk)))
            nursery.cancel_scope.cancel()
        raise trio.BrokenResourceError  # a stream ends with its client, or because it is slow

    async def _cancel_when_gone(self, scope: trio.CancelScope) -> None:
        # Nothing is expected from the client of a stream: whatever comes, it is done.
        with suppress(trio.BrokenResourceError):
            await self._stream.receive_some(1)
        scope.cancel()

    async def _write(self, event: h11.Event) -> None:
        data = self._protocol.send(event)
        with trio.move_on_after(SEND_WITHIN) as scope:
            await self._stream.send_all(data or b"")
        if scope.cancelled_caught:
            raise trio.BrokenResourceError


def _text(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    body = f"{message}\n".encode()
    return Response(status=status, type="text/plain", body=body, headers=headers or {})
