"""Anthropic messages: content blocks `tool_use` and `tool_result`, the latter inside messages of the user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from interlock.forensics.error_text import failure
from interlock.forensics.formats.openai_chat import label_of, messages_of, said_in, turns_of, unwrap
from interlock.forensics.json_records import each_run
from interlock.forensics.traces import Broken, ErrorKind, RecordedRun

__all__ = ["detects", "read"]

_BLOCKS = frozenset({"tool_use", "tool_result", "server_tool_use", "thinking"})
_LOOKED_AT = 50


def detects(record: Any) -> bool:
    """Whether this record holds messages with blocks of tool use."""
    if not isinstance(record, dict | list):
        return False
    _, body = unwrap(record)
    messages = body.get("messages", body.get("traj")) if isinstance(body, dict) else body
    return isinstance(messages, list) and any(
        isinstance(block, dict) and block.get("type") in _BLOCKS
        for message in messages[:_LOOKED_AT]
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        for block in message["content"]
    )


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the runs, and what is broken, of a file in this format."""
    return each_run(lines, lambda record: _run(record, dataset))


def _run(record: Any, dataset: str) -> RecordedRun:
    source, body = unwrap(record)
    about: Mapping[str, Any] = body if isinstance(body, dict) else {}
    messages = [made for message in messages_of(body) for made in _chat(message)]
    system = about.get("system")
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return RecordedRun(
        dataset=dataset,
        run_id=str(about.get("run_id") or about.get("id") or source.get("path") or ""),
        model=str(about.get("model") or source.get("model") or ""),
        domain=str(about.get("domain") or ""),
        task=str(about.get("task_id") or ""),
        success=label_of(about),
        turns=tuple(turns_of(messages, unpack=lambda tool, args: (tool, args), judge=_judge)),
        said=said_in(messages),
        stop_reason=_stop(about),
    )


def _stop(about: Mapping[str, Any]) -> str:
    reason = str(about.get("stop_reason") or "")
    # How one answer of the model ended is not how the run did.
    return "" if reason in {"tool_use", "end_turn", "stop_sequence", "max_tokens"} else reason


def _judge(message: Mapping[str, Any], text: str) -> ErrorKind | None:
    return failure(text, flagged=bool(message.get("is_error")))


def _chat(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a message in the shape of chat completions: answers first, then what is said beside them."""
    content = message.get("content")
    if not isinstance(content, list):
        yield dict(message)
        return
    calls, rest = [], []
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind in {"tool_use", "server_tool_use"}:
            calls.append(
                {"id": block.get("id"), "function": {"name": block.get("name"), "arguments": block.get("input")}}
            )
        elif kind == "tool_result":
            yield {
                "role": "tool",
                "tool_call_id": block.get("tool_use_id"),
                "content": block.get("content"),
                "is_error": block.get("is_error"),
            }
        elif kind not in {"thinking", "redacted_thinking"}:
            rest.append(block)
    if calls or rest or not content:
        made = {**message, "content": rest}
        yield made | {"tool_calls": calls} if calls else made
