"""How single values are written in the configuration file, and their rules as attrs validators."""

import signal as signals
from collections.abc import Mapping
from typing import Any

import attrs

from trio_entrypoint._linux.early import FORWARDABLE, STOP_SIGNALS
from trio_entrypoint.cli.mistakes import did_you_mean
from trio_entrypoint.commands import Command
from trio_entrypoint.policies import ChangeAction, Ignore, Reload, Restart

__all__ = [
    "Action",
    "Words",
    "action",
    "address",
    "are_actions",
    "are_signals",
    "command",
    "exactly_one",
    "is_action",
    "is_address",
    "is_command",
    "is_error_output",
    "is_input",
    "is_mode",
    "is_output",
    "is_signal",
    "like",
    "mode_bits",
    "signal_number",
]

Words = tuple[str, ...]
"""A command, word by word."""

Action = str | Words
"""`"restart"`, `"ignore"`, the name of a signal, or the words of a command."""


def signal_number(name: str | int) -> int:
    """Give the number of a signal: `"SIGHUP"`, `"hup"`, `"SIGRTMIN+3"`, `"1"` or 1.

    Raises:
        ValueError: There is no such signal.
    """
    text = str(name).upper()
    base, _, offset = text.partition("+")
    full = base if base.startswith("SIG") else f"SIG{base}"
    names = signals.Signals.__members__
    number = -1
    if base.isascii() and base.isdecimal() and not offset:
        number = int(base)
    elif full in names and (not offset or (full == "SIGRTMIN" and offset.isdecimal())):
        number = names[full] + int(offset or 0)
    if number not in signals.valid_signals():
        raise ValueError(f'"{name}" is not a signal; {did_you_mean(full, names)}')
    return number


def address(value: int | str, default_host: str) -> tuple[str, int]:
    """Split `host:port`, `[v6]:port`, `:port` or a port.

    Raises:
        ValueError: It is none of these.
    """
    host, colon, port = str(value).rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    number = int(port) if port.isascii() and port.isdecimal() else -1
    if not 0 < number < 65536 or (":" in host and not bracketed) or (colon and " " in host):
        raise ValueError(f'"{value}" is no address: expected host:port, [host]:port or :port')
    return (host[1:-1] if bracketed else host) or default_host, number


def action(value: Action) -> ChangeAction:
    """Make the action that a word, a signal's name or a command stands for.

    Raises:
        ValueError: It is none of these.
    """
    match value:
        case "restart":
            return Restart()
        case "ignore":
            return Ignore()
        case str():
            try:
                return Reload(signal_number(value))
            except ValueError:
                raise ValueError(
                    f'"{value}" is no action: expected "restart", "ignore", a signal such as '
                    '"SIGHUP", or a command as an array'
                ) from None
        case _:
            return Reload(Command(value))


def command(value: Command | Words, timeout: float | None = None) -> Command:
    """Make a command of its words, with a timeout in seconds if it has none of its own."""
    if isinstance(value, Command):
        return value
    return Command(value) if timeout is None else Command(value, timeout=timeout)


def is_command(_instance: object, _attribute: object, value: Words) -> None:
    """Check the words of a command, as a validator of attrs."""
    if not value or not value[0]:
        raise ValueError("expected a program and its arguments, and there is no program")


def is_signal(_instance: object, _attribute: object, value: str | int) -> None:
    """Check the name or number of a signal, as a validator of attrs."""
    signal_number(value)


def is_input(_instance: object, _attribute: object, value: str) -> None:
    """Check where input comes from, as a validator of attrs."""
    _is_stream(value, ("null", "inherit"))


def is_output(_instance: object, _attribute: object, value: object) -> None:
    """Check where output goes to, as a validator of attrs."""
    if isinstance(value, str):
        _is_stream(value, ("null", "inherit", "lines"))


def is_error_output(_instance: object, _attribute: object, value: object) -> None:
    """Check where standard error goes to, as a validator of attrs."""
    if isinstance(value, str):
        _is_stream(value, ("null", "inherit", "lines", "stdout"))


def _is_stream(value: str, words: tuple[str, ...]) -> None:
    # A misspelt word must not become the name of a file.
    if value not in words and "/" not in value:
        known = ", ".join(f'"{word}"' for word in words)
        raise ValueError(f'"{value}" is neither a path with a slash nor one of {known}')


def is_mode(_instance: object, _attribute: object, value: str) -> None:
    """Check mode bits in octal, as a validator of attrs."""
    digits = value.isascii() and value.isdecimal() and not set(value) & {"8", "9"}
    if not digits or int(value, 8) > 0o777:
        raise ValueError(f'expected mode bits in octal such as "0640", not "{value}"')


def mode_bits(mode: str | None) -> int | None:
    """Give the number of mode bits that are written in octal."""
    return None if mode is None else int(mode, 8)


def is_address(_instance: object, _attribute: object, value: str | int) -> None:
    """Check an address, as a validator of attrs."""
    address(value, "")


def is_action(_instance: object, _attribute: object, value: Action) -> None:
    """Check an action, as a validator of attrs."""
    action(value)


def are_actions(
    _instance: object, attribute: object, value: Action | Mapping[str, Action]
) -> None:
    """Check an action, or a table of them, as a validator of attrs."""
    for one in value.values() if isinstance(value, Mapping) else (value,):
        is_action(None, attribute, one)


def are_signals(_instance: object, _attribute: object, value: Mapping[str, str]) -> None:
    """Check what signals become, as a validator of attrs."""
    for name, becomes in value.items():
        number = signal_number(name)
        if number in STOP_SIGNALS:
            raise ValueError(f'"{name}" stops the entrypoint; a service gets its stop_signal')
        if number not in FORWARDABLE:
            raise ValueError(f'"{name}" is not a signal that an entrypoint could be sent')
        if becomes not in ("forward", "ignore", "reload"):
            signal_number(becomes)


def like(cls: type[Any], name: str) -> Any:
    """Make a field with the default and the rule that the library's own value has."""
    field: attrs.Attribute[Any] = attrs.fields_dict(cls)[name]
    return attrs.field(default=field.default, validator=field.validator)


def exactly_one(instance: object, names: tuple[str, ...]) -> None:
    """Check that one of these attributes is given, and no other of them."""
    given = [name for name in names if getattr(instance, name) is not None]
    if len(given) != 1:
        said = f"not {' and '.join(given)}" if given else "and there is none"
        raise ValueError(f"takes exactly one of {', '.join(names)}, {said}")
