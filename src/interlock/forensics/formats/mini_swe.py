"""Trajectories of SWE agents: mini-swe-agent (`trajectory_format`), and SWE-agent's `history`.

mini-swe-agent executes shell commands: from tool calls, or from a block of code in its answer (`actions`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from interlock.forensics.error_text import error_kind
from interlock.forensics.formats.openai_chat import ask, said_in, text_of, turns_of, unwrap
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

_CODE = re.compile(r"```(?:bash|sh)\s*\n(.*?)\n```", re.DOTALL)
_TIMED_OUT = re.compile(r"timed? ?out|timeoutexpired", re.IGNORECASE)
SHELL = "bash"


def detects(record: Any) -> bool:
    """Whether this record names a trajectory format, or is a SWE-agent history."""
    _, body = unwrap(record) if isinstance(record, dict) else ({}, None)
    if not isinstance(body, dict):
        return False
    return str(body.get("trajectory_format") or "").startswith("mini-swe-agent") or isinstance(
        body.get("history"), list
    )


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the runs, and what is broken, of a file in this format."""
    return each_run(lines, lambda record: _run(record, dataset))


def _run(record: Any, dataset: str) -> RecordedRun:
    source, body = unwrap(record)
    messages = body.get("messages", body.get("history"))
    if not isinstance(messages, list):
        raise BrokenRecord("no list of messages under `messages` or `history`")
    info = body.get("info") or {}
    stats = info.get("model_stats") or {}
    cost = stats.get("instance_cost")
    times = [time for message in messages if (time := _extra(message).get("timestamp"))]
    turns: Iterable[RecordedTurn]
    if "history" in body:
        turns = turns_of(
            _with_ids(messages), unpack=lambda tool, args: (tool, args), judge=lambda _message, _text: None
        )
    else:
        turns = _turns(messages, times[0] if times else None)
    config = (info.get("config") or {}).get("model") or {}
    success = body.get("resolved", info.get("resolved"))
    return RecordedRun(
        dataset=dataset,
        run_id=str(source.get("path") or body.get("instance_id") or body.get("id") or ""),
        model=str(config.get("model_name") or ""),
        domain="",
        task=str(body.get("instance_id") or ""),
        success=success if isinstance(success, bool) else None,
        turns=tuple(turns),
        cost_usd=float(cost) if isinstance(cost, int | float) else None,
        seconds=times[-1] - times[0] if times else None,
        said=said_in(messages),
        stop_reason=str(info.get("exit_status") or ""),
    )


def _extra(message: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = message.get("extra")
    return extra if isinstance(extra, dict) else {}


def _with_ids(history: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return a history with the id of the call on each answer, where SWE-agent keeps a list of them."""
    return [
        {**message, "tool_call_id": message["tool_call_ids"][0]} if message.get("tool_call_ids") else message
        for message in history
    ]


def _turns(messages: list[Mapping[str, Any]], began: float | None) -> Iterator[RecordedTurn]:
    answers = _Answers(messages)
    for number, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        extra = _extra(message)
        at = extra.get("timestamp")
        since = None if at is None or began is None else at - began
        usage = (extra.get("response") or {}).get("usage") or {}
        tokens = usage.get("prompt_tokens")
        calls = tuple(
            _call(tool, args, answers.take(call_id, number), since) for tool, args, call_id in _asked(message, extra)
        )
        yield RecordedTurn(calls, extra.get("cost"), since, tokens if isinstance(tokens, int) else None)


def _asked(message: Mapping[str, Any], extra: Mapping[str, Any]) -> Iterator[tuple[str, Any, str | None]]:
    calls = message.get("tool_calls")
    if calls:
        for call in calls:
            function = call.get("function") or {}
            asked = ask(function.get("name"), function.get("arguments"), call.get("id"))
            yield asked.tool, asked.args, asked.call_id
        return
    actions = extra.get("actions")
    if isinstance(actions, list):
        for action in actions:
            command = action.get("command") if isinstance(action, dict) else action
            yield SHELL, {"command": command}, action.get("tool_call_id") if isinstance(action, dict) else None
        return
    for command in _CODE.findall(text_of(message.get("content"))):
        yield SHELL, {"command": command.strip()}, None


class _Answers:
    """What came back, each given out once: by the id of the call, else in order."""

    def __init__(self, messages: list[Mapping[str, Any]]) -> None:
        self._open = [
            (number, message)
            for number, message in enumerate(messages)
            if message.get("role") in {"tool", "user"} and number > 1
        ]

    def take(self, call_id: str | None, after: int) -> Mapping[str, Any] | None:
        for place, (number, message) in enumerate(self._open):
            if number > after and (call_id is None or message.get("tool_call_id") == call_id):
                del self._open[place]
                return message
        return None


def _call(tool: str, args: Any, answer: Mapping[str, Any] | None, at_s: float | None) -> RecordedCall:
    if answer is None:
        return RecordedCall(tool, args, args_hash(args), at_s=at_s)
    text = text_of(answer.get("content"))
    extra = _extra(answer)
    failed = extra.get("returncode") not in (0, None) or bool(extra.get("exception_info"))
    error = error_kind(json.dumps(extra.get("exception_info") or "") + text[:2_000]) if failed else None
    if failed and extra.get("returncode") == -1 and _TIMED_OUT.search(text):
        error = "timeout"
    return RecordedCall(tool, args, args_hash(args), output=text, output_hash=text_hash(text), error=error, at_s=at_s)
