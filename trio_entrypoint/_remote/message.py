"""JSON from a server, believed only field by field: each getter names what was not as expected."""

import json
from base64 import b64decode
from contextlib import suppress
from typing import cast, final

from trio_entrypoint._remote.http import UnreachableError


@final
class Message:
    """One JSON object. What is absent is empty, as protobuf's and Go's JSON leave it out.

    Every getter raises `UnreachableError`, naming the server and the field, when a value is
    not of its type: a server that talks nonsense is no better than none.
    """

    def __init__(self, where: str, fields: dict[str, object]) -> None:
        self.where = where
        self.fields = fields

    @classmethod
    def parse(cls, where: str, body: bytes) -> "Message":
        """Read an answer of a server; `where` names it in errors."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise UnreachableError(f"{where}: expected JSON, got {body[:80]!r}") from None
        if not isinstance(value, dict):
            raise UnreachableError(f"{where}: expected a JSON object, got {body[:80]!r}")
        return cls(where, cast("dict[str, object]", value))

    def child(self, field: str) -> "Message":
        """An object within, for its own fields."""
        return self._message(field, self.fields.get(field) or {})

    def children(self, field: str) -> list["Message"]:
        """A list of objects."""
        value: object = self.fields.get(field) or []
        if not isinstance(value, list):
            raise self._wrong(field, "a list", value)
        return [self._message(field, item) for item in cast("list[object]", value)]

    def text(self, field: str) -> str:
        """A string."""
        value = self.fields.get(field) or ""
        if not isinstance(value, str):
            raise self._wrong(field, "a string", value)
        return value

    def integer(self, field: str) -> int:
        """An integer of at most 64 bits; such ones come as strings."""
        value = self.fields.get(field) or 0
        if isinstance(value, str) and len(value) <= 20:
            with suppress(ValueError):
                value = int(value)
        if not isinstance(value, int) or not -(2**63) <= value < 2**63:
            raise self._wrong(field, "an integer of 64 bits", value)
        return value

    def true(self, field: str) -> bool:
        """Whether a flag is set."""
        return self.fields.get(field) is True

    def data(self, field: str) -> bytes:
        """Bytes, in base64."""
        value = self.text(field)
        try:
            return b64decode(value, validate=True)
        except ValueError:
            raise self._wrong(field, "base64", value) from None

    def _message(self, field: str, value: object) -> "Message":
        if not isinstance(value, dict):
            raise self._wrong(field, "an object", value)
        return Message(f"{self.where}: {field}", cast("dict[str, object]", value))

    def _wrong(self, field: str, expected: str, value: object) -> UnreachableError:
        return UnreachableError(f"{self.where}: {field}: expected {expected}, got {value!r:.80}")
