"""An accepted record: written once, equal as long as nothing changes, and readable where something did."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from interlock.chaos.accepted import RULES, changes, read_accepted, sections_of, text_of
from interlock.chaos.everything_agent import agent, gate
from interlock.chaos.suite import EVERYTHING, load_suite
from interlock.chaos.trying import try_once, try_task
from interlock.core.errors import ConfigError

SUITE = load_suite(EVERYTHING)
TASKS = {task.name: task for task in SUITE.tasks}


def told(name, suite=SUITE, **words):
    task = replace(next(task for task in suite.tasks if task.name == name), **words)
    return try_task(agent, gate, suite, task, told=True)


def text(name, **words):
    return "\n".join(told(name, **words).repetitions[0].account)


def test_two_trials_of_a_task_give_one_account():
    for name in ("lost_answer", "circuit_open", "killed", "two_workers", "approval_given", "memory_poisoned"):
        assert told(name) == told(name)


def test_an_account_says_what_can_be_seen_of_a_trial():
    account = text("lost_answer")
    assert "ended: success, 2 steps, 1 calls, 0.0032 USD, 920 tokens, 0.222561 s" in account
    assert "attempt 1 at 0 to 0 s, answer_lost: no answer, key #" in account
    assert '  model: {"id":"15","status":"created"' in account
    assert "sends 2" in account
    assert "evidence connection_lost unknown at 0" in account
    assert "guard retry acted 1 times" in account
    account = text("circuit_open")
    assert "  developer: kb.read: not called for another 59.8 s after repeated failures" in account
    assert "opens_in_s 59.77" in account
    assert "state approved" in text("approval_given") or "state consumed" in text("approval_given")
    assert "kb.read stands at: breaker open, opens 1" in account


def test_an_account_holds_no_identifier_that_a_seed_does_not_give():
    account = text("outcome_unknown")
    assert "run_" not in account
    assert "il1_" not in account


def test_without_being_asked_a_trial_gives_no_account_and_keys_are_nobody_elses():
    task = TASKS["lost_answer"]
    first, second = (try_once(agent, gate, SUITE, task, seed=0) for _ in range(2))
    assert first.account == second.account == ()


def test_a_change_of_the_policy_says_what_it_changes():
    before = sections_of([told("tool_rate_limit"), told("lost_answer"), told("success")])
    assert changes(before, before) == []
    changed = replace(
        SUITE, config={**SUITE.config, "tools": {**SUITE.config["tools"], "retries": {"max_attempts": 1}}}
    )
    after = sections_of([told(name, changed) for name in ("tool_rate_limit", "lost_answer", "success")])
    said = changes(before, after)
    assert "  - tools.retries.max_attempts = 2" in said
    assert "  + tools.retries.max_attempts = 1" in said
    assert "success" not in said, "what no fault has met is as it was"
    assert any(line.startswith("  + seed 0: outcome_unknown") or "+ ended: " in line for line in said)
    where = said.index("lost_answer")
    assert any(line.startswith("  -   attempt 2") for line in said[where:])


def test_a_file_is_read_as_it_was_written(tmp_path):
    sections = sections_of([told("lost_answer"), told("schema_drift")])
    assert list(sections) == [RULES, "lost_answer", "schema_drift"]
    file = tmp_path / "accepted.txt"
    file.write_text(text_of(sections), encoding="utf-8")
    assert read_accepted(file) == sections


def test_what_is_not_in_both_is_named():
    assert changes({"a": ["1"]}, {"b": ["1"]}) == [
        "a: is accepted, and was not found",
        "b: is not in the accepted record",
    ]
    many = changes({"a": ["0"]}, {"a": [str(n) for n in range(100)]}, longest=5)
    assert many[-1] == "  … 94 more lines"
    assert changes({"a": ["call 1", "  model: x"]}, {"a": ["call 1", "  model: y"]}) == [
        "a", "    call 1", "  -   model: x", "  +   model: y",
    ]  # fmt: skip


def test_a_file_that_is_not_there_or_is_none_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="write it with --accept"):
        read_accepted(tmp_path / "nowhere.txt")
    (tmp_path / "empty.txt").write_text("nothing")
    with pytest.raises(ConfigError, match="no accepted record"):
        read_accepted(tmp_path / "empty.txt")


def chaos(*words, cwd):
    return subprocess.run(
        [str(Path(sys.executable).with_name("interlock")), "chaos", "run", *map(str, words)],
        cwd=cwd, env=dict(os.environ), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.mark.process
def test_the_command_accepts_compares_and_ends_with_1_where_something_changed(tmp_path):
    suite = tmp_path / "suite.yaml"
    task = {"name": "read", "input": {"do": ["kb.read"]}, "inject": "reset", "expect": {"reasons": ["tool_failed"]}}
    calm = {"name": "calm", "input": {"do": ["kb.read"]}, "expect": "success"}
    whole = {"agent": "interlock.chaos.everything_agent:agent", "profile": "article", "tasks": [task, calm]}
    suite.write_text(json.dumps(whole))
    assert chaos(suite, "--accept", "accepted.txt", cwd=tmp_path).returncode == 0
    held = chaos(suite, "--against", "accepted.txt", cwd=tmp_path)
    assert held.returncode == 0, held.stderr
    assert "all is as it was accepted" in held.stdout
    suite.write_text(json.dumps({**whole, "seed": 1}))
    differs = chaos(suite, "--against", "accepted.txt", "--task", "read", cwd=tmp_path)
    assert differs.returncode == 1
    assert "- seed 0: tool_failed" in differs.stdout
    assert "+ seed 1: tool_failed" in differs.stdout
    as_json = chaos(suite, "--against", "accepted.txt", "--json", cwd=tmp_path)
    assert as_json.returncode == 1
    assert "read" in json.loads(as_json.stdout)["changes"]


@pytest.mark.process
def test_words_that_do_not_fit_are_refused_and_a_failing_suite_is_not_accepted(tmp_path):
    assert "leave out --against" in chaos("--accept", "a", "--against", "b", cwd=tmp_path).stderr
    assert "there is no such file" in chaos("--against", "b", cwd=tmp_path).stderr
    suite = tmp_path / "suite.yaml"
    task = {"name": "read", "input": {"do": ["kb.read"]}, "inject": "reset", "expect": "success"}
    suite.write_text(json.dumps({"agent": "interlock.chaos.everything_agent:agent", "tasks": [task]}))
    failed = chaos(suite, "--accept", "accepted.txt", cwd=tmp_path)
    assert failed.returncode == 1
    assert "not written: a task has not passed" in failed.stderr
    assert not (tmp_path / "accepted.txt").exists()
