"""Rate and concurrency: pure bucket, then the queue over several loops."""

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.clock import SYSTEM, LoopClock, ManualClock, run_virtual
from interlock.resilience.limiter import Limiter, TokenBucket


def test_a_burst_then_the_rate():
    bucket = TokenBucket(2.0, 3)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_s(0.0) == 0.5
    assert not bucket.take(0.49)
    assert bucket.take(0.5)
    assert bucket.wait_s(0.5, ahead=2) == 1.5


def test_tokens_do_not_pile_up_beyond_the_burst():
    bucket = TokenBucket(10.0, 2)
    assert bucket.take(0.0)
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]


def test_a_clock_that_goes_back_grants_nothing():
    bucket = TokenBucket(1.0, 1)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.5)
    assert bucket.take(101.0)


def test_a_token_given_back_can_be_taken():
    bucket = TokenBucket(1.0, 1)
    assert bucket.take(0.0)
    bucket.give_back()
    assert bucket.take(0.0)
    bucket.give_back()
    bucket.give_back()
    assert [bucket.take(0.0), bucket.take(0.0)] == [True, False]
    bucket = TokenBucket(1.0, 3)
    assert [bucket.take(0.0) for _ in range(3)] == [True] * 3
    bucket.give_back()
    assert [bucket.take(0.0) for _ in range(2)] == [True, False]


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=80), st.floats(0.1, 20.0), st.integers(1, 5))
def test_never_more_than_the_burst_and_the_rate(gaps, rate, burst):
    bucket, now, taken = TokenBucket(rate, burst), 0.0, []
    for gap in gaps:
        now += gap
        wait_s = bucket.wait_s(now)
        assert bucket.take(now) == (wait_s == 0.0)
        if wait_s == 0.0:
            taken.append(now)
        else:
            assert bucket.wait_s(now + wait_s) == 0.0, "the promised wait is enough"
            now += wait_s
    for i, first in enumerate(taken):
        for j in range(i, len(taken)):
            assert j - i + 1 <= burst + rate * (taken[j] - first) + 1e-6


@pytest.mark.parametrize("bad", [(0.0, 1), (-1.0, 1), (1.0, 0), (float("nan"), 1)])
def test_rates_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match="token bucket"):
        TokenBucket(*bad)


def never():
    return False


def test_slots_are_granted_in_order_of_arrival():
    async def main():
        limiter = Limiter(2, None, None, LoopClock())
        order = []

        async def call(n):
            assert await limiter.acquire(float("inf"), 0.25, never)
            order.append((n, asyncio.get_running_loop().time()))
            await asyncio.sleep(1)
            limiter.release()

        async with asyncio.TaskGroup() as tasks:
            for n in range(6):
                tasks.create_task(call(n))
        assert limiter.waiting == 0
        return order

    order = run_virtual(main(), start_s=0.0)
    assert [n for n, _ in order] == list(range(6))
    assert [at for _, at in order] == pytest.approx([0, 0, 1, 1, 2, 2])


def test_the_rate_is_kept_exactly_however_many_wait():
    async def main():
        limiter = Limiter(None, 10.0, 1, LoopClock())
        at = []

        async def call():
            assert await limiter.acquire(float("inf"), 0.25, never)
            at.append(asyncio.get_running_loop().time())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(30):
                tasks.create_task(call())
        return at

    assert run_virtual(main(), start_s=0.0) == pytest.approx([n / 10 for n in range(30)], abs=1e-6)


async def test_a_clock_that_only_its_own_sleep_moves_is_waited_on_too():
    clock = ManualClock()
    limiter = Limiter(None, 20.0, 1, clock)
    assert limiter.try_acquire()
    begun = clock.monotonic()
    assert await limiter.acquire(begun + 60.0, 0.25, never)
    assert clock.monotonic() - begun == pytest.approx(0.05)


def test_a_newcomer_does_not_overtake():
    async def main():
        limiter = Limiter(1, None, None, LoopClock())
        assert limiter.try_acquire()
        waiting = asyncio.ensure_future(limiter.acquire(float("inf"), 0.25, never))
        await asyncio.sleep(0)
        limiter.release()  # granted to who waits, before he has even woken
        assert not limiter.try_acquire()
        assert await waiting

    run_virtual(main())


def test_who_gives_up_leaves_the_queue():
    async def main():
        clock = LoopClock()
        limiter = Limiter(1, None, None, clock)
        assert limiter.try_acquire()
        begun = clock.monotonic()
        first = asyncio.ensure_future(limiter.acquire(begun + 1.1, 0.25, never))
        second = asyncio.ensure_future(limiter.acquire(begun + 5.0, 0.25, never))
        assert not await first
        assert clock.monotonic() == pytest.approx(begun + 1.1)
        limiter.release()
        assert await second
        assert clock.monotonic() == pytest.approx(begun + 1.1)
        assert limiter.waiting == 0

    run_virtual(main())


def test_a_stop_ends_the_wait_within_a_check():
    async def main():
        clock, stopped = LoopClock(), []
        limiter = Limiter(1, None, None, clock)
        assert limiter.try_acquire()
        asyncio.get_running_loop().call_later(1.1, stopped.append, True)
        begun = clock.monotonic()
        assert not await limiter.acquire(begun + 60.0, 0.25, lambda: bool(stopped))
        return clock.monotonic() - begun

    assert run_virtual(main()) <= 1.1 + 0.25 + 1e-6


