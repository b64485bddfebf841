"""Runs out of spans, whoever wrote them: model turns, tool uses, and what is said around them.

OpenTelemetry, Langfuse and LangSmith differ in names. A reader translates each span into a `Span`; here a
trace becomes a run: a tool span is a call, the model span that began before it is its turn. Where there are no
tool spans, the longest conversation that a model span holds is read instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from interlock.forensics.error_text import failure
from interlock.forensics.formats.openai_chat import ask, said_in, text_of, turns_of
from interlock.forensics.grouping import gathered
from interlock.forensics.json_records import decoded
from interlock.forensics.traces import Broken, RecordedCall, RecordedRun, RecordedTurn, args_hash, text_hash

__all__ = ["Span", "data_of", "runs_of_spans"]


@dataclass(slots=True)
class Span:
    """One span in neutral words.

    Attributes:
        trace: What groups spans into a run. kind: `model`, `tool`, `agent` or "".
        start_s, end_s: Unix seconds, or None.
        name: Of the tool, for a tool span. args, output: of the call; text or data, None where not recorded.
        failed: Whether the span says that it failed. error: what it says about it.
        messages: The conversation of a model span as chat messages (`role`, `content`, `tool_calls`).
        about: What is known of the run: `model`, `stop_reason`, `success`, `request_id`, `agent`.
    """

    trace: str
    kind: str = ""
    start_s: float | None = None
    end_s: float | None = None
    name: str = ""
    call_id: str = ""
    args: Any = None
    output: Any = None
    failed: bool = False
    error: str = ""
    status: str = ""
    args_hash: str = ""
    write: bool | None = None
    key: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    prompt_tokens: int | None = None
    cost_usd: float | None = None
    about: dict[str, Any] = field(default_factory=dict)


def runs_of_spans(
    items: Iterable[Span | Broken], dataset: str, *, run_id: Callable[[str], str] = str
) -> Iterator[RecordedRun | Broken]:
    """Yield the run of each trace; what is broken comes first, as it is found."""
    broken: list[Broken] = []
    for trace, spans in gathered(_parts(items, broken)):
        yield from broken
        broken.clear()
        try:
            yield _run(run_id(trace), [Span(**span) for span in spans], dataset)
        except Exception as error:
            yield Broken(1, f"trace {trace}: {type(error).__name__}: {error}")
    yield from broken


def data_of(value: Any) -> Any:
    """Return JSON data out of a text that holds some, the text itself where it does not."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        try:
            return decoded(value)
        except (ValueError, RecursionError):
            return value
    return value


def _parts(items: Iterable[Span | Broken], broken: list[Broken]) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in items:
        if isinstance(item, Broken):
            broken.append(item)
        else:
            yield item.trace, asdict(item)


def _run(run_id: str, spans: list[Span], dataset: str) -> RecordedRun:
    spans.sort(key=lambda span: span.start_s if span.start_s is not None else float("inf"))
    about: dict[str, Any] = {}
    for span in spans:
        for name, value in span.about.items():
            about.setdefault(name, value)
    models = [span for span in spans if span.kind == "model"]
    tools = [span for span in spans if span.kind == "tool"]
    messages = max((span.messages for span in models), key=len, default=[])
    turns = _turns_of_tools(models, tools, messages) if tools else _turns_of_messages(models, messages)
    starts = [span.start_s for span in spans if span.start_s is not None]
    ends = [span.end_s for span in spans if span.end_s is not None]
    costs = [span.cost_usd for span in models if span.cost_usd is not None]
    success = about.get("success")
    return RecordedRun(
        dataset=dataset,
        run_id=str(about.get("run_id") or run_id),
        model=str(about.get("model") or ""),
        domain="",
        task=str(about.get("task") or ""),
        success=success if isinstance(success, bool) else None,
        turns=tuple(turns),
        cost_usd=about.get("cost_usd", sum(costs) if costs else None),
        seconds=max(ends) - min(starts) if starts and ends else None,
        said=said_in(messages),
        stop_reason=str(about.get("stop_reason") or ""),
        request_id=str(about.get("request_id") or ""),
        ours=bool(about.get("ours")),
        error=str(about.get("error") or ""),
    )


def _turns_of_messages(models: list[Span], messages: list[dict[str, Any]]) -> list[RecordedTurn]:
    turns = turns_of(messages, unpack=lambda tool, args: (tool, args), judge=_judge)
    # A conversation may begin before its first span: the last turns are those of the spans.
    known: list[Span | None] = [None] * (len(turns) - len(models)) + list(models[max(0, len(models) - len(turns)) :])
    return [
        turn if model is None else RecordedTurn(turn.calls, model.cost_usd, None, model.prompt_tokens)
        for turn, model in zip(turns, known, strict=True)
    ]


def _judge(message: Mapping[str, Any], text: str) -> Any:
    return failure(text, flagged=bool(message.get("is_error")))


def _turns_of_tools(models: list[Span], tools: list[Span], messages: list[dict[str, Any]]) -> list[RecordedTurn]:
    asked = _asked(messages)
    began = min((s.start_s for s in (*models, *tools) if s.start_s is not None), default=None)
    calls: list[list[RecordedCall]] = [[] for _ in models] or [[]]
    place = 0
    batch_ends: float | None = None
    for number, tool in enumerate(tools):
        if models:
            while place + 1 < len(models) and _before(models[place + 1], tool):
                place += 1
        elif number and not (batch_ends is not None and tool.start_s is not None and tool.start_s < batch_ends):
            # Without model spans, calls that overlap were asked for together.
            calls.append([])
            place = len(calls) - 1
            batch_ends = None
        batch_ends = max(filter(None, (batch_ends, tool.end_s)), default=None)
        calls[place].append(_call(tool, asked, began))
    return [
        RecordedTurn(
            tuple(turn),
            models[i].cost_usd if i < len(models) else None,
            _since(began, models[i].start_s) if i < len(models) else None,
            models[i].prompt_tokens if i < len(models) else None,
        )
        for i, turn in enumerate(calls)
    ]


def _before(model: Span, tool: Span) -> bool:
    return model.start_s is not None and tool.start_s is not None and model.start_s <= tool.start_s


def _since(began: float | None, then: float | None) -> float | None:
    return None if began is None or then is None else then - began


def _asked(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the arguments that models asked with, by the id of the call."""
    found = {}
    for message in messages:
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            found[str(call.get("id"))] = ask(function.get("name"), function.get("arguments"), call.get("id")).args
    return found


def _call(tool: Span, asked: Mapping[str, Any], began: float | None) -> RecordedCall:
    args = asked.get(tool.call_id) if tool.args is None else ask(tool.name, tool.args, None).args
    output = tool.output
    text = None if output is None else text_of(output)
    if text is None and tool.failed:
        text = tool.error
    unhashed = args is None
    took = None if tool.start_s is None or tool.end_s is None else tool.end_s - tool.start_s
    return RecordedCall(
        tool.name,
        args,
        tool.args_hash if unhashed else args_hash(args),
        output=text,
        output_hash=None if text is None else text_hash(text),
        error=failure(text or tool.error, flagged=tool.failed),
        write=tool.write,
        at_s=_since(began, tool.start_s),
        duration_s=took,
        status=tool.status,
        key=tool.key,
    )
