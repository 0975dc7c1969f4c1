"""What etcd's JSON gateway is asked and answers: protobuf's mapping to JSON, with its traps.

Keys and values are base64, 64-bit integers are strings, and whatever is false, zero or empty is
left out. Seen on 3.4.23: a transaction that lost has no `succeeded`, a keepalive of an expired
lease is a 200 without TTL. Nobody else has to know.

Source: etcd's documentation, 'gRPC gateway', and the message definitions in `rpc.proto`.
"""

from base64 import b64encode
from typing import final

import attrs

from trio_entrypoint._remote.http import Answer, UnreachableError
from trio_entrypoint._remote.message import Message

UNAUTHENTICATED = 16
LEASE_NOT_FOUND = 5


class EtcdError(Exception):
    """An etcd member answered that a request failed.

    Attributes:
        code: The gRPC code that the member gave.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class LeaseNotFoundError(EtcdError):
    """The lease has expired or was revoked."""


@final
@attrs.frozen
class Header:
    """What every answer tells about the cluster as the member knew it."""

    revision: int
    raft_term: int


@final
@attrs.frozen
class KeyValue:
    """One key as it was at one revision."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int


@final
@attrs.frozen
class Range:
    """The keys of a range at `header.revision`."""

    header: Header
    keys: tuple[KeyValue, ...]
    more: bool


@final
@attrs.frozen
class WatchEvent:
    """What happened in a watched range, up to a revision."""

    revision: int
    deleted: frozenset[bytes]


def prefix_end(prefix: bytes) -> bytes:
    """Return the `range_end` that with `prefix` as the key means 'every key that starts so'."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


# --- requests -----------------------------------------------------------------------------


def to_base64(data: bytes) -> str:
    """How a key or a value is written."""
    return b64encode(data).decode()


def creation(key: bytes, value: bytes, lease: int) -> dict[str, object]:
    """The transaction that creates a key with a lease, if there is none."""
    put = {"key": to_base64(key), "value": to_base64(value), "lease": str(lease)}
    absent = {"key": put["key"], "target": "CREATE", "result": "EQUAL", "create_revision": 0}
    return {"compare": [absent], "success": [{"request_put": put}]}


# --- answers ------------------------------------------------------------------------------


def parse_answer(url: str, answer: Answer) -> Message:
    """Take an answer for a message.

    Raises:
        UnreachableError: The member cannot serve it, another may.
        EtcdError: It refuses.
    """
    message = Message.parse(url, answer.body)
    if answer.status == 200 and "error" not in message.fields:
        return message
    text = f"{url}: status {answer.status}: {error_text(message)}"
    if answer.status >= 500 or answer.status == 429:
        raise UnreachableError(text)
    code = message.integer("code")
    if code == LEASE_NOT_FOUND:
        raise LeaseNotFoundError(text, code)
    raise EtcdError(text, code)


def error_text(message: Message) -> str:
    """What went wrong, in the member's words."""
    error = message.fields.get("error") or message.fields.get("message")
    return f"{error!r:.200}"


def header_of(message: Message) -> Header:
    """What an answer says about the cluster."""
    header = message.child("header")
    return Header(header.integer("revision"), header.integer("raft_term"))


def key_value(message: Message) -> KeyValue:
    """One key of an answer."""
    return KeyValue(
        key=message.data("key"),
        value=message.data("value"),
        create_revision=message.integer("create_revision"),
        mod_revision=message.integer("mod_revision"),
    )
