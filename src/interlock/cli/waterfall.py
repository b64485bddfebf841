"""Calls as a waterfall: one line a call, its bar where its time was spent.

The record keeps how long each call took and which calls belong to one batch. Calls of a batch run side by
side, batches follow each other; the time between them belongs to the model and is not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Line", "waterfall"]


class Line(NamedTuple):
    """One call as text: where its bar begins and how long it is, in characters."""

    seq: int
    step: str
    tool: str
    args: str
    status: str
    note: str
    duration: str
    start: int
    length: int


def waterfall(rows: Sequence[Mapping[str, Any]], width: int) -> list[Line]:
    """Return the lines of a trace, bars within `width` characters; rows as the record has them."""
    starts, total_ms = _starts(rows)
    scale = width / total_ms if total_ms > 0 else 0.0
    first: dict[tuple[Any, Any], int] = {}
    lines = []
    for i, (row, start_ms) in enumerate(zip(rows, starts, strict=True)):
        seq = int(row.get("seq") or i + 1)
        start = min(int(start_ms * scale), width - 1)
        length = max(1, min(round(_ms(row) * scale), width - start))
        lines.append(
            Line(
                seq=seq,
                step=str(row.get("step", "")),
                tool=str(row.get("tool", "")),
                args=str(row.get("args_hash", ""))[:8],
                status=str(row.get("status", "")),
                note=_note(row, first.setdefault((row.get("tool"), row.get("args_hash")), seq), seq),
                duration=_duration(_ms(row)),
                start=start,
                length=length,
            )
        )
    return lines


def _starts(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], float]:
    """Return when each call began and when all were over, in milliseconds of tool time."""
    starts: list[float] = []
    begins = ends = 0.0
    batch: Any = None
    for row in rows:
        # A run that declares no turns has one batch: there, calls follow each other.
        here = row.get("batch") or None
        if here is None or here != batch:
            begins = ends
        batch = here
        starts.append(begins)
        ends = max(ends, begins + _ms(row))
    return starts, ends


def _note(row: Mapping[str, Any], first: int, seq: int) -> str:
    said = []
    if first != seq:
        said.append(f"= call {first}")
    if row.get("attempts", 1) > 1:
        said.append(f"{row['attempts']} attempts")
    if row.get("reason"):
        said.append(str(row["reason"]) + (f" ({row['policy']})" if row.get("policy") else ""))
    if row.get("would_have"):
        said.append(f"would have: {', '.join(map(str, row['would_have']))}")
    return "; ".join(said)


def _ms(row: Mapping[str, Any]) -> float:
    value = row.get("duration_ms")
    return float(value) if isinstance(value, int | float) and value > 0 else 0.0


def _duration(ms: float) -> str:
    if ms < 1:
        return f"{ms:.1f} ms"
    return f"{ms:.0f} ms" if ms < 10_000 else f"{ms / 1000:.1f} s"
