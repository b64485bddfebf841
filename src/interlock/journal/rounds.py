"""Goes round the open doubts of a store, and asks the remote of each whose tool has a look-up.

A "yes" closes the claim with its result, a "no" that counts closes it as not performed; nothing else does. What
cannot be asked, or says nothing, is left for the next round, later each time, and in the end for a person.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from interlock.core.calls import ToolSpec
from interlock.core.errors import StoreUnavailable
from interlock.journal.doubt import settle_s
from interlock.journal.ledger import LOOKUP, Ledger, verdict
from interlock.journal.lookup import Found, Inquiry, Verdict
from interlock.journal.store import Claim, ClaimState, Settlement

__all__ = ["RoundOptions", "Rounds"]


@dataclass(frozen=True, slots=True)
class RoundOptions:
    """How often a remote is asked.

    Attributes:
        first_s: Seconds until the same doubt is asked about again; doubled each time, up to `most_s`.
        at_once: Most questions at a time. busy: questions of one tool that may hang before it is asked no more.
    """

    first_s: float = 5.0
    most_s: float = 300.0
    at_once: int = 8
    busy: int = 2


class Rounds:
    """See the module. One for each process that knows the tools.

    Args:
        tool_of: Returns a tool by its name, as the configuration sees it; None for one that this process has not.
    """

    def __init__(
        self, ledger: Ledger, tool_of: Callable[[str], ToolSpec | None], options: RoundOptions | None = None
    ) -> None:
        self._ledger = ledger
        self._tool_of = tool_of
        self._options = options or RoundOptions()
        self._inquiries: dict[str, Inquiry] = {}
        # When each doubt is asked about again (`Clock.boot`), and how long that was put off.
        self._next: dict[bytes, tuple[float, float]] = {}

    async def go(self, tenants: Collection[str] | None = None) -> int:
        """Ask about every doubt that is due; return how many claims were closed.

        Raises:
            StoreUnavailable: The doubts cannot be read.
        """
        doubts = await self._ledger.journal.doubts()
        standing = {claim.key for claim in doubts}
        self._next = {key: when for key, when in self._next.items() if key in standing}
        slots = asyncio.Semaphore(self._options.at_once)
        closed = await asyncio.gather(
            *(self._see_to(claim, slots) for claim in doubts if tenants is None or claim.tenant_id in tenants)
        )
        return sum(closed)

    async def _see_to(self, claim: Claim, slots: asyncio.Semaphore) -> bool:
        ledger, clock = self._ledger, self._ledger.clock
        tool = self._tool_of(claim.tool)
        when = self._next.get(claim.key)
        too_early = when is not None and clock.boot() < when[0]
        if tool is None or tool.lookup is None or too_early or ledger.inflight.is_busy(claim.key):
            return False
        inquiry = self._inquiry(tool)
        if inquiry.busy >= self._options.busy:
            return False
        settled_in_s = settle_s(tool, ledger.options.timeout_s, ledger.options.lease_ttl_s) - claim.sent_ago_s
        async with slots:
            args, why = _args_of(claim, tool, inquiry)
            if args is None:
                found = Found(Verdict.UNKNOWN, why=why)
            else:
                found = await inquiry.ask(args, claim.sent_key, counts=settled_in_s <= 0)
        self._put_off(claim.key, settled_in_s)
        return await self._close(claim, tool, found)

    def _inquiry(self, tool: ToolSpec) -> Inquiry:
        found = self._inquiries.get(tool.name)
        if found is None:
            timeout_s = tool.timeout_s or self._ledger.options.lookup_timeout_s
            found = self._inquiries[tool.name] = Inquiry(tool, self._ledger.in_thread, timeout_s)
        return found

    def _put_off(self, key: bytes, settled_in_s: float) -> None:
        """Ask again when a "no" counts, and then less and less often."""
        before = self._next.get(key)
        delay_s = self._options.first_s if before is None else min(before[1] * 2, self._options.most_s)
        self._next[key] = (self._ledger.clock.boot() + (settled_in_s if settled_in_s > 0 else delay_s), delay_s)

    async def _close(self, claim: Claim, tool: ToolSpec, found: Found) -> bool:
        journal = self._ledger.journal
        try:
            if found.verdict is Verdict.HAPPENED:
                found, answer = verdict(self._ledger, tool, found)
                if answer is not None:
                    return await journal.settle(claim.key, _closed(ClaimState.DONE, found, answer.json))
            if found.verdict is Verdict.DID_NOT and not self._ledger.inflight.is_busy(claim.key):
                return await journal.disprove(claim, _closed(ClaimState.FAILED_CLEAN, found))
            await self._ledger.note(claim, found.why)
        except StoreUnavailable:
            pass  # it stays a doubt, and is asked about again
        return False


def _closed(state: ClaimState, found: Found, data: bytes | None = None) -> Settlement:
    return Settlement(state, data, evidence=({"by": LOOKUP, "why": found.why},), by=LOOKUP)


def _args_of(claim: Claim, tool: ToolSpec, inquiry: Inquiry) -> tuple[Mapping[str, Any] | None, str]:
    """Return the arguments to ask with, as the tool gets them; None, and why, where it cannot be asked."""
    if claim.args is None:
        if inquiry.needs_only_key:
            return {}, ""
        return None, "lookup not asked: the arguments of the call are not kept (replay: off, or another INTERLOCK_KEY)"
    args = orjson.loads(claim.args)
    if tool.inputs is None:
        return args, ""
    try:
        return tool.inputs.validate(args), ""
    except ValueError:
        return None, "lookup not asked: the arguments do not fit the tool any more"
