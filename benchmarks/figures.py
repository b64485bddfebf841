"""One line of a table: what was measured, what it should be, and beside what."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kit import calibrate

__all__ = ["TIMES", "Figure", "machine", "number", "table", "write_into"]

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a table.

    Attributes:
        goal: What it should reach; None where it is only reported. at_most: whether less is better.
        beside: The same for something to compare with, in words.
    """

    what: str
    value: float
    unit: str
    goal: float | None = None
    at_most: bool = True
    beside: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return the columns of its line."""
        sign = "" if self.goal is None else "≤ " if self.at_most else "≥ "
        goal = "" if self.goal is None else f"{sign}{number(self.goal)} {self.unit}"
        verdict = {True: "met", False: "**missed**", None: ""}[self.met]
        return self.what, goal, f"{number(self.value)} {self.unit}", self.beside, verdict


def number(value: float) -> str:
    """Return a figure with as many digits as it deserves."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value < 1 else f"{value:.1f}"


def table(figures: list[Figure]) -> str:
    """Return the figures as Markdown."""
    rows = [("What", "Goal", "Measured", "Beside", ""), ("---",) * 5, *(figure.cells() for figure in figures)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def machine() -> str:
    """Return on what the figures were taken: the commit, and the machine."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return f"Commit {_commit()}, Python {platform.python_version()}, {os.cpu_count()} {TIMES} {model}, calibration loop {calibrate():.2f} ms"


def _commit() -> str:
    """Return the commit that is checked out; with a plus where files of it have been changed."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=7", "--dirty=+"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not recorded"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def write_into(page: Path, part: str, text: str) -> None:
    """Put `text` between the two lines that mark a part of a page: `<!-- measured: PART … -->`, and its end."""
    begin = f"<!-- measured: {part}: make bench writes between these two lines -->"
    end = f"<!-- measured: {part}: end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise SystemExit(f"{page} has no lines {begin!r} and {end!r}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
