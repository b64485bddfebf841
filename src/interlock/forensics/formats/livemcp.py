"""LiveMCPBench: chat messages in which the real tool stands inside the arguments of `execute-tool`.

Outputs are printed MCP results: `isError` may stand outside, inside the text, or the text says that it failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from interlock.forensics.error_text import error_kind
from interlock.forensics.formats.openai_chat import messages_of, said_in, turns_of, unwrap
from interlock.forensics.json_records import each_run
from interlock.forensics.traces import Broken, ErrorKind, RecordedRun

__all__ = ["detects", "read"]

# The three judge models that agreed best with people.
_JUDGES = ("deepseek_deepseek-chat-v3-0324", "openai_gpt-4.1-mini", "qwen25_72b_int4_instruct")
_FAILED = ('"isError": true', "isError=True", "Error executing tool", "Tool call timed out", "text='success: false")


def detects(record: Any) -> bool:
    """Whether this record has the question and answer of LiveMCPBench beside its messages."""
    _, body = unwrap(record)
    return isinstance(body, dict) and {"question", "response", "messages"} <= body.keys()


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the runs, and what is broken, of a file in this format."""
    return each_run(lines, lambda record: _run(record, dataset))


def _run(record: Any, dataset: str) -> RecordedRun:
    source, body = unwrap(record)
    path = str(source.get("path") or "")
    messages = messages_of(body)
    return RecordedRun(
        dataset=dataset,
        run_id=path or str(body.get("task_id", "")),
        model=path.rpartition("#")[0].rpartition("/")[2],
        domain=str(body.get("category") or ""),
        task=str(body.get("task_id", "")),
        success=_label(source.get("judges")),
        turns=tuple(turns_of(messages, unpack=_unpack, judge=_judge)),
        said=said_in(messages),
    )


def _unpack(tool: str, args: Any) -> tuple[str, Any]:
    if tool != "execute-tool" or not isinstance(args, dict):
        return tool, args
    return f"{args.get('server_name')}.{args.get('tool_name')}", args.get("params")


def _judge(message: Mapping[str, Any], text: str) -> ErrorKind | None:
    del message
    return error_kind(text) if any(sign in text for sign in _FAILED) else None


def _label(judges: Any) -> bool | None:
    if not isinstance(judges, dict) or not all(judge in judges for judge in _JUDGES):
        return None
    return sum(bool(judges[judge]) for judge in _JUDGES) >= 2
