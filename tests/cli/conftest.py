"""The command line as a function, and a store with something in it to look at."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from interlock.cli.app import main
from interlock.core.clock import ManualClock
from interlock.journal.store import ClaimState, Intent, NewRun, RunState, Settlement
from interlock.policy.approval import ApprovalRequest
from interlock.stores.sqlite import SqliteStore

NOW = 1_700_000_000.0
# A key begins with the time of its request.
WHEN = int(NOW * 1000).to_bytes(8, "big")
DOUBT = WHEN + bytes(range(16))
UNREADABLE = WHEN + bytes(range(1, 17))


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Typed = Callable[..., Said]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Each test works in an empty folder, on a wide terminal, with no store named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INTERLOCK_STORE", raising=False)
    monkeypatch.delenv("INTERLOCK_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def typed(capsys) -> Typed:
    """Type `interlock …` and return what it said."""

    def type_it(*args: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        said = capsys.readouterr()
        code = left.value.code
        return Said(code if isinstance(code, int) else int(bool(code)), said.out, said.err)

    return type_it


def call(seq: int, tool: str, status: str = "success", **more: Any) -> dict[str, Any]:
    row = {"step": seq - 1, "tool": tool, "args_hash": f"{tool}{more.pop('args', '')}".encode().hex().ljust(32, "0")}
    row |= {"duration_ms": 10.0 * seq, "status": status, "seq": seq, "effect": "read", "attempts": 1, "batch": seq}
    return row | more


def record(run_id: str, reason: str, trace: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "tenant_id": "acme",
        "timestamp": "2023-11-14T22:13:20Z",
        "stop_reason": reason,
        "steps": len(trace),
        "tool_calls": len(trace),
        "duration_s": 12.5,
        "cost_usd": 0.0321,
        "trace": trace,
        "trace_dropped": 0,
        "tokens": 4200,
        "would_have": [],
        "details": {},
    } | more


LOOP = [
    call(1, "kb.read"),
    call(2, "kb.read"),
    call(3, "kb.read", "repeated", attempts=0),
    call(4, "db.drop", "denied", attempts=0, reason="tool_denied", policy="deny"),
]
OBSERVED = [
    call(1, "db.drop", would_have=["tool_denied"]),
    call(2, "db.drop", would_have=["tool_denied"], args="other"),
    call(3, "web.fetch", would_have=["loop_detected"]),
]


async def fill(store: SqliteStore) -> None:
    async def ended(run_id: str, reason: str, trace: list[dict[str, Any]], state=RunState.ENDED, **more: Any) -> None:
        await store.begin(NewRun(run_id, more.pop("tenant", "acme"), f"req_{run_id}", "triage", "h", run_id))
        await store.end(run_id, 1, state, reason, record(run_id, reason, trace, **more), b'"done"')

    await ended("run_ok", "success", [call(1, "kb.read")], tenant="beta")
    await ended("run_loop", "loop_detected", LOOP, details={"message": "kb.read for the 5th time", "partial": ""})
    await ended("run_seen", "success", OBSERVED, would_have=["tool_denied", "loop_detected"])
    await ended("run_seen_too", "success", OBSERVED[:1], would_have=["tool_denied"])
    await store.begin(NewRun("run_doubt", "acme", "req_7842", "triage", "h", "run_doubt"))
    for key, tool in ((DOUBT, "ticket.create"), (UNREADABLE, "order.create")):
        await store.claim(
            Intent(key, "acme", "req_7842", "run_doubt", "", "triage", tool, b"d" * 16, 1, "stop", "il1_abc", 1, 2, 3)
        )
    await store.settle(DOUBT, Settlement(ClaimState.IN_DOUBT, evidence=[{"attempt": 1, "kind": "read_timeout"}]))
    await store.settle(
        UNREADABLE, Settlement(ClaimState.DONE, verified=False, evidence=[{"attempt": 1, "kind": "done"}])
    )
    await store.end(
        "run_doubt", 1, RunState.PARKED, "outcome_unknown", record("run_doubt", "outcome_unknown", LOOP[:1]), None
    )
    await store.approvals.request(
        ApprovalRequest(
            DOUBT, "acme", "run_doubt", "refund.create", "v1", 'refund.create {"order_id": "17"}', NOW + 3_600
        )
    )
    await store.begin(NewRun("run_now", "acme", "req_now", "triage", "h", "run_now"))
    store.trace_soon("run_now", 1, [call(1, "kb.read")])


@pytest.fixture
def fill_store():
    """Fill a store of any kind, whose clock stands at NOW, with what `filled` holds."""
    return fill


@pytest.fixture
def clock(monkeypatch) -> ManualClock:
    """The clock of stores and of the command line."""
    clock = ManualClock(wall_s=NOW)
    for module in ("opening", "approvals", "switches", "doctor"):
        monkeypatch.setattr(f"interlock.cli.{module}.SYSTEM", clock)
    return clock


@pytest.fixture(scope="session")
def filled(tmp_path_factory) -> Path:
    """A store file with five runs, a doubt, an unreadable answer and an approval that is asked for; with its key."""
    folder = tmp_path_factory.mktemp("filled")
    opened = SqliteStore(folder / "interlock.db", clock=ManualClock(wall_s=NOW), environ={})
    try:
        asyncio.run(fill(opened))
    finally:
        opened.close()
    return folder


@pytest.fixture
def store(filled: Path, here: Path, clock: ManualClock) -> Path:
    """The filled store, in this folder."""
    shutil.copytree(filled, here, dirs_exist_ok=True)
    return here / "interlock.db"
