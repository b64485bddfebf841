"""Statements in which a value may stand twice: written with numbered marks, bound with plain ones.

SQLite takes `?1` by position; Python's `sqlite3` counts it as a name, warns from 3.12 on when it is given a sequence,
and refuses from 3.14 on. Names and a dict would do, at twice the cost of a binding.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

__all__ = ["Marked"]

_MARK = re.compile(r"\?(\d+)")


class Marked:
    """A statement with the marks ?1, ?2, … of which at least two stand in it."""

    __slots__ = ("_pick", "_sql")

    def __init__(self, sql: str) -> None:
        self._pick = itemgetter(*(int(number) - 1 for number in _MARK.findall(sql)))
        self._sql = _MARK.sub("?", sql)

    def run(self, db: sqlite3.Connection, params: Sequence[Any]) -> sqlite3.Cursor:
        """Execute it with `params`, the first of which is ?1."""
        return db.execute(self._sql, self._pick(params))
