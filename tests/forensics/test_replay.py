"""The decisions alone say what the whole live funnel says; and calibration proposes what its runs need."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recorded import call, run

from interlock.config.settings import load_settings
from interlock.forensics.calibration import calibrate
from interlock.forensics.effects import SetEffects, load_effects
from interlock.forensics.funnel import drive
from interlock.forensics.funnel_report import backtest_funnel
from interlock.forensics.replay import Judge
from interlock.forensics.report import Report, diagnoses
from interlock.forensics.suite import load_suite, uncovered
from interlock.forensics.trace_files import TraceFile
from interlock.forensics.traces import RecordedTurn

EFFECTS = SetEffects(
    reads=("get*",), writes=("pay", "toggle", "save"), natural=("save",), allow_repeat=("toggle",), exempt=("get_poll",)
)
FIGURES = (
    "reason",
    "stopped_at",
    "steps",
    "executed",
    "answered",
    "refused",
    "transient_seen",
    "bursts_recorded",
    "bursts_seen",
    "duplicates_recorded",
    "duplicates_executed",
    "withheld",
    "denied",
)

tools = st.sampled_from(["get", "get_poll", "pay", "toggle", "save", "other", "no such tool!"])
errors = st.sampled_from([None, None, None, "server_or_network", "timeout", "rate_limit", "bad_arguments", "auth"])
calls = st.builds(
    lambda tool, n, output, error: call(tool, {"n": n}, output, error=error),
    tools,
    st.integers(0, 1),
    st.sampled_from(["a", "b", "n is 1"]),
    errors,
)
turns = st.lists(st.lists(calls, max_size=3), min_size=1, max_size=14)
configurations = st.sampled_from(
    [
        {},
        {"profile": "article", "tools": {"allow": ["*"], "idempotency_required": []}},
        {"agent": {"budgets": {"max_steps": 5, "max_tool_calls": 6}}},
        {"agent": {"budgets": {"max_unique_calls": 2}, "loop_detection": {"repeated_calls_threshold": 4}}},
        {"agent": {"max_refusals": 1}, "tools": {"allow": ["get*", "pay"]}},
        {"tools": {"writes": {"pay": {"on_unknown": "resend"}, "save": {"on_unknown": "lookup"}}}},
        {"tools": {"retries": {"max_attempts": 3}, "budgets": {"get": {"max_calls": 2, "max_retries": 1}}}},
        {"tools": {"writes": {"pay": {"repeat": "allow"}}, "circuit_breakers": {"failure_threshold": 2}}},
        {"tools": {"untrusted_output": ["get"], "when_tainted": {"*": "refuse", "save": "approval"}}},
        {"tools": {"when_tainted": {"pay": {"then": "refuse", "arguments": ["n"]}, "get_poll": "refuse"}}},
    ]
)


def failing(error):
    return call("get", {"n": 0}, error=error)


GET, INVENTED = call("get", {"n": 0}, "a"), call("no such tool!", {"n": 0}, "a")


@settings(max_examples=60, deadline=None)
@example(  # an answer after an attempt that may have happened says less than one without
    turns=[[failing("server_or_network")], [failing("server_or_network"), failing("bad_arguments")]], config={}
)
@example(turns=[[GET, INVENTED], [GET, GET], [GET, INVENTED], [INVENTED, GET]], config={})  # the invented count too
@given(turns=turns, config=configurations)
def test_any_run_ends_as_in_the_live_funnel(turns, config):
    recorded, configured = run(*turns), load_settings(config or None)
    whole = drive(recorded, configured, EFFECTS, recorded_time=False)
    alone = Judge(configured, EFFECTS, recorded_time=False, infer=False).judge(recorded)
    assert {name: getattr(alone, name) for name in FIGURES} == {name: getattr(whole, name) for name in FIGURES}


@pytest.mark.parametrize(("name", "stride"), [("tau_retail_503", 1), ("livemcp", 2), ("tau2", 12), ("agentdojo", 120)])
def test_shared_runs_end_as_in_the_live_funnel(data, name, stride):
    configured = load_settings(None)
    judge = Judge(configured, load_effects()[name], recorded_time=False, infer=False)
    runs = TraceFile(data / name / "normalized.jsonl.gz", name).runs()
    for recorded in itertools.islice(runs, 0, None, stride):
        whole, alone = drive(recorded, configured, load_effects()[name], recorded_time=False), judge.judge(recorded)
        assert {n: getattr(alone, n) for n in FIGURES} == {n: getattr(whole, n) for n in FIGURES}, recorded.run_id


def test_dollars_and_seconds_of_what_was_not_done_are_saved():
    turns = [RecordedTurn((call("get", {"n": 1}, "same"),), cost_usd=0.5, at_s=float(10 * n)) for n in range(8)]
    recorded = dataclasses.replace(run(*turns, seconds=80.0), cost_usd=4.0)
    driven = Judge(load_settings({"agent": {"budgets": {"max_usd": 100}}}), EFFECTS).judge(recorded)
    assert (driven.stopped_at, driven.steps, driven.saved) == (5, 5, 6)
    assert driven.saved_usd == pytest.approx(1.5)
    assert driven.saved_s == pytest.approx(30.0)


def test_recorded_seconds_count_only_where_they_were_recorded():
    slow = dataclasses.replace(run(*[call("get", {"n": n}) for n in range(4)]), seconds=5_000.0)
    configured = load_settings(None)
    assert str(Judge(configured, EFFECTS).judge(slow).reason) == "time_budget"
    assert not Judge(configured, EFFECTS, recorded_time=False).judge(slow).stopped
    assert not Judge(configured, EFFECTS).judge(dataclasses.replace(slow, seconds=None)).stopped


def test_tools_of_which_nobody_says_anything_are_judged_by_what_they_brought_back():
    recorded = run(*[call("x", {"to": "a", "n": 1}, "Payment has been made.")] * 3, *[call("y", {"n": 1}, "page")] * 2)
    judge = Judge(load_settings(None), SetEffects())
    driven = judge.judge(recorded)
    assert driven.undeclared == ("x", "y")
    assert (driven.duplicates_recorded, driven.duplicates_executed) == (2, 0)


def log(runs, *, model="m"):
    """Recorded runs as chat logs: (task, success, tool names in order, [(tool, args, output)])."""
    lines = []
    for task, success, made in runs:
        messages = [{"role": "user", "content": "go"}]
        for n, (tool, args, output) in enumerate(made):
            asked = {"id": f"c{n}", "function": {"name": tool, "arguments": json.dumps(args)}}
            messages.append({"role": "assistant", "tool_calls": [asked]})
            messages.append({"role": "tool", "tool_call_id": f"c{n}", "content": output})
        lines.append({"task_id": task, "success": success, "messages": messages})
    return "\n".join(map(json.dumps, lines))


def healthy(task, calls):
    return task, True, [("get_it", {"n": n}, f"page {n}") for n in range(calls)]


@pytest.fixture
def recorded(tmp_path):
    polls = [step for n in range(7) for step in (("poll", {}, "pending"), ("get_it", {"n": 100 + n}, f"page {n}"))]
    fails = [("get_it", {"n": 0}, "Error: 503 Service Unavailable")] * 2 + [("get_it", {"n": 0}, "page")]
    runs = [healthy(n, 5 + n % 20) for n in range(200)]
    runs += [(300 + n, True, polls) for n in range(4)]
    runs += [(400 + n, True, fails) for n in range(4)]
    runs += [(500 + n, False, [("get_it", {"n": 1}, "same")] * 12) for n in range(10)]
    path = tmp_path / "mine.jsonl"
    path.write_text(log(runs), encoding="utf-8")
    return path


def test_what_is_proposed_is_what_healthy_runs_need_and_a_quarter_more(recorded):
    found = calibrate([recorded])
    assert found.caps.budgets == {"max_steps": 30, "max_tool_calls": 30}  # 1.25 x 24
    assert found.caps.exempt == ("poll",)
    assert found.caps.max_attempts == 3
    assert (found.runs, found.healthy) == (218, 208)
    (checked,) = found.sets
    assert (checked.runaways, checked.runaways_stopped, checked.runaways_late) == (10, 10, 0)
    assert checked.to_dict()["proposed"]["false_stops"] == 0
    load_settings(found.caps.to_config())


def test_margin_and_percentile_are_the_callers(recorded):
    assert calibrate([recorded], margin=2.0, percentile=50).caps.budgets["max_steps"] == 2 * 14


def test_few_runs_get_a_wider_margin_that_is_told(tmp_path):
    path = tmp_path / "few.jsonl"
    path.write_text(log([healthy(n, 10) for n in range(25)]))
    found = calibrate([path])
    assert found.caps.budgets["max_steps"] == 25  # 1.25 x 10 x sqrt(100 / 25)
    assert "25 are few" in found.caps.why["max_steps"]


def test_a_configuration_that_was_proposed_can_be_backtested(recorded, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump(calibrate([recorded]).caps.to_config()))
    (mine,) = backtest_funnel([recorded], config, deep=False).sets
    assert (mine.failing.stopped, mine.successful.stopped) == (10, 0)
    assert mine.false_stops == []


def test_failures_that_no_golden_task_covers_are_named(recorded, tmp_path):
    report = Report()
    assert len(list(diagnoses([recorded], report))) == 218
    suite = tmp_path / "golden.yaml"
    suite.write_text("golden_tasks:\n- {name: simple, expect: success}\n- {name: flaky, inject: timeout_50%}\n")
    gaps = list(uncovered(report, load_suite(suite)))
    assert len(gaps) == 2
    assert "category 1" in gaps[0]
    assert "server_or_network" in gaps[1]
    suite.write_text("tasks:\n- {name: a, inject: partial_results_forever}\n- {name: b, inject: 503_errors}\n")
    assert list(uncovered(report, load_suite(suite))) == []
