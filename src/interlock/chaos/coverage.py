"""What a suite has exercised, and what production has that it lacks: by what happened, not by what tasks are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interlock.chaos.faults import MEMORY_KINDS, MODEL_KINDS, REQUEST_KINDS, WORKER_KINDS, Kind
from interlock.chaos.trying import Outcome
from interlock.core.categories import CATEGORIES, Category
from interlock.core.reasons import StopReason
from interlock.forensics.report import Report, diagnoses
from interlock.forensics.trace_files import Watch

__all__ = ["Coverage", "Production", "coverage_of", "lacking", "production"]

_OTHERS: Mapping[Kind, Category] = {
    Kind.PARTIAL_FOREVER: Category.UNBOUNDED_LOOP,
    Kind.EMPTY: Category.UNBOUNDED_LOOP,
    Kind.MODEL_REPEATS: Category.UNBOUNDED_LOOP,
    Kind.MODEL_SLOW: Category.UNBOUNDED_LOOP,
    Kind.INJECTED_INSTRUCTION: Category.TOOL_SURFACE,
    Kind.MODEL_UNKNOWN_TOOL: Category.TOOL_SURFACE,
    Kind.KILL_SWITCH: Category.TOOL_SURFACE,
    Kind.CLOCK_JUMP: Category.DUPLICATES,
    Kind.MODEL_RATE_LIMITED: Category.DUPLICATES,
}
_UNVALIDATED = {Kind.SCHEMA_DRIFT, Kind.MALFORMED_BODY, Kind.ERROR_WITH_200, Kind.WRONG_VALUE, Kind.OVERSIZED}

# What a failed call of a recorded run is filed as (`forensics/error_text.py`), and the faults that rehearse it.
_REHEARSED_BY: Mapping[str, tuple[str, ...]] = {
    "timeout": ("timeout", "latency"),
    "rate_limit": ("http_429", "model_rate_limited"),
    "server_or_network": ("http_5", "connect_refused", "reset", "answer_lost"),
    "auth": ("http_401", "http_403"),
    "bad_arguments": ("model_malformed_arguments", "http_400", "http_422"),
    "not_found": ("http_404", "empty"),
    "business_or_other": ("http_4", "error_with_200"),
}


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was exercised: stop reasons that were reached, guards that acted, faults that struck, categories.

    Attributes:
        categories: Of the faults that struck and of the reasons that runs ended with.
    """

    reasons: frozenset[str]
    guards: frozenset[str]
    faults: frozenset[str]
    categories: frozenset[Category]

    def as_json(self, guards: Sequence[str]) -> dict[str, dict[str, list[str]]]:
        """Return what was exercised and what was not, by name."""
        every = {
            "stop_reasons": ([reason.value for reason in StopReason], self.reasons),
            "guards": (list(guards), self.guards),
            "categories": (
                [_titled(each) for each in Category],
                {_titled(each) for each in self.categories},
            ),
        }
        return {
            name: {
                "exercised": [each for each in known if each in seen],
                "not_exercised": [each for each in known if each not in seen],
            }
            for name, (known, seen) in every.items()
        }


def coverage_of(outcomes: Iterable[Outcome]) -> Coverage:
    """Return what these tasks have exercised; one that could not be tried has exercised nothing."""
    tried = [each for outcome in outcomes for each in outcome.repetitions]
    reasons = frozenset(each.reason for each in tried)
    faults = frozenset(label for each in tried for label in each.injected)
    categories = {_category(label) for label in faults}
    categories |= {CATEGORIES[StopReason(reason)] for reason in reasons if StopReason(reason) in CATEGORIES}
    if any(each.injected and each.guards.get("recorder") for each in tried):
        # The record of a run under faults was read and judged: by a task of a suite.
        categories |= {Category.NO_OBSERVABILITY, Category.NO_EVALUATION}
    guards = frozenset(guard for each in tried for guard in each.guards)
    return Coverage(reasons, guards, faults, frozenset(categories))


@dataclass(frozen=True, slots=True)
class Production:
    """Recorded runs: their diagnoses added up, and how often each stop reason that they name ended one."""

    report: Report
    reasons: Mapping[str, int]


def production(paths: Sequence[Path], watch: Watch) -> Production:
    """Read recorded runs, whoever recorded them; `watch` is told how many bytes have been read.

    Raises:
        FileNotFoundError: One of the paths does not exist.
    """
    report = Report()
    reasons = Counter(diagnosis.run.stop_reason for diagnosis in diagnoses(paths, report, watch=watch))
    return Production(report, reasons)


def lacking(recorded: Production, coverage: Coverage) -> list[str]:
    """Return what recorded runs show and the suite has not exercised, a sentence each; worst first."""
    report = recorded.report
    found: list[tuple[int, str]] = []
    for category in Category:
        runs = report.verdicts.get(str(int(category)), 0)
        if runs and category not in coverage.categories:
            found.append((runs, f"{runs} runs of category {_titled(category)}: no fault of the suite is of that kind"))
    known = {reason.value for reason in StopReason}
    by_reason = dict(recorded.reasons)
    for incident in report.incidents:
        by_reason[incident.reason] = max(by_reason.get(incident.reason, 0), incident.runs)
    for reason, runs in by_reason.items():
        if reason in known and reason not in coverage.reasons:
            found.append((runs, f"{runs} runs with {reason}: no task of the suite ends that way"))
    met: dict[str, int] = {}
    for (_, error), calls in report.seen_pairs.items():
        met[error] = met.get(error, 0) + calls
    for error, calls in met.items():
        words = _REHEARSED_BY.get(error, ())
        if words and not any(label.startswith(words) for label in coverage.faults):
            found.append(
                (calls, f"{calls} calls failed with {error}: no task of the suite injects {' or '.join(words)}")
            )
    return [text for _, text in sorted(found, reverse=True)]


def _titled(category: Category) -> str:
    return f"{int(category)} ({category.title})"


def _category(label: str) -> Category:
    name = "http" if label.startswith("http_") else label
    if name not in Kind.__members__.values():
        return Category.DUPLICATES  # of the wire alone: a drip, a half-open connection
    kind = Kind(name)
    if kind in _OTHERS:
        return _OTHERS[kind]
    if kind in _UNVALIDATED or kind in MODEL_KINDS:
        return Category.UNVALIDATED_OUTPUT
    if kind in MEMORY_KINDS:
        return Category.MEMORY
    if kind in REQUEST_KINDS or kind in WORKER_KINDS:
        return Category.CONCURRENCY
    return Category.DUPLICATES
