"""What the benchmarks fill a store with is what the product would have left there."""

from __future__ import annotations

import sys
from pathlib import Path

from interlock.journal.retention import Ages
from interlock.stores.sqlite import SqliteStore

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from benchmarks.filled import CLAIMS_A_RUN, fill  # noqa: E402 - the path is set above

ENVIRON = {"INTERLOCK_KEY": "ab" * 32}


async def test_what_is_filled_is_read_and_forgotten_like_anything_else(tmp_path):
    path = tmp_path / "full.db"
    fill(path, 10 * CLAIMS_A_RUN, ENVIRON)
    store = SqliteStore(path, environ=ENVIRON)
    try:
        runs = await store.runs()
        assert len(runs) == 10
        assert [row["seq"] for row in await store.calls_of(runs[0].run_id)] == list(range(1, CLAIMS_A_RUN + 1))
        assert len(await store.claims_of(runs[0].run_id)) == CLAIMS_A_RUN
        done = await store.retention.purge(Ages(3_600.0, 3_600.0, 0.0))
        assert (done.requests, done.claims) == (10, 10 * CLAIMS_A_RUN)
        assert await store.calls_of(runs[0].run_id) == []
    finally:
        store.close()
