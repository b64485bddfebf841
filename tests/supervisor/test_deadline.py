"""When a run's time is up it stops, and its turns under way are cut: by one timer, and without losing a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from interlock.supervisor.deadline import Cut, Deadline
from interlock.supervisor.stopping import TIME_IS_UP


async def turn(cut_of, lifted):
    cut = cut_of()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError as error:
        lifted.append(cut.lift(error))
        if not lifted[-1]:
            raise


async def test_the_deadline_stops_the_run_and_cuts_every_turn_under_way():
    stops, lifted = [], []
    deadline = Deadline(asyncio.get_running_loop(), 0.0, stops.append)
    await asyncio.gather(*(turn(deadline.cut, lifted) for _ in range(3)))
    assert (stops, lifted, deadline.cuts) == ([TIME_IS_UP], [True] * 3, set())


async def test_a_turn_that_ended_in_time_is_left_alone_and_leaves_no_timer():
    deadline = Deadline(asyncio.get_running_loop(), 60.0, [].append)
    cut = deadline.cut()
    assert not cut.lift(None)
    assert deadline.cuts == set()
    deadline.cancel()
    alone = Cut(0.0)
    assert not alone.lift(None)
    await asyncio.sleep(0)  # the timer that was called off would cancel this task


@pytest.mark.parametrize("by_us", [False, True])
async def test_whoever_else_cancels_the_task_is_not_told_that_the_time_was_up(by_us):
    lifted, deadline = [], Deadline(asyncio.get_running_loop(), 60.0, lambda stop: None)
    task = asyncio.create_task(turn(deadline.cut, lifted))
    await asyncio.sleep(0)
    task.cancel()
    if by_us:
        next(iter(deadline.cuts)).fire()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lifted == [False]
    deadline.cancel()
