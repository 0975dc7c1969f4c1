"""What a supervisor tells the outside: the state now, its changes, and who waits for one."""

from collections.abc import Callable
from types import TracebackType
from typing import final

import attrs
import trio

from trio_entrypoint._channels import NewestChannel, ObserverChannel
from trio_entrypoint.handlers import ExitStatus
from trio_entrypoint.states import Cause, State, Transition

__all__ = ["Journal"]


@final
@attrs.define(eq=False)
class _Waiter:
    predicate: Callable[[State], bool]
    seen: State | None = None
    error: Exception | None = None
    over: trio.Event = attrs.field(factory=trio.Event)

    def look(self, state: State) -> None:
        """See whether this is the one; what the user's code raises is for who waits."""
        if self.over.is_set():
            return
        try:
            if not self.predicate(state):
                return
        except Exception as error:  # noqa: BLE001 - the user's code
            self.error = error
        else:
            self.seen = state
        self.over.set()


@final
class Journal:
    """The state of one supervisor, and everybody who is told of it. It is over with its block."""

    def __init__(self, name: str, state: State) -> None:
        self.state = state
        self._name = name
        self._since: float | None = None
        self._ended = False
        self._newest: NewestChannel[State] | None = None
        self._transitions = ObserverChannel[Transition]()
        self._waiters: set[_Waiter] = set()

    @property
    def states(self) -> "trio.MemoryReceiveChannel[State]":
        """The newest state."""
        if self._newest is None:  # a kilobyte or two, that few ask for
            self._newest = NewestChannel[State]()
            if self._since is not None:
                self._newest.send(self.state)
            if self._ended:
                self._newest.__exit__(None, None, None)
        return self._newest.events

    @property
    def events(self) -> "trio.MemoryReceiveChannel[Transition]":
        """Every transition since this was first asked for."""
        return self._transitions.events

    def enter(
        self,
        state: State,
        cause: Cause,
        *,
        status: ExitStatus | None = None,
        error: BaseException | None = None,
        result: object = None,
    ) -> None:
        """Record a transition; without a change and without anything to say there is none."""
        before, now = self.state, trio.current_time()
        if state == before and status is None and error is None and result is None:
            return
        seconds = now - self._since if self._since is not None else 0.0
        if self._since is None or state.process is not before.process:
            self._since = now
        self.state = state
        if self._transitions.observed:
            transition = Transition(
                time=now,
                name=self._name,
                before=before,
                after=state,
                cause=cause,
                seconds=seconds,
                status=status,
                error=error,
                result=result,
            )
            self._transitions.send(transition)
        if state != before:
            if self._newest is not None:
                self._newest.send(state)
            for waiter in self._waiters:
                waiter.look(state)

    async def wait_for(self, predicate: Callable[[State], bool]) -> State:
        """Wait for a state, however short it lasts."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if predicate(state := self.state):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return state
        if not self._ended:
            waiter = _Waiter(predicate)
            self._waiters.add(waiter)
            try:
                await waiter.over.wait()
            finally:
                self._waiters.discard(waiter)
            if waiter.error is not None:
                raise waiter.error
            if waiter.seen is not None:
                return waiter.seen
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        raise trio.EndOfChannel(f"{self._name}: supervision has ended: {self.state}")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        if self._newest is not None:
            self._newest.__exit__(exc_type, exc_value, traceback)
        self._transitions.__exit__(exc_type, exc_value, traceback)
        for waiter in self._waiters:
            waiter.over.set()
