"""Model turns and results of calls, sealed, for runs that are entered again."""

from __future__ import annotations

import sqlite3
from typing import Any

from interlock.core.errors import ConfigError
from interlock.journal.replay import CallRecord, History, Reserved, TurnRecord
from interlock.stores.batch import aside
from interlock.stores.places import call_place, turn_place
from interlock.stores.reader import Reader
from interlock.stores.seal import Seal, Unreadable
from interlock.stores.writer import Writer

__all__ = ["SqliteHistory"]


class SqliteHistory:
    """Port `ReplayStore`."""

    def __init__(self, writer: Writer, reader: Reader, seal: Seal, *, keeps: bool) -> None:
        self.keeps = keeps
        self._writer = writer
        self._reader = reader
        self._seal = seal

    def turn_soon(self, run_id: str, fence: int, record: TurnRecord, held: Reserved | None = None) -> None:
        """See `ReplayStore`."""
        place = turn_place(run_id, record.path, record.turn)
        reply = self._seal.close(record.reply, place)
        row = (run_id, record.path, record.turn, record.model, record.usd, record.tokens, reply)
        self._writer.later(_insert, "turns", run_id, fence, row, held)

    def hold_soon(self, run_id: str, fence: int, held: Reserved) -> None:
        """See `ReplayStore`."""
        self._writer.later(_hold, run_id, fence, held)
        self._writer.hurry()

    def call_soon(self, run_id: str, fence: int, record: CallRecord) -> None:
        """See `ReplayStore`."""
        place = call_place(run_id, record.path, record.turn, record.tool, record.nth)
        row = (
            run_id,
            record.path,
            record.turn,
            record.tool,
            record.args_digest,
            record.nth,
            record.seq,
            record.status,
            record.writes,
            self._seal.close(record.value, place),
            self._seal.close(record.error, place),
        )
        self._writer.later(_insert, "results", run_id, fence, row)

    def forget_soon(self, run_id: str, fence: int) -> None:
        """See `ReplayStore`."""
        self._writer.later(_forget, run_id, fence)

    async def history(self, run_id: str) -> History:
        """See `ReplayStore`."""
        turns, results = await self._reader.read(_select, run_id)
        try:
            return History([self._turn(run_id, *row) for row in turns], [self._call(run_id, *row) for row in results])
        except Unreadable as error:
            raise ConfigError(
                f"the record of run {run_id} cannot be unsealed ({error}): "
                "INTERLOCK_KEY must hold the key it was made with"
            ) from error

    def _turn(self, run_id: str, path: str, turn: int, model: str, usd: float, tokens: int, reply: Any) -> TurnRecord:
        place = turn_place(run_id, path, turn)
        return TurnRecord(path, turn, self._seal.open(reply, place), model, usd, tokens)

    def _call(
        self,
        run_id: str,
        path: str,
        turn: int,
        tool: str,
        args_digest: bytes,
        nth: int,
        seq: int,
        status: str,
        writes: int,
        value: Any,
        error: Any,
    ) -> CallRecord:
        place = call_place(run_id, path, turn, tool, nth)
        seal = self._seal
        return CallRecord(
            path,
            turn,
            tool,
            args_digest,
            nth,
            seq,
            status,
            bool(writes),
            seal.open(value, place),
            seal.open(error, place),
        )


@aside
def _insert(
    db: sqlite3.Connection, table: str, run_id: str, fence: int, row: tuple[Any, ...], held: Reserved | None = None
) -> None:
    """Write one record, and what is reserved beside it, unless the run is somebody else's by now."""
    if held is not None:
        _hold(db, run_id, fence, held)
    marks = ", ".join("?" * len(row))
    db.execute(
        f"insert or replace into {table} select {marks} "  # noqa: S608 - our own table names
        "where exists (select 1 from runs where run_id = ? and fence = ?)",
        (*row, run_id, fence),
    )


def _hold(db: sqlite3.Connection, run_id: str, fence: int, held: Reserved) -> None:
    db.execute("update runs set held_usd = ?, held_tokens = ? where run_id = ? and fence = ?", (*held, run_id, fence))


def _forget(db: sqlite3.Connection, run_id: str, fence: int) -> None:
    """Take out what is recorded, unless the run is somebody else's by now; what it has cost stays charged."""
    ours = db.execute(
        "update runs set (spent_usd, spent_tokens) = (select spent_usd + coalesce(sum(t.usd), 0), "
        "spent_tokens + coalesce(sum(t.tokens), 0) from turns t where t.run_id = ?) where run_id = ? and fence = ?",
        (run_id, run_id, fence),
    )
    if not ours.rowcount:
        return
    db.execute("delete from turns where run_id = ?", (run_id,))
    db.execute("delete from results where run_id = ?", (run_id,))


def _select(db: sqlite3.Connection, run_id: str) -> tuple[list[Any], list[Any]]:
    turns = db.execute(
        "select path, turn, model, usd, tokens, reply from turns where run_id = ? order by path, turn", (run_id,)
    ).fetchall()
    results = db.execute(
        "select path, turn, tool, args_digest, nth, seq, status, writes, value, error from results where run_id = ? "
        "order by path, seq",
        (run_id,),
    ).fetchall()
    return turns, results
