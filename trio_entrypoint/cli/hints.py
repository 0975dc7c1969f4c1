"""The types of a class's fields, made out one by one, when they are asked for."""

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

__all__ = ["type_hints"]


class _Names(Mapping[str, object]):
    """What a module imports for its annotations alone, imported now."""

    def __init__(self, homes: Mapping[str, str]) -> None:
        self._homes = homes

    def __getitem__(self, name: str) -> object:
        return getattr(import_module(self._homes[name]), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


class type_hints(Mapping[str, Any]):  # noqa: N801 - used as the function of that name is
    """The types of a class's fields by name, as `typing.get_type_hints` gives them.

    That one resolves all of them, and so imports everything that any of them needs.
    """

    def __init__(self, cls: type[Any]) -> None:
        self._annotations: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            self._annotations |= vars(base).get("__annotations__", {})
        self._module = vars(sys.modules[cls.__module__])

    def __getitem__(self, name: str) -> Any:
        hint = self._annotations[name]
        if isinstance(hint, str):
            names = _Names(self._module.get("LAZY", {}))
            return eval(hint, self._module, names)  # noqa: S307 - our own source
        return hint

    def __iter__(self) -> Iterator[str]:
        return iter(self._annotations)

    def __len__(self) -> int:
        return len(self._annotations)
