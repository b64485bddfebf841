"""One run of an agent, exported the way eight systems write it down. Scene of the tests of readers."""

from __future__ import annotations

import json

TRACE = "0af7651916cd43dd8448eb211c80319c"
BEGAN = 1_760_000_000


class Step:
    """One model turn: its calls as (tool, args, output, failed), and its prompt's tokens."""

    def __init__(self, *calls, tokens=100):
        self.calls = calls
        self.tokens = tokens


def numbered(steps):
    """Yield (turn, step, [(id, tool, args, output, failed)])."""
    count = 0
    for turn, step in enumerate(steps):
        calls = []
        for tool, args, output, failed in step.calls:
            calls.append((f"call_{count}", tool, args, output, failed))
            count += 1
        yield turn, step, calls


SYSTEM, ASK, ANSWER = "be careful", "do what I ask", "it is done"


def chat(steps):
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ASK}]
    for _, step, calls in numbered(steps):
        asked = [
            {"id": i, "type": "function", "function": {"name": t, "arguments": json.dumps(a)}}
            for i, t, a, _, _ in calls
        ]
        messages.append(
            {"role": "assistant", "content": None, "tool_calls": asked, "usage": {"prompt_tokens": step.tokens}}
        )
        messages += [{"role": "tool", "tool_call_id": i, "content": o, "is_error": f} for i, _, _, o, f in calls]
    return [{"messages": [*messages, {"role": "assistant", "content": ANSWER}]}]


def responses(steps):
    items = [{"role": "user", "content": ASK}]
    for _, _, calls in numbered(steps):
        items += [
            {"type": "function_call", "call_id": i, "name": t, "arguments": json.dumps(a)} for i, t, a, _, _ in calls
        ]
        items += [
            {"type": "function_call_output", "call_id": i, "output": o, "status": "failed" if f else "completed"}
            for i, _, _, o, f in calls
        ]
    items.append({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWER}]})
    return [{"instructions": SYSTEM, "input": items, "output": []}]


def anthropic(steps):
    messages = [{"role": "user", "content": ASK}]
    for _, _, calls in numbered(steps):
        said = [{"type": "text", "text": "one moment"}]
        messages.append(
            {
                "role": "assistant",
                "content": said + [{"type": "tool_use", "id": i, "name": t, "input": a} for i, t, a, _, _ in calls],
            }
        )
        results = [{"type": "tool_result", "tool_use_id": i, "content": o, "is_error": f} for i, _, _, o, f in calls]
        messages.append({"role": "user", "content": results})
    messages.append({"role": "assistant", "content": [{"type": "text", "text": ANSWER}]})
    return [{"system": SYSTEM, "messages": messages}]


def _times(steps):
    """Yield (turn, step, calls, when the model began and ended, [(when each call began, ended)])."""
    now = float(BEGAN)
    for turn, step, calls in numbered(steps):
        began, now = now, now + 1.0
        spans = [(now + 0.1 * n, now + 0.1 * n + 0.05) for n in range(len(calls))]
        yield turn, step, calls, (began, now), spans
        now += 1.0


def _parts(calls):
    return [{"type": "tool_call", "id": i, "name": t, "arguments": a} for i, t, a, _, _ in calls]


def _spans(steps, model, tool):
    """Return (name, attributes, begin, end, failed) of each span, tools behind their model turn, the root last."""
    spans, said = [], [("system", SYSTEM), ("user", ASK)]
    end = float(BEGAN)
    for _, step, calls, (began, ended), times in _times(steps):
        spans.append(("chat gpt", model(list(said), calls, step.tokens), began, ended, False))
        said.append(("assistant", calls))
        for call, (start, stop) in zip(calls, times, strict=True):
            spans.append((f"execute_tool {call[1]}", tool(*call), start, stop, call[4]))
            end = stop
        said.append(("tool", calls))
    spans.append(("chat gpt", model(list(said), None, 10), end + 0.5, end + 0.6, False))
    return spans


def _genai_messages(said):
    made = []
    for role, what in said:
        if role == "assistant":
            made.append({"role": role, "parts": _parts(what)})
        elif role == "tool":
            made += [
                {"role": "tool", "parts": [{"type": "tool_call_response", "id": i, "response": o}]}
                for i, _, _, o, _ in what
            ]
        else:
            made.append({"role": role, "parts": [{"type": "text", "content": what}]})
    return made


