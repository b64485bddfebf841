"""Erases from a SQLite store what its runs say of somebody, and every byte of it from the file and its log.

What is deleted is overwritten at once (`secure_delete`); the log is moved into the file and emptied.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from interlock.core.clock import Clock
from interlock.memory.erasure import Ground, Kept, Mentions
from interlock.memory.residue import Found, Region, Standing, all_forms
from interlock.stores.database import connect
from interlock.stores.mentions import Looking
from interlock.stores.places import args_place, call_place, output_place, task_place, turn_place
from interlock.stores.purge import SqliteRetention
from interlock.stores.reader import Reader
from interlock.stores.seal import KEY_FILE, Seal
from interlock.stores.writer import Writer

__all__ = ["SqliteEraser"]

_WINDOW = 100
_TRIES, _BETWEEN_S = 20, 0.1
# What an open log may hold up: others that write to the file, for as long as it is rewritten.
_PATIENCE_S = 60.0

_RUNS = "select id, run_id, request_time_ms from runs where tenant_id = ? and id > ? order by id limit ?"
_MINE = "key >= ? and key < ? and run_id = ?"
# Words beside keys: they say why somebody believes something, and may name him of whom nothing shall be left.
_BLANK_CLAIMS = f"""update journal set evidence = '', settle_reason = '', args = null
where {_MINE} and state not in ('intent', 'in_doubt')"""  # noqa: S608 - our own names
_BLANK_APPROVALS = """update approvals set rendered = '', decided_reason = ''
where effect_key >= ? and effect_key < ? and run_id = ? and state <> 'pending'"""
_COLUMNS = """select t.name, c.name from sqlite_schema t, pragma_table_info(t.name) c
where t.type = 'table' and t.sql not like 'create virtual%' order by 1, 2"""


class SqliteEraser:
    """Port `Eraser`.

    Args:
        path: Of the file; None for a store in memory.
    """

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        retention: SqliteRetention,
        seal: Seal,
        clock: Clock,
        path: str | None,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._retention = retention
        self._seal = seal
        self._clock = clock
        self._path = path

    async def mentions(self, tenant_id: str, texts: Mapping[str, str]) -> Mentions:
        """See `Eraser`."""
        looking, after = Looking(texts, self._seal), 0
        await self._writer.submit(_nothing)
        while (last := await self._reader.read(_look, looking, tenant_id, after)) is not None:
            after = last
            await self._clock.sleep(0.0)
        return looking.answer()

    async def drop(self, run_ids: Sequence[str]) -> list[Kept]:
        """See `Eraser`."""
        kept = await self._retention.forget(run_ids)
        gone = [run_id for run_id in run_ids if run_id not in kept]
        await self._writer.submit(_blank, gone)
        return [Kept(run_id, why) for run_id, why in kept.items()]

    async def rows(self, texts: Mapping[str, str]) -> list[Found]:
        """See `Eraser`."""
        await self._writer.submit(_nothing)
        found: list[Found] = await self._reader.read(_rows, texts)
        return found

    async def scrub(self, *, whole: bool = False) -> list[Region]:
        """See `Eraser`."""
        await self._writer.submit(_nothing)
        if self._path is None:
            return []
        if whole and (failed := await asyncio.to_thread(_rewrite, self._path)) is not None:
            return [Region(self._path, Standing.NOT_PROVABLE, f"could not be rewritten ({failed}): stop what uses it")]
        for _ in range(_TRIES):
            if await asyncio.to_thread(_empty_log, self._path):
                return []
            await self._clock.sleep(_BETWEEN_S)
        why = "another process reads from it, so that it could not be emptied: run this again"
        return [Region(f"{self._path}-wal", Standing.NOT_PROVABLE, why)]

    async def ground(self) -> Ground:
        """See `Eraser`."""
        if self._path is None:
            return Ground(outside=("the memory of this process",))
        return _ground(Path(self._path))


def _ground(path: Path) -> Ground:
    file = path.absolute()
    names = [file.with_name(file.name + end) for end in ("", "-wal", "-shm", "-journal", "-lock", "-queue")]
    outside = (
        f"backups and copies of {file}",
        "blocks of the disk that the file no longer uses: snapshots, copy-on-write and wear levelling keep them",
    )
    return Ground(tuple(found for found in (*names, file.with_name(KEY_FILE)) if found.exists()), outside=outside)


# On a connection.


def _nothing(db: sqlite3.Connection) -> None:
    """What a read waits for: everything queued before."""


def _look(db: sqlite3.Connection, looking: Looking, tenant_id: str, after: int) -> int | None:
    """Look through a window of runs; return the last of them, None where there is none left."""
    last = None
    for row_id, run_id, time_ms in db.execute(_RUNS, (tenant_id, after, _WINDOW)).fetchall():
        last = row_id
        _look_at_run(db, looking, run_id, time_ms)
    return last


def _look_at_run(db: sqlite3.Connection, looking: Looking, run_id: str, time_ms: int) -> None:
    sql = "select task, output, record from runs where run_id = ?"
    for task, output, record in db.execute(sql, (run_id,)):
        looking.see(run_id, "task", task, task_place(run_id))
        looking.see(run_id, "output", output, output_place(run_id))
        looking.see(run_id, "record", record)
    for path, turn, reply in db.execute("select path, turn, reply from turns where run_id = ?", (run_id,)):
        looking.see(run_id, "model turn", reply, turn_place(run_id, path, turn))
    sql = "select path, turn, tool, nth, value, error from results where run_id = ?"
    for path, turn, tool, nth, value, error in db.execute(sql, (run_id,)):
        for each in (value, error):
            looking.see(run_id, "result", each, call_place(run_id, path, turn, tool, nth))
    for (entry,) in db.execute("select entry from calls where run_id = ?", (run_id,)):
        looking.see(run_id, "trace", entry)
    mine = time_ms.to_bytes(8, "big"), (time_ms + 1).to_bytes(8, "big"), run_id
    sql = f"select key, result, args, evidence, settle_reason from journal where {_MINE}"  # noqa: S608
    for key, result, args, evidence, reason in db.execute(sql, mine):
        looking.see(run_id, "result of a write", result, key)
        looking.see(run_id, "arguments of a write", args, args_place(key))
        looking.see(run_id, "evidence of a write", evidence)
        looking.see(run_id, "reason of a settlement", reason)
    sql = "select rendered, decided_reason from approvals where effect_key >= ? and effect_key < ? and run_id = ?"
    for rendered, reason in db.execute(sql, mine):
        looking.see(run_id, "approval", rendered)
        looking.see(run_id, "reason of an approval", reason)


def _rows(db: sqlite3.Connection, texts: Mapping[str, str]) -> list[Found]:
    """Look for texts in every column of every table, those of the index of words included."""
    found: list[Found] = []
    forms = [(name, form, data) for name, text in texts.items() for data, form in all_forms(text).items()]
    for table, column in db.execute(_COLUMNS).fetchall():
        wanted = ", ".join(f'sum(instr(cast("{column}" as blob), ?) > 0)' for _ in forms)
        sql = f'select {wanted} from "{table}"'  # noqa: S608 - names of our own tables
        for (name, form, _), times in zip(forms, db.execute(sql, [data for *_, data in forms]).fetchone(), strict=True):
            if times:
                found.append(Found(f"{table}.{column}", name, form, times))
    return found


def _blank(db: sqlite3.Connection, run_ids: Sequence[str]) -> None:
    for run_id in run_ids:
        row = db.execute("select request_time_ms from runs where run_id = ?", (run_id,)).fetchone()
        if row is not None:
            mine = row[0].to_bytes(8, "big"), (row[0] + 1).to_bytes(8, "big"), run_id
            db.execute(_BLANK_CLAIMS, mine)
            db.execute(_BLANK_APPROVALS, mine)


def _empty_log(path: str) -> bool:
    """Move the log into the file and cut it off; return whether nothing was in the way."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(path, patience_s=1.0)) as db:
        db.execute("pragma busy_timeout = 100")
        return bool(db.execute("pragma wal_checkpoint(truncate)").fetchone()[0] == 0)
    return False


def _rewrite(path: str) -> str | None:
    """Write the whole file anew; return what was in the way."""
    try:
        with contextlib.closing(connect(path, patience_s=_PATIENCE_S)) as db:
            db.execute("vacuum")
    except sqlite3.Error as error:
        return str(error)
    return None
