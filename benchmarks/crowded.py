"""Several processes on one SQLite file, beside one: 64 callers in all, shared out; claim and settle.

Each process measures itself: writes a second and the latency of each write. They begin together, and stop when the
first is through, so that nobody is measured alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import TIMES, Figure

__all__ = ["measure"]

ROOT = Path(__file__).resolve().parent.parent
CALLERS = 64
SECONDS = 2.0
# Of one caller in that time; runs are begun for so many.
MOST_WRITES = 2_500


async def work(path: str, callers: int, begin_s: float) -> dict[str, Any]:
    """Make writes from `begin_s` on (monotonic, the same in all processes) for `SECONDS`; return what they took."""
    from benchmarks.durable import journal
    from interlock.stores.sqlite import SqliteStore

    store = SqliteStore(path, environ={"INTERLOCK_KEY": "ab" * 32})
    write = await journal(store, callers, MOST_WRITES)
    await asyncio.sleep(begin_s - time.monotonic())
    took: list[float] = []
    until_s = begin_s + SECONDS

    async def caller(number: int) -> None:
        at, count = time.monotonic(), 0
        while at < until_s:
            await write(number, count)
            count += 1
            now = time.monotonic()
            took.append(now - at)
            at = now

    cpu = time.process_time()
    await asyncio.gather(*(caller(number) for number in range(callers)))
    cpu_s = time.process_time() - cpu
    store.close()
    return {"took_ms": [round(one * 1e3, 3) for one in took], "cpu_s": cpu_s}


def together(path: Path, processes: int) -> dict[str, float]:
    """Return writes a second in all, p99 and maximum of milliseconds, and the CPU of a write."""
    begin_s = time.monotonic() + 4.0
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.crowded", str(path), str(CALLERS // processes), str(begin_s)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for _ in range(processes)
    ]
    found = [json.loads(process.communicate()[0]) for process in started]
    took = sorted(one for report in found for one in report["took_ms"])
    counts = [len(report["took_ms"]) for report in found]
    return {
        "a_second": len(took) / SECONDS,
        "p50_ms": took[len(took) // 2],
        "p99_ms": took[int(len(took) * 0.99)],
        "most_ms": took[-1],
        "cpu_us": sum(report["cpu_s"] for report in found) / len(took) * 1e6,
        "least_share": min(counts) / max(counts),
    }


async def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Return the figures of this part, and every sample behind them."""
    samples: dict[str, list[dict[str, float]]] = {"1": [], "4": []}
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as directory:
        for round_ in range(rounds):
            for processes in (1, 4):
                path = Path(directory) / f"{round_}-{processes}.db"
                samples[str(processes)].append(await asyncio.to_thread(together, path, processes))
            print(f"round {round_ + 1} of {rounds}", file=sys.stderr, flush=True)

    def middle(processes: str, what: str) -> float:
        return statistics.median(sample[what] for sample in samples[processes])

    ratio = statistics.median(
        four["a_second"] / one["a_second"] for one, four in zip(samples["1"], samples["4"], strict=True)
    )
    return [
        Figure(
            "Four processes on one SQLite file, over one, 64 callers in all: writes a second",
            ratio,
            TIMES,
            0.8,
            at_most=False,
            beside=f"{middle('4', 'a_second'):,.0f}/s and {middle('1', 'a_second'):,.0f}/s; CPU of a write "
            f"{middle('4', 'cpu_us'):.0f} µs and {middle('1', 'cpu_us'):.0f} µs; "
            f"the process that wrote least: {middle('4', 'least_share'):.0%} of the one that wrote most",
        ),
        Figure(
            "The same: p99 of a write with four processes",
            middle("4", "p99_ms"),
            "ms",
            50,
            beside=f"slowest {middle('4', 'most_ms'):.0f} ms; with one process p99 {middle('1', 'p99_ms'):.0f} ms",
        ),
    ], dict(samples)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))))
