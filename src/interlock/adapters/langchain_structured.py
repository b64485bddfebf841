"""A structured response beside a recorded reply: as JSON, and back as the type that the agent was told of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain.agents.structured_output import AutoStrategy, ProviderStrategy, ToolStrategy
from pydantic import TypeAdapter, ValidationError

from interlock.adapters.values import as_json
from interlock.core.canonical import NotCanonical

__all__ = ["keep_structured", "restore_structured"]


def keep_structured(reply: dict[str, Any], response: Any) -> None:
    """Put a structured response beside its reply; nothing where there is none, or it is not JSON."""
    if response is None:
        return
    try:
        reply["structured"] = {"type": type(response).__name__, "value": as_json(response)}
    except NotCanonical:
        reply["structured"] = None


def restore_structured(reply: dict[str, Any], wanted: Any) -> Any:
    """Return the structured response of a recorded reply.

    Args:
        wanted: The agent's `response_format`.
    """
    kept = reply.get("structured")
    if kept is None:
        return None
    for schema in _schemas(wanted):
        if isinstance(schema, dict):
            continue
        if getattr(schema, "__name__", "") == kept["type"] or len(tuple(_schemas(wanted))) == 1:
            try:
                return TypeAdapter(schema).validate_python(kept["value"])
            except ValidationError:
                continue
    return kept["value"]


def _schemas(wanted: Any) -> Iterator[Any]:
    if isinstance(wanted, ToolStrategy):
        for spec in wanted.schema_specs:
            yield spec.schema
    elif isinstance(wanted, AutoStrategy | ProviderStrategy):
        yield wanted.schema
    elif wanted is not None:
        yield wanted
