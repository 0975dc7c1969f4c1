"""Keys of etcd as the source of a directory: `open_etcd_configuration`."""

import errno
import os
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import final

import trio

from trio_entrypoint._arguments import AnyPath
from trio_entrypoint._files.errors import SourceError
from trio_entrypoint._files.opening import Layout, Share, open_directory
from trio_entrypoint._files.tree import Limits
from trio_entrypoint._nursery import open_background
from trio_entrypoint._remote.etcd import Etcd, EtcdAuth, open_etcd
from trio_entrypoint._remote.etcd_messages import EtcdError, KeyValue, prefix_end
from trio_entrypoint._remote.http import MAX_ANSWER, Tls, UnreachableError
from trio_entrypoint._remote.pauses import Pauses
from trio_entrypoint.configuration.engine import GenerationConfiguration, open_generations
from trio_entrypoint.configuration.memory import MemorySnapshot
from trio_entrypoint.configuration.options import Durability, Options, check_mode
from trio_entrypoint.configuration.source import Check, Snapshot, SourceWatch
from trio_entrypoint.configuration.validation import Validate

_ATTEMPT_TIMEOUT = 5.0
_PAGE = 500
# A watch that fell silent without an error is found out by then, in seconds.
_LOOK_AGAIN = 300.0


@final
class EtcdSource:
    """All keys under a prefix, read at one revision of the store.

    Args:
        etcd: An open client.
        prefix: What the keys' names begin with, up to a `/`; the rest of a name is the path.
        mode: Permission bits of the files.
        limits: How much is read at most.
    """

    def __init__(self, etcd: Etcd, prefix: str, mode: int, limits: Limits) -> None:
        self._etcd = etcd
        self._prefix = prefix.encode().rstrip(b"/") + b"/"
        self._end = prefix_end(self._prefix)
        self._mode = mode
        self._limits = limits

    @property
    def paths(self) -> Sequence[AnyPath]:
        """None: it is read from the network."""
        return []

    def watch(self) -> AbstractAsyncContextManager[SourceWatch]:
        """Watch every key under the prefix."""
        return self._watch()

    @contextmanager
    def snapshot(self, check: Check) -> Generator[Snapshot]:
        """Read the newest revision; the network is waited for in Trio's thread."""
        check()
        try:
            snapshot, _ = trio.from_thread.run(self._read)
        except EtcdError as error:
            raise SourceError(f"etcd refuses to be read: {error}") from error
        if not snapshot.files:
            raise FileNotFoundError(
                errno.ENOENT, os.strerror(errno.ENOENT), f"etcd keys under {self._prefix.decode()}"
            )
        yield snapshot

    @asynccontextmanager
    async def _watch(self) -> AsyncGenerator[SourceWatch]:
        watch = _Watch()
        revision = await self._look(watch)
        watch.take_for_told()
        async with open_background(partial(self._follow, watch, revision)):
            yield watch

    async def _follow(self, watch: "_Watch", revision: int) -> None:
        pauses = Pauses()
        while True:
            watched = await self._wait_for_news(revision)
            seen = await self._look(watch)
            if watched and seen > revision:
                pauses = Pauses()
            else:  # the same may be told at once, again
                await pauses.pause()
            revision = seen or revision

    async def _wait_for_news(self, revision: int) -> bool:
        """Wait for a reason to look; return whether it was not that watching failed."""
        try:
            with trio.move_on_after(_LOOK_AGAIN):
                async with self._etcd.watch(
                    self._prefix, self._end, from_revision=revision + 1
                ) as events:
                    async for _ in events:
                        break
        except (UnreachableError, EtcdError):  # looking tells whether it was only the watch
            return False
        return True

    async def _look(self, watch: "_Watch") -> int:
        """Read everything, and tell it; return the revision that was read, 0 for none."""
        try:
            snapshot, revision = await self._read()
        except (UnreachableError, EtcdError) as error:
            watch.tell(watch.identity, error)
            return 0
        except _TooMuchError as error:
            watch.tell(watch.identity, error)
            return error.revision
        watch.tell(snapshot.digest if snapshot.files else None, None)
        return revision

    async def _read(self) -> tuple[MemorySnapshot, int]:
        """Read all keys as they were at one revision, page by page, and the revision."""
        keys: list[KeyValue] = []
        start, revision, size = self._prefix, 0, 0
        while True:
            page = await self._etcd.range(
                start,
                self._end,
                limit=_PAGE,
                revision=revision,
                max_answer=2 * self._limits.size + MAX_ANSWER,
            )
            revision = revision or page.header.revision
            keys += page.keys
            size += sum(len(key.value) for key in page.keys)
            if len(keys) > self._limits.members or size > self._limits.size:
                raise _TooMuchError(
                    f"etcd keys under {self._prefix.decode()}: more than"
                    f" {self._limits.members} keys or {self._limits.size} bytes",
                    revision,
                )
            if not page.more or not page.keys:
                break
            start = page.keys[-1].key + b"\0"
        files = {os.fsdecode(key.key[len(self._prefix) :]): key.value for key in keys}
        return MemorySnapshot(files, self._mode), revision


