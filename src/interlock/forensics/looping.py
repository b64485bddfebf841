"""Runs that got nowhere: the live loop detector fed with what was recorded, and caps that ended a run."""

from __future__ import annotations

import re
from collections.abc import Iterator

from interlock.budget.loops import LoopDetector, LoopOptions
from interlock.core.categories import Category
from interlock.core.reasons import StopReason
from interlock.forensics.findings import Finding, Seen, sentence

__all__ = ["PASSING", "caps_met", "key_of_call", "loops"]

# Passing failures: proposing the same again is right.
PASSING = frozenset({"rate_limit", "timeout", "server_or_network"})
_KEY_MASK = (1 << 60) - 1

_STEPS = (
    r"max[ _-]?(?:steps?|turns?|iterations?|rounds?|messages?)|(?:step|turn|iteration|recursion)[ _-]?(?:limit|budget)"
    r"|limits?[ _-]?exceeded|exit_cost|budget"
)
# The words by which harnesses say that a cap ended a run, the most particular first.
_CAPS: tuple[tuple[StopReason, re.Pattern[str]], ...] = tuple(
    (reason, re.compile(words, re.IGNORECASE))
    for reason, words in (
        (
            StopReason.COST_BUDGET,
            r"(?:cost|usd|spend|price|money)[ _-]?(?:limit|budget|cap|exceeded)|max[ _-]?(?:cost|usd|spend)",
        ),
        (StopReason.TOKEN_BUDGET, r"max[ _-]?(?:total[ _-]?)?tokens?\b|token[ _-]?(?:limit|budget)"),
        (StopReason.TOOL_BUDGET, r"max[ _-]?(?:tool|function)[ _-]?calls?|(?:tool|call)[ _-]?(?:limit|budget)"),
        (StopReason.TIME_BUDGET, r"max[ _-]?(?:seconds|time|duration)|time[ _-]?(?:limit|budget)|deadline"),
        (
            StopReason.STEP_BUDGET,
            _STEPS,
        ),
        (StopReason.LOOP_DETECTED, r"loop[ _-]?detected|stuck|doom[ _-]?loop"),
        (StopReason.NO_PROGRESS, r"no[ _-]?progress|stall"),
    )
)


def key_of_call(tool: str, args_hash: str) -> int:
    """Return what tells a recorded call from others, as the loop detector takes it."""
    return hash((tool, args_hash)) & _KEY_MASK


def loops(seen: Seen) -> Iterator[Finding]:
    """Yield the call at which the live rules would have stopped the run."""
    if len(seen.calls) <= 2 or seen.run.ours:
        return
    detector = LoopDetector(LoopOptions())
    switches = _switches(seen)
    for placed in seen.calls:
        call = placed.call
        if (call.tool, call.args_hash) in switches:
            continue
        key, batch = key_of_call(call.tool, call.args_hash), placed.step
        verdict = detector.propose(key, batch, write=placed.write, allowed=False)
        if isinstance(verdict, StopReason):
            if verdict is StopReason.NO_PROGRESS:
                why = "the sixth call in a row that brought nothing new"
            else:
                same = sum(p.call.tool == call.tool and p.call.args_hash == call.args_hash for p in seen.calls)
                why = f"the same call with the same result again and again ({same} times in all)"
            yield placed.finding(Category.UNBOUNDED_LOOP, verdict.value, why, 0.95)
            return
        if verdict is not None or call.error in PASSING:
            continue
        if placed.write and placed.executed:
            detector.settle_write(key, batch, allowed=False)
        counts = not (placed.write and call.error is not None)
        output = hash(call.output_hash or call.output or call.status)
        detector.settle(key, output, batch, placed.step, None, counts=counts)


def _switches(seen: Seen) -> frozenset[tuple[str, str]]:
    """Return writes that answered the same arguments with another state: on, off and on again get somewhere."""
    said: dict[tuple[str, str], set[str]] = {}
    for placed in seen.executed_writes:
        said.setdefault((placed.call.tool, placed.call.args_hash), set()).add(sentence(placed.call.output))
    return frozenset(key for key, states in said.items() if len(states) > 1)


def caps_met(seen: Seen) -> Iterator[Finding]:
    """Yield the cap that the source says ended the run."""
    word = seen.run.stop_reason
    if not word or seen.run.ours or seen.run.success is True:
        return
    reason = next((reason for reason, words in _CAPS if words.search(word)), None)
    if reason is not None:
        last = seen.calls[-1] if seen.calls else None
        why = f"the run was ended by its harness: {word[:60]}"
        tool, args_hash = (last.call.tool, last.call.args_hash) if last else ("", "")
        step = max(0, seen.run.steps - 1)
        yield Finding(Category.UNBOUNDED_LOOP, reason.value, step, tool, args_hash, why, 0.9)
