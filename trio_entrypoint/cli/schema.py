"""`trio-entrypoint schema`: the configuration file as a JSON Schema, for editors.

msgspec makes schemas of attrs classes, but not of a choice of several, which a file has
(`stdout` is a word, a `LogFile` or a `LogLines`).
"""

import ast
import inspect
import json
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from trio_entrypoint.cli.hints import type_hints
from trio_entrypoint.cli.settings import Settings

__all__ = ["json_schema", "key_descriptions", "print_schema", "section_classes"]

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


def print_schema() -> int:
    """Print the JSON Schema of the file."""
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
    return 0


def json_schema() -> dict[str, Any]:
    """Make the JSON Schema (2020-12) of the file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration file of trio-entrypoint",
        "$ref": "#/$defs/Settings",
        "$defs": {cls.__name__: _table(cls) for cls in section_classes(Settings)},
    }


def _table(cls: type[Any]) -> dict[str, Any]:
    hints = type_hints(cls)
    descriptions = key_descriptions(cls)
    properties: dict[str, Any] = {}
    for field in attrs.fields(cls):
        key = _value(hints[field.name])
        if field.name in descriptions:
            key["description"] = descriptions[field.name]
        if isinstance(field.default, str | int | float):
            key["default"] = field.default
        properties[field.name] = key
    required = [field.name for field in attrs.fields(cls) if field.default is attrs.NOTHING]
    return {
        "type": "object",
        "description": " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split()),
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _value(hint: Any) -> dict[str, Any]:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        choices = [_value(choice) for choice in inner if choice is not type(None)]
        return choices[0] if len(choices) == 1 else {"anyOf": choices}
    if origin is Literal:
        return {"enum": list(inner)}
    if isinstance(hint, type) and attrs.has(hint):
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _value(inner[1])}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": _value(inner[0])}
    return {"type": _PLAIN[hint]}


def key_descriptions(cls: type[Any]) -> Mapping[str, str]:
    """Give the docstring below each attribute of a class, in one line each."""
    found = dict[str, str]()
    for base in reversed(cls.__mro__[:-1]):
        found |= _own_key_descriptions(base)
    return found


def _own_key_descriptions(cls: type[Any]) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    definition = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    found: dict[str, str] = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        match statement, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
            case _:
                pass
    return found


def section_classes(cls: type[Any]) -> list[type[Any]]:
    """Give a class of the file and all classes within it, in the order of the file."""
    found: dict[type[Any], None] = {cls: None}
    for hint in type_hints(cls).values():
        for inner in _mentioned(hint):
            if inner not in found:
                found |= dict.fromkeys(section_classes(inner))
    return list(found)


def _mentioned(hint: Any) -> Iterator[type[Any]]:
    if isinstance(hint, type) and attrs.has(hint):
        yield hint
    for inner in get_args(hint):
        yield from _mentioned(inner)
