"""The four questions that every incident begins with, answered from one run.

Which step looped? Which tool is slow or failing? When did budgets trigger? What did it cost?
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from interlock.core.reasons import BUDGET_REASONS, StopReason
from interlock.forensics.traces import RecordedCall, RecordedRun

__all__ = ["Answers", "Repeat", "ToolTimes", "answers"]

_SLOWEST_SHOWN = 5
_REPEATS_SHOWN = 10
_LOOP_REASONS = frozenset({StopReason.LOOP_DETECTED, StopReason.NO_PROGRESS})


@dataclass(frozen=True, slots=True)
class Repeat:
    """A call that came again with the same arguments: in these steps."""

    tool: str
    args_hash: str
    steps: tuple[int, ...]


@dataclass(slots=True)
class ToolTimes:
    """One tool in this run; seconds are None where the record has no times."""

    calls: int = 0
    failed: int = 0
    refused: int = 0
    seconds: float | None = None
    slowest_s: float | None = None
    slowest_step: int | None = None


@dataclass(slots=True)
class Answers:
    """The answers.

    Attributes:
        looped: Calls that came again, the most frequent first; `stopped_at` the step at which a loop rule spoke.
        tools: Tools by name, the slowest and most failing first.
        budgets: (step, reason) of each call that met a budget; the run's own reason last.
        cost_usd, seconds, tokens, calls: What it used; None where not recorded.
    """

    looped: list[Repeat] = field(default_factory=list)
    stopped_at: int | None = None
    tools: dict[str, ToolTimes] = field(default_factory=dict)
    budgets: list[tuple[int | None, str]] = field(default_factory=list)
    cost_usd: float | None = None
    seconds: float | None = None
    calls: int = 0
    steps: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the `--json` object of the four answers."""
        return {
            "looped": [{"tool": r.tool, "args_hash": r.args_hash, "steps": list(r.steps)} for r in self.looped],
            "loop_stopped_at_step": self.stopped_at,
            "tools": {
                name: {
                    "calls": t.calls,
                    "failed": t.failed,
                    "refused": t.refused,
                    "seconds": t.seconds,
                    "slowest_s": t.slowest_s,
                    "slowest_step": t.slowest_step,
                }
                for name, t in self.tools.items()
            },
            "budgets": [{"step": step, "reason": reason} for step, reason in self.budgets],
            "cost_usd": self.cost_usd,
            "seconds": self.seconds,
            "calls": self.calls,
            "steps": self.steps,
        }


def answers(run: RecordedRun) -> Answers:
    """Return the four answers for a run."""
    found = Answers(cost_usd=run.cost_usd, seconds=run.seconds, steps=run.steps)
    steps: dict[tuple[str, str], list[int]] = defaultdict(list)
    for step, turn in enumerate(run.turns):
        for call in turn.calls:
            found.calls += 1
            steps[(call.tool, call.args_hash)].append(step)
            _time(found.tools.setdefault(call.tool, ToolTimes()), call, step)
            if call.reason in BUDGET_REASONS:
                found.budgets.append((step, call.reason))
            if call.reason in _LOOP_REASONS and found.stopped_at is None:
                found.stopped_at = step
    if run.stop_reason in BUDGET_REASONS and all(reason != run.stop_reason for _, reason in found.budgets):
        found.budgets.append((max(0, run.steps - 1) if run.steps else None, run.stop_reason))
    repeats = sorted(((len(places), key, places) for key, places in steps.items() if len(places) > 1), reverse=True)
    found.looped = [Repeat(tool, digest, tuple(places)) for _, (tool, digest), places in repeats[:_REPEATS_SHOWN]]
    worst = sorted(found.tools.items(), key=lambda item: (-item[1].failed, -(item[1].seconds or 0.0), item[0]))
    found.tools = dict(worst)
    return found


def _time(tool: ToolTimes, call: RecordedCall, step: int) -> None:
    tool.calls += 1
    tool.refused += call.status in {"denied", "refused", "stopped", "fenced"}
    tool.failed += call.error is not None and call.status not in {"denied", "refused", "stopped", "fenced"}
    if call.duration_s is None:
        return
    tool.seconds = (tool.seconds or 0.0) + call.duration_s
    if tool.slowest_s is None or call.duration_s > tool.slowest_s:
        tool.slowest_s, tool.slowest_step = call.duration_s, step
