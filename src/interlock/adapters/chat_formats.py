"""The three formats in which chat models ask for tools and are answered: read and written, nothing else.

OpenAI chat completions (and whatever is compatible with it), OpenAI responses, Anthropic messages. Replies may
be the vendor's objects or plain mappings. What a model writes is never trusted to be well-formed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from interlock.core.errors import ConfigError
from interlock.core.fields import is_mapping
from interlock.core.fields import read_field as get

__all__ = [
    "Answered",
    "Format",
    "ToolUse",
    "dump",
    "format_of",
    "messages_of",
    "rebuild",
    "text_of",
    "uses_of",
]


class Format(StrEnum):
    """Which format a reply is in."""

    CHAT = "chat"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One tool use that a reply asks for.

    Attributes:
        id: The model's own id of it; "" where it gave none.
        args: The arguments, or None where they are not a JSON object.
        custom: A free-form tool: its text is the argument `input`.
    """

    id: str
    name: str
    args: Mapping[str, Any] | None
    custom: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """What one tool use is answered with."""

    use: ToolUse
    text: str
    ok: bool


def format_of(reply: Any) -> Format:
    """Return the format of a reply.

    Raises:
        ConfigError: It is none of the three.
    """
    if get(reply, "choices") is not None:
        return Format.CHAT
    if get(reply, "object") == "response" or isinstance(get(reply, "output"), Sequence):
        return Format.RESPONSES
    if get(reply, "type") == "message" and get(reply, "content") is not None:
        return Format.ANTHROPIC
    raise ConfigError(
        f"a {type(reply).__name__} is no reply of OpenAI chat completions, OpenAI responses or Anthropic messages:"
        " pass the client's own reply (of a stream, `stream.reply`)"
    )


def uses_of(reply: Any, form: Format | None = None) -> list[ToolUse]:
    """Return the tool uses that a reply asks for, in its order; of chat completions, those of the first choice."""
    match form or format_of(reply):
        case Format.CHAT:
            choices = get(reply, "choices")
            message = get(choices[0], "message") if choices else None
            return [_chat_use(call) for call in get(message, "tool_calls") or ()]
        case Format.RESPONSES:
            return [_item_use(item) for item in get(reply, "output") if get(item, "type") in _CALLS]
        case Format.ANTHROPIC:
            return [
                ToolUse(_text(get(block, "id")), _text(get(block, "name")), _object(get(block, "input")))
                for block in get(reply, "content")
                if get(block, "type") == "tool_use"
            ]


_CALLS = {"function_call": False, "custom_tool_call": True}


def _chat_use(call: Any) -> ToolUse:
    if get(call, "type") == "custom":
        custom = get(call, "custom")
        return ToolUse(_text(get(call, "id")), _text(get(custom, "name")), {"input": _text(get(custom, "input"))}, True)
    function = get(call, "function")
    return ToolUse(_text(get(call, "id")), _text(get(function, "name")), _object(get(function, "arguments")))


def _item_use(item: Any) -> ToolUse:
    if _CALLS[get(item, "type")]:
        return ToolUse(
            _text(get(item, "call_id")), _text(get(item, "name")), {"input": _text(get(item, "input"))}, True
        )
    return ToolUse(_text(get(item, "call_id")), _text(get(item, "name")), _object(get(item, "arguments")))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _object(value: Any) -> Mapping[str, Any] | None:
    """Return arguments as an object: JSON text, or what was parsed already; "" means none were needed."""
    if isinstance(value, str):
        if not value.strip():
            return {}
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if is_mapping(value) else {} if value is None else None


def text_of(reply: Any) -> str:
    """Return what a reply says to the user."""
    match format_of(reply):
        case Format.CHAT:
            choices = get(reply, "choices")
            message = get(choices[0], "message") if choices else None
            return _text(get(message, "content")) or _text(get(message, "refusal"))
        case Format.RESPONSES:
            parts = [
                part
                for item in get(reply, "output")
                if get(item, "type") == "message"
                for part in get(item, "content") or ()
            ]
            return "".join(_text(get(part, "text")) or _text(get(part, "refusal")) for part in parts)
        case Format.ANTHROPIC:
            return "".join(_text(get(block, "text")) for block in get(reply, "content") if get(block, "type") == "text")


def messages_of(form: Format, answers: Iterable[Answered]) -> list[dict[str, Any]]:
    """Return the messages (of responses: the input items) that give a model the results of its tool uses."""
    match form:
        case Format.CHAT:
            return [{"role": "tool", "tool_call_id": a.use.id, "content": a.text} for a in answers]
        case Format.RESPONSES:
            return [
                {
                    "type": "custom_tool_call_output" if a.use.custom else "function_call_output",
                    "call_id": a.use.id,
                    "output": a.text,
                }
                for a in answers
            ]
        case Format.ANTHROPIC:
            # All results of one turn stand in one message, or the API refuses it.
            blocks: list[dict[str, Any]] = []
            for a in answers:
                block: dict[str, Any] = {"type": "tool_result", "tool_use_id": a.use.id, "content": a.text}
                blocks.append(block if a.ok else block | {"is_error": True})
            return [{"role": "user", "content": blocks}] if blocks else []


# -- replies as JSON, and back


def dump(reply: Any) -> dict[str, Any]:
    """Return a reply as plain data that `rebuild` takes."""
    if is_mapping(reply):
        return {"plain": True, "reply": dict(reply)}
    return {
        "plain": False,
        "format": format_of(reply),
        "reply": reply.model_dump(mode="json", exclude_unset=True, warnings=False),
    }


def rebuild(kept: Mapping[str, Any]) -> Any:
    """Return the reply that `dump` was given."""
    if kept["plain"]:
        return kept["reply"]
    return as_object(Format(kept["format"]), kept["reply"])


def as_object(form: Format, reply: Mapping[str, Any]) -> Any:
    """Return plain data as the vendor's own object of that format."""
    # Not validated: compatible servers leave fields out, and the vendors' clients take that too.
    match form:
        case Format.CHAT:
            from openai.types.chat import ChatCompletion  # noqa: PLC0415 - whichever client the loop has

            return ChatCompletion.construct(**reply)
        case Format.RESPONSES:
            from openai.types.responses import Response  # noqa: PLC0415

            return Response.construct(**reply)
        case Format.ANTHROPIC:
            from anthropic.types import Message  # noqa: PLC0415

            return Message.construct(**reply)
