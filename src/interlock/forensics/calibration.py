"""Budgets and thresholds out of a team's own runs, tried on runs they were not made of.

A budget is a margin over a high percentile of the *successful* runs: what a healthy run needs, and a quarter
more. Where there are few of them the largest says little about the next one, and the margin is widened. Tasks are
dealt into two halves; what one half proposes is judged on the other, and that is told beside the proposal, which
comes from all runs together.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interlock.config.sections import Settings
from interlock.config.settings import load_settings
from interlock.core.errors import ConfigError
from interlock.core.reasons import StopReason
from interlock.forensics.driven import DrivenRun
from interlock.forensics.effects import SetEffects, load_effects
from interlock.forensics.funnel_report import SetReport, is_runaway, longest_streak, permissive
from interlock.forensics.replay import Judge
from interlock.forensics.trace_files import Watch, trace_files
from interlock.forensics.traces import Broken, RecordedRun

__all__ = ["Calibrated", "Caps", "Checked", "calibrate"]

HALVES = 2
# Below so many successful runs a high percentile is just their largest.
FEW_RUNS = 100
_THRESHOLDS = (3, 4, 5)
_NO_PROGRESS = (6, 8, 10, 12)
_MOST_ATTEMPTS = 4
_HIDDEN_ENOUGH = 0.9
_EXEMPT_FROM = 2
_FALSE_STOPS_KEPT = 2_000
_LOOPS = frozenset({StopReason.LOOP_DETECTED, StopReason.NO_PROGRESS})
_NOTHING_KNOWN = SetEffects()
_MEASURES = ("steps", "calls", "seconds", "usd")


@dataclass(slots=True)
class _Half:
    """What one half of the tasks of a set shows."""

    runs: int = 0
    healthy: int = 0
    values: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in _MEASURES})
    bursts: Counter[int] = field(default_factory=Counter)
    false_stops: list[tuple[RecordedRun, DrivenRun]] = field(default_factory=list)
    looping_tools: set[str] = field(default_factory=set)

    def add(self, run: RecordedRun, driven: DrivenRun) -> None:
        self.runs += 1
        runaway = is_runaway(run, driven)
        if driven.reason in _LOOPS and (runaway or run.success is False):
            self.looping_tools.add(_last_tool(run, driven))
        if run.success is False:
            return
        self.healthy += 1
        values = {"steps": run.steps, "calls": driven.recorded, "seconds": run.seconds, "usd": run.cost_usd}
        for name, value in values.items():
            if value is not None:
                self.values[name].append(float(value))
        if driven.reason in _LOOPS and not runaway and len(self.false_stops) < _FALSE_STOPS_KEPT:
            self.false_stops.append((run, driven))


@dataclass(frozen=True, slots=True)
class Caps:
    """What is proposed, each with the sentence that says why.

    Attributes:
        budgets: Key of `agent.budgets` to its cap. loops: key of `agent.loop_detection` to its threshold.
        exempt: Tools that healthy runs repeat. max_attempts: of `tools.retries`, None for the profile's.
        why: By key, for the comments.
    """

    budgets: Mapping[str, float]
    loops: Mapping[str, int]
    exempt: tuple[str, ...]
    max_attempts: int | None
    why: Mapping[str, str]

    def to_config(self) -> dict[str, Any]:
        """Return the proposal as plain data of a configuration file."""
        loops: dict[str, Any] = dict(self.loops)
        if self.exempt:
            loops["exempt"] = list(self.exempt)
        config: dict[str, Any] = {
            "profile": "default",
            "agent": {"budgets": dict(self.budgets), "loop_detection": loops},
        }
        if self.max_attempts is not None:
            config["tools"] = {"retries": {"max_attempts": self.max_attempts}}
        return config


@dataclass(slots=True)
class Checked:
    """One set, judged by what the other half of its tasks proposed; beside it, by profile `default`."""

    dataset: str
    proposed: SetReport
    default: SetReport
    runaways: int = 0
    runaways_stopped: int = 0
    runaways_late: int = 0
    bursts: int = 0
    bursts_seen: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures of `--json`."""
        return {
            "dataset": self.dataset,
            "runs": self.proposed.runs,
            "failing_runaways": self.runaways,
            "failing_runaways_stopped": self.runaways_stopped,
            "failing_runaways_stopped_late": self.runaways_late,
            "bursts": self.bursts,
            "bursts_seen": self.bursts_seen,
            "proposed": _figures(self.proposed),
            "default": _figures(self.default),
        }


