"""diagnose, explain, calibrate and backtest, as verbs: what they print, and what they do not let through."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

import interlock

EVIL = "<script>alert(1)</script>\x1b[2J"


def chat(*calls, said="go", **about):
    messages = [{"role": "user", "content": said}]
    for n, (tool, args, output) in enumerate(calls):
        asked = {"id": f"c{n}", "function": {"name": tool, "arguments": json.dumps(args)}}
        messages.append({"role": "assistant", "tool_calls": [asked]})
        messages.append({"role": "tool", "tool_call_id": f"c{n}", "content": output})
    return {"messages": messages} | about


@pytest.fixture
def traces(here):
    records = [
        chat(("look", {"n": 1}, "same"), run_id="fine", success=True),
        chat(*[("look", {"n": 1}, "same")] * 9, run_id="looped", success=False),
        chat(*[(EVIL, {"to": "a", "text": EVIL}, "Message sent.")] * 2, run_id=EVIL, success=True),
    ]
    (here / "traces.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n{broken\n", encoding="utf-8")
    rows = [
        {"step": n, "tool": tool, "args_hash": "ab", "status": "ok"}
        for n, tool in enumerate(("ticket.create", "refund.create"))
    ]
    ticket = {"run_id": "t", "stop_reason": "success", "trace": rows}
    (here / "tickets.jsonl").write_text(json.dumps(ticket) + "\n{broken\n", encoding="utf-8")
    return here


def test_diagnose_prints_one_line_a_run(typed, traces):
    said = typed("diagnose", "traces.jsonl", "--json")
    assert said.code == 0
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [(line["run_id"], line["verdict"]) for line in lines] == [("fine", "model"), ("looped", 1), (EVIL, 3)]
    for line in lines:
        assert set(line) == {"run_id", "verdict", "missing", "evidence", "confidence"}
        assert all(set(one) == {"step", "tool", "args_hash", "why"} for one in line["evidence"])
    assert "traces.jsonl:4" in said.err
    assert "1 broken records" in said.err


def test_diagnose_sums_up(typed, traces):
    out = typed("diagnose", "traces.jsonl").out
    assert "unbounded loop" in out
    assert "duplicate_write" in out
    assert "loop_detected" in out
    assert "\x1b" not in out


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href", "srcset", "action"}]


def test_the_report_is_one_page_that_fetches_and_runs_nothing(typed, traces):
    assert typed("diagnose", "traces.jsonl", "--html", "report.html").code == 0
    html = (traces / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert page.links == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert page.tags.count("svg") == page.tags.count("details") >= 2
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "default-src 'none'" in html
    assert not re.search(r"url\(|@import|https?://", html)


def test_diagnose_says_which_failures_no_golden_task_covers(typed, traces):
    (traces / "golden.yaml").write_text("- {name: simple, expect: success}\n")
    assert "category 1" in typed("diagnose", "traces.jsonl", "--suite", "golden.yaml").err
    (traces / "golden.yaml").write_text("nothing")
    said = typed("diagnose", "traces.jsonl", "--suite", "golden.yaml")
    assert (said.code, "a list of tasks" in said.err) == (1, True)


def test_nothing_to_diagnose_is_an_error(typed, here):
    (here / "notes.jsonl").write_text('{"note": 1}')
    assert typed("diagnose", "notes.jsonl").code == 1
    assert typed("diagnose", "nowhere").code == 1


def test_backtest_compares_two_configurations(typed, traces):
    (traces / "strict.yaml").write_text("agent: {budgets: {max_steps: 1}}\n")
    said = typed("backtest", "traces.jsonl", "--config", "strict.yaml", "--against", "default", "--json").json
    (strict,), (default,) = said["sets"], said["against"]["sets"]
    assert strict["reasons"] == {"success": 1, "step_budget": 2}
    assert default["failing_stopped"] == strict["failing_stopped"] == 1
    assert (strict["successful_stopped"], len(strict["false_stops"])) == (1, 1)
    assert "upper bounds" in said["caution"]
    out = typed("backtest", "traces.jsonl", "--config", "strict.yaml", "--against", "default").out
    assert "with" in out


def test_backtest_takes_a_configuration_that_counts_on_keys_and_lookups(typed, traces):
    assert typed("init", "--profile", "support").code == 0
    for how in ((), ("--funnel",)):
        said = typed("backtest", "tickets.jsonl", "--config", "interlock.yaml", *how)
        assert said.code == 0
        assert "interlock.yaml (profile default)" in said.out
        assert "broken: tickets.jsonl:2" in said.err


@pytest.mark.parametrize("typing", [("diagnose", "--html"), ("calibrate", "--out")])
def test_a_file_that_cannot_be_written_is_named(typed, traces, typing):
    verb, option = typing
    said = typed(verb, "traces.jsonl", option, "nowhere/x")
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith(f"error: {option}: nowhere/x cannot be written")


def test_backtest_names_false_stops_and_why(typed, traces):
    (traces / "none.yaml").write_text("tools: {deny: [look]}\nagent: {max_refusals: 1}\n")
    records = [chat(("look", {"n": 1}, "a"), ("look", {"n": 2}, "b"), run_id="stopped", success=True)]
    (traces / "one.jsonl").write_text(json.dumps(records[0]))
    (found,) = typed("backtest", "one.jsonl", "--config", "none.yaml", "--json").json["sets"]
    assert [(stop["run_id"], stop["reason"]) for stop in found["false_stops"]] == [("stopped", "tool_denied")]
    assert "deny" in found["false_stops"][0]["why"]
    assert "stopped" in typed("backtest", "one.jsonl", "--config", "none.yaml").out


def test_calibrate_writes_a_configuration_that_is_valid_and_says_why(typed, traces):
    said = typed("calibrate", "traces.jsonl", "--out", "mine.yaml")
    assert said.code == 0
    text = (traces / "mine.yaml").read_text()
    assert "# 1.25 x p99" in text
    assert typed("check", "mine.yaml").code == 0
    assert typed("calibrate", "traces.jsonl", "--json").json["config"]["agent"]["budgets"]["max_steps"] >= 5
    assert "max_tool_calls" in typed("calibrate", "traces.jsonl").out


@pytest.fixture
def incidents(here):
    """A store with a run of each kind: id by name, and the live categories."""
    found = {}
    gate = interlock.Interlock({"logging": {"level": "error"}}, store=f"sqlite:///{here}/interlock.db")

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

    async def denied(run, task):
        while True:
            async with run.step():
                pass
            await run.observe("db.write", {})

    async def fails(run, task):
        await run.call("page.read", {"n": 1})
        raise KeyError("mine")

    async def fine(run, task):
        return await run.call("page.read", {"n": 1})

    for agent in (loops, doubts, denied, fails, fine):
        found[agent.__name__] = gate.run_sync(agent, "t")
    metrics = gate.metrics()
    gate.close()
    return found, metrics


@pytest.mark.parametrize(
    ("name", "category", "says"),
    [
        ("loops", 1, "next: interlock runbook loop_detected"),
        ("doubts", 3, "next: interlock doubts"),
        ("denied", 2, "next: interlock runbook tool_denied"),
        ("fails", "model", "model or task error"),
        ("fine", None, "no failure"),
    ],
)
def test_explain_result_and_metric_agree(typed, incidents, name, category, says):
    results, metrics = incidents
    result = results[name]
    found = typed("explain", result.run_id, "--json").json
    assert found["category"] == result.details.get("category") == category
    label = "none" if category is None else category
    assert f'agent="{name}",stop_reason="{result.reason}",category="{label}"' in metrics
    out = typed("explain", result.run_id).out
    assert says in out
    for question in (
        "which step looped?",
        "which tool is slow or failing?",
        "when did budgets trigger?",
        "what did it cost?",
    ):
        assert question in out


def test_explain_prints_the_path_with_the_steps_that_decide(typed, incidents):
    results, _ = incidents
    found = typed("explain", results["loops"].run_id, "--json").json
    assert [turn["answer"] for turn in found["path"]] == ["no"] * 6 + ["yes"]
    assert found["path"][-1]["steps"] == [4]
    assert found["answers"]["looped"][0]["steps"] == [0, 1, 2, 3, 4, 5]
    assert found["answers"]["loop_stopped_at_step"] == 4
    assert found["runbook"] == "loop_detected"
    assert typed("explain").code == 0
    assert typed("explain", "run_none").code == 1


def test_diagnose_reads_the_store_and_files_runs_as_they_were_filed_live(typed, incidents, here):
    results, _ = incidents
    said = typed("diagnose", "interlock.db", "--json")
    verdicts = {line["run_id"]: line["verdict"] for line in map(json.loads, said.out.splitlines())}
    assert verdicts == {r.run_id: r.details.get("category", "model") for r in results.values()}
