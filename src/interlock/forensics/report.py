"""What many diagnoses add up to: verdicts, incidents, worst tools, what failing cost; in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from interlock.core.categories import MODEL
from interlock.forensics.diagnosis import PROMPT_ALARM_TOKENS, Diagnosis, diagnose
from interlock.forensics.findings import Across, Finding
from interlock.forensics.trace_files import TraceFile, Watch, trace_files
from interlock.forensics.traces import Broken, RecordedRun

__all__ = ["Bar", "Incident", "Report", "Spent", "ToolFacts", "bars_of", "diagnoses"]

# What is kept of a pile of any size; the rest is counted.
KEPT_INCIDENTS = 20_000
KEPT_BROKEN = 200
KEPT_RUNS_OF_AN_INCIDENT = 5
KEPT_BARS = 80
_KEPT_TOOLS = 5_000
OTHER = "…"


class Bar(NamedTuple):
    """One call in a waterfall: where it stands and for how long, in shares of the whole (0 to 1)."""

    step: int
    tool: str
    args_hash: str
    status: str
    start: float
    length: float
    duration_s: float | None
    marked: bool


@dataclass(slots=True)
class Spent:
    """What runs used: dollars and seconds where known, and of how many runs they are not."""

    runs: int = 0
    calls: int = 0
    cost_usd: float = 0.0
    cost_unknown: int = 0
    seconds: float = 0.0
    seconds_unknown: int = 0

    def add(self, run: RecordedRun, calls: int) -> None:
        """Take in one run."""
        self.runs += 1
        self.calls += calls
        self.cost_usd += run.cost_usd or 0.0
        self.cost_unknown += run.cost_usd is None
        self.seconds += run.seconds or 0.0
        self.seconds_unknown += run.seconds is None


@dataclass(slots=True)
class ToolFacts:
    """One tool over all runs: calls, failures, findings that decided, and the time it took."""

    calls: int = 0
    errors: int = 0
    blamed: int = 0
    timed: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0


@dataclass(slots=True)
class Incident:
    """Runs with the same reason, tool and arguments.

    Attributes:
        category, reason, tool, args_hash: What groups them. why: of the first finding.
        runs: How many. findings: calls in them. decided: runs whose verdict it was.
        examples: Ids of the first runs. bars: the waterfall of the first, where asked for.
    """

    category: int
    reason: str
    tool: str
    args_hash: str
    why: str
    runs: int = 0
    findings: int = 0
    decided: int = 0
    cost_usd: float = 0.0
    examples: list[str] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    total_s: float | None = None


@dataclass(slots=True)
class Report:
    """The sum of a pile of diagnoses.

    Attributes:
        draw: Keep a waterfall for each incident.
        verdicts: Runs by verdict (`1` … `8`, `model`, `insufficient`); `clean` those of `model` that succeeded.
        lacking: Runs whose record has no such field (cost, times, stop reason, label).
        broken: Records that could not be read, the first of them by name. unread: files.
    """

    draw: bool = False
    verdicts: Counter[str] = field(default_factory=Counter)
    clean: int = 0
    all: Spent = field(default_factory=Spent)
    failed: Spent = field(default_factory=Spent)
    by_verdict: dict[str, Spent] = field(default_factory=dict)
    tools: dict[str, ToolFacts] = field(default_factory=dict)
    lacking: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    seen_pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken_count: int = 0
    broken: list[str] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)
    _incidents: dict[tuple[str, str, str], Incident] = field(default_factory=dict)

    def add(self, diagnosis: Diagnosis) -> None:
        """Take in one run."""
        run = diagnosis.run
        verdict = str(diagnosis.verdict)
        calls = list(run.calls)
        self.verdicts[verdict] += 1
        self.all.add(run, len(calls))
        self.by_verdict.setdefault(verdict, Spent()).add(run, len(calls))
        healthy = diagnosis.verdict == MODEL and run.success is not False
        self.clean += diagnosis.verdict == MODEL and run.success is True
        if not healthy:
            self.failed.add(run, len(calls))
        self.missing.update(diagnosis.missing)
        for name, there in _fields(run):
            self.lacking[name] += not there
        for call in calls:
            facts = self._tool(call.tool)
            facts.calls += 1
            facts.errors += call.error is not None
            if call.error is not None:
                self.seen_pairs[(verdict, call.error)] += 1
            if call.duration_s is not None:
                facts.timed += 1
                facts.seconds += call.duration_s
                facts.slowest_s = max(facts.slowest_s, call.duration_s)
        self._take_incidents(diagnosis)

    def note(self, broken: Broken, path: Path) -> None:
        """Take in what could not be read."""
        if broken.position:
            self.broken_count += 1
            if len(self.broken) < KEPT_BROKEN:
                self.broken.append(f"{path}:{broken.position}: {broken.why}")
        else:
            self.unread.append((str(path), broken.why))

    @property
    def incidents(self) -> list[Incident]:
        """Incidents, those that decided most runs first."""
        return sorted(self._incidents.values(), key=lambda i: (-i.decided, -i.runs, -i.findings, i.reason, i.tool))

    @property
    def worst_tools(self) -> list[tuple[str, ToolFacts]]:
        """Tools that failed, were slow or were blamed, the worst first."""
        worst = sorted(self.tools.items(), key=lambda item: (-item[1].blamed, -item[1].errors, -item[1].slowest_s))
        return [(name, facts) for name, facts in worst if facts.blamed or facts.errors or facts.slowest_s]

    def _tool(self, name: str) -> ToolFacts:
        if name not in self.tools and len(self.tools) >= _KEPT_TOOLS:
            name = OTHER
        return self.tools.setdefault(name, ToolFacts())

    def _take_incidents(self, diagnosis: Diagnosis) -> None:
        category = diagnosis.category
        new: set[tuple[str, str, str]] = set()
        for finding in diagnosis.evidence:
            key = (finding.reason, finding.tool, finding.args_hash)
            if key not in self._incidents and len(self._incidents) >= KEPT_INCIDENTS:
                key = (finding.reason, finding.tool, OTHER)
            incident = self._incidents.setdefault(key, Incident(int(finding.category), *key, finding.why))
            incident.findings += 1
            decides = finding.decides and finding.category == category
            if decides and finding.tool:
                self._tool(finding.tool).blamed += 1
            if key in new:
                continue
            new.add(key)
            incident.runs += 1
            incident.decided += decides
            incident.cost_usd += diagnosis.run.cost_usd or 0.0
            if len(incident.examples) < KEPT_RUNS_OF_AN_INCIDENT:
                incident.examples.append(diagnosis.run.run_id)
            if self.draw and not incident.bars:
                incident.bars, incident.total_s = bars_of(diagnosis.run, diagnosis.evidence)


def _fields(run: RecordedRun) -> tuple[tuple[str, bool], ...]:
    return (
        ("cost_usd", run.cost_usd is not None),
        ("seconds", run.seconds is not None),
        ("stop_reason", bool(run.stop_reason)),
        ("success", run.success is not None),
    )


def bars_of(run: RecordedRun, evidence: Iterable[Finding]) -> tuple[list[Bar], float | None]:
    """Return the calls of a run as bars, around the first piece of evidence, and how long they took in all.

    Where the record has no times every call takes one unit, calls of a turn beside each other.
    """
    marked = {(f.step, f.tool, f.args_hash) for f in evidence}
    placed = [(step, call) for step, turn in enumerate(run.turns) for call in turn.calls]
    first = next((i for i, (s, c) in enumerate(placed) if (s, c.tool, c.args_hash) in marked), 0)
    begin = max(0, min(first - KEPT_BARS // 4, len(placed) - KEPT_BARS))
    placed = placed[begin : begin + KEPT_BARS]
    if not placed:
        return [], None
    timed = all(call.at_s is not None for _, call in placed)
    starts = [call.at_s or 0.0 for _, call in placed] if timed else [float(step) for step, _ in placed]
    nexts = [*starts[1:], max(starts) + 1.0]
    lengths = [
        call.duration_s if timed and call.duration_s is not None else max(after - start, 0.0) if timed else 1.0
        for (_, call), start, after in zip(placed, starts, nexts, strict=True)
    ]
    zero = min(starts)
    whole = max(max(s + n for s, n in zip(starts, lengths, strict=True)) - zero, 1e-9)
    bars = [
        Bar(
            step,
            call.tool,
            call.args_hash,
            call.status or (call.error or "ok"),
            (start - zero) / whole,
            length / whole,
            call.duration_s,
            (step, call.tool, call.args_hash) in marked,
        )
        for (step, call), start, length in zip(placed, starts, lengths, strict=True)
    ]
    return bars, whole if timed else None


def diagnoses(
    paths: Iterable[str | Path],
    report: Report,
    *,
    prompt_alarm: int = PROMPT_ALARM_TOKENS,
    watch: Watch = lambda _read: None,
) -> Iterator[Diagnosis]:
    """Yield the diagnosis of every run under these paths, adding each to the report.

    Args:
        paths: Files and folders. report: is added to.
        prompt_alarm: See `diagnose`. watch: told how many bytes of all files have been read.

    Raises:
        FileNotFoundError: One of the paths does not exist.
    """
    across = Across()
    before = 0
    for file in trace_files(paths, prefer="records"):
        for item in _watched(file, before, watch):
            if isinstance(item, Broken):
                report.note(item, file.path)
                continue
            diagnosis = diagnose(item, across, prompt_alarm=prompt_alarm)
            report.add(diagnosis)
            yield diagnosis
        before += file.path.stat().st_size if file.path.exists() else 0


def _watched(file: TraceFile, before: int, watch: Watch) -> Iterator[RecordedRun | Broken]:
    return file.runs(lambda read: watch(before + read))
