"""A client of etcd v3 by its JSON gateway: leases, keys and watches, with failover.

How a request is written and an answer read is in `etcd_messages.py`.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from typing import final

import attrs
import trio

from trio_entrypoint._arguments import is_http_url, is_path
from trio_entrypoint._remote.etcd_messages import (
    LEASE_NOT_FOUND,
    UNAUTHENTICATED,
    EtcdError,
    Header,
    LeaseNotFoundError,
    Range,
    WatchEvent,
    creation,
    error_text,
    header_of,
    key_value,
    parse_answer,
    to_base64,
)
from trio_entrypoint._remote.http import (
    MAX_ANSWER,
    AccessError,
    Tls,
    Transport,
    UnreachableError,
    open_transport,
)
from trio_entrypoint._remote.message import Message

_MAX_PASSWORD = 4096


@final
@attrs.frozen
class EtcdAuth:
    """A user of etcd's own authentication. The password is read again with every login."""

    user: str
    password_file: str | PathLike[str] = attrs.field(validator=is_path)
    """A file with the password on its first line."""


def check_endpoints(endpoints: Sequence[str], *, tls: bool = False) -> tuple[str, ...]:
    """Return the addresses without trailing slashes.

    Raises:
        TypeError: A single string was given.
        ValueError: There is none, or one is no `http://host:port` or `https://host:port`; or
            there are files for TLS, and none is an `https` address.
    """
    if isinstance(endpoints, str):
        raise TypeError(f"endpoints: expected a list of addresses, not one string {endpoints!r}")
    if not endpoints:
        raise ValueError("endpoints: expected at least one address of an etcd member")
    checked = tuple(endpoint.rstrip("/") for endpoint in endpoints)
    for endpoint in checked:
        if not is_http_url(endpoint) or set(endpoint.partition("//")[2]) & set("/?#@"):
            raise ValueError(f"endpoints: expected http(s)://host:port, not {endpoint!r}")
    if tls and not _is_secure(checked):
        raise ValueError("tls: given, but no endpoint is an https:// address")
    return checked


def _is_secure(endpoints: Sequence[str]) -> bool:
    return any(endpoint.startswith("https://") for endpoint in endpoints)


@asynccontextmanager
async def open_etcd(
    endpoints: Sequence[str],
    *,
    tls: Tls | None = None,
    auth: EtcdAuth | None = None,
    attempt_timeout: float,
) -> AsyncGenerator["Etcd"]:
    """Open a client of one cluster. Nothing is sent before the first request.

    Args:
        endpoints: The members' client addresses; all of them must be of one cluster.
        tls: Files for `https` addresses.
        auth: A user and the password's file.
        attempt_timeout: How long one member may take to answer, in seconds.
    """
    checked = check_endpoints(endpoints, tls=tls is not None)
    context = (tls or Tls()).context() if _is_secure(checked) else None
    if auth is not None:
        _read_password(auth)
    async with open_transport(context, None if tls is None else tls.server_name) as transport:
        yield Etcd(transport, checked, auth, attempt_timeout)


