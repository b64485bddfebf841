"""`warnings`: what a valid configuration still leaves open, by the article's rules."""

from __future__ import annotations

import pytest

from interlock.config.check import warnings
from interlock.config.settings import PROFILES, load_settings
from interlock.core.calls import Effect, OnUnknown, ToolSpec


def keys(data=None, tools=None, level="warning", **kw):
    return [f.key for f in warnings(load_settings(data, **kw), tools) if f.level == level]


def tool(name, **words):
    return ToolSpec(name, print, is_async=False, **words)


@pytest.mark.parametrize("name", sorted(set(PROFILES) - {"article"}))
def test_our_own_profiles_have_nothing_to_warn_of(name):
    assert keys(profile=name) == []


def test_the_articles_file_does_not_say_that_its_reads_are_reads():
    found = [f.text.split()[0] for f in warnings(load_settings(profile="article")) if f.level == "warning"]
    assert found == ["search.read", "kb.read"]


@pytest.mark.parametrize(
    "write",
    [{"on_unknown": "resend"}, {"on_unknown": "lookup"}, {"on_unknown": "tell"}, {"natural": True}, {"approval": "required"}],
)  # fmt: skip
def test_a_write_made_safe_is_quiet(write):
    assert keys({"tools": {"allow": ["db.write"], "writes": {"db.write": write}}}) == []


@pytest.mark.parametrize("write", [{}, {"on_unknown": "stop"}, {"natural": False}, {"repeat": "allow"}])
def test_an_allowed_write_that_is_neither_safe_nor_approved(write):
    assert keys({"tools": {"allow": ["db.write"], "writes": {"db.write": write}}}) == ["tools.writes.db.write"]


def test_a_write_by_its_effect_alone():
    assert keys({"tools": {"allow": ["db.write"], "effects": {"db.*": "write"}}}) == ["tools.writes.db.write"]


def test_a_tool_of_unknown_effect_is_a_write():
    assert keys({"tools": {"allow": ["db.dump"]}}) == ["tools.effects"]
    assert keys({"tools": {"allow": ["db.*"]}}) == ["tools.effects"]
    assert keys({"tools": {"allow": ["db.dump"], "effects": {"*.dump": "read"}}}) == []
    assert keys({"tools": {"allow": ["db.*"], "effects": {"db.dump": "read"}}}) == []


def test_a_denied_write_is_no_matter():
    assert keys({"tools": {"allow": ["db.write"], "deny": ["db.*"]}}) == []


def test_allowing_everything():
    assert keys({"tools": {"allow": ["*"]}}) == ["tools.allow"]


def test_registered_tools_are_judged_by_what_the_code_says():
    specs = [
        tool("a.read", effect=Effect.READ),
        tool("b.key", on_unknown=OnUnknown.RESEND),
        tool("c.natural", natural=True),
        tool("d.asked", approval="required"),
        tool("e.bare"),
        tool("f.denied"),
        tool("g.unlisted"),
        tool("h.declared"),
        tool("i.called_read"),
    ]
    data = {
        "tools": {
            "allow": ["a.*", "b.*", "c.*", "d.*", "e.*", "f.*", "h.*", "i.*"],
            "deny": ["f.*"],
            "writes": {"h.*": {"on_unknown": "lookup"}},
            "effects": {"i.called_read": "read"},
        }
    }
    assert keys(data, specs) == ["tools.writes.e.bare"]
    assert keys({"tools": {"allow": []}}, specs) == []


def test_without_an_allow_list_only_writes_allowed_by_hand_can_be_unsafe():
    assert keys(None, [tool("a.write", allow=True), tool("b.write")]) == ["tools.writes.a.write"]


@pytest.mark.parametrize("cap", ["max_usd", "max_steps", "max_seconds"])
def test_a_missing_cap(cap):
    assert keys({"agent": {"budgets": {cap: None}}}) == [f"agent.budgets.{cap}"]


def test_nulls_are_listed():
    found = keys({"agent": {"budgets": {"max_tool_calls": None}}}, level="note")
    assert "agent.budgets.max_tool_calls" in found
    assert "agent.budgets.max_unique_calls" in found
    assert keys({"agent": {"loop_detection": {"no_progress_threshold": None}}}) == [
        "agent.loop_detection.no_progress_threshold"
    ]
    assert "agent.max_refusals" in keys({"agent": {"max_refusals": None}}, level="note")


def test_no_record_sink():
    memory = {"store": "sqlite:///:memory:"}
    assert keys(memory) == ["record.path"]
    assert keys(memory | {"record": {"path": "runs.jsonl"}}) == []


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"mode": "observe"}, "mode"),
        ({"validation": {"output": {"fail_closed": False}}}, "validation.output.fail_closed"),
        ({"tools": {"circuit_breakers": {"enabled": False}}}, "tools.circuit_breakers.enabled"),
        ({"prices_unknown": "allow"}, "prices_unknown"),
        (
            {"tools": {"allow": [], "idempotency_required": ["a.*"], "writes": {"a.b": {"on_unknown": "stop"}}}},
            "tools.writes.a.b",
        ),
    ],
)
def test_what_was_loosened(data, key):
    assert keys(data) == [key]


def test_a_write_listed_for_safe_mode_is_refused_all_the_same():
    data = {"tools": {"writes": {"a.b": {"natural": True}}}, "safe_mode": {"allowed_tools": ["a.b"]}}
    assert "safe_mode.allowed_tools" in keys(data, level="note")


def test_warnings_come_first():
    levels = [f.level for f in warnings(load_settings({"mode": "observe"}))]
    assert levels == sorted(levels, key=lambda level: level != "warning")
    assert "note" in levels
