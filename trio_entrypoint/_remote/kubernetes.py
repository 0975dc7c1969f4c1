"""A client of the Kubernetes API for one Lease object: get, create, update, watch.

Source: Kubernetes' API reference, `coordination.k8s.io/v1`, and 'API Concepts' (resource
versions, watches).
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from datetime import UTC, datetime
from typing import cast, final

import attrs
import trio

from trio_entrypoint._remote.http import Answer, Transport, UnreachableError
from trio_entrypoint._remote.kubeconfig import Access
from trio_entrypoint._remote.message import Message

_TOKEN_AGE = 60.0  # how long client-go believes a token's file, too
_WATCH_SECONDS = 300


class KubernetesError(Exception):
    """The API server refused a request.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@final
@attrs.frozen
class Spec:
    """What contenders read and write, as `LeaseSpec` has it."""

    holder: str
    duration: int
    transitions: int
    acquired: str
    renewed: str


@final
@attrs.frozen
class LeaseObject:
    """A Lease as the server has it. What we do not know of it is written back unchanged."""

    spec: Spec
    resource_version: str
    fields: dict[str, object] = attrs.field(repr=False, eq=False)

    def replaced(self, spec: Spec) -> dict[str, object]:
        """The object with another spec, for an update of exactly this version."""
        fields = deepcopy(self.fields)
        inner = fields.get("spec")
        known = cast("dict[str, object]", inner) if isinstance(inner, dict) else {}
        fields["spec"] = known | _spec_fields(spec)
        return fields


def timestamp() -> str:
    """Now, as a `MicroTime`; for people: nobody measures by it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@final
class LeaseApi:
    """Requests for one Lease object."""

    def __init__(
        self,
        transport: Transport,
        access: Access,
        namespace: str,
        name: str,
        attempt_timeout: float,
    ) -> None:
        self._transport = transport
        self._access = access
        self._namespace = namespace
        self._name = name
        self._attempt_timeout = attempt_timeout
        self._leases = f"{access.server}/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._token: str | None = None
        self._token_read = -_TOKEN_AGE

    async def get(self) -> LeaseObject | None:
        """The newest version, confirmed by a quorum; None when there is no such object."""
        try:
            return _lease(await self._call("GET", f"{self._leases}/{self._name}"))
        except KubernetesError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, spec: Spec) -> LeaseObject | None:
        """Create the object; None when somebody else did."""
        fields: dict[str, object] = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": _spec_fields(spec),
        }
        return await self._write("POST", self._leases, fields)

    async def update(self, old: LeaseObject, spec: Spec) -> LeaseObject | None:
        """Replace a version by a new one; None when it is not the newest any more."""
        return await self._write("PUT", f"{self._leases}/{self._name}", old.replaced(spec))

    @asynccontextmanager
    async def watch(self, resource_version: str) -> AsyncGenerator["Versions"]:
        """Every version after one, as long as the server lets us watch.

        Raises:
            KubernetesError: Watching is forbidden, or the version is too old (status 410).
        """
        url = (
            f"{self._leases}?watch=true&fieldSelector=metadata.name%3D{self._name}"
            f"&resourceVersion={resource_version}&timeoutSeconds={_WATCH_SECONDS}"
        )
        try:
            with trio.fail_after(self._attempt_timeout) as starting:
                async with self._transport.stream("GET", url, self._headers()) as stream:
                    starting.deadline = float("inf")
                    if stream.status != 200:
                        raise KubernetesError(f"{url}: status {stream.status}", stream.status)
                    yield Versions(url, stream.lines)
        except trio.TooSlowError:
            raise UnreachableError(f"{url}: no answer in time") from None

    async def _write(self, method: str, url: str, fields: dict[str, object]) -> LeaseObject | None:
        try:
            return _lease(await self._call(method, url, json.dumps(fields).encode()))
        except KubernetesError as error:
            if error.status == 409:
                return None
            raise

    async def _call(self, method: str, url: str, body: bytes = b"") -> Message:
        try:
            with trio.fail_after(self._attempt_timeout):
                answer = await self._transport.request(method, url, self._headers(), body)
                if answer.status == 401 and self._access.token_file is not None:
                    self._token_read = -_TOKEN_AGE
                    answer = await self._transport.request(method, url, self._headers(), body)
        except trio.TooSlowError:
            raise UnreachableError(f"{method} {url}: no answer in time") from None
        return _checked(f"{method} {url}", answer)

    def _headers(self) -> dict[str, str]:
        now = trio.current_time()
        if now >= self._token_read + _TOKEN_AGE:
            try:
                self._token = self._access.current_token()
            except (OSError, ValueError) as error:
                raise UnreachableError(f"no token for {self._access.server}: {error}") from error
            self._token_read = now
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        return (
            headers
            if self._token is None
            else headers | {"Authorization": f"Bearer {self._token}"}
        )


@final
class Versions:
    """Iterates over the object's versions; it ends when the server ends the watch."""

    def __init__(self, url: str, lines: AsyncIterator[bytes]) -> None:
        self._url = url
        self._lines = lines

    def __aiter__(self) -> "Versions":
        return self

    async def __anext__(self) -> LeaseObject:
        async for line in self._lines:
            event = Message.parse(self._url, line)
            match event.text("type"):
                case "ADDED" | "MODIFIED":
                    return _lease(event.child("object"))
                case "ERROR":
                    status = event.child("object")
                    raise KubernetesError(
                        f"{self._url}: {status.text('message'):.200}", status.integer("code")
                    )
                case "DELETED":
                    break
                case _:  # a bookmark tells nothing about the object
                    pass
        raise StopAsyncIteration


def _checked(where: str, answer: Answer) -> Message:
    if answer.status in (200, 201):
        return Message.parse(where, answer.body)
    try:
        text = Message.parse(where, answer.body).text("message")
    except UnreachableError:  # a proxy on the way, say
        text = repr(answer.body[:80])
    message = f"{where}: status {answer.status}: {text:.200}"
    if answer.status >= 500 or answer.status == 429:
        raise UnreachableError(message)
    raise KubernetesError(message, answer.status)


def _lease(message: Message) -> LeaseObject:
    spec = message.child("spec")
    version = message.child("metadata").text("resourceVersion")
    # It goes into URLs, and into the process's environment as the fencing token.
    if not version or not version.isascii() or not version.isprintable():
        raise UnreachableError(f"{message.where}: metadata: resourceVersion: expected a version")
    return LeaseObject(
        Spec(
            holder=spec.text("holderIdentity"),
            duration=spec.integer("leaseDurationSeconds"),
            transitions=spec.integer("leaseTransitions"),
            acquired=spec.text("acquireTime"),
            renewed=spec.text("renewTime"),
        ),
        version,
        message.fields,
    )


def _spec_fields(spec: Spec) -> dict[str, object]:
    return {
        "holderIdentity": spec.holder,
        "leaseDurationSeconds": spec.duration,
        "acquireTime": spec.acquired,
        "renewTime": spec.renewed,
        "leaseTransitions": spec.transitions,
    }
