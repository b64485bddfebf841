"""What a crash leaves behind: money that was reserved, runs that nobody goes on with, rows of an owner that is no more."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

import interlock
from interlock import StopReason
from interlock.core.clock import SYSTEM, SystemClock
from interlock.journal.store import ClaimState, RunState, Settlement

PRICE = {"small": {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1_000.0}}
TENANT = {"acme": {"budgets": {"max_usd_per_day": 10.0}}}


class Clock(SystemClock):
    """The machine's clock; the time since boot can be pushed on, and the wall clock set."""

    def __init__(self):
        self.ahead_s = self.set_s = 0.0

    def boot(self):
        return SYSTEM.boot() + self.ahead_s

    def wall(self):
        return SYSTEM.wall() + self.set_s


class Pair:
    """Two gates on one file stand for two processes; the second one's clock is where the test puts it."""

    def __init__(self, path, **config):
        self.path = path
        self.clock = Clock()
        config = {"lease_ttl_s": 60.0, "prices": PRICE, "tenants": TENANT, **config}
        self.first = interlock.Interlock(config, store=f"sqlite:///{path}")
        self.second = interlock.Interlock(config, store=f"sqlite:///{path}", clock=self.clock)
        self.held, self.go = asyncio.Event(), asyncio.Event()

    def start(self, gate, agent, **words):
        words = {"request_id": "r1", "tenant_id": "acme", "agent_name": "agent", **words}
        return asyncio.create_task(gate.run(agent, "x", **words))

    async def die(self, agent, **words):
        """Begin a run with the first gate, and let its lease run out while it is where it holds."""
        old = self.start(self.first, agent, **words)
        async with asyncio.timeout(20.0):
            await self.held.wait()
        await self.first.house().store.flush()
        self.clock.ahead_s += 61.0
        return old

    def select(self, query):
        with closing(sqlite3.connect(self.path)) as db, db:
            return db.execute(query).fetchall()

    async def close(self):
        self.go.set()
        await self.second.aclose()
        await self.first.aclose()


@pytest.fixture
async def pair(tmp_path):
    pair = Pair(tmp_path / "i.db")
    yield pair
    await pair.close()


class TestReservation:
    """C8: a reservation open at the crash is charged in full, once: to the run, and to its tenant's day."""

    async def agent(self, run, task):
        async with run.step(model="small", max_output_tokens=100, record=dict) as step:
            if not step.replayed:
                step.reply = {"n": 1}
                step.charge({"input_tokens": 0, "output_tokens": 50})
        async with run.step(model="small", max_output_tokens=200, record=dict) as step:
            if self.dies > 0:
                self.dies -= 1
                self.pair.held.set()
                await self.pair.go.wait()
            step.reply = {"n": 2}
            step.charge({"input_tokens": 0, "output_tokens": 20})
        return "done"

    async def once(self, pair):
        """Hold whoever comes first."""
        if not pair.held.is_set():
            pair.held.set()
            await pair.go.wait()

    @pytest.mark.parametrize("deaths", [1, 2])
    async def test_it_is_charged_in_full_and_once(self, pair, deaths):
        self.pair, self.dies = pair, deaths
        old = [await pair.die(self.agent)]
        for _ in range(deaths - 1):
            pair.held.clear()
            again = pair.start(pair.second, self.agent)
            await pair.held.wait()
            await pair.second.house().store.flush()
            # The second one dies, too.
            for run in pair.second.house().supervisor._live:
                pair.second.house().store.leases.let_go(run.scope.lease)
            with closing(sqlite3.connect(pair.path)) as db, db:
                db.execute("update runs set lease_until_s = 0 where state = 'running'")
            old.append(again)
        result = await pair.start(pair.second, self.agent)
        lost = 0.2 * deaths
        assert result.output == "done"
        assert result.cost_usd == pytest.approx(0.05 + lost + 0.02)
        assert result.tokens == 50 + 200 * deaths + 20
        await pair.second.house().store.flush()
        ((spent,),) = pair.select("select usd from tenant_spend where tenant_id = 'acme'")
        assert spent == pytest.approx(0.05 + lost + 0.02)
        pair.go.set()
        for task in old:
            assert (await task).output == "done"

    async def test_what_is_charged_counts_against_the_cap_of_the_run(self, pair):
        self.pair, self.dies = pair, 1
        old = await pair.die(self.agent, budgets={"max_usd": 0.3})
        result = await pair.start(pair.second, self.agent, budgets={"max_usd": 0.3})
        assert result.reason is StopReason.COST_BUDGET
        assert result.cost_usd == pytest.approx(0.25)
        pair.go.set()
        await old

    async def test_a_turn_that_ended_leaves_nothing_reserved(self, pair):
        async def agent(run, task):
            async with run.step(model="small", max_output_tokens=100, record=dict) as step:
                if not step.replayed:
                    step.reply = {"n": 1}
                    step.charge({"input_tokens": 0, "output_tokens": 50})
            await self.once(pair)

        old = await pair.die(agent)
        result = await pair.start(pair.second, agent)
        assert (result.cost_usd, result.steps, result.replayed) == (pytest.approx(0.05), 1, False)
        pair.go.set()
        await old

    async def test_a_run_that_begins_anew_keeps_what_its_forgotten_turns_cost(self, pair):
        async def agent(run, task):
            async with run.step(model="small", max_output_tokens=100) as step:  # not recorded
                step.charge({"input_tokens": 0, "output_tokens": 50})
            await self.once(pair)

        old = await pair.die(agent)
        result = await pair.start(pair.second, agent)
        assert (result.cost_usd, result.steps) == (pytest.approx(0.1), 1)
        pair.go.set()
        await old


