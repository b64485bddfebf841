"""How long tools take: recorded seconds, drawn again, or a log-normal distribution; the same seed draws the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, Protocol

from interlock.core.errors import ConfigError
from interlock.forensics.store_runs import runs_of_store
from interlock.forensics.trace_files import trace_files
from interlock.forensics.traces import Broken, RecordedRun

__all__ = ["Latencies", "LogNormal", "Recorded", "none", "read_latencies"]

# A longer wait than this times the p99 is not drawn: one call would decide the whole test.
MOST_TIMES_P99 = 10.0
# Of one file: enough for any percentile, and no matter of memory.
MOST_KEPT = 200_000
MOST_S = 86_400.0
STORES = ("sqlite:///", "postgresql://", "postgres://")
_Z99 = NormalDist().inv_cdf(0.99)
_BELOW_ONE = math.nextafter(1.0, 0.0)


class Latencies(Protocol):
    """A distribution of seconds, for each tool."""

    def draw(self, tool: str, chance: float) -> float:
        """Return the seconds at this quantile (0 to 1, exclusive)."""
        ...

    def as_json(self) -> dict[str, Any]:
        """Return what it is."""
        ...


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Half of the calls take less than `median_s`, one in a hundred more than `p99_s`.

    Raises:
        ConfigError: Not 0 < median_s <= p99_s <= 86400.
    """

    median_s: float
    p99_s: float

    def __post_init__(self) -> None:
        if not 0.0 < self.median_s <= self.p99_s <= MOST_S:
            raise ConfigError(
                f"a median of {self.median_s * 1e3:g} ms and a p99 of {self.p99_s * 1e3:g} ms: the median is above 0, "
                "the p99 not below it, and no more than a day"
            )

    def draw(self, tool: str, chance: float) -> float:  # noqa: ARG002 - all tools are alike
        """See `Latencies`."""
        sigma = math.log(self.p99_s / self.median_s) / _Z99
        z = NormalDist().inv_cdf(min(max(chance, 1e-12), _BELOW_ONE))
        return min(self.median_s * math.exp(sigma * z), MOST_TIMES_P99 * self.p99_s)

    def as_json(self) -> dict[str, Any]:
        """See `Latencies`."""
        return {"of": "log-normal", "median_ms": self.median_s * 1e3, "p99_ms": self.p99_s * 1e3}


@dataclass(frozen=True, slots=True)
class Recorded:
    """Seconds as they were recorded, by tool; a tool that is not among them takes what all of them took.

    Attributes:
        of: `calls`: from the question to the answer. `gaps`: from one question to the next, where a record has no
            answers' times; the model's time is in it. `numbers`: a list that says no more.
    """

    source: str
    of: Literal["calls", "gaps", "numbers"]
    by_tool: Mapping[str, Sequence[float]]
    all: Sequence[float] = field(default=())

    def draw(self, tool: str, chance: float) -> float:
        """See `Latencies`."""
        known = self.by_tool.get(tool) or self.all
        return known[min(int(chance * len(known)), len(known) - 1)]

    def as_json(self) -> dict[str, Any]:
        """See `Latencies`."""
        at = {f"p{round(q * 100)}_ms": self.draw("", q) * 1e3 for q in (0.5, 0.95, 0.99)}
        return {"of": self.of, "source": self.source, "count": len(self.all), "tools": len(self.by_tool), **at}


@dataclass(frozen=True, slots=True)
class _None:
    def draw(self, tool: str, chance: float) -> float:  # noqa: ARG002
        return 0.0

    def as_json(self) -> dict[str, Any]:
        return {"of": "none"}


def none() -> Latencies:
    """Return the distribution of tools that take the time they take: nothing is added."""
    return _None()


def read_latencies(source: str) -> Recorded:
    """Return the timings of recorded runs: a store's URL or file, any trace that `diagnose` reads, or bare numbers.

    Args:
        source: `sqlite:///…`, `postgresql://…`, or a path. Bare numbers are seconds, one a line.

    Raises:
        ConfigError: There is no such file, or no time of a call in it.
    """
    numbers = None if source.startswith(STORES) else _numbers(Path(source))
    if numbers is not None:
        return _recorded(source, "numbers", {"": numbers})
    calls: dict[str, list[float]] = {}
    gaps: dict[str, list[float]] = {}
    kept = 0
    why = ""
    for run in _runs(source):
        if isinstance(run, Broken):
            why = why or run.why
            continue
        kept += _take(run, calls, gaps)
        if kept >= MOST_KEPT:
            break
    if calls:
        return _recorded(source, "calls", calls)
    if gaps:
        return _recorded(source, "gaps", gaps)
    raise ConfigError(f"--latencies {source}: no time of any call is recorded there{f' ({why})' if why else ''}")


def _runs(source: str) -> Iterable[RecordedRun | Broken]:
    if source.startswith(STORES):
        yield from runs_of_store(source, "store")
        return
    try:
        for file in trace_files([source]):
            yield from file.runs()
    except FileNotFoundError as error:
        raise ConfigError(f"--latencies: {error}") from None


def _take(run: RecordedRun, calls: dict[str, list[float]], gaps: dict[str, list[float]]) -> int:
    """Keep the times of one run; return how many."""
    kept = 0
    last: tuple[str, float] | None = None
    for call in run.calls:
        if call.duration_s is not None and 0.0 <= call.duration_s <= MOST_S:
            # One that was not executed took no tool's time.
            if call.status not in {"denied", "replayed", "deduplicated"}:
                calls.setdefault(call.tool, []).append(call.duration_s)
                kept += 1
        elif call.at_s is not None:
            if last is not None and 0.0 < call.at_s - last[1] <= MOST_S:
                gaps.setdefault(last[0], []).append(call.at_s - last[1])
                kept += 1
            last = (call.tool, call.at_s)
    return kept


def _numbers(path: Path) -> list[float] | None:
    """Return the numbers of a file that holds nothing else; None of any other file."""
    if not path.is_file():
        return None
    found: list[float] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip() or line.startswith("#"):
                    continue
                try:
                    value = float(line)
                except ValueError:
                    if not found:
                        return None
                    raise ConfigError(f"--latencies {path}:{number}: {line.strip()[:40]!r} is no number") from None
                if not 0.0 <= value <= MOST_S:
                    raise ConfigError(f"--latencies {path}:{number}: {line.strip()[:40]} is not 0 to 86400 seconds")
                if len(found) < MOST_KEPT:
                    found.append(value)
    except UnicodeDecodeError:
        return None
    except OSError as error:
        raise ConfigError(f"--latencies {path}: cannot be read: {error.strerror or error}") from None
    return found or None


def _recorded(source: str, of: Literal["calls", "gaps", "numbers"], by_tool: Mapping[str, list[float]]) -> Recorded:
    everything = sorted(value for seconds in by_tool.values() for value in seconds)
    return Recorded(source, of, {tool: sorted(seconds) for tool, seconds in by_tool.items() if tool}, everything)
