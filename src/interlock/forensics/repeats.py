"""Writes that were sent twice, left in doubt, or re-worded and sent again; keys that came from two runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from interlock.core.categories import Category
from interlock.forensics.findings import Finding, Placed, Seen

__all__ = ["collisions", "doubts_and_duplicates"]

_UNKNOWN_OUTCOMES = frozenset({"timeout", "server_or_network"})
_KEY_NAMES = re.compile(
    r"^(?:x[-_])?(?:idempotency|dedupe|dedup|client[-_]?request)[-_]?(?:key|id|token)?$", re.IGNORECASE
)
_NUMBERS = re.compile(r"[0-9a-f]{6,}|\d+")
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d\d?:\d\d|\d\d?[./]\d\d?[./]\d{2,4}")
_WORDS = re.compile(r"\w+")
_ALIKE = 0.5
_MANY_RUNS_OF_ONE_WRITE = 64


def collisions(seen: Seen) -> Iterator[Finding]:
    """Yield writes whose key, or whose request, another run has already used."""
    run = seen.run
    for placed in seen.executed_writes:
        key = _key_of(placed)
        if not key and run.request_id:
            key = f"{run.request_id}\0{placed.call.tool}\0{placed.call.args_hash}"
        if not key:
            continue
        first = seen.across.user_of(key, run.run_id)
        if first != run.run_id:
            why = f"the same key was executed by run {first} before"
            yield placed.finding(Category.CONCURRENCY, "key_collision", why, 0.95)


def doubts_and_duplicates(seen: Seen) -> Iterator[Finding]:
    """Yield writes that were executed again, sent again after an unknown outcome, or re-worded."""
    yield from _recorded_doubts(seen)
    yield from _sent_twice(seen)
    yield from _in_doubt(seen)
    yield from _reworded(seen)


def _recorded_doubts(seen: Seen) -> Iterator[Finding]:
    if seen.run.doubts:
        last = seen.calls[-1].step if seen.calls else 0
        why = f"{seen.run.doubts} writes of which nobody knows whether they happened"
        yield Finding(Category.DUPLICATES, "outcome_unknown", last, "", "", why, 1.0)


def _sent_twice(seen: Seen) -> Iterator[Finding]:
    """Equal writes executed with no other write between; a switch that answers with another state is none."""
    before: Placed | None = None
    times = 1
    for placed in seen.executed_writes:
        if before is not None and _same(before, placed) and _same_effect(before, placed):
            times += 1
            where = "in the same turn" if before.step == placed.step else f"as in step {before.step}"
            why = f"this write was executed {where} with identical arguments (execution {times})"
            yield placed.finding(Category.DUPLICATES, "duplicate_write", why, 0.95)
        else:
            times = 1
        before = placed


def _same(one: Placed, other: Placed) -> bool:
    return one.call.args_hash == other.call.args_hash and one.call.tool == other.call.tool


def _same_effect(one: Placed, other: Placed) -> bool:
    if one.call.output_hash == other.call.output_hash:
        return True
    return _sentence(one.call.output) == _sentence(other.call.output)


def _sentence(output: str | None) -> str:
    # Receipts and new ids differ; "now ON" and "now OFF" are two effects.
    return _NUMBERS.sub("#", (output or "")[:120])


def _in_doubt(seen: Seen) -> Iterator[Finding]:
    """Writes whose outcome is unknown; it decides where they were sent again, or nothing came after them."""
    for placed in seen.calls:
        if not placed.write or placed.call.error not in _UNKNOWN_OUTCOMES:
            continue
        again = next((p for p in seen.calls[placed.number + 1 :] if _same(placed, p)), None)
        if again is not None:
            why = f"nobody knew whether it had happened, and it was sent again in step {again.step}"
            yield placed.finding(Category.DUPLICATES, "outcome_unknown", why, 0.9)
        else:
            last = placed.number == len(seen.calls) - 1
            why = "nobody knows whether this write happened" + (": nothing came after it" if last else "")
            yield placed.finding(Category.DUPLICATES, "outcome_unknown", why, 0.7, decides=last)


def _reworded(seen: Seen) -> Iterator[Finding]:
    """Executed writes that differ from an earlier one in wording or date alone; worth knowing, never a verdict."""
    earlier: dict[str, list[Placed]] = {}
    for placed in seen.executed_writes:
        others = earlier.setdefault(placed.call.tool, [])
        twin = next((other for other in others if not _same(other, placed) and _reworded_pair(other, placed)), None)
        if twin is not None:
            why = f"almost the write of step {twin.step}: only wording or date differ"
            yield placed.finding(Category.DUPLICATES, "near_duplicate_write", why, 0.6, decides=False)
        if len(others) < _MANY_RUNS_OF_ONE_WRITE:
            others.append(placed)


def _reworded_pair(one: Placed, other: Placed) -> bool:
    a, b = one.call.args, other.call.args
    if not isinstance(a, dict) or not isinstance(b, dict) or a.keys() != b.keys():
        return False
    different = [key for key in a if a[key] != b[key]]
    return bool(different) and all(_only_wording(a[key], b[key]) for key in different)


def _only_wording(one: Any, other: Any) -> bool:
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    if _DATE.search(one) and _DATE.search(other) and len(one) < 40:
        return True
    if " " not in one.strip() or " " not in other.strip():
        return False
    left, right = set(_WORDS.findall(one.lower())), set(_WORDS.findall(other.lower()))
    return len(left & right) >= _ALIKE * len(left | right)


def _key_of(placed: Placed) -> str:
    if placed.call.key:
        return placed.call.key
    args: Mapping[str, Any] = placed.call.args if isinstance(placed.call.args, dict) else {}
    return next((str(value) for name, value in args.items() if value and _KEY_NAMES.match(str(name))), "")
