"""Interlock's own record of a run, the structured log that everyone should have, and Interlock's log lines.

A record has `run_id`, `stop_reason` and a `trace` of calls with `tool`, `args_hash`, `status`; any system that
writes these fields is read. Log lines (`event: call`, `event: run`) are put together by their `run_id`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from interlock.core.reasons import StopReason
from interlock.core.verbs import VERBS
from interlock.forensics.grouping import gathered
from interlock.forensics.json_records import each_run, json_records
from interlock.forensics.traces import Broken, BrokenRecord, ErrorKind, RecordedCall, RecordedRun, RecordedTurn

__all__ = ["detects", "detects_lines", "read", "read_lines", "run_of_record"]

# What the statuses of a record say of the call; those that are missing here mean that it succeeded or was not sent.
_ERRORS: Mapping[str, ErrorKind] = {
    "timeout": "timeout",
    "rate_limited": "rate_limit",
    "rate_limit": "rate_limit",
    "auth_failed": "auth",
    "invalid_arguments": "bad_arguments",
    "error": "business_or_other",
    "failed": "business_or_other",
    "unknown": "server_or_network",
    "outcome_unknown": "server_or_network",
    "in_doubt": "server_or_network",
}


def detects(record: Any) -> bool:
    """Whether this record has a run's id, its stop reason and a trace."""
    return (
        isinstance(record, dict)
        and "run_id" in record
        and isinstance(record.get("trace"), list)
        and ("stop_reason" in record or "tool_calls" in record)
    )


def detects_lines(record: Any) -> bool:
    """Whether this record is one of Interlock's log lines."""
    return isinstance(record, dict) and record.get("event") in {"call", "run"} and "run_id" in record


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the runs, and what is broken, of a file of records."""
    return each_run(lines, lambda record: run_of_record(record, dataset=dataset))


def read_lines(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the runs, and what is broken, of a file of log lines."""
    broken: list[Broken] = []
    for run_id, entries in gathered(_parts(lines, broken)):
        yield from broken
        broken.clear()
        whole: dict[str, Any] = {"run_id": run_id, "trace": []}
        for entry in entries:
            if entry["event"] == "run":
                whole |= {name: value for name, value in entry.items() if name != "trace"}
            else:
                whole["trace"].append({**entry, "duration_ms": (entry.get("elapsed_s") or 0) * 1e3})
        whole["duration_s"] = whole.get("duration_s", whole.get("elapsed_s"))
        try:
            yield run_of_record(whole, dataset=dataset)
        except BrokenRecord as error:
            yield Broken(1, f"run {run_id}: {error}")
    yield from broken


def _parts(lines: Iterable[bytes], broken: list[Broken]) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in json_records(lines):
        if isinstance(item, Broken):
            broken.append(item)
        elif not isinstance(item[1], dict) or "event" not in item[1]:
            broken.append(Broken(item[0], "no log line with an `event`"))
        elif detects_lines(item[1]):
            yield str(item[1]["run_id"]), item[1]


def run_of_record(record: Any, *, dataset: str = "", doubts: int | None = None) -> RecordedRun:
    """Return the run that a record tells of.

    Args:
        record: As written to a file or kept by a store.
        dataset: Name of the set it belongs to.
        doubts: Open doubts as the store knows them; None takes those that the record lists.

    Raises:
        BrokenRecord: It is no such record.
    """
    if not isinstance(record, dict) or "run_id" not in record or not isinstance(record.get("trace"), list):
        raise BrokenRecord("a run needs `run_id` and a list of calls under `trace`")
    rows = [row for row in record["trace"] if isinstance(row, dict)]
    if "request_id" in record:
        # What the agent remembered and kept is on our records too, and is no call of a tool.
        rows = [row for row in rows if row.get("tool") not in VERBS]
    details = record.get("details") if isinstance(record.get("details"), dict) else {}
    reason = str(record.get("stop_reason") or "")
    # Only we write which effect a call had; others may use the same words and mean less.
    ours = "request_id" in record and all("effect" in row for row in rows)
    began = _began(rows)
    turns: dict[int, list[RecordedCall]] = {}
    for number, row in enumerate(rows):
        step = row.get("step", number)
        turns.setdefault(step if isinstance(step, int) and 0 <= step < 1_000_000 else number, []).append(
            _call(row, began)
        )
    last = max(turns, default=-1) + 1
    steps = max(int(record.get("steps") or 0), last)
    counted = record.get("tool_calls")
    dropped = int(record.get("trace_dropped") or 0)
    return RecordedRun(
        dataset=dataset,
        run_id=str(record["run_id"]),
        model=str(record.get("model") or ""),
        domain="",
        task="",
        success=_success(record, reason),
        turns=tuple(RecordedTurn(tuple(turns.get(step, ()))) for step in range(min(steps, 100_000))),
        cost_usd=record.get("cost_usd"),
        seconds=record.get("duration_s"),
        stop_reason=reason,
        request_id=str(record.get("request_id") or ""),
        ours=ours,
        doubts=len((details or {}).get("doubts") or ()) if doubts is None else doubts,
        lost=max(0, counted - len(rows) - dropped) if isinstance(counted, int) and not dropped else 0,
        error=str((details or {}).get("message") or ""),
    )


def _success(record: Mapping[str, Any], reason: str) -> bool | None:
    if isinstance(record.get("success"), bool):
        return bool(record["success"])
    return reason == StopReason.SUCCESS if reason and reason != StopReason.APPROVAL_PENDING else None


def _began(rows: Sequence[Mapping[str, Any]]) -> float | None:
    starts = [
        row["ended_at"] - (row.get("duration_ms") or 0) / 1e3 for row in rows if isinstance(row.get("ended_at"), float)
    ]
    return min(starts, default=None)


def _call(row: Mapping[str, Any], began: float | None) -> RecordedCall:
    status = str(row.get("status") or "")
    took = row.get("duration_ms")
    effect = row.get("effect")
    ended = row.get("ended_at")
    duration_s = took / 1e3 if isinstance(took, int | float) else None
    at_s = ended - (duration_s or 0.0) - began if isinstance(ended, float) and began is not None else None
    args = row.get("args")
    return RecordedCall(
        str(row.get("tool") or ""),
        args if isinstance(args, dict) else None,
        str(row.get("args_hash") or ""),
        error=_ERRORS.get(status),
        write=effect == "write" if effect in {"read", "write"} else None,
        at_s=at_s,
        duration_s=duration_s,
        status=status,
        key=str(row.get("key") or ""),
        reason=str(row.get("reason") or ""),
    )
