"""What LangChain tools and models answer, as JSON that can be kept, and back.

A tool's answer is kept as the function's own return value where that is JSON, so that output schemas and
invariants see what its author wrote; else as the text or content blocks that the model would read. A `Command`
(a handoff, a state update) is kept as LangGraph's own serializer writes it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ToolMessage,
    message_to_dict,
    messages_from_dict,
)
from langchain_core.messages.tool import tool_call
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command

from interlock.core.canonical import NotCanonical, canonical_json

__all__ = [
    "MALFORMED",
    "NOTHING",
    "corrected",
    "dumped_reply",
    "kept",
    "message_of",
    "read_reply",
    "refusal",
]

# A tool of a class of its own: what its function returned is not seen, only what LangChain made of it.
NOTHING: Any = object()

# Stands in a tool call for arguments that the model wrote and that are not JSON.
MALFORMED = "arguments_as_written"

_SERDE = JsonPlusSerializer()
_COMMAND = "langgraph.command"
_ARTIFACT = "artifact"


# -- tools


def kept(answer: Any, returned: Any) -> Any:
    """Return a tool's answer as JSON.

    Args:
        answer: What `BaseTool.invoke` gave: a `ToolMessage`, a `Command`, or a list of them.
        returned: What the tool's own function returned, or NOTHING.
    """
    if not isinstance(answer, ToolMessage):
        kind, data = _SERDE.dumps_typed(answer)
        return {_COMMAND: kind, "data": base64.b64encode(data).decode("ascii")}
    if answer.artifact is not None:
        value = {"content": answer.content}
        return value | {_ARTIFACT: answer.artifact} if _is_json(answer.artifact) else value
    return returned if returned is not NOTHING and _is_json(returned) else answer.content


def message_of(value: Any, text: str, *, name: str, tool_call_id: str) -> Any:
    """Return what the graph gets of an answer that was kept: a `ToolMessage`, or the `Command` that it was.

    Args:
        value: As `kept` gave it, validated since.
        text: What the model may read of it.
    """
    if isinstance(value, Mapping):
        if value.keys() == {_COMMAND, "data"}:
            return _addressed(_SERDE.loads_typed((value[_COMMAND], base64.b64decode(value["data"]))), tool_call_id)
        if value.keys() == {"content", _ARTIFACT}:
            return ToolMessage(value["content"], name=name, tool_call_id=tool_call_id, artifact=value[_ARTIFACT])
    return ToolMessage(text, name=name, tool_call_id=tool_call_id)


def _addressed(answer: Any, tool_call_id: str) -> Any:
    """Return a replayed answer as one to this call: what it carries may have answered an equal, earlier call."""
    for item in answer if isinstance(answer, list) else [answer]:
        messages = (
            item.update.get("messages", ()) if isinstance(item, Command) and isinstance(item.update, dict) else ()
        )
        told = [message for message in (item, *messages) if isinstance(message, ToolMessage)]
        if len(told) == 1:
            told[0].tool_call_id = tool_call_id
    return answer


def refusal(text: str, *, name: str, tool_call_id: str, status: str, reason: str | None) -> ToolMessage:
    """Return what tells the model that a call was refused, failed, or may have happened."""
    said = {"status": status, "reason": reason}
    return ToolMessage(
        text, name=name, tool_call_id=tool_call_id, status="error", additional_kwargs={"interlock": said}
    )


def _is_json(value: Any) -> bool:
    try:
        canonical_json(value)
    except NotCanonical:
        return False
    return True


# -- models


def corrected(message: BaseMessage) -> BaseMessage:
    """Return the reply with its malformed tool calls as calls, which the funnel refuses: the model is told of them.

    Left as they are, an agent loop takes a reply of nothing else for its last one.
    """
    if not isinstance(message, AIMessage) or not message.invalid_tool_calls:
        return message
    calls = [
        tool_call(name=call.get("name") or "", args={MALFORMED: call.get("args") or ""}, id=call.get("id"))
        for call in message.invalid_tool_calls
    ]
    return message.model_copy(update={"tool_calls": [*message.tool_calls, *calls], "invalid_tool_calls": []})


def dumped_reply(messages: list[BaseMessage]) -> dict[str, Any]:
    """Return a model's reply as plain JSON that `read_reply` takes."""
    return {"messages": json.loads(json.dumps([message_to_dict(m) for m in messages], default=str))}


def read_reply(reply: Mapping[str, Any]) -> list[BaseMessage]:
    """Return the reply that `dumped_reply` was given."""
    messages: list[BaseMessage] = messages_from_dict(reply["messages"])
    return messages
