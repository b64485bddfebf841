"""PostgreSQL behind the fault proxy: the statement is carried out and its answer lost, and nothing happens twice."""

from __future__ import annotations

import asyncpg
import pytest
from pg_cutter import SOCKET

import interlock
from interlock import StopReason
from interlock.chaos.proxy import FaultProxy
from interlock.chaos.spoken import spoken_wire_fault
from interlock.journal.store import ClaimState
from interlock.stores.pg_address import parse_address
from interlock.stores.pg_thread import LoopThread

LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError)


@pytest.fixture
async def proxied(pg_server):
    """A proxy before the server, armed with nothing yet."""
    async with FaultProxy(f"unix:{pg_server.folder / SOCKET}", framing="postgres") as proxy:
        yield proxy


@pytest.fixture
def rows(pg_server):
    """A function that counts what is in the table of this test, past the proxy."""
    pg_server.execute("drop table if exists public.sent; create table public.sent (key text primary key, text text)")
    return lambda: pg_server.execute("select count(*) from public.sent")[0][0]


async def insert(proxied, key, text="hello"):
    db = await asyncpg.connect(host="127.0.0.1", port=proxied.port, user="postgres", database="postgres")
    try:
        sql = "insert into public.sent values ($1, $2) on conflict (key) do nothing"
        return await db.execute(sql, key, text)
    finally:
        db.terminate()


@pytest.mark.parametrize(
    ("fault", "happened"),
    [("answer_lost", 1), ("reset", 0), ("reset_mid_body after_bytes=3", 1), ("timeout delay_s=0.05", 0)],
)
async def test_a_statement_and_its_answer(proxied, rows, fault, happened):
    await proxied.arm([spoken_wire_fault(fault + " what=INSERT calls=[2]")])
    assert await insert(proxied, "a") == "INSERT 0 1"
    with pytest.raises(LOST):
        await insert(proxied, "b")
    assert rows() == 1 + happened
    assert await insert(proxied, "b") == f"INSERT 0 {1 - happened}"
    assert rows() == 2


async def test_a_commit_whose_answer_is_lost(proxied, rows):
    await proxied.arm([spoken_wire_fault("answer_lost what=COMMIT")])
    db = await asyncpg.connect(host="127.0.0.1", port=proxied.port, user="postgres", database="postgres")
    with pytest.raises(LOST):
        async with db.transaction():
            await db.execute("insert into public.sent values ('a', 'hello')")
    db.terminate()
    assert rows() == 1
    assert dict(proxied.injected) == {"answer_lost": 1}


async def test_a_tool_on_postgres_whose_answers_are_lost_has_one_effect(proxied, rows):
    await proxied.arm([spoken_wire_fault("answer_lost what=INSERT calls=[1, 2]")])
    config = {"tools": {"retries": {"backoff_ms": [1]}}, "logging": {"level": "error"}}
    async with interlock.Interlock(config, store="sqlite:///:memory:") as gate:

        @gate.tool("row.write", effect="write", output=dict)
        async def write(text: str, *, idempotency_key: str) -> dict:
            return {"said": await insert(proxied, idempotency_key, text)}

        async def agent(run, task):
            return await run.call("row.write", {"text": task})

        result = await gate.run(agent, "hello", request_id="q1")
    assert (result.reason, result.output) == (StopReason.SUCCESS, {"said": "INSERT 0 0"})
    assert (rows(), proxied.injected["answer_lost"]) == (1, 2)


async def test_a_gate_whose_store_is_behind_the_proxy(pg_server, pg_url):
    """The store loses its connection, and the answers of what it wrote; the tool is asked once a call."""
    # A store waits for its server while it opens and closes: the proxy needs a loop of its own.
    thread = LoopThread("proxy")
    proxy = FaultProxy(f"unix:{pg_server.folder / SOCKET}", framing="postgres")
    thread.wait_for(proxy.start(), 10.0)
    url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?schema={parse_address(pg_url).schema}"
    sent = []
    async with interlock.Interlock({"replay": "plaintext", "logging": {"level": "error"}}, store=url) as gate:

        @gate.tool("post", effect="write", allow=True, repeat="allow")
        async def post(n: int) -> dict:
            sent.append(n)
            return {"n": n}

        async def agent(run, task):
            return [await run.call("post", {"n": n}) for n in range(12)]

        gate.house()
        faults = [spoken_wire_fault("answer_lost calls=[4, 16]"), spoken_wire_fault("reset calls=[10]")]
        thread.wait_for(proxy.arm(faults), 10.0)
        result = await gate.run(agent, "go", request_id="q1")
        store = gate.house().store
        await store.flush()
        claims = await store.claims_of(result.run_id)
        assert dict(proxy.injected) == {"answer_lost": 2, "reset": 1}
    thread.wait_for(proxy.close(), 10.0)
    thread.stop(10.0)
    assert result.reason is StopReason.SUCCESS
    assert sent == list(range(12))
    assert [claim.state for claim in claims] == [ClaimState.DONE] * 12
