"""The attributes of a GenAI span, in four dialects, as a neutral `Span`.

OpenTelemetry GenAI of today (`gen_ai.input.messages`, `gen_ai.tool.call.arguments`), its deprecated names
(`gen_ai.prompt`, `gen_ai.completion`, also one attribute a message as OpenLLMetry writes them), OpenInference
(`openinference.span.kind`, `llm.input_messages.0.message.role`), and the Vercel AI SDK (`ai.toolCall.name`).
Interlock's own attributes (`interlock.*`) say more where they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interlock.forensics.formats.openai_chat import text_of
from interlock.forensics.formats.spans import Span, data_of

__all__ = ["is_genai", "span_of"]

_MODEL_OPERATIONS = frozenset({"chat", "generate_content", "text_completion"})
_AGENT_OPERATIONS = frozenset({"invoke_agent", "invoke_workflow", "create_agent"})
_PREFIXES = ("gen_ai.", "openinference.", "llm.", "ai.toolCall.", "ai.operationId", "traceloop.", "mcp.", "interlock.")

Attributes = Mapping[str, Any]


def is_genai(attributes: Attributes) -> bool:
    """Whether these attributes are of a dialect that is known here."""
    return any(name.startswith(_PREFIXES) for name in attributes)


def span_of(
    attributes: Attributes,
    *,
    trace: str,
    name: str = "",
    start_s: float | None = None,
    end_s: float | None = None,
    failed: bool = False,
    error: str = "",
) -> Span:
    """Return a span in neutral words."""
    get = attributes.get
    span = Span(trace, _kind(attributes, name), start_s, end_s)
    span.failed = failed or bool(get("error.type"))
    span.error = error or str(get("exception.message") or get("error.message") or get("error.type") or "")
    if span.kind == "tool":
        _read_tool(span, attributes, name)
    elif span.kind == "model":
        _read_model(span, attributes)
    _read_about(span, attributes)
    return span


def _kind(attributes: Attributes, name: str) -> str:
    get = attributes.get
    operation = get("gen_ai.operation.name") or ""
    said = str(get("openinference.span.kind") or get("traceloop.span.kind") or "").lower()
    vercel = str(get("ai.operationId") or "")
    if (
        operation == "execute_tool"
        or said == "tool"
        or vercel == "ai.toolCall"
        or get("mcp.method.name") == "tools/call"
    ):
        return "tool"
    if operation in _MODEL_OPERATIONS or said == "llm" or vercel.endswith((".doGenerate", ".doStream")):
        return "model"
    if (
        operation in _AGENT_OPERATIONS
        or said in {"agent", "workflow", "chain"}
        or "interlock.stop_reason" in attributes
    ):
        return "agent"
    # The deprecated conventions name a model span by what was asked and answered.
    asked = (
        "gen_ai.prompt" in attributes or "gen_ai.prompt.0.role" in attributes or "gen_ai.input.messages" in attributes
    )
    if (asked or "llm.input_messages.0.message.role" in attributes) and not vercel:
        return "model"
    return "tool" if get("gen_ai.tool.name") and name.startswith("execute_tool") else ""


def _first(attributes: Attributes, *names: str) -> Any:
    return next((attributes[name] for name in names if attributes.get(name) is not None), None)


def _read_tool(span: Span, attributes: Attributes, name: str) -> None:
    named = _first(
        attributes, "gen_ai.tool.name", "tool.name", "ai.toolCall.name", "traceloop.entity.name", "mcp.tool.name"
    )
    span.name = str(named or name.removeprefix("execute_tool ").removeprefix("tools/call ").removesuffix(".tool"))
    call_id = _first(attributes, "gen_ai.tool.call.id", "tool_call.id", "ai.toolCall.id")
    span.call_id = "" if call_id is None else str(call_id)
    arguments = _first(
        attributes,
        "gen_ai.tool.call.arguments",
        "tool.parameters",
        "ai.toolCall.args",
        "input.value",
        "traceloop.entity.input",
        "input",
    )
    span.args = data_of(arguments)
    if (
        isinstance(span.args, dict)
        and set(span.args) <= {"inputs", "tags", "metadata", "kwargs"}
        and "inputs" in span.args
    ):
        span.args = data_of(span.args["inputs"])
    output = _first(
        attributes, "gen_ai.tool.call.result", "ai.toolCall.result", "output.value", "traceloop.entity.output", "output"
    )
    span.output = _answer(output)
    span.status = str(attributes.get("interlock.status") or "")
    span.args_hash = str(attributes.get("interlock.args_hash") or "")
    span.key = str(_first(attributes, "interlock.key", "interlock.effect_key") or "")
    effect = attributes.get("interlock.effect")
    span.write = effect == "write" if isinstance(effect, str) else None


def _answer(output: Any) -> Any:
    """Return an answer as text where it is one; a text that is quoted as JSON loses its quotes."""
    if isinstance(output, str) and len(output) > 1 and output[0] == output[-1] == '"':
        inner = data_of(f"[{output}]")
        return inner[0] if isinstance(inner, list) and inner and isinstance(inner[0], str) else output
    return output


def _read_model(span: Span, attributes: Attributes) -> None:
    asked = _messages(attributes, "gen_ai.input.messages", "gen_ai.prompt", "llm.input_messages", "ai.prompt.messages")
    asked = asked or _wrapped(attributes.get("input.value")) or _wrapped(attributes.get("input"))
    system = data_of(attributes.get("gen_ai.system_instructions"))
    if system:
        asked.insert(0, {"role": "system", "content": text_of([_part_text(part) for part in _list(system)])})
    answered = _messages(attributes, "gen_ai.output.messages", "gen_ai.completion", "llm.output_messages")
    span.messages = asked + (answered or _vercel_answer(attributes) or _completion(attributes))
    tokens = _first(
        attributes,
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "ai.usage.promptTokens",
    )
    span.prompt_tokens = int(tokens) if isinstance(tokens, int | float) else None
    cost = _first(attributes, "gen_ai.usage.cost.amount", "gen_ai.usage.cost", "llm.cost.total", "interlock.cost_usd")
    span.cost_usd = float(cost) if isinstance(cost, int | float) else None


def _read_about(span: Span, attributes: Attributes) -> None:
    model = _first(attributes, "gen_ai.response.model", "gen_ai.request.model", "llm.model_name", "ai.model.id")
    if model:
        span.about["model"] = str(model)
    stop = _first(attributes, "interlock.stop_reason", "gen_ai.agent.finish_reason")
    if stop:
        span.about["stop_reason"] = str(stop)
    for name in ("run_id", "request_id"):
        if attributes.get(f"interlock.{name}"):
            span.about[name] = str(attributes[f"interlock.{name}"])
    if attributes.get("interlock.stop_reason"):
        span.about["ours"] = True
    if span.kind == "agent" and span.failed:
        span.about["error"] = span.error


def _messages(attributes: Attributes, *names: str) -> list[dict[str, Any]]:
    for name in names:
        found = _wrapped(attributes.get(name)) or _indexed(attributes, name)
        if found:
            return found
    return []


def _wrapped(value: Any) -> list[dict[str, Any]]:
    """Return chat messages out of JSON: a list of them, or an object that holds such a list."""
    data = data_of(value)
    if isinstance(data, dict):
        data = data.get("messages", data.get("choices", [data] if "role" in data or "parts" in data else []))
    made: list[dict[str, Any]] = []
    for message in _list(data):
        if isinstance(message, dict):
            inner = message.get("message", message)
            made += _chat(inner if isinstance(inner, dict) else message)
    return made


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _chat(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a message in the shape of chat completions; one of parts may become several."""
    parts = message.get("parts", message.get("content"))
    role = str(message.get("role") or "assistant")
    if not isinstance(parts, list):
        return [{**message, "role": role}] if message else []
    text: list[str] = []
    calls: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in {"tool_call", "tool-call", "tool_use"}:
            arguments = _first(part, "arguments", "input", "args")
            name = _first(part, "name", "toolName")
            calls.append({"id": _first(part, "id", "toolCallId"), "function": {"name": name, "arguments": arguments}})
        elif kind in {"tool_call_response", "tool-result", "tool_result"}:
            answer = _first(part, "response", "result", "output", "content")
            if isinstance(answer, dict) and set(answer) == {"type", "value"}:
                answer = answer["value"]
            answers.append(
                {"role": "tool", "tool_call_id": _first(part, "id", "toolCallId", "tool_use_id"), "content": answer}
            )
        else:
            text.append(_part_text(part))
    made = list(answers)
    calls += [call for call in message.get("tool_calls") or () if isinstance(call, dict)]
    if text or calls or not answers:
        made.append({"role": role, "content": "".join(text), **({"tool_calls": calls} if calls else {})})
    if role == "tool" and not answers:
        made[-1]["tool_call_id"] = message.get("tool_call_id")
    return made


