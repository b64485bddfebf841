"""The matrix as text: one table bare, one guarded, notes below for what a cell has no room for."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from conformance.judge import Cell
from conformance.matrix import Matrix
from conformance.scenario import Scenario

__all__ = ["markdown"]

WIDTH = 116
MARKS = "¹²³⁴⁵⁶⁷⁸⁹"


def markdown(matrix: Matrix, scenarios: Sequence[Scenario]) -> str:
    """Return both tables as Markdown, the bare one first."""
    notes: dict[str, str] = {}
    bare = _table(matrix, scenarios, notes, guarded=False)
    guarded = _table(matrix, scenarios, notes, guarded=True)
    text = f"**Bare, with the framework's own defaults**\n\n{bare}\n\n**Under Interlock**\n\n{guarded}\n"
    said = (
        textwrap.fill(f"- {mark} cannot be held: {why}", WIDTH, subsequent_indent="  ") for why, mark in notes.items()
    )
    return text + "".join(f"\n{note}" for note in said) + "\n" * bool(notes)


def _table(matrix: Matrix, scenarios: Sequence[Scenario], notes: dict[str, str], *, guarded: bool) -> str:
    names = matrix.frameworks
    versions = {c.framework: c.version for c in matrix.cells}
    head = ["", *(name if name == "loop" else f"{name} {versions[name]}" for name in names)]
    rows = [head, ["---"] * len(head)]
    rows += [
        [s.title, *(_text(matrix.cell(s.name, name, guarded=guarded), notes) for name in names)] for s in scenarios
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _text(cell: Cell | None, notes: dict[str, str]) -> str:
    if cell is None:
        return "**blank**"
    if cell.cannot is None:
        return cell.text if cell.held or cell.lost else "**NOT held**"
    mark = notes.setdefault(cell.cannot, _mark(len(notes)))
    return f"cannot be held {mark}"


def _mark(number: int) -> str:
    return MARKS[number] if number < len(MARKS) else f"({number + 1})"
