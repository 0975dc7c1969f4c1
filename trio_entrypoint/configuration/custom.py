"""A configuration that the user's own function applies: `open_custom_configuration`."""

import inspect
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Generic, cast, final

import attrs
import trio

from trio_entrypoint._arguments import check_path
from trio_entrypoint._channels import NewestChannel, ObserverChannel
from trio_entrypoint._files.errors import SourceChangedError
from trio_entrypoint._linux.watch import open_path_watch
from trio_entrypoint._nursery import cancelled_or_failed, open_background
from trio_entrypoint.configuration.reading import HashingReader, open_settled
from trio_entrypoint.configuration.watching import state_of, tell_changes
from trio_entrypoint.handlers import ConfigurationEvent, Modification, ResultT

_ATTEMPTS = 5


@final
class CustomConfiguration(Generic[ResultT]):
    """A configuration that a function applies. `open_custom_configuration` makes it."""

    def __init__(
        self,
        source: "str | os.PathLike[str]",
        update: "Callable[[Path], ResultT | Awaitable[ResultT]]",
        directory: str,
        events: NewestChannel[ConfigurationEvent],
        results: ObserverChannel[ResultT],
    ) -> None:
        self._source = source
        self._update = update
        self._directory = directory
        self._events = events
        self._results = results
        self._staging = trio.Lock()
        self._applied = False

    @property
    def events(self) -> "trio.MemoryReceiveChannel[ConfigurationEvent]":
        """The newest state of the source; the first is its state at opening time."""
        return self._events.events

    @property
    def results(self) -> "trio.MemoryReceiveChannel[ResultT]":
        """Every result since this was first asked for, in order, for observers."""
        return self._results.events

    @property
    def applied(self) -> bool:
        """Whether the function has applied a configuration successfully, in this run."""
        return self._applied

    @asynccontextmanager
    async def stage(self) -> "AsyncGenerator[StagedCustom[ResultT]]":
        """Take a private snapshot of the newest source, for the function to apply."""
        async with self._staging:
            snapshot, error = None, None
            try:
                snapshot = await self._snapshot()
            except (OSError, SourceChangedError) as failed:
                error = failed
            yield StagedCustom(self, snapshot, error)

    async def update(self) -> ResultT:
        """Let the function apply the newest source; return its result, and tell it.

        Raises:
            FileNotFoundError: The source does not exist. What was applied stays applied.
            OSError, SourceChangedError: It cannot be read.
            Exception: What the function raised.
        """
        async with self.stage() as staged:
            return await staged.commit()

    @contextmanager
    def pin(self) -> Generator[Mapping[str, str]]:
        """Nothing to hold: the function keeps its own house."""
        yield {}

    async def apply(self, snapshot: Path) -> ResultT:
        """Call the function; see `update`."""
        result = await cancelled_or_failed(self._call(snapshot))
        self._applied = self._applied or result.error is None
        self._results.send(result)
        return result

    async def _call(self, snapshot: Path) -> ResultT:
        if inspect.iscoroutinefunction(self._update):
            returned: ResultT | Awaitable[ResultT] = self._update(snapshot)
        else:
            # A plain function may block: reading, writing, waiting for another program.
            returned = await trio.to_thread.run_sync(partial(self._update, snapshot))
        if isinstance(returned, Awaitable):
            return await cast("Awaitable[ResultT]", returned)  # type: ignore[redundant-cast]
        return returned

    async def _snapshot(self) -> Path:
        for _ in range(_ATTEMPTS - 1):
            try:
                return await trio.to_thread.run_sync(self._copy)
            except SourceChangedError:
                continue
        return await trio.to_thread.run_sync(self._copy)

    def _copy(self) -> Path:
        """Copy the source: a hard link would change under a writer that writes in place."""
        check = trio.from_thread.check_cancelled
        name = Path(self._source).name
        path = os.path.join(self._directory, name)
        temporary = os.path.join(self._directory, ".new")
        with open_settled(self._source) as descriptor:
            before = os.fstat(descriptor)
            reader = HashingReader(descriptor, check)
            with open(temporary, "wb", opener=partial(os.open, mode=0o600)) as copy:
                while data := reader.read(1024 * 1024):
                    copy.write(data)
            if HashingReader(descriptor, check).digest() != reader.digest():
                raise SourceChangedError(f"{os.fspath(self._source)}: written while it was read")
            os.utime(temporary, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.rename(temporary, path)
        return Path(path)


@final
@attrs.frozen
class StagedCustom(Generic[ResultT]):
    """A snapshot of the source, for the function to apply."""

    _handler: CustomConfiguration[ResultT]
    snapshot: Path | None
    """The snapshot's path; None when there is none."""

    error: Exception | None
    """Why there is no snapshot; None when there is."""

    @property
    def changed(self) -> Mapping[str, Modification]:
        """Empty: what the function will change is not known."""
        return {}

    async def commit(self, *, trial: bool = False) -> ResultT:  # noqa: ARG002
        """Let the function apply the snapshot, and publish its result.

        Args:
            trial: Without meaning here: what a function did cannot be taken back.

        Raises:
            Exception: The staged `error`, or what the function raised.
        """
        if self.error is not None or self.snapshot is None:
            await trio.lowlevel.checkpoint()
            raise self.error or RuntimeError("a staged update without a snapshot")
        return await self._handler.apply(self.snapshot)


@asynccontextmanager
async def open_custom_configuration(
    source: "str | os.PathLike[str]",
    update: "Callable[[Path], ResultT | Awaitable[ResultT]]",
    *,
    settle: float = 0.0,
) -> "AsyncGenerator[CustomConfiguration[ResultT]]":
    """Watch a source, and apply it by a function of one's own.

    A `Supervisor` whose `on_change` is restart, or depends on the changed paths, calls the
    function between two processes, and starts the next one even if the function fails: nothing
    tells beforehand. With `Reload` or `Ignore` the function runs beside the process.

    Args:
        source: The file to watch; it need not exist yet.
        update: An async or plain function (which then runs in a worker thread). It gets the
            path of a private copy of the source, under the same name, that is never
            half-written and never changes while the function runs, and returns a result of
            any class with an attribute `error`: None when all of it was applied.
        settle: Seconds of quiet before a change of the source is told.

    Raises:
        OSError: No private directory can be made for the copy.

    Example::

        @attrs.frozen
        class Loaded:
            error: Exception | None = None

        async def load(snapshot: Path) -> Loaded:
            await import_into_database(snapshot)
            return Loaded()

        async with open_custom_configuration("/incoming/rules.json", load) as configuration:
            result = await configuration.update()
    """
    check_path("source", source)
    if not 0 <= settle < float("inf"):
        raise ValueError(f"settle is {settle!r}, expected seconds, at least 0")
    import tempfile  # slow, and needed by nothing else

    with tempfile.TemporaryDirectory(prefix="trio-entrypoint-") as directory:
        async with open_path_watch(source) as watch:
            with (
                NewestChannel[ConfigurationEvent]() as events,
                ObserverChannel[ResultT]() as results,
            ):
                handler = CustomConfiguration(source, update, directory, events, results)
                events.send(state_of(watch))
                async with open_background(partial(tell_changes, watch, events, settle)):
                    yield handler
