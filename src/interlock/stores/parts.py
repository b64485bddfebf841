"""The calls of a run under way are kept in parts, some together: one row of the store a part, and not a call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

__all__ = ["part", "rows_of"]


def part(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return trace rows, each with its `seq`, as one entry of the store: a list in JSON."""
    # orjson hands out its whole buffer, of which a copy is kept.
    return b"%b" % orjson.dumps(rows, default=str)


def rows_of(parts: Iterable[bytes | str]) -> list[dict[str, Any]]:
    """Return the rows of a run's parts, by `seq`; of a row that came more than once, the last."""
    found: dict[int, dict[str, Any]] = {}
    for entry in parts:
        rows = orjson.loads(entry)
        for row in rows if isinstance(rows, list) else (rows,):
            found[row["seq"]] = row
    return [found[seq] for seq in sorted(found)]
