"""One write, from its intent to what came of it; runs as a task of the gate."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from interlock.core.calls import Answer, Call, OnUnknown, Proceed
from interlock.core.canonical import NotCanonical, canonical_json
from interlock.core.errors import InterlockError, StoreUnavailable, ToolOutputInvalid
from interlock.journal.doubt import Step, is_remembered
from interlock.journal.inflight import SHUTDOWN, Flight
from interlock.journal.ledger import Ledger
from interlock.journal.naming import name_effect
from interlock.journal.resolve import Resolver
from interlock.journal.store import Claim, ClaimState, Intent, Refused, Settlement
from interlock.journal.wording import disproved, refusal

__all__ = ["Write"]

LATE = "late_answer"
# Claims that are closed by somebody else between our reading and our writing; more than a few is no race.
MOST_RACES = 5


class Write:
    """Claims, performs and settles one call.

    Args:
        proceed: The rest of the funnel: every attempt of it.
    """

    __slots__ = ("_call", "_flight", "_journaled", "_ledger", "_mine", "_noted", "_outcome", "_proceed", "_resolver")

    def __init__(
        self, ledger: Ledger, resolver: Resolver, call: Call[Any], proceed: Proceed[Any], flight: Flight
    ) -> None:
        self._ledger = ledger
        self._resolver = resolver
        self._call = call
        self._proceed = proceed
        self._flight = flight
        self._noted = 0
        self._outcome: Settlement | None = None
        self._journaled = True
        # Whether the open claim is ours to close.
        self._mine = False

    async def perform(self) -> Answer:
        """Return what the write came to.

        Raises:
            OutcomeUnknown: Nobody knows; the claim is in doubt.
            InterlockError: As the funnel behind raised it: nothing happened, or its output cannot be believed.
        """
        try:
            answer = await self._claim(self._call.approval_id)
            if answer is None:
                answer = await self._send()
            if answer is None:
                # A look-up has proved that nothing happened: once more. The approval was given for this effect.
                answer = await self._claim(None) or await self._send(last=True)
        except asyncio.CancelledError:
            self._cut()
            raise
        finally:
            assert self._call.key is not None
            self._ledger.inflight.land(self._call.key, self._flight)
        assert answer is not None
        return answer

    async def _claim(self, approval_id: str | None) -> Answer | None:
        """Commit the intent and return None; or return the answer that the record has."""
        ledger, call = self._ledger, self._call
        for _ in range(MOST_RACES):
            try:
                standing = await ledger.journal.claim(_intent(call, approval_id))
            except Refused as refused:
                raise refusal(call, refused) from refused
            except StoreUnavailable as error:
                call.refuse(error)
                self._journaled = False
                return None
            if standing is None:
                self._mine = True
                return None
            if call.run.observing and not self._was_ours(standing):
                name_effect(call, ledger.secret, counted=True)
                continue
            answer = await self._resolver.resolve(call, standing)
            if answer is not None:
                return answer
            if self._resolver.next_step(standing) is Step.RESEND:
                self._flight.first_sent_at = standing.first_sent_at
                standing = await ledger.resend(call)
                if standing is None:
                    # What an earlier attempt came to is still unknown, whatever this one comes to.
                    call.unknown = True
                    self._mine = True
                    return None
        raise ledger.doubt(call, "its claim keeps changing")

    def _was_ours(self, standing: Claim) -> bool:
        """Whether an earlier attempt of this very run has come so far, where nothing is refused; then it is no repeat.

        A doubt of its own that cannot be resolved is made anew all the same, and noted.
        """
        run = self._call.run
        if standing.run_id != run.root_run_id or standing.fence >= run.fence:
            return False
        if self._resolver.next_step(standing) in {Step.STOP, Step.TELL}:
            self._call.refuse(self._ledger.doubt(self._call, "an earlier attempt"))
            return False
        return True

    async def _send(self, *, last: bool = False) -> Answer | None:
        """Perform the write and settle it; None: a look-up says that it did not happen, and it may be sent again."""
        call, flight = self._call, self._flight
        if flight.abandoned:
            raise asyncio.CancelledError  # nobody waits for it, and nothing has left
        flight.note_send(self._ledger.clock)
        try:
            answer = await self._proceed(call)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            # The tool itself raised it: for us an outcome like any other that nobody knows.
            call.unknown = True
            return await self._failed(error, last=last)
        except ToolOutputInvalid as error:
            if error.tool != call.tool.name:
                # Of another guarded tool that this one used: what this one did is not known.
                return await self._failed(error, last=last)
            await self._settle(Settlement(ClaimState.DONE, verified=False, evidence=self._evidence("unverified")))
            raise
        except Exception as error:
            return await self._failed(error, last=last)
        try:
            data = answer.json if answer.json is not None else canonical_json(answer.value)
        except NotCanonical:
            data = None
        await self._settle(Settlement(ClaimState.DONE, data, evidence=self._evidence()))
        return answer

    async def _failed(self, error: BaseException, *, last: bool) -> Answer | None:
        ledger, call = self._ledger, self._call
        kind = self._unknown(error)
        if kind is None:
            await self._settle(
                Settlement(ClaimState.FAILED_CLEAN, evidence=self._evidence(), fence=self._call.run.fence)
            )
            raise error
        cause = str(getattr(error, "reason", kind))
        if not await self._settle(Settlement(ClaimState.IN_DOUBT, evidence=self._evidence(kind))):
            return await self._closed_by_others(error)
        late, doubt = call.late, ledger.doubt(call, cause)
        assert call.key is not None
        if late is not None and self._journaled:
            ledger.inflight.await_late(call.key, self._late(late))
        if call.run.observing:
            call.refuse(doubt)
            raise error
        assert call.key is not None
        claim = await ledger.journal.find(call.key) if self._may_ask() else None
        if claim is None:
            raise doubt from error
        if claim.state is ClaimState.DONE:
            return ledger.answer(call, claim)
        answer = None
        if claim.state is not ClaimState.FAILED_CLEAN:
            answer = await self._resolver.ask(call, claim, cause, self._last_sent_s())
        if answer is not None:
            answer.status = "success"
            return answer
        run = call.run
        if last or run.stop is not None or ledger.clock.monotonic() >= run.deadline_s:
            raise disproved(call, error) from error
        call.unknown = False
        return None

    async def _closed_by_others(self, error: BaseException) -> Answer:
        """The claim was closed while we were at it: by a person, or by the late answer of an earlier attempt."""
        ledger, call = self._ledger, self._call
        assert call.key is not None
        claim = await ledger.journal.find(call.key)
        if claim is None or claim.state is not ClaimState.DONE:
            raise ledger.doubt(call, "closed by somebody else") from error
        return ledger.answer(call, claim)

    def _unknown(self, error: BaseException) -> str | None:
        """Return the kind of an outcome that nobody knows; None where no attempt was performed, for certain."""
        if self._call.unknown:
            return "unknown"
        if isinstance(error, InterlockError):
            return None  # the retry guard has looked at every attempt
        performed, kind = self._ledger.classify(error, self._call.tool)
        return None if performed == "no" else kind

    async def _late(self, late: asyncio.Future[Any]) -> None:
        """A sync tool outlived its timeout: its late answer settles the claim after all."""
        call = self._call
        assert call.key is not None
        try:
            value = await asyncio.shield(late)
        except Exception as error:
            performed, kind = self._ledger.classify(error, call.tool)
            unknowns = sum(1 for entry in call.evidence or () if entry.get("performed") != "no")
            # Only if this attempt was the one unknown is the whole write known now.
            clean = performed == "no" and unknowns <= 1
            state = ClaimState.FAILED_CLEAN if clean else ClaimState.IN_DOUBT
            evidence = ({"by": LATE, "kind": kind, "performed": performed},)
            await self._ledger.settle(call.key, Settlement(state, evidence=evidence, by=LATE, fence=call.run.fence))
            return
        try:
            await self._resolver.happened(call, value, LATE, "the tool answered after its timeout")
        except ToolOutputInvalid:
            return  # closed as done, unverified

    def _cut(self) -> None:
        """This task was cancelled: the process is being shut down, or nobody waits and nothing was sent."""
        call = self._call
        outcome = self._outcome  # already decided: only its commit may have been cut off
        if outcome is None and self._mine:
            every_attempt_failed = call.attempts > 0 and len(call.evidence or ()) >= call.attempts
            if not call.unknown and (not self._flight.sends or every_attempt_failed):
                evidence = self._evidence("never sent")
                outcome = Settlement(ClaimState.FAILED_CLEAN, evidence=evidence, by=SHUTDOWN, fence=call.run.fence)
            else:
                outcome = Settlement(ClaimState.IN_DOUBT, evidence=self._evidence("cancelled"), by=SHUTDOWN)
        if outcome is not None and self._journaled:
            assert call.key is not None
            self._ledger.journal.settle_soon(call.key, outcome)

    async def _settle(self, settlement: Settlement) -> bool:
        if not self._journaled:
            return True
        assert self._call.key is not None
        self._outcome = settlement
        settled = await self._ledger.settle(self._call.key, settlement)
        self._outcome = None if settlement.state is ClaimState.IN_DOUBT else settlement
        return settled

    def _evidence(self, kind: str = "") -> list[Mapping[str, Any]]:
        """Return what was learned since the last settlement; `kind` stands where no attempt was noted."""
        known = self._call.evidence or []
        fresh: list[Mapping[str, Any]] = list(known[self._noted :])
        self._noted = len(known)
        return fresh or ([{"kind": kind}] if kind else [])

    def _may_ask(self) -> bool:
        """Whether a look-up decides: the tool is closed by one, or the remote has forgotten the key by now."""
        tool, first_sent_at = self._call.tool, self._flight.first_sent_at
        if tool.lookup is None or not self._journaled:
            return False
        ledger = self._ledger
        forgotten = first_sent_at is None or not is_remembered(
            tool, first_sent_at, ledger.clock.wall(), ledger.options.dedupe_window_s
        )
        return tool.on_unknown is OnUnknown.LOOKUP or (tool.on_unknown is OnUnknown.RESEND and forgotten)

    def _last_sent_s(self) -> float:
        """When the last attempt was sent, or later, on `Clock.boot`."""
        flight = self._flight
        return flight.sent_s if flight.sends >= self._call.attempts else self._ledger.clock.boot()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _intent(call: Call[Any], approval_id: str | None) -> Intent:
    run = call.run
    assert call.key is not None
    assert call.sent_key is not None
    return Intent(
        key=call.key,
        tenant_id=run.tenant_id,
        request_id=run.root_request_id,
        run_id=run.root_run_id,
        path=run.path,
        agent=run.agent,
        tool=call.tool.name,
        args_digest=call.digest,
        occurrence=call.occurrence,
        on_unknown=str(call.tool.on_unknown),
        sent_key=call.sent_key,
        fence=run.fence,
        turn=call.turn,
        seq=call.seq,
        approval_id=approval_id,
        observing=run.observing,
        args=call.args_json if call.tool.lookup is not None else None,
    )
