"""The one structured record of a run: fields every operator knows first, in a fixed order, then ours.

No content: arguments stand as keyed hashes, outputs and partial results stay in the store's sealed part, and
what details say in words passes the redactor.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from interlock.core.results import RunResult
from interlock.record.redact import Redactor
from interlock.record.trace import Trace

__all__ = ["build_record"]

# Details that hold what an agent produced.
CONTENT = frozenset({"partial", "output"})


def build_record(
    result: RunResult,
    trace: Trace,
    *,
    ended_at: float,
    attempts: int = 1,
    root_run_id: str | None = None,
    path: str = "",
    facts: Mapping[str, Any] | None = None,
    redactor: Redactor | None = None,
) -> dict[str, Any]:
    """Return the record of a run that has ended (or is parked), ready for JSON.

    Args:
        ended_at: Wall-clock seconds (Unix).
        attempts: Workers that have had this run, this one included.
        root_run_id: Of the run that this one is a child of; None for a root. path: child path below it.
        facts: More of ours: profile, prices used, models. Redacted like details.
        redactor: Hides secrets in details and facts; None takes one with the default names.
    """
    hide = (redactor or Redactor()).value
    record: dict[str, Any] = {
        "run_id": result.run_id,
        "tenant_id": result.tenant_id or trace.tenant_id,
        "timestamp": datetime.fromtimestamp(ended_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "stop_reason": result.reason.value,
        "steps": result.steps,
        "tool_calls": result.tool_calls,
        "duration_s": round(result.elapsed_s, 3),
        "cost_usd": round(result.cost_usd, 6),
        "trace": trace.rows(),
        "trace_dropped": trace.dropped,
        "request_id": result.request_id or trace.request_id,
        "agent": trace.agent,
        "tokens": result.tokens,
        "attempts": attempts,
        "root_run_id": root_run_id or result.run_id,
        "path": path,
        "parked": result.parked,
        "would_have": trace.would_have(),
    }
    for name, value in (facts or {}).items():
        record.setdefault(name, hide(value))
    record["details"] = hide({name: value for name, value in result.details.items() if name not in CONTENT})
    return record
