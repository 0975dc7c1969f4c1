"""What etcd's JSON gateway does for leases, keys and watches, traps included, in virtual time.

It also does what 3.4.23 does when a leader was replaced and does not know it yet: renewals
are confirmed, and count for nothing.
"""

import contextlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import attrs
import trio
from simulated_network import Request

from trio_entrypoint._remote.http import Answer


@attrs.define
class _Lease:
    ttl: int
    expires: float
    keys: set[bytes] = attrs.Factory(set)


@attrs.define
class _Key:
    value: bytes
    created: int
    modified: int


class FakeEtcd:
    def __init__(self) -> None:
        self.revision = 1
        self.term = 2
        self.leases: dict[int, _Lease] = {}
        self.keys: dict[bytes, _Key] = {}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.longest = inf
        """Seconds; who asks for a longer lease gets a shorter one."""
        self._next_lease = 7_000_000_000_000_000_001
        self._stale_until = -1.0
        self._watchers: list[tuple[bytes, bytes, trio.MemorySendChannel[bytes]]] = []

    # --- the world ----------------------------------------------------------------------------

    async def expire_leases(self) -> None:
        while True:
            next_end = min((lease.expires for lease in self.leases.values()), default=inf)
            await trio.sleep_until(min(next_end, trio.current_time() + 0.5))
            self._expire()

    def replace_leader(self, unnoticed_for: float) -> None:
        """A new leader grants every lease its whole time again; the old one still answers."""
        self._expire()
        now = trio.current_time()
        for lease in self.leases.values():
            lease.expires = now + lease.ttl
        self.term += 1
        self._stale_until = now + unnoticed_for

    def drop_watches(self) -> None:
        for _, _, channel in self._watchers:
            channel.close()
        self._watchers.clear()

    def _expire(self) -> None:
        for number, lease in list(self.leases.items()):
            if trio.current_time() >= lease.expires:
                self._revoke(number)

    def _revoke(self, number: int) -> None:
        lease = self.leases.pop(number)
        for key in lease.keys:
            self._delete(key)

    def _delete(self, key: bytes) -> None:
        if self.keys.pop(key, None) is None:
            return
        self.revision += 1
        event = {"type": "DELETE", "kv": {"key": _b64(key), "mod_revision": str(self.revision)}}
        self._notify(key, event)

    def _notify(self, key: bytes, event: Mapping[str, object]) -> None:
        line = json.dumps({"result": {"header": self._header(), "events": [event]}}).encode()
        for start, end, channel in self._watchers:
            if key == start or (end and start <= key < end):
                with contextlib.suppress(trio.BrokenResourceError, trio.WouldBlock):
                    channel.send_nowait(line)

    def _header(self, term: int | None = None) -> dict[str, str]:
        return {
            "cluster_id": "1",
            "member_id": "1",
            "revision": str(self.revision),
            "raft_term": str(self.term if term is None else term),
        }

    # --- the gateway --------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        self._expire()
        method = request.path.removeprefix("/v3/")
        body = json.loads(request.body)
        self.requests.append((method, body))
        calls: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "lease/grant": self._grant,
            "lease/keepalive": self._keep_alive,
            "lease/revoke": self._revoke_call,
            "kv/txn": self._txn,
            "kv/range": self._range,
        }
        try:
            return Answer(200, json.dumps(calls[method](body)).encode())
        except KeyError as error:
            failure = {"error": str(error), "message": str(error), "code": 5}
            return Answer(404, json.dumps(failure).encode())

    def subscribe(self, request: Request) -> tuple[int, trio.MemoryReceiveChannel[bytes]]:
        self._expire()
        create = json.loads(request.body)["create_request"]
        send, receive = trio.open_memory_channel[bytes](100)
        start, end = b64decode(create["key"]), b64decode(create.get("range_end", ""))
        created = {"result": {"header": self._header(), "created": True}}
        send.send_nowait(json.dumps(created).encode())
        if int(create.get("start_revision", 0)) <= self.revision and start not in self.keys:
            # Of the history, this fake knows only what is gone.
            gone = {"type": "DELETE", "kv": {"key": create["key"]}}
            line = {"result": {"header": self._header(), "events": [gone]}}
            send.send_nowait(json.dumps(line).encode())
        self._watchers.append((start, end, send))
        return 200, receive

    def _grant(self, body: dict[str, Any]) -> dict[str, Any]:
        ttl = int(min(max(2, int(body["TTL"])), self.longest))
        self._next_lease += 1
        self.leases[self._next_lease] = _Lease(ttl, trio.current_time() + ttl)
        return {"header": self._header(), "ID": str(self._next_lease), "TTL": str(ttl)}

    def _keep_alive(self, body: dict[str, Any]) -> dict[str, Any]:
        number = int(body["ID"])
        if trio.current_time() < self._stale_until:
            header = self._header(self.term - 1)
            return {"result": {"header": header, "ID": str(number), "TTL": "15"}}
        lease = self.leases.get(number)
        if lease is None:
            return {"result": {"header": self._header(), "ID": str(number)}}
        lease.ttl = int(min(lease.ttl, self.longest))
        lease.expires = trio.current_time() + lease.ttl
        return {"result": {"header": self._header(), "ID": str(number), "TTL": str(lease.ttl)}}

    def _revoke_call(self, body: dict[str, Any]) -> dict[str, Any]:
        if int(body["ID"]) not in self.leases:
            raise KeyError("etcdserver: requested lease not found")
        self._revoke(int(body["ID"]))
        return {"header": self._header()}

    def _txn(self, body: dict[str, Any]) -> dict[str, Any]:
        put = body["success"][0]["request_put"]
        key, lease = b64decode(put["key"]), int(put["lease"])
        if lease not in self.leases:
            raise KeyError("etcdserver: requested lease not found")
        if key in self.keys:
            return {"header": self._header()}  # `succeeded` is false, so it is left out
        self.revision += 1
        self.keys[key] = _Key(b64decode(put["value"]), self.revision, self.revision)
        self.leases[lease].keys.add(key)
        self._notify(key, {"kv": {"key": put["key"]}})
        return {"header": self._header(), "succeeded": True, "responses": [{}]}

    def _range(self, body: dict[str, Any]) -> dict[str, Any]:
        start, end = b64decode(body["key"]), b64decode(body.get("range_end", ""))
        newest = int(body.get("max_create_revision", 2**62))
        found = [
            (key, kv)
            for key, kv in sorted(self.keys.items())
            if (key == start or (end and start <= key < end)) and kv.created <= newest
        ]
        if body.get("sort_target") == "CREATE":
            found.sort(key=lambda item: item[1].created, reverse=body["sort_order"] == "DESCEND")
        kvs = [
            {
                "key": _b64(key),
                "value": _b64(kv.value),
                "create_revision": str(kv.created),
                "mod_revision": str(kv.modified),
            }
            for key, kv in found[: int(body.get("limit", 0)) or None]
        ]
        answer: dict[str, Any] = {"header": self._header()}
        return answer | ({"kvs": kvs, "count": str(len(kvs))} if kvs else {})


def _b64(data: bytes) -> str:
    return b64encode(data).decode()
