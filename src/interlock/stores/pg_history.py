"""The statements of what replay answers from, on PostgreSQL: model turns and results of calls, sealed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interlock.journal.replay import CallRecord, Reserved, TurnRecord
from interlock.stores.pg_claims import MINE
from interlock.stores.pg_text import read_text, write_text
from interlock.stores.pg_work import Kind, Work, forget_work, record_work
from interlock.stores.places import call_place, turn_place
from interlock.stores.seal import Seal

__all__ = [
    "RESULTS_OF",
    "TURNS_OF",
    "HistoryStatements",
    "call_of",
    "forget_of",
    "hold_of",
    "read_call",
    "read_turn",
    "turn_of",
]

# The run's row is locked: a record of an owner that is being replaced is written before that, or not at all.
# A row without a turn says only what turns under way have reserved. Of one run the last word counts; the rows are
# changed in the order in which leases are renewed, so that neither waits for the other.
_TURNS = f"""
with {MINE}, asked as (select * from unnest($3::text[], $4::bigint[], $5::text[], $6::int[], $7::text[], $8::float8[],
  $9::bigint[], $10::bytea[], $11::float8[], $12::bigint[]) with ordinality
  as a (run_id, fence, path, turn, model, usd, tokens, reply, held_usd, held_tokens, n)),
owned as materialized (select a.*, r.tenant_id from asked a join {{s}}.runs r
  on r.run_id = a.run_id and r.fence = a.fence for key share of r),
kept as (insert into {{s}}.turns (tenant_id, run_id, path, turn, model, usd, tokens, reply)
  select tenant_id, run_id, path, turn, model, usd, tokens, reply from mine, owned where turn is not null
  on conflict (run_id, path, turn) do update set model = excluded.model, usd = excluded.usd,
    tokens = excluded.tokens, reply = excluded.reply),
words as materialized (select distinct on (run_id) run_id, held_usd, held_tokens from mine, owned
  where held_usd is not null order by run_id, n desc),
locked as materialized (select r.run_id from {{s}}.runs r where r.run_id in (select run_id from words)
  order by r.run_id for no key update of r),
held as (update {{s}}.runs r set held_usd = w.held_usd, held_tokens = w.held_tokens
  from words w join locked using (run_id) where r.run_id = w.run_id)
select count(*) from mine"""

_RESULTS = f"""
with {MINE}, asked as (select * from unnest($3::text[], $4::bigint[], $5::text[], $6::int[], $7::text[], $8::bytea[],
  $9::int[], $10::int[], $11::text[], $12::bool[], $13::bytea[], $14::bytea[])
  as a (run_id, fence, path, turn, tool, args_digest, nth, seq, status, writes, value, error)),
owned as materialized (select a.*, r.tenant_id from asked a join {{s}}.runs r
  on r.run_id = a.run_id and r.fence = a.fence for key share of r),
kept as (insert into {{s}}.results (tenant_id, run_id, path, turn, tool, args_digest, nth, seq, status, writes, value,
    error)
  select tenant_id, run_id, path, turn, tool, args_digest, nth, seq, status, writes, value, error from mine, owned
  on conflict (run_id, path, turn, tool, args_digest, nth) do update set seq = excluded.seq, status = excluded.status,
    writes = excluded.writes, value = excluded.value, error = excluded.error)
select count(*) from mine"""

# What is taken out stays charged.
_FORGET = f"""
with {MINE}, asked as (select * from unnest($3::text[], $4::bigint[]) as a (run_id, fence)),
owned as materialized (select r.run_id from mine, asked a join {{s}}.runs r using (run_id, fence)
  order by r.run_id for no key update of r),
turns as (delete from {{s}}.turns t using owned o where t.run_id = o.run_id returning t.run_id, t.usd, t.tokens),
results as (delete from {{s}}.results t using owned o where t.run_id = o.run_id),
spent as (select run_id, sum(usd) as usd, sum(tokens)::bigint as tokens from turns group by run_id),
charged as (update {{s}}.runs r set spent_usd = spent_usd + s.usd, spent_tokens = spent_tokens + s.tokens
  from spent s where r.run_id = s.run_id)
