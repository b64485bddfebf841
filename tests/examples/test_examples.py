"""Each example runs as it stands, without a key, and shows what its first line says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = {path.stem: path for path in (ROOT / "examples").glob("*.py")}
# Pins of CrewAI clash with those of the others, and it warns of itself: `make conformance` makes its environment.
CREWAI = ROOT / ".venv-conformance" / "crewai" / "bin" / "python"
PYTHONS = {"crewai_agent": CREWAI}
WARNINGS: dict[str, tuple[str, ...]] = {"crewai_agent": ()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run an example once in a directory of its own, and return what it printed."""

    @cache
    def of(name: str) -> str:
        directory = tmp_path_factory.mktemp(name)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("INTERLOCK_", "PYTEST_", "COV_"))}
        done = subprocess.run(
            [PYTHONS.get(name, sys.executable), *WARNINGS.get(name, ("-W", "error")), EXAMPLES[name]],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert list(directory.iterdir()) == [], "an example leaves nothing behind"
        return done.stdout

    return of


def test_the_jira_case_makes_two_tickets_bare_and_one_guarded(run):
    bare, guarded, again = run("jira_ticket").splitlines()
    assert "tickets in Jira: 2" in bare
    assert "JIRA-1 - tickets in Jira: 1" in guarded
    assert "JIRA-1 - tickets in Jira: 1 - replayed: True" in again


def test_the_bare_loop_is_refused_the_injected_write_and_goes_on(run):
    fetched, refused, end = run("bare_loop").splitlines()
    assert fetched.startswith("web.fetch  success")
    assert refused.startswith("db.write   denied")
    assert end.startswith("success | The outage began at 02:10. | 3 steps | $0.0016")


def test_the_agent_of_the_golden_tasks_opens_one_ticket(run):
    assert run("triage") == 'success {"text": "Done."} {"ticket.create": 1, "invoice.send": 0}\n'


def test_sub_agents_share_the_budget(run):
    printed = run("sub_agents")
    assert "causes: 3 pages" in printed
    assert "history: stopped, tool_budget" in printed
    assert "remedies: 3 pages" in printed
    assert printed.rstrip().endswith("tool_budget | 12 calls")


def test_the_refund_waits_for_a_person_and_is_made_once(run):
    parked, listed, approved, done = run("approval").splitlines()
    assert parked == "approval_pending | parked: True | refunds: 0"
    assert listed.startswith("$ interlock approvals list")
    assert approved.startswith("$ interlock approvals approve")
    assert done == "success | refunded 40 for order-17 | refunds: 1"


def test_memory_is_wrong_and_pays_a_page_before_and_not_after(run):
    stale, fresh, paid, refused = run("memory_incidents").splitlines()
    assert stale == "quarter, before: current_quarter: Q3"
    assert fresh == "quarter, after:  asked the calendar: Q4"
    assert paid.endswith("paid: ['DE89370400440532013000']")
    assert refused.endswith("paid: []")


def test_a_pydantic_ai_agent_makes_two_tickets_bare_and_one_guarded(run):
    bare, guarded, again = run("pydantic_ai_agent").splitlines()
    assert "tickets in the world: 2" in bare
    assert "tickets in the world: 1 | success" in guarded
    assert "tickets in the world: 1 | replayed: True" in again


def test_a_langchain_agent_with_retrying_middleware_makes_one_ticket(run):
    ended, counted = run("langchain_agent").splitlines()
    assert ended.startswith("success | The ticket is open. | steps: 2")
    assert counted == "requests sent: 2 | tickets in the world: 1"


def test_a_langgraph_graph_that_goes_round_is_stopped_with_what_it_had(run):
    ended, kept = run("langgraph_agent").splitlines()
    assert ended.startswith("loop_detected | steps: 5")
    assert kept.startswith("kept: ")


def test_an_agent_framework_agent_sends_one_mail_and_leaves_the_question_open(run):
    ended, counted = run("agent_framework_agent").splitlines()
    assert ended.startswith("outcome_unknown | parked: True | steps: 1")
    assert counted == "mails sent: 1 | open doubts: 1"


def test_a_google_adk_agent_is_refused_the_one_call_and_makes_the_other(run):
    ended, said = run("google_adk_agent").splitlines()
    assert ended.startswith("success | steps: 2")
    assert ended.endswith("tables wiped: 0")
    assert "search: how to fix login" in said
    assert "wipe: This tool is not permitted here." in said


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.endswith("_agent")])
def test_an_example_of_a_framework_shows_the_three_lines_that_were_added(name):
    assert EXAMPLES[name].read_text(encoding="utf-8").count("  # <-\n") == 3


def test_every_example_is_tested():
    source = Path(__file__).read_text(encoding="utf-8")
    assert set(EXAMPLES) == set(re.findall(r'run\("(\w+)"\)', source))


def _one_ticket(printed):
    bare, guarded, *_more = printed.splitlines()
    assert bare == "bare:    Done. | tickets in the world: 2"
    assert guarded.startswith("guarded: Done. | tickets in the world: 1 | success")


def test_an_openai_agents_agent_makes_two_tickets_bare_and_one_guarded(run):
    _one_ticket(run("openai_agents_agent"))


def test_a_claude_session_makes_two_tickets_bare_and_one_guarded(run):
    _one_ticket(run("claude_agent"))


def test_loops_over_the_vendors_clients_make_two_tickets_bare_and_one_guarded(run):
    _one_ticket(run("chat_loop_openai"))
    _one_ticket(run("chat_loop_anthropic"))


@pytest.mark.skipif(not CREWAI.exists(), reason="make conformance has not made CrewAI's environment")
def test_a_crew_makes_two_tickets_bare_and_one_guarded(run):
    lines = [line for line in run("crewai_agent").splitlines() if "tickets in the world" in line]
    _one_ticket("\n".join(lines))
