"""A directory as the source of a directory: `open_directory_configuration`."""

import os
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import final

import attrs

from trio_entrypoint._arguments import AnyPath, check_path, is_path
from trio_entrypoint._files.directories import Directories
from trio_entrypoint._files.errors import SourceChangedError
from trio_entrypoint._files.manifest import Entry, tree_digest
from trio_entrypoint._files.opening import Layout, Share, open_directory
from trio_entrypoint._files.scan import copy_tree, scan_tree
from trio_entrypoint._files.tree import Limits, TreeWriter
from trio_entrypoint._linux.tree import open_tree_watch
from trio_entrypoint.configuration.engine import GenerationConfiguration, open_generations
from trio_entrypoint.configuration.options import Durability, Options
from trio_entrypoint.configuration.source import Check, Snapshot, SourceWatch
from trio_entrypoint.configuration.validation import Validate

# Through this symlink Kubernetes publishes the contents of a ConfigMap, a Secret, or any
# projected volume: opened once, it is one state of all of them.
_KUBERNETES_DATA = "..data"


@final
@attrs.frozen
class DirectorySource:
    """A directory: a mounted ConfigMap or Secret, a checkout of git-sync, any other.

    Args:
        path: Where it is. A symlink to it is followed once for each snapshot, so that a
            snapshot of what is published by a symlink is never of two states.
    """

    path: "str | os.PathLike[str]" = attrs.field(validator=is_path)

    @property
    def paths(self) -> Sequence[AnyPath]:
        """The path."""
        return [self.path]

    def watch(self) -> AbstractAsyncContextManager[SourceWatch]:
        """Watch everything in the directory."""
        return open_tree_watch(self.path)

    @contextmanager
    def snapshot(self, check: Check) -> Generator[Snapshot]:
        """Open the directory, and hash what is in it."""
        path = os.fspath(self.path)
        with Directories(_published(path)) as directories:
            try:
                entries = scan_tree(directories, check=check)
                # Who replaced it removes it next, file by file: what was found may be a rest.
                now = os.stat(_published(path))
                if not os.path.samestat(now, os.fstat(directories.descriptor(""))):
                    raise SourceChangedError(f"{path}: replaced while it was read")
                yield _DirectorySnapshot(directories, entries)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise SourceChangedError(f"{path}: {error}") from error


def _published(path: str) -> str:
    """Where a directory's present state is."""
    data = os.path.join(path, _KUBERNETES_DATA)
    return data if os.path.isdir(data) else path


@final
@attrs.frozen
class _DirectorySnapshot:
    _directories: Directories
    _entries: Mapping[str, Entry]

    @property
    def digest(self) -> str:
        return tree_digest(self._entries)

    @property
    def variant(self) -> str:
        return ""

    def write(self, tree: TreeWriter, check: Check) -> None:  # noqa: ARG002 - the tree checks
        copy_tree(self._directories, self._entries, tree)


@asynccontextmanager
async def open_directory_configuration(
    source: "str | os.PathLike[str]",
    target: "str | os.PathLike[str]",
    *,
    validate: Validate | None = None,
    share: Share = "link",
    layout: Layout = "auto",
    durability: Durability = "process",
    keep: int = 3,
    max_members: int = 100_000,
    max_size: int = 256 * 1024 * 1024,
    settle: float = 0.0,
) -> AsyncGenerator[GenerationConfiguration]:
    """Manage a directory that is delivered as a directory.

    Made for a mounted ConfigMap or Secret and for git-sync, which publish by a symlink: what
    is applied is one of their states, exactly. From a directory that is written to file by
    file the last state of a burst is applied; give `settle` the time that a burst pauses.

    Args:
        source: The directory delivered; neither it nor its parents need to exist yet.
        target: The directory managed.
        validate: Decides before anything is put in place.
        share: Whether unchanged files are links to those of the generation before, or copies.
        layout: What the target is: `symlink`, `inside`, or `auto`.
        durability: `process` survives a SIGKILL of the entrypoint, `disk` a power loss, too.
        keep: How many generations before the one in place are kept. At least 1.
        max_members: How many entries the directory may have.
        max_size: How many bytes its files may have.
        settle: Seconds of quiet before a change of the source is told.

    All but the source is as in `open_tar_configuration`, which says more.

    Raises:
        OSError, InUseError: The target cannot be managed, or source and target are one in the
            other; the message names the path.
        ValueError: An argument is out of range.

    Example::

        async with open_directory_configuration("/config", "/etc/app") as configuration:
            result = await configuration.update()
    """
    check_path("source", source)
    async with open_generations(
        DirectorySource(source),
        partial(open_directory, os.fspath(target), layout=layout, keep=keep, share=share),
        Options(
            validate=validate,
            durability=durability,
            settle=settle,
            limits=Limits(max_members, max_size),
        ),
    ) as configuration:
        yield configuration
