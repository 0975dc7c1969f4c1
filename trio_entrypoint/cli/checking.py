"""Checks a tree of plain values against attrs classes, and finds every mistake at once.

`msgspec.convert` stops at the first mistake, so the tree is walked here, table by table, and
msgspec converts the single values. It is loaded only for a value that is not of the right type
as it is: what the command line gives is.

The classes are the library's own wherever a section of the file is one of its values: its
validators are the file's rules.
"""

import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs

from trio_entrypoint.cli.hints import type_hints
from trio_entrypoint.cli.loading import Expanded, Source, Unknown
from trio_entrypoint.cli.mistakes import KeyPath, Mistake, UsageError, did_you_mean

__all__ = ["check"]

T = TypeVar("T")


def check(cls: type[T], tree: Mapping[str, object], sources: Sequence[Source] = ()) -> T:
    """Build an attrs class, and the classes within it, from a tree of plain values.

    Raises:
        UsageError: With every mistake in the tree.
    """
    checker = _Checker(sources)
    value = checker.table(cls, tree, ())
    mistakes = checker.mistakes + [known for source in sources for known in source.mistakes]
    if mistakes:
        raise UsageError(sorted(mistakes, key=lambda mistake: (mistake.file, mistake.line or 0)))
    return cast("T", value)


class _Wrong:
    """Stands for a value whose mistakes are already noted."""


_WRONG = _Wrong()


