"""A load test whose store is on PostgreSQL: the same figures, and by how much the schema has grown."""

from __future__ import annotations

import asyncio

from interlock.chaos.latencies import LogNormal
from interlock.chaos.load import LoadOptions, load_test


async def test_load_on_postgres(pg_url, monkeypatch):
    monkeypatch.setenv("INTERLOCK_KEY", "5e" * 32)
    options = LoadOptions(
        runs=20, seconds=60.0, concurrency=10, calls=4, writes=0.5, tools=LogNormal(0.001, 0.01), store=pg_url
    )
    report = await load_test(options, lambda level, elapsed_s: None, asyncio.Event())
    (level,) = report.levels
    assert (level.runs, level.taken.calls, dict(level.reasons)) == (20, 80, {"success": 20})
    assert report.writes == {"requests": 40, "effects": 40, "duplicates": 0}
    assert (report.store, len(level.taken.store_s)) == ("postgresql", 40)
    assert report.store_bytes_per_run > 0