def genai_spans(steps, *, deprecated=False):
    asked, answered = (
        ("gen_ai.prompt", "gen_ai.completion") if deprecated else ("gen_ai.input.messages", "gen_ai.output.messages")
    )
    tokens = "gen_ai.usage.prompt_tokens" if deprecated else "gen_ai.usage.input_tokens"

    def model(said, calls, used):
        parts = [{"type": "text", "content": ANSWER}] if calls is None else _parts(calls)
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt",
            tokens: used,
            asked: json.dumps(_genai_messages(said)),
            answered: json.dumps([{"role": "assistant", "parts": parts}]),
        }

    def tool(call_id, name, args, output, failed):
        return {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": call_id,
            "gen_ai.tool.call.arguments": json.dumps(args),
            "gen_ai.tool.call.result": output,
        }

    return _spans(steps, model, tool)


def openinference_spans(steps):
    def model(said, calls, used):
        made = {"openinference.span.kind": "LLM", "llm.model_name": "gpt", "llm.token_count.prompt": used}
        count = 0
        for role, what in said:
            at = f"llm.input_messages.{count}.message"
            if role == "tool":
                for i, _, _, output, _ in what:
                    at = f"llm.input_messages.{count}.message"
                    made |= {f"{at}.role": "tool", f"{at}.tool_call_id": i, f"{at}.content": output}
                    count += 1
                continue
            made[f"{at}.role"] = role
            made |= _openinference_calls(at, what) if role == "assistant" else {f"{at}.content": what}
            count += 1
        at = "llm.output_messages.0.message"
        made[f"{at}.role"] = "assistant"
        return made | ({f"{at}.content": ANSWER} if calls is None else _openinference_calls(at, calls))

    def tool(call_id, name, args, output, failed):
        return {
            "openinference.span.kind": "TOOL",
            "tool.name": name,
            "tool_call.id": call_id,
            "input.value": json.dumps(args),
            "output.value": output,
        }

    return _spans(steps, model, tool)


def _openinference_calls(at, calls):
    made = {}
    for n, (i, tool, args, _, _) in enumerate(calls):
        one = f"{at}.message.tool_calls.{n}.tool_call" if False else f"{at}.tool_calls.{n}.tool_call"
        made |= {f"{one}.id": i, f"{one}.function.name": tool, f"{one}.function.arguments": json.dumps(args)}
    return made


def _value(value):
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}


