"""Any schedule of faults over at most 40 calls: one effect per intent, a named end within budget, a whole record.

Hypothesis draws the agent (turns, batches, lanes side by side), its caps, the slowness of its tools and the faults, and
shrinks what fails to the plan that it prints. `INTERLOCK_PROOF_SEED=<seed>` begins with the chunk that failed.
"""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from proof_driver import SCALE
from schedule_life import TRIED, live, wrong_with
from schedule_plans import DIRECTED, KINDS, MOST_CALLS, plans
from schedule_world import World

SEED = int(os.environ.get("INTERLOCK_PROOF_SEED", "1"))
A_CHUNK = 100
CHUNKS = 5 if SCALE == 1 else 6 * SCALE


@pytest.mark.parametrize("chunk", range(SEED, SEED + CHUNKS))
def test_whatever_fails_the_promises_hold(chunk):
    threads = threading.active_count()

    @seed(chunk)
    @settings(max_examples=A_CHUNK, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(plans())
    def holds(plan):
        assert plan.calls <= MOST_CALLS
        lived = live(plan)
        assert list(wrong_with(lived)) == [], f"INTERLOCK_PROOF_SEED={chunk}"
        TRIED["schedules"] += 1
        TRIED["calls"] += lived.made
        TRIED["with_a_fault"] += bool(lived.scene.injections)
        TRIED["faults"] += len(lived.scene.injections)
        TRIED[f"ended_{lived.result.reason}"] += 1

    holds()
    assert threading.active_count() <= threads + 2, "threads are left behind"


def test_a_plan_is_one_history():
    @seed(SEED)
    @settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(plans())
    def twice(plan):
        assert history(plan) == history(plan)

    twice()


def history(plan):
    """Requests and effects in their order; ids of runs and keys come from a secret of each store."""
    lived = live(plan)
    requests = [(each.tool, each.seq, each.attempt, each.at_s, each.executed) for each in lived.scene.requests]
    return requests, [effect[:2] for effect in World.effects], lived.result.reason


# What must be seen to be wrong in a directed plan: the guards that are off, and what nobody else catches.
WRONG = {
    "claim": (["recall", "claim"], "happened 2 times"),
    "allowlist": (["allowlist"], "a denied tool was reached"),
    "meter": (["meter"], "calls went out"),
    "approval": (["approval"], "what a person refused"),
    "per-tool cap": (["meter"], "calls of refund.pay went out"),
    "rate": (["admission"], "flips within"),
    "readers": (["admission"], "read at once"),
    "breaker": (["admission"], "left alone"),
    "recorder": (["recorder"], "0 are on record"),
}


@pytest.mark.parametrize("name", DIRECTED)
def test_each_guard_holds_in_the_plan_that_is_made_for_it(name):
    assert list(wrong_with(live(DIRECTED[name]))) == []


@pytest.mark.parametrize("name", WRONG)
def test_without_a_guard_something_is_wrong(name):
    off, said = WRONG[name]
    assert any(said in each for each in wrong_with(live(DIRECTED[name], off=off)))


def test_the_plans_reach_every_kind_of_fault():
    met = set()

    @seed(SEED)
    @settings(
        max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
    )
    @given(plans())
    def look(plan):
        met.update(fault.kind for fault in plan.faults)

    look()
    assert met == set(KINDS)
