"""Whether a failed attempt is repeated: the pure decision."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.calls import OnUnknown
from interlock.core.reasons import StopReason
from interlock.resilience.failure import Failure
from interlock.resilience.retry import LONGEST_WAIT_S, GiveUp, RetryOptions, Wait, decide


def http(status, performed="unknown", **kw):
    return Failure(StopReason.TOOL_FAILED, performed, f"http_{status}", status=status, transient=True, **kw)


LIMITED = Failure(StopReason.TOOL_RATE_LIMIT, "no", "http_429", status=429, transient=True)
REFUSED = Failure(StopReason.TOOL_FAILED, "no", "connect_refused", transient=True)
TIMED_OUT = Failure(StopReason.TOOL_TIMEOUT, "unknown", "read_timeout", transient=True)
BROKEN = Failure(StopReason.TOOL_FAILED, "unknown", "exception")


def ask(failure, options=None, attempt=1, **kw):
    given = {
        "write": False,
        "closes_by": OnUnknown.STOP,
        "now_s": 100.0,
        "deadline_s": 1000.0,
        "retries_used": 0,
        "draw": 1.0,
    } | kw
    return decide(options or RetryOptions(max_attempts=3), attempt, failure, **given)


@pytest.mark.parametrize("failure", [http(500), http(502), http(503), http(504), LIMITED, REFUSED, TIMED_OUT])
def test_a_read_is_repeated_after_what_passes(failure):
    assert ask(failure) == Wait(0.25)


def test_nothing_is_repeated_after_what_does_not_pass():
    assert ask(BROKEN) == GiveUp("not_transient")
    assert ask(BROKEN, write=True, closes_by=OnUnknown.RESEND) == GiveUp("not_transient")


@pytest.mark.parametrize("failure", [http(500), http(502), http(503), TIMED_OUT])
@pytest.mark.parametrize("closes_by", [OnUnknown.STOP, OnUnknown.TELL, OnUnknown.LOOKUP])
def test_a_write_whose_outcome_is_unknown_is_not_sent_again(failure, closes_by):
    assert ask(failure, write=True, closes_by=closes_by) == GiveUp("unknown_outcome")


@pytest.mark.parametrize("failure", [http(503), TIMED_OUT])
def test_a_write_is_sent_again_where_the_remote_deduplicates(failure):
    assert ask(failure, write=True, closes_by=OnUnknown.RESEND) == Wait(0.25)


@pytest.mark.parametrize("failure", [LIMITED, REFUSED])
@pytest.mark.parametrize("closes_by", list(OnUnknown))
def test_any_write_that_was_not_performed_may_be_sent_again(failure, closes_by):
    assert ask(failure, write=True, closes_by=closes_by) == Wait(0.25)


def test_retryable_status_narrows():
    article = RetryOptions(max_attempts=2, retryable_status=frozenset({429, 500, 503, 504}))
    assert ask(http(502), article) == GiveUp("status")
    assert ask(http(503), article) == Wait(0.25)
    assert ask(TIMED_OUT, article) == Wait(0.25), "no status, nothing to narrow"


def test_retryable_status_never_widens():
    generous = RetryOptions(retryable_status=frozenset({404, 502}))
    not_found = Failure(StopReason.TOOL_FAILED, "no", "http_404", status=404)
    assert ask(not_found, generous) == GiveUp("not_transient")
    assert ask(http(502), generous, write=True) == GiveUp("unknown_outcome")


def test_max_attempts_counts_the_first():
    assert ask(LIMITED, RetryOptions(max_attempts=1)) == GiveUp("attempts")
    assert ask(LIMITED, RetryOptions(max_attempts=2)) == Wait(0.25)
    assert ask(LIMITED, RetryOptions(max_attempts=2), attempt=2) == GiveUp("attempts")


def test_max_retries_caps_the_tool_over_the_run():
    options = RetryOptions(max_attempts=9, max_retries=2)
    assert ask(LIMITED, options, retries_used=1) == Wait(0.25)
    assert ask(LIMITED, options, retries_used=2) == GiveUp("max_retries")


@pytest.mark.parametrize(("attempt", "ceiling_s"), [(1, 0.25), (2, 0.75), (3, 2.0), (4, 2.0), (7, 2.0)])
def test_the_wait_is_full_jitter_below_its_ceiling(attempt, ceiling_s):
    options = RetryOptions(max_attempts=10)
    assert ask(LIMITED, options, attempt=attempt) == Wait(ceiling_s)
    assert ask(LIMITED, options, attempt=attempt, draw=0.5) == Wait(ceiling_s / 2)
    assert ask(LIMITED, options, attempt=attempt, draw=0.0) == Wait(0.0)


def test_no_backoff_is_no_wait():
    assert ask(LIMITED, RetryOptions(backoff_ms=())) == Wait(0.0)
    assert ask(LIMITED, RetryOptions(backoff_ms=(0,))) == Wait(0.0)


def test_never_sooner_than_the_remote_asks():
    asked = http(503, retry_after_s=7.0)
    assert ask(asked, draw=0.0) == Wait(7.0)
    assert ask(http(503, retry_after_s=0.1)) == Wait(0.25)


def test_a_retry_after_beyond_the_deadline_gives_up_saying_so():
    asked = http(503, retry_after_s=900.0)
    assert ask(asked) == GiveUp("retry_after")
    assert ask(asked, deadline_s=1000.1) == Wait(900.0)


def test_without_a_deadline_nobody_waits_for_days():
    assert ask(http(503, retry_after_s=LONGEST_WAIT_S), deadline_s=math.inf) == Wait(LONGEST_WAIT_S)
    assert ask(http(503, retry_after_s=86_400.0), deadline_s=math.inf) == GiveUp("retry_after")


def test_nothing_after_the_deadline():
    assert ask(LIMITED, now_s=1000.0) == GiveUp("deadline")
    assert ask(LIMITED, now_s=999.9) == GiveUp("deadline")
    assert ask(LIMITED, now_s=999.7) == Wait(0.25)


def test_the_defaults():
    assert RetryOptions() == RetryOptions(3, frozenset({429, 500, 502, 503, 504}), (250, 750, 2000), None)


@pytest.mark.parametrize(
    "bad", [{"max_attempts": 0}, {"backoff_ms": (-1,)}, {"backoff_ms": (math.nan,)}, {"max_retries": -1}]
)
def test_options_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match="at least"):
        RetryOptions(**bad)


failures = st.builds(
    Failure,
    st.sampled_from(StopReason),
    st.sampled_from(["no", "unknown"]),
    st.just("x"),
    status=st.none() | st.integers(400, 599),
    retry_after_s=st.none() | st.floats(0.0, 1e6),
    transient=st.booleans(),
)


@given(
    failures,
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from(OnUnknown),
    st.floats(0.0, 2000.0),
    st.integers(0, 5),
    st.floats(0.0, 1.0),
)
def test_a_yes_is_always_safe_allowed_and_in_time(failure, attempt, write, closes_by, now_s, used, draw):
    options = RetryOptions(max_attempts=4, max_retries=3)
    verdict = ask(
        failure, options, attempt, write=write, closes_by=closes_by, now_s=now_s, retries_used=used, draw=draw
    )
    if isinstance(verdict, Wait):
        assert failure.transient
        assert failure.performed == "no" or not write or closes_by is OnUnknown.RESEND
        assert failure.status is None or failure.status in options.retryable_status
        assert attempt < 4
        assert used < 3
        assert now_s + verdict.delay_s < 1000.0
        assert verdict.delay_s >= (failure.retry_after_s or 0.0)
        assert verdict.delay_s <= max(2.0, failure.retry_after_s or 0.0)
