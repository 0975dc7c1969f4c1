"""The table that `status` prints, made of the answer's plain values."""

import time
from collections.abc import Mapping, Sequence

__all__ = ["render_table"]

_BOLD, _DIM, _RED, _GREEN, _YELLOW, _OFF = (
    "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m",
)  # fmt: skip

_COLOURS = {
    "ready": _GREEN,
    "running": _GREEN,
    "completed": _GREEN,
    "starting": _YELLOW,
    "stopping": _YELLOW,
    "updating": _YELLOW,
    "backoff": _RED,
    "unhealthy": _RED,
    "gave up": _RED,
}

_COLUMNS = (
    "SERVICE", "STATE", "ACTIVATION", "CONFIGURATION", "PID", "UP", "RESTARTS", "GENERATION",
    "LAST CHANGE",
)  # fmt: skip


def render_table(
    services: Sequence[Mapping[str, object]], *, colour: bool, now: float | None = None
) -> str:
    """Write one line for each service, and one more for a service with an error.

    Args:
        services: The services of a status.
        colour: Whether to use the escape sequences of a terminal.
        now: The time that durations are counted to, as `time.time()` gives it.
    """
    now = time.time() if now is None else now
    rows = [_COLUMNS, *(_row(service, now) for service in services)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines: list[str] = []
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if colour and number == 0:
            cells = [f"{_BOLD}{cell}{_OFF}" for cell in cells]
        elif colour:
            cells[1] = f"{_COLOURS.get(row[1], '')}{cells[1]}{_OFF}"
        lines.append("  ".join(cells).rstrip())
        if number and (error := services[number - 1].get("last_error")):
            when = services[number - 1].get("last_error_at")
            ago = f", {_ago(now - when)} ago" if isinstance(when, int | float) else ""
            text = f"  last error: {printable(str(error))}{ago}"
            lines.append(f"{_RED}{text}{_OFF}" if colour else text)
    return "\n".join(lines)


def _row(service: Mapping[str, object], now: float) -> tuple[str, ...]:
    up, changed = service.get("up_since"), service.get("changed_at")
    change = service.get("last_change")
    return (
        printable(str(service.get("name", ""))),
        str(service.get("state", "")),
        str(service.get("activation") or "-"),
        str(service.get("configuration") or "-"),
        _or_dash(service.get("pid")),
        _ago(now - up) if isinstance(up, int | float) else "-",
        _or_dash(service.get("restarts")),
        _or_dash(service.get("generation")),
        f"{printable(str(change))}, {_ago(now - changed)} ago"
        if change and isinstance(changed, int | float)
        else "-",
    )


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _ago(seconds: float) -> str:
    seconds = max(0, int(seconds))
    for length, unit, smaller, part in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if seconds >= length:
            rest = seconds % length // smaller
            return f"{seconds // length}{unit}" + (f" {rest}{part}" if rest else "")
    return f"{seconds}s"


def printable(text: str) -> str:
    """Show control characters instead of obeying them: a name or an error may be anybody's."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
