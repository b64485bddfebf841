"""Memory of a run in flight: a thousand runs, each waiting inside its 25th call. Runs in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
from pathlib import Path
from typing import Any

import interlock
from benchmarks.gates import make_gate
from benchmarks.kit import rss_kib
from benchmarks.work import TOOL, arguments

RUNS = 1_000
CALLS = 25


class Parking:
    """Where runs wait until they have been counted."""

    def __init__(self) -> None:
        self.waiting = 0
        self.all_in = asyncio.Event()
        self.release = asyncio.Event()
        self.expected = 0

    async def park(self) -> None:
        self.waiting += 1
        if self.waiting == self.expected:
            self.all_in.set()
        await self.release.wait()


async def wave(count: int, calls: int, gate: interlock.Interlock | None, parking: Parking) -> float:
    """Return KiB a run of `count` runs that wait in their last call; without a gate, of bare tasks."""
    parking.__init__()  # type: ignore[misc]
    parking.expected = count

    async def agent(run: interlock.Run, task: Any) -> None:
        for i in range(calls - 1):
            await run.call(TOOL, arguments(i))
        await run.call(TOOL, {"query": "park", "limit": 1})

    async def bare() -> None:
        await parking.park()

    gc.collect()
    before = rss_kib()
    tasks = [asyncio.ensure_future(bare() if gate is None else gate.run(agent, i)) for i in range(count)]
    await parking.all_in.wait()
    await asyncio.sleep(1.0)
    gc.collect()
    after = rss_kib()
    parking.release.set()
    results = await asyncio.gather(*tasks)
    assert gate is None or all(result.ok for result in results), results[0]
    return (after - before) / count


async def main() -> None:
    parking = Parking()

    async def search(query: str, limit: int = 10, tags: list[str] | None = None) -> dict[str, Any]:
        if query == "park":
            await parking.park()
        return {"ok": True, "query": query, "limit": limit}

    with tempfile.TemporaryDirectory() as directory:
        gate = make_gate(Path(directory), "memory", search)
        await wave(20, CALLS, gate, parking)
        kib = await wave(RUNS, CALLS, gate, parking)
        await gate.aclose()
    sys.stdout.write(f"{kib:.2f}\n")


if __name__ == "__main__":
    asyncio.run(main())
