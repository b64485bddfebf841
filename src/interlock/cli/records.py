"""A run as the command line shows it: its row in the store and its record, read without trust in their shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from interlock.cli.output import when
from interlock.core.reasons import SEVERITIES, Severity, StopReason
from interlock.journal.store import RunRow

__all__ = ["WouldHave", "reason_look", "run_facts", "trace_of", "would_have"]

_LOOKS = {
    Severity.NONE: "green",
    Severity.INFO: "cyan",
    Severity.WARNING: "yellow",
    Severity.HIGH: "red",
    Severity.CRITICAL: "bold red",
}


def run_facts(row: RunRow) -> dict[str, Any]:
    """Return one run for a list: who, when, why it ended, what it used."""
    record = row.record or {}
    return {
        "run_id": row.run_id,
        "tenant_id": row.tenant_id,
        "request_id": row.request_id,
        "agent": row.agent,
        "state": row.state.value,
        "stop_reason": row.reason,
        "started_at": when(row.started_at),
        "ended_at": when(row.ended_at) or None,
        "steps": record.get("steps"),
        "tool_calls": record.get("tool_calls"),
        "duration_s": record.get("duration_s"),
        "cost_usd": record.get("cost_usd"),
        "would_have": list(record.get("would_have") or ()),
        "attempts": row.attempts,
        "root_run_id": row.root_run_id,
        "path": row.path,
    }


def reason_look(reason: str | None) -> str:
    """Return how a stop reason looks: its severity as a colour."""
    if reason is None:
        return "dim"
    try:
        return _LOOKS[SEVERITIES[StopReason(reason)]]
    except ValueError:
        return ""


def trace_of(record: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return the calls of a record."""
    return [row for row in (record or {}).get("trace") or () if isinstance(row, Mapping)]


@dataclass(slots=True)
class WouldHave:
    """What one reason would have refused: in how many runs, how many calls, of which tools."""

    runs: int = 0
    calls: int = 0
    tools: Counter[str] = field(default_factory=Counter)


def would_have(rows: Iterable[RunRow]) -> dict[str, WouldHave]:
    """Sum up what observing runs would have refused, by stop reason, the most frequent first."""
    found: dict[str, WouldHave] = {}
    for row in rows:
        reasons = set((row.record or {}).get("would_have") or ())
        for call in trace_of(row.record):
            for reason in call.get("would_have") or ():
                entry = found.setdefault(reason, WouldHave())
                entry.calls += 1
                entry.tools[str(call.get("tool"))] += 1
                reasons.add(reason)
        for reason in reasons:
            found.setdefault(reason, WouldHave()).runs += 1
    return dict(sorted(found.items(), key=lambda item: (-item[1].runs, item[0])))
