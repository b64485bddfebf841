"""The golden tasks, and faults of the model, under every adapter whose framework is installed, in its own runtime.

By default each framework meets each fault of the model once, whole answers and streams in turn, and the slowest a few;
INTERLOCK_PROOF_SCALE above 1 has all of them both ways.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from interlock.chaos.faults import MODEL_KINDS, Kind
from interlock.chaos.payloads import REJECTED

pytestmark = pytest.mark.process
HERE = Path(__file__).parent
PACKAGES = {
    "loop": "aiohttp",
    "chat": "openai",
    "chat_anthropic": "anthropic",
    "pydantic_ai": "pydantic_ai",
    "langchain": "langchain",
    "langgraph": "langgraph",
    "openai_agents": "agents",
    "agent_framework": "agent_framework",
    "google_adk": "google.adk",
    "claude_agent_sdk": "claude_agent_sdk",
    "crewai": "crewai",
}
SCALE = int(os.environ.get("INTERLOCK_PROOF_SCALE", "1"))
HOW = ("whole", "streamed")
KINDS = [kind for kind in Kind if kind in MODEL_KINDS]
# Its command line is a process of its own for each run.
SLOW = {"claude_agent_sdk"}
# Where a framework gives up by itself, with an error of its own: (reason, error).
ENDS = {
    ("loop", "model_rate_limited"): ("tool_rate_limit", "HTTPStatusError"),
    ("pydantic_ai", "model_malformed_arguments"): ("internal_error", "UnexpectedModelBehavior"),
    ("pydantic_ai", "model_unknown_tool"): ("internal_error", "UnexpectedModelBehavior"),
    ("openai_agents", "model_truncated"): ("internal_error", "ModelBehaviorError"),
    ("google_adk", "model_truncated", "streamed"): ("internal_error", "ValueError"),
    ("google_adk", "model_malformed_arguments", "streamed"): ("internal_error", "ValueError"),
}
# To these an empty answer is the last word; the others ask again.
TAKES_EMPTY = {
    "loop", "chat", "chat_anthropic", "langchain", "langgraph", "openai_agents", "agent_framework", "google_adk",
}  # fmt: skip
TASKS = {"simple_search", "flaky_tool", "rate_limited", "invalid_output", "adversarial_input", "loop_temptation"}


def python_with(module):
    """Return the interpreter that has the framework: this one, or of the place that `make conformance` has made."""
    try:
        if importlib.util.find_spec(PACKAGES[module]) is not None:
            return sys.executable
    except ModuleNotFoundError:
        pass
    own = HERE.parents[1] / ".venv-conformance" / module.replace("_", "-") / "bin" / "python"
    return str(own) if own.exists() else pytest.skip(f"{PACKAGES[module]} is not installed")


@functools.cache
def tried(module):
    """What came of all tasks on a framework's agent: those of the article, and the faults of the model."""
    done = subprocess.run(
        [python_with(module), str(HERE / "framework_agents.py"), module, *plan(module)],
        capture_output=True, text=True, timeout=300 * SCALE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines if "name" in line], [line for line in lines if "kind" in line]


def plan(module):
    """`KIND:whole` or `KIND:streamed` for each fault of the model that a framework meets."""
    if SCALE > 1:
        return [f"{kind}:{how}" for kind in KINDS for how in HOW]
    turn = list(PACKAGES).index(module)
    kinds = KINDS[turn % 3 :: 3] if module in SLOW else KINDS
    return [f"{kind}:{HOW[(turn + i) % 2]}" for i, kind in enumerate(kinds)]


@pytest.mark.parametrize("module", PACKAGES)
def test_the_golden_tasks_hold(module):
    golden, _ = tried(module)
    assert {task["name"] for task in golden} == TASKS
    for task in golden:
        assert (task["failures"], task["not_exercised"]) == ([], ""), task
        # What the model was really sent: a framework's prompts do not pass the gate.
        assert task["told"] or task["reason"] in {"tool_output_invalid", "tool_rate_limit"}, task
        assert not any(REJECTED in text for text in task["told"]), task


@pytest.mark.parametrize("module", PACKAGES)
def test_faults_of_the_model_end_as_said_and_a_write_happens_once(module):
    _, modelled = tried(module)
    assert [f"{each['kind']}:{HOW[each['stream']]}" for each in modelled] == plan(module)
    for each in modelled:
        kind, how = each["kind"], HOW[each["stream"]]
        assert (each["failures"], each["not_exercised"]) == ([], ""), each
        assert list(each["injected"]) == [kind], each
        reason, error = ENDS.get((module, kind)) or ENDS.get((module, kind, how)) or ("success", "")
        assert (each["reason"], each["error"]) == (reason, error), each
        # Of an error, the record says whose it was.
        assert (each["category"] == "model") is (reason == "internal_error"), each
        # The backend cannot tell a request from its repetition: what it has done is what was meant.
        silent = reason != "success" or (kind == "model_empty" and module in TAKES_EMPTY)
        assert each["effects"] == {"ticket_create": 0 if silent else 1}, each
        assert each["requests"].get("ticket_create", 0) == (0 if silent else 1), each
        if kind == "model_repeats":
            assert each["tool_calls"] >= 4, each


def test_a_suite_is_run_on_an_entrance_by_the_command(tmp_path):
    suite = tmp_path / "suite.yaml"
    config = {"profile": "article", "tools": {"allow": ["search_read"], "effects": {"search_read": "read"}}}
    config |= {"agent": {"budgets": {"max_usd": None}}}
    config["tools"]["idempotency_required"] = []
    task = {"name": "rate_limited", "inject": "latency", "expect": "success"}
    suite.write_text(json.dumps({"clock": "real", "config": config, "tasks": [task]}))
    command = [str(Path(sys.executable).with_name("interlock")), "chaos", "run", str(suite), "--json"]
    done = subprocess.run(
        [*command, "--agent", "framework_agents:pydantic_ai", "--gate", "framework_agents:gate"],
        cwd=HERE, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (outcome,) = json.loads(done.stdout)["tasks"]
    assert outcome["verdict"] == "passed"
    assert outcome["repetitions"][0]["requests"] == {"search_read": 4}
