"""The result of a run: a value that says how it ended."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from interlock.core.reasons import StopReason
from interlock.core.results import RunResult


@pytest.mark.parametrize("reason", StopReason)
def test_a_result_is_ok_parked_or_ended_and_never_two_of_them(reason):
    result = RunResult("run_1", reason)
    assert result.ok == (reason is StopReason.SUCCESS)
    assert result.parked == (reason in {StopReason.OUTCOME_UNKNOWN, StopReason.APPROVAL_PENDING})


def test_what_is_not_said_is_nothing():
    result = RunResult("run_1", StopReason.KILLED)
    assert (result.output, result.steps, result.tool_calls, result.tokens) == (None, 0, 0, 0)
    assert (result.cost_usd, result.elapsed_s) == (0.0, 0.0)
    assert (result.tenant_id, result.request_id, result.replayed, result.details) == ("", "", False, {})


def test_a_result_cannot_be_rewritten():
    with pytest.raises(FrozenInstanceError):
        RunResult("run_1", StopReason.KILLED).reason = StopReason.SUCCESS


def test_details_of_one_result_are_its_own():
    one, other = RunResult("run_1", StopReason.KILLED), RunResult("run_1", StopReason.KILLED)
    assert one == other
    one.details["error"] = "x"
    assert other.details == {}
