"""Submitted runs, the workers that take them, and handlers of queues."""

import asyncio
import contextlib

import pytest

import interlock
from interlock import StopReason
from interlock.core.errors import AlreadyEnded, AlreadyRunning, ConfigError
from interlock.journal.rounds import RoundOptions
from interlock.journal.store import ClaimState, RunState, Settlement
from interlock.supervisor.worker import WorkerOptions

QUICK = {"poll_s": 0.01, "parked_s": 0.01, "doubts_s": 0.01}


@pytest.fixture
def make(tmp_path):
    """Return a function that opens a gate on this test's file."""
    return lambda **words: interlock.Interlock(words, store=f"sqlite:///{tmp_path / 'i.db'}")


@pytest.fixture
async def gate(make):
    async with make() as gate:
        yield gate


@contextlib.asynccontextmanager
async def working(gate, **words):
    agents = {name: words.pop(name) for name in list(words) if callable(words[name])}
    worker = gate.worker(agents, WorkerOptions(**QUICK, **words))
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.drain()
        async with asyncio.timeout(20.0):
            await task


async def until(gate, run_id, *states):
    async with asyncio.timeout(20.0):
        while (row := await gate.house().store.run(run_id)).state not in states:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.01)
    return row


async def test_a_submitted_run_is_worked_on_and_its_outcome_is_there_for_all(gate):
    async def agent(run, task, more):
        return [task, more, run.tenant_id]

    run_id = await gate.submit("agent", {"n": 1}, inputs={"more": 2}, request_id="q1", tenant_id="acme")
    assert (await gate.house().store.run(run_id)).state is RunState.QUEUED
    async with working(gate, agent=agent):
        row = await until(gate, run_id, RunState.ENDED)
    assert (row.reason, row.attempts) == ("success", 1)
    again = await gate.run(agent, {"n": 1}, inputs={"more": 2}, request_id="q1", tenant_id="acme")
    assert (again.output, again.replayed, again.run_id) == ([{"n": 1}, 2, "acme"], True, run_id)
    assert await gate.submit("agent", {"n": 1}, inputs={"more": 2}, request_id="q1", tenant_id="acme") == run_id


async def test_a_gate_whose_worker_has_drained_can_be_worked_for_again(gate):
    async def agent(run, task):
        return task

    async with working(gate, agent=agent):
        pass
    run_id = await gate.submit("agent", "x")
    async with working(gate, agent=agent):
        row = await until(gate, run_id, RunState.ENDED)
    assert (row.reason, row.fence) == ("success", 1)


async def test_what_cannot_be_queued_is_refused_with_its_reason(gate):
    await gate.submit("agent", "x", request_id="q1")
    for words in ({"task": "y", "request_id": "q1"}, {"task": object()}, {"task": "x", "tenant_id": ""}):
        with pytest.raises(AlreadyEnded) as refused:
            await gate.submit("agent", **words)
        assert refused.value.result.reason is StopReason.INVALID_INPUT


async def test_whoever_has_the_agent_may_run_a_queued_request_himself(gate):
    async def agent(run, task):
        return task

    run_id = await gate.submit("agent", "x", request_id="q1")
    result = await gate.run(agent, "x", request_id="q1")
    assert (result.output, result.run_id) == ("x", run_id)


async def test_no_more_than_concurrency_at_once_and_each_run_once(gate):
    most, now, seen = 0, 0, []

    async def agent(run, task):
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        seen.append(task)

    ids = [await gate.submit("agent", n, tenant_id=f"t{n % 2}") for n in range(6)]
    async with working(gate, agent=agent, concurrency=2):
        for run_id in ids:
            await until(gate, run_id, RunState.ENDED)
    assert most == 2
    assert sorted(seen) == list(range(6))


