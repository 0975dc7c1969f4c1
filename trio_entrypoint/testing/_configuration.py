"""A configuration whose source, validator and disk are the test's."""

import hashlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import final

import attrs
import trio

from trio_entrypoint._channels import NewestChannel
from trio_entrypoint.handlers import (
    GENERATION_VARIABLE,
    ConfigurationChanged,
    ConfigurationDeleted,
    ConfigurationEvent,
    ConfigurationFailed,
    Generation,
    Modification,
    UpdateResult,
)

__all__ = ["FakeConfiguration", "FakeSource"]


@final
@attrs.frozen(kw_only=True)
class FakeSource:
    """What a source holds: a name for its contents, and how an update of it goes."""

    contents: str
    """What the digest is made from: equal contents are the same configuration."""

    changed: Mapping[str, Modification] = attrs.field(hash=False)
    """What the update says has changed."""

    error: Exception | None = None
    """Why the update is refused; None when it is valid."""

    takes: float = 0.0
    """Seconds that staging takes."""

    @property
    def digest(self) -> str:
        """The SHA-256 of the contents."""
        return hashlib.sha256(self.contents.encode()).hexdigest()


@final
class FakeConfiguration:
    """A `RevertibleConfigurationHandler` whose source the test changes.

    Example::

        configuration = FakeConfiguration()  # no source yet: the first one is waited for
        configuration.change("one")
        configuration.change("two", error=ValueError("line 3"))
        configuration.delete()
        configuration.generation  # the one in place
    """

    def __init__(self, contents: str | None = None, *, applied: bool = False) -> None:
        self.source: FakeSource | None = None
        """What the source holds now."""
        self.history: list[Generation] = []
        """Every generation that was put in place, rollbacks too, in order."""
        self.generation: Generation | None = None
        """The one in place."""
        self.trusted: list[Generation] = []
        """Those that are trusted, in order; a rollback goes to the newest but the present."""
        self.refused: dict[str, str] = {}
        """Digests that were rolled back from, and why, until another one is trusted."""
        self.adjourned: bool = False
        """Whether the trial that is on was adjourned."""
        self.pinned: list[Generation] = []
        """What is pinned now, by the processes that run on it."""
        self._channel = NewestChannel[ConfigurationEvent]()
        self._send_result, self._results = trio.open_memory_channel[UpdateResult](float("inf"))
        self._observed = False
        self._busy = trio.Lock()
        if contents is None:
            self._channel.send(ConfigurationDeleted())
        elif applied:
            self.source = FakeSource(contents=contents, changed={})
            self._put_in_place(self.source, trial=False)
        else:
            self.change(contents)

    # --- the test's side

    def change(
        self,
        contents: str,
        *,
        changed: Iterable[str] = ("app.conf",),
        error: Exception | None = None,
        takes: float = 0.0,
    ) -> None:
        """Replace the source.

        Args:
            contents: A name for its contents; equal contents are the same configuration.
            changed: The paths that the update will say have changed.
            error: Why the update is refused; None when it is valid.
            takes: Seconds that staging takes.
        """
        self.source = FakeSource(
            contents=contents,
            changed=dict.fromkeys(changed, Modification.MODIFIED),
            error=error,
            takes=takes,
        )
        self._channel.send(ConfigurationChanged())

    def delete(self) -> None:
        """Remove the source."""
        self.source = None
        self._channel.send(ConfigurationDeleted())

    def fail(self, error: Exception) -> None:
        """Make the source unreadable for now."""
        self._channel.send(ConfigurationFailed(error))

    def reopened(self) -> "FakeConfiguration":
        """The handler that the next start of the entrypoint finds, once this one was killed.

        A generation that is on trial is gone, and refused if the trial was not adjourned.
        """
        other = FakeConfiguration()
        other.source, other.generation = self.source, self.generation
        other.history, other.trusted = list(self.history), list(self.trusted)
        other.refused = dict(self.refused)
        if self.on_trial and self.generation is not None:
            other.generation = self.trusted[-1] if self.trusted else None
            if self.trusted and not self.adjourned:
                reason = "the entrypoint ended before the configuration was confirmed"
                other.refused[self.generation.digest] = reason
        if self.source is not None:
            other._channel.send(ConfigurationChanged())
        return other

    def close(self) -> None:
        """End the channels, as leaving a handler's block does."""
        self._channel.__exit__(None, None, None)
        self._send_result.close()

    # --- the handler's side

    @property
    def events(self) -> "trio.MemoryReceiveChannel[ConfigurationEvent]":
        """As in `ConfigurationHandler`."""
        return self._channel.events

    @property
    def results(self) -> "trio.MemoryReceiveChannel[UpdateResult]":
        """As in `ConfigurationHandler`."""
        self._observed = True
        return self._results

    @property
    def applied(self) -> bool:
        """As in `ConfigurationHandler`."""
        return self.generation is not None

    @asynccontextmanager
    async def stage(self) -> "AsyncGenerator[FakeStaged]":
        """As in `ConfigurationHandler`."""
        async with self._busy:
            source = self.source
            await trio.sleep(source.takes if source else 0)
            error = self._error(source)
            changed = self._changed(source if error is None else None)
            yield FakeStaged(error, changed, partial(self._commit, source, error))

    async def update(self) -> UpdateResult:
        """As in `ConfigurationHandler`."""
        async with self.stage() as staged:
            return await staged.commit()

    @contextmanager
    def pin(self) -> Generator[Mapping[str, str]]:
        """As in `ConfigurationHandler`; look at `pinned`."""
        generation = self.generation
        if generation is None:
            yield {}
            return
        self.pinned.append(generation)
        try:
            yield {GENERATION_VARIABLE: str(generation.path)}
        finally:
            self.pinned.remove(generation)

    @property
    def on_trial(self) -> bool:
        """As in `RevertibleConfigurationHandler`."""
        return self.generation is not None and self.generation not in self.trusted

    async def adjourn(self) -> None:
        """As in `RevertibleConfigurationHandler`; look at `adjourned`."""
        await trio.lowlevel.checkpoint()
        self.adjourned = self.on_trial

    async def confirm(self) -> None:
        """As in `RevertibleConfigurationHandler`."""
        await trio.lowlevel.checkpoint()
        if self.generation is not None and self.on_trial:
            self.trusted.append(self.generation)
            self.adjourned = False
            self.refused = {}

    async def rollback(self, reason: str = "rolled back on request") -> UpdateResult:
        """As in `RevertibleConfigurationHandler`."""
        await trio.lowlevel.checkpoint()
        present = self.generation
        earlier = [generation for generation in self.trusted if generation != present]
        if present is None or not earlier:
            error = LookupError("no earlier generation is trusted")
            return self._publish(UpdateResult(error=error, generation=present))
        self.refused[present.digest] = reason
        self.trusted = earlier
        self.generation, self.adjourned = earlier[-1], False
        self.history.append(self.generation)
        return self._publish(UpdateResult(generation=self.generation))

    def _in_place(self, source: FakeSource) -> bool:
        return self.generation is not None and self.generation.digest == source.digest

    def _changed(self, source: FakeSource | None) -> Mapping[str, Modification]:
        if source is None or self._in_place(source):
            return dict[str, Modification]()
        return source.changed

    def _error(self, source: FakeSource | None) -> Exception | None:
        if source is None:
            return FileNotFoundError("the source does not exist")
        if source.digest in self.refused and not self._in_place(source):
            return ValueError(self.refused[source.digest])
        return source.error

    def _commit(
        self, source: FakeSource | None, error: Exception | None, trial: bool
    ) -> UpdateResult:
        error = error or self._error(source)  # it may have been rolled back meanwhile
        if source is None or error is not None:
            return self._publish(UpdateResult(error=error, generation=self.generation))
        if self._in_place(source):
            return self._publish(UpdateResult(generation=self.generation))
        generation = self._put_in_place(source, trial=trial)
        return self._publish(UpdateResult(changed=source.changed, generation=generation))

    def _put_in_place(self, source: FakeSource, *, trial: bool) -> Generation:
        number = 1 + max((generation.number for generation in self.history), default=0)
        generation = Generation(number, source.digest, Path(f"/generations/{number}"))
        self.generation, self.adjourned = generation, False
        self.history.append(generation)
        if not trial:
            self.trusted.append(generation)
            self.refused = {}
        return generation

    def _publish(self, result: UpdateResult) -> UpdateResult:
        if self._observed:
            self._send_result.send_nowait(result)
        return result


@final
class FakeStaged:
    """A `StagedUpdate` of a `FakeConfiguration`."""

    def __init__(
        self,
        error: Exception | None,
        changed: Mapping[str, Modification],
        commit: Callable[[bool], UpdateResult],
    ) -> None:
        self.error = error
        """As in `StagedUpdate`."""
        self.changed = changed
        """As in `StagedUpdate`."""
        self._commit = commit

    async def commit(self, *, trial: bool = False) -> UpdateResult:
        """As in `StagedUpdate`."""
        await trio.lowlevel.checkpoint()
        return self._commit(trial)
