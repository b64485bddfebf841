"""What a suite measures: recovery, duplicates, false stops, dollars, and what it has exercised and production has not."""

import json
from dataclasses import replace

import pytest
import subject_agents
from subject_agents import gate

from interlock import StopReason
from interlock.chaos.coverage import coverage_of, lacking, production
from interlock.chaos.faults import Fault, Kind
from interlock.chaos.scene import GUARDS
from interlock.chaos.suite import GOLDEN, Expected, Suite, Task, load_suite
from interlock.chaos.suite_report import SuiteReport
from interlock.chaos.trying import Outcome, Repetition, try_once, try_task
from interlock.core.categories import Category

ANYTHING = Expected()


def outcome(agent, *faults, expect=ANYTHING, config=None, **words):
    task = Task("t", expect, faults=faults, config=config, **words)
    return try_task(agent, gate, Suite((task,)), task)


def measured(*outcomes):
    return SuiteReport("s", (), outcomes).measures()


class TestRecovery:
    def took(self, *faults):
        task = Task("t", ANYTHING, faults=faults)
        return try_once(subject_agents.reads, gate, Suite((task,)), task, seed=0).recovery_s

    def test_is_the_time_to_the_next_good_answer(self):
        assert self.took(Fault(Kind.TIMEOUT, calls=(1,), attempts=(1,), delay_s=7.0)) == pytest.approx(7.0, abs=0.3)
        assert self.took(Fault(Kind.LATENCY, calls=(1,), delay_s=5.0)) == pytest.approx(5.0)

    def test_is_not_an_answer_that_a_fault_has_made(self):
        assert self.took(Fault(Kind.WRONG_VALUE)) is None
        assert self.took(Fault(Kind.WRONG_VALUE, calls=(1,))) == 0.0

    def test_follows_a_fault_of_the_model(self):
        assert self.took(Fault(Kind.MODEL_SLOW, calls=(1,), delay_s=3.0)) == pytest.approx(3.0)

    def test_is_not_an_answer_that_was_there_before(self):
        assert self.took(Fault(Kind.RESET, calls=(4,))) is None
        assert self.took(Fault(Kind.RESET, calls=(3,))) is not None

    def test_is_not_where_nothing_failed(self):
        assert self.took() is None

    def test_is_counted_over_the_tries_that_met_a_fault(self):
        found = measured(
            outcome(subject_agents.reads, Fault(Kind.LATENCY, delay_s=4.0)),
            outcome(subject_agents.reads, Fault(Kind.RESET)),
            outcome(subject_agents.reads),
        )
        assert found["recovery_rate"] == 0.5
        assert found["recovery_s_mean"] == found["recovery_s_longest"] == pytest.approx(4.0)
        assert found["success_under_faults_over_baseline"] == 1.0  # this agent answers whatever it has seen


def test_a_stop_without_a_fault_is_false_unless_it_is_expected():
    config = {"agent": {"budgets": {"max_steps": 2}}, "tools": {"allow": ["*"]}}
    stopped = outcome(subject_agents.reads, Fault(Kind.LATENCY, calls=(9,)), config=config)
    assert stopped.baseline == "step_budget"
    assert measured(stopped)["false_stops"] == 2
    expected = Expected(reasons=frozenset({StopReason.STEP_BUDGET}))
    assert (
        measured(outcome(subject_agents.reads, Fault(Kind.LATENCY), config=config, expect=expected))["false_stops"] == 0
    )
    assert measured(outcome(subject_agents.reads, Fault(Kind.LATENCY)))["false_stops"] == 0


def test_a_duplicate_is_counted_where_the_claim_is_missing():
    task = Task("t", ANYTHING, faults=(Fault(Kind.ANSWER_LOST),))
    found = try_once(subject_agents.invoices_twice, gate, Suite((task,)), task, seed=0, off=["claim", "recall"])
    assert (found.duplicates, found.effects) == (1, {"invoice.send": 2})
    assert found.failures == ("1 duplicate effects, not 0",)
    assert measured(Outcome("t", "", (found,), faults=("answer_lost",)))["duplicates"] == 1


