"""tau2-bench simulations: `tool_calls[].{name, arguments}`, tool messages by `id`, times and costs a message.

Calls of the simulated customer (`requestor: user`, on messages of the user) are not the agent's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from interlock.forensics.error_text import error_kind
from interlock.forensics.formats.openai_chat import Asked, ask, messages_of, said_in, text_of, unwrap
from interlock.forensics.json_records import each_run
from interlock.forensics.traces import (
    Broken,
    RecordedCall,
    RecordedRun,
    RecordedTurn,
    args_hash,
    text_hash,
)

__all__ = ["detects", "read"]


def detects(record: Any) -> bool:
    """Whether this record is a simulation with a reward and a reason of termination."""
    _, body = unwrap(record)
    return isinstance(body, dict) and {"messages", "termination_reason", "reward_info"} <= body.keys()


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the runs, and what is broken, of a file in this format."""
    return each_run(lines, lambda record: _run(record, dataset))


def _run(record: Any, dataset: str) -> RecordedRun:
    source, body = unwrap(record)
    messages = messages_of(body)
    start = _time(body.get("start_time")) or _time(messages[0].get("timestamp") if messages else None)
    answers = _Answers(messages)
    turns = []
    for position, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        at_s = _since(start, _time(message.get("timestamp")))
        asked = [
            ask(call.get("name"), call.get("arguments"), call.get("id"))
            for call in message.get("tool_calls") or ()
            if call.get("requestor") != "user"
        ]
        calls = tuple(_call(call, answers.take(call.call_id, position), at_s) for call in asked)
        usage = message.get("usage") or {}
        turns.append(RecordedTurn(calls, message.get("cost"), at_s, usage.get("prompt_tokens")))
    reward = (body.get("reward_info") or {}).get("reward")
    identity = str(body.get("id") or "")
    file_id = source.get("file_id")
    return RecordedRun(
        dataset=dataset,
        run_id=f"{file_id}:{identity[:8]}" if file_id else identity,
        model=str(source.get("model") or ""),
        domain=str(source.get("domain") or ""),
        task=str(body.get("task_id") or ""),
        success=reward >= 1 - 1e-6 if isinstance(reward, int | float) else None,
        turns=tuple(turns),
        cost_usd=body.get("agent_cost"),
        seconds=body.get("duration"),
        said=said_in(messages),
        stop_reason=str(body.get("termination_reason") or ""),
    )


class _Answers:
    """The tool messages of a run, each given out once: an id may come again in a later turn."""

    def __init__(self, messages: list[Mapping[str, Any]]) -> None:
        self._open = [(i, m) for i, m in enumerate(messages) if m["role"] == "tool" and m.get("requestor") != "user"]

    def take(self, call_id: str | None, after: int) -> Mapping[str, Any] | None:
        """Return the first answer behind position `after` to the call of this id."""
        for place, (position, message) in enumerate(self._open):
            if position > after and message.get("id") == call_id:
                del self._open[place]
                return message
        return None


def _call(asked: Asked, answer: Mapping[str, Any] | None, at_s: float | None) -> RecordedCall:
    if answer is None:
        return RecordedCall(asked.tool, asked.args, args_hash(asked.args), at_s=at_s)
    text = text_of(answer.get("content"))
    failed = answer.get("error") or text.startswith("Error")
    return RecordedCall(
        asked.tool,
        asked.args,
        args_hash(asked.args),
        output=text,
        output_hash=text_hash(text),
        error=error_kind(text) if failed else None,
        at_s=at_s,
    )


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _since(start: datetime | None, then: datetime | None) -> float | None:
    if start is None or then is None or (start.tzinfo is None) != (then.tzinfo is None):
        return None
    return max(0.0, (then - start).total_seconds())
