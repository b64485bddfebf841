"""What a fault makes of a model's answer is the same thing whole and streamed, whatever was said, in each dialect."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.chaos import answers_anthropic, answers_chat, answers_responses
from interlock.chaos.answer_pieces import UNKNOWN_TOOL, cut, renamed, spoilt
from interlock.chaos.wire import WireKind

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from conformance.conversation import Turn, Use  # noqa: E402

from conformance import wires  # noqa: E402 - beside `tests`, not in the product

EDITS = [
    WireKind.MODEL_TRUNCATED, WireKind.MODEL_EMPTY, WireKind.MODEL_MALFORMED_ARGUMENTS, WireKind.MODEL_UNKNOWN_TOOL,
]  # fmt: skip
DIALECTS = {
    "chat": (answers_chat, wires.chat_body, lambda *words: wires.chat_events(*words, usage=True)),
    "responses": (answers_responses, wires.responses_body, wires.responses_events),
    "anthropic": (answers_anthropic, wires.anthropic_body, wires.anthropic_events),
}
values = st.text(max_size=12) | st.integers(-9, 9) | st.lists(st.text(max_size=5), max_size=3)
uses = st.builds(
    Use, st.sampled_from(["look", "open_ticket"]), st.dictionaries(st.text(max_size=6), values, max_size=3)
)
turns = st.builds(Turn, st.lists(uses, max_size=3).map(tuple), st.text(max_size=60))


def events_of(stream):
    """The events as the proxy reads them."""
    found = []
    for event in stream:
        data = event.split("data: ", 1)[1].strip()
        found.append(event.encode() if data == "[DONE]" else json.loads(data))
    return found


def heard_whole(dialect, body):
    """(text, calls as (name, arguments as text), why it ended) of a whole answer."""
    if dialect == "chat":
        (choice,) = body["choices"]
        calls = [(c["function"]["name"], c["function"]["arguments"]) for c in choice["message"].get("tool_calls") or ()]
        return choice["message"]["content"] or "", calls, choice["finish_reason"]
    if dialect == "responses":
        texts = [p["text"] for i in body["output"] if i["type"] == "message" for p in i["content"]]
        calls = [(i["name"], i["arguments"]) for i in body["output"] if i["type"] == "function_call"]
        return "".join(texts), calls, body["status"]
    calls = [(b["name"], json.dumps(b["input"])) for b in body["content"] if b["type"] == "tool_use"]
    return "".join(b["text"] for b in body["content"] if b["type"] == "text"), calls, body["stop_reason"]


def heard_streamed(dialect, events):
    """The same of a stream, put together from its pieces alone; its shape is checked on the way."""
    text, calls, end, open_at = "", {}, None, set()
    for event in (e for e in events if isinstance(e, dict)):
        kind = event.get("type")
        if dialect == "chat":
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
                end = choice["finish_reason"] or end
                for call in choice["delta"].get("tool_calls") or ():
                    name, args = calls.get(call["index"], (call["function"].get("name"), ""))
                    calls[call["index"]] = (name, args + call["function"]["arguments"])
        elif kind == "content_block_start":
            open_at.add(event["index"])
            if event["content_block"]["type"] == "tool_use":
                calls[event["index"]] = (event["content_block"]["name"], "")
        elif kind == "content_block_stop":
            open_at.remove(event["index"])
        elif kind == "content_block_delta":
            assert event["index"] in open_at
            text += event["delta"].get("text", "")
            if "partial_json" in event["delta"]:
                name, args = calls[event["index"]]
                calls[event["index"]] = (name, args + event["delta"]["partial_json"])
        elif kind == "message_delta":
            end = event["delta"]["stop_reason"]
        elif kind == "response.output_item.added" and event["item"]["type"] == "function_call":
            calls[event["output_index"]] = (event["item"]["name"], "")
        elif kind == "response.function_call_arguments.delta":
            name, args = calls[event["output_index"]]
            calls[event["output_index"]] = (name, args + event["delta"])
        elif kind == "response.output_text.delta":
            text += event["delta"]
        elif kind in {"response.completed", "response.incomplete"}:
            end = event["response"]["status"]
            # What it says in the end is what it said in pieces.
            assert heard_whole(dialect, event["response"]) == (text, list(calls.values()), end)
    assert open_at == set()
    return text, list(calls.values()), end


@pytest.mark.parametrize("dialect", DIALECTS)
@given(turns)
def test_without_a_fault_both_are_heard_alike(dialect, turn):
    _, body, stream = DIALECTS[dialect]
    assert heard_streamed(dialect, events_of(stream(turn, 1, "m"))) == heard_whole(dialect, body(turn, 1, "m"))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("kind", EDITS)
@given(turns)
def test_a_fault_makes_the_same_of_both(dialect, kind, turn):
    answers, body, stream = DIALECTS[dialect]
    said, events = body(turn, 1, "m"), events_of(stream(turn, 1, "m"))
    before = json.dumps([said, [e for e in events if isinstance(e, dict)]])
    whole, streamed = answers.whole(kind, said), answers.streamed(kind, events)
    # What was said is left as it was: it may be said again.
    assert json.dumps([said, [e for e in events if isinstance(e, dict)]]) == before
    needs_calls = kind in {WireKind.MODEL_MALFORMED_ARGUMENTS, WireKind.MODEL_UNKNOWN_TOOL}
    changes = bool(turn.uses) or (bool(turn.text) and not needs_calls)
    assert (whole is not None, streamed is not None) == (changes, changes)
    if not changes:
        return
    text, calls, end = heard_whole(dialect, whole)
    if dialect == "anthropic" and turn.uses:
        # There, a whole answer has its arguments parsed, so that they cannot be cut or spoilt as text.
        streamed_text, streamed_calls, streamed_end = heard_streamed(dialect, streamed)
        names = [name for name, _ in calls], [name for name, _ in streamed_calls]
        assert (text, end, names[0]) == (streamed_text, streamed_end, names[1])
        calls = streamed_calls
    else:
        assert heard_streamed(dialect, streamed) == (text, calls, end)
    meant = [(use.tool, use.json) for use in turn.uses]
    if kind is WireKind.MODEL_EMPTY:
        assert (text, calls) == ("", [])
    elif kind is WireKind.MODEL_UNKNOWN_TOOL:
        assert (text, calls) == (turn.text, [(UNKNOWN_TOOL, args) for _, args in meant])
    elif kind is WireKind.MODEL_MALFORMED_ARGUMENTS:
        assert (text, [name for name, _ in calls]) == (turn.text, [name for name, _ in meant])
        for _, args in calls:
            with pytest.raises(ValueError, match=r"."):
                json.loads(args)
    else:
        everything = turn.text + "".join(args for _, args in meant)
        assert text + "".join(args for _, args in calls) == everything[: len(everything) // 2]


@given(st.lists(st.text(max_size=9), min_size=1, max_size=5))
def test_a_cut_keeps_the_first_half(texts):
    kept = cut(texts)
    whole = "".join(texts)
    assert "".join(text or "" for text in kept) == whole[: len(whole) // 2]
    assert kept[0] is not None


@given(st.dictionaries(st.text(max_size=6), values, max_size=4))
def test_spoilt_arguments_are_no_json(args):
    for text in (json.dumps(args), json.dumps(args, indent=1) + "\n", ""):
        with pytest.raises(ValueError, match=r"."):
            json.loads(spoilt(text))


def test_ids_are_new_and_fit_together():
    said = {"id": "msg_1", "content": [{"id": "toolu_7", "name": "a"}], "item_id": "msg_1", "call_id": "call_x", "n": 3}
    once, twice = renamed(said, 1), renamed(said, 2)
    assert once == renamed(said, 1)
    assert once["id"] == once["item_id"] != twice["id"]
    assert once["id"].startswith("msg_")
    assert once["content"][0]["id"].startswith("toolu_")
    assert len(once["call_id"]) <= 40
    assert (once["n"], once["content"][0]["name"]) == (3, "a")
