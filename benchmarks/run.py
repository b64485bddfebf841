"""Measures parts of the product and prints a table for each: figure, goal, ratio.

python -m benchmarks                         everything
python -m benchmarks reads durable           only these parts
python -m benchmarks --rounds 3              quicker, and coarser
python -m benchmarks --json out.json         the same as JSON
python -m benchmarks --write docs/why.md     puts each table between the page's two lines of that part
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.figures import Figure, machine, table, write_into  # noqa: E402

__all__ = ["PARTS", "main"]

# Part: its module, which has `async def measure(rounds) -> (figures, samples)`. Each is imported when it is asked for,
# so that one needs only the libraries that it compares with.
PARTS = {
    "reads": "benchmarks.reads",
    "durable": "benchmarks.durable",
    "crowded": "benchmarks.crowded",
    "idle": "benchmarks.idle",
    "adapters": "benchmarks.adapters",
    "memory": "benchmarks.remembering",
    "scale": "benchmarks.scale",
    "forensics": "benchmarks.forensics",
}


def measure(part: str, rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Return the figures of one part, and the samples behind them."""
    found: tuple[list[Figure], dict[str, Any]] = asyncio.run(importlib.import_module(PARTS[part]).measure(rounds))
    return found


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="What Interlock costs.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=9, help="samples of every case (default 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write figures and samples as JSON")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also write the tables into a page")
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part is called {unknown[0]!r}; there are {', '.join(PARTS)}")
    found: dict[str, Any] = {}
    for part in options.parts or PARTS:
        begun = time.monotonic()
        figures, samples = measure(part, options.rounds)
        text = f"{table(figures)}\n\n{machine()}; {time.monotonic() - begun:.0f} s."
        print(f"\n{part}\n\n{text}", flush=True)
        if options.write is not None:
            write_into(options.write, part, text)
        found[part] = {"figures": [asdict(figure) | {"met": figure.met} for figure in figures], "cases": samples}
        if options.json is not None:
            whole = {"machine": machine(), "parts": found}
            options.json.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