def _figures(each: SetReport) -> dict[str, Any]:
    good = each.successful
    return {
        "failing": each.failing.runs,
        "failing_stopped": each.failing.stopped,
        "successful": good.runs,
        "successful_stopped": good.stopped,
        "false_stops": good.stopped - good.stopped_runaways,
        "false_stop_pct": round(100 * (good.stopped - good.stopped_runaways) / good.runs, 3) if good.runs else None,
        "reasons": dict(each.reasons),
    }


@dataclass(slots=True)
class Calibrated:
    """The proposal, and how it does on runs that it was not made of."""

    caps: Caps
    sets: list[Checked]
    runs: int
    healthy: int
    broken: list[str]
    unread: list[str]

    @property
    def macro_false_stop_pct(self) -> float | None:
        """False stops in per cent of successful runs, the mean over sets; None where no run is labelled."""
        shares = [_figures(each.proposed)["false_stop_pct"] for each in self.sets if each.proposed.successful.runs]
        return round(sum(shares) / len(shares), 3) if shares else None


Read = Callable[[Watch], Iterator[tuple[str, SetEffects, RecordedRun]]]


def calibrate(
    paths: Iterable[str | Path],
    *,
    margin: float = 1.25,
    percentile: float = 99.0,
    effects: str | Path | None = None,
    watch: Watch = lambda _read: None,
) -> Calibrated:
    """Propose budgets, loop thresholds, exemptions and retries out of recorded runs.

    Args:
        paths: Files and folders of recorded runs, read twice.
        margin: Over the percentile of the successful runs (all that did not fail, where none is labelled).
        percentile: Of steps, calls, seconds and dollars.
        effects: See `backtest_funnel`. watch: told how many bytes have been read, of both passes.

    Raises:
        ConfigError: Nothing was read, or the effects cannot be used. FileNotFoundError: a path does not exist.
    """
    known = load_effects(effects)
    places = [Path(path) for path in paths]
    broken: list[str] = []
    unread: list[str] = []
    default = permissive(load_settings(None))
    sets_read: dict[str, list[_Half]] = {}
    judges = _Judges(default)
    for dataset, tools, run in _read(places, known, watch, broken, unread):
        half = sets_read.setdefault(dataset, [_Half() for _ in range(HALVES)])[_half_of(run)]
        judge = judges.of(default, tools)
        half.add(run, judge.judge(run))
        half.bursts.update(_bursts(run, judge))
    if not sets_read:
        raise ConfigError("nothing was read: no file holds recorded runs of a form that is known")
    halves = list(sets_read.values())
    caps = _propose(halves, margin, percentile)
    # Each half is judged by what the other one proposes.
    others = [_propose([[found[1 - i]] for found in halves], margin, percentile) for i in range(HALVES)]
    settings = [permissive(load_settings(each.to_config())) for each in others]
    sets: dict[str, Checked] = {}
    for dataset, tools, run in _read(places, known, watch, [], []):
        each = sets.setdefault(dataset, Checked(dataset, SetReport(dataset), SetReport(dataset)))
        _check(each, run, judges.of(settings[_half_of(run)], tools), judges.of(default, tools))
    every = [half for found in halves for half in found]
    runs, healthy = sum(half.runs for half in every), sum(half.healthy for half in every)
    return Calibrated(caps, list(sets.values()), runs, healthy, broken, unread)


