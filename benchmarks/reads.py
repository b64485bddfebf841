"""What reading through a gate, keeping a run in memory, and starting cost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import TIMES, Figure
from benchmarks.guarded_read import CALLS_A_RUN, GuardedRead
from benchmarks.imports import HEAVY, help_modules, measure_import
from benchmarks.kit import Bench

__all__ = ["measure"]

ROOT = Path(__file__).resolve().parent.parent


def read_figures(bench: Bench) -> list[Figure]:
    """Return what the cases of `guarded_read.py` say."""
    over = bench.over("interlock", "bare")
    stack = bench.ratio("stack", "interlock", "bare")
    floor = bench.ratio("interlock", "floor", "bare")
    runs = 1e6 / (bench.cpu("runs of 25 reads") * CALLS_A_RUN)
    crowd = bench.ratio("1,000 runs at once", "runs of 25 reads")
    return [
        Figure("A guarded read over the bare call, CPU", over, "µs", 20, beside=f"{floor:.1f} {TIMES} the floor"),
        Figure(
            "The same, trace persisted in the background",
            bench.over("interlock, trace persisted", "bare"),
            "µs",
            25,
        ),
        Figure(
            "The same guards assembled from well-known libraries, over ours",
            stack,
            TIMES,
            5,
            at_most=False,
            beside=f"{bench.over('stack', 'bare'):.0f} µs; without spans {bench.over('stack without spans', 'bare'):.0f} µs, "
            f"with pybreaker {bench.over('stack, pybreaker', 'bare'):.0f} µs",
        ),
        Figure(
            "A guarded read of a tool that waits once, over the bare call",
            bench.over("interlock, tool waits", "bare, tool waits"),
            "µs",
            None,
            beside="a timer is armed and disarmed",
        ),
        Figure(
            "One policy decision among 10,000 globs",
            bench.cpu("decision, 10,000 globs"),
            "µs",
            1,
            beside=f"a name not seen before; {bench.cpu('decision, 10 globs'):.2f} µs among 10",
        ),
        Figure(
            "A guarded read under 10,000 globs, over one under 10",
            bench.ratio("interlock, 10,000 globs", "interlock, 10 globs"),
            TIMES,
            None,
        ),
        Figure(
            "Step 10,000 of a run over step 25", bench.ratio("interlock, step 10,000", "interlock, step 25"), TIMES, 1.3
        ),
        Figure(
            "A call among 1,000 concurrent runs, over one alone",
            crowd,
            TIMES,
            1.6,
            beside=f"{bench.cpu('1,000 runs at once'):.1f} µs a call, start and end of the run included",
        ),
        Figure("Runs of 25 reads in a second of CPU", runs, "", 1_400, at_most=False),
    ]


def memory_figure() -> Figure:
    """Return the memory of a run in flight, measured in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory"], capture_output=True, check=True, text=True, env=environment
    )
    return Figure("Memory of a run with 25 calls", float(done.stdout.split()[-1]), "KiB", 16)


def import_figures(rounds: int) -> list[Figure]:
    """Return what starting costs."""
    starts = measure_import(rounds)
    ours, modules = starts["interlock"], help_modules()
    heavy = [name for name in HEAVY if name in modules]
    return [
        Figure(
            "Importing what a run needs, CPU",
            ours.cpu_ms,
            "ms",
            220,
            beside=f"Python {starts['python'].cpu_ms:.0f} ms, pydantic {starts['pydantic'].cpu_ms:.0f} ms; "
            f"{ours.peak_mib:.0f} MiB",
        ),
        Figure(
            "Heavy modules that asking for help imports",
            len({"pydantic", "sqlite3", "asyncio"} & set(heavy)),
            "",
            0,
            beside=", ".join(heavy) or "none",
        ),
    ]


async def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Return the figures of this part, and every case behind them."""
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as directory:
        reads = GuardedRead(Path(directory), rounds)
        await reads.run()
    return [*read_figures(reads.bench), memory_figure(), *import_figures(rounds)], reads.bench.spread()
