"""When a run's time is over, over several attempts: seconds at work, its age, and an absolute deadline."""

from __future__ import annotations

import pytest

from interlock.budget.loops import LoopOptions
from interlock.budget.meter import BudgetOptions
from interlock.core.clock import ManualClock
from interlock.journal.store import RunRow, RunState
from interlock.policy.allowlist import Policy, PolicyOptions
from interlock.supervisor.requests import RunRequest
from interlock.supervisor.scopes import ScopeMaker


@pytest.fixture
def clock():
    return ManualClock()


def maker(clock, **budgets):
    options = BudgetOptions(**budgets)
    policy = Policy(PolicyOptions(allow=None))
    return ScopeMaker(clock, policy, LoopOptions(), lambda _: options, observing=False, trace_kept=10)


def row(started_at, used_s):
    of_it = ("r1", "acme", "q1", "agent", RunState.RUNNING, None, None, 2, 2, 0, "r1", "", started_at)
    kept = {"ended_at": None, "record": None, "output": None, "output_kept": False, "task": None}
    return RunRow(*of_it, **kept, lease_left_s=None, barren=0, used_s=used_s, spent_usd=0.0, spent_tokens=0)


def left_s(scope, clock):
    return scope.deadline_s - clock.monotonic()


def later(clock, scopes, *, waits_s, used_s, **words):
    """Open a run, and enter it again `waits_s` later, after an attempt of `used_s`; return the seconds left then."""
    began_at = clock.wall()
    request = RunRequest("agent", "x", tenant_id="acme", request_id="q1", **words)
    clock.advance(waits_s)
    scope, _ = scopes.root(request)
    scopes.go_on(scope, row(began_at, used_s))
    return left_s(scope, clock)


def test_seconds_count_only_while_somebody_works_on_it(clock):
    assert later(clock, maker(clock, max_seconds=100), waits_s=5_000, used_s=30) == pytest.approx(70)


def test_its_age_counts_whoever_works_on_it(clock):
    assert later(clock, maker(clock, max_seconds=100, max_age_s=200), waits_s=150, used_s=30) == pytest.approx(50)
    assert later(clock, maker(clock, max_seconds=100, max_age_s=200), waits_s=500, used_s=30) < 0


def test_an_absolute_deadline_stays_where_it_is(clock):
    deadline = clock.wall() + 500
    left = later(clock, maker(clock, max_seconds=None), waits_s=150, used_s=30, deadline=deadline)
    assert left == pytest.approx(350)


def test_the_nearest_of_them_counts(clock):
    scope, _ = maker(clock, max_seconds=300, max_age_s=200).root(RunRequest("agent", deadline=clock.wall() + 100))
    assert left_s(scope, clock) == pytest.approx(100)


def test_a_child_ends_with_its_parent_at_the_latest(clock):
    scopes = maker(clock, max_seconds=300)
    parent, _ = scopes.root(RunRequest("agent"))
    for own, wanted in (({"max_age_s": 10}, 10), ({"max_seconds": 20}, 20), ({"max_age_s": 900}, 300)):
        child, _ = scopes.child(parent, "child", own, None)
        assert left_s(child, clock) == pytest.approx(wanted)
