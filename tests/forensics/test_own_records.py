"""Interlock's own runs, read from records, log lines and the store, and logs of others that have the same fields."""

from __future__ import annotations

import json

import pytest

import interlock
from interlock.forensics.diagnosis import diagnose
from interlock.forensics.questions import answers
from interlock.forensics.trace_files import TraceFile
from interlock.forensics.traces import Broken


@pytest.fixture
def written(tmp_path):
    """Three runs as Interlock wrote them: results by agent, and the files."""
    config = {
        "logging": {"level": "info", "to": f"{tmp_path}/lines.jsonl"},
        "record": {"path": f"{tmp_path}/records.jsonl"},
    }
    gate = interlock.Interlock(config, store=f"sqlite:///{tmp_path}/interlock.db")

    @gate.tool("page.read", effect="read")
    async def read(n: int) -> str:
        return "same"

    @gate.tool("ticket.create", effect="write", allow=True)
    async def create(title: str) -> str:
        raise TimeoutError

    async def loops(run, task):
        while True:
            await run.observe("page.read", {"n": 1})

    async def doubts(run, task):
        await run.call("ticket.create", {"title": "a"})

    async def fine(run, task):
        return await run.call("page.read", {"n": 1})

    results = {agent.__name__: gate.run_sync(agent, "t", agent_name=agent.__name__) for agent in (loops, doubts, fine)}
    gate.close()
    return results, tmp_path


def by_id(path):
    runs = list(TraceFile(path, "mine").runs())
    assert not any(isinstance(run, Broken) for run in runs)
    return {run.run_id: run for run in runs}


def test_records_lines_and_store_tell_the_same(written):
    results, folder = written
    told = [by_id(folder / name) for name in ("records.jsonl", "lines.jsonl", "interlock.db")]
    for result in results.values():
        found = [diagnose(runs[result.run_id]) for runs in told]
        assert {str(each.verdict) for each in found} == {str(result.details.get("category", "model"))}
        assert len({str(each.evidence) for each in found}) == 1
        assert {tuple(c.args_hash for c in runs[result.run_id].calls) for runs in told} != {()}


def test_the_four_questions(written):
    results, folder = written
    runs = by_id(folder / "records.jsonl")
    looped = answers(runs[results["loops"].run_id])
    assert [(r.tool, r.steps) for r in looped.looped] == [("page.read", (0, 1, 2, 3, 4, 5))]
    assert looped.stopped_at == 4
    assert looped.tools["page.read"].refused == 2
    doubt = answers(runs[results["doubts"].run_id])
    assert (doubt.looped, doubt.tools["ticket.create"].failed, doubt.calls) == ([], 1, 1)


ARTICLE = {
    "run_id": "run_abc123",
    "stop_reason": "tool_budget_exceeded",
    "steps": 3,
    "tool_calls": 3,
    "duration_s": 127.3,
    "cost_usd": 2.47,
    "trace": [
        {"step": 0, "tool": "search.read", "args_hash": "a1b2c3d4", "duration_ms": 834, "status": "success"},
        {"step": 1, "tool": "web.fetch", "args_hash": "e5f6g7h8", "duration_ms": 1203, "status": "timeout"},
        {"step": 2, "tool": "search.read", "args_hash": "a1b2c3d4", "duration_ms": 821, "status": "success"},
    ],
}


def read(tmp_path, record):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(record))
    (run,) = TraceFile(path, "mine").runs()
    return run


def test_the_minimum_of_a_structured_log_answers_the_four_questions(tmp_path):
    run = read(tmp_path, ARTICLE)
    assert (diagnose(run).verdict, run.cost_usd, run.seconds) == (1, 2.47, 127.3)
    found = answers(run)
    assert [(r.tool, r.steps) for r in found.looped] == [("search.read", (0, 2))]
    assert (found.tools["web.fetch"].failed, found.tools["web.fetch"].slowest_s) == (1, 1.203)


