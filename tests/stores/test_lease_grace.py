"""When a lease on a SQLite file may be taken over: the decision alone, on a clock that the test moves."""

import pytest

from interlock.core.clock import ManualClock
from interlock.stores.runs import Holder, may_take_over


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def holder(clock):
    return Holder("me", "this boot", 5.0, clock.boot)


def test_only_after_it_has_run_out(clock, holder):
    until_s = clock.boot() + 5.0
    clock.advance(4.99)
    assert not may_take_over(until_s, "this boot", holder, clock.boot())
    clock.advance(0.01)
    assert may_take_over(until_s, "this boot", holder, clock.boot())


def test_another_boot_ends_it_whatever_it_says(clock, holder):
    assert may_take_over(clock.boot() + 1e9, "another boot", holder, clock.boot())


def test_what_nobody_holds_is_not_taken_from_anybody(clock, holder):
    assert not may_take_over(None, None, holder, clock.boot())


def test_who_waited_long_for_his_turn_lets_the_owner_renew_first(clock, holder):
    """While a stopped process held the file nobody could renew: the owner, who queued before, goes first."""
    until_s, asked_s = clock.boot() + 1.0, clock.boot()
    clock.advance(20.0)
    assert not may_take_over(until_s, "this boot", holder, asked_s)
    assert may_take_over(until_s, "this boot", holder, clock.boot())
