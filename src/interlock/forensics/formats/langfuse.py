"""Langfuse exports: traces with their `observations`, or observations one by one with a `traceId`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from interlock.forensics.formats.genai import span_of
from interlock.forensics.formats.spans import Span, data_of, runs_of_spans
from interlock.forensics.json_records import json_records
from interlock.forensics.traces import Broken, RecordedRun

__all__ = ["detects", "read"]

_KINDS = {"GENERATION": "LLM", "TOOL": "TOOL", "AGENT": "AGENT", "CHAIN": "CHAIN"}


def detects(record: Any) -> bool:
    """Whether this record is a trace or an observation of Langfuse."""
    if not isinstance(record, dict):
        return False
    if isinstance(record.get("observations"), list):
        return True
    return ("traceId" in record or "trace_id" in record) and record.get("type") in {*_KINDS, "SPAN", "EVENT"}


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
                raise ValueError("neither a trace with `observations` nor an observation with a `traceId`")
            yield from _of_record(record)
        except Exception as error:
            yield Broken(position, f"{type(error).__name__}: {error}")


def _of_record(record: Mapping[str, Any]) -> Iterator[Span]:
    observations = record.get("observations")
    if observations is None:
        yield _span(record, str(record.get("traceId") or record.get("trace_id")))
        return
    trace = str(record.get("id") or "")
    root = Span(trace, "agent", _time(record.get("timestamp")))
    if record.get("totalCost") is not None:
        root.about["cost_usd"] = float(record["totalCost"])
    for score in record.get("scores") or ():
        if isinstance(score, dict) and str(score.get("name")).lower() in {"success", "correctness", "reward"}:
            root.about["success"] = float(score.get("value") or 0) >= 1
    yield root
    for observation in observations:
        yield _span(observation, trace)


def _span(observation: Mapping[str, Any], trace: str) -> Span:
    get = observation.get
    kind = _KINDS.get(str(get("type")), "")
    if not kind and str(get("name") or "").startswith("execute_tool"):
        kind = "TOOL"
    attributes: dict[str, Any] = {"openinference.span.kind": kind}
    if kind == "TOOL":
        attributes |= {"tool.name": str(get("name") or "").removeprefix("execute_tool ")}
        attributes |= {"input.value": get("input"), "output.value": get("output")}
    elif kind == "LLM":
        attributes |= {"gen_ai.input.messages": get("input"), "gen_ai.output.messages": _answered(get("output"))}
        attributes["llm.model_name"] = get("model")
        attributes["llm.token_count.prompt"] = _prompt_tokens(observation)
        attributes["llm.cost.total"] = _first(observation, "calculatedTotalCost", "totalCost")
    metadata = data_of(get("metadata"))
    if isinstance(metadata, dict):
        attributes |= {
            name: value for name, value in metadata.items() if str(name).startswith(("gen_ai.", "interlock."))
        }
        if isinstance(metadata.get("tool_call_id"), str):
            attributes["gen_ai.tool.call.id"] = metadata["tool_call_id"]
    return span_of(
        attributes,
        trace=trace,
        name=str(get("name") or ""),
        start_s=_time(_first(observation, "startTime", "start_time")),
        end_s=_time(_first(observation, "endTime", "end_time")),
        failed=get("level") == "ERROR",
        error=str(_first(observation, "statusMessage", "status_message") or ""),
    )


def _answered(output: Any) -> Any:
    data = data_of(output)
    if isinstance(data, str):
        return [{"role": "assistant", "content": data}]
    return [{**data, "role": data.get("role") or "assistant"}] if isinstance(data, dict) else data


def _prompt_tokens(observation: Mapping[str, Any]) -> Any:
    for name in ("usageDetails", "usage"):
        usage = observation.get(name)
        if isinstance(usage, dict) and (found := _first(usage, "input", "promptTokens", "input_tokens")) is not None:
            return found
    return observation.get("promptTokens")


def _first(found: Mapping[str, Any], *names: str) -> Any:
    return next((found[name] for name in names if found.get(name) is not None), None)


def _time(value: Any) -> float | None:
    if not isinstance(value, str):
        return float(value) if isinstance(value, int | float) else None
    return datetime.fromisoformat(value).timestamp()
