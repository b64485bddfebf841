"""Two journals to compare with: a table with a commit a record, and the same behind a thread that gathers commits.

Neither decides anything: no fence, no kill switch, no state machine, no evidence. The first is what one writes in
an afternoon; the second is what this interpreter and this disk allow.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections import deque
from pathlib import Path
from typing import Any

__all__ = ["BareTable", "GatheredTable", "fdatasync_s"]

TABLE = "create table journal (key blob primary key, state integer not null, result blob) without rowid"
CLAIM = "insert into journal values (?, 0, null) on conflict do nothing"
SETTLE = "update journal set state = 1, result = ? where key = ?"


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("pragma journal_mode = wal")
    db.execute("pragma synchronous = full")
    db.execute(TABLE)
    return db


class BareTable:
    """Claims and settles where it is called; each is a commit of its own."""

    def __init__(self, path: Path) -> None:
        self._db = connect(path)

    async def write(self, key: bytes, result: bytes) -> None:
        """Make two records."""
        if self._db.execute(CLAIM, (key,)).rowcount != 1:
            raise RuntimeError("claimed before")
        self._db.execute(SETTLE, (result, key))

    def close(self) -> None:
        self._db.close()


class GatheredTable:
    """The same on a thread of its own; whatever has gathered shares a commit."""

    def __init__(self, path: Path) -> None:
        self._db = connect(path)
        self._queue: deque[tuple[str, tuple[Any, ...], asyncio.Future[int]]] = deque()
        self._bell = threading.Event()
        self._open = True
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    async def write(self, key: bytes, result: bytes) -> None:
        """Make two records."""
        if await self._submit(CLAIM, (key,)) != 1:
            raise RuntimeError("claimed before")
        await self._submit(SETTLE, (result, key))

    def close(self) -> None:
        self._open = False
        self._bell.set()
        self._thread.join()
        self._db.close()

    def _submit(self, statement: str, values: tuple[Any, ...]) -> asyncio.Future[int]:
        future = asyncio.get_running_loop().create_future()
        self._queue.append((statement, values, future))
        if not self._bell.is_set():
            self._bell.set()
        return future

    def _main(self) -> None:
        execute, queue = self._db.execute, self._queue
        while self._open:
            self._bell.wait()
            self._bell.clear()
            while queue:
                batch = [queue.popleft() for _ in range(len(queue))]
                execute("begin immediate")
                counts = [execute(statement, values).rowcount for statement, values, _ in batch]
                execute("commit")
                batch[0][2].get_loop().call_soon_threadsafe(_answer, batch, counts)


def _answer(batch: list[tuple[str, tuple[Any, ...], asyncio.Future[int]]], counts: list[int]) -> None:
    for (_, _, future), count in zip(batch, counts, strict=True):
        if not future.done():
            future.set_result(count)


def fdatasync_s(directory: Path, times: int) -> list[float]:
    """Return how long `times` appends of 256 bytes take to reach the disk, seconds each."""
    import time

    took = []
    with contextlib.closing(_Appended(directory / "appended")) as file:
        for _ in range(times):
            begun = time.perf_counter()
            file.append(b"x" * 256)
            took.append(time.perf_counter() - begun)
    return took


class _Appended:
    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def append(self, data: bytes) -> None:
        os.write(self._fd, data)
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)
