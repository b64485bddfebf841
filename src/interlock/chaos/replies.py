"""What model faults make of a reply: a plain one (`{tool, args}`), OpenAI's or Anthropic's, as a mapping or a model.

A reply of another shape is left as it is, but for its texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from interlock.chaos.faults import Kind

__all__ = ["falsified"]

UNKNOWN_TOOL = "tool.that_does_not_exist"
_NOT_SAID = {"id", "type", "role", "model", "usage", "object", "finish_reason", "stop_reason", "tool_call_id"}
_ARGUMENTS = {"args", "arguments", "input"}


def falsified(kind: Kind, reply: Any) -> Any:
    """Return the reply as a fault of this kind leaves it."""
    if isinstance(reply, BaseModel):
        return type(reply).model_validate(falsified(kind, reply.model_dump()))
    return _walk(kind, reply, "")


def _walk(kind: Kind, value: Any, key: str) -> Any:
    if key in _NOT_SAID:
        return value
    if key in _ARGUMENTS and kind is Kind.MODEL_MALFORMED_ARGUMENTS:
        return '{"query": "cut o' if isinstance(value, str) else {"not_an_argument": [1, 2]}
    if key in {"tool", "name"} and kind is Kind.MODEL_UNKNOWN_TOOL and isinstance(value, str):
        return UNKNOWN_TOOL
    if isinstance(value, Mapping):
        return {name: _walk(kind, item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_walk(kind, item, key) for item in value]
    if isinstance(value, str) and key not in {"tool", "name"}:
        if kind is Kind.MODEL_TRUNCATED:
            return value[: len(value) // 2]
        if kind is Kind.MODEL_EMPTY:
            return ""
    return value
