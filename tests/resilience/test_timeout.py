"""One deadline per attempt."""

import asyncio
import gc
import subprocess
import sys

import anyio
import pytest

from interlock.core.calls import Answer, Effect
from interlock.core.clock import LoopClock, run_virtual
from interlock.core.errors import NotPerformed
from interlock.core.reasons import StopReason
from interlock.resilience.timeout import GRACE_S, RunDeadline, Timeout


async def nothing(**kw):
    return 1


def guarded(rig, spec, fn, timeout_s=5.0):
    """Timeout alone, around `fn(call)`."""

    async def perform(call):
        return Answer(await fn())

    return Timeout(lambda tool: timeout_s)(spec, perform)


def attempt(make_rig, tool, fn, *, timeout_s=5.0, effect=Effect.READ, **run):
    """Run one attempt on virtual time; return what came of it and how long it took."""

    async def main():
        rig = make_rig(LoopClock())
        spec = tool(nothing, effect=effect)
        call = rig.call(spec, rig.run(**run))
        begun = asyncio.get_running_loop().time()
        try:
            outcome = (await guarded(rig, spec, fn, timeout_s)(call)).value
        except BaseException as error:
            outcome = error
        task = asyncio.current_task()
        assert task.cancelling() == 0, "its own cancellations are taken back"
        return outcome, asyncio.get_running_loop().time() - begun, call

    return run_virtual(main())


async def hang():
    await asyncio.sleep(3600)


async def quick():
    await asyncio.sleep(4.9)
    return "done"


def test_an_attempt_in_time_is_left_alone(make_rig, tool):
    assert attempt(make_rig, tool, quick)[:2] == ("done", pytest.approx(4.9))


def test_a_timer_does_not_outlive_its_attempt(make_rig, tool):
    async def main():
        rig = make_rig(LoopClock())
        spec = tool(nothing)
        await guarded(rig, spec, quick)(rig.call(spec))
        await asyncio.sleep(60)  # would be cancelled
        return "undisturbed"

    assert run_virtual(main()) == "undisturbed"


def test_an_attempt_that_takes_too_long_is_cut(make_rig, tool):
    error, took_s, _ = attempt(make_rig, tool, hang)
    assert type(error) is TimeoutError
    assert took_s == pytest.approx(5.0)
    assert isinstance(error.__cause__, asyncio.CancelledError)


def test_no_limit_is_no_limit(make_rig, tool):
    assert attempt(make_rig, tool, hang, timeout_s=float("inf"), seconds=float("inf"))[1] == pytest.approx(3600)


def test_the_runs_deadline_cuts_a_read(make_rig, tool):
    error, took_s, _ = attempt(make_rig, tool, hang, seconds=2.0)
    assert type(error) is RunDeadline
    assert took_s == pytest.approx(2.0)


def test_a_write_always_gets_its_full_timeout(make_rig, tool):
    error, took_s, _ = attempt(make_rig, tool, hang, effect=Effect.WRITE, seconds=2.0)
    assert type(error) is TimeoutError
    assert took_s == pytest.approx(5.0)


def test_a_read_begun_after_the_deadline_is_cut_at_once(make_rig, tool):
    error, took_s, _ = attempt(make_rig, tool, hang, seconds=-1.0)
    assert type(error) is RunDeadline
    assert took_s == 0.0


def test_what_the_tool_raises_in_time_is_its_own(make_rig, tool):
    async def fails():
        await asyncio.sleep(1)
        raise KeyError("x")

    assert type(attempt(make_rig, tool, fails)[0]) is KeyError


def test_cleaning_up_after_the_cut_may_take_a_moment(make_rig, tool):
    cleaned = []

    async def tidy():
        try:
            await hang()
        finally:
            await asyncio.sleep(GRACE_S / 2)
            cleaned.append(True)

    error, took_s, _ = attempt(make_rig, tool, tidy)
    assert type(error) is TimeoutError
    assert cleaned == [True]
    assert took_s == pytest.approx(5.0 + GRACE_S / 2)


def test_an_answer_given_while_being_cut_is_an_answer(make_rig, tool):
    async def saves_itself():
        try:
            await hang()
        except asyncio.CancelledError:
            return "ticket 7"

    assert attempt(make_rig, tool, saves_itself)[0] == "ticket 7"


