"""LangSmith exports: runs (`run_type` llm, tool, chain) with a `trace_id`, flat or nested in `child_runs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from interlock.forensics.formats.genai import span_of
from interlock.forensics.formats.spans import Span, data_of, runs_of_spans
from interlock.forensics.json_records import json_records
from interlock.forensics.traces import Broken, RecordedRun

__all__ = ["detects", "read"]

_KINDS = {"llm": "LLM", "tool": "TOOL", "chain": "CHAIN", "agent": "AGENT"}
_ROLES = {"human": "user", "ai": "assistant", "AIMessage": "assistant", "HumanMessage": "user", "ToolMessage": "tool"}
_ROLES |= {"SystemMessage": "system", "system": "system", "tool": "tool", "user": "user", "assistant": "assistant"}
_ROLES |= {"AIMessageChunk": "assistant"}


def detects(record: Any) -> bool:
    """Whether this record is a run of LangSmith."""
    return isinstance(record, dict) and "run_type" in record and ("inputs" in record or "outputs" in record)


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the run of each trace, and what is broken."""
    return runs_of_spans(_spans(lines), dataset)


def _spans(lines: Iterable[bytes]) -> Iterator[Span | Broken]:
    for item in json_records(lines):
        if isinstance(item, Broken):
            yield item
            continue
        position, record = item
        try:
            if not detects(record):
                raise ValueError("no run with `run_type`")
            yield from _of_run(record, str(record.get("trace_id") or record.get("id")))
        except Exception as error:
            yield Broken(position, f"{type(error).__name__}: {error}")


def _of_run(run: Mapping[str, Any], trace: str) -> Iterator[Span]:
    yield _span(run, trace)
    for child in run.get("child_runs") or ():
        yield from _of_run(child, trace)


def _span(run: Mapping[str, Any], trace: str) -> Span:
    get = run.get
    kind = _KINDS.get(str(get("run_type")), "")
    inputs, outputs = data_of(get("inputs")) or {}, data_of(get("outputs")) or {}
    attributes: dict[str, Any] = {"openinference.span.kind": kind}
    if kind == "TOOL":
        answer = outputs.get("output", outputs.get("result")) if isinstance(outputs, dict) else outputs
        if isinstance(answer, dict) and "content" in answer:
            attributes["gen_ai.tool.call.id"] = answer.get("tool_call_id")
            answer = answer["content"]
        attributes |= {"tool.name": get("name"), "input.value": _tool_input(inputs), "output.value": answer}
    elif kind == "LLM":
        attributes["gen_ai.input.messages"] = _messages(inputs.get("messages"))
        attributes["gen_ai.output.messages"] = _messages(_generated(outputs))
        extra = (get("extra") or {}).get("metadata") or {}
        attributes["llm.model_name"] = extra.get("ls_model_name")
        attributes["llm.token_count.prompt"] = get("prompt_tokens")
        attributes["llm.cost.total"] = get("total_cost")
    return span_of(
        attributes,
        trace=trace,
        name=str(get("name") or ""),
        start_s=_time(get("start_time")),
        end_s=_time(get("end_time")),
        failed=bool(get("error")),
        error=str(get("error") or ""),
    )


def _tool_input(inputs: Any) -> Any:
    if isinstance(inputs, dict) and set(inputs) == {"input"}:
        return _python_or_json(inputs["input"])
    return inputs


def _python_or_json(text: Any) -> Any:
    # LangChain writes the arguments as Python prints them.
    import ast  # noqa: PLC0415 - only for this form

    found = data_of(text)
    if isinstance(found, str) and found.lstrip()[:1] == "{":
        try:
            return ast.literal_eval(found)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return found
    return found


def _generated(outputs: Any) -> Any:
    if not isinstance(outputs, dict):
        return outputs
    generations = outputs.get("generations")
    while isinstance(generations, list) and generations:
        generations = generations[0]
    if isinstance(generations, dict):
        return [generations.get("message", generations)]
    return outputs.get("messages") or outputs.get("choices") or [outputs]


def _messages(found: Any) -> list[dict[str, Any]]:
    if isinstance(found, list) and found and isinstance(found[0], list):
        found = found[0]
    return [message for each in found or () if (message := _message(each))]


def _message(each: Any) -> dict[str, Any]:
    if not isinstance(each, dict):
        return {}
    if "message" in each and "role" not in each:
        each = each["message"]
    inner = each.get("kwargs") or each.get("data") or each
    name = each["id"][-1] if isinstance(each.get("id"), list) and each["id"] else inner.get("role") or inner.get("type")
    made: dict[str, Any] = {"role": _ROLES.get(str(name), str(name or "assistant")), "content": inner.get("content")}
    calls = inner.get("tool_calls") or (inner.get("additional_kwargs") or {}).get("tool_calls") or ()
    if calls:
        made["tool_calls"] = [
            call
            if "function" in call
            else {"id": call.get("id"), "function": {"name": call.get("name"), "arguments": call.get("args")}}
            for call in calls
        ]
    if inner.get("tool_call_id"):
        made["tool_call_id"] = inner["tool_call_id"]
        made["is_error"] = inner.get("status") == "error"
    return made


def _time(value: Any) -> float | None:
    if not isinstance(value, str):
        return float(value) if isinstance(value, int | float) else None
    then = datetime.fromisoformat(value)
    return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()
