"""The statements of the journal on PostgreSQL: what one process has to say of many claims, each in one statement.

The fence, the switches and the approval are checked in the statement that commits the intents. A claim that
fails a check drops out of its group and the others commit; only for those that dropped out do we ask why.
The rows of runs are locked (`for key share`): a take-over, which locks them `for update`, waits for intents under
way, and these for it; a renewal of leases does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from interlock.journal.store import Claim, ClaimState, Fenced, Intent, KilledAtClaim, Settlement, SpentApproval
from interlock.stores.pg_text import read_text, write_text
from interlock.stores.pg_time import ServerTime
from interlock.stores.pg_work import Work, claim_work, resend_work, settle_work
from interlock.stores.places import args_place
from interlock.stores.seal import Seal, Unreadable

__all__ = [
    "AGAIN",
    "DISPROVE",
    "ClaimStatements",
    "claim_of",
    "disproof_of",
    "read_claim",
    "resend_of",
    "settle_of",
]

# Neither written nor refused: what stood in the way was gone when we asked.
AGAIN = object()

CLAIM_COLUMNS = """j.key, j.tenant_id, j.request_id, j.run_id, j.path, j.agent, j.tool, j.args_digest, j.occurrence,
  j.on_unknown, j.sent_key, j.state, j.fence, j.sends, j.first_sent_at, j.last_sent_at, j.settled_at, j.result,
  j.verified, j.evidence, j.settled_by, j.settle_reason, j.turn, j.seq, j.args,
  {s}.now_s() - j.last_sent_at as sent_ago_s"""

# Nothing is written by a connection that another has replaced. An intent is on the disk when its commit returns,
# even where the server's default is otherwise; that is looked at here because no session state would last.
MINE = """clock as (select {s}.now_s() as now), mine as materialized (select 1 from {s}.writers
  where id = $1 and epoch = $2 and (current_setting('synchronous_commit') <> 'off'
    or set_config('synchronous_commit', 'on', true) is not null) for share)"""

_CONCERNS = """(w.expires_at is null or w.expires_at > clock.now) and (w.kind = 'kill' or a.heed_safe_mode)
  and (w.scope = 'global' or w.scope = 'tenant' and w.subject = {tenant_id} or w.scope = 'agent' and w.subject = {agent}
    or w.scope = 'run' and w.subject = a.run_id or w.scope = 'tool' and {tool} like w.pattern)"""

_OF_INTENT = {"tenant_id": "a.tenant_id", "agent": "a.agent", "tool": "a.tool"}
_OF_CLAIM = {"tenant_id": "j.tenant_id", "agent": "j.agent", "tool": "j.tool"}


def _concerns(names: dict[str, str]) -> str:
    text = _CONCERNS
    for name, column in names.items():
        text = text.replace("{" + name + "}", column)
    return text


_ASKED = """asked as materialized (select * from unnest($4::bytea[], $5::text[], $6::text[], $7::text[], $8::text[],
  $9::text[], $10::text[], $11::bytea[], $12::int[], $13::text[], $14::text[], $15::bigint[], $16::int[], $17::int[],
  $18::bytea[], $19::text[], $20::bool[], $21::bigint[]) with ordinality as a (key, tenant_id, request_id, run_id, path,
  agent, tool, args_digest, occurrence, on_unknown, sent_key, fence, turn, seq, args, approval_id, heed_safe_mode, op,
  n))"""

# Found one by one through the key of runs: the planner, which takes ten for the length of any list, must have no
# choice that is dear for five hundred. The state is looked at after the lock.
_OWNED = """owned as materialized (select a.*, r.tenant_id as owner_tenant_id, r.state as run_state
  from asked a join {s}.runs r on r.run_id = a.run_id and r.fence = a.fence for key share of r)"""

# Read once, not once a claim: mostly there is none.
_HELD = "held as materialized (select * from {s}.switches)"

_GRANTED = """granted as materialized (select p.id, p.effect_key, p.tenant_id from {s}.approvals p, clock
  where p.id in (select approval_id from asked) and p.state = 'approved' and p.expires_at > clock.now for update of p),
"""
_IS_GRANTED = """and (a.approval_id is null or exists (select 1 from granted g
      where g.id = a.approval_id and g.effect_key = a.key and g.tenant_id = a.tenant_id))"""
_SPENT = """,
spent as (update {s}.approvals p set state = 'consumed' from allowed a
  where p.id = a.approval_id and (a.key in (select key from claimed)) is true)"""


def _claim_text(granted: str, is_granted: str, spent: str) -> str:
    return f"""
