"""Recorded agents in the live funnel: what is stopped, what is answered, what is executed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from recorded import call, run

from interlock.config.settings import load_settings
from interlock.core.errors import ConfigError
from interlock.core.reasons import StopReason
from interlock.forensics.effects import SetEffects
from interlock.forensics.funnel import ASSUMED_TURN_S, drive
from interlock.forensics.funnel_report import backtest_funnel
from interlock.forensics.traces import RecordedTurn

EFFECTS = SetEffects(
    reads=("get*", "look*"), writes=("pay", "toggle", "save"), natural=("save",), allow_repeat=("toggle",)
)


def driven(*turns, config=None, effects=EFFECTS, recorded_time=True, **about):
    return drive(run(*turns, **about), load_settings(config), effects, recorded_time=recorded_time)


def figures(result, *names):
    return tuple(getattr(result, name) for name in names)


def test_a_healthy_run_goes_through_untouched():
    result = driven(
        call("get", {"id": 1}, "a"),
        [],
        [call("look", {"id": 1}, "b"), call("pay", {"to": "x"}, "c")],
        call("get", {"id": 2}),
    )
    assert result.reason is StopReason.SUCCESS
    assert figures(result, "steps", "recorded", "executed", "answered", "refused", "saved") == (4, 4, 4, 0, 0, 0)
    assert (result.strayed, result.stopped_at) == (0, None)


def test_a_loop_of_equal_reads_is_answered_and_then_stopped():
    result = driven(*[call("get", {"id": 1}, "same")] * 50)
    assert result.reason is StopReason.LOOP_DETECTED
    assert figures(result, "executed", "answered", "stopped_at", "saved", "stale") == (2, 2, 5, 48, 0)


def test_equal_reads_with_a_write_between_are_verification():
    turns = []
    for i in range(6):
        turns += [call("get", {"id": 1}, "same"), call("pay", {"to": i})]
    result = driven(*turns)
    assert figures(result, "reason", "executed") == (StopReason.SUCCESS, 12)


def test_equal_writes_are_performed_once():
    result = driven(*[call("pay", {"to": "x"}, f"paid, receipt {i}") for i in range(15)])
    assert result.reason is StopReason.LOOP_DETECTED
    assert figures(result, "executed", "duplicates_recorded", "duplicates_executed") == (1, 14, 0)


def test_switches_may_be_used_again_and_again():
    turns = [call("toggle", {}, on) for on in ("on", "off")] + [call("get", {}), call("toggle", {"x": 1})]
    result = driven(*turns)
    assert figures(result, "reason", "executed", "duplicates_recorded") == (StopReason.SUCCESS, 4, 0)


def test_a_write_rejected_again_and_again_is_stopped():
    result = driven(*[call("pay", {"to": "x"}, "Error: does not match", error="business_or_other")] * 10)
    assert result.stopped
    assert result.executed < 10


def passing():
    return call("get", {"id": 1}, "Error: 503 Service Unavailable", error="server_or_network")


@pytest.mark.parametrize("burst", [1, 2, 3, 4])
def test_a_burst_of_503_is_survived_and_two_of_each_three_hidden(burst):
    result = driven(*[passing()] * burst, call("get", {"id": 1}, "ok"), call("look", {"id": 1}, "ok"))
    assert result.reason is StopReason.SUCCESS
    assert result.transient_recorded == burst
    assert result.transient_seen == burst // 3


def test_more_attempts_hide_longer_bursts():
    config = {"tools": {"retries": {"max_attempts": 4}}}
    result = driven(*[passing()] * 3, call("get", {"id": 1}, "ok"), config=config)
    assert figures(result, "transient_seen", "reason") == (0, StopReason.SUCCESS)


def test_breakers_are_not_shared_between_recorded_runs():
    fails = [call("get", {"id": i}, "Error: 503", error="server_or_network") for i in range(4)]
    first, second = (driven(*fails, call("look", {}, "ok")) for _ in range(2))
    assert figures(first, "executed", "refused") == figures(second, "executed", "refused")


def test_recorded_seconds_count_against_the_time_budget():
    slow = [RecordedTurn((call("get", {"id": i}),), None, i * 100.0) for i in range(20)]
    result = driven(*slow)
    assert figures(result, "reason", "executed") == (StopReason.TIME_BUDGET, 9)
    assert driven(*slow, recorded_time=False).reason is StopReason.SUCCESS


def test_the_seconds_of_the_last_answer_count_too():
    assert driven(call("get"), [], seconds=5_000.0).reason is StopReason.TIME_BUDGET


def test_a_run_of_known_length_takes_it_evenly_and_one_of_unknown_length_takes_its_time():
    calls = [call("get", {"id": i}) for i in range(10)]
    assert driven(*calls, seconds=1_800.0).executed == 4
    assert driven(*calls, config={"agent": {"budgets": {"max_seconds": 5 * ASSUMED_TURN_S}}}).executed == 4


def test_a_configuration_that_only_observes_is_judged_as_if_enforced():
    result = driven(*[call("get", {}, "same")] * 9, config={"mode": "observe"})
    assert result.reason is StopReason.LOOP_DETECTED


def test_recorded_dollars_count_against_the_cost_budget():
    result = driven(*[RecordedTurn((call("get", {"id": i}),), 0.3) for i in range(10)])
    assert result.reason is StopReason.COST_BUDGET
    assert result.executed < 5


def test_an_invented_tool_is_refused_and_the_run_goes_on():
    result = driven(call("get<|channel|>commentary", {}, "no such tool"), call("get", {"id": 1}))
    assert figures(result, "reason", "refused", "executed") == (StopReason.SUCCESS, 1, 1)


def test_a_polling_tool_may_be_exempt():
    effects = SetEffects(reads=("get",), exempt=("get",))
    assert driven(*[call("get", {}, "waiting")] * 30, effects=effects).reason is StopReason.SUCCESS


def test_a_write_of_unknown_outcome_stops_the_run_unless_the_set_says_otherwise():
    timed_out = call("act", {}, "Tool call timed out.", error="timeout")
    assert driven(timed_out, call("get")).reason is StopReason.OUTCOME_UNKNOWN
    assert driven(timed_out, call("get"), effects=SetEffects(tell=("act",))).reason is StopReason.SUCCESS


def test_equal_calls_of_one_turn_do_not_count_against_each_other():
    result = driven([call("get", {"id": 1}, "same")] * 6, call("look"))
    assert result.reason is StopReason.SUCCESS


def test_arguments_that_are_no_object_are_proposed_all_the_same():
    result = driven(call("get", "not json {"), call("get", [1, 2]), call("get", None))
    assert figures(result, "executed", "strayed") == (3, 0)


def test_the_configuration_decides():
    config = {"agent": {"budgets": {"max_tool_calls": 2}}}
    result = driven(*[call("get", {"id": i}) for i in range(5)], config=config)
    assert figures(result, "reason", "executed") == (StopReason.TOOL_BUDGET, 2)


def test_where_the_effects_are_silent_the_record_may_say_that_a_tool_reads():
    def twice(write):
        recorded = replace(call("fetch", {}, "page"), write=write)
        return driven(recorded, recorded, call("get"))

    assert figures(twice(write=False), "executed", "undeclared", "duplicates_recorded") == (3, ("fetch",), 0)
    assert figures(twice(write=True), "executed", "undeclared", "duplicates_recorded") == (2, ("fetch",), 1)
    assert figures(twice(write=None), "executed", "duplicates_recorded") == (2, 1)


def test_the_configuration_may_know_better_what_a_tool_does():
    config = {"tools": {"effects": {"pay": "read"}}}
    result = driven(*[call("pay", {"to": "x"})] * 2, config=config)
    assert figures(result, "executed", "duplicates_recorded", "duplicates_executed") == (2, 0, 0)


# -- the report


def chat(*calls):
    messages = []
    for i, (tool, args, output) in enumerate(calls):
        function = {"name": tool, "arguments": json.dumps(args)}
        messages += [
            {"role": "assistant", "tool_calls": [{"id": f"c{i}", "function": function}]},
            {"role": "tool", "tool_call_id": f"c{i}", "content": output},
        ]
    return {"messages": messages}


@pytest.fixture
def traces(tmp_path):
    fine = chat(("get_a", {}, "1"), ("pay", {"to": "x"}, "2")) | {"success": True, "task_id": 1}
    loop = chat(*[("get_a", {"id": 1}, "1")] * 10) | {"success": True, "task_id": 2}
    paid = chat(*[("pay", {"to": "x"}, f"receipt {i}") for i in range(10)]) | {"success": False, "task_id": 3}
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join([*map(json.dumps, (fine, loop, paid)), "{broken"]))
    (tmp_path / "other.json").write_text('{"spans": []}')
    (tmp_path / "effects.yaml").write_text("mine: {reads: ['get_*'], writes: [pay]}")
    return tmp_path


def test_the_report_has_one_object_a_set_with_false_stops_beside_savings(traces):
    seen = []
    report = backtest_funnel(
        [traces], profile="default", effects=traces / "effects.yaml", progress=lambda *at: seen.append(at)
    )
    whole = json.loads(json.dumps(report.to_dict()))
    (mine,) = whole["sets"]
    assert (mine["dataset"], mine["runs"], mine["reasons"]) == ("mine", 3, {"loop_detected": 2, "success": 1})
    assert mine["duplicates"] == {"recorded": 9, "executed": 0}
    assert mine["calls"]["recorded"] == 22
    assert mine["calls"]["executed"] == 2 + 2 + 1
    assert (mine["successful"]["runs"], mine["successful"]["stopped"], mine["successful"]["stopped_runaways"]) == (
        2,
        1,
        1,
    )
    assert mine["successful"]["stopped_pct"] == 50.0
    assert mine["successful"]["stopped_other_pct"] == 0.0
    assert mine["failing"]["calls_saved"] == 9
    assert [(s["run_id"], s["success"]) for s in mine["stopped"]] == [("t2", True), ("t3", False)]
    assert len(mine["broken"]) == 1
    assert "mine.jsonl:4" in mine["broken"][0]
    assert [u["why"] for u in whole["unread"]] == ["no reader knows this format"]
    assert mine["undeclared_tools"] == []
    assert "upper bounds" in whole["caution"]
    assert seen == [("mine", 1), ("mine", 2), ("mine", 3)]


def test_a_profile_is_judged_with_every_recorded_tool_permitted(traces):
    report = backtest_funnel([traces / "mine.jsonl"], profile="article", effects=traces / "effects.yaml")
    assert report.sets[0].reasons["tool_denied"] == 0
    assert report.profile == "article"


def test_a_configuration_is_judged_with_its_allow_list(traces):
    config = {"tools": {"allow": ["get_*"]}}
    report = backtest_funnel([traces / "mine.jsonl"], config, effects=traces / "effects.yaml")
    assert report.sets[0].counts["executed"] == 1 + 2
    assert report.sets[0].counts["refused"] > 0


def test_without_an_effect_a_recorded_tool_is_a_write(traces):
    report = backtest_funnel([traces / "mine.jsonl"])
    assert report.sets[0].counts["duplicates_recorded"] == 9 + 9
    assert report.sets[0].undeclared == {"get_a", "pay"}


def test_effects_may_be_stated_for_a_format(traces):
    (traces / "effects.yaml").write_text("openai_chat: {reads: ['get_*'], writes: [pay]}")
    report = backtest_funnel([traces / "mine.jsonl"], effects=traces / "effects.yaml")
    assert report.sets[0].counts["duplicates_recorded"] == 9


def test_what_cannot_be_used_is_an_error(traces):
    with pytest.raises(ConfigError, match="no profile is called"):
        backtest_funnel([traces], profile="nope")
    with pytest.raises(FileNotFoundError):
        backtest_funnel([traces / "gone"])
