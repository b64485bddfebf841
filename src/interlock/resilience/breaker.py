"""A tool that keeps failing is left alone for a while, then tried once.

CLOSED until `threshold` failures fall within `window_s`; then OPEN for `cooldown_s`; then HALF_OPEN: one probe
goes through, and its verdict closes or opens the breaker again. A pure machine: times are numbers passed in.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

__all__ = ["Breaker", "BreakerState"]


class BreakerState(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """The breaker of one tool.

    Args:
        threshold: Failures within `window_s` that open it; at least 1.
        window_s: How long a failure counts.
        cooldown_s: How long it stays open before a probe; `window_s` when left out.

    Attributes:
        closed: Whether everything passes; read on the fast path.
        opens: How often it has opened.
    """

    __slots__ = (
        "_cooldown_s",
        "_failures",
        "_opened_s",
        "_probe_since_s",
        "_threshold",
        "_window_s",
        "closed",
        "opens",
    )

    def __init__(self, threshold: int, window_s: float, cooldown_s: float | None = None) -> None:
        if threshold < 1:
            raise ValueError("a breaker's threshold is at least 1")
        if window_s <= 0 or (cooldown_s is not None and cooldown_s <= 0):
            raise ValueError("a breaker's window and cool-down are longer than 0 s")
        self._threshold = threshold
        self._window_s = window_s
        self._cooldown_s = window_s if cooldown_s is None else cooldown_s
        self._failures: deque[float] = deque(maxlen=threshold)
        self._opened_s = 0.0
        self._probe_since_s: float | None = None
        self.closed = True
        self.opens = 0

    def state(self, now_s: float) -> BreakerState:
        """Return where it stands at this moment."""
        if self.closed:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_s < self._opened_s + self._cooldown_s else BreakerState.HALF_OPEN

    def ready(self, now_s: float) -> bool:
        """Whether `allow` would say yes; changes nothing."""
        return self.opens_in_s(now_s) == 0.0

    def allow(self, now_s: float) -> bool:
        """Whether a call may pass. Unless the breaker is closed, a yes makes this call the probe."""
        if self.closed:
            return True
        if not self.ready(now_s):
            return False
        self._probe_since_s = now_s
        return True

    def opens_in_s(self, now_s: float) -> float:
        """Return the seconds until a probe may pass at the latest, 0.0 when one may or everything does."""
        if self.closed:
            return 0.0
        # A probe that has been out for a whole cool-down tells nothing any more: another may go.
        since_s = self._opened_s if self._probe_since_s is None else self._probe_since_s
        return max(0.0, since_s + self._cooldown_s - now_s)

    def success(self, _now_s: float, *, probe: bool = True) -> None:
        """Take note of an answer: the probe's closes the breaker, others (begun before it opened) change nothing."""
        if probe and self._probe_since_s is not None:
            self.closed = True

    def failure(self, now_s: float, *, probe: bool = True) -> None:
        """Take note of a failure: the probe's, or one too many within the window, opens the breaker."""
        if self.closed:
            failures = self._failures
            failures.append(now_s)
            if len(failures) == self._threshold and now_s - failures[0] < self._window_s:
                self._open(now_s)
        elif probe and self._probe_since_s is not None:
            self._open(now_s)

    def release(self, _now_s: float, *, probe: bool = True) -> None:
        """Take note of an attempt that ended without a verdict: the next call may be the probe."""
        if probe:
            self._probe_since_s = None

    def _open(self, now_s: float) -> None:
        self.closed = False
        self.opens += 1
        self._opened_s = now_s
        self._probe_since_s = None
        self._failures.clear()