with {MINE}, {_ASKED}, {_OWNED}, {_HELD}, {granted}
allowed as (select a.* from mine, clock, owned a
  where a.run_state = 'running' and a.owner_tenant_id = a.tenant_id
    and not exists (select 1 from held w where {_concerns(_OF_INTENT)}) {is_granted}),
claimed as (insert into {{s}}.journal as j (key, tenant_id, request_id, run_id, path, agent, tool, args_digest,
    occurrence, on_unknown, sent_key, fence, sender, turn, seq, args, last_op, state, sends, first_sent_at,
    last_sent_at)
  select key, tenant_id, request_id, run_id, path, agent, tool, args_digest, occurrence, on_unknown, sent_key, fence,
    $3, turn, seq, args, op, 'intent', 1, now, now from allowed, clock order by key
  on conflict (key) do update set run_id = excluded.run_id, path = excluded.path, agent = excluded.agent,
    args_digest = excluded.args_digest, on_unknown = excluded.on_unknown, sent_key = excluded.sent_key,
    fence = excluded.fence, sender = excluded.sender, turn = excluded.turn, seq = excluded.seq, args = excluded.args,
    last_op = excluded.last_op, state = 'intent', sends = 1, first_sent_at = excluded.first_sent_at,
    last_sent_at = excluded.last_sent_at, verified = true, settled_at = null, settled_by = '', settle_reason = '',
    result = null
  where j.state = 'failed_clean' returning j.key){spent}
select (select count(*) from mine), array(select n from asked where key not in (select key from claimed))"""


# Few claims consume an approval; a sixth of the server's work on a lone claim would be to look for one.
_CLAIM = _claim_text("", "", "")
_CLAIM_GRANTED = _claim_text(_GRANTED, _IS_GRANTED, _SPENT)

_WHY_CLAIM = f"""
with clock as (select {{s}}.now_s() as now), asked as (select * from unnest($1::bytea[], $2::text[], $3::bigint[],
  $4::text[], $5::text[], $6::text[], $7::text[], $8::bool[], $9::bigint[]) with ordinality
  as a (key, run_id, fence, tenant_id, agent, tool, approval_id, heed_safe_mode, op, n))
select a.n,
  exists (select 1 from {{s}}.runs r
    where (r.run_id, r.tenant_id, r.fence) = (a.run_id, a.tenant_id, a.fence) and r.state = 'running') as owned,
  (select array[w.kind, w.scope, w.subject, w.reason, w.actor] from {{s}}.switches w
    where {_concerns(_OF_INTENT)} order by w.kind limit 1) as switch,
  a.approval_id is null or exists (select 1 from {{s}}.approvals p where p.id = a.approval_id and p.state = 'approved'
    and p.expires_at > clock.now and p.effect_key = a.key and p.tenant_id = a.tenant_id) as granted,
  j.last_op = a.op as ours, {CLAIM_COLUMNS}
from clock, asked a left join {{s}}.journal j on j.key = a.key order by a.n"""

_RESEND = f"""
with {MINE}, asked as materialized (select * from unnest($4::bytea[], $5::text[], $6::bigint[], $7::bool[],
  $8::bigint[]) with ordinality as a (key, run_id, fence, heed_safe_mode, op, n)), {_OWNED}, {_HELD},
sent as (update {{s}}.journal j set state = 'intent', sends = sends + 1, last_sent_at = clock.now, run_id = a.run_id,
    fence = a.fence, sender = $3, settled_by = '', settle_reason = '', last_op = a.op
  from mine, clock, owned a
  where a.run_state = 'running' and j.key = a.key and j.tenant_id = a.owner_tenant_id
    and j.state in ('intent', 'in_doubt') and j.last_op <> a.op
    and not exists (select 1 from held w where {_concerns(_OF_CLAIM)})
  returning j.key)
select (select count(*) from mine), array(select n from asked where key not in (select key from sent))"""

_WHY_RESEND = f"""
with clock as (select {{s}}.now_s() as now), asked as (select * from unnest($1::bytea[], $2::text[], $3::bigint[],
  $4::bool[], $5::bigint[]) with ordinality as a (key, run_id, fence, heed_safe_mode, op, n))
select a.n,
  exists (select 1 from {{s}}.runs r
    where (r.run_id, r.tenant_id, r.fence) = (a.run_id, j.tenant_id, a.fence) and r.state = 'running') as owned,
  (select array[w.kind, w.scope, w.subject, w.reason, w.actor] from {{s}}.switches w
    where {_concerns(_OF_CLAIM)} order by w.kind limit 1) as switch,
  true as granted, j.last_op = a.op as ours, {CLAIM_COLUMNS}