def test_dollars_are_counted_with_and_without_faults():
    found = measured(outcome(subject_agents.pays, Fault(Kind.RESET), Fault(Kind.MODEL_SLOW, calls=(1,), delay_s=1.0)))
    assert found["usd_under_faults"] == found["usd_of_baselines"] > 0.0


GOLDEN_SUITE = load_suite(GOLDEN)


@pytest.fixture(scope="module")
def golden():
    from interlock.chaos.golden_agent import agent
    from interlock.chaos.golden_agent import gate as its_gate

    return [try_task(agent, its_gate, GOLDEN_SUITE, task) for task in GOLDEN_SUITE.tasks]


class TestCoverage:
    def test_of_the_golden_tasks(self, golden):
        found = coverage_of(golden)
        assert found.reasons >= {"success", "tool_output_invalid", "step_budget"}
        assert found.guards >= {"recorder", "retry", "outputs", "allowlist", "timeout"}
        assert Category.CONCURRENCY not in found.categories
        assert Category.MEMORY not in found.categories
        as_json = found.as_json(GUARDS)
        for known in as_json.values():
            assert not set(known["exercised"]) & set(known["not_exercised"])
        assert "approval" in as_json["guards"]["not_exercised"]

    def test_a_task_that_could_not_be_tried_covers_nothing(self):
        found = coverage_of([Outcome("t", "", error="it hangs", faults=("reset",))])
        assert (found.reasons, found.guards, found.faults, found.categories) == (frozenset(),) * 4


def traces(tmp_path, **changes):
    row = {
        "step": 0,
        "tool": "kb.read",
        "args_hash": "a" * 16,
        "duration_ms": 1.0,
        "status": "success",
        "effect": "read",
    }
    record = {
        "run_id": "run_1", "request_id": "req_1", "tenant_id": "t", "timestamp": "2026-01-01T00:00:00Z", "stop_reason": "success", "steps": 1,
        "tool_calls": 1, "duration_s": 1.0, "cost_usd": 0.1, "trace": [row],
    }  # fmt: skip
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps({**record, **changes}) + "\n")
    return production([file], lambda _read: None)


class TestProduction:
    def test_what_production_has_and_the_suite_lacks_is_said(self, tmp_path, golden):
        seen = traces(tmp_path, stop_reason="abandoned")
        category, reason = sorted(lacking(seen, coverage_of(golden)))
        assert category.startswith("1 runs of category 7 (concurrency and redelivery collide)")
        assert reason == "1 runs with abandoned: no task of the suite ends that way"
        killed = [replace(golden[0], repetitions=(hit("worker_killed", "abandoned"),))]
        assert lacking(seen, coverage_of([*golden, *killed])) == []

    def test_a_category_and_a_failure_that_no_fault_rehearses_are_said(self, tmp_path, golden):
        row = {"step": 0, "tool": "kb.read", "args_hash": "a" * 16, "duration_ms": 1.0, "effect": "read"}
        row |= {"status": "auth_failed", "reason": "tool_auth_failed"}
        seen = traces(tmp_path, stop_reason="tool_auth_failed", trace=[row])
        (calls, runs) = sorted(lacking(seen, coverage_of(golden)))
        assert calls == "1 calls failed with auth: no task of the suite injects http_401 or http_403"
        assert runs.startswith("1 runs with tool_auth_failed")
        bare = lacking(seen, coverage_of([]))
        assert any("category 3" in each for each in bare)

    def test_what_both_have_is_not_said(self, tmp_path, golden):
        assert lacking(traces(tmp_path, stop_reason="step_budget"), coverage_of(golden)) == []


def hit(fault, reason):
    return Repetition(0, reason, (), "", {fault: 1}, {}, {}, 1, 0.0, 1.0, None, guards={"recorder": 1})


def test_the_page_and_the_json_have_coverage_and_what_is_lacking(golden):
    report = SuiteReport("s", (), golden, lacks=["3 runs <of> category 7"])
    page = report.as_html()
    assert "3 runs &lt;of&gt; category 7" in page
    assert "7 (concurrency and redelivery collide)" in page
    assert report.as_json()["lacking"] == ["3 runs <of> category 7"]
    assert report.as_json()["coverage"]["stop_reasons"]["exercised"]