def test_rows_that_were_lost_are_category_six(tmp_path):
    found = diagnose(read(tmp_path, ARTICLE | {"tool_calls": 35}))
    assert (found.verdict, found.missing) == (6, ("trace",))
    assert diagnose(read(tmp_path, ARTICLE | {"tool_calls": 35, "trace_dropped": 32})).verdict == 1


@pytest.mark.parametrize(
    "record", [{"run_id": "r", "trace": 5}, {"run_id": "r", "stop_reason": "success", "trace": [7]}]
)
def test_a_record_of_another_shape_is_named_or_empty(tmp_path, record):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(ARTICLE) + "\n" + json.dumps(record))
    first, second = TraceFile(path, "mine").runs()
    assert first.run_id == "run_abc123"
    assert isinstance(second, Broken) or list(second.calls) == []


def test_a_protobuf_that_breaks_off_gives_what_it_has_and_says_so(tmp_path):
    from exports import Step, genai_spans, otlp_proto

    look = ("order.get", {"id": "7"}, "found", False)
    one, two = (otlp_proto(genai_spans([Step(look)] * n)) for n in (2, 3))
    path = tmp_path / "spans.pb"
    path.write_bytes(one + two[: len(two) // 2])
    found = list(TraceFile(path, "mine").runs())
    assert [len(list(run.calls)) for run in found if not isinstance(run, Broken)] == [2]
    assert any(isinstance(each, Broken) for each in found)


@pytest.mark.parametrize("prefix", [lambda data: len(data).to_bytes(4, "big")])
def test_protobuf_messages_behind_their_length(tmp_path, prefix):
    from exports import Step, genai_spans, otlp_proto

    data = otlp_proto(genai_spans([Step(("order.get", {"id": "7"}, "found", False))]))
    path = tmp_path / "spans.pb"
    path.write_bytes(prefix(data) + data)
    (run,) = TraceFile(path, "mine").runs()
    assert [c.tool for c in run.calls] == ["order.get"]


def test_what_an_mcp_server_says_of_its_tools_is_believed(tmp_path):
    lines = [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        {
            "jsonrpc": "2.0",
            "id": 1,
            "result": {
                "tools": [
                    {"name": "a", "annotations": {"readOnlyHint": True}},
                    {"name": "b", "annotations": {"readOnlyHint": False}},
                ]
            },
        },
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "a", "arguments": {"x": 1}}},
        {"jsonrpc": "2.0", "id": 2, "error": {"code": -32602, "message": "Invalid arguments"}},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "b"}},
    ]
    path = tmp_path / "mcp.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    (run,) = TraceFile(path, "mine").runs()
    assert [(c.tool, c.write, c.error, c.output) for c in run.calls] == [
        ("a", False, "bad_arguments", "Invalid arguments"),
        ("b", True, None, None),
    ]


def test_what_an_agent_remembered_is_no_call_of_a_tool(tmp_path):
    config = {
        "logging": {"level": "info", "to": f"{tmp_path}/lines.jsonl"},
        "record": {"path": f"{tmp_path}/records.jsonl"},
    }
    gate = interlock.Interlock(config, store=f"sqlite:///{tmp_path}/interlock.db")

    @gate.tool("page.read", effect="read")
    async def read() -> str:
        return "page"

    async def agent(run, task):
        mine = run.memory.scope(user="ann")
        for _ in range(6):
            await run.memory.recall("tea", scope=mine)
            await run.memory.remember("tea", scope=mine)
        await run.artifacts.put("page", await run.call("page.read"), scope=mine)

    run_id = gate.run_sync(agent, "t").run_id
    gate.close()
    for name in ("records.jsonl", "lines.jsonl", "interlock.db"):
        run = by_id(tmp_path / name)[run_id]
        assert [call.tool for turn in run.turns for call in turn.calls] == ["page.read"], name
        assert run.lost == 0
        assert str(diagnose(run).verdict) == "model"
