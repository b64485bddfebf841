"""What evidence is made of: findings, and the run as the questions of the decision tree see it.

A finding names the call that decides, says why, and how sure its rule is. Nothing here reads a run's id, the
name of a tool or of a data set: renamed consistently, a run has the same findings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from interlock.core.categories import Category
from interlock.forensics.traces import RecordedCall, RecordedRun
from interlock.forensics.writes_seen import writes_of

__all__ = ["NOT_EXECUTED", "Across", "Finding", "Placed", "Seen", "see", "sentence"]

_NUMBERS = re.compile(r"[0-9a-f]{6,}|\d+")
# Statuses of our own records whose tool was not asked, or not again.
NOT_EXECUTED = frozenset(
    {"replayed", "repeated", "denied", "refused", "stopped", "invalid_arguments", "fenced", "approval", "circuit_open"}
)


class Finding(NamedTuple):
    """One thing that a run shows.

    Attributes:
        category: Which of the eight it speaks for.
        reason: A stop reason, or what would have been one: incidents are grouped by it.
        step: Model turn from 0. tool, args_hash: the call; "" where it is not about one.
        why: One sentence; holds no content of arguments or answers.
        confidence: How often its rule was right on recorded runs, 0 to 1.
        decides: Whether it answers a question with yes; False for what is only worth knowing.
    """

    category: Category
    reason: str
    step: int
    tool: str
    args_hash: str
    why: str
    confidence: float
    decides: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as evidence of a verdict."""
        return {"step": self.step, "tool": self.tool, "args_hash": self.args_hash, "why": self.why}


class Placed(NamedTuple):
    """A call at its place: its number and its model turn (both from 0), and whether it may change the world."""

    number: int
    step: int
    call: RecordedCall
    write: bool

    @property
    def executed(self) -> bool:
        """Whether the tool did what it was asked for, as far as the record says."""
        call = self.call
        answered = call.output is not None or call.output_hash is not None or call.status == "success"
        return call.error is None and answered and call.status not in NOT_EXECUTED

    def finding(self, category: Category, reason: str, why: str, confidence: float, *, decides: bool = True) -> Finding:
        """Return a finding about this call."""
        call = self.call
        return Finding(category, reason, self.step, call.tool, call.args_hash, why, confidence, decides)


@dataclass(slots=True)
class Across:
    """What must be remembered from run to run: who used a key first. Bounded; the oldest are forgotten."""

    first: dict[str, str] = field(default_factory=dict)
    kept: int = 500_000

    def user_of(self, key: str, run_id: str) -> str:
        """Return the run that used this key first, which may be this one."""
        found = self.first.setdefault(key, run_id)
        if len(self.first) > self.kept:
            del self.first[next(iter(self.first))]
        return found


@dataclass(slots=True)
class Seen:
    """A run as the questions see it.

    Attributes:
        calls: In order. across: what earlier runs left.
        prompt_alarm: Tokens of one prompt from which growth is an incident.
    """

    run: RecordedRun
    calls: tuple[Placed, ...]
    across: Across
    prompt_alarm: int

    @property
    def executed_writes(self) -> Iterator[Placed]:
        """Writes that happened, in order."""
        return (placed for placed in self.calls if placed.write and placed.executed)


def sentence(output: str | None) -> str:
    """Return what an answer says, without the numbers and ids in which receipts of equal deeds differ."""
    return _NUMBERS.sub("#", (output or "")[:120])


def see(run: RecordedRun, across: Across, prompt_alarm: int) -> Seen:
    """Return a run with its calls at their places."""
    writes = iter(writes_of(run))
    number = iter(range(10**9))
    calls = tuple(
        Placed(next(number), step, call, next(writes)) for step, turn in enumerate(run.turns) for call in turn.calls
    )
    return Seen(run, calls, across, prompt_alarm)
