"""OpenAI Responses: items (`function_call`, `function_call_output`, `message`, `reasoning`), alone or in a response.

A record is a list of items, an object with the list under `items`, `input` or `output`, or an object with both
`input` and `output`. Calls that stand together are one turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from interlock.forensics.error_text import failure
from interlock.forensics.formats.openai_chat import label_of, said_in, turns_of, unwrap
from interlock.forensics.json_records import each_run
from interlock.forensics.traces import Broken, BrokenRecord, ErrorKind, RecordedRun

__all__ = ["detects", "read"]

_CALLS = frozenset({"function_call", "custom_tool_call"})
_ANSWERS = frozenset({"function_call_output", "custom_tool_call_output"})
_THOUGHTS = frozenset({"reasoning", "item_reference"})
_LOOKED_AT = 50


def detects(record: Any) -> bool:
    """Whether this record holds items of the Responses API."""
    _, body = unwrap(record) if isinstance(record, dict | list) else ({}, None)
    items = _items(body)
    return any(isinstance(i, dict) and i.get("type") in _CALLS | _ANSWERS for i in items[:_LOOKED_AT]) or (
        isinstance(body, dict) and body.get("object") == "response"
    )


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the runs, and what is broken, of a file in this format."""
    return each_run(lines, lambda record: _run(record, dataset))


def _items(body: Any) -> list[Any]:
    if isinstance(body, list):
        return body
    if not isinstance(body, dict):
        return []
    if isinstance(body.get("items"), list):
        return list(body["items"])
    asked = body.get("input")
    begin = asked if isinstance(asked, list) else [{"role": "user", "content": asked}] if asked else []
    answered = body.get("output")
    return [*begin, *(answered if isinstance(answered, list) else [])]


def _run(record: Any, dataset: str) -> RecordedRun:
    source, body = unwrap(record)
    items = _items(body)
    if not items or not all(isinstance(item, dict) for item in items):
        raise BrokenRecord("no list of items under `items`, `input` or `output`")
    about: Mapping[str, Any] = body if isinstance(body, dict) else {}
    messages = _messages(items)
    if isinstance(about.get("instructions"), str):
        messages.insert(0, {"role": "system", "content": about["instructions"]})
    incomplete = (about.get("incomplete_details") or {}).get("reason")
    return RecordedRun(
        dataset=dataset,
        run_id=str(about.get("run_id") or about.get("id") or source.get("path") or ""),
        model=str(about.get("model") or source.get("model") or ""),
        domain=str(about.get("domain") or ""),
        task=str(about.get("task_id") or ""),
        success=label_of(about),
        turns=tuple(turns_of(messages, unpack=lambda tool, args: (tool, args), judge=_judge)),
        said=said_in(messages),
        stop_reason=str(about.get("stop_reason") or incomplete or ""),
    )


def _judge(message: Mapping[str, Any], text: str) -> ErrorKind | None:
    return failure(text, flagged=message.get("status") == "failed")


def _messages(items: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the items as chat messages: what the model produced in one go is one message."""
    messages: list[dict[str, Any]] = []
    going: dict[str, Any] | None = None
    for item in items:
        kind = item.get("type") or "message"
        if kind in _CALLS or kind in _THOUGHTS or (kind == "message" and item.get("role") == "assistant"):
            # A text behind calls begins a turn of its own: the model has seen their answers, or ended.
            if going is None or (kind == "message" and "tool_calls" in going):
                going = {"role": "assistant", "content": ""}
                messages.append(going)
            if kind in _CALLS:
                arguments = item.get("arguments", item.get("input"))
                call = {"id": item.get("call_id"), "function": {"name": item.get("name"), "arguments": arguments}}
                going.setdefault("tool_calls", []).append(call)
            continue
        going = None
        if kind in _ANSWERS:
            answer = _text(item.get("output"))
            messages.append(
                {"role": "tool", "tool_call_id": item.get("call_id"), "content": answer, "status": item.get("status")}
            )
        elif "role" in item:
            messages.append({"role": item["role"], "content": _text(item.get("content"))})
    return messages


def _text(content: Any) -> Any:
    if isinstance(content, list):
        return [
            {"type": "text", "text": part.get("text")} if isinstance(part, dict) and "text" in part else part
            for part in content
        ]
    return content