def test_a_cancelled_waiter_takes_nothing_with_him():
    async def main():
        limiter = Limiter(1, 1000.0, 1000, LoopClock())
        assert limiter.try_acquire()
        waiting = asyncio.ensure_future(limiter.acquire(float("inf"), 0.25, never))
        granted = asyncio.ensure_future(limiter.acquire(float("inf"), 0.25, never))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        limiter.release()
        granted.cancel()  # it has been granted, and does not know yet
        await asyncio.wait([granted])
        assert waiting.cancelled()
        assert granted.cancelled()
        assert limiter.waiting == 0
        assert limiter.try_acquire()

    run_virtual(main())


def test_what_a_cancelled_waiter_was_granted_goes_to_the_next_at_once():
    async def main():
        clock = LoopClock()
        limiter = Limiter(1, None, None, clock)
        assert limiter.try_acquire()
        granted = asyncio.ensure_future(limiter.acquire(float("inf"), 60.0, never))
        following = asyncio.ensure_future(limiter.acquire(float("inf"), 60.0, never))
        await asyncio.sleep(1)
        begun = clock.monotonic()
        limiter.release()
        granted.cancel()
        assert await following
        last = asyncio.ensure_future(limiter.acquire(float("inf"), 60.0, never))
        await asyncio.sleep(0)
        limiter.undo()
        assert await last
        assert clock.monotonic() == begun

    run_virtual(main())


@pytest.mark.parametrize("bad", [(0, None, None), (None, 0.0, None), (None, 1.0, 0)])
def test_limits_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match="at least 1"):
        Limiter(*bad, LoopClock())


def test_undo_gives_slot_and_token_back():
    limiter = Limiter(1, 0.001, 1, LoopClock())
    assert limiter.try_acquire()
    assert not limiter.try_acquire()
    limiter.release()
    assert not limiter.try_acquire(), "the token is spent"
    limiter = Limiter(1, 0.001, 1, LoopClock())
    assert limiter.try_acquire()
    limiter.undo()
    assert limiter.try_acquire()


def test_least_wait_counts_who_waits_already():
    async def main():
        limiter = Limiter(None, 1.0, 1, LoopClock())
        assert limiter.least_wait_s() == 0.0
        assert limiter.try_acquire()
        assert limiter.least_wait_s() == pytest.approx(1.0)
        waiting = asyncio.ensure_future(limiter.acquire(float("inf"), 0.25, never))
        await asyncio.sleep(0)
        assert limiter.least_wait_s() == pytest.approx(2.0)
        assert await waiting

    run_virtual(main())
    assert Limiter(1, None, None, LoopClock()).least_wait_s() == 0.0


def test_waiters_of_several_loops_share_the_slots():
    limiter = Limiter(2, None, None, SYSTEM)
    lock, at_once, most, done = threading.Lock(), 0, 0, 0

    async def call():
        nonlocal at_once, most, done
        assert await limiter.acquire(float("inf"), 0.25, never)
        with lock:
            at_once += 1
            most = max(most, at_once)
        await asyncio.sleep(0)
        with lock:
            at_once -= 1
            done += 1
        limiter.release()

    async def many():
        await asyncio.gather(*(call() for _ in range(25)))

    loops = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(4)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(10)
    assert (done, most) == (100, 2)
    assert limiter.waiting == 0


def test_a_waiter_whose_loop_has_gone_holds_nobody_up():
    limiter = Limiter(1, None, None, SYSTEM)
    assert limiter.try_acquire()
    loop = asyncio.new_event_loop()
    coroutine = limiter.acquire(float("inf"), 0.25, never)
    task = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False
    loop.close()
    assert limiter.waiting == 1

    async def live():
        waiting = asyncio.ensure_future(limiter.acquire(float("inf"), 0.25, never))
        await asyncio.sleep(0)
        limiter.release()
        return await waiting

    assert asyncio.run(live())
    assert limiter.waiting == 0
    coroutine.close()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 2.0), st.floats(0.1, 3.0), st.booleans()), min_size=1, max_size=25
    ),
    st.integers(1, 3),
)
def test_whatever_comes_and_goes_slots_are_neither_lost_nor_made(calls, concurrency):
    """Calls arrive, wait with patience, work, and some are cancelled half-way."""

    async def main():
        clock = LoopClock()
        limiter = Limiter(concurrency, None, None, clock)
        held = most = 0

        async def call(arrives_s, works_s, patience_s):
            nonlocal held, most
            await asyncio.sleep(arrives_s)
            if not await limiter.acquire(clock.monotonic() + patience_s, 0.25, never):
                return
            held += 1
            most = max(most, held)
            try:
                await asyncio.sleep(works_s)
            finally:
                held -= 1
                limiter.release()

        tasks = [asyncio.ensure_future(call(*times)) for *times, _ in calls]
        await asyncio.sleep(1.0)
        for task, (*_, cancelled) in zip(tasks, calls, strict=True):
            if cancelled:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= concurrency
        assert limiter.waiting == 0
        assert [limiter.try_acquire() for _ in range(concurrency + 1)] == [True] * concurrency + [False]

    run_virtual(main())
