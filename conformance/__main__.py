"""Prints the matrix: rows are scenarios, columns frameworks, first as they are by themselves, then under Interlock.

python -m conformance                                 everything
python -m conformance --only pydantic-ai              one framework, beside the hand-written loop
python -m conformance --row lost_answer --row cycle   some scenarios
python -m conformance --json                          one JSON line a cell
python -m conformance --write docs/conformance.md     also puts the tables into the page

Exit code 1: a guarded cell is not held, records differ, a cell is blank, a framework could not be played, or a
framework shows no duplicate by itself in any row with a lost answer, which would be a matrix that cannot fail.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from pathlib import Path

from conformance.matrix import Matrix, run_matrix, verdict
from conformance.places import columns, find_place
from conformance.scenario import Scenario
from conformance.scenarios import SCENARIOS, scenario
from conformance.table import markdown

BEGIN, END = "<!-- measured: make conformance writes between these two lines -->", "<!-- measured: end -->"


def main() -> int:
    """Play the matrix, print it, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="conformance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="NAME", help=f"a column: {', '.join(columns())}")
    parser.add_argument("--row", action="append", metavar="SCENARIO", help="a scenario, by its name")
    parser.add_argument("--json", action="store_true", help="one JSON line a cell, instead of tables")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between the page's two lines")
    parser.add_argument("--no-install", action="store_true", help="make no virtual environments")
    parser.add_argument("--at-once", type=int, metavar="N", help="processes at a time; by default two a core")
    options = parser.parse_args()
    try:
        places = [find_place(name, install=not options.no_install) for name in options.only or columns()]
        rows: tuple[Scenario, ...] = tuple(scenario(name) for name in options.row) if options.row else SCENARIOS
    except LookupError as error:
        parser.error(str(error))
    began_s = time.monotonic()
    matrix = asyncio.run(run_matrix(places, rows, at_once=options.at_once, progress=_note))
    took_s = time.monotonic() - began_s
    _print(matrix, rows, as_json=options.json)
    if options.write is not None:
        where = f"on Python {platform.python_version()}, {os.cpu_count()} cores"
        played = f"{len(matrix.cells)} cells, {where}, in {took_s:.0f} s."
        _write(options.write, f"{markdown(matrix, rows)}\n{played}\n")
    wrong = verdict(matrix, rows, whole=not options.row)
    for line in wrong:
        _note(line)
    return 1 if wrong else 0


def _print(matrix: Matrix, rows: tuple[Scenario, ...], *, as_json: bool) -> None:
    if as_json:
        for cell in matrix.cells:
            print(json.dumps(cell.as_json(), ensure_ascii=False))
    else:
        print(markdown(matrix, rows))


def _write(page: Path, text: str) -> None:
    before, found, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise SystemExit(f"{page} has no lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
