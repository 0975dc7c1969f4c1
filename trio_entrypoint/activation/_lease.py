"""What a lease allows its holder, and until when: everything that affects it is in this file.

No I/O and no clock: every method is told the time, on one clock that only goes forward and
also counts while the machine is suspended (`CLOCK_BOOTTIME`).

The rules, for a lease that others may take over once it has not been renewed for `duration`:

1. The server's count starts when a renewal reaches it, so not before it was sent: others wait
   at least until `sent + duration`. Clocks may differ in rate; a margin answers for that.
2. The application has to be *gone* by then, not just asked to go: deactivation comes
   `stop_within` seconds earlier.
3. An expired deadline is noticed before any news is looked at. A renewal that is confirmed
   after deactivation prolongs nothing: the application is already being stopped.
4. News that the lease is lost (revoked, taken by another) ends activity at once.
5. Each activation has a token of its own; one lease is never active twice.

    unheld --extend--> held --elect--> active --check/lose--> ended
"""

from math import inf
from typing import final

import attrs

MARGIN = 0.05
"""The part of a lease that is not used: 5 % answers for clocks that differ in rate (NTP slews
by 0.05 %), with enough left for a wake-up that comes late."""


@final
@attrs.frozen
class Tenure:
    """What one confirmed renewal allows."""

    sent: float
    """When the renewal was about to be sent, in seconds."""

    duration: float
    """How long the server promised to wait, in seconds."""

    stop_within: float
    """How long the application may take to be gone, in seconds."""

    @property
    def gone_by(self) -> float:
        """The time by which nothing may be active any more."""
        return self.sent + self.duration * (1 - MARGIN)

    @property
    def demote_at(self) -> float:
        """The time at which deactivation begins, unless the lease was renewed before."""
        return self.gone_by - self.stop_within

    @property
    def renew_at(self) -> float:
        """When to renew: two more tries fit before deactivation."""
        return self.sent + (self.demote_at - self.sent) / 3


@final
class Lease:
    """One lease and whether its holder is active. Made anew for each attempt to be elected."""

    def __init__(self) -> None:
        self.tenure: Tenure | None = None
        self.token: str | None = None
        self.ended = False
        self.gone_by: float | None = None
        """Set when activity ended: nothing may be active any more by then; may have passed."""

    def active(self, now: float) -> bool:
        """Whether the holder may be active at this very moment."""
        return (
            self.token is not None
            and not self.ended
            and self.tenure is not None
            and now < self.tenure.demote_at
        )

    def extend(self, now: float, tenure: Tenure) -> None:
        """Count a confirmed renewal. Confirmations may come late and out of order."""
        self.check(now)
        if not self.ended and (self.tenure is None or tenure.gone_by > self.tenure.gone_by):
            self.tenure = tenure

    def elect(self, now: float, token: str) -> bool:
        """Become active, unless it is too late for that; return whether it was not."""
        if self.token is not None:
            raise RuntimeError("a lease is active once: take a new one")
        if self.ended or self.tenure is None or now >= self.tenure.demote_at:
            return False
        self.token = token
        return True

    def check(self, now: float) -> None:
        """End activity if its time has passed. To be called first, after every wake-up."""
        if self.token is not None and not self.ended and not self.active(now):
            self._end(inf)

    def lose(self, now: float) -> None:
        """The lease is known to be lost: others may be active already."""
        self.check(now)
        if not self.ended:
            self._end(now)

    def _end(self, at_most: float) -> None:
        self.ended = True
        if self.token is not None and self.tenure is not None:
            self.gone_by = min(at_most, self.tenure.gone_by)
