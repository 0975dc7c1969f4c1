"""The handler behind every configuration that is kept in generations.

A source is prepared next to the target (`preparing`), put in place here, and what nobody needs
any more is removed by a task (`collecting`); another one watches the source (`watching`). All
else happens in the caller's task. What takes long does so in a worker thread; putting a
generation in place is a few system calls right here, so that a cancellation cannot fall into
the middle of it.
"""

import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import final

import trio

from trio_entrypoint._arguments import AnyPath
from trio_entrypoint._channels import NewestChannel, ObserverChannel
from trio_entrypoint._files.generations import NoGenerationError, Sealed, Store
from trio_entrypoint._nursery import open_background
from trio_entrypoint.configuration.change import Change
from trio_entrypoint.configuration.collecting import Collector
from trio_entrypoint.configuration.options import Options
from trio_entrypoint.configuration.preparing import Preparation, refused_before
from trio_entrypoint.configuration.source import Source
from trio_entrypoint.configuration.watching import state_of, tell_changes
from trio_entrypoint.handlers import (
    GENERATION_VARIABLE,
    ConfigurationEvent,
    Generation,
    Modification,
    UpdateResult,
)

# How many names at the top of a generation are handled before a thread could begin.
_FEW = 100


@final
class GenerationConfiguration:
    """A configuration kept in generations. `open_tar_configuration` and its like make it."""

    def __init__(
        self,
        source: Source,
        store: Store,
        options: Options,
        collector: Collector,
        events: "NewestChannel[ConfigurationEvent]",
        results: ObserverChannel[UpdateResult],
    ) -> None:
        self._store = store
        self._preparation = Preparation(source, store, options)
        self._durability = options.durability
        self._collector = collector
        self._events = events
        self._results = results
        self._staging = trio.Lock()
        self._switching = trio.Lock()

    @property
    def events(self) -> "trio.MemoryReceiveChannel[ConfigurationEvent]":
        """The newest state of the source; the first is its state at opening time."""
        return self._events.events

    @property
    def results(self) -> "trio.MemoryReceiveChannel[UpdateResult]":
        """Every result since this was first asked for, in order, for observers."""
        return self._results.events

    @property
    def applied(self) -> bool:
        """Whether a configuration is in place, from this run or from an earlier one."""
        return self._store.applied

    @property
    def generation(self) -> Generation | None:
        """The generation in place; None when there is none."""
        current = self._store.current
        if current is None or not self._store.applied:
            return None
        return Generation(current.number, current.manifest.digest, Path(current.path))

    @property
    def on_trial(self) -> bool:
        """Whether the generation in place was committed as a trial, and not confirmed yet."""
        return self._store.on_trial

    @asynccontextmanager
    async def stage(self) -> "AsyncGenerator[StagedGeneration]":
        """Prepare the newest source next to the target, validated, not yet in place.

        Leaving the block without `commit()` removes what was prepared. Neither a broken
        source nor a validator's refusal raises: it is `StagedGeneration.error`. One update
        is staged at a time: others wait for the block's end.
        """
        async with self._staging:
            staged = StagedGeneration(self, time.monotonic())
            number: int | None = None
            try:
                number = self._store.records.next_number()
            except OSError as error:
                staged.error = error
            if number is None:
                yield staged
                return
            with self._collector.holding(number):
                try:
                    prepared, staged.error = await self._preparation.prepare(number)
                    if isinstance(prepared, Change):
                        staged.change = prepared
                    else:
                        staged.present = prepared
                    yield staged
                finally:
                    if staged.sealed is not None and not staged.in_place:
                        # What fails here is done by the collector.
                        with trio.CancelScope(shield=True), suppress(OSError):
                            await trio.to_thread.run_sync(self._store.records.remove, number)

    async def update(self) -> UpdateResult:
        """Apply the newest source: `stage()` and `commit()` in one.

        The result also goes to `results`. Cancellation waits for the current step and then
        leaves the old configuration in place.
        """
        async with self.stage() as staged:
            return await staged.commit()

    @contextmanager
    def pin(self) -> Generator[Mapping[str, str]]:
        """Hold the generation in place for a process, and give the environment that names it.

        Within the block that generation is not collected, whatever is applied meanwhile.
        """
        generation = self.generation
        if generation is None:
            yield {}
            return
        with self._collector.holding(generation.number):
            yield {GENERATION_VARIABLE: str(generation.path)}

    async def confirm(self) -> None:
        """Trust the generation in place; what it replaced may be collected.

        Raises:
            OSError: It cannot be noted: nothing has changed.
        """
        async with self._switching:
            self._store.confirm()
            if self._durability == "disk":
                await trio.to_thread.run_sync(self._store.sync_contents)
            self._collector.look()

    async def adjourn(self) -> None:
        """End without a verdict on the generation that is on trial, if one is.

        It stays in place and is not trusted: the next start goes back to the last trusted one,
        and tries this source again. It is to be called as soon as the end is near: whatever
        kills the entrypoint afterwards is no verdict either. `confirm()` and `rollback()` still
        can be called. Cancellation is possible only before it.

        Raises:
            OSError: It cannot be noted: the next start will refuse this source.
        """
        async with self._switching:
            self._store.adjourn()

    async def rollback(self, reason: str = "rolled back on request") -> UpdateResult:
        """Put the last trusted generation before the present one in place, in one step.

        The source that is rolled back from is remembered by its digest and refused, for
        `reason`, until another one was applied and trusted. Without an earlier trusted
        generation nothing changes, and the result says so.

        Cancellation is possible only before the first step.
        """
        started = time.monotonic()
        async with self._switching:
            changed: Mapping[str, Modification] = {}
            error: Exception | None = None
            unknown = None
            with trio.CancelScope(shield=True):
                try:
                    change = await trio.to_thread.run_sync(self._prepare_rollback, reason)
                    self._store.put_back(change.new)
                except (OSError, NoGenerationError) as failed:
                    error = failed
                else:
                    changed = change.paths
                    await self._step(change.new, self._store.tidy)
                    unknown = await self._sync_pointer()
            return self._publish(started, changed, error=error, durability_error=unknown)

    async def commit(self, staged: "StagedGeneration", trial: bool) -> UpdateResult:
        """Put a staged generation in place; see `StagedGeneration.commit`."""
        async with self._switching:
            sealed = staged.sealed
            if staged.error is None:
                staged.error = self._refusal(staged)
            if staged.error is not None:
                return self._publish(staged.started, error=staged.error)
            if sealed is None or staged.in_place:
                return self._publish(staged.started)
            changed = self.would_change(staged)
            try:
                if trial:
                    self._store.begin_trial(sealed)
                if self._durability == "disk":
                    await trio.to_thread.run_sync(self._store.sync_contents)
                await self._step(sealed, partial(self._store.prepare, sealed))
                self._store.publish(sealed, trial=trial)
            except OSError as error:
                return self._publish(staged.started, error=error)
            staged.in_place = True
            with trio.CancelScope(shield=True):
                await self._step(sealed, self._store.tidy)
            unknown = await self._sync_pointer()
            return self._publish(staged.started, changed, durability_error=unknown)

    def _refusal(self, staged: "StagedGeneration") -> Exception | None:
        """Why it must not be put in place any more: it was rolled back after it was staged."""
        made = staged.sealed or staged.present
        if made is None or made is self._store.current:
            return None
        reason = self._store.refused.get(made.manifest.digest)
        return None if reason is None else refused_before(reason)

    def would_change(self, staged: "StagedGeneration") -> Mapping[str, Modification]:
        """What putting a staged generation in place would change now."""
        change = staged.change
        if staged.error is not None or change is None:
            return {}
        if change.old is not self._store.current:  # it was rolled back meanwhile
            change = staged.change = Change.between(self._store.current, change.new)
        return change.paths

    def _prepare_rollback(self, reason: str) -> Change:
        """Prepare to go back, and tell what that changes. In a thread."""
        back = self._store.refuse(reason, sync=self._durability == "disk")
        return Change.between(self._store.current, back)

    async def _step(self, to: Sealed, step: Callable[[], None]) -> None:
        """Take a step that takes as long as there are names at the top of a generation.

        Many are a matter for a thread; a few are done before a thread could begin.
        """
        if len(to.manifest.top_level) > _FEW:
            await trio.to_thread.run_sync(step)
        else:
            step()

    async def _sync_pointer(self) -> OSError | None:
        """Bring a switch to the disk, if asked to; return why that is unknown."""
        if self._durability != "disk":
            return None
        with trio.CancelScope(shield=True):
            try:
                await trio.to_thread.run_sync(self._store.sync_pointer)
            except OSError as error:
                return error
        return None

    def _publish(
        self,
        started: float,
        changed: Mapping[str, Modification] | None = None,
        *,
        error: Exception | None = None,
        durability_error: Exception | None = None,
    ) -> UpdateResult:
        self._collector.look()
        current = self._store.current
        result = UpdateResult(
            error=error,
            changed=changed or {},
            generation=self.generation,
            size=0 if current is None else current.manifest.size,
            seconds=time.monotonic() - started,
            durability_error=durability_error,
        )
        self._results.send(result)
        return result


