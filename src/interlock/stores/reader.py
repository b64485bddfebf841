"""Reads beside the writer: they see what was committed last, and wait for nobody.

In WAL a reader is never held up by a writer, so that a look-up by key runs where it is asked for; a hand-over
to a thread would cost ten times as much. In the rare moments in which SQLite wants the file to itself
(recovery after a crash), the read goes through the writer's thread instead.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Protocol

from interlock.core.errors import StoreUnavailable
from interlock.stores.database import connect_reader, is_busy, translate
from interlock.stores.writer import CLOSED, FORKED, Writer

__all__ = ["FileReader", "Reader", "WriterReader"]


class Reader(Protocol):
    """How a store reads. Work is called as `work(db, *args)`."""

    async def read(self, work: Callable[..., Any], *args: Any) -> Any:
        """Return what the work returns.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        ...

    def close(self) -> None:
        """Give the connections back."""
        ...

    def forked(self) -> None:
        """Called in the child of a fork: refuse everything, touch nothing."""
        ...


class WriterReader:
    """Reads on the writer's connection: the only one of a database in memory."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def read(self, work: Callable[..., Any], *args: Any) -> Any:
        """See `Reader`."""
        return await self._writer.submit(work, *args)

    def close(self) -> None:
        """See `Reader`."""

    def forked(self) -> None:
        """See `Reader`; the writer refuses for both."""


class FileReader:
    """One connection a thread, made when the thread first reads."""

    def __init__(self, path: str, writer: Writer) -> None:
        self._path = path
        self._writer = writer
        self._mine = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._closed: str | None = None

    async def read(self, work: Callable[..., Any], *args: Any) -> Any:
        """See `Reader`."""
        if self._closed is not None:
            raise StoreUnavailable(self._closed)
        try:
            try:
                db: sqlite3.Connection = self._mine.db
            except AttributeError:
                db = self._connect()
            return work(db, *args)
        except sqlite3.Error as error:
            if is_busy(error):
                return await self._writer.submit(work, *args)
            raise translate(error, self._path) from error

    def close(self) -> None:
        """See `Reader`."""
        if self._closed is not None:
            return
        self._closed = CLOSED
        for db in self._all:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def forked(self) -> None:
        """See `Reader`."""
        self._closed = FORKED

    def _connect(self) -> sqlite3.Connection:
        db = connect_reader(self._path)
        self._mine.db = db
        self._all.append(db)
        return db
