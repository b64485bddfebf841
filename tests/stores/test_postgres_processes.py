"""Several processes on one PostgreSQL store, and processes that are killed: real ones, with SIGKILL."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import pytest
from scenes import Scene, new_run
from test_sqlite_processes import lines, report, worker

import interlock
from interlock.core.errors import StoreUnavailable
from interlock.journal.store import ClaimState, RunState
from interlock.stores.pg_address import parse_address
from interlock.stores.postgres import PostgresStore
from interlock.supervisor.worker import WorkerOptions

pytestmark = pytest.mark.process


@pytest.fixture
def store(pg_url):
    store = PostgresStore(pg_url, replay="plaintext", environ={})
    yield store
    store.close()


async def test_a_killed_writer_loses_nothing_that_it_acknowledged(pg_server, pg_url, store):
    """The worker prints what was acknowledged to it; whatever was printed must be in the store."""
    acknowledged = {}
    for round_ in range(3):
        with worker("claim-for-ever", pg_url, f"run-{round_}", 32) as process:
            for what, key in lines(process, 300 + 97 * round_):
                acknowledged.setdefault(key, set()).add(what)
            process.send_signal(signal.SIGKILL)
            # What is still in the pipe was acknowledged too.
            for line in process.stdout.read().splitlines():
                with contextlib.suppress(ValueError):
                    what, key = line.split()
                    if len(key) == 48:
                        acknowledged.setdefault(key, set()).add(what)
    await store.flush()
    rows = pg_server.execute(f"select key, state from {parse_address(pg_url).schema}.journal")
    states = {key.hex(): state for key, state in rows}
    assert len(acknowledged) > 500
    assert not acknowledged.keys() - states.keys()
    assert not {key for key, what in acknowledged.items() if "settled" in what and states[key] != "done"}


async def test_processes_work_side_by_side(pg_url, store):
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker("claim", pg_url, f"run-{i}", 16, 0.5)) for i in range(2)]
        reports = [report(process) for process in workers]
    for i, one in enumerate(reports):
        claims = await store.claims_of(f"run-{i}")
        assert len(claims) == one["claims"] > 0
        assert {claim.state for claim in claims} == {ClaimState.DONE}


async def test_one_request_submitted_by_several_processes_is_one_run(pg_url, store):
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker("begin", pg_url, f"p{i}", 16)) for i in range(4)]
        reports = [report(process) for process in workers]
    assert sum(one["fresh"] for one in reports) == 1
    assert len({run_id for one in reports for run_id in one["runs"]}) == 1


async def test_a_run_begun_soon_is_kept_when_the_process_ends_without_closing(pg_url, store):
    """The interpreter's exit writes what is queued: a script need not close its gate."""
    with worker("exit", pg_url) as process:
        report(process)
    assert [row.state for row in await store.runs()] == ["ended"]


class TestBell:
    """Who waits for a run is told when there is one; who is not told finds it all the same, by looking."""

    async def told(self, store):
        loop, rung = asyncio.get_running_loop(), asyncio.Event()
        silence = store.leases.ring(lambda: loop.call_soon_threadsafe(rung.set))
        return rung, silence

    async def test_rings_when_a_run_is_queued_requeued_or_handed_back(self, pg_url, store, listening):
        other = PostgresStore(pg_url, replay="plaintext", environ={})
        rung, silence = await self.told(store)
        await listening()
        await other.leases.queue(new_run())
        async with asyncio.timeout(20.0):
            await rung.wait()
        row = await other.leases.take(["support"], None, {})
        rung.clear()
        assert await other.leases.hand_back("r1", row.fence, 0.0)
        async with asyncio.timeout(20.0):
            await rung.wait()
        row = await other.leases.take(["support"], None, {})
        await other.end("r1", row.fence, RunState.PARKED, "approval_pending", {}, None)
        rung.clear()
        assert await other.leases.requeue("r1")
        async with asyncio.timeout(20.0):
            await rung.wait()
        silence()
        other.close()

    async def test_goes_on_after_its_connection_was_cut(self, pg_server, pg_url, store, listening):
        rung, silence = await self.told(store)
        await listening()
        pg_server.execute("select pg_terminate_backend(pid) from pg_stat_activity where query like 'LISTEN%'")
        await listening()
        await store.leases.queue(new_run())
        async with asyncio.timeout(20.0):
            await rung.wait()
        silence()

    async def test_a_worker_is_woken(self, pg_url, listening):
        """Its poll is an hour: only the bell can wake it."""

        async def agent(run, task):
            return task

        async with interlock.Interlock({"replay": "plaintext"}, store=pg_url) as gate:
            worker = gate.worker({"agent": agent}, WorkerOptions(poll_s=3600.0))
            task = asyncio.create_task(worker.run())
            await listening()
            run_id = await gate.submit("agent", "hello", request_id="q1")
            async with asyncio.timeout(20.0):
                while (await gate.house().store.run(run_id)).state is not RunState.ENDED:  # noqa: ASYNC110 - another task's
                    await asyncio.sleep(0.02)
            worker.drain()
            await task

    @pytest.fixture
    def listening(self, pg_server):
        async def wait():
            listens = "select 1 from pg_stat_activity where query like 'LISTEN%' and state = 'idle'"
            async with asyncio.timeout(20.0):
                while not pg_server.execute(listens):  # noqa: ASYNC110 - the server's
                    await asyncio.sleep(0.02)

        return wait


async def test_the_child_of_a_fork_is_refused_and_the_parent_goes_on(store, clock):
    scene = Scene(store, clock)
    await scene.begin()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(refused(store, scene))
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0
    assert await scene.claim() is None
    assert (await scene.find()).state is ClaimState.INTENT


async def refused(store, scene):
    for ask in (scene.claim, scene.find, store.switches.read, store.flush):
        with pytest.raises(StoreUnavailable, match="before a fork"):
            await ask()
    store.begin_soon(new_run("r2", "q2"))
    assert store.lost == 1
    store.close()
