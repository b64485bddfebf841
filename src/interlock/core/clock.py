"""The only door to time, sleep and chance.

Guards take a `Clock`; they never import `time`, `random` or `asyncio.sleep`. Production uses `SYSTEM`.
Tests use `ManualClock` (a number that the test moves) or run a whole agent under `run_virtual`, where
every timer of asyncio fires at once and in order, so that an hour of backoff costs no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import secrets
import selectors
import threading
import time
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

__all__ = ["SYSTEM", "Clock", "LoopClock", "ManualClock", "SystemClock", "run_virtual", "timed_token"]

T = TypeVar("T")


class Clock(Protocol):
    """Time and chance, as a guard sees them."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; only differences mean something."""
        ...

    def boot(self) -> float:
        """Seconds since this machine was started, those asleep included: what leases are counted in."""
        ...

    def wall(self) -> float:
        """Seconds since the Unix epoch."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait for `delay_s` seconds."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A random number between `low` and `high`."""
        ...

    def token(self, n_bytes: int) -> str:
        """A fresh random identifier of `2 * n_bytes` hexadecimal digits."""
        ...


class SystemClock:
    """The machine's own clock, and the operating system's randomness for identifiers."""

    monotonic = staticmethod(time.monotonic)
    # Where a system has no clock of the boot, its monotonic one is the nearest.
    boot = staticmethod(functools.partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)))
    wall = staticmethod(time.time)
    uniform = staticmethod(random.uniform)
    sleep = staticmethod(asyncio.sleep)
    token = staticmethod(secrets.token_hex)


SYSTEM = SystemClock()


def timed_token(clock: Clock) -> str:
    """Return a fresh identifier of 32 hexadecimal digits: the wall clock's milliseconds, then chance.

    What is begun together stands together in every index, however much lies there already.
    """
    return f"{max(0, int(clock.wall() * 1e3)):012x}{clock.token(10)}"


class ManualClock:
    """A clock that stands still until `advance` moves it; `sleep` moves it at once.

    Chance comes from `seed`, so equal seeds give equal histories.
    """

    def __init__(self, *, start_s: float = 1_000.0, wall_s: float = 1_700_000_000.0, seed: int = 0) -> None:
        self._now_s = start_s
        self._wall_offset_s = wall_s - start_s
        self._random = random.Random(seed)  # noqa: S311 - chance for tests, not for secrets

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._now_s

    def boot(self) -> float:
        """See `Clock.boot`; the same as `monotonic`."""
        return self.monotonic()

    def wall(self) -> float:
        """See `Clock.wall`."""
        return self._now_s + self._wall_offset_s

    def advance(self, delta_s: float) -> None:
        """Move the clock forward by `delta_s` seconds."""
        self._now_s += delta_s

    def jump_wall(self, delta_s: float) -> None:
        """Move the wall clock alone, as an operator or NTP does; the monotonic one stays."""
        self._wall_offset_s += delta_s

    async def sleep(self, delay_s: float) -> None:
        """Advance by `delay_s` and let other tasks run once."""
        self.advance(max(0.0, delay_s))
        await asyncio.sleep(0)

    def uniform(self, low: float, high: float) -> float:
        """See `Clock.uniform`."""
        return self._random.uniform(low, high)

    def token(self, n_bytes: int) -> str:
        """See `Clock.token`."""
        return self._random.randbytes(n_bytes).hex()


class LoopClock(ManualClock):
    """Time as the running event loop sees it: under `run_virtual`, virtual time for guards and timers alike."""

    def monotonic(self) -> float:
        """The running loop's time; the last one seen when no loop runs (in a worker thread)."""
        with contextlib.suppress(RuntimeError):
            self._now_s = asyncio.get_running_loop().time()
        return self._now_s

    def wall(self) -> float:
        """See `Clock.wall`."""
        return self.monotonic() + self._wall_offset_s

    async def sleep(self, delay_s: float) -> None:
        """Wait `delay_s` seconds of the loop's time."""
        await asyncio.sleep(max(0.0, delay_s))


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer whenever nothing is ready to run."""

    def __init__(self, start_s: float, patience_s: float, foreign_patience_s: float) -> None:
        self.virtual_s = start_s
        super().__init__(_JumpSelector(self, patience_s, foreign_patience_s))

    def time(self) -> float:
        return self.virtual_s


class _JumpSelector(selectors.DefaultSelector):
    def __init__(self, loop: _VirtualLoop, patience_s: float, foreign_patience_s: float) -> None:
        super().__init__()
        self._loop = loop
        self._patience_s = patience_s
        self._foreign_patience_s = foreign_patience_s
        self._before = frozenset(threading.enumerate())

    def _patience(self) -> float:
        """Seconds that threads get: those of ours, or of a framework's, which have other names."""
        least_s, most_s = self._patience_s, self._foreign_patience_s
        foreign = most_s > least_s and any(
            not thread.name.startswith("interlock") and thread not in self._before for thread in threading.enumerate()
        )
        return most_s if foreign else least_s

    def select(self, timeout: float | None = None) -> Any:
        # Threads answer through the self-pipe: give them a moment before time jumps past them.
        ready = super().select(0 if not timeout else min(timeout, self._patience()))
        if not ready and timeout:
            self._loop.virtual_s += timeout
        elif not ready and timeout is None:
            ready = super().select(None)
        return ready


def run_virtual(
    main: Coroutine[Any, Any, T],
    *,
    start_s: float = 1_000.0,
    patience_s: float = 0.001,
    foreign_patience_s: float = 0.0,
) -> T:
    """Run `main` in an event loop on virtual time (see `LoopClock`), and return what it returns.

    Args:
        main: What to run.
        start_s: The loop's time at the start.
        patience_s: Real seconds that threads get to answer before time jumps; 0 where there are none.
        foreign_patience_s: The same while there are threads that neither Interlock nor the caller has started: a
            framework works in them.
    """
    with asyncio.Runner(loop_factory=lambda: _VirtualLoop(start_s, patience_s, foreign_patience_s)) as runner:
        return runner.run(main)
