"""The decisions about leases: whose a run is, and when its workers have died often enough."""

import math

import pytest

from interlock.core.clock import ManualClock
from interlock.journal.ownership import Lease, left_s, wears_out


def test_a_lease_has_what_is_left_of_it_and_another_boot_ends_it():
    clock = ManualClock()
    until_s = clock.boot() + 5.0
    assert left_s(until_s, "boot", clock.boot(), "boot") == 5.0
    clock.advance(6.0)
    assert left_s(until_s, "boot", clock.boot(), "boot") == -1.0
    assert left_s(until_s + 1e6, "boot", clock.boot(), "another") == -math.inf
    assert left_s(None, None, clock.boot(), "boot") is None


def test_a_wall_clock_that_jumps_neither_ends_nor_prolongs_a_lease():
    clock = ManualClock()
    until_s = clock.boot() + 5.0
    clock.jump_wall(-86_400.0)
    assert left_s(until_s, "boot", clock.boot(), "boot") == 5.0


def test_its_owner_gives_a_lease_up_before_others_may_take_it():
    clock = ManualClock()
    lease = Lease("r1", 1, -math.inf)
    lease.renewed(clock.boot(), 5.0)
    assert clock.boot() < lease.until_s < clock.boot() + 5.0


def test_an_answer_that_comes_late_does_not_shorten_a_lease():
    lease = Lease("r1", 1, -math.inf)
    lease.renewed(1_003.0, 5.0)
    until_s = lease.until_s
    lease.renewed(1_001.0, 5.0)
    assert lease.until_s == until_s


def test_what_is_lost_stays_lost_and_is_told_once():
    told = []
    lease = Lease("r1", 1, math.inf)
    lease.on_lost = lambda: told.append(1)
    lease.lose()
    lease.lose()
    lease.renewed(1_000.0, 5.0)
    assert (lease.lost, lease.until_s, told) == (True, -math.inf, [1])


@pytest.mark.parametrize(
    ("barren", "dead", "before", "now", "then"),
    [(0, True, 0, 0, 1), (4, True, 3, 3, 5), (4, True, 3, 4, 0), (2, False, 3, 3, 2), (2, False, 3, 5, 0)],
)
def test_only_dead_attempts_in_a_row_that_recorded_nothing_new_count(barren, dead, before, now, then):
    assert wears_out(barren, dead=dead, recorded_before=before, recorded=now) == then
