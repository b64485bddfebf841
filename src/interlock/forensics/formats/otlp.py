"""OpenTelemetry spans as JSON: OTLP (`resourceSpans`), a list of spans as SDKs print them, or bare attributes.

A trace is a run, unless its spans name a run or a conversation of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from interlock.forensics.formats.genai import is_genai, span_of
from interlock.forensics.formats.spans import Span, runs_of_spans
from interlock.forensics.json_records import json_records
from interlock.forensics.traces import Broken, RecordedRun

__all__ = ["detects", "plain_value", "read"]

_FAILED = frozenset({2, "2", "ERROR", "STATUS_CODE_ERROR"})


def detects(record: Any) -> bool:
    """Whether this record is OTLP, one span, or the attributes of one."""
    if not isinstance(record, dict):
        return False
    if isinstance(record.get("resourceSpans"), list):
        return True
    if isinstance(record.get("attributes"), dict | list) and ("spanContext" in record or "name" in record):
        return True
    return is_genai(record) and "messages" not in record


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
            yield from _of_record(record, position)
        except Exception as error:
            yield Broken(position, f"{type(error).__name__}: {error}")


def _of_record(record: Any, position: int) -> Iterator[Span]:
    if not isinstance(record, dict):
        raise TypeError("an object with spans is expected")
    if "resourceSpans" in record:
        for resource in record["resourceSpans"]:
            for scope in resource.get("scopeSpans") or resource.get("instrumentationLibrarySpans") or ():
                for span in scope.get("spans") or ():
                    yield _span(span, position)
    elif "attributes" in record:
        yield _span(record, position)
    elif is_genai(record):
        yield span_of(record, trace=f"record {position}")
    else:
        raise ValueError("neither `resourceSpans` nor a span with `attributes`")


def _span(span: Mapping[str, Any], position: int) -> Span:
    attributes = _attributes(span.get("attributes"))
    context = span.get("spanContext") or span.get("context") or {}
    trace = span.get("traceId") or context.get("traceId") or context.get("trace_id") or f"record {position}"
    run = attributes.get("interlock.run_id") or trace
    status = span.get("status") or {}
    code = status.get("code", status.get("status_code"))
    for event in span.get("events") or ():
        if event.get("name") == "exception":
            for name, value in _attributes(event.get("attributes")).items():
                attributes.setdefault(name, value)
    return span_of(
        attributes,
        trace=str(run),
        name=str(span.get("name") or ""),
        start_s=_seconds(_first(span, "startTimeUnixNano", "startTime", "start_time")),
        end_s=_seconds(_first(span, "endTimeUnixNano", "endTime", "end_time")),
        failed=code in _FAILED,
        error=str(status.get("message") or status.get("description") or ""),
    )


def _first(span: Mapping[str, Any], *names: str) -> Any:
    return next((span[name] for name in names if span.get(name) is not None), None)


def _attributes(found: Any) -> dict[str, Any]:
    if isinstance(found, dict):
        return dict(found)
    return {str(each["key"]): plain_value(each.get("value")) for each in found or ()}


def plain_value(value: Any) -> Any:
    """Return an attribute's value out of its OTLP wrapping (`{"stringValue": …}`)."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    kind, inner = next(iter(value.items()))
    match kind:
        case "intValue":
            return int(inner)
        case "arrayValue":
            return [plain_value(each) for each in inner.get("values") or ()]
        case "kvlistValue":
            return {each["key"]: plain_value(each.get("value")) for each in inner.get("values") or ()}
        case "stringValue" | "boolValue" | "doubleValue" | "bytesValue":
            return inner
    return value


def _seconds(value: Any) -> float | None:
    """Return Unix seconds out of nanoseconds, [seconds, nanoseconds] or an ISO time."""
    if isinstance(value, list) and len(value) == 2:
        return float(value[0]) + float(value[1]) / 1e9
    if isinstance(value, str) and not value.isdigit():
        return datetime.fromisoformat(value).timestamp()
    return None if value is None or not int(value) else int(value) / 1e9
