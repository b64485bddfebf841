"""A SQLite store with millions of claims in it, made fast: as the product leaves them, but written in bulk.

Runs of 25 writes that have ended, each with its record and its calls, each a part of the trace, as a slow run leaves
them; the newest a day old.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from interlock.stores.sqlite import SqliteStore

__all__ = ["CLAIMS_A_RUN", "fill"]

CLAIMS_A_RUN = 25
DAY_S = 86_400.0
# Runs begin so many milliseconds apart: a dozen a second, for nine days where there are ten million claims.
APART_MS = 80

RUN = """insert into runs (run_id, tenant_id, request_id, root_run_id, path, agent, request_time_ms, payload_hash,
  state, reason, fence, attempts, started_at, ended_at, record)
values (?, ?, ?, ?, '', 'agent', ?, 'h', 'ended', 'success', 1, 1, ?, ?, ?)"""
CLAIM = """insert into journal (key, tenant_id, request_id, run_id, path, agent, tool, args_digest, occurrence,
  on_unknown, sent_key, state, fence, sender, sends, first_sent_at, last_sent_at, turn, seq, settled_at, settled_by, result)
values (?, ?, ?, ?, '', 'agent', 'orders.create', ?, 1, 'resend', ?, 'done', 1, ?, 1, ?, ?, ?, ?, ?, 'tool', ?)"""


def fill(path: Path, claims: int, environ: dict[str, str]) -> float:
    """Make a store with so many claims; return how many seconds it took."""
    SqliteStore(path, environ=environ).close()
    begun = time.monotonic()
    db = sqlite3.connect(path, isolation_level=None)
    # Nothing of it must survive a power cut: it is made anew each time.
    for pragma in ("journal_mode = off", "synchronous = off", "cache_size = -400000", "locking_mode = exclusive"):
        db.execute(f"pragma {pragma}").fetchall()
    runs = claims // CLAIMS_A_RUN
    newest_ms = int((time.time() - DAY_S) * 1000)
    db.execute("begin")
    for first in range(0, runs, 2_000):
        batch = [
            _run(number, newest_ms - (runs - number) * APART_MS) for number in range(first, min(first + 2_000, runs))
        ]
        db.executemany("insert into requests values (?, ?, '', ?, ?)", (_request(run) for run in batch))
        db.executemany(RUN, (_row(run) for run in batch))
        db.executemany(CLAIM, (row for run in batch for row in _claims(run)))
        db.executemany("insert into calls (run_id, entry) values (?, ?)", (row for run in batch for row in _calls(run)))
    db.execute("commit")
    db.execute("pragma journal_mode = wal").fetchall()
    db.close()
    return time.monotonic() - begun


def _run(number: int, time_ms: int) -> tuple[Any, ...]:
    # As a gate names its runs and requests: the time first.
    digest = f"{time_ms:012x}{hashlib.blake2b(str(number).encode(), digest_size=10).hexdigest()}"
    record = orjson.dumps(
        {
            "run_id": f"run_{digest}",
            "tenant_id": f"tenant{number % 10}",
            "stop_reason": "success",
            "steps": 12,
            "tool_calls": CLAIMS_A_RUN,
            "duration_s": 2.0,
            "cost_usd": 0.02,
            "pad": digest * 20,
        }
    )
    return f"run_{digest}", f"tenant{number % 10}", f"req_{digest}", time_ms, time_ms / 1000, record


def _request(run: tuple[Any, ...]) -> tuple[Any, ...]:
    run_id, tenant_id, request_id, time_ms, *_ = run
    return tenant_id, request_id, time_ms, run_id


def _row(run: tuple[Any, ...]) -> tuple[Any, ...]:
    run_id, tenant_id, request_id, time_ms, at, record = run
    return run_id, tenant_id, request_id, run_id, time_ms, at, at + 2, record


def _claims(run: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    run_id, tenant_id, request_id, time_ms, at, _ = run
    prefix, name = time_ms.to_bytes(8, "big"), run_id.encode()
    for seq in range(1, CLAIMS_A_RUN + 1):
        digest = hashlib.blake2b(name + bytes([seq]), digest_size=16).digest()
        sent = f"il1_{digest.hex()}{digest.hex()[:20]}"
        yield (
            prefix + digest,
            tenant_id,
            request_id,
            run_id,
            digest,
            sent,
            "boot/4711/9",
            *(at, at, seq, seq, at),
            b"\x01" + digest * 5,
        )


def _calls(run: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for seq in range(1, CLAIMS_A_RUN + 1):
        yield run[0], f'[{{"seq":{seq},"tool":"orders.create","status":"success","duration_ms":1.25,"attempts":1}}]'
