"""The article's production checklist as data: each item, the guard behind it, and the tests that prove it.

`tests/test_requirements.py` checks that the tests exist and that no guard is forgotten. `make checklist` copies
the source, switches each guard off in the copy (`Off`), and requires that one of the item's tests fails there.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["REQUIREMENTS", "SECTIONS", "Off", "Requirement", "without"]

ARTICLE = "tests/checklist/test_article.py::"


@dataclass(frozen=True)
class Off:
    """How to switch something off in a copy: replace a text that stands once in a file, or delete the file."""

    file: str
    old: str = ""
    new: str | None = None


@dataclass(frozen=True)
class Requirement:
    """One item of the checklist, or (`part`) one part of it.

    Attributes:
        guard: What provides it; a name of the funnel's guards where it is one.
        off: How that is switched off. tests: node ids; without the guard at least one must fail.
        not_yet: Why an item is not met in this version.
    """

    section: str
    item: str
    guard: str
    off: Off | None
    tests: tuple[str, ...]
    part: str = ""
    not_yet: str = ""


def without(guard: str) -> Off:
    """Leave one guard out of the funnel."""
    return Off(
        "src/interlock/gateway/pipeline.py",
        "for guard in reversed(self.guards()):",
        f"for guard in reversed([g for g in self.guards() if g is not self.{guard}]):",
    )


def article(*names: str) -> tuple[str, ...]:
    return tuple(ARTICLE + name for name in names)


CORE, EFFECTS, SEEING = "Core Runtime", "Side Effects", "Observability"
TESTING, OPERATIONS = "Testing", "Operations"

BUDGETS = "Budgets: max_steps, max_tools, max_time, max_spend"
ALLOWLISTS = "Tool allowlists (default-deny) + permissions"
VALIDATION = "Input validation + output validation (schema + invariants)"
TIMEOUTS = "Timeouts per tool call"
RETRIES = "Retry policy with backoff (only retryable errors)"
IDEMPOTENCY = "Idempotency for writes + dedupe window"
RUNS = "Run-level idempotency (client retries, queue redelivery)"
BREAKERS = "Circuit breakers for flaky dependencies"
LOGS = "Structured logs/traces (tool, args hash, elapsed, status, stop reason)"
COSTS = "Cost tracking per run"
ALERTS = "Alerting on: budget exceeded, loop detected, rate limits"
GOLDEN = "Golden tasks including failures (429/502/timeout/malformed output)"
CHAOS = "Chaos testing: inject failures, measure recovery"
LOAD = "Load testing with realistic tool latency"
KILL = "Kill switch for emergencies"
SAFE = "Safe-mode fallback (read-only, reduced tools)"
RUNBOOKS = "Runbooks per stop reason"

SECTIONS = {
    CORE: (BUDGETS, ALLOWLISTS, VALIDATION, TIMEOUTS, RETRIES),
    EFFECTS: (IDEMPOTENCY, RUNS, BREAKERS),
    SEEING: (LOGS, COSTS, ALERTS),
    TESTING: (GOLDEN, CHAOS, LOAD),
    OPERATIONS: (KILL, SAFE, RUNBOOKS),
}

TURN_CAPS = Off(
    "src/interlock/budget/meter.py",
    "refused = meter._turn_refused(worst_usd, worst_tokens)",
    "refused = None",
)
DEADLINE = Off(
    "src/interlock/supervisor/scopes.py",
    "return until_s if budgets.max_seconds is None else min(until_s, started_s + budgets.max_seconds)",
    "return until_s",
)
CLEAR_WEATHER = Off(
    "src/interlock/chaos/weather.py",
    "phase = next((p for p in weather_of(project) if at_s < p.until_s), None)",
    "phase = None",
)
DRILL = ("tests/chaos/test_drill.py::test_the_incident_happens_bare_and_does_not_under_interlock",)

REQUIREMENTS = (
    Requirement(CORE, BUDGETS, "turns", TURN_CAPS, article("TestBudgets::test_max_steps"), "max_steps"),
    Requirement(
        CORE,
        BUDGETS,
        "meter",
        without("meter"),
        article("TestBudgets::test_max_tool_calls", "TestBudgets::test_a_tool_has_a_budget_of_its_own"),
        "max_tools",
    ),
    Requirement(CORE, BUDGETS, "deadline", DEADLINE, article("TestBudgets::test_max_seconds"), "max_time"),
    Requirement(CORE, BUDGETS, "turns", TURN_CAPS, article("TestBudgets::test_max_usd"), "max_spend"),
    Requirement(
        CORE,
        BUDGETS,
        "loops",
        without("loops"),
        article(
            "TestLoops::test_a_loop_is_answered_from_the_record_and_then_stopped",
            "TestLoops::test_calls_that_bring_nothing_new_stop",
        ),
        "loop detection",
    ),
    Requirement(
        CORE,
        ALLOWLISTS,
        "allowlist",
        without("allowlist"),
        article(
            "TestPolicy::test_what_is_not_allowed_is_refused",
            "TestPolicy::test_a_permission_that_the_run_does_not_hold_is_refused",
        ),
    ),
    Requirement(
        CORE,
        ALLOWLISTS,
        "taint",
        without("taint"),
        article("TestPolicy::test_a_run_that_has_read_untrusted_output_may_not_pay"),
        "after untrusted output",
    ),
    Requirement(
        CORE,
        VALIDATION,
        "state",
        without("state"),
        article("TestValidation::test_only_validated_output_is_kept"),
        "kept output",
    ),
    Requirement(
        CORE,
        VALIDATION,
        "inputs",
        without("inputs"),
        article("TestValidation::test_arguments_that_do_not_fit_are_refused"),
        "inputs",
    ),
    Requirement(
        CORE,
        VALIDATION,
        "outputs",
        without("outputs"),
        article(
            "TestValidation::test_an_answer_of_another_schema_is_withheld",
            "TestValidation::test_an_answer_that_breaks_an_invariant_is_withheld",
        ),
        "outputs",
    ),
    Requirement(
        CORE,
        TIMEOUTS,
        "timeout",
        without("timeout"),
        article("TestTimeout::test_a_tool_that_does_not_answer_is_cut"),
    ),
    Requirement(
        CORE,
        RETRIES,
        "retry",
        without("retry"),
        article(
            "TestRetry::test_a_read_is_repeated_after_a_transient_failure",
            "TestRetry::test_a_write_that_has_not_happened_is_repeated",
        ),
        "with backoff",
    ),
    Requirement(
        CORE,
        RETRIES,
        "retry",
        Off("src/interlock/resilience/retry.py", "if not failure.transient:", "if False:"),
        article("TestRetry::test_what_repeating_cannot_repair_is_not_repeated"),
        "only errors that may pass",
    ),
    Requirement(
        CORE,
        RETRIES,
        "retry",
        Off(
            "src/interlock/resilience/retry.py",
            'if write and failure.performed == "unknown" and closes_by is not OnUnknown.RESEND:',
            "if False:",
        ),
        article("TestRetry::test_a_write_that_may_have_happened_is_not_repeated"),
        "only what is safe to repeat",
    ),
    Requirement(
        EFFECTS,
        IDEMPOTENCY,
        "recall",
        without("recall"),
        article(
            "TestEffects::test_an_equal_write_of_one_request_is_one_effect",
            "TestEffects::test_the_key_outlives_the_run",
        ),
        "answered from the journal",
    ),
    Requirement(
        EFFECTS,
        IDEMPOTENCY,
        "claim",
        without("claim"),
        article(
            "TestEffects::test_a_lost_answer_makes_one_ticket",
            "TestEffects::test_what_nobody_knows_is_a_doubt_and_not_sent_again",
        ),
        "claimed before, settled after",
    ),
    Requirement(
        EFFECTS,
        IDEMPOTENCY,
        "claim",
        Off(
            "src/interlock/journal/doubt.py",
            "(tool.takes_key and 0 <= now - first_sent_at <= dedupe_window_s)",
            "tool.takes_key",
        ),
        article("TestEffects::test_a_doubt_older_than_the_window_is_not_sent_again"),
        "dedupe window",
    ),
    Requirement(
        EFFECTS,
        IDEMPOTENCY,
        "approval",
        without("approval"),
        article("TestEffects::test_a_write_waits_for_a_person"),
        "or a person says yes",
    ),
    Requirement(
        EFFECTS,
        RUNS,
        "supervisor",
        Off("src/interlock/supervisor/supervisor.py", "if request.request_id is None:", "if request:"),
        article(
            "TestRuns::test_a_request_that_comes_again_is_answered_from_the_record",
            "TestRuns::test_redelivery_while_it_runs_waits_for_the_one_run",
            "TestRuns::test_an_id_that_comes_with_another_task_is_refused",
        ),
    ),
    Requirement(
        EFFECTS, BREAKERS, "admission", without("admission"), article("TestBreaker::test_a_failing_tool_is_left_alone")
    ),
    Requirement(
        SEEING,
        LOGS,
        "recorder",
        without("recorder"),
        article(
            "TestRecord::test_a_run_leaves_the_articles_record", "TestRecord::test_a_line_is_written_for_each_call"
        ),
    ),
    Requirement(
        SEEING,
        COSTS,
        "turns",
        Off(
            "src/interlock/supervisor/turns.py",
            "self._charged.append((usd or 0.0, usage.tokens))",
            "self._charged.append((0.0, usage.tokens))",
        ),
        article("TestRecord::test_what_a_run_costs_is_known"),
        "what a turn cost",
    ),
    Requirement(
        SEEING,
        COSTS,
        "turns",
        Off("src/interlock/supervisor/turns.py", "if unknown is not None and capped:", "if False:"),
        article("TestRecord::test_a_price_that_nobody_knows_is_never_nothing"),
        "an unknown price is not 0",
    ),
    Requirement(
        SEEING,
        ALERTS,
        "metrics",
        Off(
            "src/interlock/record/metrics.py",
            'self._count("interlock_runs_total", (agent, reason.value, word), 1)',
            "pass",
        ),
        article("TestAlerts::test_budgets_loops_and_rate_limits_can_be_alerted_on"),
    ),
    Requirement(
        TESTING,
        GOLDEN,
        "retry",
        without("retry"),
        article(
            "TestGoldenTasks::test_flaky_tool_degrades_gracefully",
            "TestGoldenTasks::test_rate_limited_backs_off_and_stops",
        ),
        "timeout, 502, 429",
    ),
    Requirement(
        TESTING,
        GOLDEN,
        "outputs",
        without("outputs"),
        article("TestGoldenTasks::test_invalid_output_is_a_validation_error"),
        "malformed output",
    ),
    Requirement(
        TESTING,
        GOLDEN,
        "allowlist",
        without("allowlist"),
        article("TestGoldenTasks::test_adversarial_input_is_denied"),
        "adversarial input",
    ),
    Requirement(
        TESTING,
        GOLDEN,
        "meter",
        without("meter"),
        article("TestGoldenTasks::test_partial_results_for_ever_meet_a_budget"),
        "partial results for ever",
    ),
    Requirement(TESTING, CHAOS, "chaos", CLEAR_WEATHER, DRILL, "a drill without an incident fails"),
    Requirement(TESTING, CHAOS, "claim", without("claim"), DRILL, "a drill with duplicates fails"),
    Requirement(
        TESTING,
        CHAOS,
        "chaos",
        Off("src/interlock/chaos/judging.py", "return min(answers, default=None)", "return None"),
        ("tests/chaos/test_measures.py::TestRecovery::test_is_the_time_to_the_next_good_answer",),
        "recovery is measured",
    ),
    Requirement(
        TESTING,
        CHAOS,
        "chaos",
        Off("src/interlock/chaos/doom.py", "if each.fault.kind is Kind.WORKER_KILLED:", "if False:"),
        ("tests/chaos/test_everything.py::TestWorkers::test_a_worker_that_is_killed_is_followed_by_another",),
        "workers are killed",
    ),
    Requirement(
        TESTING,
        LOAD,
        "chaos",
        Off(
            "src/interlock/chaos/load_meter.py",
            "delay_s = self._latencies.draw(tool.name, chance)",
            "delay_s = 0.0",
        ),
        (
            "tests/chaos/test_load.py::test_a_closed_loop_keeps_so_many_runs_under_way",
            "tests/chaos/test_load.py::test_an_open_loop_begins_runs_when_they_arrive",
        ),
    ),
    Requirement(
        OPERATIONS,
        KILL,
        "switches",
        Off("src/interlock/policy/switches.py", "if not kills:", "if True:"),
        article("TestOperations::test_a_kill_stops_runs_under_way_and_new_ones"),
    ),
    Requirement(
        OPERATIONS,
        SAFE,
        "switches",
        without("switches"),
        article("TestOperations::test_safe_mode_leaves_some_reads"),
    ),
    Requirement(
        OPERATIONS,
        RUNBOOKS,
        "runbooks",
        Off("src/interlock/runbooks/loop_detected.md"),
        (
            *article("TestOperations::test_each_stop_reason_has_a_runbook"),
            "tests/test_runbooks.py::test_the_lists_are_one_list",
        ),
    ),
)
