"""What no system call can take, refused by the argument's name before anything is done with it.

A NUL ends a string of the kernel's, and the first `=` a variable's name; one number is nobody's.
And what is no address cannot be connected to.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import attrs

AnyPath: TypeAlias = "str | bytes | os.PathLike[str]"

AS_IT_IS: Final = 2**32 - 1
"""No user's or group's number: to chown(2) and setresuid(2) it, and -1, mean 'as it is'."""


def check_path(field: str, path: "AnyPath | os.PathLike[bytes]") -> None:
    """Raise `ValueError` for a path, or another word, that contains a NUL."""
    if b"\0" in os.fsencode(path):
        raise ValueError(f"{field}: contains a NUL byte: {os.fspath(path)!r}")


def check_names(field: str, names: Iterable[str]) -> None:
    """Raise `ValueError` for what cannot be the name of a variable of the environment."""
    for name in names:
        if "=" in name or "\0" in name:
            raise ValueError(f"{field}: expected a name without '=' and NUL, got {name!r}")


def check_variables(field: str, variables: Mapping[str, str]) -> None:
    """Raise `ValueError` for what cannot be a variable of the environment."""
    check_names(field, variables)
    for name, value in variables.items():
        check_path(f"{field}: {name}", value)


def is_path(_instance: object, attribute: "attrs.Attribute[Any]", value: "AnyPath | None") -> None:
    """Check a path, as a validator of attrs; None is none."""
    if value is not None:
        check_path(attribute.name, value)


def are_paths(
    _instance: object, attribute: "attrs.Attribute[Any]", value: Iterable[AnyPath]
) -> None:
    """Check several paths, or words, as a validator of attrs."""
    for path in value:
        check_path(attribute.name, path)


def is_http_url(url: str) -> bool:
    """Whether this is an `http(s)://host:port`, or has a path too, that can be connected to."""
    from urllib.parse import urlsplit  # slow, and most entrypoints need none of it

    try:
        parts = urlsplit(url)
        labels = (parts.hostname or "").removesuffix(".").split(".")
        return (
            parts.scheme in ("http", "https")
            and all(0 < len(label) < 64 for label in labels)  # else the resolver raises
            and parts.port != 0
            and url.isascii()
            and url.isprintable()
        )
    except ValueError:  # a port that is none, or brackets without an end
        return False
