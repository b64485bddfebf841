"""Writes down how runs end: one record, in the store and to every sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interlock.core.canonical import NotCanonical, canonical_json
from interlock.core.categories import category_of
from interlock.core.clock import Clock
from interlock.core.errors import StoreUnavailable
from interlock.core.reasons import StopReason
from interlock.core.results import RunResult
from interlock.journal.store import Claim, ClaimState, Journal, RunRow, RunState, RunStore
from interlock.policy.approval import ApprovalState, ApprovalStore
from interlock.record.metrics import Metrics
from interlock.record.redact import Redactor
from interlock.record.runrecord import build_record
from interlock.record.trace import Trace
from interlock.supervisor.run import Run

__all__ = ["RecordSink", "Secretary"]

RecordSink = Callable[[Mapping[str, Any]], None]
"""Receives the record of every run that ends; it queues, it does not work."""


class Secretary:
    """Records outcomes.

    Args:
        store: Where runs are kept. journal, approvals: what a parked run waits for.
        sinks: Further receivers of every record.
        facts: More of ours for every record (profile, prices).
    """

    def __init__(
        self,
        store: RunStore,
        journal: Journal,
        approvals: ApprovalStore,
        clock: Clock,
        metrics: Metrics,
        redactor: Redactor,
        sinks: Sequence[RecordSink],
        facts: Mapping[str, Any],
    ) -> None:
        self._store = store
        self._journal = journal
        self._approvals = approvals
        self._clock = clock
        self._metrics = metrics
        self._redactor = redactor
        self._sinks = tuple(sinks)
        self._facts = dict(facts)

    async def close(self, run: Run, result: RunResult) -> RunResult | None:
        """Record the end of a run; durable on return where somebody else may ask for the outcome.

        Return None, and record nothing, where the run is another worker's by now.
        """
        if not run.scope.keyed:
            return self.close_soon(run, result)
        record, state, output = self._write_up(run, result)
        scope = run.scope
        try:
            if not await self._store.end(scope.run_id, scope.fence, state, result.reason, record, output):
                return None
        except StoreUnavailable as error:
            # The outcome stands for the caller. It is written when the store returns, unless a redelivery has taken
            # the run over by then; that one asks the journal, write by write.
            self._store.end_soon(scope.run_id, scope.fence, state, result.reason, record, output)
            result.details["record"] = f"not stored yet: {error}"
        self._tell(run, result, record)
        return result

    def close_soon(self, run: Run, result: RunResult) -> RunResult:
        """Record the end of a run without waiting for the store."""
        record, state, output = self._write_up(run, result)
        self._store.end_soon(run.scope.run_id, run.scope.fence, state, result.reason, record, output)
        self._tell(run, result, record)
        return result

    def _write_up(self, run: Run, result: RunResult) -> tuple[Mapping[str, Any], RunState, bytes | None]:
        run.over(result)
        scope = run.scope
        if scope.in_flight:  # an agent that did not wait for them; what becomes of their writes, the journal knows
            result.details["unfinished_calls"] = scope.in_flight
        record = build_record(
            result,
            scope.trace,
            ended_at=self._clock.wall(),
            root_run_id=scope.root_run_id,
            path=scope.path,
            facts=self._facts,
            redactor=self._redactor,
        )
        if not result.parked:
            scope.trace.recorded()
        return record, RunState.PARKED if result.parked else RunState.ENDED, _output_json(result)

    def _tell(self, run: Run, result: RunResult, record: Mapping[str, Any]) -> None:
        agent = run.scope.agent.partition("/")[0]
        self._metrics.run_ended(agent, result.reason, result.elapsed_s, result.details.get("category"))
        for sink in self._sinks:
            sink(record)

    async def claims(self, row: RunRow) -> list[Claim]:
        """Return the writes of this run, not those of earlier runs of its request."""
        claims = await self._journal.claims_of(row.root_run_id)
        return [claim for claim in claims if claim.run_id == row.root_run_id]

    async def give_up_orphan(self, row: RunRow, orphan_after_s: float) -> None:
        """End a run whose worker has died, and that nobody has gone on with in time."""
        waited = f"its worker died, and nobody went on with it within {orphan_after_s:g} s (orphan_after_s)"
        why = waited if row.payload_hash else "its process died, and without a request id nobody can go on with it"
        await self.give_up(row, why, facts={"orphaned": True})

    async def give_up(
        self,
        row: RunRow,
        why: str,
        reason: StopReason = StopReason.ABANDONED,
        facts: Mapping[str, Any] | None = None,
    ) -> RunResult:
        """End a run of ours that cannot be gone on with, its doubts listed; `facts` are more details."""
        open_states = (ClaimState.IN_DOUBT, ClaimState.INTENT)
        doubts = [claim.key.hex() for claim in await self.claims(row) if claim.state in open_states]
        details: dict[str, Any] = {"message": why, "attempts": row.attempts, **(facts or {})}
        if doubts:
            details["doubts"] = doubts
        details["category"] = category_of(reason, doubts=bool(doubts))
        result = RunResult(
            row.run_id,
            reason,
            elapsed_s=row.used_s,
            cost_usd=row.spent_usd,
            tokens=row.spent_tokens,
            tenant_id=row.tenant_id,
            request_id=row.request_id,
            details=details,
        )
        record = build_record(
            result,
            Trace(row.run_id, tenant_id=row.tenant_id, request_id=row.request_id, agent=row.agent, kept=1),
            ended_at=self._clock.wall(),
            root_run_id=row.root_run_id,
            path=row.path,
            facts=self._facts,
            redactor=self._redactor,
        )
        await self._store.end(row.run_id, row.fence, RunState.ENDED, result.reason, record, None)
        self._metrics.run_ended(row.agent, result.reason, result.elapsed_s, details["category"])
        for sink in self._sinks:
            sink(record)
        return result

    async def may_go_on(self, row: RunRow) -> bool:
        """Whether what a parked run waited for has been settled or decided."""
        if row.reason == StopReason.OUTCOME_UNKNOWN:
            claims = await self._journal.claims_of(row.root_run_id)
            return not any(claim.state in (ClaimState.IN_DOUBT, ClaimState.INTENT) for claim in claims)
        pending = await self._approvals.list(tenant_id=row.tenant_id, state=ApprovalState.PENDING, limit=10_000)
        return not any(approval.run_id == row.run_id for approval in pending)


def _output_json(result: RunResult) -> bytes | None:
    if result.reason is not StopReason.SUCCESS:
        return None
    try:
        return canonical_json(result.output)
    except NotCanonical:
        return None
