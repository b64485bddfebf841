"""A whole gate on a file system of its own that fills up and gets room again; prints what was counted, as JSON.

Run as `full_disk.py FOLDER`, where FOLDER is a small file system (see `test_full_disk.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path

import interlock
from interlock.stores.sqlite import SqliteStore

PATIENCE_S = 60.0
RUNS = 16
APART = 1_000_000
SETTINGS = {
    "agent": {
        "budgets": {"max_steps": None, "max_tool_calls": None, "max_seconds": 300},
        "loop_detection": {"no_progress_threshold": None},
    },
    "tools": {"allow": ["*"]},
    "logging": {"level": "error"},
}


class Ballast:
    """A file that takes what room is left."""

    def __init__(self, folder):
        self.path = folder / "ballast"

    def fill(self):
        with self.path.open("ab", buffering=0) as file:
            for size in (65_536, 512):
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    continue


class Shop:
    """The remote, and the agents that order from it; `effects` is what really happened, by number."""

    def __init__(self, gate):
        self.gate = gate
        self.effects = Counter()
        self.reads = 0
        self.answered = set()
        self.refused = {}
        self.under_way = asyncio.Event()
        self.full = asyncio.Event()
        self.room = asyncio.Event()
        gate.tool("order.create", effect="write", allow=True)(self.create)
        gate.tool("order.read", effect="read")(self.read)

    async def create(self, number: int, words: str) -> dict[str, int]:
        self.effects[number] += 1
        await asyncio.sleep(0)
        return {"number": number}

    async def read(self, number: int) -> dict[str, int]:
        self.reads += 1
        return {"number": number}

    async def agent(self, run, first):
        """Write until the disk is full and has been for a while, read meanwhile, and write again after."""
        for number in range(first, first + APART):
            seen = await run.observe("order.create", {"number": number, "words": "w" * 500})
            if seen.ok:
                self.answered.add(number)
                if self.room.is_set():
                    return number
                if len(self.answered) > 4 * RUNS:
                    self.under_way.set()
            else:
                self.refused[number] = str(seen.reason)
                self.full.set()
                assert (await run.observe("order.read", {"number": number})).ok
                await asyncio.sleep(0.01)
        raise AssertionError("it never ended")

    async def order(self, n):
        return await self.gate.run(self.agent, n * APART, request_id=f"req_{n}")


async def play(folder, gate):
    """Let the disk fill up under the runs, and get room again."""
    shop, ballast = Shop(gate), Ballast(folder)
    runs = [asyncio.create_task(shop.order(n)) for n in range(RUNS)]
    await asyncio.wait_for(shop.under_way.wait(), PATIENCE_S)
    for _ in range(20):
        while not shop.full.is_set():  # the log may have room of its own for a while
            ballast.fill()
            await asyncio.sleep(0.01)
        ballast.fill()
        await asyncio.sleep(0.02)
    new = asyncio.create_task(shop.order(RUNS))
    # Its row may still find room where a write does not.
    while not new.done() and max(shop.refused) < RUNS * APART:  # noqa: ASYNC110 - the test has a ceiling
        await asyncio.sleep(0.01)
    found = {
        "new_while_full": str((await new).reason) if new.done() else shop.refused[max(shop.refused)],
        "reads_while_full": shop.reads,
    }
    ballast.path.unlink()
    shop.room.set()
    await asyncio.wait_for(asyncio.gather(*runs, new), PATIENCE_S)
    results = [await shop.order(n) for n in range(RUNS + 1)]
    return found | {
        "reasons": sorted({str(result.reason) for result in results}),
        "refused": sorted(set(shop.refused.values())),
        "refused_that_happened": sum(shop.effects[number] for number in shop.refused),
        "answered": len(shop.answered),
        "answered_without_effect": len(shop.answered - set(shop.effects)),
        "effects": sum(shop.effects.values()),
        "most_of_one": max(shop.effects.values()),
    }


async def main(folder):
    url = f"sqlite:///{folder}/interlock.db"
    async with interlock.Interlock(SETTINGS, store=url) as gate:
        found = await play(folder, gate)
    store = SqliteStore(url)
    claims = [claim for row in await store.runs(limit=100) for claim in await store.claims_of(row.run_id)]
    store.close()
    found["claims"] = dict(Counter(str(claim.state) for claim in claims))
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
