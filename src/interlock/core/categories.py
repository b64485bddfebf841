"""Which of the eight categories a run that ended belongs to: one pure table, asked live and by every report.

The order in which categories are asked for is the decision tree's (`forensics/tree.py` holds its questions):
the first that applies wins. A stop reason names one category; a write left in doubt names another.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Literal

from interlock.core.reasons import BUDGET_REASONS, StopReason

__all__ = ["CATEGORIES", "MODEL", "ORDER", "Category", "Word", "category_of", "first_of"]


class Category(IntEnum):
    """The eight categories of failures; values are the numbers that everybody uses for them."""

    UNBOUNDED_LOOP = 1
    TOOL_SURFACE = 2
    DUPLICATES = 3
    UNVALIDATED_OUTPUT = 4
    MEMORY = 5
    NO_OBSERVABILITY = 6
    CONCURRENCY = 7
    NO_EVALUATION = 8

    @property
    def title(self) -> str:
        """The category in a few words."""
        return _TITLES[self]


_TITLES = {
    Category.UNBOUNDED_LOOP: "unbounded loop",
    Category.TOOL_SURFACE: "tool surface too wide",
    Category.DUPLICATES: "flaky dependency, retry, duplicate",
    Category.UNVALIDATED_OUTPUT: "output not validated",
    Category.MEMORY: "memory",
    Category.NO_OBSERVABILITY: "not enough recorded",
    Category.CONCURRENCY: "concurrency and redelivery collide",
    Category.NO_EVALUATION: "no golden task covers it",
}

MODEL: Literal["model"] = "model"
Word = int | Literal["model"]
"""A verdict: 1 to 8, or `model` where a run failed and none of the categories is to blame."""

# The order of the questions; the first yes wins. The eighth is a property of a suite, never of a run.
ORDER = (
    Category.NO_OBSERVABILITY,
    Category.TOOL_SURFACE,
    Category.CONCURRENCY,
    Category.DUPLICATES,
    Category.UNVALIDATED_OUTPUT,
    Category.MEMORY,
    Category.UNBOUNDED_LOOP,
)

# Reasons that are missing here are the agent's or the caller's own (an error of its code, a wrong request).
CATEGORIES: dict[StopReason, Category] = dict.fromkeys(BUDGET_REASONS, Category.UNBOUNDED_LOOP) | {
    StopReason.LOOP_DETECTED: Category.UNBOUNDED_LOOP,
    StopReason.NO_PROGRESS: Category.UNBOUNDED_LOOP,
    StopReason.TOOL_DENIED: Category.TOOL_SURFACE,
    StopReason.KILLED: Category.TOOL_SURFACE,
    StopReason.APPROVAL_DENIED: Category.TOOL_SURFACE,
    StopReason.APPROVAL_EXPIRED: Category.TOOL_SURFACE,
    StopReason.TOOL_TIMEOUT: Category.DUPLICATES,
    StopReason.TOOL_RATE_LIMIT: Category.DUPLICATES,
    StopReason.TOOL_AUTH_FAILED: Category.DUPLICATES,
    StopReason.TOOL_FAILED: Category.DUPLICATES,
    StopReason.CIRCUIT_OPEN: Category.DUPLICATES,
    StopReason.OUTCOME_UNKNOWN: Category.DUPLICATES,
    StopReason.STORE_UNAVAILABLE: Category.DUPLICATES,
    StopReason.TOOL_OUTPUT_INVALID: Category.UNVALIDATED_OUTPUT,
    StopReason.ABANDONED: Category.CONCURRENCY,
    StopReason.REPLAY_DIVERGED: Category.CONCURRENCY,
}

# Not failures: the run came to its end, waits for a person, or was called off by its caller.
_NO_FAILURE = frozenset({StopReason.SUCCESS, StopReason.APPROVAL_PENDING, StopReason.CANCELLED})


def category_of(reason: StopReason, *, doubts: bool = False) -> Word | None:
    """Return the category of a run that ended with this reason, or None where it did not fail.

    Args:
        reason: Its stop reason.
        doubts: Whether it left a write of which nobody knows whether it happened.
    """
    found = [CATEGORIES[reason]] if reason in CATEGORIES else []
    if doubts:
        found.append(Category.DUPLICATES)
    first = first_of(found)
    if first is not None:
        return int(first)
    return None if reason in _NO_FAILURE else MODEL


def first_of(found: Iterable[Category]) -> Category | None:
    """Return the category that the tree asks for first, or None of none."""
    there = set(found)
    return next((category for category in ORDER if category in there), None)
