"""Statements in which a value may stand twice: written with numbered marks, bound with plain ones.

SQLite takes `?1` by position; Python's `sqlite3` counts it as a name, warns from 3.12 on when it is given a sequence,
and refuses from 3.14 on. Names and a dict would do, at twice the cost of a binding.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

__all__ = ["ManyMarked", "Marked"]

_MARK = re.compile(r"\?(\d+)")
# Rows of one statement: another number is made up of several. Each is prepared once.
_SHARES = (32, 16, 8, 4, 2, 1)


class Marked:
    """A statement with the marks ?1, ?2, … of which at least two stand in it."""

    __slots__ = ("_pick", "_sql")

    def __init__(self, sql: str) -> None:
        self._pick = itemgetter(*(int(number) - 1 for number in _MARK.findall(sql)))
        self._sql = _MARK.sub("?", sql)

    def run(self, db: sqlite3.Connection, params: Sequence[Any]) -> sqlite3.Cursor:
        """Execute it with `params`, the first of which is ?1."""
        return db.execute(self._sql, self._pick(params))


class ManyMarked:
    """The same statement for many rows at once; it takes `{rows}` where a table to select from may stand.

    Args:
        columns: Marks ?1 to ?columns are a row's own.
        shared: So many further ones are the same for all rows.
    """

    __slots__ = ("_texts",)

    def __init__(self, sql: str, *, columns: int, shared: int = 0) -> None:
        def column(mark: re.Match[str]) -> str:
            number = int(mark[1])
            return f"own.column{number}" if number <= columns else f"of_all.column{number - columns}"

        of_all = f"(values ({', '.join('?' * shared)})) as of_all cross join " if shared else ""
        row = f"({', '.join('?' * columns)})"
        text = _MARK.sub(column, sql)
        self._texts = [
            (share, text.replace("{rows}", f"from {of_all}(values {', '.join([row] * share)}) as own"))
            for share in _SHARES
        ]

    def run(self, db: sqlite3.Connection, rows: Sequence[Sequence[Any]], of_all: Sequence[Any] = ()) -> int:
        """Execute it for `rows`; return how many were written."""
        written = at = 0
        for share, text in self._texts:
            while len(rows) - at >= share:
                params = tuple(chain(of_all, *rows[at : at + share]))
                written += db.execute(text, params).rowcount
                at += share
        return written
