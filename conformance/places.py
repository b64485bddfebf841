"""Where a column is played: the interpreter that has its framework, in a virtual environment of its own if need be.

A column's file is read without importing it: its framework may not be installed here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

__all__ = ["Place", "columns", "find_place", "words"]

ROOT = Path(__file__).parents[1]
COLUMNS = Path(__file__).parent / "columns"
OWN = ROOT / ".venv-conformance"
STAMP = "installed.txt"


@dataclass(frozen=True, slots=True)
class Place:
    """A column, the interpreter that plays it, and the module and name under which that interpreter finds it."""

    name: str
    python: str = sys.executable
    source: str = ""

    @property
    def column(self) -> str:
        """Where the column is."""
        return self.source or f"conformance.columns.{self.name.replace('-', '_')}:COLUMN"


def columns() -> list[str]:
    """Return the names of all columns; the hand-written loop first."""
    found = {path.stem.replace("_", "-") for path in COLUMNS.glob("*.py")} - {"--init--"}
    return sorted(found, key=lambda name: (name != "loop", name))


def find_place(name: str, *, install: bool) -> Place:
    """Return where a column is played.

    Args:
        install: Make a virtual environment of its own for a framework that this interpreter does not have, or has
            in another version than the pinned one.

    Raises:
        LookupError: There is no such column.
    """
    distribution, requires = words(name)
    if _here(distribution, requires):
        return Place(name)
    own = OWN / name
    python = own / "bin" / "python"
    wanted = "\n".join(requires)
    stamp = own / STAMP
    if install and (not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted):
        print(f"installing {', '.join(requires)} into {own.relative_to(ROOT)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(own)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--editable", str(ROOT), *requires], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return Place(name, str(python) if python.exists() else sys.executable)


def words(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a column's `distribution` and `requires`, which are literals in its file."""
    path = COLUMNS / f"{name.replace('-', '_')}.py"
    if not path.exists():
        raise LookupError(f"no column is called {name!r}: {', '.join(columns())}")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Column":
            words = {k.arg: k.value for k in node.keywords}
            return ast.literal_eval(words["distribution"]), tuple(ast.literal_eval(words["requires"]))
    raise LookupError(f"{path} has no Column(distribution=…, requires=…)")


def _here(distribution: str, requires: tuple[str, ...]) -> bool:
    """Whether this interpreter has everything that the column pins."""
    pinned = [r.partition("==") for r in requires if "==" in r]
    try:
        metadata.version(distribution)
        return all(metadata.version(name.partition("[")[0]) == version for name, _, version in pinned)
    except metadata.PackageNotFoundError:
        return False
