"""The client's side of the control socket: plain blocking calls.

It runs without Trio on purpose: `status` and `wait-ready` are run by probes and scripts, and
importing Trio would take most of their time.
"""

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from trio_entrypoint.cli.mistakes import EX_USAGE
from trio_entrypoint.cli.protocol import (
    MAX_RESPONSE,
    ProtocolError,
    encode_request,
    parse_response,
)

__all__ = ["ClientError", "request"]

# The names of sysexits.h.
EX_UNAVAILABLE, EX_TEMPFAIL, EX_PROTOCOL, EX_NOPERM = 69, 75, 76, 77

_STATUSES = {
    "unknown-service": EX_USAGE,
    "bad-request": EX_PROTOCOL,
    "wrong-version": EX_PROTOCOL,
    "busy": EX_TEMPFAIL,
    "timeout": EX_TEMPFAIL,
    "forbidden": EX_NOPERM,
}

_ANSWER_WITHIN = 10.0


class ClientError(Exception):
    """The entrypoint could not be asked, or it refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def request(
    path: str,
    command: str,
    arguments: Mapping[str, object],
    *,
    within: float | None = None,
    listening_within: float = 0.0,
) -> Iterator[object]:
    """Ask the entrypoint that listens at `path`, and give the items of its answer.

    Args:
        path: The control socket.
        command: One of `protocol.COMMANDS`.
        arguments: What the command takes.
        within: Seconds to wait for each item; None for a command that may be silent for long.
        listening_within: Seconds to wait for an entrypoint to listen there at all.

    Raises:
        ClientError: With the exit status that the command line gives.
    """
    with _connect(path, listening_within) as connection:
        try:
            with suppress(BrokenPipeError):  # refused unread: why is there to be read
                connection.sendall(encode_request(command, arguments))
            connection.settimeout(within)
            with connection.makefile("rb") as lines:
                while True:
                    line = lines.readline(MAX_RESPONSE + 1)
                    if not line.endswith(b"\n"):
                        raise ClientError(EX_UNAVAILABLE, _lost(path, line))
                    value = parse_response(line)
                    if value is StopIteration:
                        return
                    yield value
        except ProtocolError as error:
            raise ClientError(_STATUSES.get(error.code, 1), str(error)) from None
        except TimeoutError:
            raise ClientError(
                EX_TEMPFAIL, f"{path}: no answer within {within or _ANSWER_WITHIN:g} s"
            ) from None
        except OSError as error:
            raise ClientError(EX_UNAVAILABLE, f"{path}: {error.strerror}") from None


def _connect(path: str, listening_within: float) -> socket.socket:
    began = time.monotonic()
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_ANSWER_WITHIN)
        try:
            connection.connect(path)
        except BlockingIOError:  # its backlog is full: the one case where connecting waits
            patience = _ANSWER_WITHIN
            status, message = EX_TEMPFAIL, "the entrypoint is too busy"
        except PermissionError:
            patience = 0.0
            status, message = EX_NOPERM, "no permission: be root, or the entrypoint's user"
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            patience, status = listening_within, EX_UNAVAILABLE
            message = (
                "no entrypoint listens there; --socket or TRIO_ENTRYPOINT_SOCKET says where one "
                "does, and an entrypoint listens only with --control or [control]"
            )
        except OSError as error:
            patience, status, message = 0.0, EX_UNAVAILABLE, str(error)
        else:
            return connection
        connection.close()
        if time.monotonic() - began < patience:
            time.sleep(0.05)
            continue
        raise ClientError(status, f"{path}: {message}")


def _lost(path: str, line: bytes) -> str:
    if len(line) > MAX_RESPONSE:
        return f"{path}: an answer of more than {MAX_RESPONSE} bytes"
    return f"{path}: the entrypoint ended, or it dropped this client for being too slow"
