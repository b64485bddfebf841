"""Each example runs as it stands, without a key, and shows what its first line says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = {path.stem: path for path in (Path(__file__).parents[2] / "examples").glob("*.py")}


def run(name: str, directory: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("INTERLOCK_", "PYTEST_", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES[name]],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_jira_case_makes_two_tickets_bare_and_one_guarded(tmp_path):
    bare, guarded, again = run("jira_ticket", tmp_path).splitlines()
    assert "tickets in Jira: 2" in bare
    assert "JIRA-1 - tickets in Jira: 1" in guarded
    assert "JIRA-1 - tickets in Jira: 1 - replayed: True" in again


def test_the_bare_loop_is_refused_the_injected_write_and_goes_on(tmp_path):
    fetched, refused, end = run("bare_loop", tmp_path).splitlines()
    assert fetched.startswith("web.fetch  success")
    assert refused.startswith("db.write   denied")
    assert end.startswith("success | The outage began at 02:10. | 3 steps | $0.0016")


def test_sub_agents_share_the_budget(tmp_path):
    printed = run("sub_agents", tmp_path)
    assert "causes: 3 pages" in printed
    assert "history: stopped, tool_budget" in printed
    assert "remedies: 3 pages" in printed
    assert printed.rstrip().endswith("tool_budget | 12 calls")


def test_the_refund_waits_for_a_person_and_is_made_once(tmp_path):
    parked, waiting, done = run("approval", tmp_path).splitlines()
    assert parked == "approval_pending | parked: True | refunds: 0"
    assert "refund.create" in waiting
    assert done == "success | refunded 40 for order-17 | refunds: 1"


def test_every_example_is_tested():
    tested = {"jira_ticket", "bare_loop", "sub_agents", "approval"}
    assert set(EXAMPLES) == tested


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_leaves_nothing_behind(name, tmp_path):
    run(name, tmp_path)
    assert list(tmp_path.iterdir()) == []
