"""Taking in activations: whether to be active, and until when a process has to be gone.

What counts is what the handler *is*: an event only says 'look'. While one task has an old event
in its hands, another one may have looked already, and a newer event been told.
"""

from typing import final

import trio

from trio_entrypoint._channels import ACTIVATION, SoleReceiver, refuse_second_receiver
from trio_entrypoint._supervisor.supervision import Supervision
from trio_entrypoint.handlers import ActivationHandler
from trio_entrypoint.states import Cause

__all__ = ["Activator"]


@final
class Activator:
    """Follows the activation of one supervised process."""

    def __init__(self, supervision: Supervision, handler: ActivationHandler) -> None:
        self._supervision = supervision
        self._facts = supervision.facts
        self._handler = handler
        self._handler_ended = False
        self._watching = trio.CancelScope(shield=True)

    def take_over(self) -> None:
        """Take in the state at the beginning, unless another supervisor follows the handler."""
        refuse_second_receiver(self._handler.events, ACTIVATION)
        self.look()

    async def watch(self) -> None:
        """Look whenever the handler tells something, until `end`, whatever is cancelled before.

        A supervisor that is cancelled stops its process for a while yet. Should its lease be
        lost meanwhile, the process has to be gone by the lease's deadline all the same.
        """
        with self._watching:
            async for event in SoleReceiver(self._handler.events, ACTIVATION):
                self.look()
                if event.deadline is not None:
                    self._be_gone_by(event.deadline)
            self._handler_ended = True
            self.look()

    def end(self) -> None:
        """There is no process any more, and there will be none."""
        self._watching.cancel()

    def look(self) -> None:
        """Take in what the handler is now."""
        facts = self._facts
        token = self._handler.token  # before `active`: a lease may run out between the two
        active = self._handler.active and not self._handler_ended  # else nobody vouches for it
        if not active:
            token = None
        if (active, token) == (facts.active, facts.token):
            return
        cause = Cause.ACTIVATED if active else Cause.DEACTIVATED
        if active and facts.active:
            cause = Cause.REACTIVATED
            run = self._supervision.run
            facts.stale = facts.stale or (run is not None and run.token != token)
        if active and not facts.active:
            facts.start_at_once(trio.current_time())
        facts.active, facts.token = active, token
        self._supervision.tell(cause)
        self._supervision.look(cause)

    def _be_gone_by(self, deadline: float) -> None:
        """Nothing of a lost activation may be left then; what another one started is not meant."""
        facts, run = self._facts, self._supervision.run
        if run is not None and (not facts.active or run.token != facts.token):
            run.be_gone_by(deadline)
