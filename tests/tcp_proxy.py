"""A TCP proxy between a client and one server, that drops, delays and cuts, each way by itself."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio


class Proxy:
    """What is dropped is lost for good: the connection stays open, and silent."""

    def __init__(self, server_url: str) -> None:
        parts = urlsplit(server_url)
        self._server = parts.hostname or "", parts.port or 0
        self.url = ""
        self.drop_to_server = False
        self.drop_from_server = False
        self.delay = 0.0
        self._connections: set[trio.SocketStream] = set()

    def isolate(self) -> None:
        """Let nothing through, in either direction."""
        self.drop_to_server = self.drop_from_server = True

    def mend(self) -> None:
        """Let everything through again; what was dropped has confused the old connections."""
        self.drop_to_server = self.drop_from_server = False
        self.delay = 0.0
        self.cut()

    def cut(self) -> None:
        """Break all connections."""
        for stream in self._connections:
            stream.socket.close()

    async def serve(self, client: trio.SocketStream) -> None:
        try:
            server = await trio.open_tcp_stream(*self._server)
        except OSError:
            return
        self._connections |= {client, server}
        try:
            async with client, server, trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, client, server, True, nursery.cancel_scope)
                nursery.start_soon(self._copy, server, client, False, nursery.cancel_scope)
        finally:
            self._connections -= {client, server}

    async def _copy(
        self,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        to_server: bool,
        scope: trio.CancelScope,
    ) -> None:
        try:
            async for data in source:
                if self.delay:
                    await trio.sleep(self.delay)
                if not (self.drop_to_server if to_server else self.drop_from_server):
                    await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        scope.cancel()


@asynccontextmanager
async def open_proxy(server_url: str) -> AsyncGenerator[Proxy]:
    proxy = Proxy(server_url)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, proxy.serve, 0, host="127.0.0.1"))
        proxy.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield proxy
        nursery.cancel_scope.cancel()
