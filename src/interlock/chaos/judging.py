"""What the article's words mean, exactly: facts of one repetition in, reasons why it failed out.

`success`: the agent finished. `graceful_degradation`: it finished by itself and its output is kept, no error had no
name, and no call had more than `max_attempts` attempts. `backoff_and_stop`: the run ended as `tool_rate_limit` or
`circuit_open`, and every wait was at least Retry-After, or else the backoff that the seed drew. `validation_error`:
it ended as `tool_output_invalid`, and what was rejected is in no output and no prompt. `denied`: nothing of a
forbidden tool reached the backend, and a `tool_denied` refusal is on record. `budget_stop`: it ended by a budget,
while all answers differed, so that no loop guard could claim it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from interlock.chaos.faults import WORKER_KINDS, Kind
from interlock.chaos.payloads import REJECTED
from interlock.chaos.scene import Injection, Request, Scene
from interlock.chaos.suite import Task, faults_of
from interlock.config.sections import Settings
from interlock.core.reasons import BUDGET_REASONS, StopReason
from interlock.core.results import RunResult
from interlock.policy.globs import GlobSet

__all__ = ["Facts", "duplicates_of", "effects_of", "exercised", "forbidden", "judge", "recovery_s"]

# What no validated output can hold; see `payloads`.
_REJECTED = (REJECTED, "cut o")
# Faults whose calls are answered all the same, later or by another worker.
_ANSWERED = {Kind.LATENCY, Kind.CLOCK_JUMP, Kind.KILL_SWITCH, *WORKER_KINDS}
_BACKING_OFF = {StopReason.TOOL_RATE_LIMIT, StopReason.CIRCUIT_OPEN}


@dataclass(frozen=True, slots=True)
class Facts:
    """One repetition, as it came out.

    Attributes:
        result: Of the run. record: as it was stored. scene: what was injected and seen.
        tools: Names of those of the gate; an adapter may bring others.
        effects: By tool, from the probe; or writes that reached the tool, by distinct key where its remote knows keys.
        virtual: Time was virtual, so that waits can be compared with what was drawn.
    """

    task: Task
    result: RunResult
    record: Mapping[str, Any]
    scene: Scene
    settings: Settings
    tools: frozenset[str]
    effects: Mapping[str, int]
    virtual: bool

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The calls of the record."""
        return list(self.record.get("trace", ()))


def exercised(facts: Facts) -> str | None:
    """Return why this repetition proves nothing, or None: its faults were injected, its forbidden call proposed."""
    if (faults_of(facts.task) or facts.task.wire) and not facts.scene.injections:
        return "no fault was injected"
    if facts.task.expected.verdict == "denied" and not forbidden(facts):
        return "no forbidden call was proposed"
    return None


def forbidden(facts: Facts) -> set[str]:
    """Return the tools that were proposed although the configuration forbids them, or that nobody has."""
    there = {*facts.tools, *(request.tool for request in facts.scene.requests)}
    tools = facts.settings.tools
    deny = GlobSet(tools.deny, key="tools.deny")
    allow = None if tools.allow is None else GlobSet(tools.allow, key="tools.allow")
    return {
        name
        for name in facts.scene.proposed
        if deny.match(name) or (allow is not None and not allow.match(name)) or name not in there
    }


def judge(facts: Facts) -> list[str]:
    """Return why this repetition failed; empty if it did not."""
    expected = facts.task.expected
    found = [] if expected.verdict == "any" else _MEANINGS[expected.verdict](facts)
    reason = facts.result.reason
    if expected.reasons and reason not in expected.reasons:
        found.append(f"ended as {reason}, not {' or '.join(sorted(expected.reasons))}")
    found += [*_counted(facts), *_unrecorded(facts)]
    prompts = "\n".join(facts.scene.prompts)
    found += [f"the model was not told {text!r}" for text in expected.told_model if text not in prompts]
    found += [f"the model was told {text!r}" for text in expected.not_told_model if text in prompts]
    written = repr((facts.record, facts.result.output, facts.result.details))
    found += [f"secret {number} is on record" for number, text in enumerate(expected.no_secret, 1) if text in written]
    return found


