"""Pauses between tries, so that a server that is back is not met by everybody at once."""

import random
from typing import final

import trio

LONGEST = 2.0
"""The longest pause, in seconds."""

_FIRST = 0.1


@final
class Pauses:
    """Each pause is about twice as long as the one before, if what failed did so soon."""

    def __init__(self) -> None:
        self._next = _FIRST
        self._over_at = 0.0

    async def pause(self) -> None:
        """Wait for up to 0.1 s, then 0.2 s, and so on to `LONGEST`.

        It begins anew where the last pause is longer ago than that: nobody was asked meanwhile.
        """
        if trio.current_time() - self._over_at > LONGEST:
            self._next = _FIRST
        await trio.sleep(self._next * random.uniform(0.5, 1))  # noqa: S311 - no secret
        self._next = min(2 * self._next, LONGEST)
        self._over_at = trio.current_time()
