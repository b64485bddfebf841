"""OpenAI chat-completion message lists: `role`, `tool_calls[].function.{name, arguments}`, `tool_call_id`.

A record is a list of messages, or an object with the list under `messages` or `traj`, or such an object under
`rec` beside its `src`. Labels are read from `success`, or from tau-bench's `reward`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interlock.forensics.error_text import failure
from interlock.forensics.json_records import decoded, each_run
from interlock.forensics.traces import (
    Broken,
    BrokenRecord,
    ErrorKind,
    RecordedCall,
    RecordedRun,
    RecordedTurn,
    args_hash,
    text_hash,
)

__all__ = ["Asked", "ask", "detects", "label_of", "messages_of", "read", "said_in", "text_of", "turns_of", "unwrap"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as the model asked for it; `args` is the text itself where it is not JSON."""

    tool: str
    args: Any
    call_id: str | None


Unpack = Callable[[str, Any], tuple[str, Any]]
Judge = Callable[[Mapping[str, Any], str], ErrorKind | None]


def detects(record: Any) -> bool:
    """Whether this record holds a list of chat messages, in no format that names itself."""
    _, body = unwrap(record)
    if isinstance(body, dict) and "trajectory_format" in body:
        return False  # calls stand in the text of its messages: another reader's business
    messages = _list_in(body)
    return isinstance(messages, list) and any(isinstance(m, dict) and "role" in m for m in messages[:3])


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the runs, and what is broken, of a file in this format."""
    return each_run(lines, lambda record: _run(record, dataset))


def unwrap(record: Any) -> tuple[Mapping[str, Any], Any]:
    """Return where a record comes from (`src`), and the record itself."""
    if isinstance(record, dict):
        return record.get("src") or {}, record.get("rec", record)
    if isinstance(record, list):
        return {}, record
    raise BrokenRecord(f"a record is an object or a list of messages, not {type(record).__name__}")


def messages_of(body: Any) -> list[Mapping[str, Any]]:
    """Return the messages of a record.

    Raises:
        BrokenRecord: There is no list of messages with roles.
    """
    messages = _list_in(body)
    if not isinstance(messages, list) or not all(isinstance(m, dict) and "role" in m for m in messages):
        raise BrokenRecord("no list of messages with roles under `messages` or `traj`")
    return messages


def _list_in(body: Any) -> Any:
    return body.get("messages", body.get("traj")) if isinstance(body, dict) else body


def turns_of(messages: Sequence[Mapping[str, Any]], *, unpack: Unpack, judge: Judge) -> list[RecordedTurn]:
    """Return the model turns of a message list; each assistant message is one.

    Args:
        messages: In order.
        unpack: Given tool name and arguments as asked for, returns those of the tool that is really used.
        judge: Given a tool message and its text, returns what went wrong, or None.
    """
    turns: list[list[int]] = []
    prompts: list[int | None] = []
    asked: list[Asked] = []
    answers: dict[int, Mapping[str, Any]] = {}
    for message in messages:
        if message["role"] == "assistant":
            turns.append([])
            prompts.append(_prompt_tokens(message.get("usage")))
            for call in _asked_by(message):
                turns[-1].append(len(asked))
                asked.append(Asked(*unpack(call.tool, call.args), call.call_id))
        elif message["role"] in {"tool", "function"}:
            place = _place(asked, answers, message.get("tool_call_id"))
            if place is not None:
                answers[place] = message
    return [
        RecordedTurn(tuple(_call(asked[i], answers.get(i), judge) for i in turn), prompt_tokens=prompt)
        for turn, prompt in zip(turns, prompts, strict=True)
    ]


def said_in(messages: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return what people and the application told the model: every message that is neither its own nor a tool's."""
    return tuple(text_of(m.get("content")) for m in messages if m.get("role") in {"user", "system", "developer"})


def ask(name: Any, arguments: Any, call_id: Any) -> Asked:
    """Return a call as asked for; arguments may be JSON text, data, or nothing."""
    if not isinstance(name, str):
        raise BrokenRecord("a tool call without a name")
    if isinstance(arguments, str):
        # Models do write arguments that are not JSON: then the text stands for itself.
        with contextlib.suppress(ValueError, RecursionError):
            arguments = decoded(arguments) if arguments.strip() else {}
    return Asked(name, {} if arguments is None else arguments, call_id if isinstance(call_id, str) else None)


