"""What is known of one failed attempt, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interlock.core.reasons import StopReason

__all__ = ["Failure", "Performed"]

Performed = Literal["no", "unknown"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt, classified.

    Attributes:
        reason: Why a run that does not catch the error ends.
        performed: `no` only where it is certain that the attempt had no effect; else `unknown`.
        kind: What happened, for evidence and metrics; a small closed vocabulary: `http_502`, `connect_refused`,
            `connect_timeout`, `connect_failed`, `dns`, `tls`, `pool_timeout`, `not_started`, `invalid_request`,
            `read_timeout`, `timeout`, `run_deadline`, `connection_lost`, `bad_response`, `not_performed`,
            `output_invalid`, `refused`, `cancelled`, `exception`.
        status: HTTP status, where one was received.
        retry_after_s: Seconds that the remote asked us to wait, or None.
        transient: Whether the same request may well succeed a moment later.
    """

    reason: StopReason
    performed: Performed
    kind: str
    status: int | None = None
    retry_after_s: float | None = None
    transient: bool = False

    def __post_init__(self) -> None:
        # A word that nobody compares with would pass for a proof.
        if self.performed not in {"no", "unknown"}:
            raise ValueError(f"performed is 'no' or 'unknown', not {self.performed!r}")
