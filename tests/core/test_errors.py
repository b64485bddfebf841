"""The tree of errors: each class has a reason and a status, and none of its texts invites a model to retry."""

from __future__ import annotations

import inspect
import re

import pytest

import interlock
from interlock.core import errors
from interlock.core.errors import (
    AlreadyEnded,
    AlreadyRunning,
    BudgetExceeded,
    ConfigError,
    InterlockError,
    LoopDetected,
    NotPerformed,
    OutcomeUnknown,
    RunStopped,
    ToolOutputInvalid,
)
from interlock.core.reasons import StopReason
from interlock.core.results import RunResult

TREE = [
    getattr(errors, name)
    for name in errors.__all__
    if inspect.isclass(getattr(errors, name)) and issubclass(getattr(errors, name), InterlockError)
]
INVITES = re.compile(
    r"\b(retry|retrying|re-?send|try (it |this )?(again|later)|(again|once more) later|later|please|in a moment|wait and)\b",
    re.IGNORECASE,
)
SETTINGS = re.compile(r"[a-z]+_[a-z_]+|\b(config|yaml|set|raise|increase)\b", re.IGNORECASE)


def made(cls: type[InterlockError], message: str = "", **kw) -> InterlockError:
    """One error of `cls`, with the least its constructor wants."""
    result = RunResult("run_1", StopReason.SUCCESS)
    if cls is AlreadyEnded:
        return cls(result)
    if cls is AlreadyRunning:
        return cls("run_1")
    wants = {"reason": StopReason.KILLED, "tool": "orders.read", "errors": []}
    parameters = inspect.signature(cls.__init__).parameters
    return cls(*(wants[name] for name in parameters if name in wants), message, **kw)


def test_the_list_of_names_is_whole():
    defined = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert defined == set(errors.__all__)
    assert {cls.__name__ for cls in TREE} == defined - {"NotPerformed"}


def test_what_a_tool_raises_to_prove_itself_is_no_error_of_ours():
    assert not issubclass(NotPerformed, InterlockError)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_class_can_be_had_from_the_front_door(name):
    assert getattr(interlock, name) is getattr(errors, name)


@pytest.mark.parametrize("cls", [cls for cls in TREE if cls not in {AlreadyEnded, AlreadyRunning}])
class TestEveryClassWithAMessage:
    def test_never_shows_the_developers_text_to_the_model(self, cls):
        error = made(cls, "set budgets.max_steps above 3")
        assert "set budgets.max_steps above 3" in str(error)
        assert "budgets" not in error.for_model

    def test_takes_a_text_for_the_model_and_facts_for_the_record(self, cls):
        facts = {"policy": "deny"}
        error = made(cls, for_model="It was not executed.", details=facts, run_wide=False)
        assert error.for_model == "It was not executed."
        assert error.details == facts
        assert error.details is not facts
        assert error.run_wide is False


@pytest.mark.parametrize("cls", TREE)
class TestEveryClass:
    def test_has_a_reason_a_status_and_a_text(self, cls):
        error = made(cls)
        assert isinstance(error.reason, StopReason)
        assert error.reason is not StopReason.SUCCESS
        assert re.fullmatch(r"[a-z_]+", error.status)
        assert isinstance(error.transient, bool)
        assert error.for_model
        assert str(error)

    def test_never_invites_a_retry(self, cls):
        assert not INVITES.search(made(cls).for_model)

    def test_never_names_a_setting_to_the_model(self, cls):
        assert not SETTINGS.search(made(cls).for_model)

    def test_is_by_default_run_wide_without_facts_and_not_executed(self, cls):
        error = made(cls)
        assert (error.run_wide, error.details, error.executed) == (True, {}, False)


def test_facts_of_one_error_are_its_own():
    one, other = InterlockError(), InterlockError()
    one.details["a"] = 1
    assert other.details == {}


@pytest.mark.parametrize("cls", [RunStopped, BudgetExceeded, LoopDetected])
def test_a_reason_given_is_the_errors_and_not_the_classes(cls):
    before = cls.reason
    error = cls(StopReason.TIME_BUDGET)
    assert error.reason is StopReason.TIME_BUDGET
    assert cls.reason is before


def test_a_stop_says_its_reason_to_the_developer_only():
    error = RunStopped(StopReason.KILLED)
    assert "killed" in str(error)
    assert "killed" not in error.for_model


def test_an_output_error_counts_its_faults_and_keeps_them():
    faults = [{"loc": ["total"], "type": "missing", "msg": "field is missing"}] * 2
    error = ToolOutputInvalid("orders.read", faults)
    assert (error.tool, error.errors) == ("orders.read", faults)
    assert "orders.read" in str(error)
    assert "2 errors" in str(error)
    assert str(ToolOutputInvalid("orders.read", faults, "too large")) == "too large"


def test_an_unknown_outcome_never_says_that_nothing_happened():
    assert "not executed" not in OutcomeUnknown().for_model


def test_an_ended_request_carries_its_outcome():
    result = RunResult("run_1", StopReason.SUCCESS, output=3)
    assert AlreadyEnded(result).result is result


def test_a_running_request_says_who_runs_it():
    assert "run_7" in str(AlreadyRunning("run_7"))


def test_a_wrong_setting_is_the_callers_fault():
    assert ConfigError("x").reason is StopReason.INVALID_INPUT
