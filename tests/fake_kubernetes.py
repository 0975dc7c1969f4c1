"""What an API server does for Lease objects: versions, conflicts, watches, tokens, failures.

Immediate, as `simulated_network.Server`, and over real sockets by `serve_kubernetes`.
"""

import contextlib
import itertools
import json
import ssl
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from copy import deepcopy
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import h11
import trio
from simulated_network import Request

from trio_entrypoint._remote.http import Answer

_PREFIX = "/apis/coordination.k8s.io/v1/namespaces/"


@attrs.define
class _Watcher:
    name: str
    channel: trio.MemorySendChannel[bytes]


class FakeKubernetes:
    def __init__(self, token: str | None = None) -> None:
        self.token = token
        self.objects: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.failures: deque[int] = deque()
        self.may_watch = True
        self.answers_to_lose = 0
        self.lost_answer = trio.Event()
        self.version = 100
        self.oldest_version = 0
        self._watchers: list[_Watcher] = []

    # --- the world ----------------------------------------------------------------------------

    def write(self, name: str, **spec: object) -> None:
        """Somebody else writes the object."""
        old = self.objects.get(name, {"metadata": {"name": name}, "spec": {}})
        self._store(name, old | {"spec": old["spec"] | spec})

    def delete(self, name: str) -> None:
        self.version += 1
        self._tell(name, "DELETED", self.objects.pop(name))

    def end_watches(self) -> None:
        """As the server does it after a time that it chooses itself."""
        for watcher in self._watchers:
            watcher.channel.close()
        self._watchers.clear()

    def expire_history(self) -> None:
        """Versions before now can not be watched from any more."""
        self.version += 1
        self.oldest_version = self.version
        self.end_watches()

    def _store(self, name: str, value: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        stored = deepcopy(value)
        stored["apiVersion"], stored["kind"] = "coordination.k8s.io/v1", "Lease"
        stored["metadata"]["resourceVersion"] = str(self.version)
        event = "MODIFIED" if name in self.objects else "ADDED"
        self.objects[name] = stored
        self._tell(name, event, stored)
        return stored

    def _tell(self, name: str, event: str, value: dict[str, Any]) -> None:
        line = json.dumps({"type": event, "object": value}).encode()
        for watcher in self._watchers:
            if watcher.name == name:
                with contextlib.suppress(trio.BrokenResourceError, trio.WouldBlock):
                    watcher.channel.send_nowait(line)

    # --- the API ------------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        body = json.loads(request.body) if request.body else {}
        path = urlsplit(request.path).path
        self.requests.append((request.method, path, body))
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        _, resource, *names = path.removeprefix(_PREFIX).split("/")
        assert path.startswith(_PREFIX)
        assert resource == "leases"
        name = names[0] if names else body["metadata"]["name"]
        match request.method:
            case "GET":
                if name not in self.objects:
                    return _status(404, "NotFound", f'leases "{name}" not found')
                return Answer(200, json.dumps(self.objects[name]).encode())
            case "POST":
                if name in self.objects:
                    return _status(409, "AlreadyExists", f'leases "{name}" already exists')
                return Answer(201, json.dumps(self._store(name, body)).encode())
            case "PUT":
                return self._update(name, body)
            case method:
                return _status(405, "MethodNotAllowed", method)

    def _update(self, name: str, body: dict[str, Any]) -> Answer:
        if name not in self.objects:
            return _status(404, "NotFound", f'leases "{name}" not found')
        if (
            body["metadata"]["resourceVersion"]
            != self.objects[name]["metadata"]["resourceVersion"]
        ):
            return _status(409, "Conflict", "the object has been modified")
        duration = body["spec"]["leaseDurationSeconds"]
        if not isinstance(duration, int) or duration <= 0:
            return _status(422, "Invalid", "leaseDurationSeconds: must be greater than 0")
        return Answer(200, json.dumps(self._store(name, body)).encode())

    def subscribe(self, request: Request) -> tuple[int, trio.MemoryReceiveChannel[bytes]]:
        url = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.requests.append(("WATCH", url.path, dict(query)))
        send, receive = trio.open_memory_channel[bytes](100)
        refusal = self._refusal(request)
        if refusal is None and not self.may_watch:
            refusal = _status(403, "Forbidden", "cannot watch")
        if refusal is not None:
            send.send_nowait(refusal.body)
            send.close()
            return refusal.status, receive
        name = query["fieldSelector"].removeprefix("metadata.name=")
        since = int(query["resourceVersion"])
        if since < self.oldest_version:
            gone = json.loads(_status(410, "Expired", "too old resource version").body)
            send.send_nowait(json.dumps({"type": "ERROR", "object": gone}).encode())
            send.close()
            return 200, receive
        value = self.objects.get(name)
        if value is not None and int(value["metadata"]["resourceVersion"]) > since:
            send.send_nowait(json.dumps({"type": "MODIFIED", "object": value}).encode())
        self._watchers.append(_Watcher(name, send))
        return 200, receive

    def _refusal(self, request: Request) -> Answer | None:
        if self.failures:
            status = self.failures.popleft()
            return _status(status, "Failure", f"injected {status}")
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        return None


def _status(code: int, reason: str, message: str) -> Answer:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return Answer(code, json.dumps(status).encode())


# --- over sockets -----------------------------------------------------------------------------


@asynccontextmanager
async def serve_kubernetes(
    fake: FakeKubernetes, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[str]:
    """Serve the fake on loopback; its address is what comes out."""
    async with trio.open_nursery() as nursery:
        handler = partial(_serve, fake)
        if tls is None:
            listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        else:
            listeners = await nursery.start(
                partial(trio.serve_ssl_over_tcp, handler, 0, tls, host="127.0.0.1")
            )
        listener = listeners[0] if tls is None else listeners[0].transport_listener
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def _serve(fake: FakeKubernetes, stream: trio.abc.Stream) -> None:
    connection = h11.Connection(h11.SERVER)
    with contextlib.suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
        for _ in itertools.count():
            request = await _read_request(connection, stream)
            if request is None:
                break
            if "watch=true" in request.url:
                await _watch(fake, connection, stream, request)
                break
            answer = fake.answer(request)
            if request.method != "GET" and fake.answers_to_lose:
                fake.answers_to_lose -= 1
                fake.lost_answer.set()
                await trio.sleep_forever()
            length = str(len(answer.body))
            headers = [("Content-Type", "application/json"), ("Content-Length", length)]
            for event in (
                h11.Response(status_code=answer.status, headers=headers),
                h11.Data(data=answer.body),
                h11.EndOfMessage(),
            ):
                await stream.send_all(connection.send(event) or b"")
            connection.start_next_cycle()
    await trio.aclose_forcefully(stream)


async def _read_request(connection: h11.Connection, stream: trio.abc.Stream) -> Request | None:
    head, body = None, b""
    while True:
        event = connection.next_event()
        match event:
            case h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            case h11.Request():
                head = event
            case h11.Data():
                body += event.data
            case h11.EndOfMessage() if head is not None:
                headers = {k.decode().title(): v.decode() for k, v in head.headers}
                return Request(
                    head.method.decode(), "fake://fake" + head.target.decode(), headers, body
                )
            case _:
                return None


async def _watch(
    fake: FakeKubernetes, connection: h11.Connection, stream: trio.abc.Stream, request: Request
) -> None:
    status, lines = fake.subscribe(request)
    with lines:
        head = h11.Response(status_code=status, headers=[("Transfer-Encoding", "chunked")])
        await stream.send_all(connection.send(head) or b"")
        async for line in lines:
            await stream.send_all(connection.send(h11.Data(data=line + b"\n")) or b"")
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
