"""The page of the decision tree, written from the table that diagnoses walk."""

from __future__ import annotations

from interlock.core.categories import CATEGORIES, Category
from interlock.core.reasons import StopReason
from interlock.forensics.tree import ELSE, TREE

__all__ = ["tree_page"]


def tree_page() -> str:
    """Return docs/forensics/tree.md."""
    lines = [
        "# The decision tree",
        "",
        "Written from `src/interlock/forensics/tree.py` by tools/reference.py. `interlock explain RUN` and",
        '`interlock diagnose` walk it; the live verdict (`result.details["category"]`, the label `category` of',
        "`interlock_runs_total`) follows the same order.",
        "",
        "Ask the questions in this order. The first yes wins.",
        "",
    ]
    for number, branch in enumerate(TREE, start=1):
        category = f"category {int(branch.category)}, {branch.category.title}"
        lines += [f"## {number}. {branch.question}", "", f"Yes: {category}.", "", *_wrapped(branch.yes_when), ""]
        reasons = [reason for reason in StopReason if CATEGORIES.get(reason) is branch.category]
        if reasons:
            lines += _wrapped(f"Stop reasons that answer yes: {', '.join(f'`{reason}`' for reason in reasons)}.")
            lines.append("")
        if branch.runbook is not None:
            lines += [f"First runbook: `interlock runbook {branch.runbook}`.", ""]
    lines += [
        f"## {len(TREE) + 1}. Otherwise",
        "",
        ELSE,
        "",
        *_wrapped(
            f"Category {int(Category.NO_EVALUATION)} ({Category.NO_EVALUATION.title}) is no property of a run. "
            "`interlock diagnose --suite FILE` says which failures were seen that no golden task of a suite provokes."
        ),
    ]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, width: int = 116) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) + 1 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]
