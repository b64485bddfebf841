"""Asks whether facts still hold whose `verify_by` has passed, before a model gets to read them.

A validator is the developer's own function. What it cannot tell, or fails to, is not confirmed.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from interlock.memory.fact import Fact
from interlock.memory.life import needs_check
from interlock.memory.options import Unverified
from interlock.memory.recall import Checked, Why

__all__ = ["Checks", "Validator", "Verdict", "check"]

Verdict = bool | float | None
"""True: it holds, until it expires. A Unix time: it holds, and is asked for again then. False: it no longer holds.
None: nobody can tell."""

Validator = Callable[[Fact], "Verdict | Awaitable[Verdict]"]
"""Looks up whether a fact still holds."""


@dataclass(frozen=True, slots=True)
class Checks:
    """Looked at facts, and those of them that were confirmed, with the date of the next check."""

    facts: tuple[Checked, ...]
    confirmed: tuple[tuple[Fact, float | None], ...]


async def check(
    facts: Iterable[Fact], now_s: float, validator: Callable[[Fact], Validator | None], unverified: Unverified | str
) -> Checks:
    """Return the facts, each with what is known of it.

    Args:
        validator: Returns who can tell of a fact, or None.
        unverified: What becomes of one that nobody has confirmed.
    """
    checked: list[Checked] = []
    confirmed: list[tuple[Fact, float | None]] = []
    for fact in facts:
        if not needs_check(fact.verify_by, now_s):
            checked.append(Checked(fact))
            continue
        verdict = await _ask(validator(fact), fact)
        if verdict is True or (not isinstance(verdict, bool) and verdict is not None and now_s < verdict < math.inf):
            confirmed.append((fact, None if verdict is True else float(verdict)))
            checked.append(Checked(fact))
        elif verdict is False:
            checked.append(Checked(fact, False, Why.REFUTED))
        else:
            checked.append(Checked(fact, False, Why.UNVERIFIED if unverified == Unverified.WITHHOLD else None))
    return Checks(tuple(checked), tuple(confirmed))


async def _ask(validator: Validator | None, fact: Fact) -> Verdict:
    if validator is None:
        return None
    try:
        verdict = validator(fact)
        found = await verdict if inspect.isawaitable(verdict) else verdict
    except Exception:  # the validator's own: what could not be confirmed is not
        return None
    return found if isinstance(found, bool | int | float) else None
