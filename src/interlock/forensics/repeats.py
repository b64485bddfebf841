"""Writes that were sent twice, left in doubt, or re-worded and sent again; keys that came from two runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from interlock.core.categories import Category
from interlock.forensics.error_text import error_kind
from interlock.forensics.findings import Finding, Placed, Seen, sentence

__all__ = ["collisions", "doubts_and_duplicates"]

_UNKNOWN_OUTCOMES = frozenset({"timeout", "server_or_network"})
_KEY_NAMES = re.compile(
    r"^(?:x[-_])?(?:idempotency|dedupe|dedup|client[-_]?request)[-_]?(?:key|id|token)?$", re.IGNORECASE
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d\d?:\d\d|\d\d?[./]\d\d?[./]\d{2,4}")
_SAID_AT_ONCE = 200
# Arguments that hold words rather than an identity, even where it is one word.
_WORDED_NAMES = re.compile(
    r"^(?:subject|title|body|text|content|message|description|summary|notes?|comment|reason|memo|caption|prompt)$",
    re.IGNORECASE,
)
_WORDS = re.compile(r"\w+")
_ALIKE, _ALIKE_ALONE = 0.5, 0.8
_LIKE_ONES_KEPT = 16
_WORDED = 2_000


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
        count = seen.run.doubts
        why = f"{count} {'write' if count == 1 else 'writes'} of which nobody knows whether it happened"
        yield Finding(Category.DUPLICATES, "outcome_unknown", last, "", "", why, 1.0)


def _sent_twice(seen: Seen) -> Iterator[Finding]:
    """Equal writes executed with no other write between; a switch that answers with another state is none."""
    before: Placed | None = None
    times = 1
    first: dict[tuple[str, str], Placed] = {}
    for placed in seen.executed_writes:
        earlier = first.setdefault((placed.call.tool, placed.call.args_hash), placed)
        if before is not None and _same(before, placed) and _same_effect(before, placed):
            times += 1
            where = "in the same turn" if before.step == placed.step else f"as in step {before.step}"
            why = f"this write was executed {where} with identical arguments (execution {times})"
            yield placed.finding(Category.DUPLICATES, "duplicate_write", why, 0.95)
        else:
            times = 1
            if earlier is not placed and placed.call.args and _same_effect(earlier, placed):
                # Scripts are run again after an edit: with other writes between, it may be meant.
                why = f"executed as in step {earlier.step} with identical arguments, other writes between"
                yield placed.finding(Category.DUPLICATES, "duplicate_write", why, 0.5, decides=False)
        before = placed


def _same(one: Placed, other: Placed) -> bool:
    return one.call.args_hash == other.call.args_hash and one.call.tool == other.call.tool


def _same_effect(one: Placed, other: Placed) -> bool:
    if one.call.output_hash == other.call.output_hash:
        return True
    return sentence(one.call.output) == sentence(other.call.output)


def _in_doubt(seen: Seen) -> Iterator[Finding]:
    """Writes whose outcome is unknown; it decides where they were sent again, or nothing came after them."""
    for placed in seen.calls:
        if not placed.write or not _outcome_unknown(placed):
            continue
        again = next((p for p in seen.calls[placed.number + 1 :] if _same(placed, p)), None)
        if again is not None:
            why = f"nobody knew whether it had happened, and it was sent again in step {again.step}"
            yield placed.finding(Category.DUPLICATES, "outcome_unknown", why, 0.9)
        else:
            last = placed.number == len(seen.calls) - 1
            why = "nobody knows whether this write happened" + (": nothing came after it" if last else "")
            yield placed.finding(Category.DUPLICATES, "outcome_unknown", why, 0.7, decides=last)


def _outcome_unknown(placed: Placed) -> bool:
    call = placed.call
    if call.error not in _UNKNOWN_OUTCOMES:
        return False
    # A long answer that mentions a timeout somewhere (a file, a page) does not tell of one.
    return not call.output or error_kind(call.output[:_SAID_AT_ONCE]) in _UNKNOWN_OUTCOMES


def _reworded(seen: Seen) -> Iterator[Finding]:
    """Executed writes that differ from an earlier one in wording or date alone; worth knowing, never a verdict."""
    earlier: dict[tuple[Any, ...], list[tuple[Placed, list[frozenset[str]]]]] = {}
    for placed in seen.executed_writes:
        args = placed.call.args
        if not isinstance(args, dict):
            continue
        worded = {name: value for name, value in args.items() if _is_wording(name, value)}
        if not worded:
            continue
        same = tuple(sorted((name, repr(value)) for name, value in args.items() if name not in worded))
        words = [_words(worded[name]) for name in sorted(worded)]
        others = earlier.setdefault((placed.call.tool, same, *sorted(worded)), [])
        # The same account and the same amount are the same deed in any words; the same account alone in similar
        # ones; without anything that identifies it, only almost the same words are.
        alike = 0.0 if len(same) > 1 else _ALIKE if same else _ALIKE_ALONE
        for twin, theirs in others:
            if not _same(twin, placed) and all(map(_are_alike, theirs, words, [alike] * len(words))):
                why = f"almost the write of step {twin.step}: only wording or date differ"
                yield placed.finding(Category.DUPLICATES, "near_duplicate_write", why, 0.6, decides=False)
                break
        if len(others) < _LIKE_ONES_KEPT:
            others.append((placed, words))


def _is_wording(name: Any, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    dated = len(value) < 40 and _DATE.search(value) is not None
    return dated or " " in value.strip() or _WORDED_NAMES.match(str(name)) is not None


def _words(text: str) -> frozenset[str]:
    """Return the words of a text; a date is the same as any other."""
    if len(text) < 40 and _DATE.search(text):
        return frozenset()
    return frozenset(_WORDS.findall(text[:_WORDED].lower()))


def _are_alike(one: frozenset[str], other: frozenset[str], alike: float) -> bool:
    return len(one & other) >= alike * len(one | other)


def _key_of(placed: Placed) -> str:
    if placed.call.key:
        return placed.call.key
    args: Mapping[str, Any] = placed.call.args if isinstance(placed.call.args, dict) else {}
    return next((str(value) for name, value in args.items() if value and _KEY_NAMES.match(str(name))), "")
