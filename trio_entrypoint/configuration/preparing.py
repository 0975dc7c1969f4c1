"""The way from a source to a generation that is complete and validated, but not in place.

The source is read in a worker thread, which asks often whether the caller was cancelled; the
validator runs in the caller's task. Whatever it ends with, nothing half made is left.
"""

from contextlib import suppress
from pathlib import Path
from typing import final

import trio

from trio_entrypoint._files.errors import SourceChangedError, SourceError
from trio_entrypoint._files.generations import Sealed, Store
from trio_entrypoint._nursery import cancelled_or_failed
from trio_entrypoint.configuration.change import Change
from trio_entrypoint.configuration.options import Options
from trio_entrypoint.configuration.source import Source
from trio_entrypoint.configuration.validation import ConfigurationRefusedError

# How often a source that changes while it is read is read again, before that is an error.
_ATTEMPTS = 5


def refused_before(reason: str) -> ConfigurationRefusedError:
    """The error of a source that was rolled back, and that nothing has replaced since."""
    return ConfigurationRefusedError(f"this source was rolled back before: {reason}")


@final
class Preparation:
    """Makes generations of the newest source."""

    def __init__(self, source: Source, store: Store, options: Options) -> None:
        self._source = source
        self._store = store
        self._options = options

    async def prepare(self, number: int) -> tuple[Change | Sealed | None, Exception | None]:
        """Make a generation of the newest source, and validate it.

        Returns:
            What it changes, or the generation in place if that is made of this very source;
            and why it must not be put in place.
        """
        error: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                change = await trio.to_thread.run_sync(self._stage, number)
                break
            except SourceChangedError as changed:
                error = changed
            except (OSError, SourceError, ConfigurationRefusedError) as failed:
                return None, failed
        else:
            return None, error
        if isinstance(change, Sealed) or self._options.validate is None:
            return change, None
        try:
            verdict = self._options.validate(Path(change.new.path))
            if await cancelled_or_failed(verdict) is False:
                return change, ConfigurationRefusedError("the validator returned False")
        except Exception as refusal:  # noqa: BLE001 - a validator refuses by raising anything
            return change, refusal
        except BaseException:
            with trio.CancelScope(shield=True), suppress(OSError):
                await trio.to_thread.run_sync(self._store.records.remove, number)
            raise
        return change, None

    def _stage(self, number: int) -> Change | Sealed:
        """Read the source into a new generation, if the one in place is another. In a thread."""
        check = trio.from_thread.check_cancelled
        with self._source.snapshot(check) as snapshot:
            current = self._store.current
            source = snapshot.digest, snapshot.variant
            if (
                self._store.applied
                and current is not None
                and (current.manifest.digest, current.manifest.variant) == source
            ):
                return current
            reason = self._store.refused.get(snapshot.digest)
            if reason is not None:
                raise refused_before(reason)
            sealed = self._store.stage(
                number,
                source,
                lambda tree: snapshot.write(tree, check),
                self._options.limits,
                check,
            )
            return Change.between(current, sealed)
