"""What stays of a run's record when its content is dropped: numbers and names."""

from __future__ import annotations

from typing import Any

import orjson

__all__ = ["HEAD", "tombstone_of"]

# What such a record begins with.
HEAD = b'{"purged":true'
_COUNTERS = (
    "run_id",
    "tenant_id",
    "timestamp",
    "stop_reason",
    "steps",
    "tool_calls",
    "duration_s",
    "cost_usd",
    "tokens",
)


def tombstone_of(record: Any) -> bytes:
    """Return what stays of a record: JSON as it is stored, or None."""
    kept = {} if record is None else orjson.loads(record)
    return orjson.dumps({"purged": True, **{name: kept[name] for name in _COUNTERS if name in kept}})
