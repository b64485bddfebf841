"""A human says yes before a risky write: bound to one effect and one policy version, used once.

An approval belongs to an effect key (with its occurrence) and to the version of the policy that asked for
it; the claim of that effect consumes it in the transaction that commits the intent. Nobody deciding is not
a no: the run parks, and whoever resumes it finds the same approval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

__all__ = [
    "ApprovalRequest",
    "ApprovalRow",
    "ApprovalState",
    "ApprovalStore",
]


class ApprovalState(StrEnum):
    """Where an approval stands: PENDING → APPROVED → CONSUMED, or DENIED, EXPIRED, SUPERSEDED."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    CONSUMED = "consumed"


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """What a person is asked.

    Attributes:
        effect_key: 24 bytes (see `Intent.key`); the occurrence is in it.
        run_id: The run that asks. policy_version: of the rules that demand it.
        rendered: What the person reads: tool and redacted arguments.
        expires_at: Wall-clock seconds (Unix); undecided by then, it is EXPIRED.
    """

    effect_key: bytes
    tenant_id: str
    run_id: str
    tool: str
    policy_version: str
    rendered: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """An approval as the store knows it. Times are wall-clock seconds (Unix)."""

    id: str
    effect_key: bytes
    tenant_id: str
    run_id: str
    tool: str
    policy_version: str
    rendered: str
    state: ApprovalState
    requested_at: float
    expires_at: float
    decided_at: float | None = None
    decided_by: str = ""
    reason: str = ""


class ApprovalStore(Protocol):
    """Where approvals are kept. A row past its `expires_at` reads as EXPIRED while PENDING or APPROVED.

    Every method that changes something returns after its commit and raises `StoreUnavailable` if that is
    not known. CONSUMED is set by the journal's `claim` alone, of an APPROVED row that has not expired.
    """

    async def request(self, request: ApprovalRequest) -> ApprovalRow:
        """Return the standing row of (effect key, policy version), or insert a PENDING one and return that.

        PENDING, APPROVED and DENIED rows stand (a no is not asked again); after EXPIRED, SUPERSEDED or
        CONSUMED a new row is inserted. PENDING and APPROVED rows of the same effect key under another policy
        version become SUPERSEDED. One transaction: two askers get one row.
        """
        ...

    async def get(self, effect_key: bytes, policy_version: str) -> ApprovalRow | None:
        """Return the newest row of this effect and policy version, or None."""
        ...

    async def decide(self, id: str, approved: bool, by: str, reason: str = "") -> ApprovalRow | None:  # noqa: A002
        """Decide a PENDING row and return it; a row in any other state is returned as it stands.

        An approval is good for as long again as the request was: `expires_at` becomes the time of the
        decision plus (old `expires_at` - `requested_at`). None: there is no such id.

        Raises:
            ConfigError: `by` is empty.
        """
        ...

    async def list(
        self, *, tenant_id: str | None = None, state: ApprovalState | None = ApprovalState.PENDING, limit: int = 50
    ) -> Sequence[ApprovalRow]:
        """Return the newest first; `state=None` means all of them."""
        ...