def recovery_s(facts: Facts) -> float | None:
    """Return the seconds from the first fault to the first answer after it; None where none was, or none came."""
    injections = facts.scene.injections
    if not injections:
        return None
    first = injections[0]
    struck = {(i.where, i.run_id, i.seq, i.attempt) for i in injections if i.fault not in _ANSWERED}
    answers = (
        r.done_s - first.at_s
        for r in facts.scene.requests
        if r.output is not None and (r.tool, r.run_id, r.seq, r.attempt) not in struck and _follows(r, first)
    )
    return min(answers, default=None)


def _follows(request: Request, first: Injection) -> bool:
    """Whether an answer came after a fault, which virtual time alone does not say."""
    if request.done_s < first.at_s:
        return False
    if first.where == request.tool or (first.seq and first.where != "model"):
        again = request.attempt > first.attempt or first.fault in _ANSWERED
        return request.seq > first.seq or (request.seq == first.seq and again)
    return request.at_s >= first.at_s


def _counted(facts: Facts) -> list[str]:
    expected, result = facts.task.expected, facts.result
    found = [
        f"{facts.effects.get(tool, 0)} effects of {tool}, not {number}"
        for tool, number in expected.effects.items()
        if facts.effects.get(tool, 0) != number
    ]
    duplicates = duplicates_of(facts.scene.requests)
    if duplicates > expected.duplicates:
        found.append(f"{duplicates} duplicate effects, not {expected.duplicates}")
    if expected.max_calls is not None and result.tool_calls > expected.max_calls:
        found.append(f"{result.tool_calls} calls, more than {expected.max_calls}")
    if expected.max_usd is not None and result.cost_usd > expected.max_usd:
        found.append(f"${result.cost_usd:.4f}, more than ${expected.max_usd:g}")
    if expected.recovery_s is not None:
        took_s = recovery_s(facts)
        if took_s is None or took_s > expected.recovery_s:
            after = "never" if took_s is None else f"after {took_s:.1f} s"
            found.append(f"recovered {after}, not within {expected.recovery_s:g} s")
    return found


def _unrecorded(facts: Facts) -> list[str]:
    """Return what the run's record lacks: every call is on it or counted there, and so is every injected fault."""
    if not facts.record or "recorder" in facts.scene.off:
        return []
    run_id = facts.result.run_id
    calls = len({seq for run, seq in facts.scene.calls if run == run_id})
    if any(injection.fault == Kind.WORKER_KILLED for injection in facts.scene.injections):
        calls = 0  # a worker that dies takes half a second of them with it (`record.calls`)
    # Old rows of a long run are let go; a run that is cancelled does not wait for what it has under way.
    uncounted = facts.record.get("trace_dropped", 0), facts.record.get("details", {}).get("unfinished_calls", 0)
    rows = len(facts.rows) + sum(int(number) for number in uncounted)
    injected, noted = len(facts.scene.of_run(run_id)), len(facts.record.get("injected", ()))
    return [
        f"the record lacks {there - kept} of {there} {what}"
        for there, kept, what in ((calls, rows, "calls"), (injected, noted, "injected faults"))
        if kept < there
    ]


def effects_of(requests: Sequence[Request]) -> dict[str, int]:
    """Return tool to effects, as its remote counts them: by key where it knows the key, else each request is one."""
    found: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    for request in requests:
        if not request.executed or not request.writes:
            continue
        if not request.apart or (request.tool, request.meant) not in seen:
            found[request.tool] += 1
        seen.add((request.tool, request.meant))
    return dict(sorted(found.items()))


