"""The breaker: opens on too many failures within its window, probes once, closes or opens again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.resilience.breaker import Breaker, BreakerState


def opened(threshold=3, window_s=60.0, at=100.0, **kw):
    breaker = Breaker(threshold, window_s, **kw)
    for _ in range(threshold):
        breaker.failure(at)
    return breaker


def test_opens_at_the_threshold_and_not_before():
    breaker = Breaker(3, 60.0)
    breaker.failure(0.0)
    breaker.failure(1.0)
    assert breaker.allow(1.0)
    assert breaker.state(1.0) is BreakerState.CLOSED
    breaker.failure(2.0)
    assert not breaker.allow(2.0)
    assert breaker.state(2.0) is BreakerState.OPEN
    assert breaker.opens == 1


def test_failures_outside_the_window_do_not_add_up():
    breaker = Breaker(3, 60.0)
    for at in (0.0, 30.0, 60.0, 90.0, 120.0):
        breaker.failure(at)
    assert breaker.closed
    breaker.failure(149.0)  # 90, 120 and 149 lie within 60 s
    assert not breaker.closed


def test_a_success_between_failures_does_not_wipe_them_out():
    breaker = Breaker(2, 60.0)
    breaker.failure(0.0)
    breaker.success(1.0)
    breaker.failure(2.0)
    assert not breaker.closed


def test_one_probe_after_the_cool_down_and_its_success_closes():
    breaker = opened()
    assert not breaker.allow(159.9)
    assert breaker.opens_in_s(130.0) == 30.0
    assert breaker.state(160.0) is BreakerState.HALF_OPEN
    assert breaker.allow(160.0)
    assert not breaker.allow(160.0), "only one probe at a time"
    breaker.success(161.0)
    assert breaker.state(161.0) is BreakerState.CLOSED
    assert breaker.opens_in_s(161.0) == 0.0
    breaker.failure(162.0)
    breaker.failure(163.0)
    assert breaker.closed, "failures from before the cool-down are forgotten"


def test_failures_from_before_it_opened_do_not_count_once_it_is_closed_again():
    breaker = opened(cooldown_s=10.0)
    assert breaker.allow(110.0)
    breaker.success(111.0)
    breaker.failure(112.0)
    breaker.failure(113.0)
    assert breaker.closed, "within the window there are five, but three are settled"
    breaker.failure(114.0)
    assert not breaker.closed


def test_a_probe_may_pass_in_no_negative_time():
    assert opened(at=100.0).opens_in_s(500.0) == 0.0


def test_while_a_probe_is_out_the_next_may_pass_a_cool_down_later():
    breaker = opened(cooldown_s=10.0)
    assert breaker.allow(110.0)
    assert breaker.opens_in_s(113.0) == 7.0
    breaker.release(114.0)
    assert breaker.opens_in_s(114.0) == 0.0


def test_a_failed_probe_opens_for_a_whole_cool_down_again():
    breaker = opened(cooldown_s=10.0)
    assert breaker.allow(110.0)
    breaker.failure(112.0)
    assert breaker.opens == 2
    assert not breaker.allow(121.9)
    assert breaker.allow(122.0)


def test_a_probe_without_verdict_makes_room_for_the_next():
    breaker = opened(cooldown_s=10.0)
    assert breaker.allow(110.0)
    breaker.release(111.0)
    assert breaker.ready(111.0)
    assert breaker.allow(111.0)


def test_ready_does_not_take_the_probe():
    breaker = opened(cooldown_s=10.0)
    assert breaker.ready(110.0)
    assert breaker.allow(110.0)
    assert not breaker.ready(110.0)


def test_a_probe_that_never_comes_back_does_not_close_the_door_for_ever():
    breaker = opened(cooldown_s=10.0)
    assert breaker.allow(110.0)
    assert not breaker.allow(119.9)
    assert breaker.allow(120.0)


def test_verdicts_of_attempts_begun_before_it_opened_change_nothing():
    breaker = opened(cooldown_s=10.0)
    breaker.success(101.0, probe=False)
    assert not breaker.closed
    assert breaker.allow(110.0)
    breaker.failure(111.0, probe=False)
    breaker.success(111.0, probe=False)
    assert breaker.state(111.0) is BreakerState.HALF_OPEN
    assert breaker.opens == 1
    breaker.release(111.0, probe=False)
    assert not breaker.allow(112.0), "the probe is still out"


def test_a_verdict_without_a_probe_out_is_no_verdict():
    breaker = opened(cooldown_s=10.0)
    breaker.success(105.0)
    breaker.failure(105.0)
    assert not breaker.closed
    assert breaker.opens == 1
    assert breaker.allow(110.0)


@pytest.mark.parametrize("bad", [(0, 60.0, None), (3, 0.0, None), (3, 60.0, 0.0), (3, -1.0, None), (3, 60.0, -1.0)])
def test_options_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match="breaker"):
        Breaker(*bad)


Event = st.tuples(st.sampled_from(["call_ok", "call_fails", "call_released", "idle"]), st.floats(0.0, 40.0))


@given(st.lists(Event, max_size=60), st.integers(1, 4))
def test_no_call_passes_while_open_and_it_always_recovers(events, threshold):
    breaker, now, opened_at = Breaker(threshold, 30.0), 0.0, None
    for event, dt in events:
        now += dt
        if event == "idle":
            continue
        allowed = breaker.allow(now)
        assert allowed == (opened_at is None or now >= opened_at + 30.0)
        if not allowed:
            continue
        opens = breaker.opens
        {"call_ok": breaker.success, "call_fails": breaker.failure, "call_released": breaker.release}[event](now)
        if breaker.opens > opens:
            opened_at = now
        if breaker.closed:
            opened_at = None
    assert breaker.allow(now + 30.0)
    breaker.success(now + 30.0)
    assert breaker.closed
