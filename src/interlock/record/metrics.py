"""Numbers for dashboards and alerts: counted in this process, printed as Prometheus text, without a dependency.

Labels are few and bounded: a run's id or a tenant's name is never one, a tool that nobody registered counts
as `unknown`, and a label that keeps taking new values ends in `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

from interlock.core.categories import Word
from interlock.core.reasons import StopReason

__all__ = ["CALL_EDGES_S", "RUN_EDGES_S", "Metrics", "ToolCell"]

CALL_EDGES_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
RUN_EDGES_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
MAX_SERIES = 1_000
OTHER = "other"

Labels = tuple[str, ...]

# name -> (type, label names, help)
_FAMILIES: dict[str, tuple[str, Labels, str]] = {
    "interlock_runs_total": (
        "counter",
        ("agent", "stop_reason", "category"),
        "Runs that ended, by reason and category of failure.",
    ),
    "interlock_run_duration_seconds": ("histogram", (), "Seconds from the start of a run to its end."),
    "interlock_tool_calls_total": ("counter", ("tool", "outcome"), "Calls proposed, by what became of them."),
    "interlock_tool_call_duration_seconds": ("histogram", ("tool",), "Seconds from a proposal to its answer."),
    "interlock_cost_usd_total": ("counter", ("agent", "model"), "Dollars spent on model turns."),
    "interlock_cost_unknown_total": ("counter", ("model",), "Model turns whose price is not known."),
    "interlock_denials_total": ("counter", ("tool", "reason"), "Calls refused before anything was sent."),
    "interlock_dedup_hits_total": ("counter", (), "Writes answered from the journal instead of being sent again."),
    "interlock_circuit_state": ("gauge", ("tool",), "0 closed, 1 half-open, 2 open."),
    "interlock_kill_switch_engaged": ("gauge", ("scope",), "Kill switches that are set, by scope."),
    "interlock_safe_mode": ("gauge", (), "1 while safe mode is on."),
    "interlock_approvals_pending": ("gauge", (), "Approvals that wait for a person."),
    "interlock_approval_age_seconds": ("gauge", (), "Age of the oldest approval that waits."),
    "interlock_doubts": ("gauge", (), "Writes of which nobody knows whether they happened."),
    "interlock_memory_reads_total": ("counter", ("verb",), "Reads of what agents remember and keep."),
    "interlock_memory_rejected_total": (
        "counter",
        ("reason",),
        "Facts found and left out (over_budget, over_k, unverified, refuted), or not kept (not_validated, embedder).",
    ),
    "interlock_memory_expired_total": ("counter", (), "Facts and artifacts deleted because their time is over."),
    "interlock_prompt_growth_total": ("counter", ("agent",), "Runs whose prompt has outgrown its start."),
    "interlock_records_lost_total": ("counter", ("sink",), "Log lines and trace rows that could not be kept."),
}


class Histogram:
    """Counts of durations between fixed edges, their sum included."""

    __slots__ = ("buckets", "edges", "total_s")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.buckets = [0] * (len(edges) + 1)
        self.total_s = 0.0

    def add(self, value_s: float) -> None:
        """Count one duration."""
        self.buckets[bisect_left(self.edges, value_s)] += 1
        self.total_s += value_s


class ToolCell:
    """The numbers of one tool; a funnel keeps its cell, so that a call looks nothing up by name.

    Attributes:
        outcomes: Calls by status. denials: refusals by stop reason. durations: of all calls.
    """

    __slots__ = ("denials", "durations", "outcomes")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.denials: dict[str, int] = {}
        self.durations = Histogram(CALL_EDGES_S)

    def add(self, status: str, duration_s: float) -> None:
        """Count one call."""
        outcomes = self.outcomes
        outcomes[status] = outcomes.get(status, 0) + 1
        durations = self.durations
        durations.buckets[bisect_left(CALL_EDGES_S, duration_s)] += 1
        durations.total_s += duration_s

    def refused(self, reason: str) -> None:
        """Count one refusal."""
        self.denials[reason] = self.denials.get(reason, 0) + 1


class Metrics:
    """All counters of a process. Writers never block each other; `render` reads while they write."""

    def __init__(self) -> None:
        self._tools: dict[str, ToolCell] = {}
        self._counts: dict[str, dict[Labels, float]] = {}
        self._run_durations = Histogram(RUN_EDGES_S)
        self._gauges: dict[str, Callable[[], Mapping[Labels, float]]] = {}

    def tool(self, name: str) -> ToolCell:
        """Return the cell of a tool; beyond a thousand tools, the cell of `other`."""
        cell = self._tools.get(name)
        if cell is None:
            name = name if len(self._tools) < MAX_SERIES else OTHER
            cell = self._tools.setdefault(name, ToolCell())
        return cell

    def run_ended(self, agent: str, reason: StopReason, duration_s: float, category: Word | None = None) -> None:
        """Count one run; `category` is None where it did not fail."""
        word = "none" if category is None else str(category)
        self._count("interlock_runs_total", (agent, reason.value, word), 1)
        self._run_durations.add(duration_s)

    def spent(self, agent: str, model: str, cost_usd: float | None) -> None:
        """Count the dollars of one model turn; None says that its price is not known, which is never 0."""
        if cost_usd is None:
            self._count("interlock_cost_unknown_total", (model,), 1)
        else:
            self._count("interlock_cost_usd_total", (agent, model), cost_usd)

    def lost(self, sink: str, records: int = 1) -> None:
        """Count records that a sink could not keep."""
        self._count("interlock_records_lost_total", (sink,), records)

    def memory_read(self, verb: str) -> None:
        """Count one read of memory."""
        self._count("interlock_memory_reads_total", (verb,), 1)

    def memory_rejected(self, reason: str, facts: int = 1) -> None:
        """Count facts that were found, or offered to be kept, and were not used."""
        self._count("interlock_memory_rejected_total", (reason,), facts)

    def memory_expired(self, rows: int) -> None:
        """Count facts and artifacts that were deleted because their time is over."""
        self._count("interlock_memory_expired_total", (), rows)

    def prompt_grown(self, agent: str) -> None:
        """Count one run whose prompt has outgrown its start."""
        self._count("interlock_prompt_growth_total", (agent,), 1)

    def watch(self, name: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        """Let `render` ask for the present values of a gauge (or of a counter that somebody else keeps).

        Args:
            name: One of the published names without a counter of its own here, e.g. `interlock_circuit_state`.
            read: Returns values by their labels, `()` where the metric has none.

        Raises:
            KeyError: No such metric is published.
        """
        if name not in _FAMILIES:
            raise KeyError(name)
        self._gauges[name] = read

    def render(self) -> str:
        """Return everything in Prometheus text format 0.0.4. A gauge that cannot be read is left out."""
        lines: list[str] = []
        for name, (kind, labels, text) in _FAMILIES.items():
            lines += (f"# HELP {name} {text}", f"# TYPE {name} {kind}")
            lines += self._samples(name, labels)
        return "\n".join(lines) + "\n"

    def _count(self, name: str, labels: Labels, amount: float) -> None:
        series = self._counts.setdefault(name, {})
        if labels not in series and len(series) >= MAX_SERIES:
            labels = (OTHER,) * len(labels)
        series[labels] = series.get(labels, 0) + amount

    def _samples(self, name: str, labels: Labels) -> Iterable[str]:
        tools = list(self._tools.items())
        values: dict[Labels, float]
        match name:
            case "interlock_run_duration_seconds":
                return _histogram(name, "", self._run_durations)
            case "interlock_tool_call_duration_seconds":
                return [
                    line for tool, cell in tools for line in _histogram(name, _text(labels, (tool,)), cell.durations)
                ]
            case "interlock_tool_calls_total":
                values = {(tool, status): n for tool, cell in tools for status, n in list(cell.outcomes.items())}
            case "interlock_denials_total":
                values = {(tool, reason): n for tool, cell in tools for reason, n in list(cell.denials.items())}
            case "interlock_dedup_hits_total":
                values = {(): sum(cell.outcomes.get("replayed", 0) for _, cell in tools)}
            case _:
                return _plain(name, labels, self._read(name))
        return _plain(name, labels, values)

    def _read(self, name: str) -> Mapping[Labels, float]:
        read = self._gauges.get(name)
        if read is None:
            return dict(self._counts.get(name, {}))
        try:
            return read()
        except Exception:  # a store that is down must not take the other numbers with it
            return {}


def _plain(name: str, labels: Labels, values: Mapping[Labels, float]) -> list[str]:
    return [f"{name}{_braced(_text(labels, key))} {_number(value)}" for key, value in values.items()]


def _histogram(name: str, labels: str, cell: Histogram) -> list[str]:
    lines, seen = [], 0
    comma = "," if labels else ""
    buckets = list(cell.buckets)
    for edge, count in zip((*cell.edges, None), buckets, strict=True):
        seen += count
        lines.append(f'{name}_bucket{{{labels}{comma}le="{"+Inf" if edge is None else edge}"}} {seen}')
    lines += (f"{name}_sum{_braced(labels)} {_number(cell.total_s)}", f"{name}_count{_braced(labels)} {seen}")
    return lines


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _text(names: Labels, values: Labels) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return repr(value + 0)