async def test_draining_hands_a_run_back_with_its_writes_done_and_without_counting_the_attempt(make):
    sent, asked, under_way = [], [], asyncio.Event()

    def build(gate):
        @gate.tool("post", effect="write", allow=True)
        async def post(text: str) -> str:
            under_way.set()
            await asyncio.sleep(0.1)
            sent.append(text)
            return text

    async def ask(prompt):
        asked.append(prompt)
        return prompt

    async def agent(run, task):
        await run.model(ask, "plan")
        first = await run.call("post", {"text": "one"})
        await run.model(ask, "go on")
        return [first, await run.call("post", {"text": "two"})]

    async with make() as gate:
        build(gate)
        run_id = await gate.submit("agent", "x")
        async with working(gate, agent=agent) as worker:
            await under_way.wait()
            worker.drain()
        row = await gate.house().store.run(run_id)
        assert (row.state, row.attempts, sent) == (RunState.QUEUED, 0, ["one"])
    async with make() as other:
        build(other)
        async with working(other, agent=agent):
            row = await until(other, run_id, RunState.ENDED)
        attempts = await other.house().store.leases.attempts_of(run_id)
    assert (row.reason, row.attempts, row.output) == ("success", 1, b'["one","two"]')
    assert (sent, asked) == (["one", "two"], ["plan", "go on"])
    assert [(a.fence, a.ended_as) for a in attempts] == [(1, "handed_back"), (2, "success")]


async def test_a_settled_doubt_lets_a_worker_go_on(gate):
    sent = []

    @gate.tool("post", effect="write", allow=True)
    async def post(text: str) -> str:
        sent.append(text)
        raise TimeoutError

    async def agent(run, task):
        return await run.call("post", {"text": task})

    run_id = await gate.submit("agent", "x")
    async with working(gate, agent=agent):
        row = await until(gate, run_id, RunState.PARKED)
        key = bytes.fromhex(row.record["details"]["doubts"][0])
        await gate.house().store.settle(key, Settlement(ClaimState.DONE, b'"looked"', by="anna"))
        row = await until(gate, run_id, RunState.ENDED)
    assert (row.reason, row.output, sent) == ("success", b'"looked"', ["x"])


async def test_a_look_up_closes_a_doubt_and_the_run_goes_on_without_a_person(gate):
    sent, known = [], {}

    async def find(text, *, idempotency_key):
        if not known:
            raise ConnectionError
        return known.get(idempotency_key)

    @gate.tool("post", effect="write", lookup=find, settle_s=0.0)
    async def post(text: str) -> str:
        sent.append(text)
        raise TimeoutError

    async def agent(run, task):
        return await run.call("post", {"text": task})

    run_id = await gate.submit("agent", "x")
    async with working(gate, agent=agent) as worker:
        worker._rounds._options = RoundOptions(first_s=0.01)
        await until(gate, run_id, RunState.PARKED)
        (claim,) = await gate.house().store.claims_of(run_id)
        known[claim.sent_key] = "T-1"
        row = await until(gate, run_id, RunState.ENDED)
    (claim,) = await gate.house().store.claims_of(run_id)
    assert (row.reason, row.output, sent, claim.settled_by) == ("success", b'"T-1"', ["x"], "lookup")


async def test_a_parked_run_that_cannot_be_gone_on_with_stays_parked(gate):
    @gate.tool("post", effect="write", allow=True)
    async def post(text: str) -> str:
        raise TimeoutError

    async def agent(run, task):
        async with run.step():
            pass  # its reply is not recorded
        await run.call("post", {"text": task})

    run_id = await gate.submit("agent", "x")
    other = await gate.submit("other", "y")
    async with working(gate, agent=agent) as worker:
        row = await until(gate, run_id, RunState.PARKED)
        key = bytes.fromhex(row.record["details"]["doubts"][0])
        await gate.house().store.settle(key, Settlement(ClaimState.DONE, b'"looked"', by="anna"))
        async with asyncio.timeout(20.0):
            while run_id not in worker._caretaker._stuck:  # noqa: ASYNC110 - the worker's
                await asyncio.sleep(0.01)
    assert (await gate.house().store.run(run_id)).state is RunState.PARKED
    assert (await gate.house().store.run(other)).state is RunState.QUEUED


