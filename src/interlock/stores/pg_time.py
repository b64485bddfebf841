"""The server's clock, as far as this process knows it: what is stored is in the server's time, what is said in ours.

So ages, windows and deadlines come out right on a machine whose own clock is an hour off, or is set while it runs:
how far the two are apart is measured when the store is opened, and again with every renewal of leases.
"""

from __future__ import annotations

from interlock.core.clock import Clock

__all__ = ["ServerTime"]

# Clocks that are kept agree better than this; below it, an answer's way back would be taken for a difference.
AGREE_S = 1.0


class ServerTime:
    """How far the server's clock is ahead of this machine's. Times are Unix seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_s = 0.0

    def measure(self, server_s: float, asked_s: float) -> None:
        """Take in that the server's clock said `server_s`, asked at `asked_s` of ours."""
        ahead_s = server_s - (asked_s + self._clock.wall()) / 2
        self._ahead_s = ahead_s if abs(ahead_s) > AGREE_S else 0.0

    def now(self) -> float:
        """Return the server's time."""
        return self._clock.wall() + self._ahead_s

    def theirs(self, ours_s: float) -> float:
        """Return a time of ours as the server counts it."""
        return ours_s + self._ahead_s

    def ours(self, theirs_s: float) -> float:
        """Return a time of the server's as we count it."""
        return theirs_s - self._ahead_s

    def ours_or_none(self, theirs_s: float | None) -> float | None:
        """As `ours`, of a time that may be missing."""
        return None if theirs_s is None else theirs_s - self._ahead_s
