"""Runs out of a store of our own: records where runs have ended, the trace so far where they have not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from interlock.config.opening import Store, open_store
from interlock.config.settings import load_settings
from interlock.core.clock import SYSTEM
from interlock.forensics.formats.interlock_records import run_of_record
from interlock.forensics.traces import RecordedRun
from interlock.journal.store import Claim, ClaimState, RunRow

__all__ = ["NEWEST", "run_of_row", "runs_of_store"]

# So many runs, newest first, are read of a store; a file of records has no such end.
NEWEST = 10_000
_OPEN = frozenset({ClaimState.IN_DOUBT, ClaimState.INTENT})


def runs_of_store(url: str, dataset: str, *, newest: int = NEWEST) -> Iterator[RecordedRun]:
    """Yield the newest runs of a store.

    Args:
        url: As `--store` takes it. dataset: what reports call it.

    Raises:
        ConfigError: The URL names no store. StoreUnavailable: it cannot be read.
    """
    store = open_store(url, load_settings(None), clock=SYSTEM)
    try:
        for row in asyncio.run(_rows(store, newest)):
            calls, claims = asyncio.run(_more(store, row))
            yield run_of_row(row, calls, claims, dataset=dataset)
    finally:
        store.close()


def run_of_row(
    row: RunRow, calls: Sequence[Mapping[str, Any]], claims: Sequence[Claim], *, dataset: str = ""
) -> RecordedRun:
    """Return a run as the store knows it.

    Args:
        row: The run. calls: its trace rows, for a run whose record has none. claims: writes of its request.
        dataset: Name of the set it belongs to.
    """
    record = dict(row.record or {})
    record.setdefault("run_id", row.run_id)
    record.setdefault("request_id", row.request_id)
    record.setdefault("stop_reason", row.reason or "")
    if not record.get("trace"):
        record["trace"] = list(calls)
    if row.reason is None:
        # Under way: nothing has been lost, and nothing has been decided.
        record["tool_calls"] = len(record["trace"])
    elif row.record is not None and "trace_dropped" not in record:
        record["trace_dropped"] = 0
    listed = (record.get("details") or {}).get("doubts")
    own = [claim for claim in claims if claim.run_id == row.run_id and claim.state in _OPEN]
    doubts = len(own) if claims or not listed else len(listed)
    return run_of_record(record, dataset=dataset, doubts=max(doubts, len(listed or ())))


async def _rows(store: Store, newest: int) -> list[RunRow]:
    return await store.runs(limit=newest)


async def _more(store: Store, row: RunRow) -> tuple[list[dict[str, Any]], list[Claim]]:
    has_trace = bool((row.record or {}).get("trace"))
    calls = [] if has_trace else await store.calls_of(row.run_id)
    return calls, await store.claims_of(row.root_run_id)