class _Checker:
    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.mistakes: list[Mistake] = []

    def wrong(self, path: KeyPath, message: str) -> _Wrong:
        # The last file that sets the value is the one that counts.
        for source in reversed(self._sources):
            line = source.line(path)
            if line is not None:
                self.mistakes.append(Mistake(path, message, source.name, line))
                return _WRONG
        self.mistakes.append(Mistake(path, message))
        return _WRONG

    def table(self, cls: type[Any], value: object, path: KeyPath) -> object:
        if not isinstance(value, Mapping):
            return self.wrong(path, f"expected a table, not {_describe(value)}")
        tree = cast("Mapping[str, object]", value)
        hints = type_hints(cls)
        fields = {field.alias or field.name: field for field in attrs.fields(cls) if field.init}
        wrong = False
        for key in tree:
            if key not in fields:
                wrong = True
                self.wrong((*path, key), f"unknown key; {did_you_mean(key, fields)}")
        arguments: dict[str, object] = {}
        for key, field in fields.items():
            if key not in tree:
                if field.default is attrs.NOTHING:
                    wrong = True
                    self.wrong((*path, key), "is missing")
                continue
            converted = self.value(hints[field.name], tree[key], (*path, key))
            if not isinstance(converted, _Wrong):
                converted = self._validated(field, converted, (*path, key))
            arguments[key] = converted
        if wrong or _WRONG in arguments.values():
            return _WRONG
        try:
            return cls(**arguments)
        except (ValueError, TypeError) as error:  # what its fields have to keep together
            return self.wrong(path, _first_line(error))

    def value(self, hint: Any, value: object, path: KeyPath) -> object:
        """Convert a value to a type; a choice of several is settled by the value's kind."""
        if isinstance(value, Unknown):
            return _WRONG
        origin = get_origin(hint)
        if origin in (Union, types.UnionType):
            choices = [choice for choice in get_args(hint) if choice is not type(None)]
            return self._choice(choices, value, path)
        if isinstance(hint, type) and attrs.has(hint):
            return self.table(hint, value, path)
        if origin is not None and isinstance(origin, type):
            inner = get_args(hint)
            if issubclass(origin, Mapping):
                return self._entries(inner[1], value, path)
            if issubclass(origin, Sequence):
                items = self._items(inner[0], value, path)
                return list(items) if origin is list and isinstance(items, tuple) else items
        if origin is Literal:
            return self._one_of(get_args(hint), value, path)
        return self._leaf(hint, value, path)

    def _choice(self, choices: Sequence[Any], value: object, path: KeyPath) -> object:
        kinds = {
            "table": isinstance(value, Mapping),
            "array": isinstance(value, list | tuple),
            "string": isinstance(value, str),
        }
        kind = next((kind for kind, fits in kinds.items() if fits), "value")
        fitting = [choice for choice in choices if _kind(choice) == kind]
        if not fitting and isinstance(value, Expanded):
            fitting = [choice for choice in choices if _kind(choice) == "value"]
        if not fitting:
            expected = " or ".join(dict.fromkeys(map(_name, choices)))
            return self.wrong(path, f"expected {expected}, not {_describe(value)}")
        if len(fitting) == 1:
            return self.value(fitting[0], value, path)
        if kind == "table":  # the class that most of its keys are of
            keys = set(cast("Mapping[str, object]", value))
            return self.value(
                max(fitting, key=lambda choice: len(keys & set(_keys(choice)))), value, path
            )
        for choice in fitting[:-1]:
            converted = _Checker(()).value(choice, value, path)
            if not isinstance(converted, _Wrong):
                return converted
        return self.value(fitting[-1], value, path)

    def _entries(self, hint: Any, value: object, path: KeyPath) -> object:
        if not isinstance(value, Mapping):
            return self.wrong(path, f"expected a table, not {_describe(value)}")
        table = cast("Mapping[str, object]", value)
        converted = {key: self.value(hint, inner, (*path, key)) for key, inner in table.items()}
        return _WRONG if _WRONG in converted.values() else converted

    def _items(self, hint: Any, value: object, path: KeyPath) -> tuple[object, ...] | _Wrong:
        if not isinstance(value, list | tuple):
            return self.wrong(path, f"expected an array, not {_describe(value)}")
        items = cast("Sequence[object]", value)
        converted = tuple(self.value(hint, item, (*path, n)) for n, item in enumerate(items))
        return _WRONG if _WRONG in converted else converted

    def _one_of(self, choices: Sequence[object], value: object, path: KeyPath) -> object:
        if value in choices:
            return str(value) if isinstance(value, Expanded) else value
        names = [str(choice) for choice in choices]
        if isinstance(value, str):
            return self.wrong(path, f'"{value}" is not known; {did_you_mean(value, names)}')
        expected = " or ".join(f'"{name}"' for name in names)
        return self.wrong(path, f"expected {expected}, not {_describe(value)}")

    def _leaf(self, hint: Any, value: object, path: KeyPath) -> object:
        if hint is Any or type(value) is hint:
            return value
        import msgspec

        try:
            if isinstance(value, Expanded):
                return msgspec.convert(str(value), hint, strict=False)
            return msgspec.convert(value, hint)
        except (msgspec.ValidationError, ValueError, TypeError):
            return self.wrong(path, f"expected {_name(hint)}, not {_describe(value)}")

    def _validated(self, field: "attrs.Attribute[Any]", value: object, path: KeyPath) -> object:
        """Try a field's own rules alone, so that several mistakes of one table are all found."""
        converter: object = cast("Any", field).converter
        if field.validator is not None and converter is None:
            try:
                field.validator(None, field, value)
            except (ValueError, TypeError) as error:
                return self.wrong(path, _first_line(error))
            except AttributeError:
                return value  # a rule about several fields: it looks at the whole
        return value


def _keys(hint: Any) -> Sequence[str]:
    if isinstance(hint, type) and attrs.has(hint):
        return [field.alias or field.name for field in attrs.fields(hint)]
    return ()


def _first_line(error: Exception) -> str:
    # attrs' validators give the message first, then the attribute and the value.
    return str(error.args[0] if error.args else error).splitlines()[0]


def _kind(hint: Any) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return "string"
    plain = origin if isinstance(origin, type) else hint
    if not isinstance(plain, type):
        return "value"
    if attrs.has(plain) or issubclass(plain, Mapping):
        return "table"
    if plain is str:
        return "string"
    return "array" if issubclass(plain, Sequence) else "value"


def _name(hint: Any) -> str:
    known = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    if hint in known:
        return known[hint]
    if get_origin(hint) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(hint))
    names = {"table": "a table", "array": "an array", "string": "a string"}
    return names.get(_kind(hint), getattr(hint, "__name__", str(hint)))


def _describe(value: object) -> str:
    match value:
        case Mapping():
            return "a table"
        case list() | tuple():
            return "an array"
        case str():
            return f'the string "{value:.60}"'
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)[:60]
