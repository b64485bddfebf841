"""A recorded run becomes a golden task: its faults out of what its calls came to, its end as the expectation.

Nothing here reads content: tools, numbers and outcomes are all a task needs. What the agent was given is added by who
asks for it. A record does not say everything: what is guessed is said in `Recording.notes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from interlock.chaos.faults import Kind
from interlock.chaos.suite import load_suite
from interlock.core.reasons import StopReason
from interlock.journal.store import Claim, ClaimState, RunRow

__all__ = ["Recording", "recorded"]

# What an attempt came to, as evidence names it; HTTP statuses and what may have happened are told apart below.
_KIND_OF: Mapping[str, Kind] = {
    "connect_refused": Kind.CONNECT_REFUSED,
    "connect_failed": Kind.CONNECT_REFUSED,
    "connect_timeout": Kind.CONNECT_REFUSED,
    "dns": Kind.CONNECT_REFUSED,
    "tls": Kind.CONNECT_REFUSED,
    "not_performed": Kind.CONNECT_REFUSED,
    "timeout": Kind.TIMEOUT,
    "read_timeout": Kind.TIMEOUT,
    "connection_lost": Kind.RESET,
    "bad_response": Kind.MALFORMED_BODY,
    "output_invalid": Kind.SCHEMA_DRIFT,
    "exception": Kind.RESET,
}
# How a call ended, where there is no evidence of its attempts: a read, or a record that was purged.
_KIND_OF_REASON: Mapping[str, tuple[Kind, int | None]] = {
    StopReason.TOOL_TIMEOUT: (Kind.TIMEOUT, None),
    StopReason.TOOL_RATE_LIMIT: (Kind.HTTP, 429),
    StopReason.TOOL_AUTH_FAILED: (Kind.HTTP, 401),
    StopReason.TOOL_OUTPUT_INVALID: (Kind.SCHEMA_DRIFT, None),
    StopReason.TOOL_FAILED: (Kind.HTTP, 500),
    StopReason.CIRCUIT_OPEN: (Kind.HTTP, 503),
    StopReason.INTERNAL_ERROR: (Kind.RESET, None),
    StopReason.OUTCOME_UNKNOWN: (Kind.ANSWER_LOST, None),
}
_HTTP = re.compile(r"http_([45][0-9]{2})")
_OPEN = {ClaimState.INTENT, ClaimState.IN_DOUBT}
_PERSON = {StopReason.APPROVAL_DENIED: "denies"}


class _Met(NamedTuple):
    """A fault that a call met: which kind, in which of its attempts (none is all)."""

    kind: Kind
    status: int | None
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """A run as a golden task.

    Attributes:
        suite: As `load_suite` takes it. notes: what the record does not say, and what was made of it.
    """

    suite: Mapping[str, Any]
    notes: tuple[str, ...]

    def as_yaml(self) -> str:
        """Return the suite as a file, its notes as comments."""
        head = "".join(f"# {note}\n" for note in self.notes)
        return head + yaml.safe_dump(dict(self.suite), sort_keys=False, allow_unicode=True, default_flow_style=None)


def recorded(
    row: RunRow, calls: Sequence[Mapping[str, Any]], claims: Sequence[Claim], given: Mapping[str, Any] | None = None
) -> Recording:
    """Return the golden task of a run that has ended.

    Args:
        row: The run. calls: its trace rows. claims: writes of its own.
        given: What it was given, as `Ownership.task_of` keeps it; left out, the task has no input.
    """
    notes = [f"Recorded from {row.run_id}: it ended as {row.reason}, agent {row.agent!r}, {len(calls)} calls."]
    of_key = {claim.key.hex(): claim for claim in claims}
    rows = sorted(calls, key=lambda call: int(call.get("seq", 0)))
    task: dict[str, Any] = {"name": row.run_id}
    if given is None:
        notes.append(
            "Its input is not here: --content adds it where the store has kept it; or write `input:` yourself."
        )
    else:
        task["input"] = given.get("task")
        if given.get("scopes"):
            task["scopes"] = list(given["scopes"])
        if given.get("inputs"):
            notes.append("It was given further inputs, which a task cannot: give them defaults in the agent.")
    faults = [*_of_calls(rows, of_key, notes), *_of_the_end(row, rows, notes)]
    if faults:
        task["faults"] = faults
    else:
        notes.append("No call of it failed: this task injects nothing.")
    if row.reason in _PERSON:
        task["person"] = _PERSON[StopReason(row.reason)]
    dropped = int((row.record or {}).get("trace_dropped") or 0)
    if dropped:
        notes.append(f"Its first {dropped} calls are no longer on record: numbers of calls begin after them.")
    task["expect"] = _expected(row, claims)
    suite = {"tasks": [task]}
    load_suite(suite)  # what is written here must be readable
    return Recording(suite, tuple(notes))


def _of_calls(
    rows: Sequence[Mapping[str, Any]], of_key: Mapping[str, Claim], notes: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield the faults of calls; equal faults of one tool are one, with several numbers."""
    sent: dict[str, int] = {}
    met: dict[tuple[str, _Met], list[int]] = {}
    for row in rows:
        if not row.get("attempts"):
            continue  # it did not go out
        tool = str(row["tool"])
        sent[tool] = sent.get(tool, 0) + 1
        claim = of_key.get(str(row.get("key")))
        for each in _evident(claim) if claim is not None and claim.evidence else _guessed(row, notes):
            met.setdefault((tool, each), []).append(sent[tool])
    for (tool, each), numbers in met.items():
        fault: dict[str, Any] = {"kind": each.kind.value, "tool": tool, "calls": numbers}
        if each.status is not None:
            fault["status"] = each.status
        if each.attempts:
            fault["attempts"] = list(each.attempts)
        yield fault


