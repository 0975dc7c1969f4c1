"""The commands that talk to a running entrypoint: ask, print, and exit with a status."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from typing import Any, cast

from trio_entrypoint.cli.client import ClientError, request
from trio_entrypoint.cli.flags import DEFAULT_SOCKET, SOCKET_VARIABLE
from trio_entrypoint.cli.mistakes import complain
from trio_entrypoint.cli.table import printable, render_table

__all__ = ["operate"]

_CLEAR = "\x1b[H\x1b[J"


def operate(command: str, options: Mapping[str, Any]) -> int:
    """Carry out one command against the entrypoint, and give the exit status."""
    path = options["socket"] or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
    follow = bool(options.get("follow") or options.get("watch"))
    arguments: dict[str, object] = {"services": options["services"]}
    for name in ("lines", "signal", "timeout"):
        if options.get(name) is not None:
            arguments[name] = options[name]
    if follow:
        arguments["follow"] = True
    # What waits for the services waits as long as they take; all else is answered at once.
    patient = follow or command == "wait-ready"
    # Who waits for services waits for their entrypoint, too.
    patience = options["timeout"] or 0.0 if command == "wait-ready" else 0.0
    items = request(
        path,
        command,
        arguments,
        within=None if patient else 10.0,
        listening_within=patience,
    )
    try:
        _show(command, items, options)
    except ClientError as error:
        complain(str(error))
        return error.status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _show(command: str, items: Iterable[object], options: Mapping[str, Any]) -> None:
    terminal = sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR")
    for item in items:
        value = cast("Mapping[str, Any]", item)
        if options.get("json"):
            text = json.dumps(value)
        elif options.get("names"):
            text = "\n".join(service["name"] for service in value["services"])
        elif command == "status":
            text = render_table(value["services"], colour=colour)
            if options["watch"] and terminal:
                text = _CLEAR + text
        elif command == "history":
            text = _generation(value)
        else:
            text = _entry(value)
        print(text, flush=True)  # noqa: T201


def _entry(entry: Mapping[str, Any]) -> str:
    known = ("timestamp", "level", "logger", "event", "service")
    fields = " ".join(
        f"{key}={printable(str(value))}"
        for key, value in entry.items()
        if key not in known and value is not None
    )
    service = f"[{printable(str(entry['service']))}] " if entry.get("service") else ""
    event = printable(str(entry.get("event", "")))
    return f"{entry.get('timestamp')} {service}{event} {fields}".rstrip()


def _generation(generation: Mapping[str, Any]) -> str:
    number = generation.get("generation")
    head = f"generation {number}" if number is not None else "refused"
    text = f"{generation['timestamp']} [{printable(generation['service'])}] {head}"
    if generation.get("error"):
        text += f": {printable(generation['error'])}"
    marks = {"created": "+", "modified": "~", "deleted": "-"}
    for path, modification in cast("dict[str, str]", generation.get("changed", {})).items():
        text += f"\n    {marks.get(modification, '?')} {printable(path)}"
    return text
