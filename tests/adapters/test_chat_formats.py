"""The chat formats: what a model asks for is read, whatever it wrote; streams come together to the reply they stand for."""

from __future__ import annotations

import json

import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from interlock.adapters.chat_formats import (
    Answered,
    Format,
    ToolUse,
    dump,
    format_of,
    messages_of,
    rebuild,
    text_of,
    uses_of,
)
from interlock.adapters.chat_streams import Accumulator, taken_apart
from interlock.core.errors import ConfigError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ARGS = st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers(-9, 9) | TEXTS, max_size=3)
RAW = ARGS.map(json.dumps) | st.sampled_from(["", "{", "[1]", "7", '{"a": NaN', "null"])
CALLS = st.lists(st.tuples(st.sampled_from(["ticket_create", "search_read"]), RAW), max_size=4)


def chat(text: str, calls: list[tuple[str, str]]) -> dict:
    message: dict = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [
            {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": raw}}
            for i, (name, raw) in enumerate(calls)
        ]
    finish = "tool_calls" if calls else "stop"
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o"}
    return {**head, "choices": [choice], "usage": usage}


def responses(text: str, calls: list[tuple[str, str]]) -> dict:
    items: list[dict] = []
    if text:
        part = {"type": "output_text", "text": text, "annotations": []}
        items.append({"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]})
    for i, (name, raw) in enumerate(calls):
        items.append({"type": "function_call", "id": f"fc_{i}", "call_id": f"call_{i}", "name": name, "arguments": raw})
    usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
    return {"id": "r", "object": "response", "status": "completed", "model": "gpt-4o", "output": items, "usage": usage}


def anthropic(text: str, calls: list[tuple[str, str]]) -> dict:
    blocks: list[dict] = [{"type": "text", "text": text}] if text else []
    for i, (name, raw) in enumerate(calls):
        try:
            given = json.loads(raw) if raw else {}
        except ValueError:
            given = raw
        blocks.append({"type": "tool_use", "id": f"call_{i}", "name": name, "input": {} if given is None else given})
    end = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    return {**head, "content": blocks, **end, "usage": {"input_tokens": 9, "output_tokens": 3}}


WRITERS = {Format.CHAT: chat, Format.RESPONSES: responses, Format.ANTHROPIC: anthropic}
OBJECTS = {Format.CHAT: ChatCompletion, Format.RESPONSES: Response, Format.ANTHROPIC: Message}


def expected(raw: str) -> dict | None:
    """What a call with this text as arguments asks for; None: nothing that is an object."""
    try:
        value = json.loads(raw or "{}")
    except ValueError:
        return None
    return {} if value is None else value if isinstance(value, dict) else None


@pytest.mark.parametrize("form", Format)
@given(text=TEXTS, calls=CALLS)
def test_uses_and_text_are_read_whatever_the_model_wrote(form: Format, text: str, calls: list) -> None:
    reply = WRITERS[form](text, calls)
    assert format_of(reply) is form
    assert text_of(reply) == text
    assert uses_of(reply) == [ToolUse(f"call_{i}", name, expected(raw)) for i, (name, raw) in enumerate(calls)]


@pytest.mark.parametrize("form", Format)
@given(text=TEXTS, calls=CALLS)
def test_vendors_objects_read_like_plain_data_and_come_back_from_the_record(
    form: Format, text: str, calls: list
) -> None:
    reply = WRITERS[form](text, calls)
    thing = OBJECTS[form].construct(**reply)
    assert uses_of(thing) == uses_of(reply)
    kept = json.loads(json.dumps(dump(thing)))
    back = rebuild(kept)
    assert type(back) is OBJECTS[form]
    assert uses_of(back) == uses_of(reply)
    assert text_of(back) == text
    assert rebuild(json.loads(json.dumps(dump(reply)))) == reply


@pytest.mark.parametrize("form", Format)
@given(text=TEXTS, calls=CALLS)
def test_a_reply_taken_apart_comes_together_again(form: Format, text: str, calls: list) -> None:
    reply = WRITERS[form](text, calls)
    together = Accumulator()
    pieces = list(taken_apart(form, reply))
    for piece in pieces[:-1]:
        together.add(piece)
    if form is not Format.CHAT:
        assert together.reply() is None  # broken off before its end
    together.add(pieces[-1])
    assert together.format is form
    assert together.reply() == reply


@given(text=TEXTS, calls=CALLS, size=st.integers(1, 7), indexed=st.booleans())
def test_chunks_of_any_size_come_together(text: str, calls: list, size: int, indexed: bool) -> None:
    reply = chat(text, calls)
    together = Accumulator()
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}

    def add(delta: dict, finish: str | None = None) -> None:
        together.add({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    add({"role": "assistant"})
    for i in range(0, len(text), size):
        add({"content": text[i : i + size]})
    for n, call in enumerate(reply["choices"][0]["message"].get("tool_calls", ())):
        where = {"index": n} if indexed else {}
        name, raw = call["function"]["name"], call["function"]["arguments"]
        add({"tool_calls": [{**where, "id": call["id"], "type": "function", "function": {"name": name}}]})
        for i in range(0, len(raw), size):
            add({"tool_calls": [{**where, "function": {"arguments": raw[i : i + size]}}]})
    assert together.reply() is None
    add({}, "stop")
    together.add({**head, "choices": [], "usage": reply["usage"]})
    whole = together.reply()
    assert whole is not None
    assert uses_of(whole) == uses_of(reply)
    assert text_of(whole) == text
    assert whole["usage"] == reply["usage"]


def test_results_go_back_in_the_form_each_vendor_wants() -> None:
    good = Answered(ToolUse("a", "t", {}), "fine", ok=True)
    bad = Answered(ToolUse("b", "t", {}), "This tool is not permitted here.", ok=False)
    assert messages_of(Format.CHAT, [good, bad]) == [
        {"role": "tool", "tool_call_id": "a", "content": "fine"},
        {"role": "tool", "tool_call_id": "b", "content": "This tool is not permitted here."},
    ]
    assert messages_of(Format.RESPONSES, [good]) == [{"type": "function_call_output", "call_id": "a", "output": "fine"}]
    blocks = [
        {"type": "tool_result", "tool_use_id": "a", "content": "fine"},
        {"type": "tool_result", "tool_use_id": "b", "content": "This tool is not permitted here.", "is_error": True},
    ]
    assert messages_of(Format.ANTHROPIC, [good, bad]) == [{"role": "user", "content": blocks}]
    assert messages_of(Format.ANTHROPIC, []) == []


def test_free_form_tools_are_uses_with_one_argument() -> None:
    call = {"id": "a", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}
    reply = {"choices": [{"message": {"role": "assistant", "tool_calls": [call]}}]}
    assert uses_of(reply) == [ToolUse("a", "sql", {"input": "select 1"}, custom=True)]
    item = {"type": "custom_tool_call", "call_id": "a", "name": "sql", "input": "select 1"}
    use = uses_of({"object": "response", "output": [item]})[0]
    assert use == ToolUse("a", "sql", {"input": "select 1"}, custom=True)
    assert messages_of(Format.RESPONSES, [Answered(use, "1", ok=True)])[0]["type"] == "custom_tool_call_output"


def test_what_is_no_reply_says_what_to_pass() -> None:
    with pytest.raises(ConfigError, match="pass the client's own reply"):
        format_of(object())
