"""What a configuration would have done to recorded runs, set by set: `interlock backtest`.

Runs are judged by the live decisions alone (`replay.Judge`), or driven through the whole live funnel
(`funnel.drive`), which is slower and says the same of everything but time.

False stops stand beside savings. A benchmark's label does not see duplicate side effects, so stops of
"successful" runs are counted twice: all of them, and those of runs that were neither running away (five equal
calls in a row) nor writing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from interlock.config.sections import Settings
from interlock.config.settings import load_settings
from interlock.forensics.driven import DrivenRun
from interlock.forensics.effects import SetEffects, load_effects
from interlock.forensics.funnel import drive
from interlock.forensics.replay import Judge
from interlock.forensics.trace_files import TraceFile, Watch, trace_files
from interlock.forensics.traces import Broken, RecordedRun

__all__ = [
    "CAUTION",
    "FunnelReport",
    "Label",
    "SetReport",
    "Stopped",
    "Unread",
    "backtest_funnel",
    "is_runaway",
    "longest_streak",
    "permissive",
]

CAUTION = (
    "Savings are upper bounds: the recorded model never saw what Interlock would have answered, and would have done "
    "something else from there on; public work found such off-policy gains overestimated about tenfold. "
    "Labels are the source's own and do not see duplicate side effects."
)
RUNAWAY_CALLS_IN_A_ROW = 5


@dataclass(frozen=True, slots=True)
class Stopped:
    """One run that the funnel stopped.

    Attributes:
        call: Number of the call at which the stop was decided, from 1; None between calls. step: model turn, from 0.
        runaway: It made five equal calls in a row, or performed an equal write twice.
        why: The developer's sentence: which key decided.
    """

    run_id: str
    reason: str
    call: int | None
    calls: int
    success: bool | None
    runaway: bool
    step: int
    why: str
    saved_usd: float | None
    saved_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the stop as an object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Label:
    """Runs of one label (successful or failing): how many, how many stopped, and what they called."""

    runs: int = 0
    stopped: int = 0
    stopped_runaways: int = 0
    calls: int = 0
    calls_saved: int = 0
    usd_saved: float = 0.0
    usd_unknown: int = 0
    seconds_saved: float = 0.0
    seconds_unknown: int = 0

    def add(self, driven: DrivenRun, *, runaway: bool) -> None:
        """Take in one run of this label."""
        self.runs += 1
        self.stopped += driven.stopped
        self.stopped_runaways += runaway
        self.calls += driven.recorded
        self.calls_saved += driven.saved
        if driven.stopped:
            self.usd_saved += driven.saved_usd or 0.0
            self.usd_unknown += driven.saved_usd is None
            self.seconds_saved += driven.saved_s or 0.0
            self.seconds_unknown += driven.saved_s is None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures and their shares in per cent."""
        return {
            "runs": self.runs,
            "stopped": self.stopped,
            "stopped_runaways": self.stopped_runaways,
            "stopped_pct": _per_cent(self.stopped, self.runs),
            "stopped_other_pct": _per_cent(self.stopped - self.stopped_runaways, self.runs),
            "calls": self.calls,
            "calls_saved": self.calls_saved,
            "calls_saved_pct": _per_cent(self.calls_saved, self.calls),
            "usd_saved": round(self.usd_saved, 6),
            "usd_unknown_runs": self.usd_unknown,
            "minutes_saved": round(self.seconds_saved / 60, 3),
            "minutes_unknown_runs": self.seconds_unknown,
        }


@dataclass(slots=True)
class SetReport:
    """One data set.

    Attributes:
        broken: Records that could not be read, by where they stand.
        undeclared: Tools of which the effects say nothing.
        reasons: Runs by stop reason. counts: Sums over the runs, by the names of `DrivenRun`.
        successful, failing: By the source's label; unlabelled runs are in neither.
    """

    dataset: str
    runs: int = 0
    broken: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    successful: Label = field(default_factory=Label)
    failing: Label = field(default_factory=Label)
    stopped: list[Stopped] = field(default_factory=list)
    undeclared: set[str] = field(default_factory=set)

    def add(self, driven: DrivenRun) -> None:
        """Take in one run."""
        run = driven.run
        runaway = driven.stopped and is_runaway(run, driven)
        self.runs += 1
        self.reasons[str(driven.reason)] += 1
        self.undeclared.update(driven.undeclared)
        for name in _COUNTED:
            self.counts[name] += int(getattr(driven, name))
        if run.success is not None:
            label = self.successful if run.success else self.failing
            label.add(driven, runaway=runaway)
        if driven.stopped:
            self.stopped.append(
                Stopped(
                    run.run_id,
                    str(driven.reason),
                    driven.stopped_at,
                    driven.recorded,
                    run.success,
                    runaway,
                    max(0, driven.steps - 1),
                    driven.message,
                    driven.saved_usd,
                    driven.saved_s,
                )
            )

    @property
    def false_stops(self) -> list[Stopped]:
        """Stops of runs that succeeded and neither ran away nor wrote twice."""
        return [stop for stop in self.stopped if stop.success and not stop.runaway]

    def to_dict(self) -> dict[str, Any]:
        """Return the `--json` object of this set."""
        counts = self.counts
        return {
            "dataset": self.dataset,
            "runs": self.runs,
            "failing_runs": self.failing.runs,
            "failing_stopped": self.failing.stopped,
            "successful_runs": self.successful.runs,
            "successful_stopped": self.successful.stopped,
            "successful_stopped_runaways": self.successful.stopped_runaways,
            "broken": self.broken,
            "undeclared_tools": sorted(self.undeclared),
            "reasons": dict(self.reasons.most_common()),
            "calls": {name: counts[name] for name in ("recorded", "executed", "answered", "refused", "saved", "stale")},
            "duplicates": {"recorded": counts["duplicates_recorded"], "executed": counts["duplicates_executed"]},
            "passing_failures": {"recorded": counts["transient_recorded"], "seen": counts["transient_seen"]},
            "successful": self.successful.to_dict(),
            "failing": self.failing.to_dict(),
            "bursts": {"recorded": counts["bursts_recorded"], "seen": counts["bursts_seen"]},
            "false_stops": [stop.to_dict() for stop in self.false_stops],
            "stopped": [stop.to_dict() for stop in self.stopped],
        }


