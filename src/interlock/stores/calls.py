"""The statement that writes parts of traces: of many runs at once, none of a run taken over."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from interlock.stores.marks import ManyMarked

__all__ = ["Part", "insert", "parts_of"]

Part = tuple[str, bytes, int]
"""Run, its calls as JSON, fence."""

_INSERT = ManyMarked(
    """insert into calls (run_id, entry) select ?1, ?2 {rows}
where exists (select 1 from runs where run_id = ?1 and fence = ?3)""",
    columns=3,
)


def insert(db: sqlite3.Connection, parts: Sequence[Part]) -> None:
    """Write parts; those of a run that is somebody else's by now are left out."""
    _INSERT.run(db, parts)


def parts_of(db: sqlite3.Connection, run_id: str) -> list[bytes]:
    """Return the parts of a run, in their order."""
    return [row[0] for row in db.execute("select entry from calls where run_id = ? order by id", (run_id,))]
