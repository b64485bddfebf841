"""The door: limits, breaker, abandoned threads, and what an attempt holds."""

import asyncio
import threading

import pytest

from interlock.core.calls import Answer, Effect, Stop
from interlock.core.clock import SYSTEM, LoopClock, ManualClock, run_virtual
from interlock.core.errors import CircuitOpen, InterlockError, RateLimited, RunStopped, ToolFailed, ToolTimeout
from interlock.core.reasons import StopReason
from interlock.resilience.admission import BreakerOptions, LimitOptions
from interlock.resilience.failure import Failure
from interlock.resilience.retry import RetryOptions

ONCE = RetryOptions(max_attempts=1)


class Boom(Exception):
    def __init__(self, status=503):
        self.status = status


class Remote:
    """An async tool that answers as told."""

    def __init__(self, outcome=None):
        self.outcome = outcome
        self.calls = 0

    async def __call__(self, **kw):
        self.calls += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def a_remote(tool, outcome=None, **kw):
    remote = Remote(outcome)

    async def fn(**args):
        return await remote(**args)

    return remote, tool(fn, **kw)


async def fail(rig, spec, times):
    for _ in range(times):
        with pytest.raises(ToolFailed):
            await rig(spec)


async def test_the_breaker_opens_and_is_tried_again_after_its_window(make_rig, tool):
    clock = ManualClock()
    rig = make_rig(clock, retry=ONCE, breaker=BreakerOptions(failure_threshold=3, window_seconds=60))
    remote, spec = a_remote(tool, Boom())
    await fail(rig, spec, 3)
    with pytest.raises(CircuitOpen, match=r"tools\.circuit_breakers") as refused:
        await rig(spec)
    assert remote.calls == 3
    assert refused.value.details == {"opens_in_s": 60.0}
    assert refused.value.reason is StopReason.CIRCUIT_OPEN
    assert rig.admission.status() == [
        {"tool": spec.name, "breaker": "open", "opens": 1, "in_flight": 0, "waiting": 0, "abandoned": 0}
    ]
    clock.advance(60)
    assert rig.admission.status()[0]["breaker"] == "half_open"
    await fail(rig, spec, 1)
    with pytest.raises(CircuitOpen):
        await rig(spec)
    clock.advance(60)
    remote.outcome = "fine"
    assert (await rig(spec)).value == "fine"
    assert (await rig(spec)).value == "fine"
    assert rig.admission.status()[0] | {"opens": 2, "breaker": "closed"} == rig.admission.status()[0]


async def test_one_tools_trouble_is_not_anothers(make_rig, tool):
    rig = make_rig(ManualClock(), retry=ONCE, breaker=BreakerOptions(failure_threshold=1))
    _, broken = a_remote(tool, Boom(), name="broken")
    _, fine = a_remote(tool, "fine", name="fine")
    await fail(rig, broken, 1)
    with pytest.raises(CircuitOpen):
        await rig(broken)
    assert (await rig(fine)).value == "fine"
    assert [row["tool"] for row in rig.admission.status()] == ["broken", "fine"]


async def test_all_runs_share_the_breaker(make_rig, tool):
    rig = make_rig(ManualClock(), retry=ONCE, breaker=BreakerOptions(failure_threshold=2))
    _, spec = a_remote(tool, Boom())
    for _ in range(2):
        with pytest.raises(ToolFailed):
            await rig(spec, rig.run())
    with pytest.raises(CircuitOpen):
        await rig(spec, rig.run())


@pytest.mark.parametrize("error", [Boom(404), Boom(422), Boom(401), Boom(409), Boom(429), ValueError("bug")])
async def test_refusals_rate_limits_and_bugs_do_not_open_it(make_rig, tool, error):
    rig = make_rig(ManualClock(), retry=ONCE, breaker=BreakerOptions(failure_threshold=1))
    remote, spec = a_remote(tool, error)
    for _ in range(3):
        with pytest.raises(Exception) as caught:
            await rig(spec)
        assert type(caught.value) is not CircuitOpen
    assert remote.calls == 3


@pytest.mark.parametrize(
    "error", [Boom(500), Boom(501), Boom(504), TimeoutError(), ConnectionResetError(), ConnectionRefusedError()]
)
async def test_trouble_of_the_tool_opens_it(make_rig, tool, error):
    rig = make_rig(ManualClock(), retry=ONCE, breaker=BreakerOptions(failure_threshold=1))
    _, spec = a_remote(tool, error)
    with pytest.raises(InterlockError):
        await rig(spec)
    with pytest.raises(CircuitOpen):
        await rig(spec)


