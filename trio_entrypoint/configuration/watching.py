"""Telling what became of a source: the events of every configuration handler."""

import trio

from trio_entrypoint._channels import NewestChannel
from trio_entrypoint.configuration.source import SourceWatch
from trio_entrypoint.handlers import (
    ConfigurationChanged,
    ConfigurationDeleted,
    ConfigurationEvent,
    ConfigurationFailed,
)


async def tell_changes(
    watch: SourceWatch, events: NewestChannel[ConfigurationEvent], settle: float
) -> None:
    """Tell the state of a source after each change, for ever.

    Its first state is not told here: it has to be there when the handler is opened, before any
    task of the handler had its turn. Who looks at once would take the source for unchanged.

    Args:
        watch: Says when it changed.
        events: Where to.
        settle: Seconds of quiet that have to follow a change.
    """
    while True:
        await watch.changed()
        while settle:
            with trio.move_on_after(settle) as quiet:
                await watch.changed()
            if quiet.cancelled_caught:
                break
        events.send(state_of(watch))


def state_of(watch: SourceWatch) -> ConfigurationEvent:
    """The event that tells the state of a source."""
    if watch.error is not None:
        return ConfigurationFailed(watch.error)
    if watch.identity is None:
        return ConfigurationDeleted()
    return ConfigurationChanged()
