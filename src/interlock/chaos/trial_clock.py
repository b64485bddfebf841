"""Time and chance of a trial: virtual or the machine's; what was drawn is kept."""

from __future__ import annotations

from interlock.core.clock import SYSTEM, LoopClock

__all__ = ["RealTrialClock", "TrialClock"]


class TrialClock(LoopClock):
    """The loop's time, and what chance was drawn when: (time, value)."""

    def __init__(self, *, seed: int) -> None:
        super().__init__(seed=seed)
        self.draws: list[tuple[float, float]] = []

    def uniform(self, low: float, high: float) -> float:
        """See `Clock.uniform`."""
        value = super().uniform(low, high)
        self.draws.append((self.monotonic(), value))
        return value


class RealTrialClock(TrialClock):
    """The machine's time, in every thread and process alike; chance is the seed's, identifiers are nobody else's."""

    _jumped_s = 0.0

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return SYSTEM.monotonic()

    def boot(self) -> float:
        """See `Clock.boot`."""
        return SYSTEM.boot()

    def wall(self) -> float:
        """See `Clock.wall`."""
        return SYSTEM.wall() + self._jumped_s

    def jump_wall(self, delta_s: float) -> None:
        """See `ManualClock.jump_wall`."""
        self._jumped_s += delta_s

    def token(self, n_bytes: int) -> str:
        """See `Clock.token`."""
        return SYSTEM.token(n_bytes)
