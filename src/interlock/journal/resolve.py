"""Resolves what the journal holds of a write before anything new is sent."""

from __future__ import annotations

from typing import Any

from interlock.core.calls import Answer, Call, ToolSpec
from interlock.core.canonical import NotCanonical
from interlock.core.errors import ToolOutputInvalid
from interlock.journal.doubt import Step, next_step, settle_s
from interlock.journal.ledger import LOOKUP, Ledger, verdict
from interlock.journal.lookup import Found, Inquiry, Verdict
from interlock.journal.store import Claim, ClaimState, Settlement

__all__ = ["Resolver"]

# A "no" that comes too early is asked again when it counts; how soon a stop of the run is noticed meanwhile.
SLICE_S = 0.25


class Resolver:
    """Closes the open claims of one tool, by its class."""

    def __init__(self, ledger: Ledger, tool: ToolSpec) -> None:
        options = ledger.options
        self._ledger = ledger
        self._tool = tool
        self._settle_s = settle_s(tool, options.timeout_s, options.lease_ttl_s)
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
            return await self.ask(call, claim, "an earlier attempt")
        if step is Step.RESEND and not ledger.inflight.is_late(claim.key):
            return None
        raise ledger.doubt(call, "an earlier attempt")

    def next_step(self, claim: Claim) -> Step:
        """Decide what comes next for this claim."""
        ledger = self._ledger
        return next_step(claim, self._tool, ledger.clock.wall(), ledger.options.dedupe_window_s)

    async def ask(self, call: Call[Any], claim: Claim, cause: str, sent_s: float | None = None) -> Answer | None:
        """Ask the remote; return the answer if it happened, None if it did not (the claim is closed then).

        Args:
            claim: As it was just read. sent_s: when it was last sent, on `Clock.boot`, where that is known better.

        Raises:
            OutcomeUnknown: It cannot tell, or not before the run's deadline.
        """
        ledger, clock = self._ledger, self._ledger.clock
        assert self._inquiry is not None
        last_sent_s = clock.boot() - claim.sent_ago_s if sent_s is None else sent_s
        settled_s = last_sent_s + self._settle_s
        found = await self._inquiry.ask(call.args, call.sent_key, counts=clock.boot() >= settled_s)
        if found.early and await self._wait(call, settled_s):
            found = await self._inquiry.ask(call.args, call.sent_key, counts=True)
        if found.verdict is Verdict.HAPPENED:
            found, answer = verdict(ledger, self._tool, found)
            if answer is not None:
                await ledger.settle(claim.key, _closed(ClaimState.DONE, found, answer.json))
                return answer
        # While a thread of ours may still be at it, no "no" is final.
        if found.verdict is Verdict.DID_NOT and not ledger.inflight.is_late(claim.key):
            if await ledger.journal.disprove(claim, _closed(ClaimState.FAILED_CLEAN, found)):
                return None
            return await self._meanwhile(call, cause)
        await ledger.note(claim, found.why)
        raise ledger.doubt(call, cause, found.why)

    async def _meanwhile(self, call: Call[Any], cause: str) -> Answer | None:
        """Somebody else has closed the claim, or has sent it once more, while we asked."""
        assert call.key is not None
        claim = await self._ledger.journal.find(call.key)
        if claim is None or claim.state is ClaimState.FAILED_CLEAN:
            return None
        if claim.state is ClaimState.DONE:
            return self._ledger.answer(call, claim)
        raise self._ledger.doubt(call, cause, "it was sent again while it was asked")

    async def happened(self, call: Call[Any], value: Any, by: str, why: str) -> None:
        """Close the claim as done with what a late answer brought.

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

    async def _wait(self, call: Call[Any], until_s: float) -> bool:
        """Wait until a "no" counts; False where the run is over before that."""
        run, clock = call.run, self._ledger.clock
        give_up_s = run.deadline_s
        while (left_s := until_s - clock.boot()) > 0:
            if run.stop is not None or clock.monotonic() + left_s >= give_up_s:
                return False
            await clock.sleep(min(left_s, SLICE_S))
        return run.stop is None


def _closed(state: ClaimState, found: Found, data: bytes | None = None) -> Settlement:
    return Settlement(state, data, evidence=({"by": LOOKUP, "why": found.why},), by=LOOKUP)
