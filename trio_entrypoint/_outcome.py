"""How an entrypoint ends: the exit status, and why, in words for people.

Exit statuses are those of shells: the application's code, 128+n if signal n ended it, 127
and 126 for a command that does not exist or cannot be executed. Any exception can say which
it wants, by an attribute `exit_code`.
"""

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import cast

import attrs

from trio_entrypoint.handlers import ExitStatus

MESSAGE_LIMIT = 4096
"""Bytes that Kubernetes reads of a termination message."""


@attrs.frozen
class Outcome:
    """How an entrypoint ends."""

    status: int
    reason: str


def of_result(result: ExitStatus | int | None) -> Outcome:
    """The outcome of an entrypoint that returned something."""
    if isinstance(result, ExitStatus):
        return Outcome(result.shell_code, f"the application ended: {result}")
    return Outcome(result or 0, f"the entrypoint returned {result}")


def of_error(error: BaseException) -> Outcome:
    """The outcome of an entrypoint that raised something, which is printed.

    An exception that knows its exit status explains itself: its message is enough. All
    others are printed with their traceback.
    """
    causes = list(_causes(error))
    statuses = [status for cause in causes if (status := _status(cause)) is not None]
    if len(statuses) < len(causes):
        traceback.print_exception(error)
    program = os.path.basename(sys.argv[0])
    reasons: list[str] = []
    for cause in causes:
        if isinstance(cause, SystemExit):
            words = cause.code if isinstance(cause.code, str) else None
            if words is not None:
                print(words, file=sys.stderr)  # noqa: T201 - as `sys.exit(message)` does
            reasons.append(words or f"the entrypoint exited with {_status(cause)}")
        elif _status(cause) is not None:
            print(f"{program}: {cause}", file=sys.stderr)  # noqa: T201
            reasons.append(str(cause))
        else:
            reasons.append("".join(traceback.format_exception_only(cause)).strip())
    return Outcome(statuses[0] if statuses else 1, "; ".join(reasons))


def write_message(path: str, outcome: Outcome, last_lines: Sequence[str]) -> None:
    """Write a termination message: why, the status, the last lines of output.

    Raises:
        OSError: It cannot be written.
    """
    head = f"{outcome.reason}\nexit status {outcome.status}\n".encode(errors="backslashreplace")
    tail = "".join(f"{line}\n" for line in last_lines).encode(errors="backslashreplace")
    head = head[:MESSAGE_LIMIT]
    room = MESSAGE_LIMIT - len(head)
    with open(path, "wb") as file:
        file.write(head + (tail[-room:] if room else b""))


def _status(cause: BaseException) -> int | None:
    if isinstance(cause, SystemExit):
        if cause.code is None:
            return 0
        return cause.code if isinstance(cause.code, int) else 1
    code = getattr(cause, "exit_code", None)
    return code if isinstance(code, int) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _causes(inner)
    else:
        yield error
