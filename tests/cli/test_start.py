"""init, check, runbook: they need no store."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from interlock.config.settings import PROFILES, json_schema, load_settings, profile_text
from interlock.core.reasons import EXIT_CODES, SEVERITIES, StopReason


def test_init_writes_the_articles_config_with_comments(typed):
    said = typed("init")
    text = Path("interlock.yaml").read_text(encoding="utf-8")
    assert (said.code, text) == (0, profile_text("article"))
    assert "max_steps: 25 #" in text
    assert load_settings("interlock.yaml").agent.budgets.max_steps == 25
    assert "interlock check" in said.out


@pytest.mark.parametrize("profile", PROFILES)
def test_what_init_writes_check_accepts(typed, profile):
    assert typed("init", "--profile", profile, "mine.yaml", "--json").json == {"file": "mine.yaml", "profile": profile}
    assert typed("check", "mine.yaml", "--json").json["ok"] is True


def test_init_does_not_overwrite(typed):
    Path("interlock.yaml").write_text("mode: observe", encoding="utf-8")
    said = typed("init")
    assert said.code == 1
    assert "--force" in said.err
    assert Path("interlock.yaml").read_text(encoding="utf-8") == "mode: observe"
    assert typed("init", "--force").code == 0


def test_init_to_standard_output_and_to_nowhere(typed):
    assert typed("init", "-").out == profile_text("article")
    assert not Path("interlock.yaml").exists()
    assert "cannot be written" in typed("init", "no/such/folder.yaml").err
    assert "no profile is called" in typed("init", "--profile", "suport").err


def test_check_names_line_and_key(typed):
    Path("interlock.yaml").write_text("agent:\n  budgets:\n    max_tools: 3\n", encoding="utf-8")
    said = typed("check")
    assert said.code == 1
    assert said.err == "error: interlock.yaml:3: agent.budgets.max_tools: unknown key; did you mean max_tool_calls?\n"
    as_json = typed("check", "--json")
    assert as_json.code == 1
    assert as_json.json["ok"] is False
    assert "max_tool_calls" in as_json.json["errors"][0]


def test_check_warns_and_strict_fails(typed):
    Path("interlock.yaml").write_text("tools: {allow: [db.write], effects: {db.write: write}}", encoding="utf-8")
    said = typed("check")
    assert said.code == 0
    assert "tools.writes.db.write: db.write is a write that can neither be repeated safely nor is approved" in said.out
    assert "agent.budgets.max_tokens: null: unlimited" in said.out
    assert typed("check", "--strict").code == 1
    assert typed("check", "--strict", "--profile", "support").code == 0


def test_check_without_a_file_judges_the_defaults(typed):
    said = typed("check", "--json")
    assert said.json["profile"] == "default"
    assert said.json["store"] == "sqlite:///interlock.db"
    assert "no interlock.yaml here" in said.err


def test_check_of_two_things_is_a_usage_error(typed):
    assert typed("check", "a.yaml", "--profile", "support").code == 2


GATE = """
import interlock

gate = interlock.Interlock({"tools": {"allow": ["a.read", "b.write", "c.write"]}}, store="sqlite:///:memory:")

@gate.tool("a.read", effect="read")
def read() -> str: ...

@gate.tool("b.write", effect="write")
def send(*, idempotency_key: str) -> str: ...

@gate.tool("c.write", effect="write")
def post(text: str) -> str: ...
"""


def test_check_judges_a_gate_with_the_tools_it_registers(typed, here, monkeypatch):
    (here / "my_gate.py").write_text(GATE, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = typed("check", "--gate", "my_gate:gate", "--json").json["findings"]
    assert [f["key"] for f in found if f["level"] == "warning"] == ["tools.writes.c.write"]


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ("no_such_module:gate", "ModuleNotFoundError"),
        ("json:gate", "AttributeError"),
        ("json:loads", "not an Interlock"),
    ],
)
def test_check_of_a_gate_that_is_not_there(typed, monkeypatch, gate, says):
    monkeypatch.setattr(sys, "path", list(sys.path))
    said = typed("check", "--gate", gate)
    assert said.code == 1
    assert says in said.err


def test_the_schema_is_published(typed):
    assert typed("check", "--schema").json == json.loads(json.dumps(json_schema()))


@pytest.mark.parametrize("reason", StopReason)
def test_every_stop_reason_has_its_runbook(typed, reason):
    said = typed("runbook", reason.value)
    assert said.code == 0
    assert said.out.startswith(f"# {reason.value}\n")
    facts = typed("runbook", reason.value, "--json").json
    assert facts["severity"] == SEVERITIES[reason]
    assert facts["exit_code"] == EXIT_CODES[reason]
    assert "## Mitigation" in facts["text"]


def test_the_list_of_runbooks(typed):
    listed = typed("runbook", "--list", "--json").json
    assert [entry["stop_reason"] for entry in listed] == list(StopReason)
    table = typed("runbook", "--list").out
    assert "loop_detected" in table
    assert "critical" in table


def test_a_runbook_that_is_not_there(typed):
    said = typed("runbook", "loop_detcted")
    assert said.code == 1
    assert "did you mean loop_detected?" in said.err
