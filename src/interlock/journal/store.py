"""The narrow port behind which claims and runs are kept, and the words it speaks.

One state machine, two flat implementations (`stores/`), one contract suite. A claim goes
`intent → done | failed_clean | in_doubt`, and `in_doubt → done | failed_clean` when a lookup, a late answer
or a person closes it. An intent is durable before anything leaves the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

__all__ = [
    "Begun",
    "Claim",
    "ClaimState",
    "Fenced",
    "Intent",
    "Journal",
    "KilledAtClaim",
    "NewRun",
    "Refused",
    "RunRow",
    "RunState",
    "RunStore",
    "Settlement",
    "SpentApproval",
]


class ClaimState(StrEnum):
    """Where a claim stands."""

    INTENT = "intent"
    DONE = "done"
    FAILED_CLEAN = "failed_clean"
    IN_DOUBT = "in_doubt"


class RunState(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PARKED = "parked"
    ENDED = "ended"


class Refused(Exception):
    """The store says no to one change: nothing of it is written, and the store itself is well."""


class KilledAtClaim(Refused):
    """A kill, or safe mode, was committed before the intent.

    Attributes:
        kind: `kill` or `safe_mode`. scope, subject: whom it concerns (`global`, `tenant`, `agent`, `tool`, `run`).
        reason, actor: Why, and who.
    """

    def __init__(self, kind: str, scope: str, subject: str, reason: str, actor: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.scope = scope
        self.subject = subject
        self.reason = reason
        self.actor = actor


class Fenced(Refused):
    """The run has another owner by now, or has ended."""


class SpentApproval(Refused):
    """The approval is not there, not granted, expired, already consumed, or for another effect."""


class Intent(NamedTuple):
    """A write that is about to be sent.

    Attributes:
        key: 24 bytes: time of the request's first claim (8, big-endian milliseconds), then 16 of the digest.
        request_id: The root's. run_id: the root run's. path: child path below the root.
        args_digest: Keyed digest of the arguments.
        sent_key: What the remote receives as idempotency key. fence: of the run's owner at this moment.
        agent: For the kill switch of scope agent. approval_id: granted approval that this claim consumes.
        turn, seq: Model turn and n-th call of the run, for people.
        observing: `mode: observe`: safe mode does not hold this intent up; a kill does.
        args: Canonical JSON of the arguments, for a tool that has a look-up: kept, sealed, until the claim is closed.
    """

    key: bytes
    tenant_id: str
    request_id: str
    run_id: str
    path: str
    agent: str
    tool: str
    args_digest: bytes
    occurrence: int
    on_unknown: str
    sent_key: str
    fence: int
    turn: int
    seq: int
    approval_id: str | None = None
    observing: bool = False
    args: bytes | None = None


class Settlement(NamedTuple):
    """How a claim is closed, or left open.

    Attributes:
        state: DONE, FAILED_CLEAN or IN_DOUBT.
        result: Canonical JSON of the output (DONE); None where it is not kept.
        verified: False for an output that failed validation: the write happened, its answer cannot be believed.
        evidence: How we know: one dict an attempt, plus who or what closed it; no content.
        by: `tool`, `lookup`, `late_answer`, `shutdown`, or the name of a person.
        fence: Of the owner whose attempts these were: FAILED_CLEAN says nothing of what a later owner has sent, and
            is then not written. What happened (DONE) is accepted from anybody.
    """

    state: ClaimState
    result: bytes | None = None
    verified: bool = True
    evidence: Sequence[Mapping[str, Any]] = ()
    by: str = "tool"
    reason: str = ""
    fence: int | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A row of the journal. Times are wall-clock seconds (Unix); `result` and `args` are unsealed JSON or None.

    Attributes:
        sent_ago_s: Seconds since the last send when the row was read, by a clock that nobody sets.
    """

    key: bytes
    tenant_id: str
    request_id: str
    run_id: str
    path: str
    agent: str
    tool: str
    args_digest: bytes
    occurrence: int
    on_unknown: str
    sent_key: str
    state: ClaimState
    fence: int
    sends: int
    first_sent_at: float
    last_sent_at: float
    settled_at: float | None
    result: bytes | None
    result_kept: bool
    verified: bool
    evidence: tuple[Mapping[str, Any], ...]
    settled_by: str
    settle_reason: str
    turn: int
    seq: int
    args: bytes | None
    sent_ago_s: float = field(compare=False)