@final
class StagedGeneration:
    """An update that is complete and validated, but not in place yet."""

    def __init__(self, handler: GenerationConfiguration, started: float) -> None:
        self._handler = handler
        self.started = started
        self.change: Change | None = None
        self.present: Sealed | None = None
        """The generation in place, when the source is the one that it was made from."""
        self.error: Exception | None = None
        """Why it cannot be put in place; None when it can."""
        self.in_place = False

    @property
    def sealed(self) -> Sealed | None:
        """The generation that was prepared, if there is one."""
        return None if self.change is None else self.change.new

    @property
    def changed(self) -> Mapping[str, Modification]:
        """What putting it in place would change, by relative path; empty for nothing."""
        return self._handler.would_change(self)

    async def commit(self, *, trial: bool = False) -> UpdateResult:
        """Put it in place, in one step, and publish the result.

        A staged update with an `error` changes nothing, and the result carries that error.
        Cancellation is possible only before the step: whoever sees `trio.Cancelled` knows
        that nothing was changed.

        Args:
            trial: The new generation is not trusted until `confirm()`. An entrypoint that
                is killed before that goes back to the last trusted one at its next start,
                and refuses this one, unless the trial was adjourned.
        """
        return await self._handler.commit(self, trial)


@asynccontextmanager
async def open_generations(
    source: Source, open_store: Callable[[Sequence[AnyPath]], Store], options: Options
) -> AsyncGenerator[GenerationConfiguration]:
    """Manage a target by a source.

    Args:
        source: Where the configuration comes from.
        open_store: Opens the target's generations, in a worker thread, unless the target is
            in the way of one of the source's paths.
        options: What the user said.
    """
    store = await trio.to_thread.run_sync(open_store, source.paths)
    try:
        async with source.watch() as watch:
            with (
                NewestChannel[ConfigurationEvent]() as events,
                ObserverChannel[UpdateResult]() as results,
            ):
                collector = Collector(store)
                handler = GenerationConfiguration(
                    source, store, options, collector, events, results
                )
                events.send(state_of(watch))
                tell = partial(tell_changes, watch, events, options.settle)
                async with open_background(tell, collector.run):
                    yield handler
    finally:
        store.close()
