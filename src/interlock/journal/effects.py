"""One effect per key: recall what has been done, claim what is about to be, settle what came of it.

A write is claimed in the journal, durably, before its tool sees it, and settled after. Whatever breaks in
between leaves the claim open, and an open claim that nobody works on is *in doubt*: the missing settlement is
the record of the crash. A doubt is closed by its class (`doubt.py`), never by trying again in the dark.

`Effects` is the one object to wire; its two guards stand at different places of the funnel, so that what was
done is answered before anybody is asked for approval, and nothing waits for a slot with an intent open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from interlock.core.calls import Answer, Call, Proceed, Repeat, ToolSpec
from interlock.core.clock import Clock
from interlock.core.errors import OutcomeUnknown, ToolDenied, ToolOutputInvalid
from interlock.journal.doubt import is_remembered
from interlock.journal.inflight import Flight, InFlight
from interlock.journal.ledger import Accept, Classify, EffectOptions, Ledger, Rebuild
from interlock.journal.lookup import InThread
from interlock.journal.naming import Journaled, check_identity, give_back, name_effect
from interlock.journal.resolve import Resolver
from interlock.journal.store import ClaimState, Journal
from interlock.journal.write import Write

__all__ = ["ClaimGuard", "EffectOptions", "Effects", "Journaled", "Recall"]


J = TypeVar("J", bound=Journaled)


class Effects:
    """The two guards of the journal, and what they share.

    Args:
        secret: The store's; effect keys are keyed with it.
        rebuild: Returns a tool's value from the canonical JSON that was kept.
        inflight: Writes under way in this process.
        classify: Says what an exception of a tool came to: (`no` | `unknown`, kind).
        accept: Validates what a look-up or a late answer returned: (value, canonical JSON); an error means that
            it cannot be believed.
        in_thread: Runs a plain look-up function off the event loop.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        options: EffectOptions,
        *,
        secret: bytes,
        rebuild: Rebuild,
        inflight: InFlight,
        classify: Classify,
        accept: Accept,
        in_thread: InThread,
    ) -> None:
        self.ledger = ledger = Ledger(
            journal=journal,
            clock=clock,
            options=options,
            secret=secret,
            rebuild=rebuild,
            inflight=inflight,
            classify=classify,
            accept=accept,
            in_thread=in_thread,
        )
        self.recall = Recall(ledger)
        self.claim = ClaimGuard(ledger)

    def before_attempt(self, call: Call[Any]) -> Awaitable[None] | None:
        """Check and count a later attempt of a write in the journal, before it is sent; None: nothing to do.

        Raises, when awaited, as the claim does: fenced, killed, or the store cannot say.
        """
        if call.key is None or not call.evidence:
            return None  # a read, or the first attempt, for which the claim has just been made
        return self._again(call)

    async def _again(self, call: Call[Any]) -> None:
        assert call.key is not None
        ledger, tool = self.ledger, call.tool
        flight = ledger.inflight.get(call.key)
        if call.unknown and flight is not None and flight.first_sent_at is not None:
            # One that nobody knows the outcome of is repeated only while the remote would notice.
            window_s = ledger.options.dedupe_window_s
            if not is_remembered(tool, flight.first_sent_at, ledger.clock.wall(), window_s):
                raise ledger.doubt(call, "older than tools.dedupe_window_s")
        if await ledger.resend(call) is not None:
            raise ledger.doubt(call, "closed by somebody else")
        if flight is not None:
            flight.note_send(ledger.clock)


class Recall:
    """Guard: what has been done is answered from the record; what is in doubt is resolved, or refused."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __call__(self, tool: ToolSpec, proceed: Proceed[J]) -> Proceed[J]:
        if not tool.may_write:
            return proceed
        check_identity(tool)
        ledger = self._ledger
        journal, inflight, secret = ledger.journal, ledger.inflight, ledger.secret
        resolver = Resolver(ledger, tool)
        counted = tool.repeat is not Repeat.COLLAPSE
        # An equal effect in other words: only these tools cannot tell it from a new one, and ask nobody.
        guarded = not tool.identity and tool.repeat is not Repeat.ALLOW and tool.approval is None

        async def recall(call: Call[J]) -> Answer:
            if not call.writes:
                return await proceed(call)
            observing = call.run.observing
            name_effect(call, secret, counted=counted or observing)
            assert call.key is not None
            if observing:
                return await proceed(call)
            flight = inflight.get(call.key)
            while flight is not None:
                await flight.landed()
                flight = inflight.get(call.key)
            proposed = call.run.proposed
            if proposed is None or call.key in proposed:
                claim = await journal.find(call.key)
            else:
                # The first of its kind: if the store knows better after all, claiming it will say so.
                proposed.add(call.key)
                claim = None
            answer = None if claim is None else await resolver.resolve(call, claim)
            if answer is not None:
                return answer
            if claim is None and guarded and call.run.retrying:
                await _refuse_rewording(call, journal)
            try:
                return await proceed(call)
            except (OutcomeUnknown, ToolOutputInvalid):
                raise
            except Exception:
                if counted:
                    give_back(call, secret)
                raise

        return recall


async def _refuse_rewording(call: Call[Any], journal: Journal) -> None:
    """Refuse a write of a request planned afresh, if an earlier plan did (or may have done) the same in other words."""
    run, name = call.run, call.tool.name
    for claim in await journal.claims_of(run.root_run_id):
        if claim.tool == name and claim.run_id != run.root_run_id and claim.state is not ClaimState.FAILED_CLEAN:
            call.refuse(
                ToolDenied(
                    f"{name}: an earlier plan of this request has a {claim.state} write of this tool with other"
                    " arguments; name what identifies the effect (identity), or declare repeat: allow, or an approval",
                    for_model="An earlier attempt at this task has used this tool with other arguments. Not executed.",
                    details={"policy": "reworded_retry", "key": claim.key.hex()},
                )
            )
            return


class ClaimGuard:
    """Guard: the intent is durable before anything leaves; what came of it is settled after."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __call__(self, tool: ToolSpec, proceed: Proceed[J]) -> Proceed[J]:
        if not tool.may_write:
            return proceed
        ledger = self._ledger
        inflight = ledger.inflight
        resolver = Resolver(ledger, tool)

        async def claim(call: Call[J]) -> Answer:
            key = call.key
            if key is None:
                return await proceed(call)
            flight = inflight.get(key)
            while flight is not None:
                await flight.landed()
                flight = inflight.get(key)
            flight = Flight()
            inflight.start(key, flight, Write(ledger, resolver, call, proceed, flight).perform())
            try:
                await flight.over
                return flight.task.result()
            except asyncio.CancelledError:
                flight.abandon()
                raise

        return claim
