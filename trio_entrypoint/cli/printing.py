"""Writes settings as TOML: what `run --print-config` shows, and `run -f` reads again."""

import json
from collections.abc import Mapping
from typing import Any, cast

import attrs

from trio_entrypoint.cli.mistakes import is_bare
from trio_entrypoint.cli.settings import Settings

__all__ = ["to_toml"]


def to_toml(settings: Settings) -> str:
    """Write the whole configuration, defaults included."""
    return "\n".join(_table((), _plain(settings))).lstrip("\n") + "\n"


def _plain(value: object) -> object:
    cls: Any = type(value)
    if attrs.has(cls):
        names = [field.name for field in attrs.fields(cls)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in cast("Mapping[str, object]", value).items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in cast("tuple[object, ...]", value)]
    return value


def _table(path: tuple[str, ...], value: object) -> list[str]:
    table = cast("dict[str, object]", value)
    inner: dict[str, object] = {
        key: cast("object", item) for key, item in table.items() if isinstance(item, dict)
    }
    leaves = [
        f"{_key(key)} = {_value(item)}"
        for key, item in table.items()
        if key not in inner and item is not None
    ]
    lines = ["", f"[{'.'.join(map(_key, path))}]"] if path and (leaves or not inner) else []
    lines += leaves
    for key, item in inner.items():
        lines += _table((*path, key), item)
    return lines


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _string(value)
        case list():
            return f"[{', '.join(map(_value, cast('list[object]', value)))}]"
        case dict():
            pairs = cast("dict[str, object]", value).items()
            inner = [f"{_key(key)} = {_value(item)}" for key, item in pairs if item is not None]
            return f"{{ {', '.join(inner)} }}"
        case _:
            return str(value)


def _key(key: str) -> str:
    return key if is_bare(key) else _quoted(key)


def _string(value: str) -> str:
    return _quoted(value.replace("${", "$${"))


def _quoted(text: str) -> str:
    # TOML's strings are JSON's, but for this one character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