class TestLimits:
    async def peak(self, gate, ids, **words):
        """Run everything, and return how many were under way at once: of acme, and of all."""
        under_way, most, in_all = [], 0, 0

        async def agent(run, task):
            nonlocal most, in_all
            under_way.append(run.tenant_id)
            most, in_all = max(most, under_way.count("acme")), max(in_all, len(under_way))
            await asyncio.sleep(0.03)
            under_way.remove(run.tenant_id)

        async with working(gate, agent=agent, **words):
            for run_id in ids:
                await until(gate, run_id, RunState.ENDED)
        return most, in_all

    async def submit(self, gate):
        tenants = ["acme"] * 5 + ["globex"] * 3
        return [await gate.submit("agent", n, tenant_id=tenant) for n, tenant in enumerate(tenants)]

    async def test_a_worker_s_own_limit_of_a_tenant(self, gate):
        assert await self.peak(gate, await self.submit(gate), per_tenant=1) == (1, 2)

    async def test_a_tenant_at_its_cap_takes_no_place_from_others(self, make):
        capped = {"tenants": {"acme": {"budgets": {"max_concurrent_runs": 1}}}}
        async with make(**capped) as gate:
            assert await self.peak(gate, await self.submit(gate), concurrency=2) == (1, 2)

    async def test_the_cap_of_a_tenant_holds_over_two_workers(self, make):
        capped = {"tenants": {"acme": {"budgets": {"max_concurrent_runs": 1}}}}
        under_way, most = 0, 0

        async def agent(run, task):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.03)
            under_way -= 1

        async with make(**capped) as one, make(**capped) as two:
            ids = [await one.submit("agent", n, tenant_id="acme") for n in range(4)]
            async with working(one, agent=agent), working(two, agent=agent):
                for run_id in ids:
                    await until(one, run_id, RunState.ENDED)
        assert most == 1

    async def test_runs_of_a_dead_worker_wait_for_room_and_are_not_given_up(self, make):
        """Whoever else opens runs meanwhile finds that somebody is there who can go on with them."""
        held, go = asyncio.Event(), asyncio.Event()

        async def agent(run, task):
            if task == "long":
                held.set()
                await go.wait()
            return task

        quick = {"lease_ttl_s": 0.2, "orphan_after_s": 0.8}
        async with make(**quick) as dead, make(**quick) as gate:
            run_id = await dead.submit("agent", "short")
            row = await dead.house().store.leases.take(["agent"], None, {})  # and nobody renews it
            assert row.run_id == run_id
            await gate.submit("agent", "long")
            async with working(gate, agent=agent, concurrency=1):
                await held.wait()
                await until(gate, run_id, RunState.QUEUED)
                for n in range(4):
                    await asyncio.sleep(0.3)
                    await gate.run(agent, "x", request_id=f"other{n}")
                assert (await gate.house().store.run(run_id)).state is RunState.QUEUED
                go.set()
                row = await until(gate, run_id, RunState.ENDED)
        assert row.reason == "success"

    def test_a_limit_below_one_is_refused(self):
        with pytest.raises(ConfigError, match="per_tenant"):
            WorkerOptions(per_tenant=0)


async def test_a_task_that_was_not_kept_ends_its_run_with_a_word(gate):
    async def agent(run, task):
        raise AssertionError("never")

    run_id = await gate.submit("agent", "x")
    gate.house().store._writer.submit(lambda db: db.execute("update runs set task = null"))
    async with working(gate, agent=agent):
        row = await until(gate, run_id, RunState.ENDED)
    assert row.reason == "abandoned"
    assert "INTERLOCK_KEY" in row.record["details"]["message"]


class TestHandler:
    async def test_every_message_is_handled_once_however_often_it_comes(self, gate):
        handled = []

        @gate.handler(request_id="id", tenant_id=lambda message: message["who"])
        async def handle(run, message):
            handled.append(message["id"])
            await asyncio.sleep(0.02)
            return run.tenant_id

        messages = [{"id": n // 2, "who": "acme"} for n in range(8)]
        results = await asyncio.gather(*(handle(message) for message in messages))
        assert sorted(handled) == [0, 1, 2, 3]
        assert {result.output for result in results} == {"acme"}
        assert (await handle(messages[0])).replayed

    async def test_a_concurrent_duplicate_that_may_not_wait_gets_the_run_id(self, gate):
        held, go = asyncio.Event(), asyncio.Event()

        @gate.handler(request_id="id", wait_s=0.05)
        async def handle(run, message):
            held.set()
            await go.wait()

        first = asyncio.create_task(handle({"id": "m1"}))
        await held.wait()
        with pytest.raises(AlreadyRunning) as running:
            await handle({"id": "m1"})
        go.set()
        assert (await first).run_id == running.value.run_id

    async def test_a_message_without_an_id_is_a_clear_error(self, gate):
        @gate.handler(request_id="id")
        async def handle(run, message):
            raise AssertionError("never")

        for message in ({}, {"id": ""}, object()):
            with pytest.raises(ConfigError, match="request_id"):
                await handle(message)