_COUNTED = (
    "recorded",
    "executed",
    "answered",
    "refused",
    "saved",
    "stale",
    "duplicates_recorded",
    "duplicates_executed",
    "transient_recorded",
    "transient_seen",
    "bursts_recorded",
    "bursts_seen",
)


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that could not be read at all, and why."""

    path: str
    why: str


@dataclass(slots=True)
class FunnelReport:
    """All sets, and the files that no reader knows."""

    profile: str
    sets: list[SetReport] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the `--json` object: `{profile, sets: [one object a set], unread, caution}`."""
        return {
            "profile": self.profile,
            "sets": [each.to_dict() for each in self.sets],
            "unread": [{"path": each.path, "why": each.why} for each in self.unread],
            "caution": CAUTION,
        }

    def set_of(self, dataset: str) -> SetReport:
        """Return the report of this data set, a new one if there is none yet."""
        found = next((each for each in self.sets if each.dataset == dataset), None)
        if found is None:
            found = SetReport(dataset)
            self.sets.append(found)
        return found


def backtest_funnel(
    paths: Iterable[str | Path],
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    profile: str | None = None,
    effects: str | Path | None = None,
    recorded_time: bool = True,
    deep: bool = True,
    progress: Callable[[str, int], None] = lambda _dataset, _runs: None,
    watch: Watch = lambda _read: None,
) -> FunnelReport:
    """Report what a configuration would have done to recorded runs.

    Args:
        paths: Files and folders of recorded runs.
        config: Configuration to judge, its allow and deny lists included; None judges a profile alone, with every
            recorded tool permitted.
        profile: Profile to build on.
        effects: A file like `effects.yaml` with what the tools of each set (or of each format) do; ours when left
            out. Tools that it does not name are reads where the record says so, else writes, and are listed.
        recorded_time: Let recorded seconds count against `max_seconds`.
        deep: Drive the whole live funnel; else judge by its decisions alone, a hundred times as fast.
        watch: Told how many bytes of all files have been read.
        progress: Called with a data set's name and the number of its runs so far.

    Raises:
        ConfigError: Configuration or effects cannot be used. FileNotFoundError: a path does not exist.
    """
    settings = load_settings(config, profile=profile)
    if config is None:
        settings = permissive(settings)
    known = load_effects(effects)
    report = FunnelReport(settings.profile)
    judges = _Judges(settings, deep=deep, recorded_time=recorded_time)
    before = 0
    for file in trace_files(paths):
        of_this_format = known.get(file.format_name(), _NOTHING_KNOWN)
        for item in _watched(file, before, watch):
            if isinstance(item, Broken):
                _note_broken(report, file.path, file.dataset, item)
                continue
            each = report.set_of(item.dataset)
            each.add(judges.judge(item, known.get(item.dataset, of_this_format)))
            progress(each.dataset, each.runs)
        before += file.path.stat().st_size
    return report


def _watched(file: TraceFile, before: int, watch: Watch) -> Iterator[RecordedRun | Broken]:
    return file.runs(lambda read: watch(before + read))


class _Judges:
    """Judges runs of many sets by one configuration."""

    def __init__(self, settings: Settings, *, deep: bool, recorded_time: bool) -> None:
        self._settings = settings
        self._deep = deep
        self._recorded_time = recorded_time
        self._made: dict[int, tuple[SetEffects, Judge]] = {}

    def judge(self, run: RecordedRun, effects: SetEffects) -> DrivenRun:
        if self._deep:
            return drive(run, self._settings, effects, recorded_time=self._recorded_time)
        made = self._made.get(id(effects))
        if made is None:
            judge = Judge(self._settings, effects, recorded_time=self._recorded_time)
            made = self._made[id(effects)] = (effects, judge)
        return made[1].judge(run)


_NOTHING_KNOWN = SetEffects()


def _note_broken(report: FunnelReport, path: Path, dataset: str, broken: Broken) -> None:
    if broken.position:
        report.set_of(dataset).broken.append(f"{path}:{broken.position}: {broken.why}")
    else:
        report.unread.append(Unread(str(path), broken.why))


def permissive(settings: Settings) -> Settings:
    """Permit whatever was recorded: a profile's tool names are not those of the record."""
    return replace(settings, tools=replace(settings.tools, allow=None, deny=(), idempotency_required=()))


def is_runaway(run: RecordedRun, driven: DrivenRun) -> bool:
    """Whether a recorded run made five equal calls in a row, or performed an equal write twice."""
    return driven.duplicates_recorded > 0 or longest_streak(run) >= RUNAWAY_CALLS_IN_A_ROW


def longest_streak(run: RecordedRun) -> int:
    """Return how many equal calls a run made in a row, at most."""
    longest = streak = 0
    before: tuple[str, str] | None = None
    for call in run.calls:
        key = (call.tool, call.args_hash)
        streak = streak + 1 if key == before else 1
        before = key
        longest = max(longest, streak)
    return longest


def _per_cent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 2) if whole else None
