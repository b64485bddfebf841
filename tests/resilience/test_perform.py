"""The tool itself: async ones are awaited, sync ones run in threads of our own."""

import asyncio
import contextvars
import subprocess
import sys
import threading

import pytest

from interlock.core.calls import Effect
from interlock.core.clock import SYSTEM
from interlock.resilience.threads import ToolExit, ToolThreads
from interlock.resilience.timeout import NeverStarted, NotStartedInTime

where = contextvars.ContextVar("where", default="nowhere")


async def attempt(rig, spec, args=None):
    """Timeout around perform."""
    call = rig.call(spec, args=args)
    return await rig.timeout(spec, rig.perform(spec))(call), call


@pytest.fixture
def blocked():
    """A sync tool that waits until it is let go, and how often it was entered."""

    class Blocked:
        def __init__(self):
            self.let_go = threading.Event()
            self.entered = threading.Semaphore(0)
            self.count = 0

        def __call__(self, **kw):
            self.count += 1
            self.entered.release()
            self.let_go.wait(10)
            return "late"

    tool = Blocked()
    yield tool
    tool.let_go.set()


async def until(condition):
    for _ in range(5000):
        if condition():
            return
        await SYSTEM.sleep(0.001)
    raise AssertionError("it did not happen")


async def test_async_and_sync_tools_get_their_arguments(make_rig, tool):
    async def add(a, b):
        return a + b

    def subtract(a, b):
        return a - b

    rig = make_rig(SYSTEM)
    assert (await attempt(rig, tool(add), {"a": 3, "b": 2}))[0].value == 5
    answer, call = await attempt(rig, tool(subtract), {"a": 3, "b": 2})
    assert answer.value == 1
    assert call.late is None


async def test_the_key_is_passed_to_who_takes_it(make_rig, tool):
    async def create(title, *, idempotency_key):
        return title, idempotency_key

    def create_sync(title, *, idempotency_key):
        return title, idempotency_key

    rig = make_rig(SYSTEM)
    for fn in (create, create_sync):
        args = {"title": "x", "idempotency_key": "of the model"}
        answer, call = await attempt(rig, tool(fn, effect=Effect.WRITE, takes_key=True), args)
        assert answer.value == ("x", "il1_key")
        assert call.args["idempotency_key"] == "of the model", "the call's own arguments are left alone"


async def test_sync_tools_see_the_callers_context_and_not_its_thread(make_rig, tool):
    def look():
        return where.get(), threading.current_thread()

    where.set("inside the run")
    (seen, thread), _ = (await attempt(make_rig(SYSTEM), tool(look)))[0].value, None
    assert seen == "inside the run"
    assert thread is not threading.main_thread()
    assert thread.daemon


@pytest.mark.parametrize("error", [ValueError, KeyError, OSError, StopIteration, StopAsyncIteration])
async def test_a_tools_exception_comes_out(make_rig, tool, error):
    def fails():
        raise error("x")

    async def fails_async():
        raise error("x")

    async def fails_with_key(*, idempotency_key):
        raise error("x")

    rig = make_rig(SYSTEM)
    for fn in (fails, fails_async, fails_with_key):
        with pytest.raises(Exception) as caught:
            await attempt(rig, tool(fn, takes_key=fn is fails_with_key))
        assert error in {type(caught.value), type(caught.value.__cause__)}


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
async def test_what_only_a_program_may_raise_is_a_failure_of_the_tool(make_rig, tool, error):
    def fails():
        raise error

    async def fails_async():
        raise error

    async def fails_with_key(*, idempotency_key):
        raise error

    rig = make_rig(SYSTEM)
    for fn in (fails, fails_async, fails_with_key):
        with pytest.raises(ToolExit, match=error.__name__) as caught:
            await attempt(rig, tool(fn, takes_key=fn is fails_with_key))
        assert type(caught.value.__cause__) is error
    assert (await attempt(rig, tool(lambda: "alive")))[0].value == "alive"


