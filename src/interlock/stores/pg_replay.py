"""Model turns and results of calls on PostgreSQL, for runs that are entered again."""

from __future__ import annotations

from typing import Any

from interlock.core.errors import ConfigError
from interlock.journal.replay import CallRecord, History, Reserved, TurnRecord
from interlock.stores.pg_history import (
    RESULTS_OF,
    TURNS_OF,
    call_of,
    forget_of,
    hold_of,
    read_call,
    read_turn,
    turn_of,
)
from interlock.stores.pg_reader import PgReader
from interlock.stores.pg_text import write_text
from interlock.stores.pg_writer import PgWriter
from interlock.stores.seal import Replay, Seal, Unreadable

__all__ = ["PgHistory"]


class PgHistory:
    """Port `ReplayStore`."""

    def __init__(self, writer: PgWriter, reader: PgReader, schema: str, seal: Seal) -> None:
        self.keeps = seal.replay is not Replay.OFF
        self._writer = writer
        self._reader = reader
        self._seal = seal
        self._turns_of, self._results_of = (text.replace("{s}", schema) for text in (TURNS_OF, RESULTS_OF))

    def turn_soon(self, run_id: str, fence: int, record: TurnRecord, held: Reserved | None = None) -> None:
        """See `ReplayStore`."""
        self._writer.later(turn_of(run_id, fence, record, held, self._seal))

    def hold_soon(self, run_id: str, fence: int, held: Reserved) -> None:
        """See `ReplayStore`."""
        self._writer.later(hold_of(run_id, fence, held))
        self._writer.hurry()

    def call_soon(self, run_id: str, fence: int, record: CallRecord) -> None:
        """See `ReplayStore`."""
        self._writer.later(call_of(run_id, fence, record, self._seal))

    def forget_soon(self, run_id: str, fence: int) -> None:
        """See `ReplayStore`."""
        self._writer.later(forget_of(run_id, fence))

    async def history(self, run_id: str) -> History:
        """See `ReplayStore`."""

        async def query(db: Any) -> Any:
            name = write_text(run_id)
            return await db.fetch(self._turns_of, name), await db.fetch(self._results_of, name)

        turns, results = await self._reader.ask(query, repeat=True)
        try:
            return History(
                [read_turn(run_id, row, self._seal) for row in turns],
                [read_call(run_id, row, self._seal) for row in results],
            )
        except Unreadable as error:
            raise ConfigError(
                f"the record of run {run_id} cannot be unsealed ({error}): "
                "INTERLOCK_KEY must hold the key it was made with"
            ) from error
