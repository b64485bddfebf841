"""The scope stands in every statement on SQLite, and each part of it is needed: without it, isolation is seen to break."""

from __future__ import annotations

import ast
import asyncio
import random
import sqlite3
from pathlib import Path

import pytest
from memory_scenes import ANN, BOB, NOW, held, new_fact
from test_isolation import on_sqlite, random_step

import interlock
from interlock.core.errors import StoreUnavailable
from interlock.stores import memory_scoped
from interlock.stores.memory_scoped import Scoped, Unscoped
from interlock.stores.sqlite import SqliteStore

STORES = Path(interlock.__file__).parent / "stores"

# Each part of each clause, and what stands there instead when it is taken out.
PARTS = [
    ("{visible}", "f.tenant_id = :tenant", "1"),
    ("{visible}", "f.user_id in ('', :user)", "1"),
    ("{visible}", "f.session_id in ('', :session)", "1"),
    ("{mine}", "f.tenant_id = :tenant", "1"),
    ("{mine}", "f.user_id = :user", "1"),
    ("{mine}", "f.session_id = :session", "1"),
    ("{below}", "f.tenant_id = :tenant", "1"),
    ("{below}", ":user in ('', f.user_id)", "1"),
    ("{below}", ":session in ('', f.session_id)", "1"),
]


@pytest.fixture
def without(monkeypatch):
    """Return a function that takes a part out of a clause."""

    def take_out(mark, old, new):
        clause = memory_scoped._MARKS[mark]
        assert clause.count(old) == 1
        monkeypatch.setitem(memory_scoped._MARKS, mark, clause.replace(old, new))
        memory_scoped._finished.cache_clear()

    yield take_out
    monkeypatch.undo()
    memory_scoped._finished.cache_clear()


async def broken_history():
    """Play histories until the store does something that the model does not; return whether it did."""
    for seed in range(6):
        chance = random.Random(seed)
        try:
            await on_sqlite([random_step(chance) for _ in range(250)])
        except (AssertionError, AttributeError, StoreUnavailable, sqlite3.Error):
            return True
    return False


@pytest.mark.parametrize(("mark", "old", "new"), PARTS)
async def test_without_a_part_of_the_scope_isolation_breaks(without, mark, old, new):
    without(mark, old, new)
    assert await broken_history()


async def test_with_every_part_it_holds():
    assert not await broken_history()


def test_a_statement_without_a_scope_is_not_run():
    db = sqlite3.connect(":memory:")
    with pytest.raises(Unscoped):
        Scoped(db, ANN).run("select * from memory_facts f where f.fact_id = :fact_id", fact_id="x")
    db.close()


def test_a_caller_cannot_name_a_scope_of_his_own():
    db = sqlite3.connect(":memory:")
    sql = "select :tenant, :user from (select 'acme' tenant_id, 'ann' user_id, '' session_id) f where {mine}"
    assert Scoped(db, ANN).run(sql, tenant="globex", user="bob").fetchone() == ("acme", "ann")
    db.close()


def test_statements_go_through_the_scope():
    """What runs a statement of its own: the two places that read nothing out, and the door itself."""
    found = set()
    for path in STORES.glob("memory*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
                if any(isinstance(call, ast.Attribute) and call.attr.startswith("execute") for call in calls):
                    found.add((path.stem, function.name))
    assert found == {
        ("memory_scoped", "run"),
        ("memory_scoped", "insert"),
        ("memory_scoped", "bury"),
        ("memory_scoped", "is_gone"),
        ("memory_scoped", "next_id"),
        ("memory_desk", "_purge_expired"),
        ("memory_desk", "_erase"),
    }


# -- what is SQLite's own


@pytest.fixture
def file_store(tmp_path, clock):
    store = SqliteStore(tmp_path / "interlock.db", clock=clock, environ={"INTERLOCK_KEY": "5e" * 32})
    yield store
    store.close()


@pytest.mark.parametrize("column", ["created_at", "expires_at"])
@pytest.mark.parametrize("value", ["never", "2099-01-01", b"\xff", float("inf"), "NaN", ""])
async def test_a_date_that_cannot_be_read_has_passed(file_store, tmp_path, column, value):
    memory, new = file_store.memory, new_fact()
    await memory.remember(ANN, new)
    db = sqlite3.connect(tmp_path / "interlock.db")
    db.execute(f"update memory_facts set {column} = ?", (value,))
    db.commit()
    db.close()
    assert await held(memory, ANN, new.fact_id) is None
    assert not await memory.pin(ANN, new.fact_id, new.trust, NOW, pinned=True)
    assert await memory.purge_expired(NOW) == (column == "expires_at")
    assert await memory.purge_expired(NOW + 60) == (column == "created_at")


async def test_the_index_holds_what_agents_may_read_and_whose_it_is(file_store, tmp_path):
    memory, new = file_store.memory, new_fact("unmistakable words")
    await memory.remember(ANN, new)
    await memory.remember(BOB, new_fact("unmistakable too"))

    def matches(query):
        db = sqlite3.connect(tmp_path / "interlock.db")
        try:
            return len(db.execute("select 1 from memory_index where memory_index match ?", (query,)).fetchall())
        finally:
            db.close()

    mine = f"{ANN.token[:10]}unmistakable"
    assert matches("unmistakable") == 0
    assert matches(mine) == matches(f"{BOB.token[:10]}unmistakable") == 1
    await memory.quarantine(ANN, new.fact_id)
    assert matches(mine) == 0
    await memory.release(ANN, new.fact_id, new.trust, NOW)
    assert matches(mine) == 1
    await memory.forget(ANN, new.fact_id, new.trust)
    assert matches(mine) == 0
    db = sqlite3.connect(tmp_path / "interlock.db")
    db.execute("insert into memory_index (memory_index, rank) values ('integrity-check', 1)")
    db.close()


async def test_remembering_rides_on_the_next_commit(file_store):
    """A fact costs no commit of its own: it goes with the run's next one."""
    await file_store.flush()
    before = file_store._writer.batches
    for i in range(20):
        file_store.memory.remember_soon(ANN, new_fact(f"number {i}"))
    await asyncio.wait_for(file_store.flush(), 30)
    assert file_store._writer.batches - before <= 2
    assert len(await file_store.memory.list_facts(ANN, NOW)) == 20
