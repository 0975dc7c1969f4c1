"""A single file as the source of a single file: `open_file_configuration`."""

import os
import stat
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import PurePosixPath
from typing import final

import attrs
import trio

from trio_entrypoint._arguments import AnyPath, check_path, is_path
from trio_entrypoint._files.errors import SourceChangedError
from trio_entrypoint._files.opening import open_file, resolve
from trio_entrypoint._files.tree import Limits, TreeWriter
from trio_entrypoint._linux.watch import open_path_watch
from trio_entrypoint.configuration.engine import GenerationConfiguration, open_generations
from trio_entrypoint.configuration.options import Durability, Options, check_mode, check_owner
from trio_entrypoint.configuration.reading import HashingReader, open_settled
from trio_entrypoint.configuration.source import Check, Snapshot, SourceWatch
from trio_entrypoint.configuration.validation import Validate


@final
@attrs.frozen
class FileSource:
    """A file that becomes one file of the configuration.

    Args:
        path: Where it is.
        name: Its path in the configuration.
        mode: Permission bits; None for those of the source.
        owner: User and group by number; None for those of the entrypoint.

    Raises:
        ValueError: The name leads out of the configuration, or mode or owner is out of range.
    """

    path: "str | os.PathLike[str]" = attrs.field(validator=is_path)
    name: str = attrs.field(validator=is_path)
    mode: int | None = None
    owner: tuple[int, int] | None = None

    def __attrs_post_init__(self) -> None:
        names = PurePosixPath(self.name).parts
        if not names or names[0] == "/" or ".." in names:
            raise ValueError(f"name is {self.name!r}, expected a path in the configuration")
        if self.mode is not None:
            check_mode(self.mode)
        if self.owner is not None:
            check_owner(self.owner)

    @property
    def paths(self) -> Sequence[AnyPath]:
        """The path."""
        return [self.path]

    def watch(self) -> AbstractAsyncContextManager[SourceWatch]:
        """Watch the file's path."""
        return open_path_watch(self.path)

    @contextmanager
    def snapshot(self, check: Check) -> Generator[Snapshot]:
        """Open the file, and hash it."""
        with open_settled(self.path) as descriptor:
            yield _FileSnapshot(self, HashingReader(descriptor, check).digest(), descriptor)


@final
@attrs.frozen
class _FileSnapshot:
    _source: FileSource
    digest: str
    _descriptor: int

    @property
    def variant(self) -> str:
        return f"{self._source.name} {self._mode:o} {self._source.owner}"

    @property
    def _mode(self) -> int:
        if self._source.mode is not None:
            return self._source.mode
        return stat.S_IMODE(os.fstat(self._descriptor).st_mode) & 0o777

    def write(self, tree: TreeWriter, check: Check) -> None:
        size = os.fstat(self._descriptor).st_size
        reader = HashingReader(self._descriptor, check)
        tree.file(self._source.name, self._mode, size, reader.read, owner=self._source.owner)
        if reader.digest() != self.digest:
            raise SourceChangedError(f"{os.fspath(self._source.path)}: written while it was read")


@asynccontextmanager
async def open_file_configuration(
    source: "str | os.PathLike[str]",
    target: "str | os.PathLike[str]",
    *,
    mode: int | None = None,
    owner: tuple[int, int] | None = None,
    validate: Validate | None = None,
    durability: Durability = "process",
    keep: int = 3,
    max_size: int = 256 * 1024 * 1024,
    settle: float = 0.0,
) -> AsyncGenerator[GenerationConfiguration]:
    """Manage a file that is delivered as a file: replaced by rename, never written in place.

    Args:
        source: The file delivered; neither it nor the directories on the way need to exist.
        target: The file managed. What is there already becomes the first generation; a
            symlink is followed. Its parent is made if it is missing. The generations are kept
            beside it, in `.NAME.generations`, and the target is a hard link to the one in place.
        mode: Permission bits of the target; None for those of the source.
        owner: User and group of the target by number; None for those of the entrypoint.
        validate: Decides before anything is put in place: an async function that gets the
            path of the new file and raises, or returns False, to refuse; or a command, in
            which `{path}` becomes that path (see `ValidateCommand`).
        durability: `process` survives a SIGKILL of the entrypoint, `disk` a power loss, too.
        keep: How many generations before the one in place are kept. At least 1.
        max_size: How many bytes the file may have.
        settle: Seconds of quiet before a change of the source is told.

    Raises:
        IsADirectoryError: There is a directory at the target.
        FileExistsError: There is something else at the target that is no regular file.
        OSError: The target cannot be managed: it is a mount point, or the source is the
            target, for example; the message names the path and the reason.
        InUseError: Another handler manages the target.
        ValueError: An argument is out of range.

    Example::

        async with open_file_configuration("/incoming/app.conf", "/etc/app.conf") as configuration:
            result = await configuration.update()
    """
    check_path("source", source)
    options = Options(
        validate=validate, durability=durability, settle=settle, limits=Limits(1, max_size)
    )
    path = await trio.to_thread.run_sync(resolve, os.fspath(target))
    async with open_generations(
        FileSource(source, os.path.basename(path), mode, owner),
        partial(open_file, path, keep=keep),
        options,
    ) as configuration:
        yield configuration