class TestOrphans:
    """C6: whoever opens a run gives up those that nobody goes on with; their request may still be delivered again."""

    def gates(self, pair):
        sent = []
        for gate in (pair.first, pair.second):

            @gate.tool("post", effect="write")
            async def post(text: str, *, idempotency_key: str) -> str:
                sent.append(idempotency_key)
                if len(sent) == 1:
                    pair.held.set()
                    await pair.go.wait()
                return text

        return sent

    async def agent(self, run, task):
        return await run.call("post", {"text": task})

    async def reaped(self, pair, run_id):
        """Let anybody open a run, until that one has been given up."""

        async def other(run, task):
            return "other"

        async with asyncio.timeout(20.0):
            for n in range(1_000):
                assert (await pair.second.run(other, n, request_id=f"other{n}")).ok
                row = await pair.second.house().store.run(run_id)
                if row.state is RunState.ENDED:
                    return row
                await asyncio.sleep(0.01)
        raise AssertionError("never")

    async def test_a_run_that_nobody_goes_on_with_is_abandoned_and_its_intents_are_doubts(self, pair):
        sent = self.gates(pair)
        old = await pair.die(self.agent)
        (row,) = await pair.second.house().store.runs()
        pair.clock.ahead_s += 58.0  # 59 s after the lease ran out
        assert await pair.second.house().store.leases.reap(60.0, []) == []
        pair.clock.ahead_s += 1.0
        row = await self.reaped(pair, row.run_id)
        assert row.reason == "abandoned"
        assert row.record["stop_reason"] == "abandoned"
        assert "orphan_after_s" in row.record["details"]["message"]
        (doubt,) = await pair.second.house().store.doubts()
        assert row.record["details"]["doubts"] == [doubt.key.hex()]
        # A redelivery resumes it all the same, under the same key.
        result = await pair.start(pair.second, self.agent)
        assert (result.output, result.run_id) == ("x", row.run_id)
        assert len(sent) == 2
        assert len(set(sent)) == 1
        pair.go.set()
        await old

    async def test_submitting_it_again_queues_it(self, pair):
        self.gates(pair)
        old = await pair.die(self.agent)
        (row,) = await pair.second.house().store.runs()
        pair.clock.ahead_s += 60.0
        await self.reaped(pair, row.run_id)
        assert await pair.second.submit("agent", "x", request_id="r1", tenant_id="acme") == row.run_id
        row = await pair.second.house().store.run(row.run_id)
        assert row.state is RunState.QUEUED
        pair.go.set()
        await old

    async def test_a_run_abandoned_for_another_reason_is_not_revived(self, pair):
        async def agent(run, task):
            async with run.step():
                await run.call("post", {"text": task})
                pair.held.set()
                await pair.go.wait()

        sent = self.gates(pair)
        sent.append("so that it is not held in the tool")
        old = await pair.die(agent)
        first = await pair.start(pair.second, agent)
        assert first.reason is StopReason.ABANDONED
        again = await pair.start(pair.second, agent)
        assert (again.reason, again.replayed) == (StopReason.ABANDONED, True)
        pair.go.set()
        await old

    async def test_settling_the_doubt_of_a_run_that_is_over_restarts_nothing(self, pair):
        sent = self.gates(pair)
        old = await pair.die(self.agent)
        pair.clock.ahead_s += 60.0
        (row,) = await pair.second.house().store.runs()
        await self.reaped(pair, row.run_id)
        store = pair.second.house().store
        (doubt,) = await store.doubts()
        assert await store.settle(doubt.key, Settlement(ClaimState.DONE, b'"looked"', by="ana"))
        assert await store.leases.settled(["agent"], None) == []
        assert await store.leases.take(["agent"], None, {}) is None
        assert ((await store.run(row.run_id)).state, len(sent)) == (RunState.ENDED, 1)
        pair.go.set()
        await old

    async def test_a_run_without_a_request_id_is_given_up_for_good(self, pair):
        self.gates(pair)
        old = await pair.die(self.agent, request_id=None)
        pair.clock.ahead_s += 60.0
        (row,) = await pair.second.house().store.runs()
        row = await self.reaped(pair, row.run_id)
        assert "request id" in row.record["details"]["message"]
        pair.go.set()
        await old