def otlp(spans):
    """OTLP JSON, one export a line, spans in the order in which they end."""
    lines = []
    for n, (name, attributes, begin, end, failed) in enumerate(spans):
        span = {
            "traceId": TRACE,
            "spanId": f"{n:016x}",
            "name": name,
            "startTimeUnixNano": str(round(begin * 1e9)),
            "endTimeUnixNano": str(round(end * 1e9)),
            "attributes": [{"key": k, "value": _value(v)} for k, v in attributes.items()],
            "status": {"code": 2, "message": "failed"} if failed else {},
        }
        lines.append({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    return lines


def otlp_proto(spans):
    """The same as one protobuf message."""
    from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

    data = TracesData()
    scope = data.resource_spans.add().scope_spans.add()
    for n, (name, attributes, begin, end, failed) in enumerate(spans):
        span = scope.spans.add(
            trace_id=bytes.fromhex(TRACE),
            span_id=n.to_bytes(8, "big"),
            name=name,
            start_time_unix_nano=round(begin * 1e9),
            end_time_unix_nano=round(end * 1e9),
        )
        for key, value in attributes.items():
            where = span.attributes.add(key=key).value
            if isinstance(value, int):
                where.int_value = value
            else:
                where.string_value = value
        if failed:
            span.status.code = 2
    return data.SerializeToString()


def _iso(at):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def _chat_messages(said):
    made = []
    for role, what in said:
        if role == "assistant":
            calls = [{"id": i, "function": {"name": t, "arguments": json.dumps(a)}} for i, t, a, _, _ in what]
            made.append({"role": role, "content": None, "tool_calls": calls})
        elif role == "tool":
            made += [{"role": "tool", "tool_call_id": i, "content": o} for i, _, _, o, _ in what]
        else:
            made.append({"role": role, "content": what})
    return made


def langfuse(steps):
    observations, said = [], [("system", SYSTEM), ("user", ASK)]
    for _, step, calls, (began, ended), times in _times(steps):
        answer = _chat_messages([("assistant", calls)])[0]
        generation = {
            "type": "GENERATION",
            "name": "chat",
            "model": "gpt",
            "input": _chat_messages(said),
            "output": answer,
        }
        observations.append(
            generation | {"usage": {"input": step.tokens}, "startTime": _iso(began), "endTime": _iso(ended)}
        )
        for (i, tool, args, output, failed), (start, stop) in zip(calls, times, strict=True):
            level = {"level": "ERROR", "statusMessage": output} if failed else {"level": "DEFAULT"}
            one = {"type": "TOOL", "name": tool, "input": args, "output": output, "metadata": {"tool_call_id": i}}
            observations.append(one | level | {"startTime": _iso(start), "endTime": _iso(stop)})
        said += [("assistant", calls), ("tool", calls)]
    last = observations[-1]["endTime"]
    final = {"type": "GENERATION", "name": "chat", "model": "gpt", "input": _chat_messages(said), "output": ANSWER}
    observations.append(final | {"startTime": last, "endTime": last})
    return [{"id": TRACE, "name": "agent", "observations": observations}]


def langsmith(steps):
    runs, said = [], [("system", SYSTEM), ("user", ASK)]

    def run(kind, name, inputs, outputs, began, ended, error=None, **more):
        one = {"id": f"run_{len(runs)}", "trace_id": TRACE, "run_type": kind, "name": name, "inputs": inputs}
        times = {"start_time": _iso(began).rstrip("Z"), "end_time": _iso(ended).rstrip("Z")}
        runs.append(one | {"outputs": outputs, "error": error} | times | more)

    for _, step, calls, (began, ended), times in _times(steps):
        answer = {
            "id": ["langchain", "AIMessage"],
            "kwargs": {"content": "", "tool_calls": [{"id": i, "name": t, "args": a} for i, t, a, _, _ in calls]},
        }
        inputs = {"messages": [_chat_messages(said)]}
        run(
            "llm",
            "ChatOpenAI",
            inputs,
            {"generations": [[{"message": answer}]]},
            began,
            ended,
            prompt_tokens=step.tokens,
        )
        for (i, tool, args, output, failed), (start, stop) in zip(calls, times, strict=True):
            told = {"output": {"content": output, "tool_call_id": i}}
            run("tool", tool, {"input": str(args)}, told, start, stop, error=output if failed else None)
        said += [("assistant", calls), ("tool", calls)]
    end = BEGAN + 3600.0
    answer = {"id": ["langchain", "AIMessage"], "kwargs": {"content": ANSWER}}
    run("llm", "ChatOpenAI", {"messages": [_chat_messages(said)]}, {"generations": [[{"message": answer}]]}, end, end)
    return runs


def mcp(steps):
    """Traffic of an MCP client: one call a turn, for a log of traffic knows no turns."""
    lines = [
        {"jsonrpc": "2.0", "id": 0, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 0, "result": {"tools": [{"name": "unused", "annotations": {"readOnlyHint": True}}]}},
    ]
    for _, _, calls in numbered(steps):
        for i, tool, args, output, failed in calls:
            lines.append(
                {"jsonrpc": "2.0", "id": i, "method": "tools/call", "params": {"name": tool, "arguments": args}}
            )
            result = {"content": [{"type": "text", "text": output}], "isError": failed}
            lines.append({"jsonrpc": "2.0", "id": i, "result": result})
    return [{"session_id": "s1", "timestamp": BEGAN + n, "message": line} for n, line in enumerate(lines)]


EXPORTS = {
    "openai_chat": chat,
    "openai_responses": responses,
    "anthropic_messages": anthropic,
    "otlp current": lambda steps: otlp(genai_spans(steps)),
    "otlp deprecated": lambda steps: otlp(genai_spans(steps, deprecated=True)),
    "otlp openinference": lambda steps: otlp(openinference_spans(steps)),
    "langfuse": langfuse,
    "langsmith": langsmith,
    "otlp protobuf": lambda steps: otlp_proto(genai_spans(steps)),
}
