"""`mode: observe` stops no run but by a kill: what would have stopped it is on its record."""

from __future__ import annotations

import asyncio

import pytest

import interlock

MEMORY = "sqlite:///:memory:"
PRICED = "openai:gpt-4o-mini"


async def turns(run, task):
    for _ in range(4):
        async with run.step(model=PRICED, max_output_tokens=1_000) as step:
            step.charge({"input_tokens": 100, "output_tokens": 500})
    return "done"


async def unpriced(run, task):
    for _ in range(2):
        async with run.step(model="nobody:knows", max_output_tokens=10) as step:
            step.charge({"input_tokens": 1, "output_tokens": 1})
    return "done"


async def slow(run, task):
    async with run.step():
        await asyncio.sleep(0.02)
    async with run.step():
        return "done"


async def in_a_child(run, task):
    async with run.child("helper", budgets={"max_steps": 1}) as child:
        return await turns(child, task)


OBSERVED = {
    "steps": (turns, {"max_steps": 2}, "step_budget"),
    "dollars": (turns, {"max_usd": 0.0007}, "cost_budget"),
    "tokens": (turns, {"max_tokens": 1_500}, "token_budget"),
    "no price": (unpriced, {"max_usd": 1.0}, "cost_budget"),
    "time": (slow, {"max_seconds": 0.005}, "time_budget"),
    "a child's steps": (in_a_child, {}, "step_budget"),
}


def made(mode, budgets, **more):
    return interlock.Interlock({"mode": mode, "agent": {"budgets": budgets, **more}}, store=MEMORY)


@pytest.mark.parametrize(("agent", "budgets", "reason"), OBSERVED.values(), ids=OBSERVED)
async def test_a_cap_is_noted_and_the_run_goes_on(agent, budgets, reason):
    async with made("observe", budgets) as gate:
        result = await gate.run(agent, "x")
        row = await gate.house().store.run(result.run_id)
    assert (result.reason, result.output) == ("success", "done")
    if agent is not in_a_child:  # whose own record has it
        assert result.details["would_have"] == row.record["would_have"] == [reason]
    async with made("enforce", budgets) as gate:
        stopped = await gate.run(agent, "x")
    assert not stopped.ok
    assert stopped.reason == reason or stopped.details.get("reason") == reason or agent is in_a_child


async def test_what_is_spent_over_a_cap_is_counted_all_the_same():
    async with made("observe", {"max_steps": 1, "max_usd": 0.0001, "max_tokens": 10}) as gate:
        result = await gate.run(turns, "x")
    assert (result.steps, result.tokens) == (4, 2_400)
    assert set(result.details["would_have"]) == {"step_budget", "cost_budget"}
    async with made("observe", {}) as gate:
        assert (await gate.run(turns, "x")).cost_usd == pytest.approx(result.cost_usd)


async def test_time_that_is_up_between_turns_is_noted_at_the_end():
    async def idle(run, task):
        await asyncio.sleep(0.02)
        return "done"

    async with made("observe", {"max_seconds": 0.005}) as gate:
        result = await gate.run(idle, "x")
    assert (result.output, result.details["would_have"]) == ("done", ["time_budget"])


async def test_the_caps_of_a_tenant_are_noted():
    budgets = {"acme": {"budgets": {"max_usd_per_day": 0.0005, "max_concurrent_runs": 1}}}
    gate = interlock.Interlock({"mode": "observe", "tenants": budgets}, store=MEMORY)
    began, may_end = asyncio.Event(), asyncio.Event()

    async def holding(run, task):
        began.set()
        await may_end.wait()
        return await turns(run, task)

    async with gate:
        first = asyncio.ensure_future(gate.run(holding, "x", tenant_id="acme"))
        await began.wait()
        second = await gate.run(turns, "x", tenant_id="acme")
        may_end.set()
        assert (await first).details["would_have"] == ["cost_budget"]
    assert second.ok
    assert set(second.details["would_have"]) == {"cost_budget", "time_budget"}


async def test_a_kill_stops_it_all_the_same():
    async with made("observe", {"max_steps": 1}) as gate:

        async def killed(run, task):
            async with run.step():
                await gate.house().store.switches.set("run", run.run_id, "kill", reason="test", actor="anna")
            while True:  # until the gate has read its switches again
                async with run.step():
                    await asyncio.sleep(0.02)

        result = await asyncio.wait_for(gate.run(killed, "x"), 30)
    assert result.reason == "killed"