class TestZombie:
    """An owner that is no more writes neither its trace nor its children over the new one's; its result counts."""

    async def test_children_and_traces_are_the_new_owner_s(self, pair):
        world = []
        for gate in (pair.first, pair.second):

            @gate.tool("read", effect="read")
            async def read(n: int) -> int:
                world.append(n)
                return n

        async def agent(run, task):
            async with run.child("part") as child:
                first = await child.call("read", {"n": 1})
                if not pair.held.is_set():
                    pair.held.set()
                    await pair.go.wait()
                return [first, await child.call("read", {"n": 2})]

        old = await pair.die(agent)
        result = await pair.start(pair.second, agent)
        assert result.output == [1, 2]
        pair.go.set()
        assert (await old).output == [1, 2]
        for gate in (pair.first, pair.second):
            await gate.house().store.flush()
        children = pair.select("select run_id, state, reason, fence from runs where path <> '' order by id")
        assert [row[1:] for row in children] == [("ended", "abandoned", 1), ("ended", "success", 2)]
        ((standing,),) = pair.select("select run_id from requests where path <> ''")
        assert standing == children[1][0]

    async def test_its_late_result_counts(self, pair):
        calls = []
        for gate in (pair.first, pair.second):

            @gate.tool("post", effect="write", allow=True)
            async def post(text: str) -> str:
                calls.append(text)
                pair.held.set()
                await pair.go.wait()
                return "mine"

        async def agent(run, task):
            return await run.call("post", {"text": task})

        old = await pair.die(agent)
        parked = await pair.start(pair.second, agent)
        assert parked.reason is StopReason.OUTCOME_UNKNOWN
        pair.go.set()
        assert (await old).output == "mine"
        (claim,) = await pair.first.house().store.claims_of(parked.run_id)
        assert (claim.state, claim.result, calls) == (ClaimState.DONE, b'"mine"', ["x"])


class TestClock:
    """A system clock that jumps an hour, in both directions."""

    @pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
    async def test_neither_leases_nor_budgets_notice(self, pair, jump_s):
        async def agent(run, task):
            pair.held.set()
            await pair.go.wait()
            return await run.model(answer)

        async def answer():
            return "done"

        old = pair.start(pair.second, agent, budgets={"max_seconds": 600})
        await pair.held.wait()
        pair.clock.set_s = jump_s
        with pytest.raises(interlock.AlreadyRunning):  # nobody takes it over
            await pair.first.run(agent, "x", request_id="r1", tenant_id="acme", agent_name="agent", wait_s=0.0)
        pair.go.set()
        result = await old
        assert result.output == "done"
        assert 0 <= result.elapsed_s < 600

    async def test_an_absolute_deadline_is_the_wall_clock_s_when_the_run_begins(self, pair):
        async def agent(run, task):
            pair.clock.set_s = 3600.0
            return "done"

        result = await pair.second.run(agent, "x", deadline=SYSTEM.wall() + 60.0)
        assert result.output == "done"
