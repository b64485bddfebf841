"""The closed list of reasons, and what each means outside the process."""

from __future__ import annotations

import json

import pytest

from interlock.core.reasons import BUDGET_REASONS, EXIT_CODES, PARKING_REASONS, SEVERITIES, Severity, StopReason

ARTICLE = (
    "success",
    "step_budget",
    "tool_budget",
    "time_budget",
    "cost_budget",
    "loop_detected",
    "no_progress",
    "tool_denied",
    "tool_timeout",
    "tool_rate_limit",
    "tool_output_invalid",
    "tool_auth_failed",
    "internal_error",
    "invalid_input",
)


def test_the_articles_reasons_come_first_and_verbatim():
    assert tuple(StopReason)[: len(ARTICLE)] == ARTICLE


def test_success_exits_with_nought_and_everything_else_with_a_code_of_its_own():
    assert EXIT_CODES[StopReason.SUCCESS] == 0
    others = [code for reason, code in EXIT_CODES.items() if reason is not StopReason.SUCCESS]
    assert len(set(others)) == len(others)
    assert all(10 <= code <= 49 for code in others)


@pytest.mark.parametrize(("reason", "code"), [("step_budget", 10), ("internal_error", 21), ("store_unavailable", 34)])
def test_exit_codes_stay_what_scripts_have_learnt(reason, code):
    assert EXIT_CODES[StopReason(reason)] == code


def test_every_reason_has_an_exit_code_and_a_severity():
    assert set(EXIT_CODES) == set(SEVERITIES) == set(StopReason)


def test_only_success_raises_no_alert():
    assert [reason for reason, severity in SEVERITIES.items() if severity is Severity.NONE] == [StopReason.SUCCESS]


def test_a_run_is_parked_only_where_a_person_can_let_it_go_on():
    assert {StopReason.OUTCOME_UNKNOWN, StopReason.APPROVAL_PENDING} == PARKING_REASONS


def test_budgets_are_the_reasons_named_so():
    assert {reason for reason in StopReason if reason.endswith("_budget")} == BUDGET_REASONS


def test_reasons_are_written_as_their_values():
    assert json.dumps([StopReason.KILLED]) == '["killed"]'
    assert f"{StopReason.KILLED}" == "killed"


def test_the_list_is_closed():
    with pytest.raises(ValueError, match="bored"):
        StopReason("bored")
