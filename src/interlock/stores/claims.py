"""The statements of the journal: `intent → done | failed_clean | in_doubt → done | failed_clean`.

Each function is one piece of work of the writer: it runs inside a transaction, and when it refuses it has
written nothing. The common case of `claim` is one statement, in which the fence, the switches and the
standing claim are checked; only when it wrote nothing do we ask why. Claims, and settlements, may share a
statement (`batch.py`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from interlock.core.clock import Clock
from interlock.journal.store import (
    Claim,
    ClaimState,
    Fenced,
    Intent,
    KilledAtClaim,
    Refused,
    Settlement,
    SpentApproval,
)
from interlock.stores.marks import ManyMarked, Marked
from interlock.stores.places import args_place
from interlock.stores.runs import Holder
from interlock.stores.seal import Seal, Unreadable

__all__ = [
    "claim",
    "claim_all",
    "claim_params",
    "claims_of",
    "disprove",
    "doubts",
    "find",
    "is_plain",
    "read_claim",
    "resend",
    "senders",
    "settle",
    "settle_all",
    "settle_params",
]

# A tool's subject may be a glob of `*` and `?`, which SQLite reads as we do.
_HELD_UP = """
select kind, scope, subject, reason, actor from switches where (expires_at is null or expires_at > :now)
  and (kind = 'kill' or :heed_safe_mode) and (scope = 'global' or scope = 'tenant' and subject = :tenant_id
  or scope = 'agent' and subject = :agent or scope = 'run' and subject = :run_id
  or scope = 'tool' and :tool glob subject)
order by kind limit 1"""

_OWNS = "select 1 from runs where run_id = :run_id and fence = :fence and state = 'running'"

# By position, which SQLite binds in half the time it needs for names: 1 key … 15 seq, 16 args; then what all of a
# statement share: 17 now, 18 since boot, 19 heed safe mode.
_CLAIM_TEXT = """
insert into journal (key, tenant_id, request_id, run_id, path, agent, tool, args_digest, occurrence, on_unknown,
  sent_key, fence, sender, turn, seq, args, state, sends, first_sent_at, last_sent_at, last_sent_s)
select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, 'intent', 1, ?17, ?17, ?18 {rows}
where exists (select 1 from runs where run_id = ?4 and fence = ?12 and state = 'running')
  and not exists (select 1 from switches where (expires_at is null or expires_at > ?17) and (kind = 'kill' or ?19)
    and (scope = 'global' or scope = 'tenant' and subject = ?2 or scope = 'agent' and subject = ?6
      or scope = 'run' and subject = ?4 or scope = 'tool' and ?7 glob subject))
on conflict (key) do update set run_id = excluded.run_id, path = excluded.path, agent = excluded.agent,
  args_digest = excluded.args_digest, on_unknown = excluded.on_unknown, sent_key = excluded.sent_key,
  fence = excluded.fence, sender = excluded.sender, turn = excluded.turn, seq = excluded.seq, state = 'intent',
  sends = 1, first_sent_at = excluded.first_sent_at, last_sent_at = excluded.last_sent_at,
  last_sent_s = excluded.last_sent_s, args = excluded.args, verified = 1, settled_at = null, settled_by = '',
  settle_reason = '', result = null
where journal.state = 'failed_clean'"""
_CLAIM = Marked(_CLAIM_TEXT.replace("{rows}", ""))
_CLAIM_MANY = ManyMarked(_CLAIM_TEXT, columns=16, shared=3)

_SETTLE_TEXT = """
update journal set state = ?2, result = ?3, verified = ?4, settled_by = ?5, settle_reason = ?6, settled_at = ?7,
  args = case when ?2 = 'in_doubt' then args end,
  evidence = case when evidence = '' or ?8 = '' then evidence || ?8 else evidence || char(10) || ?8 end {rows}
where key = ?1 and state in ('intent', 'in_doubt') and (?9 is null or ?2 <> 'failed_clean' or fence = ?9)"""
_SETTLE = Marked(_SETTLE_TEXT.replace("{rows}", ""))
_SETTLE_MANY = ManyMarked(_SETTLE_TEXT, columns=9)

# Nothing was sent since: what a fence, a number of the call and a count of sends say together is never said twice.
_DISPROVE = Marked("""
update journal set state = 'failed_clean', result = null, args = null, settled_by = ?2, settle_reason = ?3,
  settled_at = ?4, evidence = case when evidence = '' or ?5 = '' then evidence || ?5 else evidence || char(10) || ?5 end
