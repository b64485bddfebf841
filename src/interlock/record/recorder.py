"""Sees every call, refusals included, and writes down what became of it; never on the tool's way.

The outermost guard. A call costs one tuple in the run's trace, a few counters, and one queued line where the
level asks for it; text is made of it elsewhere.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from interlock.core.calls import Answer, Call, Effect, Proceed, ToolSpec
from interlock.core.errors import InterlockError
from interlock.core.reasons import StopReason
from interlock.record.lines import LineSink
from interlock.record.metrics import Metrics, ToolCell
from interlock.record.trace import Entry, Kind, Recorded, Refused, Trace, pack

__all__ = ["CallSink", "Recorded", "Recorder", "Trace"]

UNKNOWN_TOOL = "unknown"

C = TypeVar("C", bound=Recorded)

CallSink = Callable[[Trace, Entry], None]
"""Receives every call of every run as soon as it is settled, on the caller's thread: it queues, it does not work."""


class Recorder:
    """Guard that records every call.

    Args:
        metrics: Where calls are counted.
        lines: Log lines, or None.
        sinks: Further receivers of every call, e.g. a store that keeps traces.
    """

    def __init__(self, metrics: Metrics, lines: LineSink | None = None, sinks: Sequence[CallSink] = ()) -> None:
        self._metrics = metrics
        self._lines = lines
        self._sinks = tuple(sinks)

    def __call__(self, tool: ToolSpec, proceed: Proceed[C]) -> Proceed[C]:
        """Fold the guard around `proceed`; there is something to record for every tool."""
        name = tool.name
        # A name that nobody registered comes from a model: it must not become a label.
        cell = self._metrics.tool(name if tool.known else UNKNOWN_TOOL)
        count = cell.add
        sinks = self._sinks
        lines = self._lines if self._lines is not None and self._lines.says_info else None
        wants_args = lines is not None and lines.wants_args
        plain: dict[tuple[str, Effect], Kind] = {}

        async def record(call: Call[C]) -> Answer:
            run = call.run
            clock = run.clock
            call.started_s = started_s = clock.monotonic()
            try:
                answer = await proceed(call)
            except BaseException as error:
                self._failed(call, cell, error)
                raise
            duration_s = clock.monotonic() - started_s
            status = answer.status
            if call.would_have is None:
                kind = plain.get((status, call.effect)) or _kind(plain, name, status, call.effect)
            else:
                kind = Kind(name, status, call.effect.value, _more(call, None))
            numbers = pack(call.seq, call.turn, call.attempts, clock.wall(), duration_s, call.digest, call.key)
            trace, entry = run.trace, (kind, numbers)
            trace.add(kind, numbers)
            count(status, duration_s)
            if sinks:
                self._keep(trace, entry)
            if lines is not None:
                lines.call(trace, entry, call.args_json if wants_args else None)
            return answer

        return record

    def _failed(self, call: Call[Any], cell: ToolCell, error: BaseException) -> None:
        clock = call.run.clock
        duration_s = clock.monotonic() - call.started_s
        status = _status(error)
        kind = Kind(call.tool.name, status, call.effect.value, _more(call, error))
        entry = (kind, pack(call.seq, call.turn, call.attempts, clock.wall(), duration_s, call.digest, call.key))
        trace = call.run.trace
        trace.add(*entry)
        cell.add(status, duration_s)
        if not call.attempts and isinstance(error, InterlockError):
            cell.refused(error.reason.value)
        self._keep(trace, entry)
        lines = self._lines
        if lines is not None and lines.says_warning:
            lines.call(trace, entry, call.args_json if lines.wants_args else None)

    def _keep(self, trace: Trace, entry: Entry) -> None:
        for sink in self._sinks:
            try:
                sink(trace, entry)
            except Exception:  # the call has happened: a sink that fails must not take its answer away
                self._metrics.lost("trace")


def _kind(plain: dict[tuple[str, Effect], Kind], name: str, status: str, effect: Effect) -> Kind:
    """Return the words that all plain calls of a tool share, by status and effect."""
    return plain.setdefault((status, effect), Kind(name, status, effect.value, None))


def _status(error: BaseException) -> str:
    if isinstance(error, InterlockError):
        return error.status
    return "cancelled" if isinstance(error, CancelledError) else "error"


def _more(call: Call[Any], error: BaseException | None) -> Refused:
    policy = None
    if error is None:
        reason = None
    elif isinstance(error, InterlockError):
        reason = error.reason.value
        policy = error.details.get("policy")
    else:
        reason = (StopReason.CANCELLED if isinstance(error, CancelledError) else StopReason.INTERNAL_ERROR).value
    return Refused(
        reason,
        policy if isinstance(policy, str) else None,
        tuple(reason.value for reason in call.would_have or ()),
    )
