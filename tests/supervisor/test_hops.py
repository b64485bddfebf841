"""A thread's short work on the run's loop: done at once where it waits for nothing, else as a task; its errors come back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars

import pytest

from interlock.supervisor.bridge import Bridge

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


def in_a_thread(work):
    bridge = Bridge(asyncio.get_running_loop())
    return asyncio.to_thread(lambda: bridge.hop(work()))


async def test_work_that_waits_for_nothing_needs_no_task():
    async def work():
        return asyncio.current_task(), NAME.get()

    NAME.set("ann")
    assert await in_a_thread(work) == (None, "ann")


async def test_work_that_waits_goes_on_as_a_task():
    opened = asyncio.Event()

    async def work():
        await asyncio.sleep(0)
        await opened.wait()
        return asyncio.current_task() is not None

    asyncio.get_running_loop().call_later(0.01, opened.set)
    assert await in_a_thread(work)


@pytest.mark.parametrize("waits", [False, True])
async def test_its_error_is_the_callers(waits):
    async def work():
        if waits:
            await asyncio.sleep(0)
        raise KeyError("no")

    with pytest.raises(KeyError, match="no"):
        await in_a_thread(work)


async def test_work_may_answer_an_error_of_what_it_waits_for():
    async def work():
        failed = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(failed.set_exception, OSError("disk"))
        try:
            await failed
        except OSError as error:
            return str(error)

    assert await in_a_thread(work) == "disk"


async def test_a_task_that_is_cancelled_tells_its_thread():
    async def work():
        asyncio.get_running_loop().call_soon(cancel)
        await asyncio.Event().wait()

    def cancel():
        mine = asyncio.current_task(loop)
        for task in asyncio.all_tasks(loop):
            if task is not mine and task.get_coro().__name__ == "_going_on":
                task.cancel()

    def in_the_thread():
        with pytest.raises(concurrent.futures.CancelledError):  # as of any work that a thread waits for
            Bridge(loop).hop(work())

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(in_the_thread)


async def test_on_the_loop_itself_it_is_awaited():
    async def work():
        return 1

    assert await Bridge(asyncio.get_running_loop()).hop(work()) == 1


def test_a_closed_loop_is_said_and_the_work_closed():
    loop = asyncio.new_event_loop()
    loop.close()

    async def work():
        return 1

    with pytest.raises(RuntimeError, match="closed"):
        Bridge(loop).hop(work())
