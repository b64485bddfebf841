"""Answers that should not have been taken as they came, prompts that outgrew their alarm, refusals, gaps."""

from __future__ import annotations

import re
from collections.abc import Iterator

from interlock.core.categories import Category
from interlock.forensics.findings import Finding, Seen
from interlock.forensics.signs import Signs, lowered

__all__ = ["context_lost", "invalid_outputs", "missing_fields", "prompt_growth", "refusals"]

_SCHEMA = Signs(
    (
        (("output validation error", "outputschema"), r"output validation error|outputschema"),
        (("output schema",), r"does not match (?:the |its )?(?:tool'?s )?output schema"),
        (("structured",), r"structured ?content (?:does not|is missing)|invalid structured content"),
        (("response schema", "response validation"), r"response (?:schema|validation) (?:error|mismatch)"),
        (("failed to parse",), r"failed to parse (?:the )?(?:tool )?(?:response|output)"),
        (("in json", "end of json"), r"unexpected token .{1,20} in json|unexpected end of json"),
    )
)
_PAGE = re.compile(r"^\s*(?:<!doctype html|<html|<\?xml)", re.IGNORECASE)
_CONTEXT = re.compile(
    r"context[_ ]length|maximum context|context window|prompt is too long|input is too long|too many (?:input )?tokens",
    re.IGNORECASE,
)
_STALE = re.compile(
    r"^(?:memory_)?(?:stale|expired|foreign|tainted|poisoned|rejected)(?:_memory|_fact)?$", re.IGNORECASE
)
_REFUSED = frozenset({"denied"})
_INVALID = frozenset({"invalid_output", "output_invalid", "tool_output_invalid", "unverified"})
_LOOKED_AT = 2_000
_GROWN = 4
_ENOUGH = 0.5


def missing_fields(seen: Seen) -> tuple[str, ...]:
    """Return the fields without which this run cannot be judged, by the names every operator knows.

    A field counts as missing when most of the calls are without it; a last call that nobody answered does not.
    """
    run, calls = seen.run, [placed.call for placed in seen.calls]
    if not calls:
        if run.lost:
            return ("trace",)
        told = any(run.said) or (run.turns and not run.said) or run.ours or run.stop_reason or run.error
        return () if told else ("steps",) if not run.turns else ("messages",)
    lacking = {
        "tool": sum(not call.tool for call in calls),
        "args": sum(call.args is None and not call.args_hash for call in calls),
        "output": sum(
            call.output is None and call.output_hash is None and call.error is None and not call.status
            for call in calls
        ),
    }
    allowed = max(1, int(_ENOUGH * len(calls)))
    missing = [name for name, times in lacking.items() if times > allowed or (times and times == len(calls) > 1)]
    if run.lost > len(calls):
        missing.append("trace")
    return tuple(missing)


def refusals(seen: Seen) -> Iterator[Finding]:
    """Yield calls that a policy or a switch refused; live, the run's own reason decides."""
    for placed in seen.calls:
        if placed.call.status in _REFUSED:
            why = "refused by the policy or a switch"
            yield placed.finding(Category.TOOL_SURFACE, "tool_denied", why, 1.0, decides=not seen.run.ours)


def invalid_outputs(seen: Seen) -> Iterator[Finding]:
    """Yield answers that broke a schema, and pages of a gateway that were taken for data."""
    data: set[str] = set()
    for placed in seen.calls:
        call, text = placed.call, (placed.call.output or "")[:_LOOKED_AT]
        if call.status in _INVALID:
            why = "the answer failed its schema or an invariant"
            yield placed.finding(
                Category.UNVALIDATED_OUTPUT, "tool_output_invalid", why, 1.0, decides=not seen.run.ours
            )
        elif _SCHEMA.stand_in(lowered(text)):
            why = "the tool's answer did not fit the tool's own schema"
            yield placed.finding(Category.UNVALIDATED_OUTPUT, "tool_output_invalid", why, 0.9)
        elif call.error is None and call.tool in data and _PAGE.match(text):
            why = "a web page came back, taken for an answer, where this tool had answered with data"
            yield placed.finding(Category.UNVALIDATED_OUTPUT, "tool_output_invalid", why, 0.8)
        elif call.error is None and text.lstrip()[:1] in {"{", "["}:
            data.add(call.tool)


def context_lost(seen: Seen) -> Iterator[Finding]:
    """Yield that the model's window ran over, and recalled facts that were stale, foreign or tainted."""
    for placed in seen.calls:
        if _STALE.match(placed.call.status):
            yield placed.finding(Category.MEMORY, "stale_memory", f"the recalled fact was {placed.call.status}", 1.0)
    for text in (seen.run.error, seen.run.stop_reason):
        if text and _CONTEXT.search(text):
            step = max(0, seen.run.steps - 1)
            yield Finding(Category.MEMORY, "prompt_growth", step, "", "", "the prompt no longer fitted the model", 0.95)
            return


def prompt_growth(seen: Seen) -> Iterator[Finding]:
    """Yield the turn whose prompt passed the alarm after growing to several times the first one."""
    first: int | None = None
    for step, turn in enumerate(seen.run.turns):
        tokens = turn.prompt_tokens
        if not tokens:
            continue
        first = first or tokens
        if tokens > seen.prompt_alarm and tokens > _GROWN * first:
            times = f"{tokens / first:.0f} times the first"
            why = f"a prompt of {tokens:,} tokens, {times}; the alarm is {seen.prompt_alarm:,}"
            yield Finding(Category.MEMORY, "prompt_growth", step, "", "", why, 0.8)
            return
