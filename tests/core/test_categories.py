"""A stop reason has one category, doubts have theirs, and the order of the tree decides between them."""

from __future__ import annotations

import pytest

from interlock import Interlock
from interlock.core.categories import CATEGORIES, ORDER, Category, category_of, first_of
from interlock.core.reasons import StopReason


@pytest.mark.parametrize(
    ("reason", "category"),
    [
        (StopReason.SUCCESS, None),
        (StopReason.APPROVAL_PENDING, None),
        (StopReason.CANCELLED, None),
        (StopReason.STEP_BUDGET, 1),
        (StopReason.LOOP_DETECTED, 1),
        (StopReason.TOOL_DENIED, 2),
        (StopReason.KILLED, 2),
        (StopReason.OUTCOME_UNKNOWN, 3),
        (StopReason.TOOL_OUTPUT_INVALID, 4),
        (StopReason.ABANDONED, 7),
        (StopReason.INTERNAL_ERROR, "model"),
        (StopReason.INVALID_INPUT, "model"),
    ],
)
def test_the_category_of_a_reason(reason, category):
    assert category_of(reason) == category


@pytest.mark.parametrize(
    ("reason", "category"),
    [
        (StopReason.SUCCESS, 3),
        (StopReason.STEP_BUDGET, 3),
        (StopReason.INTERNAL_ERROR, 3),
        (StopReason.TOOL_DENIED, 2),
        (StopReason.ABANDONED, 7),
    ],
)
def test_a_doubt_comes_before_a_budget_and_behind_a_refusal(reason, category):
    assert category_of(reason, doubts=True) == category


def test_every_category_of_a_run_is_asked_for_once_and_the_eighth_never():
    assert sorted(ORDER) == [c for c in Category if c is not Category.NO_EVALUATION]
    assert set(CATEGORIES.values()) <= set(ORDER)
    assert first_of([]) is None
    assert first_of([Category.UNBOUNDED_LOOP, Category.DUPLICATES]) is Category.DUPLICATES
    assert all(category.title for category in Category)


async def test_result_record_and_metric_have_the_same_category(tmp_path):
    async with Interlock({"agent": {"budgets": {"max_steps": 2}}}, store=f"sqlite:///{tmp_path}/s.db") as gate:

        async def spends(run, task):
            while True:
                await run.model(reply)

        async def reply():
            return "more"

        async def fails(run, task):
            raise KeyError("mine")

        async def works(run, task):
            return 1

        spent, failed, fine = [await gate.run(agent, "t") for agent in (spends, fails, works)]
        assert (spent.details["category"], failed.details["category"]) == (1, "model")
        assert "category" not in fine.details
        metrics = gate.metrics()
    assert 'interlock_runs_total{agent="spends",stop_reason="step_budget",category="1"} 1' in metrics
    assert 'interlock_runs_total{agent="fails",stop_reason="internal_error",category="model"} 1' in metrics
    assert 'interlock_runs_total{agent="works",stop_reason="success",category="none"} 1' in metrics
