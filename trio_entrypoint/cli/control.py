"""The server's side of the control socket.

Clients may be slow or hostile; they can hold up nothing: their number, their requests and what
is kept for each of them are bounded, and everything that waits for one has a time limit. The
socket belongs to the entrypoint's user alone (mode 0600), and the kernel says who connects.
"""

import errno
import logging
import os
import socket
import stat
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

from trio_entrypoint._nursery import open_background
from trio_entrypoint.cli.accepting import accept_all
from trio_entrypoint.cli.protocol import (
    MAX_REQUEST,
    ProtocolError,
    Request,
    encode_end,
    encode_error,
    encode_item,
    parse_request,
)

__all__ = ["Answer", "Send", "open_control_server"]

logger: logging.Logger = logging.getLogger(__name__)

REQUEST_WITHIN = 5.0
SEND_WITHIN = 5.0
MAX_CLIENTS = 32

Send = Callable[[object], Awaitable[None]]
"""Sends a client one item of its answer."""

Answer = Callable[[Request, Send], Awaitable[None]]
"""Sends the items that answer a request, or raises `ProtocolError`."""


@asynccontextmanager
async def open_control_server(path: str, answer: Answer) -> AsyncGenerator[None]:
    """Answer requests on a Unix socket for as long as the block lasts.

    Args:
        path: Where the socket is made. What a dead entrypoint left there is replaced.
        answer: Answers one request.

    Raises:
        OSError: The socket cannot be made, or a living entrypoint has it already.
    """
    listener = _listen(path)
    identity = os.stat(path).st_ino
    try:
        serve = _Server(answer).serve
        accept = partial(accept_all, "the control socket", listener.accept, serve)
        async with open_background(accept):
            yield
    finally:
        listener.close()
        try:
            if os.stat(path).st_ino == identity:  # not what a successor has put there
                os.unlink(path)
        except OSError:
            pass


class _Server:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._clients = 0

    async def serve(self, accepted: tuple[trio.socket.SocketType, object]) -> None:
        """Serve one client."""
        self._clients += 1
        stream = trio.SocketStream(accepted[0])
        try:
            async with stream:
                await self._converse(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away
        except* Exception:  # a fault of ours in an answer must not end what is looked at
            logger.exception("the control socket: cannot answer")
        finally:
            self._clients -= 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        try:
            if self._clients > MAX_CLIENTS:
                raise ProtocolError("busy", f"there are {MAX_CLIENTS} clients already")
            _check_peer(stream.socket)
            request = parse_request(await _receive_line(stream))
        except ProtocolError as error:
            await _send(stream, encode_error(error))
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, stream, nursery.cancel_scope)
            try:
                await self._answer(request, lambda item: _send(stream, encode_item(item)))
            except ProtocolError as error:
                await _send(stream, encode_error(error))
            else:
                await _send(stream, encode_end())
            nursery.cancel_scope.cancel()


async def _receive_line(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    with trio.move_on_after(REQUEST_WITHIN):
        while len(received) <= MAX_REQUEST:
            chunk = await stream.receive_some(4096)
            received += chunk
            if b"\n" in chunk:
                line, _, rest = bytes(received).partition(b"\n")
                if rest:
                    raise ProtocolError("bad-request", "one connection carries one request")
                return line
            if not chunk:
                raise trio.BrokenResourceError
        raise ProtocolError("bad-request", f"a request has at most {MAX_REQUEST} bytes")
    raise ProtocolError("timeout", f"no request within {REQUEST_WITHIN:g} s")


async def _send(stream: trio.SocketStream, line: bytes) -> None:
    with trio.move_on_after(SEND_WITHIN) as scope:
        await stream.send_all(line)
    if scope.cancelled_caught:
        logger.warning("dropped a client of the control socket: it does not read")
        raise trio.BrokenResourceError


async def _cancel_when_gone(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    # A client has nothing more to say: whatever comes, an end or a byte, ends its request.
    with suppress(trio.BrokenResourceError):
        await stream.receive_some(1)
    scope.cancel()


def _check_peer(connection: trio.socket.SocketType) -> None:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, user, _ = struct.unpack("3i", credentials)
    if user not in (0, os.geteuid()):
        raise ProtocolError("forbidden", f"user {user} is neither root nor the entrypoint's user")


def _listen(path: str) -> trio.socket.SocketType:
    """Put a listening socket at a path, in one step.

    It is made under a name of its own, gets its mode, listens, and is then renamed: nobody
    ever connects to one that has another mode, and there is no moment without a socket when it
    replaces a dead one.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = f"{path}.{os.getpid()}"
    try:
        _refuse_living(path)
        listener.bind(temporary)
        try:
            os.chmod(temporary, 0o600)
            listener.listen(MAX_CLIENTS)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        listener.close()
        # A path that is too long has a message, but neither a number nor a file name.
        message = f"control socket: {error.strerror or error}"
        raise OSError(error.errno or errno.EINVAL, message, path) from None
    listener.setblocking(False)
    return trio.socket.from_stdlib_socket(listener)


def _refuse_living(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "there is something else, not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            pass  # its backlog is full, so it lives
        except ConnectionRefusedError:
            return
    raise OSError(errno.EADDRINUSE, "another entrypoint listens there")
