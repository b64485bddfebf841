"""What a load test found, in figures: a line a level, and what holds for all of it."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from interlock.chaos.load_meter import Taken

__all__ = ["Level", "LoadReport", "percentile_ms"]

# Two levels that bring less than a tenth more than the best before them: there is no more to have.
LEAST_GAIN = 1.1
LEVELS_BEYOND = 2
LEAST_CALLS = 30


def percentile_ms(seconds: array[float], share: float) -> float | None:
    """Return the milliseconds that this share of the samples does not exceed; None of none."""
    if not seconds:
        return None
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))] * 1e3


def _percentiles(seconds: array[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    at = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in _SHARES.items()}
    return {name: round(value * 1e3, 4) for name, value in at.items()} | {"max_ms": round(ordered[-1] * 1e3, 4)}


_SHARES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}


@dataclass(eq=False)
class Level:
    """One level of load, and what was measured at it.

    Attributes:
        concurrency: Runs at once (closed loop), or None. rate_per_s: arrivals a second, or None.
        elapsed_s: From the first run's start to the last one's end.
        reasons: Stop reason to runs. cut: runs that were cut off when the test was over. errors: runs that raised.
        shed: Arrivals that found too many runs under way, and were not begun. most_at_once: runs under way.
        run_s: Seconds of each run. lag_s: by how much timers of the event loop were late; arrivals too.
        rss_bytes: Most memory of the process that was seen.
    """

    concurrency: int | None
    rate_per_s: float | None
    taken: Taken = field(default_factory=Taken)
    elapsed_s: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    begun: int = 0
    cut: int = 0
    shed: int = 0
    most_at_once: int = 0
    run_s: array[float] = field(default_factory=lambda: array("d"))
    lag_s: array[float] = field(default_factory=lambda: array("d"))
    rss_bytes: int = 0

    @property
    def runs(self) -> int:
        """Runs that ended by themselves."""
        return sum(self.reasons.values())

    @property
    def runs_per_s(self) -> float:
        """Throughput."""
        return self.runs / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def calls_per_s(self) -> float:
        """Throughput in calls."""
        return self.taken.calls / self.elapsed_s if self.elapsed_s > 0 else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return plain data; times in milliseconds."""
        taken = self.taken
        return {
            "concurrency": self.concurrency,
            "rate_per_s": self.rate_per_s,
            "elapsed_s": round(self.elapsed_s, 3),
            "runs": self.runs,
            "runs_per_s": round(self.runs_per_s, 2),
            "calls": taken.calls,
            "calls_per_s": round(self.calls_per_s, 1),
            "overhead": _percentiles(taken.overhead_s),
            "of_it_store": _percentiles(taken.store_s),
            "of_it_waiting_for_a_place": _percentiles(taken.place_s),
            "tool": _percentiles(taken.tool_s),
            "run": _percentiles(self.run_s),
            "loop_lag": _percentiles(self.lag_s),
            "stop_reasons": dict(self.reasons.most_common()),
            "refusals": dict(taken.refused.most_common()),
            "injected": dict(taken.injected.most_common()),
            "errors": dict(self.errors.most_common()),
            "most_at_once": self.most_at_once,
            "cut": self.cut,
            "shed": self.shed,
            "rss_bytes": self.rss_bytes,
        }


@dataclass(eq=False)
class LoadReport:
    """All levels of a load test, and what holds for the whole.

    Attributes:
        words: What was asked for, as JSON. levels: in their order.
        store: What kind. store_bytes_before, store_bytes_after: on its disk; None where it is not known.
        rss_bytes_before, rss_bytes_after: memory of the process.
        writes: Of the test's own agent: requests that reached the remote, effects there, and duplicates; else None.
        interrupted: A person ended it early.
    """

    words: dict[str, Any]
    levels: list[Level] = field(default_factory=list)
    store: str = ""
    store_bytes_before: int | None = None
    store_bytes_after: int | None = None
    rss_bytes_before: int = 0
    rss_bytes_after: int = 0
    writes: dict[str, int] | None = None
    interrupted: bool = False

    @property
    def saturated_at(self) -> Level | None:
        """The best level, if the next two brought hardly more."""
        return saturation(self.levels)

    @property
    def failures(self) -> list[str]:
        """What must not happen under any load."""
        found = []
        if self.writes is not None and self.writes["duplicates"]:
            found.append(f"{self.writes['duplicates']} effects happened twice")
        errors = sum((level.errors for level in self.levels), Counter[str]())
        found += [f"{count} runs raised {name}" for name, count in errors.items()]
        if not any(level.runs for level in self.levels) and not self.interrupted:
            found.append("no run has ended: give it more time (--for), or fewer calls (--calls)")
        return found

    @property
    def store_bytes_per_run(self) -> float | None:
        """By how much the store has grown for each run that was begun."""
        begun = sum(level.begun for level in self.levels)
        if self.store_bytes_before is None or self.store_bytes_after is None or not begun:
            return None
        return (self.store_bytes_after - self.store_bytes_before) / begun

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        saturated = self.saturated_at
        grown = self.store_bytes_per_run
        return {
            "asked": self.words,
            "levels": [level.as_json() for level in self.levels],
            "saturated_at": None
            if saturated is None
            else {"concurrency": saturated.concurrency, "rate_per_s": saturated.rate_per_s},
            "store": {
                "kind": self.store,
                "bytes_before": self.store_bytes_before,
                "bytes_after": self.store_bytes_after,
                "bytes_per_run": None if grown is None else round(grown, 1),
            },
            "memory": {"rss_bytes_before": self.rss_bytes_before, "rss_bytes_after": self.rss_bytes_after},
            "writes": self.writes,
            "interrupted": self.interrupted,
            "failures": self.failures,
        }


def saturation(levels: Sequence[Level]) -> Level | None:
    """Return the best level, once two after it have brought hardly more calls; a level of few calls says nothing."""
    judged = [level for level in levels if level.taken.calls >= LEAST_CALLS]
    best = next(iter(judged), None)
    beyond = 0
    for level in judged[1:]:
        assert best is not None
        if level.calls_per_s >= LEAST_GAIN * best.calls_per_s:
            best, beyond = level, 0
        else:
            beyond += 1
        if beyond == LEVELS_BEYOND:
            return best
    return None