@final
class _TooMuchError(SourceError):
    """What is there at a revision is more than is read; only a change can mend that."""

    def __init__(self, message: str, revision: int) -> None:
        super().__init__(message)
        self.revision = revision


@final
class _Watch:
    """The newest state, and whether `changed` has told it."""

    def __init__(self) -> None:
        self.identity: str | None = None
        self.error: Exception | None = None
        self._news = trio.Event()

    def tell(self, identity: str | None, error: Exception | None) -> None:
        if (identity, str(error)) != (self.identity, str(self.error)):
            self.identity, self.error = identity, error
            self._news.set()

    def take_for_told(self) -> None:
        self._news = trio.Event()

    async def changed(self) -> None:
        await self._news.wait()
        self.take_for_told()


def check_prefix(prefix: str) -> None:
    """Refuse, by `ValueError`, a prefix that every key has."""
    if not prefix.strip("/"):
        raise ValueError(f"prefix: expected what the keys' names begin with, not {prefix!r}")


@asynccontextmanager
async def open_etcd_configuration(
    endpoints: Sequence[str],
    prefix: str,
    target: "str | os.PathLike[str]",
    *,
    tls: Tls | None = None,
    auth: EtcdAuth | None = None,
    mode: int = 0o644,
    validate: Validate | None = None,
    share: Share = "link",
    layout: Layout = "auto",
    durability: Durability = "process",
    keep: int = 3,
    max_members: int = 10_000,
    max_size: int = 64 * 1024 * 1024,
    settle: float = 0.0,
) -> AsyncGenerator[GenerationConfiguration]:
    """Manage a directory whose files are keys of etcd: confd, but whole or not at all.

    What is applied are all keys under the prefix as they were at one revision of the store:
    what somebody wrote in one transaction is never seen half. Without any key the source is
    deleted; a cluster that cannot be reached is a `ConfigurationFailed` that may mend itself.

    Args:
        endpoints: Client addresses of the members: `http://host:port` or `https://host:port`.
        prefix: Keys `PREFIX/a/b` become files `a/b`.
        target: The directory managed.
        tls: Files for `https` addresses; None for the system's authorities.
        auth: The user to log in as, where the cluster has authentication enabled.
        mode: Permission bits of the files.
        validate: Decides before anything is put in place.
        share: Whether unchanged files are links to those of the generation before, or copies.
        layout: What the target is: `symlink`, `inside`, or `auto`.
        durability: `process` survives a SIGKILL of the entrypoint, `disk` a power loss, too.
        keep: How many generations before the one in place are kept. At least 1.
        max_members: How many keys there may be.
        max_size: How many bytes their values may have.
        settle: Seconds of quiet before a change of the source is told.

    All but the source is as in `open_tar_configuration`, which says more.

    Raises:
        OSError, InUseError: The target cannot be managed, or a file of `tls` or `auth` cannot
            be read; the message names the path.
        ValueError: An argument is out of range.

    Example::

        async with open_etcd_configuration(
            ["http://etcd:2379"], "/config/app", "/etc/app"
        ) as configuration:
            result = await configuration.update()
    """
    check_prefix(prefix)
    check_mode(mode)
    limits = Limits(max_members, max_size)
    options = Options(validate=validate, durability=durability, settle=settle, limits=limits)
    async with (
        open_etcd(endpoints, tls=tls, auth=auth, attempt_timeout=_ATTEMPT_TIMEOUT) as etcd,
        open_generations(
            EtcdSource(etcd, prefix, mode, limits),
            partial(open_directory, os.fspath(target), layout=layout, keep=keep, share=share),
            options,
        ) as configuration,
    ):
        yield configuration