def _read(
    paths: list[Path], known: Mapping[str, SetEffects], watch: Watch, broken: list[str], unread: list[str]
) -> Iterator[tuple[str, SetEffects, RecordedRun]]:
    before = 0
    for file in trace_files(paths):
        of_this_format = known.get(file.format_name(), _NOTHING_KNOWN)
        start = before
        for item in file.runs(lambda read, start=start: watch(start + read)):  # type: ignore[misc]
            if isinstance(item, Broken):
                where = f"{file.path}:{item.position}" if item.position else str(file.path)
                (broken if item.position else unread).append(f"{where}: {item.why}")
            elif item.steps:
                yield item.dataset, known.get(item.dataset, of_this_format), item
        before += file.path.stat().st_size


class _Judges:
    """Judges by settings and effects; only profile `default` leaves recorded seconds out: they are not its own."""

    def __init__(self, default: Settings) -> None:
        self._default = default
        self._made: dict[tuple[int, int], tuple[Settings, SetEffects, Judge]] = {}

    def of(self, settings: Settings, effects: SetEffects) -> Judge:
        # Held with what they are named by, so that no name is given twice.
        found = self._made.get((id(settings), id(effects)))
        if found is None:
            judge = Judge(settings, effects, recorded_time=settings is not self._default)
            found = self._made[(id(settings), id(effects))] = (settings, effects, judge)
        return found[2]


def _half_of(run: RecordedRun) -> int:
    """Deal a task, with all its runs, into one of the halves."""
    name = (run.task or run.run_id).encode("utf-8", "replace")
    return hashlib.sha1(name, usedforsecurity=False).digest()[0] % HALVES


def _last_tool(run: RecordedRun, driven: DrivenRun) -> str:
    at = max(0, (driven.stopped_at or 1) - 1)
    return next((call.tool for i, call in enumerate(run.calls) if i == at), "")


def _bursts(run: RecordedRun, judge: Judge) -> Iterator[int]:
    """Yield the lengths of bursts of passing failures that the record shows the end of."""
    lengths: dict[tuple[str, str], int] = {}
    for call in run.calls:
        key = (call.tool, call.args_hash)
        if judge.passes(call):
            lengths[key] = lengths.get(key, 0) + 1
        elif key in lengths:
            yield lengths.pop(key)


def _propose(sets: list[list[_Half]], margin: float, percentile: float) -> Caps:
    budgets: dict[str, float] = {}
    why: dict[str, str] = {}
    for measure, key, least, step in (
        ("steps", "max_steps", 5, 1.0),
        ("calls", "max_tool_calls", 5, 1.0),
        ("seconds", "max_seconds", 30, 5.0),
        ("usd", "max_usd", 0.01, 0.01),
    ):
        # One configuration for several sets must not stop the longest of them.
        found = [(_merged(halves, measure), halves) for halves in sets]
        caps = [_cap(values, margin, percentile) for values, _ in found if values and values[-1] > 0]
        if caps:
            cap, why[key] = max(caps)
            budgets[key] = max(least, round(math.ceil(round(cap / step, 6)) * step, 6))
    whole = {"max_steps", "max_tool_calls"}
    budgets = {key: int(value) if key in whole else value for key, value in budgets.items()}
    every = [half for halves in sets for half in halves]
    loops, exempt, reasons = _loops(every)
    attempts, because = _attempts(every)
    return Caps(budgets, loops, exempt, attempts, why | reasons | because)


def _merged(halves: list[_Half], measure: str) -> list[float]:
    return sorted(value for half in halves for value in half.values[measure])


def _cap(values: list[float], margin: float, percentile: float) -> tuple[float, str]:
    """Return a cap on what successful runs used (ascending), and why; next to no run of theirs is above it."""
    high, runs = _percentile(values, percentile), len(values)
    largest = _percentile(values, 100 - (100 - percentile) / 10)
    said = f"{margin:g} x p{percentile:g} = {margin:g} x {high:g}, of {runs} successful runs"
    if runs < FEW_RUNS:
        # The largest of n says little about the next: the share of runs above it is about 1/n.
        wider = math.sqrt(FEW_RUNS / runs)
        return (
            margin * high * wider,
            f"{said}; x {wider:.2f}, for {runs} are few (from {FEW_RUNS} on it is not widened)",
        )
    if largest > margin * high:
        beyond = f"the dearest one in a thousand of {runs} successful runs"
        return largest, f"{beyond}; {margin:g} x p{percentile:g} would be {margin * high:g}"
    return margin * high, said


