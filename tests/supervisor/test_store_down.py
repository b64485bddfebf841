"""The store cannot be written: writes and new requests are refused by name, reads go on, nothing hangs."""

import sqlite3

import pytest

import interlock
from interlock import StopReason


@pytest.fixture
def path(tmp_path):
    return tmp_path / "interlock.db"


def make(path):
    gate = interlock.Interlock(store=f"sqlite:///{path}")
    sent = []

    @gate.tool("read", effect="read")
    async def read(n: int) -> int:
        return n

    @gate.tool("pay", effect="write")
    async def pay(n: int, *, idempotency_key: str) -> int:
        sent.append(n)
        return n

    return gate, sent


async def agent(run, task):
    seen = await run.observe("read", {"n": 1})
    paid = await run.observe("pay", {"n": 2})
    return [seen.value, str(paid.reason)]


async def test_while_another_program_holds_the_file_writes_and_new_requests_are_refused_and_reads_go_on(path):
    gate, sent = make(path)
    assert (await gate.run(agent, "x")).output == [1, "None"]
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("begin immediate")
    try:
        result = await gate.run(agent, "x")
        assert result.output == [1, "store_unavailable"]
        keyed = await gate.run(agent, "x", request_id="r1")
        assert keyed.reason is StopReason.STORE_UNAVAILABLE
        assert sent == [2]
    finally:
        holder.execute("rollback")
        holder.close()
    assert (await gate.run(agent, "x", request_id="r1")).output == [1, "None"]
    assert sent == [2, 2]
    await gate.aclose()


async def test_while_the_store_is_away_a_tenant_with_a_cap_takes_no_model_turn_and_others_do(path):
    caps = {"tenants": {"acme": {"budgets": {"max_usd_per_day": 5.0}}}}
    gate = interlock.Interlock(caps, store=f"sqlite:///{path}")

    async def thinks(run, task):
        holder.execute("begin immediate")
        try:
            async with run.step() as step:
                step.charge({"cost_usd": 0.1})
            return "took a turn"
        finally:
            holder.execute("rollback")

    gate.house()
    holder = sqlite3.connect(path, isolation_level=None)
    try:
        capped = await gate.run(thinks, "x", tenant_id="acme")
        assert (capped.reason, capped.steps) == (StopReason.STORE_UNAVAILABLE, 0)
        assert (await gate.run(thinks, "x", tenant_id="other")).output == "took a turn"
    finally:
        holder.close()
    await gate.aclose()


async def test_a_file_that_is_no_store_is_a_configuration_error_that_names_it(path):
    path.write_bytes(b"not a database, and never was one" * 200)
    gate, _ = make(path)
    with pytest.raises(interlock.ConfigError, match=r"interlock\.db"):
        await gate.run(agent, "x")


async def test_a_folder_that_is_not_there_is_said(tmp_path):
    gate, _ = make(tmp_path / "no" / "such" / "interlock.db")
    result = await gate.run(agent, "x")
    assert result.reason is StopReason.STORE_UNAVAILABLE
    assert "create its folder" in result.details["message"]
