"""Taking in activations: what they say, and until when a process has to be gone."""

from contextlib import suppress
from typing import final

import trio

from trio_entrypoint._supervisor.supervision import Supervision
from trio_entrypoint.handlers import ActivationChanged, ActivationHandler
from trio_entrypoint.states import Cause

__all__ = ["Activator"]


@final
class Activator:
    """Follows the activation of one supervised process."""

    def __init__(self, supervision: Supervision, handler: ActivationHandler) -> None:
        self._supervision = supervision
        self._facts = supervision.facts
        self._handler = handler
        self._watching = trio.CancelScope(shield=True)

    def take_over(self) -> None:
        """Take in the state at the beginning: its event may have gone to another supervisor."""
        self.refresh()
        if self._handler.active and not self._facts.active:
            self._take(ActivationChanged(active=True, token=self._handler.token))

    async def watch(self) -> None:
        """Take in what the handler tells, until `end`, whatever is cancelled before.

        A supervisor that is cancelled stops its process for a while yet. Should its lease be
        lost meanwhile, the process has to be gone by the lease's deadline all the same.
        """
        with self._watching:
            async for event in self._handler.events:
                self._take(event)
            # Nobody vouches for the activation any more.
            self._take(ActivationChanged(active=False))

    def end(self) -> None:
        """There is no process any more, and there will be none."""
        self._watching.cancel()

    def refresh(self) -> None:
        """Take in what the handler has told and `watch` has not received yet."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            self._take(self._handler.events.receive_nowait())
        if self._facts.active and not self._handler.active:
            self._take(ActivationChanged(active=False))  # its event is on the way

    def _take(self, event: ActivationChanged) -> None:
        facts, was, run = self._facts, self._facts.active, self._supervision.run
        facts.active, facts.token = event.active, event.token
        cause = Cause.ACTIVATED if event.active else Cause.DEACTIVATED
        if was and event.active:
            cause = Cause.REACTIVATED
            if run is not None and run.token != event.token:
                facts.stale = True
        if event.active and not was:
            facts.retry_at = 0.0
        self._supervision.tell(cause)
        self._supervision.look(cause)
        if run is not None and not event.active and event.deadline is not None:
            run.be_gone_by(event.deadline)