def _part_text(part: Any) -> str:
    if isinstance(part, dict):
        return str(_first(part, "text", "content", "value") or "")
    return part if isinstance(part, str) else ""


def _indexed(attributes: Attributes, name: str) -> list[dict[str, Any]]:
    """Return messages that are written one attribute a field: `NAME.0.role`, or `NAME.0.message.role`."""
    tree: dict[str, Any] = {}
    for key, value in attributes.items():
        if key.startswith(f"{name}."):
            node = tree
            *path, last = key[len(name) + 1 :].split(".")
            for step in path:
                found = node.setdefault(step, {})
                if not isinstance(found, dict):
                    break
                node = found
            else:
                node[last] = value
    messages = []
    for _, entry in sorted(tree.items(), key=lambda item: (len(item[0]), item[0])):
        message = entry.get("message", entry) if isinstance(entry, dict) else {}
        messages.append(_unindexed(message))
    return [message for message in messages if message.get("role")]


def _unindexed(message: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.get("role"), "content": message.get("content")}
    contents = message.get("contents")
    if isinstance(contents, dict):
        texts = (entry.get("message_content", {}).get("text") or "" for _, entry in sorted(contents.items()))
        made["content"] = "".join(texts)
    if message.get("tool_call_id") is not None:
        made["tool_call_id"] = message["tool_call_id"]
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        made["tool_calls"] = []
        for _, entry in sorted(calls.items(), key=lambda item: (len(item[0]), item[0])):
            call = entry.get("tool_call", entry)
            function = call.get("function", call)
            made["tool_calls"].append(
                {
                    "id": call.get("id"),
                    "function": {"name": function.get("name"), "arguments": function.get("arguments")},
                }
            )
    return made


def _completion(attributes: Attributes) -> list[dict[str, Any]]:
    """Return the answer of a span that holds no more of it than its text."""
    data = data_of(_first(attributes, "gen_ai.completion", "output.value", "output"))
    text = _first(data, "text", "content", "output") if isinstance(data, dict) else data
    return [{"role": "assistant", "content": text}] if isinstance(text, str) else []


def _vercel_answer(attributes: Attributes) -> list[dict[str, Any]]:
    calls = [
        {
            "id": call.get("toolCallId"),
            "function": {"name": call.get("toolName"), "arguments": _first(call, "args", "input")},
        }
        for call in _list(data_of(attributes.get("ai.response.toolCalls")))
        if isinstance(call, dict)
    ]
    text = attributes.get("ai.response.text")
    if not calls and text is None:
        return []
    return [{"role": "assistant", "content": text or "", **({"tool_calls": calls} if calls else {})}]