where key = ?1 and state in ('intent', 'in_doubt') and run_id = ?6 and path = ?7 and fence = ?8 and seq = ?9
  and sends = ?10""")

_COLUMNS = """key, tenant_id, request_id, run_id, path, agent, tool, args_digest, occurrence, on_unknown, sent_key,
  state, fence, sends, first_sent_at, last_sent_at, settled_at, result, verified, evidence, settled_by,
  settle_reason, turn, seq, args, last_sent_s, sender"""

_FIND = f"select {_COLUMNS} from journal where key = ?"  # noqa: S608 - our own column names

_APPROVAL = Marked("""
select exists (select 1 from journal where key = ?3 and state <> 'failed_clean') or exists (
  select 1 from approvals where id = ?1 and state = 'approved' and expires_at > ?2 and effect_key = ?3
  and tenant_id = ?4)""")


def claim_params(intent: Intent, sender: str, seal: Seal) -> tuple[Any, ...]:
    """Return the parameters of `claim`, without the time and the switches to heed."""
    args = intent.args
    return (
        intent.key,
        intent.tenant_id,
        intent.request_id,
        intent.run_id,
        intent.path,
        intent.agent,
        intent.tool,
        intent.args_digest,
        intent.occurrence,
        intent.on_unknown,
        intent.sent_key,
        intent.fence,
        sender,
        intent.turn,
        intent.seq,
        None if args is None else seal.close(args, args_place(intent.key)),
    )


def claim(
    db: sqlite3.Connection, params: tuple[Any, ...], clock: Clock, approval_id: str | None, observing: bool
) -> tuple[Any, ...] | None:
    """Write the intent and return None; or write nothing, and return the row that stands (see `Journal.claim`)."""
    now = clock.wall()  # not when it was queued: a look-up counts from here until a "no" is final
    key, tenant_id, run_id, agent, tool, fence = params[0], params[1], params[3], params[5], params[6], params[11]
    # Looked at before anything is written: one who refuses here has nothing to undo.
    if approval_id is not None and not _approved(db, approval_id, key, tenant_id, now):
        raise _why_not(db, run_id, fence, tenant_id, agent, tool, now, observing) or SpentApproval(approval_id)
    if _CLAIM.run(db, (*params, now, clock.boot(), not observing)).rowcount != 1:
        refusal = _why_not(db, run_id, fence, tenant_id, agent, tool, now, observing)
        if refusal is not None:
            raise refusal
        standing: tuple[Any, ...] = db.execute(_FIND, (key,)).fetchone()
        return standing
    if approval_id is not None:
        db.execute("update approvals set state = 'consumed' where id = ?", (approval_id,))
    return None


def is_plain(_params: tuple[Any, ...], _clock: Clock, approval_id: str | None, observing: bool) -> bool:
    """Whether a claim with these arguments may be one of `claim_all`."""
    return approval_id is None and not observing


def claim_all(db: sqlite3.Connection, claims: Sequence[tuple[Any, ...]]) -> bool:
    """Write the intents of plain claims (arguments of `claim`) about different effects; False: not all of them."""
    clock = claims[0][1]
    rows = [params for params, *_ in claims]
    return _CLAIM_MANY.run(db, rows, (clock.wall(), clock.boot(), True)) == len(rows)


def _approved(db: sqlite3.Connection, approval_id: str, key: bytes, tenant_id: str, now: float) -> bool:
    """Whether the approval may be consumed, or a claim stands, so that it need not be."""
    return bool(_APPROVAL.run(db, (approval_id, now, key, tenant_id)).fetchone()[0])


def resend(
    db: sqlite3.Connection, key: bytes, run_id: str, fence: int, sender: str, clock: Clock, observing: bool
) -> tuple[Any, ...] | None:
    """Count one more send of an open claim and return None; or return the row, if it is closed by now."""
    now = clock.wall()
    row: tuple[Any, ...] | None = db.execute(_FIND, (key,)).fetchone()
    if row is None:
        raise Fenced("the claim is not in this store")
    refusal = _why_not(db, run_id, fence, row[1], row[5], row[6], now, observing)
    if refusal is not None:
        raise refusal
    changed = db.execute(
        "update journal set state = 'intent', sends = sends + 1, last_sent_at = ?, run_id = ?, fence = ?, "
        "sender = ?, last_sent_s = ?, settled_by = '', settle_reason = '' "
        "where key = ? and state in ('intent', 'in_doubt')",
        (now, run_id, fence, sender, clock.boot(), key),
    ).rowcount
    return None if changed else row


def _why_not(
    db: sqlite3.Connection,
    run_id: str,
    fence: int,
    tenant_id: str,
    agent: str,
    tool: str,
    now: float,
    observing: bool,
) -> Refused | None:
    facts = {
        "run_id": run_id,
        "fence": fence,
        "tenant_id": tenant_id,
        "agent": agent,
        "tool": tool,
        "now": now,
        "heed_safe_mode": not observing,
    }
    if db.execute(_OWNS, facts).fetchone() is None:
        return Fenced(run_id)
    switch = db.execute(_HELD_UP, facts).fetchone()
    return None if switch is None else KilledAtClaim(*switch)


def settle_params(settlement: Settlement, key: bytes, now: float, seal: Seal) -> tuple[Any, ...]:
    """Return the parameters of `settle`; everything that costs is done here, before any lock is taken."""
    done = settlement.state is ClaimState.DONE
    return (
        key,
        settlement.state.value,
        seal.close(settlement.result, key) if done else None,
        settlement.verified,
        settlement.by,
        settlement.reason,
        None if settlement.state is ClaimState.IN_DOUBT else now,
        _lines(settlement.evidence) if settlement.evidence else "",
        settlement.fence,
    )


def _lines(evidence: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(orjson.dumps(dict(entry)).decode() for entry in evidence)


def settle(db: sqlite3.Connection, params: tuple[Any, ...]) -> bool:
    """Close an open claim; return whether it was open."""
    return _SETTLE.run(db, params).rowcount == 1


def settle_all(db: sqlite3.Connection, settlements: Sequence[tuple[Any, ...]]) -> bool:
    """Close open claims (arguments of `settle`), each another; False: not all of them were open."""
    return _SETTLE_MANY.run(db, [params for (params,) in settlements]) == len(settlements)


def disprove(
    db: sqlite3.Connection, key: bytes, settled: tuple[Any, ...], seen: tuple[str, str, int, int, int]
) -> bool:
    """Close an open claim of which nothing was sent since it was `seen`: run, path, fence, seq, sends."""
    _, _, _, _, by, reason, at, evidence, _ = settled
    return _DISPROVE.run(db, (key, by, reason, at, evidence, *seen)).rowcount == 1


def find(db: sqlite3.Connection, key: bytes) -> tuple[Any, ...] | None:
    """Return the row with this key."""
    row: tuple[Any, ...] | None = db.execute(_FIND, (key,)).fetchone()
    return row


def claims_of(db: sqlite3.Connection, run_id: str) -> list[tuple[Any, ...]]:
    """Return the rows of the request that a root run belongs to, by key and seq."""
    run = db.execute("select request_time_ms, tenant_id, request_id from runs where run_id = ?", (run_id,)).fetchone()
    if run is None:
        return []
    # All keys of a request begin with its time: a short range, instead of an index that every claim would pay for.
    low = int(run[0]).to_bytes(8, "big")
    high = (int(run[0]) + 1).to_bytes(8, "big")
    return db.execute(
        f"select {_COLUMNS} from journal where key >= ? and key < ? and tenant_id = ? and request_id = ? "  # noqa: S608
        "order by key, seq",
        (low, high, *run[1:]),
    ).fetchall()


def doubts(
    db: sqlite3.Connection, tenant_id: str | None, unverified: bool, senders: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Return open doubts: also intents of a run that is over, or whose sender is not among the living `senders`."""
    if unverified:
        where = "verified = 0 and state = 'done'"
    else:
        # The first term is what the index of open claims is asked by: they are few, however many are closed.
        where = (
            "state in ('intent', 'in_doubt') and (state = 'in_doubt' or sender not in (select value from"
            " json_each(:senders)) or not exists (select 1 from runs where runs.run_id = journal.run_id"
            " and runs.state = 'running'))"
        )
    mine = "(:tenant_id is null or tenant_id = :tenant_id)"
    return db.execute(
        f"select {_COLUMNS} from journal where {where} and {mine} order by +key",  # noqa: S608 - our own words
        {"tenant_id": tenant_id, "senders": orjson.dumps(list(senders)).decode()},
    ).fetchall()


