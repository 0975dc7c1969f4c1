"""A tar archive as the source of a directory: `open_tar_configuration`."""

import os
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from hashlib import sha256
from io import BytesIO
from typing import final

import attrs

from trio_entrypoint._arguments import AnyPath, check_path, is_path
from trio_entrypoint._files.archive import unpack_archive
from trio_entrypoint._files.errors import SourceChangedError
from trio_entrypoint._files.opening import Layout, Share, open_directory
from trio_entrypoint._files.tree import Limits, TreeWriter
from trio_entrypoint._linux.watch import open_path_watch
from trio_entrypoint.configuration.engine import GenerationConfiguration, open_generations
from trio_entrypoint.configuration.options import Durability, Options
from trio_entrypoint.configuration.reading import HashingReader, open_settled
from trio_entrypoint.configuration.source import Check, Snapshot, SourceWatch
from trio_entrypoint.configuration.validation import Validate

# A small archive is read once, into memory; a large one twice, so that its digest is known
# before anything is written, and what was written is what has that digest.
_SMALL = 4 * 1024 * 1024


@final
@attrs.frozen
class TarSource:
    """A tar archive, plain or packed with gzip, bzip2, xz or zstd.

    Args:
        path: Where it is.
        keep_owner: Give the members the numeric user and group of the archive.
        keep_time: Give the members their times of modification.
    """

    path: "str | os.PathLike[str]" = attrs.field(validator=is_path)
    keep_owner: bool = False
    keep_time: bool = False

    @property
    def paths(self) -> Sequence[AnyPath]:
        """The path."""
        return [self.path]

    def watch(self) -> AbstractAsyncContextManager[SourceWatch]:
        """Watch the archive's path."""
        return open_path_watch(self.path)

    @contextmanager
    def snapshot(self, check: Check) -> Generator[Snapshot]:
        """Open the archive, and hash it."""
        with open_settled(self.path) as descriptor:
            if os.fstat(descriptor).st_size > _SMALL:
                digest = HashingReader(descriptor, check).digest()
                yield _TarSnapshot(self, digest, descriptor)
            else:
                contents = os.read(descriptor, 2 * _SMALL)
                yield _TarSnapshot(self, sha256(contents).hexdigest(), descriptor, contents)


@final
@attrs.frozen
class _TarSnapshot:
    _source: TarSource
    digest: str
    _descriptor: int
    _contents: bytes | None = None

    @property
    def variant(self) -> str:
        return f"{self._source.keep_owner} {self._source.keep_time}"

    def write(self, tree: TreeWriter, check: Check) -> None:
        if self._contents is not None:
            self._unpack(BytesIO(self._contents).read, tree, check)
            return
        reader = HashingReader(self._descriptor, check)
        self._unpack(reader.read, tree, check)
        if reader.digest() != self.digest:
            raise SourceChangedError(f"{os.fspath(self._source.path)}: written while it was read")

    def _unpack(self, read: Callable[[int], bytes], tree: TreeWriter, check: Check) -> None:
        unpack_archive(
            read,
            tree,
            keep_owner=self._source.keep_owner,
            keep_time=self._source.keep_time,
            check=check,
        )


@asynccontextmanager
async def open_tar_configuration(
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
    keep_owner: bool = False,
    keep_time: bool = False,
    settle: float = 0.0,
) -> AsyncGenerator[GenerationConfiguration]:
    """Manage a directory that is delivered as a tar archive.

    The archive may be plain or packed with gzip, bzip2, xz or zstd (which needs the extra
    `zstd`). It is applied whole or not at all: the target is always exactly the tree of one
    archive. A broken or hostile archive is refused as a whole, naming the member.

    Args:
        source: The archive; neither it nor the directories on the way need to exist yet.
        target: The directory. What is there already becomes the first generation; a symlink
            of somebody else is followed. Its parent is made if it is missing. The generations
            are kept beside it (`.NAME.generations`), or in it where it cannot be replaced
            (`..generations`).
        validate: Decides before anything is put in place: an async function that gets the
            path of the new generation and raises, or returns False, to refuse; or a command,
            in which `{path}` becomes that path (see `ValidateCommand`).
        share: `link`: files that did not change are hard links to those of the generation
            before, which saves time and space; a program that writes into its configuration
            in place then writes into former generations too. `copy`: every generation has its
            own files.
        layout: `symlink`: the target is a symlink to the generation in place. `inside`: the
            target is a directory whose entries are symlinks through `..data`, as Kubernetes
            lays out a ConfigMap. `auto` is `inside` only where the target cannot be replaced.
        durability: `process` survives a SIGKILL of the entrypoint, `disk` a power loss, too.
        keep: How many generations before the one in place are kept, for a rollback and for
            readers who still hold them open. At least 1.
        max_members: How many members an archive may have.
        max_size: How many bytes its files may have, unpacked.
        keep_owner: Give the members the numeric user and group of the archive.
        keep_time: Give the members their times of modification.
        settle: Seconds of quiet before a change of the source is told.

    Raises:
        NotADirectoryError: There is something at the target that is no directory.
        OSError: The target cannot be managed, or the source is in the target; the message
            names the path and the reason.
        InUseError: Another handler manages the target.
        ValueError: An argument is out of range.

    Example::

        async with open_tar_configuration("/incoming/config.tar", "/etc/app") as configuration:
            async for event in configuration.events:
                result = await configuration.update()
                print(result.error or result.changed)
    """
    check_path("source", source)
    options = Options(
        validate=validate,
        durability=durability,
        settle=settle,
        limits=Limits(max_members, max_size),
    )
    async with open_generations(
        TarSource(source, keep_owner, keep_time),
        partial(open_directory, os.fspath(target), layout=layout, keep=keep, share=share),
        options,
    ) as configuration:
        yield configuration
