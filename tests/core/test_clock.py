"""Time and chance: a manual clock stands still, a virtual loop jumps, equal seeds give equal histories."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.clock import SYSTEM, Clock, LoopClock, ManualClock, run_virtual, timed_token


def test_the_manual_clock_moves_only_when_told():
    clock = ManualClock(start_s=10.0, wall_s=1_000.0)
    assert (clock.monotonic(), clock.wall()) == (10.0, 1_000.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.wall()) == (12.5, 1_002.5)


@pytest.mark.parametrize("delta_s", [3_600.0, -3_600.0])
def test_a_jump_of_the_wall_clock_leaves_the_monotonic_one(delta_s):
    clock = ManualClock(start_s=10.0, wall_s=5_000.0)
    clock.jump_wall(delta_s)
    assert (clock.monotonic(), clock.wall()) == (10.0, 5_000.0 + delta_s)


async def test_manual_sleep_moves_the_clock_and_lets_others_run():
    clock = ManualClock(start_s=0.0)
    other = asyncio.ensure_future(asyncio.sleep(0))
    await asyncio.sleep(0)
    await clock.sleep(30.0)
    assert other.done()
    await clock.sleep(-5.0)
    assert clock.monotonic() == 30.0


def history(clock: Clock) -> list[object]:
    return [clock.uniform(0.0, 1.0), clock.token(8), clock.uniform(5.0, 6.0), clock.token(3)]


@given(st.integers(0, 2**32))
def test_equal_seeds_give_equal_histories(seed):
    assert history(ManualClock(seed=seed)) == history(ManualClock(seed=seed))
    assert history(ManualClock(seed=seed)) != history(ManualClock(seed=seed + 1))


@pytest.mark.parametrize("clock", [SYSTEM, ManualClock()], ids=["system", "manual"])
def test_chance_stays_within_its_bounds(clock):
    assert all(2.0 <= clock.uniform(2.0, 3.0) <= 3.0 for _ in range(50))
    tokens = {clock.token(4) for _ in range(50)}
    assert len(tokens) == 50
    assert all(len(token) == 8 and int(token, 16) >= 0 for token in tokens)


def test_identifiers_made_later_sort_later_and_no_two_are_equal():
    clock = ManualClock(wall_s=1_700_000_000.0)
    made = []
    for _ in range(3):
        made.append({timed_token(clock) for _ in range(100)})
        clock.advance(0.001)
    assert [len(tokens) for tokens in made] == [100] * 3
    assert max(made[0]) < min(made[1]) < max(made[1]) < min(made[2])
    assert all(len(token) == 32 and int(token, 16) for tokens in made for token in tokens)
    clock.jump_wall(-3e9)
    assert len(timed_token(clock)) == 32


async def test_the_system_clock_is_the_machines_own():
    before = time.monotonic()
    await SYSTEM.sleep(0)
    assert before <= SYSTEM.monotonic() <= time.monotonic()
    assert abs(SYSTEM.wall() - time.time()) < 60.0


def test_an_hour_of_virtual_time_costs_no_real_time():
    clock = LoopClock(start_s=0.0, wall_s=9_000.0)
    order = []

    async def sleeper(delay_s):
        await clock.sleep(delay_s)
        order.append((delay_s, clock.monotonic()))

    async def main():
        began = clock.monotonic()
        await asyncio.gather(sleeper(3_600.0), sleeper(1.0), sleeper(60.0))
        return clock.monotonic() - began

    began = time.monotonic()
    assert run_virtual(main(), start_s=1_000.0) == 3_600.0
    assert time.monotonic() - began < 30.0
    assert order == [(1.0, 1_001.0), (60.0, 1_060.0), (3_600.0, 4_600.0)]


def test_timers_of_asyncio_and_guards_share_one_time():
    clock = LoopClock()

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await clock.sleep(3_600.0)
        return clock.monotonic()

    assert run_virtual(main(), start_s=100.0) == 105.0


def test_the_wall_clock_goes_with_the_loop_and_may_jump():
    clock = LoopClock(start_s=0.0, wall_s=50.0)

    async def main():
        await clock.sleep(10.0)
        first = clock.wall()
        clock.jump_wall(-20.0)
        return first, clock.wall(), clock.monotonic()

    assert run_virtual(main(), start_s=100.0) == (160.0, 140.0, 110.0)


def test_outside_a_loop_the_last_time_seen_stands():
    clock = LoopClock(start_s=7.0)
    assert clock.monotonic() == 7.0

    async def main():
        await clock.sleep(1.0)
        clock.monotonic()

    run_virtual(main(), start_s=40.0)
    assert clock.monotonic() == 41.0


def test_a_negative_sleep_of_the_loop_returns_at_once():
    clock = LoopClock()

    async def main():
        await clock.sleep(-1.0)
        return clock.monotonic()

    assert run_virtual(main(), start_s=5.0) == 5.0


def test_a_thread_that_answers_is_waited_for_although_nothing_is_due():
    async def main():
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        threading.Timer(0.01, loop.call_soon_threadsafe, (answer.set_result, "from a thread")).start()
        return await answer, loop.time()

    assert run_virtual(main(), start_s=3.0) == ("from a thread", 3.0)


def test_what_main_raises_comes_out():
    async def main():
        await asyncio.sleep(100.0)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        run_virtual(main(), patience_s=0.0)
