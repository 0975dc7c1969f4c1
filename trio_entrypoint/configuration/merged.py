"""Several sources as the source of one directory: `open_merged_configuration`."""

import os
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from hashlib import sha256
from typing import final

import attrs
import trio

from trio_entrypoint._arguments import AnyPath
from trio_entrypoint._files.opening import Layout, Share, open_directory
from trio_entrypoint._files.tree import Limits, TreeWriter
from trio_entrypoint.configuration.engine import GenerationConfiguration, open_generations
from trio_entrypoint.configuration.options import Durability, Options
from trio_entrypoint.configuration.source import Check, Snapshot, Source, SourceWatch
from trio_entrypoint.configuration.validation import Validate


def _at_least_one(sources: Sequence[Source]) -> Sequence[Source]:
    if not sources:
        raise ValueError("sources: none, expected at least one to merge")
    return tuple(sources)


@final
@attrs.frozen
class MergedSource:
    """Sources on top of each other; all of them have to exist.

    Args:
        sources: In the order in which they are written: the last one wins.
    """

    sources: Sequence[Source] = attrs.field(converter=_at_least_one)

    @property
    def paths(self) -> Sequence[AnyPath]:
        """The paths of all of them."""
        return [path for source in self.sources for path in source.paths]

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[SourceWatch]:
        """Watch all of them."""
        async with AsyncExitStack() as stack:
            watches = [await stack.enter_async_context(source.watch()) for source in self.sources]
            yield _MergedWatch(watches)

    @contextmanager
    def snapshot(self, check: Check) -> Generator[Snapshot]:
        """Open all of them."""
        with ExitStack() as stack:
            yield _MergedSnapshot(
                [stack.enter_context(source.snapshot(check)) for source in self.sources]
            )


@final
@attrs.frozen
class _MergedWatch:
    _watches: Sequence[SourceWatch]

    @property
    def identity(self) -> object | None:
        identities = [watch.identity for watch in self._watches]
        return None if None in identities else identities

    @property
    def error(self) -> Exception | None:
        return next((watch.error for watch in self._watches if watch.error is not None), None)

    async def changed(self) -> None:
        async with trio.open_nursery() as nursery:

            async def one(watch: SourceWatch) -> None:
                await watch.changed()
                nursery.cancel_scope.cancel()

            for watch in self._watches:
                nursery.start_soon(one, watch)


@final
@attrs.frozen
class _MergedSnapshot:
    _snapshots: Sequence[Snapshot]

    @property
    def digest(self) -> str:
        digests = "".join(snapshot.digest for snapshot in self._snapshots)
        return sha256(digests.encode()).hexdigest()

    @property
    def variant(self) -> str:
        return "\n".join(snapshot.variant for snapshot in self._snapshots)

    def write(self, tree: TreeWriter, check: Check) -> None:
        for snapshot in self._snapshots:
            tree.next_layer()
            snapshot.write(tree, check)


@asynccontextmanager
async def open_merged_configuration(
    sources: Sequence[Source],
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
    """Manage a directory that several sources are merged into, the later ones winning.

    A path that several sources have is the last one's, also where one has a directory and
    another a file. While any of the sources is missing nothing is applied: a base without
    its overrides is not what anybody meant.

    Args:
        sources: `TarSource`, `DirectorySource` and `FileSource`, in the order of writing.
        target: The directory managed.
        validate: Decides before anything is put in place.
        share: Whether unchanged files are links to those of the generation before, or copies.
        layout: What the target is: `symlink`, `inside`, or `auto`.
        durability: `process` survives a SIGKILL of the entrypoint, `disk` a power loss, too.
        keep: How many generations before the one in place are kept. At least 1.
        max_members: How many entries all sources together may have.
        max_size: How many bytes their files may have, unpacked.
        settle: Seconds of quiet before a change of any source is told.

    All but the sources is as in `open_tar_configuration`, which says more.

    Raises:
        OSError, InUseError: The target cannot be managed, or a source and the target are one
            in the other; the message names the path.
        ValueError: An argument is out of range.

    Example::

        async with open_merged_configuration(
            [
                TarSource("/incoming/base.tar"),
                DirectorySource("/config"),
                FileSource("/run/secrets/key", "tls/key.pem", mode=0o600),
            ],
            "/etc/app",
        ) as configuration:
            result = await configuration.update()
    """
    async with open_generations(
        MergedSource(sources),
        partial(open_directory, os.fspath(target), layout=layout, keep=keep, share=share),
        Options(
            validate=validate,
            durability=durability,
            settle=settle,
            limits=Limits(max_members, max_size),
        ),
    ) as configuration:
        yield configuration
