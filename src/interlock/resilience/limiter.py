"""So many calls of a tool at once, so many a second; who has to wait, waits in order.

`TokenBucket` is a pure machine. `Limiter` puts a count of slots and a bucket behind one first-come queue whose
waiters may live in different event loops and threads.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable

from interlock.core.clock import Clock

__all__ = ["Limiter", "TokenBucket"]

_EPSILON = 1e-9  # a timer may fire a rounding error early


class TokenBucket:
    """Grants `rate_per_s` tokens a second on average, and up to `burst` at once.

    Times are seconds on one clock, passed in; a clock that goes back grants nothing.
    """

    __slots__ = ("_at_s", "_burst", "_rate", "_tokens")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        if not rate_per_s > 0 or burst < 1:
            raise ValueError("a token bucket needs a rate above 0 and a burst of at least 1")
        self._rate = rate_per_s
        self._burst = float(burst)
        self._tokens = self._burst
        self._at_s: float | None = None

    def wait_s(self, now_s: float, ahead: int = 0) -> float:
        """Return the seconds until a token is there for someone with `ahead` others before him; 0.0 means now."""
        self._fill(now_s)
        lacking = ahead + 1 - self._tokens
        return lacking / self._rate if lacking > _EPSILON else 0.0

    def take(self, now_s: float) -> bool:
        """Take one token, if there is one."""
        if self.wait_s(now_s) > 0.0:
            return False
        self._tokens = max(0.0, self._tokens - 1.0)
        return True

    def give_back(self) -> None:
        """Return a token that was taken for something that did not happen."""
        self._tokens = min(self._burst, self._tokens + 1.0)

    def _fill(self, now_s: float) -> None:
        if self._at_s is None:
            self._at_s = now_s
        elif now_s > self._at_s:
            self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._rate)
            self._at_s = now_s


class _Waiter:
    __slots__ = ("granted", "turn")

    def __init__(self, turn: asyncio.Future[None]) -> None:
        self.turn = turn
        self.granted = False


class Limiter:
    """Slots and rate of one tool, shared by all runs of the process.

    Args:
        concurrency: Calls at once; None for no limit.
        rate_per_s, burst: Calls a second, and how many may come at once (`burst` defaults to a second's worth).
        clock: Time that rate and patience go by.
    """

    def __init__(self, concurrency: int | None, rate_per_s: float | None, burst: int | None, clock: Clock) -> None:
        if concurrency is not None and concurrency < 1:
            raise ValueError("concurrency is at least 1")
        self._free = math.inf if concurrency is None else concurrency
        self._bucket: TokenBucket | None = None
        if rate_per_s is not None:
            self._bucket = TokenBucket(rate_per_s, max(1, int(rate_per_s)) if burst is None else burst)
        self._clock = clock
        self._now = clock.monotonic
        self._lock = threading.Lock()
        self._queue: deque[_Waiter] = deque()

    @property
    def waiting(self) -> int:
        """How many wait at this moment."""
        return len(self._queue)

    def try_acquire(self) -> bool:
        """Take a slot and a token if both are there and nobody waits for them."""
        with self._lock:
            return not self._queue and self._take()

    def least_wait_s(self) -> float:
        """Return the seconds that a newcomer would wait for the rate alone."""
        with self._lock:
            return 0.0 if self._bucket is None else self._bucket.wait_s(self._now(), len(self._queue))

    async def acquire(self, until_s: float, check_s: float, stopped: Callable[[], bool]) -> bool:
        """Wait for a slot and a token, in order of arrival; return False when `until_s` came first.

        `stopped` is asked every `check_s` seconds; once it says yes, the wait ends with False.
        """
        waiter = _Waiter(asyncio.get_running_loop().create_future())
        with self._lock:
            self._queue.append(waiter)
            self._grant()
        try:
            while not waiter.granted:
                now_s = self._now()
                if now_s >= until_s or stopped():
                    break
                delay_s = min(until_s - now_s, check_s, self._next_token_s(waiter))
                await asyncio.wait((waiter.turn,), timeout=delay_s)
                if not waiter.turn.done() and self._now() == now_s:
                    await self._clock.sleep(delay_s)  # a clock that the loop's timers do not move (ManualClock)
                with self._lock:
                    self._grant()
        except BaseException:
            with self._lock:
                if waiter.granted:
                    self._undo()
                else:
                    self._queue.remove(waiter)
                self._grant()
            raise
        with self._lock:
            if not waiter.granted:
                self._queue.remove(waiter)
            return waiter.granted

    def release(self) -> None:
        """Give the slot back; the token is spent."""
        with self._lock:
            self._free += 1
            self._grant()

    def undo(self) -> None:
        """Give slot and token back: nothing was sent."""
        with self._lock:
            self._undo()
            self._grant()

    def _take(self) -> bool:
        if self._free < 1 or (self._bucket is not None and not self._bucket.take(self._now())):
            return False
        self._free -= 1
        return True

    def _undo(self) -> None:
        self._free += 1
        if self._bucket is not None:
            self._bucket.give_back()

    def _grant(self) -> None:
        while self._queue and self._take():
            waiter = self._queue.popleft()
            waiter.granted = True
            try:
                waiter.turn.get_loop().call_soon_threadsafe(_settle, waiter.turn)
            except RuntimeError:  # his loop is closed: he is gone without a word
                self._undo()

    def _next_token_s(self, waiter: _Waiter) -> float:
        """Return when the rate could let this waiter through: he has to wake by himself, nobody else would."""
        with self._lock:
            if self._bucket is None or waiter.granted:
                return math.inf
            # Where slots are what is lacking, the next `release` wakes him.
            return self._bucket.wait_s(self._now(), self._queue.index(waiter)) or math.inf


def _settle(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
