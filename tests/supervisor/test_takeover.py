"""A run whose worker is gone is taken over by replay; two gates on one file stand for two processes."""

import asyncio

import pytest

import interlock
from interlock import StopReason
from interlock.core.clock import SYSTEM, SystemClock
from interlock.core.errors import LeaseLost
from interlock.journal.store import NewRun, RunState


class Clock(SystemClock):
    """The machine's clock, but for the time since boot: that can be pushed on."""

    def __init__(self):
        self.ahead_s = 0.0

    def boot(self):
        return SYSTEM.boot() + self.ahead_s


class Worker:
    """One gate; what it does to the world is counted in `world`."""

    def __init__(self, path, world, clock=SYSTEM, **config):
        self.gate = interlock.Interlock({"lease_ttl_s": 60.0, **config}, store=f"sqlite:///{path}", clock=clock)
        self.held = asyncio.Event()
        self.go = asyncio.Event()
        self.world = world
        gate = self.gate

        @gate.tool("read", effect="read")
        async def read(n: int) -> int:
            world.append(f"read {n}")
            return n

        @gate.tool("post", effect="write", allow=True)
        async def post(text: str) -> str:
            world.append(f"post {text}")
            return text

    async def ask(self, prompt):
        self.world.append(f"ask {prompt}")
        return prompt

    async def agent(self, run, task):
        plan = await run.model(self.ask, "plan")
        await run.call("read", {"n": 1})
        await run.call("post", {"text": plan})
        self.held.set()
        await self.go.wait()
        last = await run.model(self.ask, "end")
        return [plan, last, await run.call("post", {"text": last})]

    def wake(self):
        """Let the agent go on as after a pause that was longer than its lease."""
        for run in self.gate.house().supervisor._live:
            run.scope.lease.until_s = 0.0
        self.go.set()

    def start(self, agent=None, **words):
        words = {"request_id": "r1", **words}
        return asyncio.create_task(self.gate.run(agent or self.agent, "x", **words, agent_name="agent"))


@pytest.fixture
def world():
    return []


@pytest.fixture
async def pair(tmp_path, world):
    """Two workers; the clock of the second is past the lease of the first, who knows nothing of it."""
    late = Clock()
    first, second = Worker(tmp_path / "i.db", world), Worker(tmp_path / "i.db", world, late)
    second.late = late
    second.go.set()
    yield first, second
    await second.gate.aclose()
    await first.gate.aclose()


async def test_a_dead_worker_s_run_goes_on_where_it_was_and_nothing_is_done_twice(pair, world):
    first, second = pair
    old = first.start()
    await first.held.wait()
    second.late.ahead_s = 61.0
    result = await second.start()
    assert result.output == ["plan", "end", "end"]
    assert world == ["ask plan", "read 1", "post plan", "ask end", "post end"]
    assert result.steps == 2
    attempts = await second.gate.house().store.leases.attempts_of(result.run_id)
    assert [(a.fence, a.ended_as) for a in attempts] == [(1, "lease_lost"), (2, "success")]
    # The old owner, who only slept, does nothing more, and hands out the new one's outcome.
    first.wake()
    theirs = await old
    assert (theirs.output, theirs.run_id, theirs.replayed) == (result.output, result.run_id, True)
    assert len(world) == 5


async def test_a_live_run_is_waited_for(pair, world):
    first, second = pair
    old = first.start()
    await first.held.wait()
    waiting = second.start()
    await asyncio.sleep(0.2)
    assert not waiting.done()
    first.go.set()
    assert (await waiting).output == (await old).output
    assert world.count("post end") == 1


async def test_a_fenced_owner_s_next_call_and_turn_raise_lease_lost(pair, world):
    first, second = pair
    raised = []

    async def zombie(run, task):
        await run.model(first.ask, "plan")
        first.held.set()
        await first.go.wait()
        for act in (
            lambda: run.call("read", {"n": 2}),
            lambda: run.observe("read", {"n": 2}),
            lambda: run.model(first.ask, "zombie"),
        ):
            with pytest.raises(LeaseLost):
                await act()
            raised.append(1)
        return "never told"

    async def quick(run, task):
        return await run.model(second.ask, "plan")

    old = first.start(zombie)
    await first.held.wait()
    await first.gate.house().store.flush()
    second.late.ahead_s = 61.0
    assert (await second.start(quick)).output == "plan"
    first.wake()
    assert (await old).output == "plan"
    assert raised == [1, 1, 1]
    assert world == ["ask plan"]