def senders(db: sqlite3.Connection) -> list[str]:
    """Return the processes that have intents open."""
    return [
        row[0]
        for row in db.execute(
            "select distinct sender from journal where state in ('intent', 'in_doubt') and state = 'intent'"
        )
    ]


def read_claim(row: tuple[Any, ...], seal: Seal, holder: Holder, wall_s: float) -> Claim:
    """Return the row as a value, its result opened; a result that cannot be opened is kept, but None."""
    kept = row[17] is not None
    try:
        result = seal.open(row[17], row[0])
    except Unreadable:
        result = None
    try:
        args = seal.open(row[24], args_place(row[0]))
    except Unreadable:
        args = None
    # Since boot where it is the same boot: whoever sets the clock does not change what has passed.
    same_boot = row[25] is not None and holder.boot_id != "" and row[26].partition(":")[0] == holder.boot_id
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
        state=ClaimState(row[11]),
        fence=row[12],
        sends=row[13],
        first_sent_at=row[14],
        last_sent_at=row[15],
        settled_at=row[16],
        result=result,
        result_kept=kept,
        verified=bool(row[18]),
        evidence=tuple(orjson.loads(line) for line in row[19].split("\n")) if row[19] else (),
        settled_by=row[20],
        settle_reason=row[21],
        turn=row[22],
        seq=row[23],
        args=args,
        sent_ago_s=holder.boot() - row[25] if same_boot else wall_s - row[15],
    )