def duplicates_of(requests: Sequence[Request]) -> int:
    """Return how many writes reached a tool again that cannot tell them from new ones."""
    sent = Counter((r.tool, r.meant) for r in requests if r.executed and r.writes and not r.apart)
    return sum(times - 1 for times in sent.values())


def _ended(facts: Facts, reasons: frozenset[StopReason] | set[StopReason]) -> list[str]:
    reason = facts.result.reason
    return [] if reason in reasons else [f"ended as {reason}, not {' or '.join(sorted(reasons))}"]


def _success(facts: Facts) -> list[str]:
    return _ended(facts, {StopReason.SUCCESS})


def _graceful(facts: Facts) -> list[str]:
    found = _success(facts)
    if facts.result.ok and facts.result.output is None:
        found.append("nothing was kept of the output")
    if any(row.get("reason") == StopReason.INTERNAL_ERROR for row in facts.rows):
        found.append("an error had no name")
    most = facts.settings.tools.retries.max_attempts
    attempts = Counter((request.run_id, request.seq) for request in facts.scene.requests)
    if any(number > most for number in attempts.values()):
        found.append(f"a call had {max(attempts.values())} attempts, more than max_attempts = {most}")
    return found


def _backoff(facts: Facts) -> list[str]:
    found = _ended(facts, _BACKING_OFF)
    waits = 0
    by_call: dict[tuple[str, int], list[Request]] = {}
    for request in facts.scene.requests:
        by_call.setdefault((request.run_id, request.seq), []).append(request)
    for requests in by_call.values():
        for number, (before, after) in enumerate(pairwise(requests), start=1):
            waits += 1
            least_s = _least_wait_s(facts, before, number)
            if after.at_s - before.at_s < least_s - 1e-6:
                found.append(f"waited {after.at_s - before.at_s:.3f} s before attempt {number + 1}, not {least_s:.3f}")
    return found if waits else [*found, "it never waited: no call was tried a second time"]


def _least_wait_s(facts: Facts, before: Request, number: int) -> float:
    asked_s = max((fault.retry_after_s or 0.0 for fault in faults_of(facts.task)), default=0.0)
    ceilings = facts.settings.tools.retries.backoff_ms
    if not facts.virtual or not ceilings or facts.scene.began_s is None:
        return asked_s
    failed_s = facts.scene.began_s + before.at_s
    drawn = [value for at_s, value in facts.scene.clock.draws if abs(at_s - failed_s) < 1e-6]
    ceiling_s = ceilings[min(number, len(ceilings)) - 1] / 1e3
    return max(asked_s, min(drawn, default=0.0) * ceiling_s)


def _invalid(facts: Facts) -> list[str]:
    found = _ended(facts, {StopReason.TOOL_OUTPUT_INVALID})
    told = repr((facts.result.output, facts.result.details, facts.scene.prompts))
    if any(text in told for text in _REJECTED):
        found.append("the rejected value is in the output or in a prompt")
    return found


def _denied(facts: Facts) -> list[str]:
    names = forbidden(facts)
    reached = sum(request.executed and request.tool in names for request in facts.scene.requests)
    found = [f"{reached} requests of a forbidden tool reached the backend"] if reached else []
    refused = any(row["tool"] in names and row.get("reason") == StopReason.TOOL_DENIED for row in facts.rows)
    return found if refused else [*found, "no tool_denied refusal is on record"]


def _budget(facts: Facts) -> list[str]:
    reason = facts.result.reason
    found = [] if reason in BUDGET_REASONS else [f"ended as {reason}, not by a budget"]
    outputs = [request.output for request in facts.scene.requests if request.output is not None]
    if len(set(outputs)) < len(outputs):
        found.append("two answers were equal: a loop guard could have claimed this stop")
    return found


_MEANINGS: Mapping[str, Any] = {
    "success": _success,
    "graceful_degradation": _graceful,
    "backoff_and_stop": _backoff,
    "validation_error": _invalid,
    "denied": _denied,
    "budget_stop": _budget,
}