def test_a_failure_while_being_cut_is_the_cut(make_rig, tool):
    async def breaks():
        try:
            await hang()
        finally:
            raise ValueError("while cleaning up")

    error, _, _ = attempt(make_rig, tool, breaks)
    assert type(error) is TimeoutError
    assert type(error.__cause__) is ValueError


def test_proof_that_nothing_happened_survives_the_cut(make_rig, tool):
    async def proves():
        try:
            await hang()
        except asyncio.CancelledError:
            raise NotPerformed from None

    assert type(attempt(make_rig, tool, proves)[0]) is NotPerformed


@pytest.mark.parametrize("swallows", [asyncio.CancelledError, BaseException])
def test_a_tool_that_will_not_stop_is_abandoned(make_rig, tool, swallows):
    async def stubborn():
        while True:
            try:
                await asyncio.sleep(3600)
            except swallows:
                continue

    error, took_s, _ = attempt(make_rig, tool, stubborn)
    assert type(error) is TimeoutError
    assert took_s == pytest.approx(5.0 + GRACE_S)
    gc.collect()  # an abandoned coroutine makes no noise


@pytest.mark.process
def test_the_process_ends_although_a_tool_would_not_stop():
    program = """
import asyncio
from interlock.core.calls import Answer, Call, Effect, RunFacts, ToolSpec
from interlock.core.clock import LoopClock, run_virtual
from interlock.resilience.timeout import Timeout

async def stubborn(call):
    while True:
        try:
            await asyncio.sleep(3600)
        except:
            continue

async def main():
    run = RunFacts()
    run.clock, run.observing, run.deadline_s = LoopClock(), False, float("inf")
    tool = ToolSpec("stubborn", stubborn, True)
    call = Call(run, tool, {}, b"{}", b"", Effect.WRITE, 1, 1, 1)
    try:
        await Timeout(lambda tool: 1.0)(tool, stubborn)(call)
    except TimeoutError:
        print("bye")

run_virtual(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "bye\n"
    assert done.stderr == ""


def test_a_tool_that_spins_without_waiting_for_anything_is_abandoned(make_rig, tool, monkeypatch):
    """On a real clock: it never lets the loop rest."""
    monkeypatch.setattr("interlock.resilience.timeout.GRACE_S", 0.01)

    async def spin():
        while True:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                continue

    async def main():
        rig = make_rig()
        spec = tool(nothing)
        with pytest.raises(TimeoutError):
            await guarded(rig, spec, spin, 0.01)(rig.call(spec))

    asyncio.run(main())


def in_a_task(make_rig, tool, fn, act, *, timeout_s=5.0, effect=Effect.READ):
    async def main():
        rig = make_rig(LoopClock())
        spec = tool(nothing, effect=effect)
        task = asyncio.ensure_future(guarded(rig, spec, fn, timeout_s)(rig.call(spec)))
        await act(task)
        try:
            return (await task).value
        except BaseException as error:
            return error

    return run_virtual(main())


def test_a_cancellation_from_outside_goes_through(make_rig, tool):
    async def cancel(task):
        await asyncio.sleep(1)
        task.cancel()

    assert type(in_a_task(make_rig, tool, hang, cancel)) is asyncio.CancelledError


def test_a_cancellation_from_outside_at_the_moment_of_the_cut_is_not_lost(make_rig, tool):
    async def cancel(task):
        await asyncio.sleep(5.0)
        task.cancel()

    assert type(in_a_task(make_rig, tool, hang, cancel)) is asyncio.CancelledError


def test_a_cancellation_from_outside_during_the_grace_is_not_lost(make_rig, tool):
    async def tidy():
        try:
            await hang()
        finally:
            await asyncio.sleep(GRACE_S / 2)

    async def cancel(task):
        await asyncio.sleep(5.0 + GRACE_S / 4)
        task.cancel()

    assert type(in_a_task(make_rig, tool, tidy, cancel)) is asyncio.CancelledError


def test_a_cancellation_that_the_tool_turns_into_an_error_is_not_lost(make_rig, tool):
    async def hides():
        try:
            await hang()
        except asyncio.CancelledError:
            raise ConnectionError("lost") from None

    async def cancel(task):
        await asyncio.sleep(1)
        task.cancel()

    assert type(in_a_task(make_rig, tool, hides, cancel)) is asyncio.CancelledError


@pytest.mark.parametrize(("effect", "outcome"), [(Effect.READ, asyncio.CancelledError), (Effect.WRITE, str)])
def test_a_cancellation_that_the_tool_swallows_is_lost_only_for_the_answer_of_a_write(make_rig, tool, effect, outcome):
    async def swallows():
        try:
            await hang()
        except asyncio.CancelledError:
            return "ticket 7"

    async def cancel(task):
        await asyncio.sleep(1)
        task.cancel()

    assert type(in_a_task(make_rig, tool, swallows, cancel, effect=effect)) is outcome


def test_a_tool_may_use_timeouts_of_its_own(make_rig, tool):
    async def own():
        try:
            async with asyncio.timeout(2):
                await hang()
        except TimeoutError:
            return "handled"

    assert attempt(make_rig, tool, own)[:2] == ("handled", pytest.approx(2.0))


def test_a_tool_may_use_cancel_scopes_of_anyio(make_rig, tool):
    async def scoped():
        with anyio.move_on_after(2):
            await anyio.sleep(3600)
        return "moved on"

    assert attempt(make_rig, tool, scoped)[:2] == ("moved on", pytest.approx(2.0))

    async def too_long():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 3600)

    error, took_s, _ = attempt(make_rig, tool, too_long)
    assert type(error) is TimeoutError
    assert took_s == pytest.approx(5.0)


def test_inside_a_cancel_scope_of_anyio(make_rig, tool):
    async def main():
        rig = make_rig(LoopClock())
        spec = tool(nothing)
        with anyio.move_on_after(1) as scope:
            await guarded(rig, spec, hang)(rig.call(spec))
        assert asyncio.current_task().cancelling() == 0
        return scope.cancelled_caught

    assert run_virtual(main())


def test_inside_a_timeout_of_somebody_else(make_rig, tool):
    async def main():
        rig = make_rig(LoopClock())
        spec = tool(nothing)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(1):
                await guarded(rig, spec, hang)(rig.call(spec))
        assert asyncio.current_task().cancelling() == 0
        return type(caught.value.__cause__)

    assert run_virtual(main()) is asyncio.CancelledError


def test_the_task_groups_of_a_tool_end_with_it(make_rig, tool):
    ended = []

    async def child():
        try:
            await hang()
        finally:
            ended.append(True)

    async def group():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
            tasks.create_task(child())

    error, _, _ = attempt(make_rig, tool, group)
    assert type(error) is TimeoutError
    assert ended == [True, True]


def test_observing_cuts_nothing_and_says_what_it_would_have_done(make_rig, tool):
    outcome, took_s, call = attempt(make_rig, tool, hang, observing=True, seconds=1.0)
    assert outcome is None
    assert took_s == pytest.approx(3600)
    assert call.would_have == [StopReason.TOOL_TIMEOUT]
    assert attempt(make_rig, tool, quick, observing=True)[2].would_have is None


def test_no_timer_is_armed_for_a_tool_that_does_not_wait(make_rig, tool, monkeypatch):
    async def at_once():
        return 1

    async def main():
        rig = make_rig()
        spec = tool(nothing)
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", None)  # would fail
        return (await guarded(rig, spec, at_once)(rig.call(spec))).value

    assert asyncio.run(main()) == 1


def test_an_attempt_whose_loop_is_torn_down_is_closed(make_rig, tool):
    closed = []

    async def main():
        rig = make_rig()
        spec = tool(nothing)

        async def waits():
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                closed.append(True)

        coroutine = guarded(rig, spec, waits)(rig.call(spec))
        coroutine.send(None)
        coroutine.close()

    asyncio.run(main())
    assert closed == [True]


def test_what_comes_next_need_not_be_a_coroutine(make_rig, tool):
    async def main():
        rig = make_rig()
        spec = tool(nothing)
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, Answer("late"))
        return (await Timeout(lambda tool: 1.0)(spec, lambda call: future)(rig.call(spec))).value

    assert asyncio.run(main()) == "late"
