"""The normalised form: one run a line, its calls flat with `step`, `args` | `args_head`, `args_sha1`, `out`.

Long outputs and arguments are there by their beginning and their SHA-1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from interlock.forensics.json_records import each_run
from interlock.forensics.traces import (
    Broken,
    BrokenRecord,
    ErrorKind,
    RecordedCall,
    RecordedRun,
    RecordedTurn,
    args_hash,
)

__all__ = ["detects", "read"]

_KINDS = frozenset(get_args(ErrorKind))
_FEW_STEPS = 100_000


def detects(record: Any) -> bool:
    """Whether this record has a data set, a run and flat calls."""
    return isinstance(record, dict) and {"dataset", "run_id"} <= record.keys() and isinstance(record.get("calls"), list)


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the runs, and what is broken, of a file in this format; a record's own data set name holds."""
    return each_run(lines, lambda record: _run(record, dataset))


def _run(record: Any, dataset: str) -> RecordedRun:
    if not detects(record):
        raise BrokenRecord("a run needs `dataset`, `run_id` and a list of `calls`")
    calls: list[list[RecordedCall]] = [[] for _ in range(min(int(record.get("steps") or 0), _FEW_STEPS))]
    paid_at: dict[int, float] = {}
    last = 0
    for call in record["calls"]:
        step = call.get("step", last)
        if not isinstance(step, int) or not last <= step < _FEW_STEPS:
            raise BrokenRecord(f"a call of step {step!r} behind one of step {last}")
        last = step
        calls.extend([] for _ in range(len(calls), step + 1))
        calls[step].append(_call(call))
        if call.get("cost_after") is not None:
            paid_at[step] = float(call["cost_after"])
    costs = _costs(paid_at, len(calls), record.get("cost_usd"))
    success = record.get("success")
    extra = record.get("extra") or {}
    return RecordedRun(
        dataset=str(record["dataset"] or dataset),
        run_id=str(record["run_id"]),
        model=str(record.get("model") or ""),
        domain=str(record.get("domain") or ""),
        task=str(record.get("task") or ""),
        success=success if isinstance(success, bool) else None,
        turns=tuple(
            RecordedTurn(tuple(turn), cost, turn[0].at_s if turn else None)
            for turn, cost in zip(calls, costs, strict=True)
        ),
        cost_usd=record.get("cost_usd"),
        seconds=record.get("seconds"),
        stop_reason=str(extra.get("termination") or extra.get("exit") or ""),
        error=str(extra.get("error") or ""),
    )


def _call(call: Mapping[str, Any]) -> RecordedCall:
    if not isinstance(call.get("tool"), str):
        raise BrokenRecord("a call without a tool's name")
    known = "args" in call
    if not known and not call.get("args_sha1"):
        raise BrokenRecord("a call with neither `args` nor `args_sha1`")
    error = call.get("error")
    return RecordedCall(
        call["tool"],
        call.get("args"),
        call.get("args_sha1") or args_hash(call["args"]),
        output=call.get("out"),
        output_hash=call.get("out_sha1"),
        error=error if error is None or error in _KINDS else "business_or_other",
        write=call.get("write"),
        at_s=call.get("t"),
    )


def _costs(paid_at: Mapping[int, float], steps: int, total: float | None) -> list[float | None]:
    """Return what each step cost, from what had been paid after some of them."""
    if not paid_at and total is None:
        return [None] * steps
    costs: list[float | None] = []
    paid = 0.0
    for step in range(steps):
        now = max(paid, paid_at.get(step, paid))
        costs.append(now - paid)
        paid = now
    if costs and total is not None and total > paid:
        costs[-1] = (costs[-1] or 0.0) + total - paid
    return costs
