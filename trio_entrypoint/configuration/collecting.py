"""The task that removes old generations, and what keeps it from removing one.

A generation is held while it is staged, and while a process lives that was started with it.
All others go once they are too old, which the store knows.
"""

import logging
import math
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import final

import trio

from trio_entrypoint._files.generations import Store
from trio_entrypoint._files.retention import LINGER

_logger = logging.getLogger(__name__)


@final
class Collector:
    """Removes what is not needed any more from a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: Counter[int] = Counter()
        self._collectable = trio.Event()
        self._collectable.set()

    def look(self) -> None:
        """There may be something to remove now."""
        self._collectable.set()

    @contextmanager
    def holding(self, number: int) -> Generator[None]:
        """Keep a generation from being removed."""
        self._held[number] += 1
        try:
            yield
        finally:
            self._held[number] -= 1
            if not self._held[number]:
                del self._held[number]
            self.look()

    async def run(self) -> None:
        """Remove what is not needed any more, whenever there may be something, for ever."""
        while True:
            with trio.move_on_after(LINGER if self._store.retention.lingering else math.inf):
                await self._collectable.wait()
            self._collectable = trio.Event()
            try:
                # Decided here, so that what is staged or put in place meanwhile is safe.
                unwanted = self._store.unwanted(self._held)
                if unwanted:
                    await trio.to_thread.run_sync(self._store.retention.remove, unwanted)
                    self._store.read_refused()
            except OSError as error:
                _logger.warning("old generations cannot be removed: %s", error)
