"""At home in agent frameworks: one file each, each an extra; none is imported before it is asked for."""

from __future__ import annotations

from interlock.gateway.tools import attempt_under_way

__all__ = ["idempotency_key"]


def idempotency_key() -> str | None:
    """Return the key of the guarded write that this code makes; None outside of one, and in a read.

    For tools that are not decorated: send it to a remote that deduplicates on it, and say so in the configuration,
    `tools.writes: {name: {on_unknown: resend}}`. It is the same at every attempt, after a crash and on redelivery.
    """
    attempt = attempt_under_way.get()
    return None if attempt is None else attempt.sent_key
