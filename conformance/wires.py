"""What the scripted model says, in each dialect: as one JSON body, or as the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from conformance.conversation import Turn

__all__ = [
    "anthropic_body",
    "anthropic_events",
    "chat_body",
    "chat_events",
    "responses_body",
    "responses_events",
]

CREATED = 1_700_000_000
PIECE = 9  # characters of a text or of arguments in one event of a stream


def _pieces(text: str) -> list[str]:
    return [text[i : i + PIECE] for i in range(0, len(text), PIECE)] or [""]


# -- OpenAI chat completions


def chat_body(turn: Turn, number: int, model: str) -> dict[str, Any]:
    """Return the whole reply."""
    calls = [
        {"id": call_id, "type": "function", "function": {"name": use.tool, "arguments": use.json}}
        for use, call_id in zip(turn.uses, turn.ids(number), strict=True)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop", "logprobs": None}
    return _chat(f"chatcmpl-{number}", "chat.completion", model, [choice]) | {"usage": _chat_usage(turn)}


def chat_events(turn: Turn, number: int, model: str, *, usage: bool) -> Iterator[str]:
    """Yield the stream; with the usage at its end if the client asked for it."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _event(_chat(f"chatcmpl-{number}", "chat.completion.chunk", model, [choice]))

    yield chunk({"role": "assistant", "content": "" if turn.text else None})
    if turn.text:
        for piece in _pieces(turn.text):
            yield chunk({"content": piece})
    for i, (use, call_id) in enumerate(zip(turn.uses, turn.ids(number), strict=True)):
        head = {"index": i, "id": call_id, "type": "function", "function": {"name": use.tool, "arguments": ""}}
        yield chunk({"tool_calls": [head]})
        for piece in _pieces(use.json):
            yield chunk({"tool_calls": [{"index": i, "function": {"arguments": piece}}]})
    yield chunk({}, "tool_calls" if turn.uses else "stop")
    if usage:
        last = _chat(f"chatcmpl-{number}", "chat.completion.chunk", model, [])
        yield _event(last | {"usage": _chat_usage(turn)})
    yield "data: [DONE]\n\n"


def _chat(reply_id: str, kind: str, model: str, choices: list[Any]) -> dict[str, Any]:
    return {"id": reply_id, "object": kind, "created": CREATED, "model": model, "choices": choices}


def _chat_usage(turn: Turn) -> dict[str, int]:
    total = turn.input_tokens + turn.output_tokens
    return {"prompt_tokens": turn.input_tokens, "completion_tokens": turn.output_tokens, "total_tokens": total}


# -- OpenAI responses


def responses_body(turn: Turn, number: int, model: str) -> dict[str, Any]:
    """Return the whole reply."""
    return _response(turn, number, model, "completed", _items(turn, number), usage=True)


def responses_events(turn: Turn, number: int, model: str) -> Iterator[str]:
    """Yield the stream."""
    events = list(_response_events(turn, number, model))
    for i, event in enumerate(events):
        yield f"event: {event['type']}\n" + _event(event | {"sequence_number": i})


def _response_events(turn: Turn, number: int, model: str) -> Iterator[dict[str, Any]]:
    begun = _response(turn, number, model, "in_progress", [], usage=False)
    yield {"type": "response.created", "response": begun}
    items = _items(turn, number)
    for i, item in enumerate(items):
        at = {"output_index": i, "item_id": item["id"]}
        empty = {"content": []} if item["type"] == "message" else {"arguments": ""}
        added = item | empty | {"status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": i, "item": added}
        if item["type"] == "message":
            part = item["content"][0]
            at |= {"content_index": 0}
            yield {"type": "response.content_part.added", **at, "part": part | {"text": ""}}
            for piece in _pieces(turn.text):
                yield {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}
            yield {"type": "response.output_text.done", **at, "text": turn.text, "logprobs": []}
            yield {"type": "response.content_part.done", **at, "part": part}
        else:
            for piece in _pieces(item["arguments"]):
                yield {"type": "response.function_call_arguments.delta", **at, "delta": piece}
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield {"type": "response.function_call_arguments.done", **at, **done}
        yield {"type": "response.output_item.done", "output_index": i, "item": item}
    yield {"type": "response.completed", "response": responses_body(turn, number, model)}


def _items(turn: Turn, number: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if turn.text:
        part = {"type": "output_text", "text": turn.text, "annotations": [], "logprobs": []}
        items.append(
            {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed", "content": [part]}
        )
    for use, call_id in zip(turn.uses, turn.ids(number), strict=True):
        call = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": use.tool}
        items.append(call | {"arguments": use.json, "status": "completed"})
    return items


def _response(
    turn: Turn, number: int, model: str, status: str, output: list[dict[str, Any]], *, usage: bool
) -> dict[str, Any]:
    used = {
        "input_tokens": turn.input_tokens,
        "output_tokens": turn.output_tokens,
        "total_tokens": turn.input_tokens + turn.output_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "usage": used if usage else None,
    }


# -- Anthropic messages


def anthropic_body(turn: Turn, number: int, model: str) -> dict[str, Any]:
    """Return the whole reply."""
    blocks: list[dict[str, Any]] = [{"type": "text", "text": turn.text}] if turn.text else []
    for use, call_id in zip(turn.uses, turn.ids(number), strict=True):
        # In this dialect a whole reply carries arguments parsed; what cannot be parsed stays a text.
        given: Any = dict(use.args) if use.raw is None else use.raw
        blocks.append({"type": "tool_use", "id": call_id, "name": use.tool, "input": given})
    return _message(turn, number, model, blocks, "tool_use" if turn.uses else "end_turn")


def anthropic_events(turn: Turn, number: int, model: str) -> Iterator[str]:
    """Yield the stream."""

    def event(kind: str, **fields: Any) -> str:
        return f"event: {kind}\n" + _event({"type": kind, **fields})

    yield event("message_start", message=_message(turn, number, model, [], None))
    blocks: list[tuple[dict[str, Any], str, str]] = []
    if turn.text:
        blocks.append(({"type": "text", "text": ""}, "text_delta", turn.text))
    for use, call_id in zip(turn.uses, turn.ids(number), strict=True):
        blocks.append(
            ({"type": "tool_use", "id": call_id, "name": use.tool, "input": {}}, "input_json_delta", use.json)
        )
    for i, (block, kind, text) in enumerate(blocks):
        field = "text" if kind == "text_delta" else "partial_json"
        yield event("content_block_start", index=i, content_block=block)
        for piece in _pieces(text):
            yield event("content_block_delta", index=i, delta={"type": kind, field: piece})
        yield event("content_block_stop", index=i)
    delta = {"stop_reason": "tool_use" if turn.uses else "end_turn", "stop_sequence": None}
    yield event("message_delta", delta=delta, usage={"output_tokens": turn.output_tokens})
    yield event("message_stop")


def _message(
    turn: Turn, number: int, model: str, content: list[dict[str, Any]], stop_reason: str | None
) -> dict[str, Any]:
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": turn.input_tokens, "output_tokens": turn.output_tokens},
    }


def _event(data: Any) -> str:
    return f"data: {json.dumps(data)}\n\n"