from clock, asked a left join {{s}}.journal j on j.key = a.key order by a.n"""

_SETTLE = f"""
with {MINE}, asked as materialized (select * from unnest($3::bytea[], $4::text[], $5::bytea[], $6::bool[], $7::text[],
  $8::text[], $9::float8[], $10::text[], $11::bigint[], $12::bigint[]) with ordinality
  as a (key, state, result, verified, settled_by, settle_reason, at, evidence, fence, op, n)),
settled as (update {{s}}.journal j set state = a.state, result = a.result, verified = a.verified,
    settled_by = a.settled_by, settle_reason = a.settle_reason, last_op = a.op,
    args = case when a.state = 'in_doubt' then j.args end,
    settled_at = case when a.state <> 'in_doubt' then coalesce(a.at, clock.now) end,
    evidence = case when j.evidence = '' or a.evidence = '' then j.evidence || a.evidence
      else j.evidence || chr(10) || a.evidence end
  from mine, clock, asked a where j.key = a.key and j.state in ('intent', 'in_doubt') and j.last_op <> a.op
    and (a.fence is null or a.state <> 'failed_clean' or j.fence = a.fence)
  returning j.key)
select (select count(*) from mine), array(select a.n from asked a where a.key not in (select key from settled)
  and not exists (select 1 from {{s}}.journal j where j.key = a.key and j.last_op = a.op))"""


# Nothing was sent since: what a fence, a number of the call and a count of sends say together is never said twice.
# Again, where the answer was lost, it says the same.
DISPROVE = """with closed as (update {s}.journal j set state = 'failed_clean', result = null, args = null,
    settled_by = $2, settle_reason = $3, settled_at = {s}.now_s(), last_op = $10,
    evidence = case when j.evidence = '' or $4 = '' then j.evidence || $4 else j.evidence || chr(10) || $4 end
  where j.key = $1 and j.state in ('intent', 'in_doubt')
    and (j.run_id, j.path, j.fence, j.seq, j.sends) = ($5, $6, $7, $8, $9) returning true)