async def test_a_real_cancellation_stays_one(make_rig, tool):
    async def waits():
        await asyncio.Event().wait()

    task = asyncio.create_task(attempt(make_rig(SYSTEM), tool(waits)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_sync_tool_that_outlives_its_timeout_answers_late(make_rig, tool, blocked):
    rig = make_rig(SYSTEM, timeout_s=0.01)
    spec = tool(blocked)
    call = rig.call(spec)
    with pytest.raises(TimeoutError):
        await rig.timeout(spec, rig.perform(spec))(call)
    assert not call.late.done()
    assert rig.pool.abandoned(spec.name) == 1
    blocked.let_go.set()
    assert await call.late == "late"
    await until(lambda: rig.pool.abandoned(spec.name) == 0)


async def test_a_cancelled_caller_leaves_the_late_answer_behind(make_rig, tool, blocked):
    rig = make_rig(SYSTEM)
    spec = tool(blocked)
    call = rig.call(spec)
    task = asyncio.ensure_future(rig.timeout(spec, rig.perform(spec))(call))
    await until(lambda: blocked.count)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    blocked.let_go.set()
    assert await call.late == "late"


async def test_a_late_failure_that_nobody_asks_for_is_no_noise(make_rig, tool, caplog):
    let_go = threading.Event()

    def fails():
        let_go.wait(10)
        raise ValueError("late")

    rig = make_rig(SYSTEM, timeout_s=0.01)
    with pytest.raises(TimeoutError):
        await attempt(rig, tool(fails))
    let_go.set()
    await until(lambda: rig.pool.abandoned("ticket.create") == 0)
    await asyncio.sleep(0)
    import gc

    gc.collect()
    assert not caplog.records


async def test_a_job_that_had_no_thread_in_time_is_never_entered(make_rig, tool, blocked):
    rig = make_rig(SYSTEM, timeout_s=0.05, max_threads=1)
    entered = []
    busy = rig.pool.submit(blocked, {}, "busy")
    await until(lambda: blocked.count)
    spec = tool(lambda: entered.append(1))
    call = rig.call(spec)
    with pytest.raises(NotStartedInTime):
        await rig.timeout(spec, rig.perform(spec))(call)
    assert call.late is None
    assert rig.pool.abandoned(spec.name) == 0
    blocked.let_go.set()
    await busy
    assert (await attempt(rig, tool(lambda: "next")))[0].value == "next"
    assert entered == []


async def test_a_job_that_was_cancelled_before_its_turn_is_never_entered(make_rig, tool, blocked):
    rig = make_rig(SYSTEM, max_threads=1)
    entered = []
    busy = rig.pool.submit(blocked, {}, "busy")
    task = asyncio.ensure_future(attempt(rig, tool(lambda: entered.append(1))))
    direct = rig.pool.submit(lambda: entered.append(2), {}, "agent")
    await until(lambda: blocked.count and len(rig.pool._queue) == 2)
    task.cancel()
    direct.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value, NeverStarted)
    blocked.let_go.set()
    await busy
    assert await rig.pool.submit(lambda: "next", {}, "next") == "next"
    assert entered == []


async def test_where_no_thread_can_be_started_nothing_is_left_to_wait_for(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    pool = ToolThreads()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            pool.submit(lambda: 1, {}, "t")
    gate = threading.Event()
    first = pool.submit(gate.wait, {"timeout": 10}, "t")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        second = pool.submit(lambda: "after the first", {}, "t")
    gate.set()
    assert await first
    assert await second == "after the first"


async def test_threads_are_reused_and_capped_and_jobs_keep_their_order():
    pool = ToolThreads(max_threads=3)
    at_once, most, order, lock = 0, 0, [], threading.Lock()
    gate = threading.Event()

    def job(n):
        nonlocal at_once, most
        with lock:
            order.append(n)
            at_once += 1
            most = max(most, at_once)
        gate.wait(10)
        with lock:
            at_once -= 1
        return threading.get_ident()

    jobs = [pool.submit(job, {"n": n}, "t") for n in range(12)]
    await until(lambda: at_once == 3)
    gate.set()
    idents = await asyncio.gather(*jobs)
    assert most == 3
    assert len(set(idents)) == 3
    assert sorted(order) == list(range(12))
    assert set(order[:3]) == {0, 1, 2}


async def test_one_after_the_other_needs_one_thread():
    pool = ToolThreads()
    idents = set()
    for _ in range(20):
        idents.add(await pool.submit(threading.get_ident, {}, "t"))
        await until(lambda: pool._idle)
    assert len(idents) == 1


async def test_abandoned_threads_make_room_for_others(blocked):
    pool = ToolThreads(max_threads=2)
    stuck = [pool.submit(blocked, {}, "hangs") for _ in range(2)]
    await until(lambda: blocked.count == 2)
    waiting = pool.submit(lambda: "through", {}, "other")
    for future in stuck:
        pool.abandon("hangs", future)
        pool.abandon("hangs", future)  # once is enough
    assert pool.abandoned("hangs") == 2
    assert pool.abandoned("other") == 0
    assert await waiting == "through"
    freed = []
    pool.when_free(stuck[0], lambda: freed.append(0))
    assert freed == []
    blocked.let_go.set()
    await asyncio.gather(*stuck)
    await until(lambda: pool.abandoned("hangs") == 0 and freed == [0])
    pool.when_free(stuck[1], lambda: freed.append(1))
    assert freed == [0, 1], "it is free already"
    await until(lambda: pool._threads <= 2)


async def test_a_future_of_somebody_else_is_free_when_it_is_done():
    future, freed = asyncio.get_running_loop().create_future(), []
    ToolThreads().when_free(future, lambda: freed.append(1))
    assert freed == []
    future.set_result(None)
    await asyncio.sleep(0)
    assert freed == [1]


def test_several_loops_share_the_threads():
    pool = ToolThreads(max_threads=2)

    async def many():
        return await asyncio.gather(*(pool.submit(lambda n: n, {"n": n}, "t") for n in range(50)))

    results = []
    loops = [threading.Thread(target=lambda: results.append(asyncio.run(many()))) for _ in range(4)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(10)
    assert results == [list(range(50))] * 4


def test_an_answer_after_its_loop_has_gone_hurts_nobody(blocked):
    pool = ToolThreads()

    async def leave():
        pool.submit(blocked, {}, "t")
        await until(lambda: blocked.count)

    asyncio.run(leave())
    blocked.let_go.set()

    async def again():
        return await pool.submit(lambda: "alive", {}, "t")

    assert asyncio.run(again()) == "alive"


@pytest.mark.process
def test_the_process_ends_although_a_tool_hangs():
    program = """
import asyncio, threading
from interlock.resilience.threads import ToolThreads
pool = ToolThreads()
async def main():
    pool.submit(threading.Event().wait, {}, "hangs")
    await pool.submit(lambda: None, {}, "quick")
asyncio.run(main())
print("bye")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "bye\n"
    assert done.stderr == ""


async def test_nothing_of_a_job_stays_behind():
    import gc
    import weakref

    class Thing:
        pass

    pool, thing = ToolThreads(), Thing()
    gone = weakref.ref(thing)
    await pool.submit(lambda thing: None, {"thing": thing}, "t")
    del thing
    await until(lambda: pool._idle)
    gc.collect()
    assert gone() is None
