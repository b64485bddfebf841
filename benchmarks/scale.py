"""Ten million claims in a SQLite file: what a write, opening and forgetting cost then, beside an empty file.

`INTERLOCK_BENCH_CLAIMS` is another number of claims. The file takes about 600 bytes a claim, in the folder that
TMPDIR names.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.durable import crowd, journal
from benchmarks.figures import TIMES, Figure
from benchmarks.filled import CLAIMS_A_RUN, fill
from benchmarks.kit import Bench, Watch
from interlock.core.clock import SYSTEM
from interlock.journal.retention import Ages
from interlock.stores.sqlite import SqliteStore
from interlock.stores.writer import WriterThread

__all__ = ["measure"]

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = int(os.environ.get("INTERLOCK_BENCH_CLAIMS", "10_000_000"))
ENVIRON = {"INTERLOCK_KEY": "ab" * 32}
CALLERS = 64
WRITES = 6_400
# Runs that each of the two kinds of purge forgets.
PURGED_RUNS = 8_000

OPENING = """
import asyncio, sys, time
from interlock.stores.sqlite import SqliteStore
SqliteStore(":memory:", environ={}).close()
begun = time.perf_counter()
store = SqliteStore(sys.argv[1], environ={"INTERLOCK_KEY": "ab" * 32})
opened = time.perf_counter()
asyncio.run(store.flush())
print(opened - begun, time.perf_counter() - begun)
"""


class Held:
    """The lock among processes, and how long it was held: milliseconds, and of them of CPU."""

    def __init__(self, turn: Any) -> None:
        self._turn = turn
        self._since = self._cpu = 0.0
        self.ms: list[float] = []
        self.cpu_ms: list[float] = []

    def acquire(self) -> None:
        self._turn.acquire()
        self._since, self._cpu = time.perf_counter(), time.thread_time()

    def release(self) -> None:
        self.ms.append((time.perf_counter() - self._since) * 1e3)
        self.cpu_ms.append((time.thread_time() - self._cpu) * 1e3)
        self._turn.release()

    def close(self) -> None:
        self._turn.close()


def opening(path: Path, times: int) -> tuple[float, float]:
    """Return the milliseconds in which a fresh process opens the file, and has made its first commit; medians."""
    found = []
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-c", OPENING, str(path)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        found.append([float(word) * 1e3 for word in done.stdout.split()])
    return statistics.median(one for one, _ in found), statistics.median(two for _, two in found)


async def writes(full: Path, empty: Path, rounds: int) -> Bench:
    """Return the cases `empty` and `full`: the same writes on the two files, in turn."""
    bench = Bench(rounds)
    stores = {"empty": SqliteStore(empty, environ=ENVIRON), "full": SqliteStore(full, environ=ENVIRON)}
    for name, store in stores.items():

        async def sample(_: int, watch: Watch, store: SqliteStore = store) -> None:
            write = await journal(store, CALLERS, WRITES // CALLERS)
            await crowd(CALLERS, WRITES, write, watch)

        bench.add(name, sample, n=1)
    await bench.run()
    for store in stores.values():
        store.close()
    return bench


async def purging(path: Path, ages: Ages) -> dict[str, float]:
    """Forget what is old enough while eight callers write; return how long that took, and held others up."""
    store = SqliteStore(path, environ=ENVIRON)
    writer = store._writer
    assert isinstance(writer, WriterThread)
    held = writer._turn = Held(writer._turn)
    write = await journal(store, 8, 50_000)
    held.ms = []
    over = threading.Event()
    took: list[float] = []

    async def caller(number: int) -> None:
        count = 0
        while not over.is_set():
            begun = time.perf_counter()
            await write(number, count % 50_000)
            took.append((time.perf_counter() - begun) * 1e3)
            count += 1

    callers = [asyncio.create_task(caller(number)) for number in range(8)]
    await asyncio.sleep(5.0)
    quiet, held.ms, held.cpu_ms = sorted(held.ms), [], []
    took.clear()
    cpu, begun = time.process_time(), time.perf_counter()
    purged = await store.retention.purge(ages)
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    holds, waits = sorted(held.ms), sorted(took)
    over.set()
    await asyncio.gather(*callers)
    store.close()
    return {
        "requests": purged.requests + purged.content,
        "slices": purged.slices,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "longest_ms": holds[-1],
        "longest_cpu_ms": max(held.cpu_ms),
        "p99_ms": holds[int(len(holds) * 0.99)],
        "longest_without_ms": quiet[-1],
        "write_p99_ms": waits[int(len(waits) * 0.99)],
        "write_longest_ms": waits[-1],
    }


async def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Return the figures of this part, and every sample behind them."""
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as directory:
        full, empty = Path(directory) / "full.db", Path(directory) / "empty.db"
        fill_s = fill(full, CLAIMS, ENVIRON)
        SqliteStore(empty, environ=ENVIRON).close()
        print(f"filled in {fill_s:.0f} s: {full.stat().st_size / 1e9:.1f} GB", file=sys.stderr, flush=True)
        opened = {"empty": opening(empty, max(5, rounds)), "full": opening(full, max(5, rounds))}
        print(f"opened: {opened}", file=sys.stderr, flush=True)
        bench = await writes(full, empty, rounds)
        removed = await purging(full, _ages(full, keys=True))
        print(f"removed: {removed}", file=sys.stderr, flush=True)
        dropped = await purging(full, _ages(full, keys=False))
        print(f"dropped: {dropped}", file=sys.stderr, flush=True)
    million = f"{CLAIMS / 1e6:g} million claims"
    return [
        Figure(
            f"A write on a file with {million}, over one on an empty file: CPU, 64 at once",
            bench.ratio("full", "empty"),
            TIMES,
            2,
            beside=f"{bench.cpu('full'):.0f} µs and {bench.cpu('empty'):.0f} µs; the journal alone",
        ),
        Figure(
            "Opening that file, in a process of its own",
            opened["full"][0],
            "ms",
            50,
            beside=f"with the first commit {opened['full'][1]:.0f} ms; "
            f"an empty file {opened['empty'][0]:.0f} ms and {opened['empty'][1]:.0f} ms",
        ),
        *(
            Figure(
                f"{what} beside eight writers: the longest that the file was held",
                found["longest_ms"],
                "ms",
                20,
                beside=f"of CPU {found['longest_cpu_ms']:.1f} ms at most; p99 {found['p99_ms']:.1f} ms, without a purge {found['longest_without_ms']:.1f} ms at most; "
                f"slowest write {found['write_longest_ms']:.0f} ms; {found['requests']:,.0f} requests of "
                f"{CLAIMS_A_RUN} claims in {found['slices']:,.0f} slices and {found['wall_s']:.0f} s",
            )
            for what, found in (("Removing old requests", removed), ("Dropping old content", dropped))
        ),
    ], {"fill_s": fill_s, "opened_ms": opened, "removed": removed, "dropped": dropped, **bench.spread()}


def _ages(path: Path, *, keys: bool) -> Ages:
    """Return the ages by which the oldest runs that still have content lose it, or go for good."""
    import sqlite3

    with closing(sqlite3.connect(path)) as db, db:
        row = db.execute(
            "select started_at from runs where substr(record, 1, 14) <> '{\"purged\":true' order by id limit 1 offset ?",
            (PURGED_RUNS,),
        ).fetchone()
    age_s = SYSTEM.wall() - row[0] - 2
    return Ages(age_s, age_s if keys else None, 0.0)


if __name__ == "__main__":
    asyncio.run(measure(1))