@final
class Etcd:
    """Requests go to one member, as long as it answers; then to the next."""

    def __init__(
        self,
        transport: Transport,
        endpoints: tuple[str, ...],
        auth: EtcdAuth | None,
        attempt_timeout: float,
    ) -> None:
        self._transport = transport
        self._endpoints = endpoints
        self._auth = auth
        self._attempt_timeout = attempt_timeout
        self._member = 0
        self._token: str | None = None

    async def grant(self, ttl: int) -> tuple[int, int]:
        """Return a new lease's number, and the seconds granted: they may differ from `ttl`."""
        answer = await self._call("lease/grant", {"TTL": str(ttl)})
        return answer.integer("ID"), answer.integer("TTL")

    async def keep_alive(self, lease: int) -> tuple[int, Header]:
        """Renew a lease; return the seconds granted from when it got there, and the header.

        Raises:
            LeaseNotFoundError: It has expired or was revoked.
        """
        answer = await self._call("lease/keepalive", {"ID": str(lease)})
        answer = answer.child("result")
        ttl = answer.integer("TTL")
        if ttl <= 0:
            raise LeaseNotFoundError(f"etcd lease {lease:x} has expired", LEASE_NOT_FOUND)
        return ttl, header_of(answer)

    async def revoke(self, lease: int) -> None:
        """End a lease, and delete its keys with it."""
        await self._call("lease/revoke", {"ID": str(lease)})

    async def create(self, key: bytes, value: bytes, lease: int) -> None:
        """Create a key that lives as long as the lease. One that exists is left as it is.

        Raises:
            LeaseNotFoundError: The lease has expired or was revoked.
        """
        await self._call("kv/txn", creation(key, value, lease))

    async def range(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        newest_before: int | None = None,
        limit: int = 0,
        revision: int = 0,
        max_answer: int = MAX_ANSWER,
    ) -> Range:
        """Read keys, linearizably: a quorum confirms that nothing newer exists.

        Args:
            key: The key, or the first of a range.
            range_end: The key behind the range's last; empty for a single key.
            newest_before: Only the newest of those that were created before this revision.
            limit: The number of keys to return; 0 for all.
            revision: Read as of this revision; 0 for the newest.
            max_answer: The longest answer that is read, in bytes.
        """
        request: dict[str, object] = {"key": to_base64(key), "range_end": to_base64(range_end)}
        if newest_before is not None:
            request |= {
                "max_create_revision": str(newest_before - 1),
                "sort_order": "DESCEND",
                "sort_target": "CREATE",
                "limit": "1",
            }
        elif limit:
            request |= {"limit": str(limit)}
        if revision:
            request |= {"revision": str(revision)}
        answer = await self._call("kv/range", request, limit=max_answer)
        return Range(
            header_of(answer),
            tuple(key_value(kv) for kv in answer.children("kvs")),
            answer.true("more"),
        )

    @asynccontextmanager
    async def watch(
        self, key: bytes, range_end: bytes = b"", *, from_revision: int
    ) -> AsyncGenerator["Watch"]:
        """Watch a key or a range from a revision on, which ends only when that was compacted.

        Whatever else ends it is an error: who watched again at once would do so for ever.

        The member is asked to end the watch when it has lost its leader, for then it would
        hear of nothing. Whoever relies on a watch still bounds the time until it looks again.
        """
        request = {
            "create_request": {
                "key": to_base64(key),
                "range_end": to_base64(range_end),
                "start_revision": str(from_revision),
            }
        }
        member = self._member
        try:
            with trio.fail_after(self._attempt_timeout) as starting:
                headers = {**await self._headers(member), "Grpc-Metadata-hasleader": "true"}
                url = f"{self._endpoints[member]}/v3/watch"
                async with self._transport.stream(
                    "POST", url, headers, json.dumps(request).encode()
                ) as stream:
                    starting.deadline = float("inf")
                    yield Watch(url, stream.lines)
        except trio.TooSlowError:
            self._turn_away_from(member)
            raise UnreachableError(f"{self._endpoints[member]}: no answer to a watch") from None
        except UnreachableError:
            self._turn_away_from(member)
            raise

    async def _call(
        self, method: str, request: Mapping[str, object], *, limit: int = MAX_ANSWER
    ) -> Message:
        """Ask member after member until one answers; every request here may be sent twice.

        Raises:
            UnreachableError: No member answered in time.
            EtcdError: A member refused.
        """
        failures: list[str] = []
        for _ in self._endpoints:
            member = self._member
            try:
                with trio.fail_after(self._attempt_timeout):
                    return await self._ask(member, method, request, limit)
            except trio.TooSlowError:
                failures.append(f"{self._endpoints[member]}: no answer in time")
            except UnreachableError as error:
                failures.append(str(error))
            self._turn_away_from(member)
        raise UnreachableError(f"no etcd member could serve {method}: {'; '.join(failures)}")

    async def _ask(
        self, member: int, method: str, request: Mapping[str, object], limit: int
    ) -> Message:
        url = f"{self._endpoints[member]}/v3/{method}"
        body = json.dumps(request).encode()
        token = self._token
        answer = await self._transport.request(
            "POST", url, await self._headers(member), body, limit=limit
        )
        try:
            return parse_answer(url, answer)
        except EtcdError as error:
            if error.code != UNAUTHENTICATED or self._auth is None:
                raise
        if self._token == token:  # no other task has logged in meanwhile
            self._token = None
        answer = await self._transport.request(
            "POST", url, await self._headers(member), body, limit=limit
        )
        return parse_answer(url, answer)

    async def _headers(self, member: int) -> dict[str, str]:
        if self._auth is None:
            return {}
        if self._token is None:
            url = f"{self._endpoints[member]}/v3/auth/authenticate"
            try:
                password = _read_password(self._auth)
            except (OSError, ValueError) as error:
                raise UnreachableError(f"cannot log in to etcd: {error}") from error
            login = {"name": self._auth.user, "password": password}
            answer = parse_answer(
                url, await self._transport.request("POST", url, {}, json.dumps(login).encode())
            )
            self._token = _header_value(url, answer.text("token"))
        return {"Authorization": self._token}

    def _turn_away_from(self, member: int) -> None:
        if self._member == member:
            self._member = (member + 1) % len(self._endpoints)


@final
class Watch:
    """Iterates over what happens in a watched range; it ends when the past is compacted."""

    def __init__(self, url: str, lines: AsyncIterator[bytes]) -> None:
        self._url = url
        self._lines = lines

    def __aiter__(self) -> "Watch":
        return self

    async def __anext__(self) -> WatchEvent:
        async for line in self._lines:
            message = Message.parse(self._url, line)
            if "error" in message.fields:
                raise UnreachableError(f"{self._url}: the watch ended: {error_text(message)}")
            result = message.child("result")
            if result.integer("compact_revision"):
                raise StopAsyncIteration
            if result.true("canceled"):
                reason = result.text("cancel_reason")
                raise UnreachableError(f"{self._url}: the watch was cancelled: {reason:.200}")
            events = result.children("events")
            if events:
                deleted = (e.child("kv").data("key") for e in events if e.text("type") == "DELETE")
                return WatchEvent(header_of(result).revision, frozenset(deleted))
        raise UnreachableError(f"{self._url}: the watch ended without a reason")


def _header_value(url: str, value: str) -> str:
    if not value.isascii() or not value.isprintable() or not value:
        raise UnreachableError(f"{url}: expected a token, got {value!r:.80}")
    return value


def _read_password(auth: EtcdAuth) -> str:
    with open(auth.password_file, "rb") as file:
        password = file.read(_MAX_PASSWORD + 1)
    line = password.split(b"\n", 1)[0]
    if not line or len(line) > _MAX_PASSWORD:
        raise AccessError(
            f"{auth.password_file}: expected a password of at most {_MAX_PASSWORD} bytes"
            " on the first line"
        )
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise AccessError(f"{auth.password_file}: expected a password in UTF-8") from None
