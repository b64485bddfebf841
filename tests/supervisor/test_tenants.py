"""What a tenant may use over all its runs: dollars a day, runs at a time."""

import asyncio
import subprocess
import sys

import pytest

import interlock
from interlock import StopReason
from interlock.core.clock import ManualClock


def make(budgets, **options):
    return interlock.Interlock({"tenants": {"acme": {"budgets": budgets}}}, store="sqlite:///:memory:", **options)


async def spend(run, task):
    async with run.step() as step:
        step.charge({"cost_usd": task})
    return "done"


async def test_a_tenants_dollars_a_day_hold_over_all_its_runs_and_not_for_others():
    clock = ManualClock()
    async with make({"max_usd_per_day": 1.0}, clock=clock) as gate:
        assert (await gate.run(spend, 0.6, tenant_id="acme")).ok
        assert (await gate.run(spend, 0.6, tenant_id="acme")).ok  # it began while something was left
        refused = await gate.run(spend, 0.1, tenant_id="acme")
        assert refused.reason is StopReason.COST_BUDGET
        assert refused.steps == 0
        assert "tenants.acme.budgets.max_usd_per_day" in refused.details["message"]
        assert (await gate.run(spend, 0.6, tenant_id="other")).ok
        clock.advance(86_400)
        assert (await gate.run(spend, 0.1, tenant_id="acme")).ok


async def test_a_declared_turn_reserves_its_worst_case_with_the_tenant_before_it_starts():
    async with make({"max_usd_per_day": 0.015}) as gate:
        started = asyncio.Event()
        go_on = asyncio.Event()

        async def slow(run, task):
            async with run.step(model="openai:gpt-4o", max_output_tokens=1_000, input_tokens=1_000) as step:
                started.set()
                await go_on.wait()
                step.charge({"input_tokens": 10, "output_tokens": 10})

        first = asyncio.create_task(gate.run(slow, "x", tenant_id="acme"))
        await started.wait()
        second = await gate.run(slow, "x", tenant_id="acme")  # 0.0125 is held by the first
        assert second.reason is StopReason.COST_BUDGET
        go_on.set()
        assert (await first).ok
        assert (await gate.run(slow, "x", tenant_id="acme")).ok


async def test_a_request_tried_anew_gets_its_own_budget_again_and_the_tenant_s_day_goes_on():
    async with make({"max_usd_per_day": 1.0}) as gate:
        words = {"tenant_id": "acme", "request_id": "r1", "budgets": {"max_usd": 0.5}}
        first = await gate.run(spend, 0.4, **words)
        again = await gate.run(spend, 0.4, retry=True, **words)
        assert (first.cost_usd, again.cost_usd) == (0.4, 0.4)
        third = await gate.run(spend, 0.4, retry=True, **words)
        assert third.ok  # it began while something was left of the day
        assert (await gate.run(spend, 0.4, retry=True, **words)).reason is StopReason.COST_BUDGET


async def test_runs_beyond_the_tenants_number_wait_for_a_place():
    async with make({"max_concurrent_runs": 2}) as gate:
        under_way, peak = 0, 0

        async def agent(run, task):
            nonlocal under_way, peak
            under_way += 1
            peak = max(peak, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1

        results = await asyncio.gather(*(gate.run(agent, n, tenant_id="acme") for n in range(6)))
        assert all(result.ok for result in results)
        assert peak == 2


async def test_a_run_that_finds_no_place_in_its_time_says_so():
    async with make({"max_concurrent_runs": 1}) as gate:
        release = asyncio.Event()
        entered = asyncio.Event()

        async def holds(run, task):
            entered.set()
            await release.wait()

        async def agent(run, task):
            raise AssertionError("never started")

        holder = asyncio.create_task(gate.run(holds, "x", tenant_id="acme"))
        await entered.wait()
        result = await gate.run(agent, "x", tenant_id="acme", budgets={"max_seconds": 0.05})
        assert result.reason is StopReason.TIME_BUDGET
        assert "max_concurrent_runs" in result.details["message"]
        release.set()
        await holder


def die_in_a_run(store):
    program = f"""
import asyncio, os, interlock
gate = interlock.Interlock({{"tenants": {{"acme": {{"budgets": {{"max_concurrent_runs": 1}}}}}}}}, store={store!r})
async def agent(run, task):
    os.kill(os.getpid(), 9)
asyncio.run(gate.run(agent, "x", tenant_id="acme"))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9


async def test_a_place_of_a_process_that_is_gone_does_not_count(tmp_path):
    store = f"sqlite:///{tmp_path}/i.db"
    die_in_a_run(store)

    async def agent(run, task):
        return "in"

    async with interlock.Interlock({"tenants": {"acme": {"budgets": {"max_concurrent_runs": 1}}}}, store=store) as gate:
        assert (await gate.run(agent, "x", tenant_id="acme", budgets={"max_seconds": 20})).output == "in"


@pytest.mark.parametrize("bad", [-1, "many"])
def test_a_cap_that_is_none_is_refused(bad):
    with pytest.raises(interlock.ConfigError, match="max_usd_per_day"):
        make({"max_usd_per_day": bad})
