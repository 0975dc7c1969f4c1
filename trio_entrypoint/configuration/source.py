"""What a configuration is made from: the seam between sources and the engine.

A source can be watched, and it can be read as one consistent snapshot into a new tree. The
engine (`trio_entrypoint.configuration.engine`) does all the rest, the same for all sources.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol, TypeAlias

from trio_entrypoint._arguments import AnyPath
from trio_entrypoint._files.tree import TreeWriter

Check: TypeAlias = Callable[[], None]
"""Called often while a snapshot is read; it raises when the update was cancelled."""


class SourceWatch(Protocol):
    """The state of a source, as `trio_entrypoint._linux.watch` tells it for a path."""

    @property
    def identity(self) -> object | None:
        """None when the source does not exist."""
        ...

    @property
    def error(self) -> Exception | None:
        """Why it cannot be observed."""
        ...

    async def changed(self) -> None:
        """Wait until the source is not what it was. Cancellation loses nothing."""
        ...


class Snapshot(Protocol):
    """One state of a source. It is read in a worker thread."""

    @property
    def digest(self) -> str:
        """The SHA-256 of its contents, in hexadecimal."""
        ...

    @property
    def variant(self) -> str:
        """What else decides what is made of it: modes and names that were asked for."""
        ...

    def write(self, tree: TreeWriter, check: Check) -> None:
        """Write it into a new tree.

        Raises:
            OSError, ValueError: It cannot be read, or must not be applied.
            SourceChangedError: It is not any more what the digest says.
        """
        ...


class Source(Protocol):
    """Where a configuration comes from."""

    @property
    def paths(self) -> Sequence[AnyPath]:
        """The files or directories that it is read from; the target must not be in their way."""
        ...

    def watch(self) -> AbstractAsyncContextManager[SourceWatch]:
        """Watch it, whether or not it exists."""
        ...

    def snapshot(self, check: Check) -> AbstractContextManager[Snapshot]:
        """Open one state of it. Called in a worker thread.

        Raises:
            FileNotFoundError: It does not exist.
            OSError, ValueError: It cannot be read.
            SourceChangedError: It changes while it is being read.
        """
        ...
