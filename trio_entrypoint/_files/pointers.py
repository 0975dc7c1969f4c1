"""How a target says which generation is in place: by one directory entry, changed by rename.

| pointer | the target is | a switch renames |
| --- | --- | --- |
| `SymlinkPointer` | a symlink to the generation | another symlink over it |
| `InsidePointer` | a directory that stays, with a symlink in it | another `..data` over it |
| `FilePointer` | a file: a hard link to the one in the generation | another hard link over it |

So the pointer is the only record of what is in place, and there is nothing that could
contradict it after a crash.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol, final

from trio_entrypoint._linux.syscalls import exchange

TREE = "tree"
"""The name of a generation's contents in its own directory."""

MANIFEST = "manifest"
"""The name of what says that a generation is complete."""

_NEXT = "next"
_INSIDE_STORE = "..generations"
_DATA = "..data"
_OF_FILE_SYSTEM = frozenset({"lost+found"})


class Pointer(Protocol):
    """A target's pointer to one of the generations in the store."""

    target: str
    store: str
    """The directory of the generations."""

    def published(self, number: int) -> str:
        """The path of a generation's own target."""
        ...

    def read(self) -> int | None:
        """The number of the generation that is in place."""
        ...

    def prepare(self, number: int, names: Iterable[str]) -> None:
        """Do everything that a switch to a generation needs, and that no reader notices.

        Args:
            number: The generation.
            names: The names directly in its tree.
        """
        ...

    def switch(self) -> None:
        """Put the prepared generation in place: one rename(2)."""
        ...

    def tidy(self, names: Iterable[str]) -> None:
        """Remove what only the generations before needed."""
        ...

    def clear(self) -> None:
        """Leave no generation in place."""
        ...

    def parent(self) -> str:
        """The directory that holds the pointer's entry."""
        ...


def _number_in(link: str, store: str) -> int | None:
    found = re.fullmatch(re.escape(store) + r"/(\d+)/" + TREE, link)
    return int(found[1]) if found else None


def sibling_store(target: str) -> str:
    """Where the generations of a target are that may be replaced."""
    directory, name = os.path.split(target)
    return os.path.join(directory, f".{name}.generations")


@final
class SymlinkPointer:
    """The target is a symlink, replaced by rename."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.store = sibling_store(target)

    def published(self, number: int) -> str:
        return os.path.join(self.store, str(number), TREE)

    def read(self) -> int | None:
        try:
            return _number_in(os.readlink(self.target), os.path.basename(self.store))
        except OSError:
            return None

    def prepare(self, number: int, names: Iterable[str]) -> None:  # noqa: ARG002
        _symlink_anew(f"{os.path.basename(self.store)}/{number}/{TREE}", self._next())

    def switch(self) -> None:
        os.rename(self._next(), self.target)

    def tidy(self, names: Iterable[str]) -> None:
        pass

    def clear(self) -> None:
        os.unlink(self.target)

    def parent(self) -> str:
        return os.path.dirname(self.target)

    def adopt(self, number: int) -> None:
        """Make the directory at the target a generation's tree, in one step.

        The symlink is made where the tree will be, and the two change places.
        """
        tree = self.published(number)
        _symlink_anew(f"{os.path.basename(self.store)}/{number}/{TREE}", tree)
        exchange(tree, self.target)

    def _next(self) -> str:
        return os.path.join(self.store, _NEXT)


@final
class InsidePointer:
    """The target is a directory that stays; its entries are symlinks through `..data`.

    As Kubernetes lays ConfigMaps out. A reader who opens `..data`, or the target of that,
    sees one generation; names that the generation in place does not have lead nowhere.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.store = os.path.join(target, _INSIDE_STORE)
        self._data = os.path.join(target, _DATA)

    def published(self, number: int) -> str:
        return os.path.join(self.store, str(number), TREE)

    def read(self) -> int | None:
        try:
            return _number_in(os.readlink(self._data), _INSIDE_STORE)
        except OSError:
            return None

    def prepare(self, number: int, names: Iterable[str]) -> None:
        for name in names:
            if name.startswith(".."):
                raise FileExistsError(
                    f"{name!r}: names that begin with '..' at the top of a target that is a "
                    "mount point are taken, by its own pointer"
                )
            path = os.path.join(self.target, name)
            try:
                os.symlink(self.link(name), path)
            except FileExistsError:
                if not self.is_own(name):
                    raise FileExistsError(
                        f"{path}: is there, but not from the configuration; move it away"
                    ) from None
        _symlink_anew(f"{_INSIDE_STORE}/{number}/{TREE}", self._next())

    def switch(self) -> None:
        os.rename(self._next(), self._data)

    def tidy(self, names: Iterable[str]) -> None:
        keep = {*names, _DATA}
        for name in os.listdir(self.target):
            if name not in keep and self.is_own(name):
                os.unlink(os.path.join(self.target, name))

    def clear(self) -> None:
        os.unlink(self._data)
        self.tidy(())

    def parent(self) -> str:
        return self.target

    def foreign(self, path: str) -> bool:
        """Whether a path below the target is none of the configuration's."""
        top = path.partition("/")[0]
        return top.startswith("..") or top in _OF_FILE_SYSTEM

    def link(self, name: str) -> str:
        """What the symlink at one of the target's own names says."""
        return f"{_DATA}/{name}"

    def is_own(self, name: str) -> bool:
        """Whether a name in the target is a symlink to the same one in the generation."""
        try:
            return os.readlink(os.path.join(self.target, name)) == self.link(name)
        except OSError:
            return False

    def _next(self) -> str:
        return os.path.join(self.store, _NEXT)


@final
class FilePointer:
    """The target is a file, and a hard link to the one in its generation."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.name = os.path.basename(target)
        self.store = sibling_store(target)

    def published(self, number: int) -> str:
        return os.path.join(self.store, str(number), TREE, self.name)

    def read(self) -> int | None:
        try:
            target = os.lstat(self.target)
            numbers = [int(name) for name in os.listdir(self.store) if name.isdecimal()]
        except OSError:
            return None
        for number in numbers:
            with suppress(OSError):
                # Without a manifest it is one whose adoption was interrupted.
                os.lstat(os.path.join(self.store, str(number), MANIFEST))
                if os.path.samestat(target, os.lstat(self.published(number))):
                    return number
        return None

    def prepare(self, number: int, names: Iterable[str]) -> None:  # noqa: ARG002
        with suppress(FileNotFoundError):
            os.unlink(self._next())
        os.link(self.published(number), self._next(), follow_symlinks=False)

    def switch(self) -> None:
        os.rename(self._next(), self.target)

    def tidy(self, names: Iterable[str]) -> None:
        pass

    def clear(self) -> None:
        os.unlink(self.target)

    def parent(self) -> str:
        return os.path.dirname(self.target)

    def adopt(self, number: int) -> None:
        """Make the file at the target a generation's, too."""
        os.link(self.target, self.published(number), follow_symlinks=False)

    def _next(self) -> str:
        return os.path.join(self.store, _NEXT)


def _symlink_anew(to: str, path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
    os.symlink(to, path)
