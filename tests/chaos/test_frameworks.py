"""The six golden tasks hold under every adapter whose framework is installed, driven through its own runtime."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("module", PACKAGES)
def test_the_golden_tasks_hold(module):
    done = subprocess.run(
        [python_with(module), str(HERE / "framework_agents.py"), module],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    tried = [json.loads(line) for line in done.stdout.splitlines()]
    assert {task["name"] for task in tried} == TASKS
    for task in tried:
        assert (task["failures"], task["not_exercised"]) == ([], ""), task
        # What the model was really sent: a framework's prompts do not pass the gate.
        assert task["told"] or task["reason"] in {"tool_output_invalid", "tool_rate_limit"}, task
        assert not any(REJECTED in text for text in task["told"]), task


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