def _evident(claim: Claim) -> Iterator[_Met]:
    """Yield what the journal says of the attempts of a write."""
    # What may have happened is taken as having happened, unless the journal knows better: that is the harder case.
    happened = claim.state is ClaimState.DONE or claim.state in _OPEN
    for entry in claim.evidence:
        word, attempt = str(entry.get("kind", "")), entry.get("attempt")
        if not isinstance(attempt, int):
            continue
        http = _HTTP.fullmatch(word)
        if entry.get("performed") == "unknown" and happened:
            yield _Met(Kind.ANSWER_LOST, None, (attempt,))
        elif http is not None:
            yield _Met(Kind.HTTP, int(http[1]), (attempt,))
        elif word in _KIND_OF:
            yield _Met(_KIND_OF[word], None, (attempt,))


def _guessed(row: Mapping[str, Any], notes: list[str]) -> Iterator[_Met]:
    """Yield what can be told of the attempts of a call by how it ended."""
    attempts, reason = int(row["attempts"]), row.get("reason")
    if reason in _KIND_OF_REASON:
        kind, status = _KIND_OF_REASON[str(reason)]
        yield _Met(kind, status, ())
    elif attempts > 1 and row.get("status") == "success":
        notes.append(f"Call {row.get('seq')} ({row['tool']}) had {attempts} attempts; why, is not on record: a 503.")
        yield _Met(Kind.HTTP, 503, tuple(range(1, attempts)))


def _of_the_end(row: RunRow, rows: Sequence[Mapping[str, Any]], notes: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the faults that ended the run, and that are of no call."""
    reason = row.reason
    last = next((call for call in reversed(rows) if call.get("attempts")), None)
    if reason == StopReason.KILLED and last is not None:
        number = sum(1 for call in rows if call.get("attempts") and call["tool"] == last["tool"])
        place = {"tool": str(last["tool"]), "calls": [number]}
        yield {"kind": Kind.KILL_SWITCH.value, **place}
        yield {"kind": Kind.LATENCY.value, **place, "delay_s": 1.0}
    elif reason == StopReason.STORE_UNAVAILABLE:
        yield {"kind": Kind.STORE_UNAVAILABLE.value, "tool": "claim"}
    elif reason in {StopReason.LOOP_DETECTED, StopReason.NO_PROGRESS}:
        turns = _repeating(rows)
        if turns:
            notes.append("Its model repeated itself; the fault makes any model do so (through run.model).")
            yield {"kind": Kind.MODEL_REPEATS.value, "calls": turns}
    elif reason == StopReason.ABANDONED:
        notes.append("Its workers died: what killed them is not on record; see the kinds worker_killed, zombie_worker.")


def _repeating(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the numbers, from 1, of the turns whose calls had all been made before."""
    seen: set[tuple[Any, Any]] = set()
    fresh: dict[int, bool] = {}
    for row in rows:
        call, turn = (row["tool"], row.get("args_hash")), int(row.get("step", 0)) + 1
        fresh[turn] = fresh.get(turn, False) or call not in seen
        seen.add(call)
    return [turn for turn, new in sorted(fresh.items()) if not new]


def _expected(row: RunRow, claims: Sequence[Claim]) -> dict[str, Any]:
    effects: dict[str, int] = {}
    for claim in claims:
        # As its faults are written: a doubt has happened.
        effects[claim.tool] = effects.get(claim.tool, 0) + (claim.state is ClaimState.DONE or claim.state in _OPEN)
    expected: dict[str, Any] = {"reasons": [str(row.reason)]}
    return {**expected, "effects": effects} if effects else expected
