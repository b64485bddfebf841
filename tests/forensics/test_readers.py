"""Every format is read call by call, in order; what is broken is counted and named."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.forensics.error_text import error_kind
from interlock.forensics.formats import format_of
from interlock.forensics.json_records import json_records
from interlock.forensics.trace_files import TraceFile, trace_files
from interlock.forensics.traces import Broken, RecordedRun, args_hash


def asked(name, args, call_id="c1"):
    arguments = args if isinstance(args, str) else json.dumps(args)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def says(*calls, text=None):
    return {"role": "assistant", "content": text, "tool_calls": list(calls)}


def answers(text, call_id="c1"):
    return {"role": "tool", "tool_call_id": call_id, "content": text}


CHAT = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "where is my order"},
    says(asked("find", {"mail": "a@b"}, "c1"), asked("look", {"id": 7}, "c2")),
    answers("second", "c2"),
    answers("first", "c1"),
    {"role": "assistant", "content": "one moment"},
    says(asked("look", {"id": 7}, "c1")),
    answers("Error: 503 Service Unavailable", "c1"),
]


def runs_of(tmp_path, *records, name="traces.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records), encoding="utf-8")
    return list(TraceFile(path, "mine").runs())


def seen(run):
    return [(c.tool, c.args, c.output) for c in run.calls]


CHAT_CALLS = [
    ("find", {"mail": "a@b"}, "first"),
    ("look", {"id": 7}, "second"),
    ("look", {"id": 7}, "Error: 503 Service Unavailable"),
]


@pytest.mark.parametrize(
    "record",
    [CHAT, {"messages": CHAT}, {"traj": CHAT, "task_id": 3}, {"src": {"path": "x"}, "rec": {"messages": CHAT}}],
    ids=["a bare list", "messages", "traj", "src and rec"],
)
def test_chat_messages_are_read_wherever_the_list_stands(tmp_path, record):
    (run,) = runs_of(tmp_path, record)
    assert seen(run) == CHAT_CALLS
    assert [len(turn.calls) for turn in run.turns] == [2, 0, 1]
    assert [c.error for c in run.calls] == [None, None, "server_or_network"]
    assert run.dataset == "mine"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([{"messages": CHAT}, {"messages": CHAT}]),
        json.dumps([{"messages": CHAT}, {"messages": CHAT}], indent=1),
        json.dumps({"messages": CHAT}) + "\n\n" + json.dumps({"messages": CHAT}) + "\n",
        "\ufeff" + json.dumps({"messages": CHAT}) + "\r\n" + json.dumps({"messages": CHAT}),
    ],
    ids=["an array", "an array over many lines", "lines with gaps", "a byte order mark and CRLF"],
)
def test_many_records_of_one_file(tmp_path, text):
    found = runs_of(tmp_path, text, name="all.json")
    assert [seen(run) for run in found] == [CHAT_CALLS, CHAT_CALLS]


def test_one_pretty_printed_document(tmp_path):
    (run,) = runs_of(tmp_path, json.dumps({"messages": CHAT}, indent=2), name="one.json")
    assert seen(run) == CHAT_CALLS


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("", {}), ("{}", {}), ("not json {", "not json {"), ("[1]", [1]), ('{"a": 1e400}', {"a": float("inf")})],
)
def test_arguments_a_model_may_write(tmp_path, arguments, expected):
    (run,) = runs_of(tmp_path, [says(asked("t", arguments)), answers("x")])
    assert [c.args for c in run.calls] == [expected]


def test_arguments_as_data_content_in_parts_and_the_old_function_call(tmp_path):
    parts = [{"type": "text", "text": "a"}, "b", {"type": "image_url", "image_url": {"url": "u"}}]
    (run,) = runs_of(
        tmp_path,
        [
            {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "t", "arguments": {"x": 1}}}]},
            {"role": "tool", "tool_call_id": "c1", "content": parts},
            {"role": "assistant", "content": None, "function_call": {"name": "old", "arguments": '{"y": 2}'}},
            {"role": "function", "name": "old", "content": "done"},
        ],
    )
    image = json.dumps(parts[2])
    assert seen(run) == [("t", {"x": 1}, "ab" + image), ("old", {"y": 2}, "done")]


def test_a_call_without_an_answer_is_still_a_call(tmp_path):
    (run,) = runs_of(tmp_path, [says(asked("t", {}, "c1"), asked("u", {}, "c2")), answers("x", "c2")])
    assert seen(run) == [("t", {}, None), ("u", {}, "x")]


def test_an_id_used_twice_belongs_to_the_first_call_that_waits(tmp_path):
    (run,) = runs_of(tmp_path, [says(asked("t", {})), answers("1"), says(asked("t", {})), answers("2")])
    assert [c.output for c in run.calls] == ["1", "2"]


@pytest.mark.parametrize(
    ("about", "label"),
    [
        ({"success": True, "reward": 0}, True),
        ({"reward": 1.0}, True),
        ({"reward": 0.93}, False),
        ({"reward": 0.93, "info": {"reward_info": {"components": {"base_success": True}}}}, True),
        ({}, None),
    ],
)
def test_labels_of_chat_records(tmp_path, about, label):
    (run,) = runs_of(tmp_path, {"messages": CHAT} | about)
    assert run.success is label


def test_livemcp_unwraps_the_tool_that_is_really_used(tmp_path):
    inner = {"server_name": "files", "tool_name": "read", "params": {"path": "/x"}}
    failed = "meta=None content=[TextContent(type='text', text='… status code 403 …\\n  \"isError\": true')]"
    record = {
        "question": "?",
        "response": "!",
        "category": "work",
        "task_id": "t",
        "messages": [
            says(asked("route", {"query": "q"})),
            answers("r"),
            says(asked("execute-tool", inner)),
            answers(failed),
        ],
    }
    judges = {"deepseek_deepseek-chat-v3-0324": 1, "openai_gpt-4.1-mini": 0, "qwen25_72b_int4_instruct": 1}
    (run,) = runs_of(tmp_path, {"src": {"path": "out/*/some-model#t", "judges": judges}, "rec": record})
    assert [(c.tool, c.args, c.error) for c in run.calls] == [
        ("route", {"query": "q"}, None),
        ("files.read", {"path": "/x"}, "auth"),
    ]
    assert (run.model, run.domain, run.success) == ("some-model", "work", True)


def tau2(messages, **more):
    return {
        "id": "abcdefghij",
        "messages": messages,
        "termination_reason": "user_stop",
        "reward_info": {"reward": 1.0},
    } | more


def test_tau2_leaves_the_customers_own_calls_out_and_keeps_times_and_costs(tmp_path):
    ask = {"id": "1", "name": "look", "arguments": {"id": 1}, "requestor": "assistant"}
    own = {"id": "1", "name": "toggle", "arguments": {}, "requestor": "user"}
    record = tau2(
        [
            {"role": "assistant", "tool_calls": [ask], "cost": 0.5, "timestamp": "2025-01-01T00:00:02"},
            {"role": "tool", "id": "1", "content": "seen", "requestor": "assistant", "error": False},
            {"role": "user", "tool_calls": [own]},
            {"role": "tool", "id": "1", "content": "toggled", "requestor": "user"},
            {"role": "assistant", "tool_calls": [ask], "cost": 0.25, "timestamp": "2025-01-01T00:00:05"},
            {"role": "tool", "id": "1", "content": "gone", "requestor": "assistant", "error": True},
        ],
        start_time="2025-01-01T00:00:00",
    )
    (run,) = runs_of(tmp_path, {"src": {"file_id": "f00", "model": "m", "domain": "airline"}, "rec": record})
    assert seen(run) == [("look", {"id": 1}, "seen"), ("look", {"id": 1}, "gone")]
    assert [c.error for c in run.calls] == [None, "business_or_other"]
    assert [(t.cost_usd, t.at_s) for t in run.turns] == [(0.5, 2.0), (0.25, 5.0)]
    assert (run.run_id, run.success) == ("f00:abcdefgh", True)


def test_agentdojo_pairs_in_order_and_counts_what_nobody_executed(tmp_path):
    def dojo(*calls):
        return {
            "role": "assistant",
            "content": [],
            "tool_calls": [{"function": f, "args": a, "id": None} for f, a in calls],
        }

    def told(text, error=None):
        return {"role": "tool", "content": [{"type": "text", "text": text}], "error": error}

    record = {
        "suite_name": "banking",
        "pipeline_name": "p",
        "user_task_id": "user_task_1",
        "utility": False,
        "duration": 3.5,
        "messages": [
            dojo(("get", {}), ("send", {"to": "x"})),
            told("a"),
            told("", "ValueError: Account not found"),
            dojo(("get", {})),
        ],
    }
    (run,) = runs_of(tmp_path, {"src": {"path": "runs/1.json"}, "rec": record})
    assert seen(run) == [("get", {}, "a"), ("send", {"to": "x"}, "ValueError: Account not found")]
    assert [c.error for c in run.calls] == [None, "not_found"]
    assert (run.steps, run.unanswered, run.seconds, run.success) == (2, 1, 3.5, False)


NORMAL = {"dataset": "d", "run_id": "r", "model": "m", "steps": 3, "success": True, "cost_usd": 0.6, "seconds": 9.0}


def flat(step, tool="t", args=None, **more):
    args = args if args is not None else {}
    return {"tool": tool, "step": step, "args": args, "args_sha1": args_hash(args), "out": "o", "out_sha1": "x"} | more


def test_the_normalised_form_gets_its_turns_costs_and_times_back(tmp_path):
    calls = [flat(0, cost_after=0.1, t=1.0), flat(0, tool="u", cost_after=0.1, t=1.0), flat(2, cost_after=0.4, t=7.5)]
    (run,) = runs_of(tmp_path, NORMAL | {"calls": calls})
    assert [[c.tool for c in t.calls] for t in run.turns] == [["t", "u"], [], ["t"]]
    assert [pytest.approx(t.cost_usd) for t in run.turns] == [0.1, 0.0, 0.5]  # the rest falls to the last turn
    assert [t.at_s for t in run.turns] == [1.0, None, 7.5]
    assert run.dataset == "d"


def test_the_normalised_form_may_hold_only_the_beginning_of_arguments(tmp_path):
    call = flat(0)
    del call["args"]
    (run,) = runs_of(tmp_path, NORMAL | {"calls": [call | {"args_head": '{"long', "args_sha1": "f" * 40}]})
    assert [(c.args, c.args_hash) for c in run.calls] == [(None, "f" * 40)]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ('{"messages": [', "not JSON"),
        ("17", "an object or a list of messages"),
        ('{"messages": "none"}', "no list of messages"),
        ('{"messages": [{"content": "no role"}]}', "no list of messages"),
        ('{"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}', "without `function`"),
        ('{"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}]}', "without a name"),
        ('{"messages": [{"role": "assistant", "tool_calls": 5}]}', "TypeError"),
        ("[" * 100_000, "not JSON"),
        ('{"messages": [{"role": "assistant", "content": "\\ud83d"}]}', None),
    ],
)
def test_a_broken_record_is_named_and_the_others_are_read(tmp_path, bad, why):
    first, second, third = runs_of(tmp_path, {"messages": CHAT}, bad, {"messages": CHAT})
    assert seen(first) == seen(third) == CHAT_CALLS
    if why is None:
        assert isinstance(second, RecordedRun)
    else:
        assert isinstance(second, Broken)
        assert (second.position, why in second.why) == (2, True), second


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        ([flat(2), flat(1)], "behind one of step 2"),
        ([flat(-1)], "step -1"),
        ([flat(10**9)], "step 1000000000"),
        ([{"step": 0, "args": {}}], "without a tool"),
        ([{"step": 0, "tool": "t"}], "neither"),
        ([7], "AttributeError"),
    ],
)
def test_a_broken_normalised_record_is_named(tmp_path, calls, why):
    _, broken = runs_of(tmp_path, NORMAL | {"calls": []}, NORMAL | {"calls": calls})
    assert isinstance(broken, Broken)
    assert why in broken.why


def test_an_agentdojo_answer_to_nothing_is_broken(tmp_path):
    record = {"suite_name": "s", "pipeline_name": "p", "messages": [{"role": "tool", "content": "x"}]}
    (broken,) = runs_of(tmp_path, record)
    assert isinstance(broken, Broken)
    assert "answers no call" in broken.why


def test_a_truncated_gzip_file_gives_what_it_has_and_says_that_it_ends(tmp_path):
    # Random content, so that the first records are out before the damage.
    noise = [{"messages": CHAT, "noise": args_hash(i) * 40} for i in range(2_000)]
    whole = gzip.compress("\n".join(map(json.dumps, noise)).encode())
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    *runs, broken = TraceFile(path, "").runs()
    assert len(runs) > 10
    assert all(isinstance(r, RecordedRun) for r in runs)
    assert isinstance(broken, Broken)
    assert "cannot be read further" in broken.why


def test_an_unknown_format_and_an_unreadable_file_are_named(tmp_path):
    odd = tmp_path / "odd.json"
    odd.write_text('{"spans": []}')
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert list(TraceFile(odd, "").runs()) == [Broken(0, "no reader knows this format")]
    assert list(TraceFile(empty, "").runs()) == [Broken(0, "the file is empty")]
    (gone,) = TraceFile(tmp_path / "gone.json", "").runs()
    assert "No such file" in gone.why


def test_a_format_that_names_itself_is_not_taken_for_plain_chat():
    assert format_of({"trajectory_format": "mini-swe-agent-1.1", "messages": CHAT}).name == "mini_swe"
    assert format_of({"trajectory_format": "somebody-else-2", "messages": CHAT}) is None


def test_a_folder_gives_each_set_once_and_everything_else_that_is_json(tmp_path):
    for name in ("one/records.jsonl.gz", "one/normalized.jsonl.gz", "one/loops.jsonl.gz", "two/records.jsonl.gz"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(b"{}"))
    (tmp_path / "mine.jsonl").write_text("{}")
    (tmp_path / "README.md").write_text("no")
    found = [(f.path.relative_to(tmp_path).as_posix(), f.dataset) for f in trace_files([tmp_path])]
    assert found == [("mine.jsonl", "mine"), ("one/normalized.jsonl.gz", "one"), ("two/records.jsonl.gz", "two")]
    (alone,) = trace_files([tmp_path / "one" / "loops.jsonl.gz"])
    assert alone.dataset == "loops"


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(trace_files([tmp_path / "nowhere"]))


def test_lines_stream():
    def endless():
        while True:
            yield b'{"a": 1}'

    records = json_records(endless())
    assert [next(records) for _ in range(3)] == [(1, {"a": 1}), (2, {"a": 1}), (3, {"a": 1})]


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_no_line_breaks_the_reader_and_none_is_lost(lines):
    kept = [line for line in (one.strip().removeprefix(b"\xef\xbb\xbf") for one in lines) if line]
    found = list(json_records(lines))
    if kept and kept[0] in {b"[", b"{", b"[{", b"[["}:
        return  # one document, or one complaint
    assert len(found) == len(kept) or kept[0].startswith(b"[")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Error: 503 Service Unavailable", "server_or_network"),
        ("Payment amount does not add up, total price is 503, but paid 429", "business_or_other"),
        ("Failed to fetch https://x - status code 403", "auth"),
        ("HTTP 429", "rate_limit"),
        ("Tool call timed out.", "timeout"),
        ("Connection timeout to host https://x", "timeout"),
        ("MCP error -32602: Invalid arguments for tool t", "bad_arguments"),
        ("Input validation error: 'x' is a required property", "bad_arguments"),
        ("ValueError: File with ID '11' not found.", "not_found"),
        ("gift card balance is not enough", "business_or_other"),
        ("", "business_or_other"),
    ],
)
def test_kinds_of_failure(text, kind):
    assert error_kind(text) == kind


@pytest.mark.parametrize(
    ("args", "digest"),
    [
        ({}, "bf21a9e8fbc5a3846fb05b4fa0859e0917b2202f"),
        ({"zip": "19122", "first_name": "Yusuf", "last_name": "Rossi"}, "d206a7edba58a9448582bbcdaaedea938f52f4d5"),
    ],
)
def test_argument_hashes_are_those_of_the_oracle(args, digest):
    assert args_hash(args) == digest


def test_argument_hashes_ignore_the_order_of_keys_but_not_types():
    assert args_hash({"a": 1, "b": "ü"}) == args_hash({"b": "ü", "a": 1})
    assert len({args_hash(v) for v in ({"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": True}, {"a": [1]})}) == 5
    assert args_hash({"a": "\ud83d"})  # half a surrogate pair
