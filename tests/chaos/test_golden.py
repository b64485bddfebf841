"""The golden tasks: pass under profile `article`, fail without the guard that should catch them, equal by seed."""

import pytest

from interlock.chaos.golden_agent import agent, gate
from interlock.chaos.guards_off import CATCHES, guards_off, guards_off_table, layers, layers_table
from interlock.chaos.scene import GUARDS
from interlock.chaos.suite import GOLDEN, load_suite
from interlock.chaos.trying import try_once, try_task

SUITE = load_suite(GOLDEN)
TASKS = {task.name: task for task in SUITE.tasks}


@pytest.mark.parametrize("name", TASKS)
def test_a_golden_task_passes(name):
    outcome = try_task(agent, gate, SUITE, TASKS[name])
    assert (outcome.verdict, outcome.why) == ("passed", "")
    assert outcome.baseline in {"", "success"}
    assert bool(outcome.faults) == any(each.injected for each in outcome.repetitions)


@pytest.mark.parametrize(("guard", "name"), CATCHES.items())
def test_without_its_guard_a_golden_task_fails(guard, name):
    found = try_once(agent, gate, SUITE, TASKS[name], seed=SUITE.seed, off=[guard])
    assert found.failures
    assert not found.not_exercised


def test_every_task_but_the_calm_one_has_a_guard_that_catches_it():
    assert set(CATCHES.values()) == set(TASKS) - {"simple_search"}


def test_the_calm_task_fails_where_a_guard_stops_what_it_should_not():
    suite = load_suite(
        {"config": {"profile": "article", "tools": {"deny": ["search.read"]}}, "tasks": [{"name": "a", "expect": "success"}]}
    )  # fmt: skip
    assert try_once(agent, gate, suite, suite.tasks[0], seed=0).failures


@pytest.mark.parametrize("name", TASKS)
def test_one_seed_is_one_history(name):
    first, second = (try_once(agent, gate, SUITE, TASKS[name], seed=5) for _ in range(2))
    assert first == second


def test_two_seeds_are_two_histories():
    found = {tuple(try_once(agent, gate, SUITE, TASKS["flaky_tool"], seed=s).injected.items()) for s in range(8)}
    assert len(found) > 1


def test_a_fault_that_never_strikes_proves_nothing():
    suite = load_suite(
        {"tasks": [{"name": "a", "expect": "any", "faults": [{"kind": "reset", "tool": "never.called"}]}]}
    )
    assert try_task(agent, gate, suite, suite.tasks[0]).verdict == "not exercised"


def test_an_obedient_model_is_needed_to_prove_a_denial():
    suite = load_suite({"profile": "article", "tasks": [{"name": "a", "expect": "denied"}]})
    outcome = try_task(agent, gate, suite, suite.tasks[0])
    assert outcome.verdict == "failed"
    assert outcome.repetitions[0].not_exercised == "no forbidden call was proposed"


def test_the_page_shows_what_happens_without_each_guard():
    page = (GOLDEN.parents[3] / "docs" / "chaos.md").read_text(encoding="utf-8")
    assert guards_off_table(guards_off()) in page
    assert layers_table(layers()) in page


def test_every_guard_has_a_layer_behind_it_and_is_missed():
    found = layers()
    assert [row.layer.guard for row in found] == list(GUARDS)
    for row in found:
        guard = row.layer.guard
        off = (row.off.reason, row.off.requests, row.off.effects, row.off.guards)
        assert (row.on.reason, row.on.requests, row.on.effects, row.on.guards) != off, guard
        assert row.off.injected, guard
        if row.both is not None:
            assert (row.both.reason, row.both.effects) != (row.off.reason, row.off.effects), guard
            assert any(name in row.off.guards for name in row.layer.next) or row.off.reason.endswith("budget"), guard


def test_where_the_next_layer_holds_less_slips_through_than_without_it():
    """Counted at the backend: what it answered and what it did, all tools together."""
    for row in layers():
        if row.both is not None:
            off, both = (sum(r.effects.values()) or sum(r.requests.values()) for r in (row.off, row.both))
            assert off <= both, row.layer.guard
