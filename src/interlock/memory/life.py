"""Until when a fact lives. Reading never prolongs a life, and a date that cannot be read has passed.

Seconds of the wall clock. A fact is read while `created_at - SKEW_S <= now < expires_at`: one that seems to be
written in the future (the clock was set back) is not read until the clock has caught up, so that no jump of the
clock lets a fact outlive its time by more than `SKEW_S`.
"""

from __future__ import annotations

import math

from interlock.core.errors import InvalidArguments

__all__ = ["SKEW_S", "expires_at", "is_alive", "needs_check", "verify_date"]

# By how much the clocks of workers on one store may differ.
SKEW_S = 300.0
# Year 9999: beyond it dates cannot be written as such.
LAST_S = 253_402_300_799.0


def expires_at(now_s: float, ttl_s: float | None, *, default_s: float, ceiling_s: float) -> float:
    """Return when a fact written now expires.

    Args:
        now_s: Unix seconds. ttl_s: asked for; None takes the default.
        ceiling_s: The longest life there is.

    Raises:
        InvalidArguments: Not a positive finite number, or more than the ceiling.
    """
    ttl_s = default_s if ttl_s is None else ttl_s
    if not _is_number(ttl_s) or not 0 < ttl_s < math.inf:
        raise _refused("ttl_s must be a positive number of seconds")
    if ttl_s > ceiling_s:
        raise _refused(f"ttl_s is more than {ceiling_s:g} (memory.max_ttl_s)")
    return float(now_s + ttl_s)


def verify_date(verify_by: float | None) -> float | None:
    """Return the date, checked.

    Raises:
        InvalidArguments: Not a Unix time of the years 1970 to 9999.
    """
    if verify_by is None:
        return None
    if not _is_number(verify_by) or not 0 <= verify_by <= LAST_S:
        raise _refused("verify_by must be a Unix time in seconds")
    return float(verify_by)


def is_alive(created_at: object, expires_at: object, now_s: float) -> bool:
    """Whether a fact is read at `now_s`; the same decision that stores make inside their queries."""
    return (
        isinstance(created_at, float)
        and isinstance(expires_at, float)
        and created_at - SKEW_S <= now_s < expires_at < math.inf
    )


def needs_check(verify_by: float | None, now_s: float) -> bool:
    """Whether a fact must be confirmed before it is used: from the second of `verify_by` on."""
    return verify_by is not None and not now_s < verify_by


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refused(why: str) -> InvalidArguments:
    return InvalidArguments(f"memory: {why}", for_model="This date or duration is not valid. Nothing was remembered.")
