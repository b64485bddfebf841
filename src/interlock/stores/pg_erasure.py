"""Erases from a PostgreSQL store what its runs say of somebody, and every byte of it from the server's files.

A deleted row stays in its page until the page is written anew, and in the write-ahead log until its segments are
used again. So the tables of memory are rewritten (`vacuum full`), and every segment of the log is gone through
once. What the role may not do, or the server holds on to, is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interlock.memory.erasure import Ground, Kept, Mentions
from interlock.memory.residue import Found, Region, Standing, all_forms
from interlock.stores.mentions import Looking
from interlock.stores.pg_address import Address
from interlock.stores.pg_connections import connect
from interlock.stores.pg_purge import PgRetention
from interlock.stores.pg_reader import PgReader
from interlock.stores.pg_text import read_text, write_text
from interlock.stores.pg_thread import LoopThread
from interlock.stores.pg_work import alone
from interlock.stores.pg_writer import PgWriter
from interlock.stores.places import args_place, call_place, output_place, task_place, turn_place
from interlock.stores.seal import Seal

__all__ = ["PgEraser"]

_WINDOW = 100
# Rewriting tables and going through the log takes as long as it takes.
_PATIENCE_S = 3_600.0
_MEMORY = ("memory_facts", "memory_artifacts", "memory_gone")
_RUN_TABLES = ("runs", "turns", "results", "calls", "journal", "approvals")

_RUNS = "select id, run_id from {s}.runs where id > 0 and tenant_id = $1 and id > $2 order by id limit $3"
_RUN = "select task, output, record::text from {s}.runs where run_id = $1"
_TURNS = "select path, turn, reply from {s}.turns where run_id = $1"
_RESULTS = "select path, turn, tool, nth, value, error from {s}.results where run_id = $1"
_CALLS = "select entry::text from {s}.calls where run_id = $1"
_CLAIMS = """select j.key, j.result, j.args, j.evidence, j.settle_reason from {s}.journal j
join {s}.runs r on r.run_id = $1 where j.key >= int8send(r.request_time_ms)
  and j.key < int8send(r.request_time_ms + 1) and j.run_id = r.run_id"""
_APPROVALS = "select rendered, decided_reason from {s}.approvals where run_id = $1"
# Words beside keys: they say why somebody believes something, and may name him of whom nothing shall be left.
_BLANK = (
    """update {s}.journal j set evidence = '', settle_reason = '', args = null from {s}.runs r
      where r.run_id = any($1::text[]) and j.key >= int8send(r.request_time_ms)
        and j.key < int8send(r.request_time_ms + 1) and j.run_id = r.run_id and not j.open""",
    """update {s}.approvals set rendered = '', decided_reason = ''
      where run_id = any($1::text[]) and state <> 'pending'""",
)

_COLUMNS = """select table_name::text, column_name::text, data_type::text from information_schema.columns
where table_schema = $1 and data_type in ('text', 'json', 'bytea', 'ARRAY', 'tsvector') and is_generated = 'NEVER'
order by 1, 2"""
_SEGMENTS = "select count(*) from pg_ls_waldir() where name ~ '^[0-9A-F]{24}$'"
# A segment that is used again gets a name that follows all others.
_OLD_SEGMENTS = "select count(*) from pg_ls_waldir() where name ~ '^[0-9A-F]{24}$' and name < $1"
_OUTSIDE = (
    "backups, base backups and dumps of the database",
    "archived write-ahead log, and whatever replicas and replication slots have received",
    "blocks of the disk that files no longer use: snapshots, copy-on-write and wear levelling keep them",
)


class PgEraser:
    """Port `Eraser`."""

    def __init__(
        self,
        thread: LoopThread,
        writer: PgWriter,
        reader: PgReader,
        retention: PgRetention,
        seal: Seal,
        address: Address,
    ) -> None:
        self._thread = thread
        self._writer = writer
        self._reader = reader
        self._retention = retention
        self._seal = seal
        self._address = address

    async def mentions(self, tenant_id: str, texts: Mapping[str, str]) -> Mentions:
        """See `Eraser`."""
        looking, after = Looking(texts, self._seal), 0
        await self._writer.submit(alone(_nothing))
        while rows := await self._reader.fetch(self._text(_RUNS), write_text(tenant_id), after, _WINDOW):
            after = rows[-1][0]

            async def query(db: Any, rows: Any = rows) -> None:
                for _, run_id in rows:
                    await self._look_at_run(db, looking, run_id)

            await self._reader.ask(query, repeat=True)
        return looking.answer()

    async def drop(self, run_ids: Sequence[str]) -> list[Kept]:
        """See `Eraser`."""
        kept = await self._retention.forget(run_ids)
        gone = [write_text(run_id) for run_id in run_ids if run_id not in kept]

        async def blank(db: Any) -> None:
            for text in _BLANK:
                await db.execute(self._text(text), gone)

        await self._writer.submit(alone(blank))
        return [Kept(run_id, why) for run_id, why in kept.items()]

    async def rows(self, texts: Mapping[str, str]) -> list[Found]:
        """See `Eraser`."""
        forms = [(name, form, data) for name, text in texts.items() for data, form in all_forms(text).items()]

        async def query(db: Any) -> list[Found]:
            found: list[Found] = []
            for table, column, kind in await db.fetch(_COLUMNS, self._address.schema):
                for name, form, data in forms:
                    if (times := await self._times(db, table, column, kind, data)) > 0:
                        found.append(Found(f"{table}.{column}", name, form, times))
            return found

        found: list[Found] = await self._at_length(query)
        return found

    async def scrub(self, *, whole: bool = False) -> list[Region]:
        """See `Eraser`."""
        await self._writer.submit(alone(_nothing))

        async def work(db: Any) -> list[Region]:
            regions = []
            for table in (*_MEMORY, *_RUN_TABLES):
                full = whole or table in _MEMORY
                why = await _tried(db, f"vacuum ({'full, ' if full else ''}analyze) {self._address.schema}.{table}")
                if why is None and not full:
                    why = "deleted rows stay in its pages until these are used again: run this with --vacuum"
                if why is not None:
                    regions.append(Region(f"table {table}", Standing.NOT_PROVABLE, why))
            return [*regions, *await _renew_log(db)]

        regions: list[Region] = await self._at_length(work)
        return regions

    async def ground(self) -> Ground:
        """See `Eraser`."""

        async def where(db: Any) -> Any:
            # A role that may not know it sees no such row.
            return await db.fetchval("select setting from pg_settings where name = 'data_directory'")

        data = await self._reader.ask(where, repeat=True)
        where_it_is = await asyncio.to_thread(_readable, data)
        if where_it_is is None:
            why = "cannot be read from here: run this on the server's machine as its user, or a superuser"
            return Ground(regions=(Region("files of the server", Standing.NOT_PROVABLE, why),), outside=_OUTSIDE)
        return Ground((where_it_is,), outside=_OUTSIDE)

    async def _look_at_run(self, db: Any, looking: Looking, run_id: str) -> None:
        shown = read_text(run_id)
        for task, output, record in await db.fetch(self._text(_RUN), run_id):
            looking.see(shown, "task", task, task_place(shown))
            looking.see(shown, "output", output, output_place(run_id))
            looking.see(shown, "record", record)
        for path, turn, reply in await db.fetch(self._text(_TURNS), run_id):
            looking.see(shown, "model turn", reply, turn_place(shown, read_text(path), turn))
        for path, turn, tool, nth, *values in await db.fetch(self._text(_RESULTS), run_id):
            for value in values:
                looking.see(shown, "result", value, call_place(shown, read_text(path), turn, read_text(tool), nth))
        for (entry,) in await db.fetch(self._text(_CALLS), run_id):
            looking.see(shown, "trace", entry)
        for key, result, args, evidence, reason in await db.fetch(self._text(_CLAIMS), run_id):
            looking.see(shown, "result of a write", result, key)
            looking.see(shown, "arguments of a write", args, args_place(key))
            looking.see(shown, "evidence of a write", evidence)
            looking.see(shown, "reason of a settlement", reason)
        for rendered, reason in await db.fetch(self._text(_APPROVALS), run_id):
            looking.see(shown, "approval", rendered)
            looking.see(shown, "reason of an approval", reason)

    async def _times(self, db: Any, table: str, column: str, kind: str, data: bytes) -> int:
        """Return in how many rows a column holds these bytes."""
        value = {"ARRAY": f'array_to_string("{column}", chr(10))', "bytea": f'"{column}"'}.get(
            kind, f'"{column}"::text'
        )
        if kind != "bytea":
            value = f"convert_to({value}, 'UTF8')"
        sql = f'select count(*) from {self._address.schema}."{table}" where position($1::bytea in {value}) > 0'
        times: int = await db.fetchval(sql, data)
        return times

    async def _at_length(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """Run work that takes long on a connection of its own, outside of any transaction."""

        async def connected() -> Any:
            db = await connect(self._address, _PATIENCE_S)
            try:
                # An owner whom the policies of memory bind sees every tenant's rows in its tables only so.
                await db.execute("set interlock.reach = 'all'; set statement_timeout = 0")
                if self._address.tenant_id is not None:
                    await db.execute("select set_config('interlock.tenant', $1, false)", self._address.tenant_id)
                return await work(db)
            finally:
                await db.close()

        return await asyncio.to_thread(self._thread.wait_for, connected(), _PATIENCE_S)

    def _text(self, text: str) -> str:
        return text.replace("{s}", self._address.schema)


async def _nothing(db: Any) -> None:
    """What is waited for: everything queued before."""


async def _tried(db: Any, sql: str) -> str | None:
    """Run a statement; return why it could not be, as the server says it."""
    warnings: list[str] = []

    def heard(_: Any, message: Any) -> None:
        warnings.append(str(message))

    db.add_log_listener(heard)
    try:
        await db.execute(sql)
    except Exception as error:
        return str(error).partition("\n")[0]
    finally:
        db.remove_log_listener(heard)
    # A table that is not ours is skipped, with a warning alone.
    return next((said for said in warnings if "skipping" in said or "permission denied" in said), None)


async def _renew_log(db: Any) -> list[Region]:
    """Go once through every segment of the write-ahead log, so that none holds what it held before."""
    if (why := await _tried(db, "checkpoint")) is None:
        try:
            # The present segment first: from here on all that hold something old wait to be used again.
            await _next_segment(db)
            await db.execute("checkpoint")
            began = await db.fetchval("select pg_walfile_name(pg_current_wal_insert_lsn())")
            for _ in range(await db.fetchval(_SEGMENTS) + 1):
                await _next_segment(db)
            await db.execute("checkpoint")
            old = await db.fetchval(_OLD_SEGMENTS, began)
            if old:
                why = f"{old} segments are held back (by a replication slot, an archive, or wal_keep_size)"
        except Exception as error:
            why = str(error).partition("\n")[0]
    return [] if why is None else [Region("write-ahead log (pg_wal)", Standing.NOT_PROVABLE, why)]


async def _next_segment(db: Any) -> None:
    """Fill up a segment of the log with nothing."""
    await db.fetchval("select pg_logical_emit_message(false, 'interlock', 'erased')")
    await db.fetchval("select pg_switch_wal()")


def _readable(data: str | None) -> Path | None:
    """Return the folder of the server's data, if it is on this machine and can be read."""
    try:
        return None if data is None or not (Path(data) / "pg_wal").is_dir() else Path(data)
    except OSError:
        return None
