"""The attempts of a call: how many, when, and what they came to."""

import asyncio
import gc
import threading
import weakref

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core import errors
from interlock.core.calls import Effect, OnUnknown, Stop
from interlock.core.clock import SYSTEM, LoopClock, ManualClock, run_virtual
from interlock.core.reasons import StopReason
from interlock.resilience.admission import BreakerOptions, LimitOptions
from interlock.resilience.retry import RetryOptions


class Http(Exception):
    def __init__(self, status, **headers):
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Remote:
    """Answers with each outcome in turn, the last one for ever; raises those that are exceptions."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.calls = 0
        self.at = []

    async def __call__(self, **kw):
        self.calls += 1
        self.at.append(asyncio.get_running_loop().time())
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def go(make_rig, tool, remote, *, run=None, patch=None, spec=None, **rig_options):
    """Run one call on virtual time; return what came of it, the call, and the rig."""

    async def main():
        rig = make_rig(LoopClock(), **rig_options)

        async def fn(**kw):
            return await remote(**kw)

        the_tool = tool(fn, **({"effect": Effect.READ} | (spec or {})))
        call = rig.call(the_tool, rig.run(**(run or {})))
        if patch:
            patch(call)
        try:
            outcome = (await rig.fold(the_tool)(call)).value
        except BaseException as error:
            outcome = error
        assert call.permit is None
        assert rig.admission.status()[0]["in_flight"] == 0
        return outcome, call, rig

    return run_virtual(main(), start_s=0.0)


THREE = RetryOptions(max_attempts=3)
WRITE = {"effect": Effect.WRITE}
RESEND = WRITE | {"on_unknown": OnUnknown.RESEND}


def test_a_call_that_works_is_made_once(make_rig, tool):
    remote = Remote("fine")
    outcome, call, _ = go(make_rig, tool, remote, retry=THREE)
    assert (outcome, remote.calls, call.attempts, call.unknown, call.evidence) == ("fine", 1, 1, False, None)
    assert call.run.retries == {}


def test_a_read_is_repeated_and_the_failed_attempts_are_on_record(make_rig, tool):
    remote = Remote(Http(503), TimeoutError(), "fine")
    outcome, call, rig = go(make_rig, tool, remote, retry=THREE)
    assert (outcome, remote.calls, call.attempts) == ("fine", 3, 3)
    assert call.run.retries == {"ticket.create": 2}
    first, second = call.evidence
    assert first.pop("at") <= second.pop("at") <= rig.clock.wall()
    assert first == {"attempt": 1, "kind": "http_503", "performed": "unknown", "status": 503}
    assert second == {"attempt": 2, "kind": "timeout", "performed": "unknown"}


def test_in_the_end_the_last_failure_is_raised_with_its_cause(make_rig, tool):
    last = Http(502)
    outcome, call, _ = go(make_rig, tool, Remote(Http(503), last), retry=RetryOptions(max_attempts=2))
    assert type(outcome) is errors.ToolFailed
    assert outcome.__cause__ is last
    assert outcome.details == {
        "raised": "Http", "kind": "http_502", "performed": "unknown", "attempts": 2, "status": 502, "gave_up": "attempts",
    }  # fmt: skip
    assert "may have" not in outcome.for_model, "a read has no effect to worry about"
    assert call.attempts == 2


def test_a_bug_in_the_tool_is_named_with_its_place_and_without_content(make_rig, tool):
    class Buggy(Remote):
        async def __call__(self, **kw):
            raise KeyError("customer 4711")

    outcome, _, _ = go(make_rig, tool, Buggy(), retry=THREE)
    line = Buggy.__call__.__code__.co_firstlineno + 1
    assert str(outcome) == f"ticket.create: raised KeyError at test_retry.py:{line} (1 attempt)"
    assert outcome.details["at"] == f"test_retry.py:{line}"
    assert outcome.for_model == "The tool failed."
    outcome, _, _ = go(make_rig, tool, Remote(SystemExit(3)))
    assert outcome.details["raised"] == "SystemExit"


def test_the_waits_are_jittered_below_their_ceilings_and_grow(make_rig, tool):
    remote = Remote(Http(503))
    go(make_rig, tool, remote, retry=RetryOptions(max_attempts=40, backoff_ms=(100, 1000)))
    waits = [after - before for before, after in zip(remote.at, remote.at[1:], strict=False)]
    assert waits[0] <= 0.1
    assert max(waits) <= 1.0 + 1e-9
    assert max(waits) > 0.5
    assert min(waits[1:]) < 0.3, "full jitter: from 0"


def test_retry_after_is_honoured_in_seconds_and_as_a_date(make_rig, tool):
    date = {"retry_after": "Sun, 22 Nov 2026 10:00:09 GMT", "Date": "Sun, 22 Nov 2026 10:00:00 GMT"}
    remote = Remote(Http(429, retry_after="7"), Http(503, **date), "fine")
    assert go(make_rig, tool, remote, retry=THREE)[0] == "fine"
    assert remote.at == pytest.approx([0.0, 7.0, 16.0])


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_beyond_the_deadline_is_a_rate_limit(make_rig, tool, status):
    remote = Remote(Http(status, retry_after="100"))
    outcome, _, _ = go(make_rig, tool, remote, run={"seconds": 60})
    assert type(outcome) is errors.RateLimited
    assert outcome.reason is StopReason.TOOL_RATE_LIMIT
    assert "max_seconds" in str(outcome)
    assert remote.at == [0.0], "it does not wait in vain"
    assert ("not executed" in outcome.for_model) == (status == 429)


def test_no_attempt_starts_after_the_deadline(make_rig, tool):
    remote = Remote(Http(503))
    outcome, _, _ = go(make_rig, tool, remote, run={"seconds": 0.1}, retry=RetryOptions(max_attempts=99))
    assert outcome.details["gave_up"] == "deadline"
    assert all(at < 0.1 for at in remote.at)
    late = Remote("fine")
    outcome, call, _ = go(make_rig, tool, late, run={"seconds": 0.0}, spec=WRITE)
    assert type(outcome) is errors.BudgetExceeded
    assert outcome.reason is StopReason.TIME_BUDGET
    assert (late.calls, call.attempts, call.unknown) == (0, 0, False)


def test_max_retries_is_over_all_calls_of_the_tool_in_a_run(make_rig, tool):
    remote = Remote(Http(503))
    options = RetryOptions(max_attempts=9, max_retries=3)
    outcome, call, _ = go(
        make_rig, tool, remote, retry=options, patch=lambda call: call.run.retries.update({"ticket.create": 2, "x": 9})
    )
    assert remote.calls == 2
    assert outcome.details["gave_up"] == "max_retries"
    assert 'tools.budgets."ticket.create".max_retries' in str(outcome)
    assert call.run.retries == {"ticket.create": 3, "x": 9}


def test_one_retry_of_a_run_is_one_retry(make_rig, tool):
    remote = Remote(Http(503))
    go(make_rig, tool, remote, retry=RetryOptions(max_attempts=9, max_retries=1))
    assert remote.calls == 2


def test_the_articles_file_does_not_repeat_a_502(make_rig, tool):
    remote = Remote(Http(502))
    options = RetryOptions(2, frozenset({429, 500, 503, 504}), (250, 750, 2000))
    outcome, _, _ = go(make_rig, tool, remote, retry=options)
    assert remote.calls == 1
    assert "tools.retries.retryable_status leaves 502 out" in str(outcome)


@pytest.mark.parametrize("on_unknown", [OnUnknown.STOP, OnUnknown.TELL, OnUnknown.LOOKUP])
@pytest.mark.parametrize("error", [Http(500), Http(503), TimeoutError(), httpx.ReadTimeout("x"), ValueError("bug")])
def test_a_write_whose_outcome_is_unknown_is_not_sent_again(make_rig, tool, on_unknown, error):
    remote = Remote(error, "fine")
    outcome, call, _ = go(make_rig, tool, remote, retry=THREE, spec=WRITE | {"on_unknown": on_unknown})
    assert (remote.calls, call.unknown) == (1, True)
    assert "may have happened" in outcome.for_model
    assert outcome.details["performed"] == "unknown"


@pytest.mark.parametrize("error", [Http(429), ConnectionRefusedError(), httpx.ConnectError("x")])
def test_any_write_that_was_not_performed_is_sent_again(make_rig, tool, error):
    remote = Remote(error, "fine")
    outcome, call, _ = go(make_rig, tool, remote, retry=THREE, spec=WRITE)
    assert (outcome, remote.calls, call.unknown) == ("fine", 2, False)
    assert call.evidence[0]["performed"] == "no"


@pytest.mark.parametrize(
    "spec", [RESEND, WRITE | {"natural": True}, WRITE | {"natural": True, "on_unknown": OnUnknown.LOOKUP}]
)
def test_a_write_that_may_be_repeated_is_sent_again_with_the_same_key(make_rig, tool, spec):
    remote = Remote(Http(503), "fine")
    outcome, call, _ = go(make_rig, tool, remote, retry=THREE, spec=spec)
    assert (outcome, remote.calls) == ("fine", 2)
    assert call.sent_key == "il1_key"
    assert call.unknown, "the first attempt's outcome stays unknown: only the answer closes it"


def test_one_unknown_attempt_is_enough(make_rig, tool):
    remote = Remote(Http(503), Http(422))
    outcome, call, _ = go(make_rig, tool, remote, retry=THREE, spec=RESEND)
    assert call.unknown
    assert outcome.details["performed"] == "unknown"
    assert "may have happened" in outcome.for_model
    assert "not executed" not in outcome.for_model


def test_a_write_that_was_never_performed_says_so(make_rig, tool):
    outcome, call, _ = go(make_rig, tool, Remote(Http(429)), retry=THREE, spec=WRITE)
    assert not call.unknown
    assert "not executed" in outcome.for_model
    assert [entry["performed"] for entry in call.evidence] == ["no"] * 3


def test_the_tools_own_reading_of_a_status_decides(make_rig, tool):
    remote = Remote(Http(500))
    _, call, _ = go(make_rig, tool, remote, retry=THREE, spec=WRITE | {"outcome": {500: "not_performed"}})
    assert (remote.calls, call.unknown) == (3, False)


def test_what_is_not_performed_for_good_is_not_repeated(make_rig, tool):
    remote = Remote(errors.NotPerformed("no such customer"))
    outcome, call, _ = go(make_rig, tool, remote, retry=THREE, spec=WRITE)
    assert (remote.calls, call.unknown) == (1, False)
    assert "not executed" in outcome.for_model


def test_an_invalid_output_is_never_repeated_and_is_no_unknown(make_rig, tool):
    invalid = errors.ToolOutputInvalid("ticket.create", [])
    remote = Remote(invalid)
    outcome, call, rig = go(
        make_rig, tool, remote, retry=THREE, spec=RESEND, breaker=BreakerOptions(failure_threshold=1)
    )
    assert outcome is invalid
    assert (remote.calls, call.unknown) == (1, False)
    assert call.evidence[0]["performed"] == "yes"
    assert rig.admission.status()[0]["breaker"] == "closed"


@pytest.mark.parametrize(
    "inner",
    [errors.ToolDenied("no"), errors.RunStopped(StopReason.KILLED), errors.ToolOutputInvalid("other.tool", [])],
)
def test_a_refusal_inside_the_tool_goes_up_as_it_is_and_leaves_the_write_unknown(make_rig, tool, inner):
    remote = Remote(inner)
    outcome, call, _ = go(make_rig, tool, remote, retry=THREE, spec=RESEND)
    assert outcome is inner
    assert (remote.calls, call.unknown) == (1, True)


def test_safe_mode_makes_one_attempt(make_rig, tool):
    remote = Remote(Http(503))
    outcome, _, _ = go(make_rig, tool, remote, retry=THREE, calm=lambda: True)
    assert remote.calls == 1
    assert outcome.details["gave_up"] == "safe_mode"


def test_before_every_attempt_somebody_is_asked(make_rig, tool):
    asked = []

    async def later():
        asked.append("awaited")

    def before_attempt(call):
        asked.append(call.attempts)
        return later() if call.attempts != 1 else None

    go(make_rig, tool, Remote(Http(503), Http(503), "fine"), retry=THREE, before_attempt=before_attempt)
    assert asked == [0, "awaited", 1, 2, "awaited"]


@pytest.mark.parametrize("error", [errors.RunStopped(StopReason.KILLED), errors.LeaseLost()])
def test_a_kill_or_a_lost_lease_before_a_later_attempt_stops_it(make_rig, tool, error):
    def before_attempt(call):
        if call.attempts:
            raise error

    remote = Remote(Http(503), "fine")
    outcome, call, _ = go(make_rig, tool, remote, retry=THREE, spec=RESEND, before_attempt=before_attempt)
    assert outcome is error
    assert (remote.calls, call.attempts, call.unknown) == (1, 1, True)


def test_a_kill_before_the_first_attempt_sends_nothing(make_rig, tool):
    def before_attempt(call):
        raise errors.RunStopped(StopReason.KILLED)

    remote = Remote("fine")
    outcome, call, _ = go(make_rig, tool, remote, spec=WRITE, before_attempt=before_attempt)
    assert outcome.reason is StopReason.KILLED
    assert (remote.calls, call.attempts, call.unknown, call.evidence) == (0, 0, False, None)


def stop_after(seconds):
    def patch(call):
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, setattr, call.run, "stop", Stop(StopReason.COST_BUDGET))

    return patch


def test_a_stop_ends_a_long_wait_soon(make_rig, tool):
    async def main():
        rig = make_rig(LoopClock())
        remote = Remote(Http(429, retry_after="600"))

        async def fn():
            return await remote()

        spec = tool(fn)
        call = rig.call(spec)
        stop_after(3.0)(call)
        with pytest.raises(errors.RateLimited) as failed:
            await rig.fold(spec)(call)
        assert failed.value.details["gave_up"] == "stopped"
        assert rig.clock.monotonic() <= 3.3
        assert remote.calls == 1

    run_virtual(main(), start_s=0.0)


def test_no_further_attempt_once_a_stop_is_decided(make_rig, tool):
    remote = Remote(Http(503), "fine")
    outcome, call, _ = go(make_rig, tool, remote, patch=lambda call: setattr(call.run, "stop", Stop(StopReason.KILLED)))
    assert remote.calls == 1
    assert outcome.details["gave_up"] == "stopped"
    assert call.run.retries == {}


def test_the_breaker_ends_the_attempts_and_the_failure_is_told(make_rig, tool):
    remote = Remote(Http(503))
    outcome, _, _ = go(
        make_rig, tool, remote, retry=RetryOptions(max_attempts=9), breaker=BreakerOptions(failure_threshold=2)
    )
    assert remote.calls == 2
    assert type(outcome) is errors.ToolFailed
    assert outcome.details["gave_up"] == "circuit_open"


def test_a_later_attempt_that_works_as_the_probe_closes_the_breaker(make_rig, tool):
    async def main():
        rig = make_rig(LoopClock(), retry=THREE, breaker=BreakerOptions(failure_threshold=1, window_seconds=10))
        remote = Remote(Http(503), Http(429), "fine")

        async def fn():
            return await remote()

        spec = tool(fn)
        with pytest.raises(errors.ToolFailed):
            await rig(spec)
        await asyncio.sleep(10)
        assert (await rig(spec)).value == "fine"
        assert remote.calls == 3
        assert rig.admission.status()[0]["breaker"] == "closed"

    run_virtual(main())


def test_later_attempts_wait_for_their_turn(make_rig, tool):
    async def main():
        rig = make_rig(LoopClock(), retry=THREE, limits=LimitOptions(rate_per_s=1.0, burst=1))
        remote = Remote(Http(503), Http(503), "fine")

        async def fn():
            return await remote()

        await rig(tool(fn))
        return remote.at

    assert run_virtual(main(), start_s=0.0) == pytest.approx([0.0, 1.0, 2.0])


def test_the_slot_is_free_during_the_wait(make_rig, tool):
    async def main():
        rig = make_rig(LoopClock(), limits=LimitOptions(concurrency=1))
        limited, other = Remote(Http(429, retry_after="50"), "late"), Remote("at once")

        async def fn(which):
            return await which()

        spec = tool(fn)
        first = asyncio.ensure_future(rig(spec, None, {"which": limited}))
        await asyncio.sleep(1)
        assert (await rig(spec, None, {"which": other})).value == "at once"
        assert (await first).value == "late"
        assert limited.at == pytest.approx([0.0, 50.0])

    run_virtual(main(), start_s=0.0)


async def until(condition):
    for _ in range(5000):
        if condition():
            return
        await SYSTEM.sleep(0.001)
    raise AssertionError("it did not happen")


async def test_a_sync_tool_still_at_work_is_not_called_again(make_rig, tool):
    let_go, calls = threading.Event(), []

    def hangs():
        calls.append(1)
        let_go.wait(10)
        return "late"

    rig = make_rig(SYSTEM, retry=RetryOptions(max_attempts=3, backoff_ms=()), timeout_s=0.02)
    spec = tool(hangs, effect=Effect.WRITE, natural=True)
    call = rig.call(spec)
    with pytest.raises(errors.ToolTimeout) as failed:
        await rig.fold(spec)(call)
    assert failed.value.details["gave_up"] == "still_running"
    assert (calls, call.unknown) == ([1], True)
    let_go.set()
    assert await call.late == "late"


async def test_no_attempt_starts_beside_one_that_is_still_at_work(make_rig, tool):
    """As after a lookup that says no too soon."""
    let_go, calls = threading.Event(), []

    def hangs():
        calls.append(1)
        let_go.wait(10)

    rig = make_rig(SYSTEM, timeout_s=0.02)
    spec = tool(hangs, effect=Effect.WRITE)
    call, folded = rig.call(spec), rig.fold(spec)
    with pytest.raises(errors.ToolTimeout):
        await folded(call)
    call.unknown = False
    with pytest.raises(errors.ToolTimeout) as refused:
        await folded(call)
    assert refused.value.details["gave_up"] == "still_running"
    assert "may have happened" in refused.value.for_model
    assert (calls, call.attempts, call.unknown) == ([1], 1, True)
    let_go.set()
    await call.late
    await folded(call)
    assert calls == [1, 1]


async def test_a_job_that_found_no_thread_is_tried_again(make_rig, tool):
    let_go = threading.Event()
    rig = make_rig(SYSTEM, retry=RetryOptions(max_attempts=2, backoff_ms=()), timeout_s=0.05, max_threads=1)
    busy = rig.pool.submit(let_go.wait, {"timeout": 10}, "busy")
    spec = tool(lambda: "never")
    call = rig.call(spec)
    with pytest.raises(errors.ToolTimeout) as failed:
        await rig.fold(spec)(call)
    assert (call.attempts, call.unknown) == (2, False)
    assert "not executed" in failed.value.for_model
    assert rig.admission.status()[0]["breaker"] == "closed"
    let_go.set()
    await busy


def test_a_cancellation_goes_through_and_leaves_a_write_unknown(make_rig, tool):
    async def main():
        rig = make_rig(LoopClock(), retry=THREE, breaker=BreakerOptions(failure_threshold=1))

        async def fn():
            await asyncio.sleep(3600)

        spec = tool(fn, effect=Effect.WRITE, on_unknown=OnUnknown.RESEND)
        call = rig.call(spec)
        task = asyncio.ensure_future(rig.fold(spec)(call))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert call.unknown
        assert [entry["kind"] for entry in call.evidence] == ["cancelled"]
        assert rig.admission.status()[0]["breaker"] == "closed", "the tool is not to blame"
        assert rig.admission.status()[0]["in_flight"] == 0

    run_virtual(main())


def test_a_cancellation_during_the_wait_is_no_new_unknown(make_rig, tool):
    async def main():
        rig = make_rig(LoopClock())
        remote = Remote(Http(429, retry_after="60"))

        async def fn():
            return await remote()

        spec = tool(fn, effect=Effect.WRITE)
        call = rig.call(spec)
        task = asyncio.ensure_future(rig.fold(spec)(call))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (call.unknown, call.attempts, remote.calls) == (False, 1, 1)

    run_virtual(main())


def test_observing_makes_one_attempt_and_leaves_the_tools_error_alone(make_rig, tool):
    error = Http(503)
    remote = Remote(error)
    outcome, call, _ = go(make_rig, tool, remote, retry=THREE, run={"observing": True, "seconds": -5.0}, spec=WRITE)
    assert outcome is error
    assert (remote.calls, call.unknown) == (1, True)
    assert call.evidence[0]["kind"] == "http_503"


def test_a_read_cut_by_the_runs_deadline_ends_as_the_time_budget(make_rig, tool):
    class Slow(Remote):
        async def __call__(self, **kw):
            await asyncio.sleep(3600)

    outcome, _, rig = go(
        make_rig, tool, Slow(), run={"seconds": 2.0}, retry=THREE, breaker=BreakerOptions(failure_threshold=1)
    )
    assert type(outcome) is errors.BudgetExceeded
    assert outcome.reason is StopReason.TIME_BUDGET
    assert rig.admission.status()[0]["breaker"] == "closed"


def test_a_timeout_names_its_setting(make_rig, tool):
    class Slow(Remote):
        async def __call__(self, **kw):
            self.calls += 1
            await asyncio.sleep(3600)

    remote = Slow()
    outcome, _, _ = go(make_rig, tool, remote, retry=RetryOptions(max_attempts=2), timeout_s=5)
    assert type(outcome) is errors.ToolTimeout
    assert 'tools.timeouts_s."ticket.create"' in str(outcome)
    assert remote.calls == 2


def test_a_second_pass_through_the_guard_counts_its_attempts_afresh(make_rig, tool):
    """As after a lookup that says no: the call goes on counting, the allowance starts again."""
    remote = Remote(Http(429))

    async def main():
        rig = make_rig(LoopClock(), retry=RetryOptions(max_attempts=2))

        async def fn():
            return await remote()

        spec = tool(fn)
        call, folded = rig.call(spec), rig.fold(spec)
        for _ in range(2):
            with pytest.raises(errors.RateLimited):
                await folded(call)
        assert (remote.calls, call.attempts) == (4, 4)
        assert [entry["attempt"] for entry in call.evidence] == [1, 2, 3, 4]

    run_virtual(main())


async def test_a_manual_clock_needs_no_time_at_all(make_rig, tool):
    remote = Remote(Http(429, retry_after="120"), "fine")

    async def fn():
        return await remote()

    clock = ManualClock()
    begun = clock.monotonic()
    assert (await make_rig(clock)(tool(fn))).value == "fine"
    assert clock.monotonic() - begun == pytest.approx(120.0)


async def test_a_failure_keeps_nothing_alive(make_rig, tool):
    """No cycle: what the error carries (a response, say) goes when the error goes, not when the collector comes."""

    class Response:
        pass

    gone = []

    async def fn():
        error = Http(503)
        error.payload = Response()
        gone.append(weakref.ref(error.payload))
        try:
            raise error
        finally:
            del error

    rig = make_rig(ManualClock(), retry=THREE)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(errors.ToolFailed):
            await rig(tool(fn))
        await asyncio.sleep(0)
        assert [ref() for ref in gone] == [None] * 3
    finally:
        gc.enable()


OUTCOMES = {
    "fine": lambda: "fine",
    "429": lambda: Http(429),
    "429 later": lambda: Http(429, retry_after="2"),
    "503": lambda: Http(503),
    "422": lambda: Http(422),
    "409": lambda: Http(409),
    "refused": ConnectionRefusedError,
    "reset": ConnectionResetError,
    "bug": lambda: ValueError("x"),
    "proof": errors.NotPerformed,
}
HARMLESS = {"429", "429 later", "422", "refused", "proof"}


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=6),
    st.sampled_from([Effect.READ, Effect.WRITE]),
    st.sampled_from(OnUnknown),
    st.integers(1, 5),
    st.none() | st.integers(0, 3),
    st.floats(0.01, 6.0),
)
def test_whatever_the_remote_does_no_unknown_is_repeated_or_laundered(
    make_rig, tool, script, effect, on_unknown, max_attempts, max_retries, seconds
):
    remote = Remote(*(OUTCOMES[name]() for name in script))
    outcome, call, _ = go(
        make_rig,
        tool,
        remote,
        run={"seconds": seconds},
        spec={"effect": effect, "on_unknown": on_unknown},
        retry=RetryOptions(max_attempts, max_retries=max_retries),
    )
    seen = [script[min(i, len(script) - 1)] for i in range(remote.calls)]
    failed = [name for name in seen if name != "fine"]
    assert call.attempts == remote.calls <= max_attempts
    assert max_retries is None or remote.calls - 1 <= max_retries
    assert all(at < seconds for at in remote.at)
    assert [entry["performed"] for entry in call.evidence or []] == [
        "no" if name in HARMLESS else "unknown" for name in failed
    ]
    assert call.unknown == any(name not in HARMLESS for name in failed)
    if effect is Effect.WRITE and on_unknown is not OnUnknown.RESEND:
        assert all(name in HARMLESS for name in seen[:-1]), "sent again after an unknown"
    assert (outcome == "fine") == (seen[-1] == "fine")
    if outcome != "fine":
        assert isinstance(outcome, errors.InterlockError)
        assert outcome.details["performed"] == ("unknown" if call.unknown else "no")
        assert outcome.__cause__ is not None
