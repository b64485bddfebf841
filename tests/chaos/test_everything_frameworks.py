"""The suite `everything` on agents of frameworks: whatever is not the agent's own doing holds there, too.

By default two of them meet one worker that is killed or stopped; INTERLOCK_PROOF_SCALE above 1 has all such tasks.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from interlock.chaos.everything_agent import gate
from interlock.chaos.faults import MEMORY_KINDS, MODEL_KINDS, WORKER_KINDS
from interlock.chaos.suite import EVERYTHING, faults_of, load_suite
from interlock.chaos.trying import try_once

HERE = Path(__file__).parent
SCALE = int(os.environ.get("INTERLOCK_PROOF_SCALE", "1"))
SUITE = load_suite(EVERYTHING)
AGENTS = ["pydantic_ai", "langchain", "google_adk", "openai_agents"]
HOLD = [
    "success", "tool_auth_failed", "circuit_open", "flaky_for_a_while", "injected_instruction", "step_budget",
    "tool_budget", "cost_budget", "token_budget", "no_progress", "lost_answer", "outcome_unknown", "clock_jump",
    "same_write_twice", "tainted_by_a_page", "approval_pending", "approval_given", "store_answer_lost", "safe_mode",
    "scope_missing", "scope_held", "tenant_may_not", "run_may_not", "unique_calls", "calls_of_one_tool",
    "dollars_of_a_tenant", "price_unknown", "wrapped_up", "only_watched", "write_times_out", "found_by_asking",
    "not_found_by_asking", "address_of_a_page", "subject_of_our_own", "page_before_a_person", "asked_about_the_second",
    "cancelled", "duplicate_delivery", "two_workers",
]  # fmt: skip
# What the shipped agent raises, a framework's agent tells its model: the same effects, and the run goes on to its end.
GOES_ON = [
    "tool_timeout", "tool_rate_limit", "tool_failed", "schema_drift", "malformed_body", "error_with_200", "oversized",
    "wrong_value", "approval_denied", "approval_expired", "store_unavailable", "asked_to_wait_too_long",
    "not_worth_another_try", "never_found_by_asking",
]  # fmt: skip
WORKERS = [
    "worker_killed_mid_write", "zombie_worker_with_an_invoice", "worker_killed_before_it_sent",
    "worker_killed_with_an_invoice_out", "zombie_worker", "abandoned",
]  # fmt: skip
DYING = list(itertools.product(AGENTS, WORKERS) if SCALE > 1 else zip(AGENTS[:2], WORKERS, strict=False))


def tried(name, task):
    return try_once(importlib.import_module(f"everything_{name}").agent, gate, SUITE, task, seed=SUITE.seed)


def task_of(name):
    return next(task for task in SUITE.tasks if task.name == name)


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("task", HOLD)
def test_holds_on_an_agent_of_a_framework(name, task):
    found = tried(name, task_of(task))
    assert (found.failures, found.not_exercised) == ((), "")


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("task", GOES_ON)
def test_what_a_tool_says_is_told_and_the_agent_goes_on(name, task):
    asked = task_of(task)
    expected = replace(asked.expected, verdict="success", reasons=frozenset(), max_calls=None)
    found = tried(name, replace(asked, expect=expected))
    assert (found.failures, found.not_exercised) == ((), "")


@pytest.mark.process
@pytest.mark.parametrize(("name", "task"), DYING)
def test_workers_die_under_an_agent_of_a_framework(name, task, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    found = tried(name, task_of(task))
    assert (found.failures, found.not_exercised) == ((), "")


def test_the_rest_is_what_only_the_shipped_agent_does():
    """Faults of `run.model`, memory and artifacts; and agents that tasks name themselves."""
    rest = {task.name for task in SUITE.tasks} - {*HOLD, *GOES_ON, *WORKERS}
    own = {"keep", "recall", "pause_s", "one_by_one"}
    for task in SUITE.tasks:
        kinds = {fault.kind for fault in faults_of(task)}
        if task.name in {*HOLD, *GOES_ON, *WORKERS}:
            assert not kinds & (MODEL_KINDS | MEMORY_KINDS), task.name
            assert not own & set(task.input), task.name
        if task.name in WORKERS:
            assert kinds & WORKER_KINDS, task.name
    assert {"model_empty", "memory_stale", "artifact", "internal_error"} <= rest


@pytest.mark.process
def test_the_command_takes_such_an_agent():
    words = ["--agent", "everything_langchain:agent", "--task", "lost_answer", "--task", "loop_detected"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("interlock")), "chaos", "run", "everything", *words, "--json"],
        cwd=HERE, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    loop, lost = json.loads(done.stdout)["tasks"]
    assert (lost["verdict"], lost["repetitions"][0]["effects"]) == ("passed", {"ticket.create": 1})
    # This one injects into `run.model`, which a framework does not ask.
    assert (loop["verdict"], loop["repetitions"][0]["not_exercised"]) == ("failed", "no fault was injected")
    assert done.returncode == 1
