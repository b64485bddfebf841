"""Measures everything and prints one table: figure, goal, ratio.

python benchmarks/run.py                 about five minutes
python benchmarks/run.py --rounds 3      quicker, and coarser
python benchmarks/run.py --json out.json the same as JSON
python benchmarks/run.py --write docs/why.md   puts the table between the page's two `measured` lines
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.guarded_read import CALLS_A_RUN, GuardedRead  # noqa: E402 - the path is set above
from benchmarks.imports import HEAVY, help_modules, measure_import  # noqa: E402
from benchmarks.kit import Bench, calibrate  # noqa: E402

__all__ = ["main"]

TIMES = "\N{MULTIPLICATION SIGN}"
BEGIN, END = "<!-- measured: make bench writes between these two lines -->", "<!-- measured: end -->"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        goal: What it should reach; None where it is only reported. at_most: whether less is better.
        beside: The same for something to compare with, in words.
    """

    what: str
    value: float
    unit: str
    goal: float | None
    at_most: bool = True
    beside: str = ""

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def cells(self) -> tuple[str, str, str, str, str]:
        sign = "" if self.goal is None else "≤ " if self.at_most else "≥ "
        goal = "" if self.goal is None else f"{sign}{_number(self.goal)} {self.unit}"
        verdict = {True: "met", False: "**missed**", None: ""}[self.met]
        return self.what, goal, f"{_number(self.value)} {self.unit}", self.beside, verdict


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value < 1 else f"{value:.1f}"


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


def table(figures: list[Figure]) -> str:
    """Return the figures as Markdown."""
    rows = [("What", "Goal", "Measured", "Beside", ""), ("---",) * 5, *(figure.cells() for figure in figures)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def machine() -> str:
    """Return on what the figures were taken."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return (
        f"Python {platform.python_version()}, {os.cpu_count()} {TIMES} {model}, calibration loop {calibrate():.2f} ms"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def write_into(page: Path, text: str) -> None:
    """Put `text` between the two `measured` lines of a page."""
    before, found, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise SystemExit(f"{page} has no lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


async def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Measure everything; return the table and every case behind it."""
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as directory:
        reads = GuardedRead(Path(directory), rounds)
        await reads.run()
    return [*read_figures(reads.bench), memory_figure(), *import_figures(rounds)], reads.bench.spread()


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="What Interlock costs.")
    parser.add_argument("--rounds", type=int, default=9, help="samples of every case (default 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write figures and samples as JSON")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also write the table into a page")
    options = parser.parse_args()
    figures, cases = asyncio.run(measure(options.rounds))
    text = f"{table(figures)}\n\n{machine()}."
    print(text)
    if options.write is not None:
        write_into(options.write, text)
    if options.json is not None:
        found = {
            "machine": machine(),
            "figures": [asdict(figure) | {"met": figure.met} for figure in figures],
            "cases": cases,
        }
        options.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
