"""Model replies as JSON, and back: what was stored must be what the agent would have seen."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson
from pydantic import TypeAdapter

__all__ = ["PLAIN", "read", "write"]

# In place of a type: a reply that is plain JSON, and comes back exactly as it was.
PLAIN: Any = object()

# orjson would write dataclasses, dates and subclasses too, but could not give them back.
_PLAIN = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def write(reply: Any, reply_type: Any) -> bytes | None:
    """Return the reply as JSON from which `read` rebuilds it, or None where that is not possible."""
    try:
        if reply_type is not PLAIN:
            return _adapter(reply_type).dump_json(reply)
        data = orjson.dumps(reply, option=_PLAIN)
        # A tuple becomes a list, NaN becomes null: what does not come back the same is not kept.
        return data if orjson.loads(data) == reply else None
    except (TypeError, ValueError, RecursionError):
        return None


def read(data: bytes, reply_type: Any) -> Any:
    """Return the reply that `write` stored."""
    return orjson.loads(data) if reply_type is PLAIN else _adapter(reply_type).validate_json(data)


@lru_cache(maxsize=128)
def _adapter(reply_type: Any) -> TypeAdapter[Any]:
    return TypeAdapter(reply_type)
