"""The control protocol, version 1: what goes over the socket, and no input or output.

One connection carries one request. Both directions are lines of JSON (UTF-8, one object a
line). The client sends::

    {"version": 1, "command": "signal", "services": ["web"], "signal": "SIGUSR1"}

and the server answers with any number of items and one end, or with one error::

    {"version": 1, "type": "item", "value": …}
    {"version": 1, "type": "end"}
    {"version": 1, "type": "error", "code": "unknown-service", "message": "…"}

`COMMANDS` lists the commands and what each of them takes. A server refuses what it does not
know (a command, an argument, a version) instead of guessing, and a client must ignore members
of a value that it does not know: that is how version 1 may grow.
"""

import json
from collections.abc import Mapping
from sys import float_info
from types import MappingProxyType
from typing import Literal, TypeAlias, TypeGuard, cast

__all__ = [
    "COMMANDS",
    "MAX_REQUEST",
    "MAX_RESPONSE",
    "VERSION",
    "ErrorCode",
    "ProtocolError",
    "Request",
    "encode_end",
    "encode_error",
    "encode_item",
    "encode_request",
    "parse_request",
    "parse_response",
]

VERSION = 1

MAX_REQUEST = 64 * 1024
"""Bytes of a request's line, its newline included; a longer one is refused unread."""

MAX_RESPONSE = 16 * 1024 * 1024
"""Bytes of a response's line that a client reads at most."""

ErrorCode: TypeAlias = Literal[
    "bad-request", "wrong-version", "unknown-service", "refused", "timeout", "busy", "forbidden"
]

_Check: TypeAlias = Literal["strings", "string", "count", "flag", "seconds"]

COMMANDS: Mapping[str, Mapping[str, _Check]] = MappingProxyType(
    {
        "status": {"services": "strings", "follow": "flag"},
        "start": {"services": "strings"},
        "stop": {"services": "strings"},
        "restart": {"services": "strings"},
        "reload": {"services": "strings"},
        "rollback": {"services": "strings"},
        "signal": {"services": "strings", "signal": "string"},
        "logs": {"services": "strings", "follow": "flag", "lines": "count"},
        "events": {"services": "strings", "follow": "flag", "lines": "count"},
        "history": {"services": "strings"},
        "wait-ready": {"services": "strings", "timeout": "seconds"},
    }
)
"""Each command, and the arguments that it takes; every argument may be left out."""

_EXPECTED: Mapping[_Check, str] = {
    "strings": "a list of names",
    "string": "a string",
    "count": "a whole number, not negative",
    "flag": "true or false",
    "seconds": "a number of seconds, not negative",
}


class ProtocolError(Exception):
    """A line that does not follow the protocol, or an error that the server answered with."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: ErrorCode = code


class Request:
    """One valid request."""

    def __init__(self, command: str, arguments: Mapping[str, object]) -> None:
        self.command = command
        self.services: list[str] = cast("list[str]", arguments.get("services", []))
        self.follow: bool = bool(arguments.get("follow", False))
        self.lines: int = cast("int", arguments.get("lines", 100))
        self.signal: str = cast("str", arguments.get("signal", ""))
        self.timeout: float | None = cast("float | None", arguments.get("timeout"))


def parse_request(line: bytes) -> Request:
    """Check one line from a client, who may be anybody.

    Raises:
        ProtocolError: With a message for the client's user.
    """
    members = _parse_object(line)
    _check_version(members.pop("version", None))
    command = members.pop("command", None)
    if not isinstance(command, str) or command not in COMMANDS:
        raise ProtocolError(
            "bad-request", f"unknown command {command!r}; there are: {', '.join(COMMANDS)}"
        )
    checks = COMMANDS[command]
    for name, value in members.items():
        check = checks.get(name)
        if check is None:
            raise ProtocolError("bad-request", f"{command} does not take {name!r}")
        if not _passes(check, value):
            raise ProtocolError(
                "bad-request", f"{command}: {name} must be {_EXPECTED[check]}, not {value!r:.80}"
            )
    return Request(command, members)


def parse_response(line: bytes) -> object:
    """Give the value of an item, or `StopIteration` (the class) for the end.

    Raises:
        ProtocolError: The server answered with an error, or not in this protocol.
    """
    members = _parse_object(line)
    match members.get("type"):
        case "error":  # of whatever version: it may be about the version
            code, message = members.get("code"), members.get("message")
            raise ProtocolError(cast("ErrorCode", code), str(message))
        case "item":
            _check_version(members.get("version"))
            return members.get("value")
        case "end":
            _check_version(members.get("version"))
            return StopIteration
        case other:
            raise ProtocolError("bad-request", f"unknown type of response {other!r:.80}")


def encode_request(command: str, arguments: Mapping[str, object]) -> bytes:
    """Make a request's line."""
    return _encode({"command": command, **arguments})


def encode_item(value: object) -> bytes:
    """Make the line that carries one value."""
    return _encode({"type": "item", "value": value})


def encode_end() -> bytes:
    """Make the line that ends an answer."""
    return _encode({"type": "end"})


def encode_error(error: ProtocolError) -> bytes:
    """Make the line that refuses a request."""
    return _encode({"type": "error", "code": error.code, "message": str(error)})


def _encode(members: Mapping[str, object]) -> bytes:
    return json.dumps({"version": VERSION, **members}, separators=(",", ":")).encode() + b"\n"


def _parse_object(line: bytes) -> dict[str, object]:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("bad-request", f"not a line of JSON: {error}") from None
    if not isinstance(value, dict):
        raise ProtocolError("bad-request", "not a JSON object")
    return cast("dict[str, object]", value)


def _check_version(version: object) -> None:
    if version != VERSION or isinstance(version, bool):
        raise ProtocolError(
            "wrong-version", f"version {VERSION} is spoken here, not {version!r:.40}"
        )


def _passes(check: _Check, value: object) -> bool:
    match check:
        case "strings":
            return _is_list(value) and all(isinstance(item, str) for item in value)
        case "string":
            return isinstance(value, str)
        case "flag":
            return isinstance(value, bool)
        case "count":
            return isinstance(value, int) and not isinstance(value, bool) and value >= 0
        case "seconds":  # JSON as Python reads it has NaN, and integers that no float can hold
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
            return 0 <= value <= float_info.max


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)
