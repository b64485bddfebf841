"""What a run's end means: the reason, and the facts beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

import orjson

from interlock.core.categories import category_of
from interlock.core.errors import InterlockError
from interlock.core.reasons import StopReason
from interlock.core.results import RunResult
from interlock.gateway.scope import RunScope
from interlock.journal.store import RunRow
from interlock.policy.taint import Taint
from interlock.resilience.classify import classify_tool_error
from interlock.supervisor.requests import RunRequest

__all__ = ["Ended", "failed", "judge", "refused", "stored_result"]


class Ended(Protocol):
    """A run, as far as its outcome needs it."""

    scope: RunScope
    partial: Any
    output: Any
    doubts: list[str]
    not_resumable: str | None


def judge(run: Ended, *, work: asyncio.Future[Any] | None = None, error: BaseException | None = None) -> RunResult:
    """Return the outcome of a run.

    Args:
        run: The run.
        work: The agent's task, done or given up; its result or exception counts.
        error: What left the run's block, where there is no task.
    """
    output = run.output
    if work is not None:
        if not work.done():
            error = InterlockError("the agent ignored its cancellation: its run was closed without it")
        elif work.cancelled():
            error = asyncio.CancelledError()
        else:
            error = work.exception()
            output = work.result() if error is None else None
    stop = run.scope.stop
    details: dict[str, Any] = {}
    if stop is not None:
        reason = stop.reason
        details = {"message": stop.message, **stop.details}
        partial = output if output is not None else _so_far(run.partial)
        output = None
    elif error is None:
        reason, partial = StopReason.SUCCESS, None
    else:
        reason, partial = _reason_of(error), _so_far(run.partial)
    if error is not None and not (stop is not None and isinstance(error, asyncio.CancelledError)):
        details = {"error": type(error).__name__, "message": str(error), **_facts(error), **details}
    if partial is not None:
        details["partial"] = partial
    return _result(run, reason, output, details)


def _so_far(partial: Any) -> Any:
    """Return what there is so far; whoever would have to write it down at every turn leaves a function instead."""
    if not callable(partial):
        return partial
    try:
        return partial()
    except Exception:  # the outcome is not to fail for what is only kept beside it
        return None


def _reason_of(error: BaseException) -> StopReason:
    if isinstance(error, InterlockError):
        return error.reason
    if isinstance(error, asyncio.CancelledError):
        return StopReason.CANCELLED
    if isinstance(error, Exception):
        return classify_tool_error(error)
    return StopReason.CANCELLED if isinstance(error, KeyboardInterrupt) else StopReason.INTERNAL_ERROR


def _facts(error: BaseException) -> Mapping[str, Any]:
    return error.details if isinstance(error, InterlockError) else {}


def _result(run: Ended, reason: StopReason, output: Any, details: dict[str, Any]) -> RunResult:
    scope = run.scope
    meter = scope.meter
    if run.doubts:
        details["doubts"] = list(run.doubts)
    if run.not_resumable is not None:
        details["not_resumable"] = run.not_resumable
    if meter.unpriced is not None:
        details["cost_unknown"] = meter.unpriced
    if meter.overdrawn:
        details["overdrawn"] = True
    if isinstance(scope.lineage, Taint) and scope.lineage.sources:
        details["tainted_by"] = list(scope.lineage.sources)
    if scope.growth.alarm is not None:
        details["prompt_growth"] = asdict(scope.growth.alarm)
    if scope.observing:
        scope.is_over()  # noted, although no call and no turn has come since
        details["would_have"] = scope.trace.would_have()
    category = category_of(reason, doubts=bool(run.doubts))
    if category is not None:
        details["category"] = category
    return RunResult(
        run_id=scope.run_id,
        reason=reason,
        output=output,
        steps=meter.steps,
        tool_calls=meter.calls,
        cost_usd=meter.usd,
        elapsed_s=scope.clock.monotonic() - scope.started_s,
        tokens=meter.tokens,
        tenant_id=scope.tenant_id,
        request_id=scope.request_id,
        details=details,
    )


def stored_result(row: RunRow) -> RunResult:
    """Return the outcome that the store holds of a run that has ended or is parked."""
    record = row.record or {}
    details = dict(record.get("details") or {})
    if row.reason == StopReason.SUCCESS and not row.output_kept:
        details["output"] = "done, result not kept"
    return RunResult(
        run_id=row.run_id,
        reason=StopReason(row.reason or StopReason.INTERNAL_ERROR),
        output=None if row.output is None else orjson.loads(row.output),
        steps=int(record.get("steps") or 0),
        tool_calls=int(record.get("tool_calls") or 0),
        cost_usd=float(record.get("cost_usd") or 0.0),
        elapsed_s=float(record.get("duration_s") or 0.0),
        tokens=int(record.get("tokens") or 0),
        tenant_id=row.tenant_id,
        request_id=row.request_id,
        replayed=True,
        details=details,
    )


def failed(request: RunRequest, run_id: str, request_id: str, error: InterlockError) -> RunResult:
    """Return what answers a request that could not be begun, or not be asked about."""
    details = {"error": type(error).__name__, "message": str(error)}
    return RunResult(run_id, error.reason, tenant_id=request.tenant_id, request_id=request_id, details=details)


def refused(request: RunRequest, message: str, run_id: str = "") -> RunResult:
    """Return what answers a request that cannot be: `invalid_input`."""
    return RunResult(
        run_id,
        StopReason.INVALID_INPUT,
        tenant_id=str(request.tenant_id)[:80],
        request_id=str(request.request_id or "")[:80],
        details={"error": "InvalidInput", "message": message},
    )
