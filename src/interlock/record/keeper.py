"""Traces reach the store while a run is still under way, in the background: a crash loses a moment of them.

Rows are made and handed over by a thread of their own, some together for each run. A call pays for one append. A run
that ends before its last rows are handed over needs them no more: its record has them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from interlock.record.background import BackgroundQueue
from interlock.record.trace import Entry, Trace, row, unpack

__all__ = ["TraceKeeper"]

# Each time the thread wakes it takes the interpreter from whoever works.
GATHER_S = 0.2


class TraceKeeper(BackgroundQueue):
    """Hands the calls of all runs to a store; its `call` is a sink of the recorder.

    Args:
        keep: Takes a run's id, its fence and some rows of its trace (`trace.row`, each with its `seq`), queues them.

    Attributes:
        lost: Calls that could not be kept.
    """

    def __init__(self, keep: Callable[[str, int, list[dict[str, Any]]], None], *, gather_s: float = GATHER_S) -> None:
        super().__init__(gather_s=gather_s)
        self._keep = keep

    def call(self, trace: Trace, entry: Entry) -> None:
        """Keep one call, soon."""
        self.put((trace, entry))

    def handle(self, items: Sequence[tuple[Trace, Entry]]) -> None:
        """Hand a batch over, run by run."""
        runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for trace, (kind, numbers) in items:
            if trace.in_record:
                continue
            runs.setdefault((trace.run_id, trace.fence), []).append(row(kind, *unpack(numbers)))
        for (run_id, fence), rows in runs.items():
            try:
                self._keep(run_id, fence, rows)
            except Exception:  # the trace is also in the run's record; the next rows may fare better
                self.lose(len(rows))