class Journal(Protocol):
    """Claims of writes. Every method that changes something returns after its commit (group commit)."""

    async def find(self, key: bytes) -> Claim | None:
        """Return the claim with this key, or None."""
        ...

    async def claim(self, intent: Intent) -> Claim | None:
        """Commit the intent and return None; or return the claim that stands there, and write nothing.

        A standing claim in state FAILED_CLEAN is replaced by the new intent (None is returned). In the same
        transaction: the run's fence is checked, the kill switches are read, the approval is consumed.

        Raises:
            Fenced, KilledAtClaim, SpentApproval: Nothing was written.
            StoreUnavailable: It is not known that the intent is durable: nothing may be sent.
        """
        ...

    async def resend(self, key: bytes, run_id: str, fence: int, *, observing: bool = False) -> Claim | None:
        """Count one more send of a claim that is INTENT or IN_DOUBT; its state becomes INTENT, its owner the run.

        Return None when it may be sent; or the claim, when it was closed meanwhile: nothing may be sent.

        Raises:
            Fenced, KilledAtClaim, StoreUnavailable: As `claim`.
        """
        ...

    async def settle(self, key: bytes, settlement: Settlement) -> bool:
        """Close the claim if it is INTENT or IN_DOUBT; return whether it was. A closed claim never changes.

        Evidence is added to what is there. IN_DOUBT over IN_DOUBT only adds evidence.
        """
        ...

    async def disprove(self, claim: Claim, settlement: Settlement) -> bool:
        """Close the claim as FAILED_CLEAN, unless it is closed, or something was sent since `claim` was read.

        Return whether it was. So a look-up's "no" that comes late says nothing of a send that came after it.
        """
        ...

    def settle_soon(self, key: bytes, settlement: Settlement) -> None:
        """Settle when the store can, without waiting: for what happened while it could not be written."""
        ...

    async def doubts(self, tenant_id: str | None = None, *, unverified: bool = False) -> list[Claim]:
        """Return claims IN_DOUBT, and intents that nobody works on any more; or, DONE and unverified. Oldest first."""
        ...

    async def claims_of(self, run_id: str) -> list[Claim]:
        """Return the claims of the request that a root run belongs to, earlier runs of it included, by key and seq."""
        ...


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that wants to begin. `payload_hash` is None where the caller gave no request id.

    Attributes:
        fence: Of a child: the one under which its root's owner asks.
    """

    run_id: str
    tenant_id: str
    request_id: str
    agent: str
    payload_hash: str | None
    root_run_id: str
    path: str = ""
    task: bytes | None = None
    fence: int = 1


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the store knows it. `record` is the article's structured record; `output` unsealed JSON.

    Attributes:
        lease_left_s: Seconds, when the row was read, until its owner may be taken for dead; None where nobody holds it.
        barren: Attempts in a row whose owner died and that recorded nothing new.
        used_s: Seconds of earlier attempts, under a live lease.
        spent_usd, spent_tokens: What model turns of earlier attempts cost that no record of a turn says: reserved by
            turns that were under way when their worker died.
        task: What `NewRun.task` was, where the row was taken from the queue; else None.
    """

    run_id: str
    tenant_id: str
    request_id: str
    agent: str
    state: RunState
    reason: str | None
    payload_hash: str | None
    fence: int
    attempts: int
    request_time_ms: int
    root_run_id: str
    path: str
    started_at: float
    ended_at: float | None
    record: Mapping[str, Any] | None
    output: bytes | None
    output_kept: bool
    lease_left_s: float | None = field(compare=False)
    barren: int
    used_s: float
    task: bytes | None
    spent_usd: float
    spent_tokens: int


@dataclass(frozen=True, slots=True)
class Begun:
    """Answer to `begin`: `fresh` means that this caller owns the run now; else `row` is the standing one."""

    fresh: bool
    row: RunRow

    @property
    def first(self) -> bool:
        """Whether nobody has owned this run before."""
        return self.fresh and self.row.fence <= 1


class RunStore(Protocol):
    """Runs and their records."""

    async def begin(self, run: NewRun, *, retry: bool = False, resume: bool = False, revive: bool = False) -> Begun:
        """Claim (tenant, request id) in one atomic insert, with the payload's hash; durable when it returns.

        What begins has a lease (see `ownership.py`). `resume` re-opens a standing run of the same request that is
        PARKED or QUEUED, or whose owner's lease has run out, under its own run id (state RUNNING, fence and
        attempts + 1); `retry` starts a new run of an ENDED or PARKED request under the same `request_time_ms`, so
        that effect keys stay (a PARKED one is ended with its reason); `revive` re-opens an abandoned one as
        `resume` does. Anything else that stands is returned, untouched. A child (`path`) always begins where its
        root's owner asks for it: what stands is of an attempt that is over, and is ended.

        Raises:
            Fenced: A child whose root is another owner's by now.
        """
        ...

    def begin_soon(self, run: NewRun) -> int:
        """Queue the row of a run whose request id is fresh (nobody else can hold it), without waiting.

        Return its `request_time_ms`. The row commits before, or together with, any intent of the run.
        """
        ...

    async def end(
        self, run_id: str, fence: int, state: RunState, reason: str, record: Mapping[str, Any], output: bytes | None
    ) -> bool:
        """Write the outcome once, durably; False where a fenced owner, or a second time, wrote nothing."""
        ...

    def end_soon(
        self, run_id: str, fence: int, state: RunState, reason: str, record: Mapping[str, Any], output: bytes | None
    ) -> None:
        """Queue the outcome of a run whose request nobody else can ask for; written within 0.25 s."""
        ...

    async def run(self, run_id: str) -> RunRow | None:
        """Return one run, with its record."""
        ...

    async def runs(
        self,
        *,
        tenant_id: str | None = None,
        reason: str | None = None,
        state: RunState | None = None,
        limit: int = 50,
    ) -> list[RunRow]:
        """Return the newest runs first."""
        ...
