"""AgentDojo runs: `tool_calls[].{function, args}`, and tool messages in the same order with an `error` field.

The harness ends a run at its step cap with calls that the model asked for and nobody executed: they are
counted as unanswered, not as calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from interlock.forensics.error_text import error_kind
from interlock.forensics.formats.openai_chat import messages_of, said_in, text_of, unwrap
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


def detects(record: Any) -> bool:
    """Whether this record names an AgentDojo suite and pipeline."""
    _, body = unwrap(record)
    return isinstance(body, dict) and {"suite_name", "pipeline_name", "messages"} <= body.keys()


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the runs, and what is broken, of a file in this format."""
    return each_run(lines, lambda record: _run(record, dataset))


def _run(record: Any, dataset: str) -> RecordedRun:
    source, body = unwrap(record)
    turns: list[list[RecordedCall]] = []
    waiting: list[Mapping[str, Any]] = []
    messages = messages_of(body)
    for message in messages:
        if message["role"] == "assistant":
            turns.append([])
            waiting = list(message.get("tool_calls") or ())
        elif message["role"] == "tool":
            if not waiting:
                raise BrokenRecord("a tool message that answers no call")
            turns[-1].append(_call(waiting.pop(0), message))
    utility = body.get("utility")
    return RecordedRun(
        dataset=dataset,
        run_id=str(source.get("path") or ""),
        model=str(body["pipeline_name"]),
        domain=str(body["suite_name"]),
        task=str(body.get("user_task_id") or ""),
        success=utility if isinstance(utility, bool) else None,
        turns=tuple(RecordedTurn(tuple(calls)) for calls in turns),
        seconds=body.get("duration"),
        unanswered=len(waiting),
        said=said_in(messages),
        error=str(body.get("error") or ""),
    )


def _call(asked: Mapping[str, Any], answer: Mapping[str, Any]) -> RecordedCall:
    error = answer.get("error")
    text = text_of(answer.get("content")) or str(error or "")
    return RecordedCall(
        asked["function"],
        asked["args"],
        args_hash(asked["args"]),
        output=text,
        output_hash=text_hash(text),
        error=error_kind(str(error)) if error else None,
    )
