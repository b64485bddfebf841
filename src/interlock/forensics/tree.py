"""The decision tree, as one table: questions in the order in which they are asked, the first yes wins.

Everything that draws or walks the tree reads this table: `diagnose`, `explain`, and the page of the
documentation that is generated from it. Each question is a pure function over what a run shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from interlock.core.categories import CATEGORIES, ORDER, Category
from interlock.core.reasons import StopReason
from interlock.forensics.answers import context_lost, invalid_outputs, missing_fields, prompt_growth, refusals
from interlock.forensics.findings import Finding, Seen
from interlock.forensics.injected import followed
from interlock.forensics.looping import caps_met, loops
from interlock.forensics.repeats import collisions, doubts_and_duplicates

__all__ = ["ELSE", "TREE", "Branch", "Turned", "walk"]

Finds = Callable[[Seen], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Branch:
    """One question of the tree.

    Attributes:
        question: As it is asked at night. yes_when: what counts as a yes.
        runbook: A stop reason whose runbook is to be read first.
        finds: Yields the evidence for a yes.
    """

    category: Category
    question: str
    yes_when: str
    runbook: StopReason | None
    finds: tuple[Finds, ...]


def _nothing_recorded(seen: Seen) -> Iterator[Finding]:
    for name in missing_fields(seen):
        why = f"not recorded: {name}"
        yield Finding(Category.NO_OBSERVABILITY, f"missing_{name}", 0, "", "", why, 0.95)


TREE = (
    Branch(
        Category.NO_OBSERVABILITY,
        "Is a field missing that the answer needs?",
        "Tools, arguments (or their hash) or answers are not on record for most calls; or the record counts more "
        "calls than it holds.",
        None,
        (_nothing_recorded,),
    ),
    Branch(
        Category.TOOL_SURFACE,
        "Was something refused by a policy or a switch, or did the model follow an instruction out of a tool's answer?",
        "The run ended with a denial, a kill or an approval that was not given; or a call takes something particular "
        "from a passage of an answer that speaks to the model, and nobody else had said it.",
        StopReason.TOOL_DENIED,
        (refusals, followed),
    ),
    Branch(
        Category.CONCURRENCY,
        "Did the same key come from two runs, workers or deliveries?",
        "Two runs executed a write under one idempotency key, or the same write for one request; or a run lost its "
        "owner.",
        StopReason.ABANDONED,
        (collisions,),
    ),
    Branch(
        Category.DUPLICATES,
        "Was a write in doubt, or sent twice?",
        "An equal write was executed again with no other write between, an unknown outcome was sent again or ended "
        "the run, or a dependency that failed ended it.",
        StopReason.OUTCOME_UNKNOWN,
        (doubts_and_duplicates,),
    ),
    Branch(
        Category.UNVALIDATED_OUTPUT,
        "Did an answer fail its schema or an invariant?",
        "The record says so, the tool's own schema was broken, or a page came back where data had been.",
        StopReason.TOOL_OUTPUT_INVALID,
        (invalid_outputs,),
    ),
    Branch(
        Category.MEMORY,
        "Was a recalled fact stale, foreign or tainted, or did the prompt grow past its alarm?",
        "The record says so of a recall; or a prompt passed the alarm at more than four times the first one; or it no "
        "longer fitted the model.",
        None,
        (context_lost, prompt_growth),
    ),
    Branch(
        Category.UNBOUNDED_LOOP,
        "Did a budget or a loop rule stop it, or would the live loop rules have?",
        "The run's reason is a budget, a loop or no progress; its harness named a cap; or the live loop detector, fed "
        "with the recorded calls, stops.",
        StopReason.LOOP_DETECTED,
        (loops, caps_met),
    ),
)
ELSE = "None of these: an error of the model, of the task or of the agent's own code."

assert tuple(branch.category for branch in TREE) == ORDER


@dataclass(frozen=True, slots=True)
class Turned:
    """One question as a run answered it: yes, if any of the findings decides."""

    branch: Branch
    findings: tuple[Finding, ...]

    @property
    def yes(self) -> bool:
        """Whether the tree ends here."""
        return any(finding.decides for finding in self.findings)


def walk(seen: Seen) -> tuple[Turned, ...]:
    """Return every question with what the run shows for it; the first with a yes is the verdict."""
    return tuple(Turned(branch, tuple(_found(branch, seen))) for branch in TREE)


def _found(branch: Branch, seen: Seen) -> Iterator[Finding]:
    run = seen.run
    if run.ours and run.stop_reason in set(StopReason):
        # Interlock's own word is evidence, and the live verdict was made of it.
        reason = StopReason(run.stop_reason)
        if CATEGORIES.get(reason) is branch.category:
            decided = next((placed for placed in seen.calls if placed.call.reason == reason), None)
            placed = decided or (seen.calls[-1] if seen.calls else None)
            tool, args_hash = (placed.call.tool, placed.call.args_hash) if placed else ("", "")
            why = f"the run ended with {reason}"
            yield Finding(branch.category, reason.value, placed.step if placed else 0, tool, args_hash, why, 1.0)
    for finds in branch.finds:
        for finding in finds(seen):
            # The supervisor has judged what happened under its eyes; what we infer beside it decides nothing.
            yield finding._replace(decides=False) if run.ours and not _on_record(finding) else finding


def _on_record(finding: Finding) -> bool:
    """Whether a finding is what the live verdict was made of too: a doubt on record, or rows that were lost."""
    return finding.category is Category.NO_OBSERVABILITY or (finding.reason == "outcome_unknown" and not finding.tool)