select count(*) from mine"""

TURNS_OF = """select path, turn, model, usd, tokens, reply from {s}.turns where run_id = $1 order by path, turn"""
RESULTS_OF = """select path, turn, tool, args_digest, nth, seq, status, writes, value, error from {s}.results
where run_id = $1 order by path, seq"""


def turn_of(run_id: str, fence: int, record: TurnRecord, held: Reserved | None, seal: Seal) -> Work:
    """Return the work that records a model turn."""
    reply = seal.close(record.reply, turn_place(run_id, record.path, record.turn))
    row = (
        write_text(run_id),
        fence,
        write_text(record.path),
        record.turn,
        write_text(record.model),
        record.usd,
        record.tokens,
        reply,
        *(held or (None, None)),
    )
    return record_work(Kind.TURN, row, run_id, _size(reply))


def hold_of(run_id: str, fence: int, held: Reserved) -> Work:
    """Return the work that says what turns under way have reserved."""
    row = (write_text(run_id), fence, None, None, None, None, None, None, *held)
    return record_work(Kind.TURN, row, run_id, 0)


def call_of(run_id: str, fence: int, record: CallRecord, seal: Seal) -> Work:
    """Return the work that records what became of a call."""
    place = call_place(run_id, record.path, record.turn, record.tool, record.nth)
    value, error = seal.close(record.value, place), seal.close(record.error, place)
    row = (
        write_text(run_id),
        fence,
        write_text(record.path),
        record.turn,
        write_text(record.tool),
        record.args_digest,
        record.nth,
        record.seq,
        record.status,
        record.writes,
        value,
        error,
    )
    return record_work(Kind.RESULT, row, run_id, _size(value) + _size(error))


def forget_of(run_id: str, fence: int) -> Work:
    """Return the work that takes out what is recorded of a run."""
    return forget_work((write_text(run_id), fence), run_id)


def read_turn(run_id: str, row: Any, seal: Seal) -> TurnRecord:
    """Return a row of `TURNS_OF` as a value; raises `Unreadable`."""
    path, turn, model, usd, tokens, reply = map(read_text, row)
    return TurnRecord(path, turn, seal.open(reply, turn_place(run_id, path, turn)), model, usd, tokens)


def read_call(run_id: str, row: Any, seal: Seal) -> CallRecord:
    """Return a row of `RESULTS_OF` as a value; raises `Unreadable`."""
    path, turn, tool, args_digest, nth, seq, status, writes, value, error = map(read_text, row)
    place = call_place(run_id, path, turn, tool, nth)
    value, error = seal.open(value, place), seal.open(error, place)
    return CallRecord(path, turn, tool, args_digest, nth, seq, status, writes, value, error)


class HistoryStatements:
    """The statements of history for one schema; each runs for a group of works."""

    def __init__(self, schema: str) -> None:
        self._turns, self._results, self._forget = (text.replace("{s}", schema) for text in (_TURNS, _RESULTS, _FORGET))

    async def turns(self, db: Any, writer: tuple[str, int], works: Sequence[Work]) -> bool:
        """Write model turns; return whether the writer's epoch still holds."""
        # The last word of each position, in its place: a statement changes a row once.
        rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for work in works:
            rows.pop(work.row[:4], None)
            rows[work.row[:4]] = work.row
        return bool(await db.fetchval(self._turns, *writer, *zip(*rows.values(), strict=True)))

    async def results(self, db: Any, writer: tuple[str, int], works: Sequence[Work]) -> bool:
        """Write what became of calls; as `turns`."""
        rows = {work.row[:7]: work.row for work in works}.values()
        return bool(await db.fetchval(self._results, *writer, *zip(*rows, strict=True)))

    async def forget(self, db: Any, writer: tuple[str, int], works: Sequence[Work]) -> bool:
        """Take out what is recorded of runs; as `turns`."""
        return bool(await db.fetchval(self._forget, *writer, *zip(*(work.row for work in works), strict=True)))


def _size(value: bytes | None) -> int:
    return 0 if value is None else len(value)