@pytest.mark.parametrize(
    ("error", "state"), [(Boom(404), "closed"), (Boom(429), "half_open"), (ValueError(), "half_open")]
)
async def test_what_a_probe_that_neither_worked_nor_broke_says(make_rig, tool, error, state):
    clock = ManualClock()
    rig = make_rig(clock, retry=ONCE, breaker=BreakerOptions(failure_threshold=1))
    remote, spec = a_remote(tool, Boom())
    await fail(rig, spec, 1)
    clock.advance(60)
    remote.outcome = error
    with pytest.raises(InterlockError):
        await rig(spec)
    assert rig.admission.status()[0]["breaker"] == state
    remote.outcome = "fine"
    assert (await rig(spec)).value == "fine"


def test_half_open_lets_one_call_through_at_a_time(make_rig, tool):
    async def main():
        rig = make_rig(LoopClock(), retry=ONCE, breaker=BreakerOptions(failure_threshold=1, window_seconds=10))
        healed = False

        async def fn():
            if not healed:
                raise Boom
            await asyncio.sleep(1)
            return "fine"

        spec = tool(fn)
        await fail(rig, spec, 1)
        await asyncio.sleep(10)
        healed = True
        outcomes = await asyncio.gather(*(rig(spec) for _ in range(4)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Answer, CircuitOpen, CircuitOpen, CircuitOpen]
        assert (await rig(spec)).value == "fine"

    run_virtual(main())


def test_a_call_that_a_later_guard_refuses_gives_back_what_it_held(make_rig, tool):
    async def main():
        clock = LoopClock()
        rig = make_rig(
            clock, retry=ONCE, limits=LimitOptions(concurrency=1), breaker=BreakerOptions(failure_threshold=1)
        )
        remote, spec = a_remote(tool, Boom())
        await fail(rig, spec, 1)
        await asyncio.sleep(60)

        async def killed(call):
            raise RunStopped(StopReason.KILLED)

        guarded = rig.admission(spec, killed)
        for _ in range(3):
            with pytest.raises(RunStopped):
                await guarded(rig.call(spec))
        assert rig.admission.status()[0]["in_flight"] == 0
        remote.outcome = "fine"
        assert (await rig(spec)).value == "fine", "slot and probe are free"

    run_virtual(main())


def test_concurrency_is_over_all_runs_and_in_order(make_rig, tool):
    async def main():
        rig = make_rig(LoopClock(), limits=LimitOptions(concurrency=2))
        at_once = most = 0
        order = []

        async def fn(n):
            nonlocal at_once, most
            order.append(n)
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(1)
            at_once -= 1
            return n

        spec = tool(fn)
        calls = asyncio.gather(*(rig(spec, rig.run(), {"n": n}) for n in range(6)))
        await asyncio.sleep(0.5)
        assert rig.admission.status()[0]["in_flight"] == 2
        assert rig.admission.status()[0]["waiting"] == 4
        assert [answer.value for answer in await calls] == list(range(6))
        assert (most, order) == (2, list(range(6)))
        assert rig.admission.status()[0]["in_flight"] == 0

    run_virtual(main())


def test_who_would_wait_too_long_is_refused(make_rig, tool):
    async def main():
        clock = LoopClock()
        rig = make_rig(clock, limits=LimitOptions(concurrency=1, max_wait_s=2.0), timeout_s=60)

        async def fn():
            await asyncio.sleep(10)

        spec = tool(fn)
        first = asyncio.ensure_future(rig(spec))
        await asyncio.sleep(0)
        begun = clock.monotonic()
        with pytest.raises(RateLimited, match=r"tools\.limits") as refused:
            await rig(spec)
        assert clock.monotonic() - begun == pytest.approx(2.0)
        assert refused.value.details == {"limited_by": "interlock"}
        with pytest.raises(RateLimited):
            await rig(spec, rig.run(seconds=0.5))
        assert clock.monotonic() - begun == pytest.approx(2.5), "the run's deadline comes first"
        await first

    run_virtual(main())


def test_a_rate_that_cannot_be_met_is_refused_at_once(make_rig, tool):
    async def main():
        clock = LoopClock()
        rig = make_rig(clock, limits=LimitOptions(rate_per_s=0.1, max_wait_s=5.0))
        remote, spec = a_remote(tool, "fine")
        await rig(spec)
        begun = clock.monotonic()
        with pytest.raises(RateLimited):
            await rig(spec)
        assert clock.monotonic() == begun
        await asyncio.sleep(6)
        assert (await rig(spec)).value == "fine"
        assert clock.monotonic() - begun == pytest.approx(10.0)
        assert remote.calls == 2

    run_virtual(main())


@pytest.mark.parametrize("when_s", [0.3, 0.999999])
def test_a_stop_while_waiting_ends_the_call_with_the_stops_reason(make_rig, tool, when_s):
    async def main():
        clock = LoopClock()
        rig = make_rig(clock, limits=LimitOptions(concurrency=1))
        calls = 0

        async def fn():
            nonlocal calls
            calls += 1
            await asyncio.sleep(1)

        spec, run = tool(fn), rig.run()
        first = asyncio.ensure_future(rig(spec))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(when_s, setattr, run, "stop", Stop(StopReason.COST_BUDGET))
        with pytest.raises(RunStopped) as stopped:
            await rig(spec, run)
        assert stopped.value.reason is StopReason.COST_BUDGET
        await first
        assert calls == 1
        assert (await rig(spec)).value is None, "the slot was given back"

    run_virtual(main())


def test_a_breaker_that_opens_meanwhile_refuses_who_waited(make_rig, tool):
    async def main():
        rig = make_rig(
            LoopClock(), retry=ONCE, limits=LimitOptions(concurrency=1), breaker=BreakerOptions(failure_threshold=1)
        )

        async def fn():
            await asyncio.sleep(1)
            raise Boom

        spec = tool(fn)
        outcomes = await asyncio.gather(*(rig(spec) for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ToolFailed, CircuitOpen, CircuitOpen]

    run_virtual(main())


def test_while_the_breaker_is_open_nobody_waits_for_a_slot(make_rig, tool):
    async def main():
        clock = LoopClock()
        rig = make_rig(
            clock, retry=ONCE, limits=LimitOptions(concurrency=1), breaker=BreakerOptions(failure_threshold=1)
        )

        async def fn(works_s):
            await asyncio.sleep(works_s)
            raise Boom

        spec = tool(fn)
        await asyncio.gather(rig(spec, None, {"works_s": 1}), return_exceptions=True)
        slot = rig.admission._gates[spec.name].limiter
        assert slot.try_acquire()
        begun = clock.monotonic()
        with pytest.raises(CircuitOpen):
            await rig(spec, None, {"works_s": 1})
        assert clock.monotonic() == begun

    run_virtual(main())


@pytest.mark.parametrize("ends_well", [True, False])
def test_an_attempt_from_before_it_opened_is_not_the_probe(make_rig, tool, ends_well):
    async def main():
        rig = make_rig(LoopClock(), retry=ONCE, breaker=BreakerOptions(failure_threshold=1, window_seconds=10))

        async def fn(works_s, fails):
            await asyncio.sleep(works_s)
            if fails:
                raise Boom

        spec = tool(fn, timeout_s=100)

        def start(works_s, *, fails):
            return asyncio.ensure_future(rig(spec, None, {"works_s": works_s, "fails": fails}))

        old = start(15, fails=not ends_well)
        await asyncio.gather(start(1, fails=True), return_exceptions=True)
        await asyncio.sleep(11)
        probe = start(8, fails=False)  # from 12 to 20
        await asyncio.wait([old])
        assert rig.admission.status()[0]["breaker"] == "half_open"
        assert rig.admission.status()[0]["opens"] == 1
        await probe
        assert rig.admission.status()[0]["breaker"] == "closed"
        assert not ends_well or old.exception() is None
        assert ends_well or old.exception() is not None

    run_virtual(main())


async def test_observing_refuses_nobody_and_slows_nobody_down(make_rig, tool):
    clock = ManualClock()
    rig = make_rig(clock, retry=ONCE, limits=LimitOptions(concurrency=1), breaker=BreakerOptions(failure_threshold=1))
    remote, spec = a_remote(tool, Boom())
    run = rig.run(observing=True)
    with pytest.raises(Boom):
        await rig(spec, run)
    remote.outcome = "fine"
    call = rig.call(spec, run)
    assert (await rig.fold(spec)(call)).value == "fine"
    assert call.would_have == [StopReason.CIRCUIT_OPEN]
    clock.advance(60)
    assert (await rig(spec, run)).value == "fine"

    entered = asyncio.Event()
    let_go = asyncio.Event()

    async def slow():
        entered.set()
        await let_go.wait()

    other = tool(slow, name="slow")
    both = [asyncio.ensure_future(rig(other, run)) for _ in range(2)]
    await entered.wait()
    let_go.set()
    await asyncio.gather(*both)
    assert [row["in_flight"] for row in rig.admission.status()] == [0, 0]


async def until(condition):
    for _ in range(5000):
        if condition():
            return
        await SYSTEM.sleep(0.001)
    raise AssertionError("it did not happen")


async def test_a_tool_whose_threads_hang_is_refused_until_they_are_free(make_rig, tool):
    let_go, entered = threading.Event(), []

    def hangs():
        entered.append(1)
        let_go.wait(10)

    rig = make_rig(
        SYSTEM, retry=ONCE, timeout_s=0.01, max_abandoned_threads=2, limits=LimitOptions(concurrency=3, max_wait_s=0),
        breaker=BreakerOptions(enabled=False),
    )  # fmt: skip
    spec = tool(hangs)
    for _ in range(2):
        with pytest.raises(ToolTimeout, match="timeout"):
            await rig(spec)
    assert rig.admission.status()[0] == {
        "tool": spec.name, "breaker": None, "opens": 0, "in_flight": 2, "waiting": 0, "abandoned": 2,
    }  # fmt: skip
    with pytest.raises(CircuitOpen, match="threads hang") as refused:
        await rig(spec)
    assert refused.value.details == {"abandoned_threads": 2}
    assert len(entered) == 2
    let_go.set()
    await until(lambda: rig.admission.status()[0]["abandoned"] == 0)
    await until(lambda: rig.admission.status()[0]["in_flight"] == 0)
    assert (await rig(spec)).value is None


async def test_an_abandoned_thread_keeps_its_slot(make_rig, tool):
    let_go = threading.Event()
    rig = make_rig(SYSTEM, retry=ONCE, timeout_s=0.01, limits=LimitOptions(concurrency=1, max_wait_s=0.0))
    spec = tool(lambda: let_go.wait(10))
    with pytest.raises(InterlockError):
        await rig(spec)
    with pytest.raises(RateLimited):
        await rig(spec)
    let_go.set()
    await until(lambda: rig.admission.status()[0]["in_flight"] == 0)
    assert (await rig(spec)).value is True


async def test_a_tool_without_limits_pays_for_nothing(make_rig, tool):
    rig = make_rig(ManualClock(), breaker=BreakerOptions(enabled=False))
    _, spec = a_remote(tool)

    async def next_guard(call):
        raise AssertionError

    assert rig.admission(spec, next_guard) is next_guard
    call = rig.call(spec)
    await rig.admission.admit(call)
    rig.admission.report(call, Failure(StopReason.TOOL_FAILED, "unknown", "x", transient=True))
    rig.admission.release(call)
    assert rig.admission.status()[0]["in_flight"] == 0


@pytest.mark.parametrize(
    "bad",
    [
        (LimitOptions, {"concurrency": 0}),
        (LimitOptions, {"rate_per_s": 0.0}),
        (LimitOptions, {"rate_per_s": float("nan")}),
        (LimitOptions, {"burst": 0}),
        (LimitOptions, {"max_wait_s": -1}),
        (BreakerOptions, {"failure_threshold": 0}),
        (BreakerOptions, {"window_seconds": 0}),
    ],
)
def test_options_that_make_no_sense_are_refused(bad):
    kind, options = bad
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(**options)


def test_a_write_that_waits_for_its_slot_has_no_intent_yet(make_rig, tool):
    """Admission stands outside the claim: what comes after it has not begun."""

    async def main():
        rig = make_rig(LoopClock(), limits=LimitOptions(concurrency=1))
        claimed = []

        async def claim(call):
            claimed.append(call.seq)
            await asyncio.sleep(1)
            return Answer(None)

        async def fn():
            raise AssertionError

        spec = tool(fn, effect=Effect.WRITE)
        guarded = rig.admission(spec, claim)
        both = [asyncio.ensure_future(guarded(rig.call(spec))) for _ in range(2)]
        await asyncio.sleep(0.5)
        assert len(claimed) == 1
        await asyncio.gather(*both)

    run_virtual(main())