async def test_open_run_waits_then_says_so_and_takes_over_a_dead_owner_s(pair, world):
    first, second = pair
    old = first.start()
    await first.held.wait()
    with pytest.raises(interlock.AlreadyRunning):
        async with second.gate.open_run("x", request_id="r1", wait_s=0.1):
            raise AssertionError("never")
    second.late.ahead_s = 61.0
    async with second.gate.open_run("x", request_id="r1") as run:
        run.output = await second.agent(run, "x")
    assert run.result.ok
    assert world == ["ask plan", "read 1", "post plan", "ask end", "post end"]
    first.go.set()
    assert (await old).output == run.result.output


async def test_after_a_write_and_an_unrecorded_turn_a_dead_run_is_abandoned(pair, world):
    first, second = pair

    async def agent(run, task):
        async with run.step():
            await run.call("post", {"text": "hi"})
            first.held.set()
            await first.go.wait()

    old = first.start(agent)
    await first.held.wait()
    second.late.ahead_s = 61.0
    result = await second.start(agent)
    assert result.reason is StopReason.ABANDONED
    assert "model turns" in result.details["message"]
    assert world == ["post hi"]
    first.go.set()
    assert (await old).reason is StopReason.ABANDONED
    assert (await second.start(agent)).replayed


async def test_without_a_write_an_unrecorded_turn_begins_anew(pair, world):
    first, second = pair

    async def agent(run, task):
        async with run.step():
            pass
        await run.call("read", {"n": 1})
        first.held.set()
        await first.go.wait()
        return "done"

    old = first.start(agent)
    await first.held.wait()
    await first.gate.house().store.flush()
    second.late.ahead_s = 61.0
    first.go.set()
    result = await second.start(agent)
    await old
    assert result.output == "done"


async def test_workers_that_keep_dying_over_nothing_abandon_the_run(pair, world):
    first, second = pair

    async def agent(run, task):
        first.held.set()
        await first.go.wait()

    old = first.start(agent)
    store = second.gate.house().store
    async with asyncio.timeout(10.0):
        await first.held.wait()
    rows = await store.runs()
    request_id, run_id = rows[0].request_id, rows[0].run_id
    new = NewRun("x", "default", request_id, "agent", rows[0].payload_hash, "x")
    for _ in range(4):
        second.late.ahead_s += 61.0
        assert (await store.begin(new, resume=True)).fresh
    second.late.ahead_s += 61.0
    result = await second.start()
    assert result.reason is StopReason.ABANDONED
    assert "abandon_after" in result.details["message"]
    assert (await store.run(run_id)).state is RunState.ENDED
    old.cancel()
    assert world == []


async def test_a_record_that_cannot_be_unsealed_ends_the_run_and_nothing_is_done_again(pair, world, monkeypatch):
    first, second = pair
    old = first.start()
    await first.held.wait()
    monkeypatch.setenv("INTERLOCK_KEY", "11" * 32)
    second.late.ahead_s = 61.0
    result = await second.start()
    assert result.reason is StopReason.INTERNAL_ERROR
    assert "INTERLOCK_KEY" in result.details["message"]
    assert world == ["ask plan", "read 1", "post plan"]
    first.wake()
    assert (await old).reason is StopReason.INTERNAL_ERROR


async def test_who_waits_while_the_store_goes_away_is_told(pair):
    first, second = pair
    old = first.start()
    await first.held.wait()
    waiting = second.start()
    await asyncio.sleep(0.1)
    second.gate.house().store._reader.close()
    result = await waiting
    assert result.reason is StopReason.STORE_UNAVAILABLE
    first.go.set()
    assert (await old).ok
