"""Letta messages: `message_type` tool_call_message, tool_return_message, …; a turn is what shares a `step_id`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from interlock.forensics.error_text import error_kind
from interlock.forensics.formats.openai_chat import ask, text_of, unwrap
from interlock.forensics.json_records import each_run
from interlock.forensics.traces import (
    Broken,
    BrokenRecord,
    RecordedCall,
    RecordedRun,
    RecordedTurn,
    args_hash,
    text_hash,
)

__all__ = ["detects", "read"]

_OF_THE_MODEL = frozenset({"assistant_message", "tool_call_message", "reasoning_message", "hidden_reasoning_message"})


def detects(record: Any) -> bool:
    """Whether this record holds messages with a `message_type`."""
    _, body = unwrap(record) if isinstance(record, dict | list) else ({}, None)
    messages = _messages(body)
    return bool(messages) and "message_type" in messages[0]


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the runs, and what is broken, of a file in this format."""
    return each_run(lines, lambda record: _run(record, dataset))


def _messages(body: Any) -> list[Mapping[str, Any]]:
    found = body.get("trajectory", body.get("messages")) if isinstance(body, dict) else body
    if isinstance(found, list) and found and isinstance(found[0], list):
        found = [message for part in found for message in part]
    return [message for message in found if isinstance(message, dict)] if isinstance(found, list) else []


def _run(record: Any, dataset: str) -> RecordedRun:
    source, body = unwrap(record)
    messages = _messages(body)
    if not messages:
        raise BrokenRecord("no messages under `trajectory` or `messages`")
    about: Mapping[str, Any] = body if isinstance(body, dict) else {}
    sample = about.get("sample") or {}
    score = (about.get("grade") or {}).get("score")
    task = str(sample.get("id", about.get("task_id", "")))
    path = str(source.get("path") or about.get("agent_id") or "")
    times = [_time(message.get("date")) for message in messages]
    known = [time for time in times if time is not None]
    return RecordedRun(
        dataset=dataset,
        run_id=f"{path}:{task}" if task else path,
        model=str(about.get("model_name") or ""),
        domain="filesystem-qa" if "submission" in about else "",
        task=task,
        success=score >= 1 if isinstance(score, int | float) else None,
        turns=tuple(_turns(messages, times, known[0] if known else None)),
        seconds=(known[-1] - known[0]).total_seconds() if known else None,
        said=tuple(
            text_of(m.get("content")) for m in messages if m.get("message_type") in {"user_message", "system_message"}
        ),
    )


def _turns(
    messages: list[Mapping[str, Any]], times: list[datetime | None], began: datetime | None
) -> Iterator[RecordedTurn]:
    answers = {
        str(message.get("tool_call_id")): message
        for message in messages
        if message.get("message_type") == "tool_return_message"
    }
    steps: dict[str, list[RecordedCall]] = {}
    for number, (message, at) in enumerate(zip(messages, times, strict=True)):
        if message.get("message_type") not in _OF_THE_MODEL:
            continue
        calls = steps.setdefault(str(message.get("step_id") or message.get("id") or number), [])
        since = None if at is None or began is None else (at - began).total_seconds()
        asked = message.get("tool_calls") or ([message["tool_call"]] if message.get("tool_call") else [])
        for call in asked:
            calls.append(_call(call, answers.get(str(call.get("tool_call_id"))), since))
    return (RecordedTurn(tuple(calls), None, calls[0].at_s if calls else None) for calls in steps.values())


def _call(asked: Mapping[str, Any], answer: Mapping[str, Any] | None, at_s: float | None) -> RecordedCall:
    call = ask(asked.get("name"), asked.get("arguments"), asked.get("tool_call_id"))
    if answer is None:
        return RecordedCall(call.tool, call.args, args_hash(call.args), at_s=at_s)
    text = text_of(answer.get("tool_return"))
    return RecordedCall(
        call.tool,
        call.args,
        args_hash(call.args),
        output=text,
        output_hash=text_hash(text),
        error=error_kind(text) if answer.get("status") == "error" else None,
        at_s=at_s,
    )


def _time(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
