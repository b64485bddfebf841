"""An operator in another process: kill, safe mode and approvals act on a run under way here."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

import interlock
from interlock import StopReason

pytestmark = pytest.mark.process
INTERLOCK = str(Path(sys.executable).with_name("interlock"))


@pytest.fixture
def store(tmp_path):
    return f"sqlite:///{tmp_path}/interlock.db"


def type_in(store, *words):
    done = subprocess.run(
        [INTERLOCK, *words, "--store", store], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def elsewhere(store, *words):
    return await asyncio.to_thread(type_in, store, *words)


def make(store, config=None):
    gate = interlock.Interlock(config or {}, store=store)
    writes = []

    @gate.tool("read", effect="read")
    async def read(n: int) -> int:
        return n

    @gate.tool("pay", effect="write")
    async def pay(n: int, *, idempotency_key: str) -> int:
        writes.append(n)
        return n

    return gate, writes


def looping(gate, started):
    async def agent(run, task):
        for n in range(100_000):
            async with run.step():
                pass
            await run.observe("read", {"n": n})
            await run.observe("pay", {"n": n})
            started.set()
            await gate.house().clock.sleep(0.02)

    return agent


UNLIMITED = {"agent": {"budgets": {"max_steps": None, "max_tool_calls": None}, "max_refusals": 5}}


@pytest.mark.parametrize("words", [("global",), ("tenant", "acme"), ("agent", "agent")], ids=" ".join)
async def test_a_kill_typed_elsewhere_ends_the_run(store, words):
    gate, _ = make(store, UNLIMITED)
    started = asyncio.Event()
    run = asyncio.create_task(gate.run(looping(gate, started), "x", tenant_id="acme"))
    await started.wait()
    await elsewhere(store, "kill", *words, "--reason", "it loops", "--by", "anna")
    result = await asyncio.wait_for(run, 30)
    assert result.reason is StopReason.KILLED
    assert result.details["actor"] == "anna"
    await gate.aclose()


async def test_safe_mode_typed_elsewhere_refuses_writes_from_then_on(store):
    gate, writes = make(store, UNLIMITED | {"safe_mode": {"allowed_tools": ["read"]}})
    started = asyncio.Event()
    seen = []

    async def agent(run, task):
        for n in range(100_000):
            async with run.step():
                pass
            assert (await run.observe("read", {"n": n})).ok
            seen.append(await run.observe("pay", {"n": n}))
            started.set()
            if not seen[-1].ok:
                return seen[-1].error.details["policy"]
            await gate.house().clock.sleep(0.02)
        return None

    run = asyncio.create_task(gate.run(agent, "x"))
    await started.wait()
    await elsewhere(store, "safe-mode", "on", "--reason", "incident", "--by", "anna")
    result = await asyncio.wait_for(run, 30)
    assert result.output == "safe_mode"
    assert len(writes) == len(seen) - 1
    await gate.aclose()


async def test_an_approval_typed_elsewhere_lets_the_waiting_call_go_on(store):
    gate, writes = make(store, {"tools": {"writes": {"pay": {"approval": "required"}}}})

    async def agent(run, task):
        return await run.call("pay", {"n": 7})

    run = asyncio.create_task(gate.run(agent, "x"))
    pending = []
    while not pending:
        await gate.house().clock.sleep(0.05)
        pending = await gate.house().store.approvals.list()
    assert writes == []
    listed = json.loads(await elsewhere(store, "approvals", "list", "--json"))
    assert pending[0].id in json.dumps(listed)
    await elsewhere(store, "approvals", "approve", pending[0].id, "--by", "anna")
    result = await asyncio.wait_for(run, 30)
    assert result.output == 7
    assert writes == [7]
    await gate.aclose()
