"""Logs of MCP traffic: JSON-RPC messages (`tools/call` and their results), bare or inside a log entry.

A session is a run; without a session's name the file is one. There are no model turns in such a log: each call
is a turn of its own. `readOnlyHint` of `tools/list` is taken at its word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from interlock.forensics.error_text import error_kind, failure
from interlock.forensics.formats.openai_chat import text_of
from interlock.forensics.grouping import gathered
from interlock.forensics.json_records import json_records
from interlock.forensics.traces import Broken, RecordedCall, RecordedRun, RecordedTurn, args_hash, text_hash

__all__ = ["detects", "read"]

_WRAPPINGS = ("message", "msg", "payload", "data", "jsonrpc_message", "body")
_SESSIONS = ("session_id", "sessionId", "session", "mcp_session_id", "Mcp-Session-Id")
_TIMES = ("timestamp", "time", "ts")


def detects(record: Any) -> bool:
    """Whether this record is, or wraps, a JSON-RPC message."""
    return isinstance(record, dict) and _message(record) is not None


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the run of each session, and what is broken."""
    broken: list[Broken] = []
    for session, entries in gathered(_parts(lines, broken)):
        yield from broken
        broken.clear()
        try:
            yield _run(session, entries, dataset)
        except Exception as error:
            yield Broken(1, f"session {session}: {type(error).__name__}: {error}")
    yield from broken


def _message(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if record.get("jsonrpc") == "2.0":
        return record
    wrapped = (record[name] for name in _WRAPPINGS if isinstance(record.get(name), dict))
    return next((inner for inner in wrapped if inner.get("jsonrpc") == "2.0"), None)


def _parts(lines: Iterable[bytes], broken: list[Broken]) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in json_records(lines):
        if isinstance(item, Broken):
            broken.append(item)
            continue
        position, record = item
        message = _message(record) if isinstance(record, dict) else None
        if message is None:
            broken.append(Broken(position, "no JSON-RPC message"))
            continue
        session = next((str(record[name]) for name in _SESSIONS if record.get(name)), "")
        yield session, {"message": message, "at": next((record[n] for n in _TIMES if record.get(n)), None)}


def _run(session: str, entries: list[dict[str, Any]], dataset: str) -> RecordedRun:
    asked: dict[str, tuple[int, Mapping[str, Any], float | None]] = {}
    calls: list[tuple[Mapping[str, Any], float | None]] = []
    answers: dict[int, tuple[Mapping[str, Any], float | None]] = {}
    listed: dict[str, bool] = {}
    lists: set[str] = set()
    for entry in entries:
        message, at = entry["message"], _time(entry["at"])
        name = str(message.get("id"))
        if message.get("method") == "tools/call":
            params = message.get("params") or {}
            asked[name] = (len(calls), params, at)
            calls.append((params, at))
        elif message.get("method") == "tools/list":
            lists.add(name)
        elif "method" not in message and name in lists:
            lists.discard(name)
            for tool in (message.get("result") or {}).get("tools") or ():
                hints = tool.get("annotations") or {}
                if isinstance(hints.get("readOnlyHint"), bool):
                    listed[str(tool.get("name"))] = not hints["readOnlyHint"]
        elif "method" not in message and name in asked:
            answers[asked.pop(name)[0]] = (message, at)
    began = next((at for _, at in calls if at is not None), None)
    turns = [
        RecordedTurn((_call(params, at, answers.get(number), began, listed),))
        for number, (params, at) in enumerate(calls)
    ]
    ends = [at for _, at in answers.values() if at is not None]
    seconds = max(ends) - began if ends and began is not None else None
    return RecordedRun(dataset, session or dataset, "", "", "", None, tuple(turns), None, seconds)


def _call(
    params: Mapping[str, Any],
    at: float | None,
    answered: tuple[Mapping[str, Any], float | None] | None,
    began: float | None,
    listed: Mapping[str, bool],
) -> RecordedCall:
    args = params.get("arguments") or {}
    tool = str(params.get("name") or "")
    since = None if at is None or began is None else at - began
    if answered is None:
        return RecordedCall(tool, args, args_hash(args), write=listed.get(tool), at_s=since)
    message, until = answered
    failed = message.get("error")
    result = message.get("result") or {}
    text = str(failed.get("message") or failed) if isinstance(failed, dict) else _text(result)
    flagged = failed is not None or bool(result.get("isError"))
    kind = "bad_arguments" if isinstance(failed, dict) and failed.get("code") == -32602 else None
    return RecordedCall(
        tool,
        args,
        args_hash(args),
        output=text,
        output_hash=text_hash(text),
        error=(kind or error_kind(text)) if flagged else failure(text),  # type: ignore[arg-type]
        write=listed.get(tool),
        at_s=since,
        duration_s=None if until is None or at is None else until - at,
    )


def _text(result: Mapping[str, Any]) -> str:
    content = result.get("content")
    return text_of(content) if content else text_of(result.get("structuredContent"))


def _time(value: Any) -> float | None:
    if isinstance(value, int | float):
        return value / 1e3 if value > 1e11 else float(value)
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except ValueError:
        return None