select exists (select from closed) or exists (select from {s}.journal where key = $1 and last_op = $10)"""


def claim_of(intent: Intent, op: int, seal: Seal) -> Work:
    """Return the work that commits the intent."""
    args = None if intent.args is None else seal.close(intent.args, args_place(intent.key))
    row = (
        intent.key,
        write_text(intent.tenant_id),
        write_text(intent.request_id),
        write_text(intent.run_id),
        write_text(intent.path),
        write_text(intent.agent),
        write_text(intent.tool),
        intent.args_digest,
        intent.occurrence,
        intent.on_unknown,
        write_text(intent.sent_key),
        intent.fence,
        intent.turn,
        intent.seq,
        args,
        intent.approval_id,
        not intent.observing,
        op,
    )
    return claim_work(row, intent.key, intent.run_id)


def disproof_of(claim: Claim, settlement: Settlement, op: int) -> tuple[Any, ...]:
    """Return the parameters of `DISPROVE`."""
    said = write_text(settlement.by), write_text(settlement.reason), _lines(settlement.evidence)
    return (
        claim.key, *said, write_text(claim.run_id), write_text(claim.path), claim.fence, claim.seq, claim.sends, op
    )  # fmt: skip


def resend_of(key: bytes, run_id: str, fence: int, op: int, *, observing: bool) -> Work:
    """Return the work that counts one more send."""
    return resend_work((key, write_text(run_id), fence, not observing, op), key, run_id)


def settle_of(key: bytes, settlement: Settlement, op: int, at: float | None, seal: Seal) -> Work:
    """Return the work that closes the claim, or adds evidence; `at` is when, where that is not now."""
    result = seal.close(settlement.result, key) if settlement.state is ClaimState.DONE else None
    evidence = _lines(settlement.evidence)
    row = (
        key,
        str(settlement.state),
        result,
        settlement.verified,
        write_text(settlement.by),
        write_text(settlement.reason),
        at,
        evidence,
        settlement.fence,
        op,
    )
    return settle_work(row, key, len(evidence) + (0 if result is None else len(result)))


def read_claim(record: Any, seal: Seal, time: ServerTime) -> Claim:
    """Return a row of `CLAIM_COLUMNS` as a value; a result that cannot be opened is kept, but None."""
    row: Any = tuple(map(read_text, record))
    try:
        result = seal.open(row[17], row[0])
    except Unreadable:
        result = None
    try:
        args = seal.open(row[24], args_place(row[0]))
    except Unreadable:
        args = None
    return Claim(
        key=row[0],
        tenant_id=row[1],
        request_id=row[2],
        run_id=row[3],
        path=row[4],
        agent=row[5],
        tool=row[6],
        args_digest=row[7],
        occurrence=row[8],
        on_unknown=row[9],
        sent_key=row[10],
        state=ClaimState(row[_STATE]),
        fence=row[12],
        sends=row[13],
        first_sent_at=time.ours(row[14]),
        last_sent_at=time.ours(row[15]),
        settled_at=time.ours_or_none(row[16]),
        result=result,
        result_kept=row[17] is not None,
        verified=row[18],
        evidence=tuple(orjson.loads(line) for line in row[19].split("\n")) if row[19] else (),
        settled_by=row[20],
        settle_reason=row[21],
        turn=row[22],
        seq=row[23],
        args=args,
        sent_ago_s=row[25],
    )


def _lines(evidence: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(orjson.dumps(dict(entry)).decode() for entry in evidence)


class ClaimStatements:
    """The journal's statements for one schema; each runs for a group of works and sets their outcomes."""

    def __init__(self, schema: str) -> None:
        texts = (_CLAIM, _CLAIM_GRANTED, _WHY_CLAIM, _RESEND, _WHY_RESEND, _SETTLE)
        self._claim, self._claim_granted, self._why_claim, self._resend, self._why_resend, self._settle = (
            text.replace("{s}", schema) for text in texts
        )

    async def claim(self, db: Any, writer: tuple[str, int], sender: str, works: Sequence[Work]) -> bool:
        """Commit intents; return whether the writer's epoch still holds. Outcome: None, a row, a refusal or AGAIN."""
        columns = list(zip(*(work.row for work in works), strict=True))
        granted = any(columns[_APPROVAL_ID])
        text = self._claim_granted if granted else self._claim
        mine, left = await db.fetchrow(text, *writer, sender, *columns)
        if mine and left:
            others = [works[n - 1] for n in left]
            asked = zip(*([work.row[i] for i in _WHY_OF_CLAIM] for work in others), strict=True)
            for work, row in zip(others, await db.fetch(self._why_claim, *asked), strict=True):
                work.outcome = _why_not_claimed(row)
        return bool(mine)

    async def resend(self, db: Any, writer: tuple[str, int], sender: str, works: Sequence[Work]) -> bool:
        """Count sends; as `claim`."""
        columns = list(zip(*(work.row for work in works), strict=True))
        mine, left = await db.fetchrow(self._resend, *writer, sender, *columns)
        if mine and left:
            others = [works[n - 1] for n in left]
            asked = zip(*(work.row for work in others), strict=True)
            for work, row in zip(others, await db.fetch(self._why_resend, *asked), strict=True):
                work.outcome = _why_not_sent(row)
        return bool(mine)

    async def settle(self, db: Any, writer: tuple[str, int], works: Sequence[Work]) -> bool:
        """Close claims; outcome: whether it was open."""
        columns = zip(*(work.row for work in works), strict=True)
        mine, left = await db.fetchrow(self._settle, *writer, *columns)
        for work in works:
            work.outcome = True
        for n in left:
            works[n - 1].outcome = False
        return bool(mine)


# Of a standing claim's columns; of a claim's parameters.
_STATE = 11
_APPROVAL_ID = 15
# Of a claim's row: key, run, fence, tenant, agent, tool, approval, heed safe mode, op.
_WHY_OF_CLAIM = (0, 3, 11, 1, 5, 6, 15, 16, 17)


def _why_not_claimed(row: Any) -> Any:
    refusal, granted, ours, standing = _read_why(row)
    if refusal is not None or ours:
        return refusal
    if standing[_STATE] in {None, ClaimState.FAILED_CLEAN}:
        return AGAIN if granted else SpentApproval("not granted, or spent")
    return standing


def _why_not_sent(row: Any) -> Any:
    refusal, _, ours, standing = _read_why(row)
    if refusal is not None or ours:
        return refusal
    return AGAIN if standing[_STATE] in {ClaimState.INTENT, ClaimState.IN_DOUBT} else standing


def _read_why(row: Any) -> tuple[Exception | None, bool, bool, tuple[Any, ...]]:
    """Return the refusal, whether the approval is good, whether a lost answer said yes, and the row that stands."""
    _, owned, switch, granted, ours, *standing = row
    refusal: Exception | None = None
    if not owned:
        refusal = Fenced("the run has another owner or has ended, or the claim is not in this store")
    elif switch is not None:
        refusal = KilledAtClaim(*map(read_text, switch))
    return refusal, granted, bool(ours), tuple(standing)
