"""What is wrong with a configuration: every mistake, each in one line that helps to mend it."""

import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

__all__ = [
    "EX_USAGE",
    "KeyPath",
    "Mistake",
    "UsageError",
    "complain",
    "did_you_mean",
    "dotted",
    "is_bare",
]

EX_USAGE = 64
"""The exit status for a wrong command line or file, as sysexits.h names it."""

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value is: the keys of its tables, and positions in arrays."""


class Mistake(NamedTuple):
    """One thing that is wrong, and where."""

    path: KeyPath
    message: str
    file: str = ""
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, dotted(self.path), self.message) if part)


class UsageError(Exception):
    """The command line or the configuration file is wrong; nothing was started."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


def dotted(path: KeyPath) -> str:
    """Write a path as TOML would: `service.web.command[0]`."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += ("." if text else "") + (key if is_bare(key) else f'"{key}"')
    return text


def is_bare(key: str) -> bool:
    """Whether a key needs no quotes in TOML."""
    return key.isascii() and key.replace("-", "").replace("_", "").isalnum()


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say which known name is meant, or which there are."""
    from difflib import get_close_matches

    known = sorted(known)
    matches = get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    if not matches:
        by_lower = {other.lower(): other for other in known}
        matches = [by_lower[match] for match in get_close_matches(name.lower(), by_lower, 1, 0.6)]
    if matches:
        return f'did you mean "{matches[0]}"?'
    return "expected one of: " + ", ".join(known)


def complain(message: str) -> None:
    """Say on standard error, in one line, what is wrong."""
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in message)
    sys.stderr.write(f"trio-entrypoint: {line}\n")
