"""Reads a configuration file and its drop-ins into one tree of plain values.

`FILE` is read first, then every `*.toml` of the directory `FILE.d` (`/etc/entrypoint.toml` has
`/etc/entrypoint.toml.d/`), sorted by name. A later file adds to the tables of the earlier ones;
any other value, arrays included, replaces the earlier one.

In strings, `${NAME}` stands for a variable of the environment and `${NAME:-default}` for one
that may be missing or empty; `$${` is a literal `${`. A `$` that no brace follows is left as it
is. A string that was made in this way may stand where a number or a boolean is expected.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import cast

from trio_entrypoint.cli.mistakes import KeyPath, Mistake, UsageError

__all__ = ["Expanded", "Source", "Unknown", "expand", "load", "merge"]

MAX_SIZE = 4 * 1024 * 1024

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:-(.*))?", re.DOTALL)


class Expanded(str):
    """A string with a variable's value in it: it may stand for a number or a boolean."""

    __slots__ = ()


class Unknown(str):
    """Stands for a value that is wrong: that is said already, and nothing more about it."""

    __slots__ = ()


class Source:
    """One file that was read: finds the line of a key when there is something to say about it."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.mistakes: list[Mistake] = []
        """What is wrong with its variables."""
        self._text = text
        self._lines: dict[KeyPath, int] | None = None

    def line(self, path: KeyPath) -> int | None:
        """The line where the value at a path is set; None when this file does not set it.

        For a value inside an inline table or an array it is the line where that starts.
        """
        if self._lines is None:
            self._lines = {}
            for key, number in _key_lines(self._text):
                self._lines.setdefault(key, number)
        keys = path
        while keys:
            if keys in self._lines:
                return self._lines[keys]
            keys = keys[:-1]
        return None


def load(
    file: str, environment: Mapping[str, str] = os.environ
) -> tuple[dict[str, object], list[Source]]:
    """Read a file and its drop-ins, and put the variables in.

    Raises:
        UsageError: Files cannot be read or are not TOML. What is wrong with variables waits in
            the sources for `check`, which tells it together with everything else.
    """
    names = [file]
    directory = f"{file}.d"
    mistakes: list[Mistake] = []
    try:
        entries = sorted(os.listdir(directory))
    except FileNotFoundError:
        entries = []
    except OSError as error:
        entries = []
        mistakes.append(_unreadable(directory, error))
    # Names that start with a dot are an editor's, or the links of a mounted ConfigMap.
    names += [
        os.path.join(directory, name)
        for name in entries
        if name.endswith(".toml") and not name.startswith(".")
    ]

    tree: dict[str, object] = {}
    sources: list[Source] = []
    for name in names:
        try:
            text = _read(name)
            parsed: dict[str, object] = tomllib.loads(text)
        except OSError as error:
            mistakes.append(_unreadable(name, error))
        except UnicodeDecodeError as error:
            mistakes.append(Mistake((), f"not UTF-8: {error}", name))
        except tomllib.TOMLDecodeError as error:
            mistakes.append(_not_toml(name, error))
        except ValueError as error:  # a number of thousands of digits
            mistakes.append(Mistake((), f"not TOML: {error}", name))
        except RecursionError:
            mistakes.append(Mistake((), "nested too deeply", name))
        else:
            source = Source(name, text)
            sources.append(source)
            expanded = expand(parsed, environment, source)
            tree = merge(tree, cast("dict[str, object]", expanded))
    if mistakes:
        raise UsageError(mistakes)
    return tree, sources


def merge(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Lay one tree over another: tables are joined, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        former = merged.get(key)
        if isinstance(former, dict) and isinstance(value, dict):
            merged[key] = merge(
                cast("dict[str, object]", former), cast("dict[str, object]", value)
            )
        else:
            merged[key] = value
    return merged


def expand(
    value: object,
    environment: Mapping[str, str],
    source: Source,
    path: KeyPath = (),
) -> object:
    """Put the variables into every string of a tree; keys are left as they are.

    What is wrong is told and left out: a number of more than 64 bits, a string with a NUL.
    """
    match value:
        case dict():
            table = cast("dict[str, object]", value)
            for key in table:
                if "\0" in key:
                    _tell(source, (*path, key), "a key contains a NUL")
            return {
                key: expand(inner, environment, source, (*path, key))
                for key, inner in table.items()
            }
        case list():
            items = cast("list[object]", value)
            return [
                expand(inner, environment, source, (*path, index))
                for index, inner in enumerate(items)
            ]
        case str() if "\0" in value:
            return _tell(source, path, "contains a NUL, which no path, word or variable can")
        case str() if "${" in value:
            try:
                text = _VARIABLE.sub(lambda found: _value(found, environment), value)
            except ValueError as error:
                return _tell(source, path, str(error))
            return Expanded(text)
        case int() if not -(2**63) <= value < 2**63:
            return _tell(source, path, "expected a whole number of at most 64 bits")
        case _:
            return value


def _tell(source: Source, path: KeyPath, message: str) -> Unknown:
    source.mistakes.append(Mistake(path, message, source.name, source.line(path)))
    return Unknown()


def _value(found: re.Match[str], environment: Mapping[str, str]) -> str:
    if found[0] == "$${":
        return "${"
    parts = _NAME.fullmatch(found[1])
    if parts is None or not found[0].endswith("}"):
        raise ValueError(
            f"{found[0]!r} is not a variable: write ${{NAME}} or ${{NAME:-default}}, "
            "and $${ for a literal ${"
        )
    name, has_default, default = parts.groups()
    if has_default is not None:
        return environment.get(name) or default
    if name not in environment:
        raise ValueError(f"the variable {name} is not set; ${{{name}:-…}} gives it a default")
    return environment[name]


def _read(name: str) -> str:
    with open(name, "rb") as file:
        contents = file.read(MAX_SIZE + 1)
    if len(contents) > MAX_SIZE:
        raise OSError(f"larger than {MAX_SIZE} bytes")
    return contents.decode()


def _unreadable(name: str, error: OSError) -> Mistake:
    return Mistake((), f"cannot be read: {error.strerror or error}", name)


def _not_toml(name: str, error: tomllib.TOMLDecodeError) -> Mistake:
    # Its message ends with '(at line 3, column 5)', or with '(at end of document)'.
    found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
    message = str(error)[: found.start()] if found else str(error)
    if found and found[1]:
        return Mistake((), f"not TOML: {message}", name, int(found[1]))
    where = " at the end of the file" if found else ""
    return Mistake((), f"not TOML: {message}{where}", name)


def _key_lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Find where keys are set, in a text that is known to be right.

    A line that looks like a key inside a string of several lines is found too; it can only
    make a message name another line.
    """
    table: KeyPath = ()
    positions: dict[KeyPath, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            header = stripped.split("#")[0].strip()
            table = _keys(header)
            if header.startswith("[["):
                positions[table] = positions.get(table, -1) + 1
                table = (*table, positions[table])
            yield table, number
        elif "=" in stripped:
            keys = _keys(stripped.split("=")[0] + "= 0")
            for length in range(len(keys)):
                yield (*table, *keys[: length + 1]), number


def _keys(text: str) -> KeyPath:
    try:
        value: object = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return ()
    keys: list[str] = []
    while isinstance(value, dict | list):
        if isinstance(value, list):
            value = cast("list[object]", value)[0]
            continue
        key, value = next(iter(cast("dict[str, object]", value).items()), (None, None))
        if key is not None:
            keys.append(key)
    return tuple(keys)
