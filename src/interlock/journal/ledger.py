"""What the two guards of the journal share, and how a claim is closed even while the store is away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from interlock.core.calls import Answer, Call, RunFacts, ToolSpec
from interlock.core.canonical import NotCanonical
from interlock.core.clock import Clock
from interlock.core.errors import OutcomeUnknown, StoreUnavailable, ToolOutputInvalid
from interlock.journal.inflight import InFlight
from interlock.journal.lookup import Found, InThread, Verdict
from interlock.journal.store import Claim, ClaimState, Journal, Refused, Settlement
from interlock.journal.wording import refusal as refusal_of
from interlock.journal.wording import replayed, unknown

__all__ = ["LOOKUP", "Accept", "Classify", "EffectOptions", "Ledger", "Rebuild", "verdict"]

Rebuild = Callable[[ToolSpec, bytes], Any]
Accept = Callable[[ToolSpec, Any], tuple[Any, bytes]]
Classify = Callable[[BaseException, ToolSpec], tuple[str, str]]


LOOKUP = "lookup"


@dataclass(frozen=True, slots=True)
class EffectOptions:
    """How claims age.

    Attributes:
        dedupe_window_s: How long a remote remembers our key; an older doubt is not sent again.
        results_deferred: A result is durable soon after the call returns, not before: half the commits, and dying in
            between leaves a doubt where there was an answer.
        lease_ttl_s: After how long a dead worker's work is taken over; part of how long a "no" must wait.
        timeout_s: Of an attempt, for tools that do not say. lookup_timeout_s: of one question to a remote.
    """

    dedupe_window_s: float
    lease_ttl_s: float
    timeout_s: float
    results_deferred: bool
    lookup_timeout_s: float = 15.0


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """The journal, and what a guard needs beside it. See `Effects`."""

    journal: Journal
    clock: Clock
    options: EffectOptions
    secret: bytes
    inflight: InFlight
    rebuild: Rebuild
    accept: Accept
    classify: Classify
    in_thread: InThread

    async def settle(self, key: bytes, settlement: Settlement) -> bool:
        """Settle now; while the store cannot be written, as soon as it can. Dying before that leaves a doubt.

        Return False if the claim was closed already.
        """
        if not (self.options.results_deferred and settlement.state is ClaimState.DONE):
            with contextlib.suppress(StoreUnavailable):
                return await self.journal.settle(key, settlement)
        self.journal.settle_soon(key, settlement)
        return True

    async def resend(self, call: Call[Any]) -> Claim | None:
        """Note one more send of an open claim; return the claim if it was closed meanwhile: then nothing is sent.

        Raises:
            LeaseLost, RunStopped, ToolDenied, StoreUnavailable: It may not be sent.
        """
        assert call.key is not None
        run: RunFacts = call.run
        try:
            return await self.journal.resend(call.key, run.root_run_id, run.fence, observing=run.observing)
        except Refused as refused:
            raise refusal_of(call, refused) from refused

    async def note(self, claim: Claim, why: str) -> None:
        """Add to the evidence of an open claim what its look-up has said; not twice the same."""
        said = [entry.get("why") for entry in claim.evidence if entry.get("by") == LOOKUP]
        if not said or said[-1] != why:
            await self.settle(claim.key, Settlement(ClaimState.IN_DOUBT, evidence=({"by": LOOKUP, "why": why},)))

    def answer(self, call: Call[Any], claim: Claim) -> Answer:
        """Answer a call from a claim that is DONE.

        Raises:
            ToolOutputInvalid: Its answer could not be believed then, or does not fit the tool any more.
            OutcomeUnknown: The claim is not DONE.
        """
        return replayed(call, claim, self.rebuild)

    def doubt(self, call: Call[Any], cause: str, evidence: str = "") -> OutcomeUnknown:
        """Return what a call raises whose outcome nobody knows."""
        return unknown(call, cause, evidence)


def verdict(ledger: Ledger, tool: ToolSpec, found: Found) -> tuple[Found, Answer | None]:
    """Return what a look-up's "yes" is worth: with its answer; without one, it proves nothing.

    What it returned must be the tool's result. Anything else (an empty list, a page of an error) is no proof that the
    write happened, and would be handed to duplicates for ever.
    """
    try:
        value, data = ledger.accept(tool, found.value)
    except (ValueError, NotCanonical, ToolOutputInvalid):
        return Found(Verdict.UNKNOWN, why="lookup returned what cannot be the tool's output"), None
    return found, Answer(value, data, "replayed")
