"""The environment of a process, put together: inherited, from files, set, removed."""

import errno
import os
import stat
from collections.abc import Mapping
from typing import Any, final

import attrs

from trio_entrypoint._arguments import are_paths, check_names, check_variables

__all__ = ["Environment"]


def _are_names(
    _instance: object, attribute: "attrs.Attribute[Any]", value: bool | list[str]
) -> None:
    check_names(attribute.name, [] if isinstance(value, bool) else value)


def _are_variables(
    _instance: object, attribute: "attrs.Attribute[Any]", value: Mapping[str, str]
) -> None:
    check_variables(attribute.name, value)


@final
@attrs.frozen(kw_only=True)
class Environment:
    """Where a process's variables come from; of one name the later wins.

    1. `inherit`: from this program.
    2. `files`: in their order.
    3. `set`.
    4. `remove` takes away what came before.

    Example::

        open_process(["app"], env=Environment(inherit=["PATH", "LANG"], files=["/etc/app.env"]))
    """

    inherit: bool | list[str] = attrs.field(default=True, validator=_are_names)
    """All variables of this program, none of them, or those of these names."""

    files: list[str] = attrs.field(factory=list[str], validator=are_paths)
    """Paths of files: each line is `NAME=value`, taken as it is; `#` begins a comment line.

    As `docker run --env-file` reads them, except that every line needs its `=`. A FIFO is
    refused.
    """

    set: Mapping[str, str] = attrs.field(factory=dict[str, str], validator=_are_variables)
    """Variables by name."""

    remove: list[str] = attrs.field(factory=list[str], validator=_are_names)
    """Names of variables that the process must not get."""

    def variables(self) -> dict[str, str]:
        """Read the files, and put it all together.

        Raises:
            OSError: A file cannot be read; its `filename` names it.
            ValueError: A file has a line that is no variable; the message names both.
        """
        found: dict[str, str] = {}
        if self.inherit is True:
            found.update(os.environ)
        elif self.inherit:
            found.update((name, os.environ[name]) for name in self.inherit if name in os.environ)
        for path in self.files:
            found.update(read_environment_file(path))
        found.update(self.set)
        for name in self.remove:
            found.pop(name, None)
        return found


def read_environment_file(path: str) -> dict[str, str]:
    """Read a file of `NAME=value` lines, as `Environment.files` describes it."""
    found: dict[str, str] = {}
    with open(path, "rb", opener=_open_at_once) as file:
        for number, line in enumerate(file.read().split(b"\n"), 1):
            text = os.fsdecode(line.rstrip(b"\r"))
            if not text.strip() or text.lstrip().startswith("#"):
                continue
            name, equals, value = text.partition("=")
            name = name.strip()
            if not equals or not name or "\0" in text:
                raise ValueError(f"{path}, line {number}: expected NAME=value, got {text!r}")
            found[name] = value
    return found


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a FIFO is refused, whose writer would be waited for at every start."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "expected a file, not a FIFO", path)
    return descriptor
