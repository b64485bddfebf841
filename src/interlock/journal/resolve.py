"""Resolves what the journal holds of a write before anything new is sent."""

from __future__ import annotations

from typing import Any

from interlock.core.calls import Answer, Call, ToolSpec
from interlock.core.canonical import NotCanonical
from interlock.core.errors import ToolOutputInvalid
from interlock.journal.doubt import Step, next_step, settles_at
from interlock.journal.ledger import Ledger
from interlock.journal.lookup import Found, Inquiry, Verdict
from interlock.journal.store import Claim, ClaimState, Settlement

__all__ = ["Resolver"]

LOOKUP = "lookup"
# A "no" that comes too early is asked again when it counts; how soon a stop of the run is noticed meanwhile.
SLICE_S = 0.25


class Resolver:
    """Closes the open claims of one tool, by its class."""

    def __init__(self, ledger: Ledger, tool: ToolSpec) -> None:
        options = ledger.options
        self._ledger = ledger
        self._tool = tool
        self._inquiry = None
        if tool.lookup is not None:
            self._inquiry = Inquiry(tool, ledger.in_thread, tool.timeout_s or options.lookup_timeout_s)

    async def resolve(self, call: Call[Any], claim: Claim) -> Answer | None:
        """Return the answer, where the record or the remote has one; None: it may be sent (again).

        Raises:
            OutcomeUnknown: It is in doubt, and must not be sent.
            ToolOutputInvalid: It was done, and its answer cannot be believed.
        """
        ledger = self._ledger
        step = self.next_step(claim)
        if step is Step.SEND:
            return None
        if step is Step.ANSWER:
            return ledger.answer(call, claim)
        if step is Step.ASK:
            return await self.ask(call, claim.last_sent_at, "an earlier attempt")
        if step is Step.RESEND and not ledger.inflight.is_late(claim.key):
            return None
        raise ledger.doubt(call, "an earlier attempt")

    def next_step(self, claim: Claim) -> Step:
        """Decide what comes next for this claim."""
        ledger = self._ledger
        return next_step(claim, self._tool, ledger.clock.wall(), ledger.options.dedupe_window_s)

    async def ask(self, call: Call[Any], last_sent_at: float, cause: str) -> Answer | None:
        """Ask the remote; return the answer if it happened, None if it did not (the claim is closed then).

        Raises:
            OutcomeUnknown: It cannot tell, or not before the run's deadline.
            ToolOutputInvalid: It happened, and what the look-up returned cannot be believed.
        """
        ledger, options = self._ledger, self._ledger.options
        assert call.key is not None
        assert self._inquiry is not None
        settled_at = settles_at(last_sent_at, self._tool, options.timeout_s, options.lease_ttl_s)
        found = await self._inquiry.ask(call, settled_at)
        if found.early and await self._wait(call, settled_at):
            found = await self._inquiry.ask(call, settled_at)
        if found.verdict is Verdict.HAPPENED:
            return await self.happened(call, found.value, LOOKUP, found.why)
        # While a thread of ours may still be at it, no "no" is final.
        if found.verdict is Verdict.DID_NOT and not ledger.inflight.is_late(call.key):
            await ledger.settle(call.key, _closed(ClaimState.FAILED_CLEAN, found))
            return None
        raise ledger.doubt(call, cause, found.why)

    async def happened(self, call: Call[Any], value: Any, by: str, why: str) -> Answer:
        """Close the claim as done with what a look-up or a late answer brought.

        Raises:
            ToolOutputInvalid: The value cannot be believed; the claim is closed all the same.
        """
        ledger = self._ledger
        assert call.key is not None
        evidence = ({"by": by, "why": why},)
        try:
            value, data = ledger.accept(self._tool, value)
        except (ValueError, NotCanonical, ToolOutputInvalid) as error:
            await ledger.settle(call.key, Settlement(ClaimState.DONE, None, verified=False, evidence=evidence, by=by))
            call.raw = value
            raise ToolOutputInvalid(self._tool.name, list(getattr(error, "errors", ()))) from error
        await ledger.settle(call.key, Settlement(ClaimState.DONE, data, evidence=evidence, by=by))
        return Answer(value, data, "replayed")

    async def _wait(self, call: Call[Any], until: float) -> bool:
        """Wait until a "no" counts; False where the run is over before that."""
        run, clock = call.run, self._ledger.clock
        give_up_s = run.deadline_s
        while (left_s := until - clock.wall()) > 0:
            if run.stop is not None or clock.monotonic() + left_s >= give_up_s:
                return False
            await clock.sleep(min(left_s, SLICE_S))
        return run.stop is None


def _closed(state: ClaimState, found: Found) -> Settlement:
    return Settlement(state, evidence=({"by": LOOKUP, "why": found.why},), by=LOOKUP)