def text_of(content: Any) -> str:
    """Return the text of a message's content: text, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_text_of_part(part) for part in content)
    return "" if content is None else json.dumps(content, ensure_ascii=False)


def _text_of_part(part: Any) -> str:
    if isinstance(part, dict) and part.get("type", "text") == "text":
        part = part.get("text", part.get("content")) or ""
    return part if isinstance(part, str) else json.dumps(part, ensure_ascii=False)


def _prompt_tokens(usage: Any) -> int | None:
    found = usage.get("prompt_tokens", usage.get("input_tokens")) if isinstance(usage, dict) else None
    return found if isinstance(found, int) else None


def _asked_by(message: Mapping[str, Any]) -> Iterator[Asked]:
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise BrokenRecord("a tool call without `function`")
        yield ask(function.get("name"), function.get("arguments"), call.get("id"))
    legacy = message.get("function_call")
    if isinstance(legacy, dict):
        yield ask(legacy.get("name"), legacy.get("arguments"), None)


def _place(asked: list[Asked], answers: Mapping[int, Any], call_id: Any) -> int | None:
    """Return the call that an answer belongs to: by id, else the first that has none."""
    open_places = (i for i in range(len(asked)) if i not in answers)
    if isinstance(call_id, str):
        return next((i for i in open_places if asked[i].call_id == call_id), None)
    return next(open_places, None)


def _call(asked: Asked, answer: Mapping[str, Any] | None, judge: Judge) -> RecordedCall:
    if answer is None:
        return RecordedCall(asked.tool, asked.args, args_hash(asked.args))
    text = text_of(answer.get("content"))
    return RecordedCall(
        asked.tool,
        asked.args,
        args_hash(asked.args),
        output=text,
        output_hash=text_hash(text),
        error=judge(answer, text),
    )


def _run(record: Any, dataset: str) -> RecordedRun:
    source, body = unwrap(record)
    about: Mapping[str, Any] = body if isinstance(body, dict) else {}
    messages = messages_of(body)
    turns = turns_of(messages, unpack=lambda tool, args: (tool, args), judge=_judge)
    task = about.get("task_id")
    run_id = about.get("run_id") or about.get("id") or (None if task is None else _named_by_task(about))
    return RecordedRun(
        dataset=dataset,
        run_id=str(run_id or source.get("path") or ""),
        model=str(about.get("model") or source.get("model") or ""),
        domain=str(about.get("domain") or ""),
        task="" if task is None else str(task),
        success=label_of(about),
        turns=tuple(turns),
        said=said_in(messages),
        stop_reason=str(about.get("stop_reason") or ""),
        request_id=str(about.get("request_id") or ""),
    )


def _judge(message: Mapping[str, Any], text: str) -> ErrorKind | None:
    return failure(text, flagged=bool(message.get("is_error")))


def _named_by_task(about: Mapping[str, Any]) -> str:
    """Return the id of a tau-bench run: its task, and its trial where the set has several of a task."""
    task, trial = about.get("task_id"), about.get("trial")
    # Composite rewards, and records of an annotated run, come from sets of one trial a task.
    one_trial = trial is None or _is_composite(about) or "records" in about
    return f"t{task}" if one_trial else f"t{task}-{trial}"


def _is_composite(about: Mapping[str, Any]) -> bool:
    return "components" in ((about.get("info") or {}).get("reward_info") or {})


def label_of(about: Mapping[str, Any]) -> bool | None:
    """Return the label of a record: `success`, or tau-bench's `reward`."""
    if isinstance(about.get("success"), bool):
        return bool(about["success"])
    reward_info = (about.get("info") or {}).get("reward_info") or {}
    base = (reward_info.get("components") or {}).get("base_success")
    reward = about.get("reward")
    if base is not None:
        return bool(base)
    return reward == 1 if isinstance(reward, int | float) else None
