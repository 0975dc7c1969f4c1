"""An activation that a test switches."""

from types import TracebackType
from typing import Self, final

import trio

from trio_entrypoint._channels import NewestChannel
from trio_entrypoint.handlers import ActivationChanged

__all__ = ["FakeActivation"]


@final
class FakeActivation:
    """An `ActivationHandler` that is as active as the test says.

    It works at once; `async with` it as well where the code under test opens it.

    Example::

        activation = FakeActivation(active=False)
        activation.activate(token="7")
        activation.deactivate()
    """

    def __init__(self, *, active: bool = True, token: str | None = None) -> None:
        self._channel = NewestChannel[ActivationChanged]()
        self._set(active, token)

    def _set(self, active: bool, token: str | None, deadline: float | None = None) -> None:
        self._active, self._token = active, token
        self._channel.send(ActivationChanged(active, token, deadline))

    def activate(self, token: str | None = None) -> None:
        """Become the active one; repeat it with another token for a new lease."""
        self._set(True, token)

    def deactivate(self, deadline: float | None = None) -> None:
        """Become a backup.

        Args:
            deadline: When the process has to be gone, in seconds of the (mock) clock.
        """
        self._set(False, None, deadline)

    def close(self) -> None:
        """End `events`, as leaving a handler's block does."""
        self._channel.__exit__(None, None, None)

    @property
    def events(self) -> "trio.MemoryReceiveChannel[ActivationChanged]":
        """The newest state, as in `ActivationHandler`."""
        return self._channel.events

    @property
    def active(self) -> bool:
        """The state now, as in `ActivationHandler`."""
        return self._active

    @property
    def token(self) -> str | None:
        """The token of the activation now, as in `ActivationHandler`."""
        return self._token

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
