"""Figures that mean something on a machine that is not quiet.

Cases are sampled in turn (A, B, C, A, B, C, …), so that a slow spell hits all of them alike; a ratio is taken
within one round, and the median over the rounds is reported. CPU is the time of *all* threads of the process,
work left over in the background included, scaled by a calibration loop that runs before and after each sample:
other load shows up as waiting (not CPU) and as a slower core (which the scaling takes out).
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Bench", "Case", "Watch", "calibrate", "rss_kib"]

SETTLE_S = 0.4
WARM_CALLS = 200


def calibrate() -> float:
    """Return the CPU milliseconds of a fixed piece of pure Python: how fast this core is at the moment."""
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        x = 0
        for i in range(50_000):
            x = (x * 31 + i) & 0xFFFF
        best = min(best, (time.process_time() - begun) * 1e3)
    return best


class Watch:
    """Times the blocks it is opened around; what a block leaves to background threads is in its CPU.

    Attributes:
        clock: Where CPU seconds are read; a case that asks for one thread alone sets `time.thread_time`.
    """

    def __init__(self) -> None:
        self.clock = time.process_time
        self.cpu_s = 0.0
        self.wall_s = 0.0
        self.calls = 0
        self._wall = 0.0
        self._cpu = 0.0

    def start(self) -> None:
        self._cpu = self.clock()
        self._wall = time.perf_counter()

    def lap(self, calls: int) -> None:
        """End a stretch of `calls` calls that goes on; background work so far is in it."""
        self.wall_s += time.perf_counter() - self._wall
        self.cpu_s += self.clock() - self._cpu
        self.calls += calls

    def stop(self, calls: int) -> None:
        """End a stretch of `calls` calls, and wait for what it left to background threads."""
        self.wall_s += time.perf_counter() - self._wall
        time.sleep(SETTLE_S)
        self.cpu_s += self.clock() - self._cpu
        self.calls += calls


@dataclass(slots=True)
class Case:
    """One thing to measure.

    Attributes:
        sample: Does some `n` calls, with the watch around what counts; `n` is chosen so that it lasts a while.
        n: Fixed number of calls, where the case knows better.
        cpu_us, wall_us: A call, one figure a round.
    """

    name: str
    sample: Callable[[int, Watch], Awaitable[None]]
    n: int = 0
    cpu_us: list[float] = field(default_factory=list)
    wall_us: list[float] = field(default_factory=list)
    calibration_ms: list[float] = field(default_factory=list)


class Bench:
    """Cases, sampled together in one process.

    Args:
        rounds: How often each case is sampled.
        sample_s: How long one sample should last.
    """

    def __init__(self, rounds: int = 9, sample_s: float = 0.25) -> None:
        self.rounds = rounds
        self.sample_s = sample_s
        self.cases: dict[str, Case] = {}

    def add(self, name: str, sample: Callable[[int, Watch], Awaitable[None]], n: int = 0) -> None:
        """Add a case."""
        self.cases[name] = Case(name, sample, n)

    async def run(self) -> None:
        """Sample every case in turn, round by round."""
        for case in self.cases.values():
            await self._size(case)
        gc.collect()
        gc.freeze()
        for round_ in range(self.rounds):
            for case in self.cases.values():
                await self._sample(case)
            print(f"round {round_ + 1} of {self.rounds}", file=sys.stderr, flush=True)
        fastest = min(ms for case in self.cases.values() for ms in case.calibration_ms)
        for case in self.cases.values():
            case.cpu_us = [us * fastest / ms for us, ms in zip(case.cpu_us, case.calibration_ms, strict=True)]

    async def _size(self, case: Case) -> None:
        """Warm the case up, and choose how many calls a sample has."""
        if case.n:
            await case.sample(case.n, Watch())
            return
        await case.sample(WARM_CALLS, Watch())
        watch = Watch()
        await case.sample(WARM_CALLS, watch)
        case.n = max(WARM_CALLS, round(self.sample_s / (watch.wall_s / watch.calls)))

    async def _sample(self, case: Case) -> None:
        gc.collect()
        watch = Watch()
        before = calibrate()
        await case.sample(case.n, watch)
        case.calibration_ms.append((before + calibrate()) / 2)
        case.cpu_us.append(watch.cpu_s / watch.calls * 1e6)
        case.wall_us.append(watch.wall_s / watch.calls * 1e6)
        await asyncio.sleep(0)

    # -- reading

    def cpu(self, name: str) -> float:
        """Return the median CPU of a call, in microseconds."""
        return statistics.median(self.cases[name].cpu_us)

    def over(self, name: str, base: str) -> float:
        """Return the median, over the rounds, of what a call costs more than `base` does, in CPU microseconds."""
        return statistics.median(a - b for a, b in zip(self.cases[name].cpu_us, self.cases[base].cpu_us, strict=True))

    def ratio(self, name: str, to: str, bare: str | None = None) -> float:
        """Return the median, over the rounds, of the ratio of two cases; of what they cost above `bare`, if given."""
        rounds: Sequence[tuple[float, float, float]] = list(
            zip(
                self.cases[name].cpu_us,
                self.cases[to].cpu_us,
                self.cases[bare].cpu_us if bare else [0.0] * self.rounds,
                strict=True,
            )
        )
        return statistics.median((a - c) / (b - c) for a, b, c in rounds)

    def spread(self) -> dict[str, dict[str, float]]:
        """Return median, minimum and maximum of every case, in microseconds a call."""
        return {
            case.name: {
                "cpu_us": round(statistics.median(case.cpu_us), 3),
                "cpu_us_min": round(min(case.cpu_us), 3),
                "cpu_us_max": round(max(case.cpu_us), 3),
                "wall_us": round(statistics.median(case.wall_us), 3),
                "calls": case.n,
            }
            for case in self.cases.values()
        }


def rss_kib() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * (os.sysconf("SC_PAGE_SIZE") // 1024)
