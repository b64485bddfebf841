"""How a run on PostgreSQL changes hands: the next fence, the next attempt, and what the last one came to.

The run's row is locked `for update` first: whatever its owner is about to commit is committed before, and is
counted; whatever comes after meets the new fence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from interlock.core.reasons import StopReason
from interlock.journal.ownership import wears_out
from interlock.journal.store import RunState

__all__ = ["EXPIRED", "RUN_COLUMNS", "Holder", "TakeOver"]

RUN_COLUMNS = """r.run_id, r.tenant_id, r.request_id, r.agent, r.state, r.reason, r.payload_hash, r.fence, r.attempts,
  r.request_time_ms, r.root_run_id, r.path, r.started_at, r.ended_at, r.record, r.output,
  r.lease_until_s - {s}.now_s() as lease_left_s, r.barren, r.used_s, r.spent_usd, r.spent_tokens"""

# Whether the owner of a run is dead: a lease that has run out, which he could have renewed.
EXPIRED = "(lease_until_s <= {s}.now_s() and {s}.now_s() >= {s}.up_since_s() + {ttl_s})"

_LOCK = f"""select state, reason, lease_until_s, coalesce(attempted_at, started_at), recorded, barren, used_s, record,
  ended_at, request_time_ms, {EXPIRED} as expired from {{s}}.runs where run_id = $1 for update skip locked"""

# What an attempt adds to: turns, answers, writes, and what became of them. A write sent once more is nothing new.
_RECORDED = """select (select count(*) from {s}.turns where run_id = $1)
  + (select count(*) from {s}.results where run_id = $1)
  + (select count(*) + count(*) filter (where state in ('done', 'failed_clean')) from {s}.journal
     where key >= int8send($2) and key < int8send($2 + 1) and run_id = $1)"""

_REOPEN = f"""update {{s}}.runs r set state = 'running', reason = null, ended_at = null, fence = fence + 1,
  attempts = attempts + 1, owner = $2, lease_until_s = {{s}}.now_s() + {{ttl_s}}, attempted_at = {{s}}.now_s(),
  last_op = $3, recorded = $4, barren = $5, used_s = $6, spent_usd = spent_usd + held_usd,
  spent_tokens = spent_tokens + held_tokens, held_usd = 0, held_tokens = 0 where run_id = $1 returning {RUN_COLUMNS}"""

# Children of an attempt that is over; whoever goes on with the run begins them again. Few rows are running.
_CLOSE_CHILDREN = """update {s}.runs set state = 'ended', reason = 'abandoned', ended_at = $2, lease_until_s = null
where running and root_run_id = $1 and path <> ''"""

_CLOSE_ATTEMPT = """insert into {s}.attempts as t (tenant_id, run_id, fence, owner, started_at, ended_at, ended_as)
select tenant_id, run_id, fence, owner, coalesce(attempted_at, started_at), $2, $3 from {s}.runs
where run_id = $1 and owner is not null
on conflict (run_id, fence) do update set ended_at = excluded.ended_at, ended_as = excluded.ended_as"""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who takes leases: this store of this process."""

    owner: str
    ttl_s: float


class TakeOver:
    """Takes runs, for one holder in one schema. Everything runs inside the caller's transaction."""

    def __init__(self, schema: str, holder: Holder) -> None:
        self._holder = holder
        self._lock, self._recorded, self._reopen, self._close_attempt, self._close_children = (
            text.replace("{s}", schema).replace("{ttl_s}", repr(float(holder.ttl_s)))
            for text in (_LOCK, _RECORDED, _REOPEN, _CLOSE_ATTEMPT, _CLOSE_CHILDREN)
        )

    async def take(self, db: Any, run_id: str, op: int, *, parked: bool, abandoned: bool = False) -> list[Any] | None:
        """Make the run ours, if nobody else's; return its row, or None.

        Args:
            op: Number of this change. parked, abandoned: whether such a run may be taken, too.
        """
        found = await db.fetchrow(self._lock, run_id)
        if found is None:
            return None  # somebody else has just locked it
        state, reason, until_s, attempted_at, before, barren, used_s, record, ended_at, time_ms, expired = found
        dead = state == RunState.RUNNING and bool(expired)
        if dead:
            # Up to the last renewal: nobody knows what came after.
            used_s += max(0.0, until_s - self._holder.ttl_s - attempted_at)
            await self.close_attempt(db, run_id, until_s, "lease_lost")
            await db.execute(self._close_children, run_id, until_s)
        elif state == RunState.ENDED and reason == StopReason.ABANDONED and abandoned:
            await self.close_attempt(db, run_id, ended_at, reason)
        elif state == RunState.PARKED and parked:
            used_s = float((orjson.loads(record) if record else {}).get("duration_s") or used_s)
            await self.close_attempt(db, run_id, ended_at, reason or "parked")
        elif state != RunState.QUEUED:
            return None
        recorded = int(await db.fetchval(self._recorded, run_id, time_ms))
        barren = wears_out(barren, dead=dead, recorded_before=before, recorded=recorded)
        row = await db.fetchrow(self._reopen, run_id, self._holder.owner, op, recorded, barren, used_s)
        return list(row)

    async def close_attempt(self, db: Any, run_id: str, ended_at: float | None, ended_as: str) -> None:
        """Write down an attempt that is over, before its row says otherwise."""
        await db.execute(self._close_attempt, run_id, ended_at, ended_as)