def _percentile(values: list[float], percentile: float) -> float:
    return values[max(0, math.ceil(percentile / 100 * len(values)) - 1)]


def _loops(halves: list[_Half]) -> tuple[dict[str, int], tuple[str, ...], dict[str, str]]:
    """Return thresholds and exemptions with which no healthy run is stopped, the strictest there are."""
    false = [pair for half in halves for pair in half.false_stops]
    healthy = sum(half.healthy for half in halves)
    guilty = set().union(*(half.looping_tools for half in halves)) if halves else set()
    blamed = Counter(_last_tool(run, driven) for run, driven in false)
    exempt = tuple(sorted(t for t, times in blamed.items() if times >= _EXEMPT_FROM and t and t not in guilty))
    left = [(run, driven) for run, driven in false if _last_tool(run, driven) not in exempt]
    repeats = [longest_streak(run) for run, driven in left if driven.reason is StopReason.LOOP_DETECTED]
    stale = [driven for _, driven in left if driven.reason is StopReason.NO_PROGRESS]
    # A threshold is raised only where it stops more than one healthy run in two hundred: rules are dear to weaken.
    often = max(1, healthy // 200)
    threshold = _THRESHOLDS[0] if len(repeats) < often else min(_THRESHOLDS[-1], max(_THRESHOLDS[0], max(repeats) + 1))
    no_progress = _NO_PROGRESS[0] if len(stale) < often else _NO_PROGRESS[1]
    why = {
        "repeated_calls_threshold": f"{len(repeats)} of {healthy} healthy runs were stopped by 3",
        "no_progress_threshold": f"{len(stale)} of {healthy} healthy runs were stopped by 6",
    }
    if exempt:
        why["exempt"] = "repeated by healthy runs, never by those that ran away: " + ", ".join(
            f"{tool} ({blamed[tool]} runs)" for tool in exempt
        )
    return {"repeated_calls_threshold": threshold, "no_progress_threshold": no_progress}, exempt, why


def _attempts(halves: list[_Half]) -> tuple[int | None, dict[str, str]]:
    """Return how often a passing failure must be tried so that the model does not see most of them."""
    bursts: Counter[int] = sum((half.bursts for half in halves), Counter())
    total = sum(bursts.values())
    if not total:
        return None, {}
    for attempts in range(2, _MOST_ATTEMPTS + 1):
        hidden = sum(times for length, times in bursts.items() if length < attempts)
        if hidden >= _HIDDEN_ENOUGH * total or attempts == _MOST_ATTEMPTS:
            return attempts, {"max_attempts": f"hides {hidden} of {total} bursts of passing failures from the model"}
    return None, {}


def _check(each: Checked, run: RecordedRun, proposed: Judge, default: Judge) -> None:
    driven = proposed.judge(run)
    each.proposed.add(driven)
    each.default.add(default.judge(run))
    each.bursts += driven.bursts_recorded
    each.bursts_seen += driven.bursts_seen
    if run.success is False and longest_streak(run) >= 5:
        each.runaways += 1
        each.runaways_stopped += driven.stopped
        third = _third_repeat(run)
        each.runaways_late += bool(driven.stopped and driven.stopped_at and third and driven.stopped_at > third + 5)


def _third_repeat(run: RecordedRun) -> int | None:
    """Return the number (from 1) of the call at which a call of this run is there for the third time in a row."""
    before, streak = None, 0
    for number, call in enumerate(run.calls, start=1):
        key = (call.tool, call.args_hash)
        streak = streak + 1 if key == before else 1
        before = key
        if streak == 3:
            return number
    return None
