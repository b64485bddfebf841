"""What counts as a duplicate and as lost, without mercy."""

from __future__ import annotations

from interlock.chaos.agents import Say
from interlock.chaos.scenarios import Mission
from interlock.chaos.score import Outcome, judge


def outcome(title: str | None, ticket: str | None = None, *, reason="success", invented=False, said=True, **figures):
    mission = Mission(title or "question", lambda _: iter(()), asks_for=title)
    words = {"text": "", "ticket": ticket, "invented": invented} if said else None
    figures = {"steps": 2, "calls": 1, "cost_usd": 0.5, "began_s": 10.0, "ended_s": 20.0} | figures
    return Outcome(mission, reason, words, **figures)


def effect(n: int, subject: str, *, key=None, kind="ticket"):
    return {"id": f"T-{n}", "kind": kind, "subject": subject, "key": key}


def test_a_ticket_that_the_answer_states_is_not_lost():
    side = judge([outcome("a", "T-1")], [effect(1, "a")])
    assert (side.asked, side.effects, side.duplicates, side.lost) == (1, 1, 0, 0)


def test_every_ticket_beyond_the_first_is_a_duplicate_and_lost_unless_stated():
    side = judge([outcome("a", "T-3"), outcome("b", "T-4")], [effect(n, "a") for n in (1, 2, 3)] + [effect(4, "b")])
    assert (side.duplicates, side.incidents, side.lost) == (2, 1, 2)
    assert side.duplicate_rate == 0.5
    assert side.duplicates_per_incident == 2.0


def test_an_invented_id_finds_nothing():
    side = judge([outcome("a", "T-7", invented=True)], [effect(1, "a")])
    assert (side.lost, side.invented) == (1, 1)


def test_another_run_s_answer_finds_nothing():
    assert judge([outcome("a", None), outcome("b", "T-1")], [effect(1, "a")]).lost == 1


def test_a_run_that_gave_up_has_lost_what_was_accepted():
    assert judge([outcome("a", None)], [effect(1, "a")]).lost == 1
    assert judge([outcome("a", said=False)], [effect(1, "a")]).lost == 1


def test_a_doubt_that_names_the_key_finds_it():
    side = judge([outcome("a", said=False, reason="outcome_unknown")], [effect(1, "a", key="k")], named_keys=["k"])
    assert side.lost == 0
    assert judge([outcome("a", said=False)], [effect(1, "a", key="k")], named_keys=["other"]).lost == 1
    # Without a key on the effect there is nothing that a doubt could name.
    assert judge([outcome("a", said=False)], [effect(1, "a", key=None)], named_keys=["k"]).lost == 1


def test_a_ticket_never_created_is_not_lost():
    assert judge([outcome("a", said=False)], [], named_keys=["k"]).lost == 0


def test_forbidden_effects_are_counted_and_are_neither_duplicates_nor_lost():
    side = judge([outcome(None)], [effect(1, "users", kind="row"), effect(2, "users", kind="row")])
    assert (side.asked, side.effects, side.forbidden, side.duplicates, side.lost) == (0, 2, 2, 0, 0)


def test_figures_add_up():
    runs = [outcome(None, began_s=5.0, ended_s=9.0), outcome(None, reason="loop_detected", ended_s=50.0, calls=4)]
    side = judge(runs, [], refused=3, circuit_opens=2)
    assert side.reasons == {"success": 1, "loop_detected": 1}
    assert (side.calls, side.cost_usd, side.seconds) == (5, 1.0, 45.0)
    assert (side.refused, side.circuit_opens) == (3, 2)


def test_nothing_happened():
    side = judge([], [])
    assert (side.duplicate_rate, side.duplicates_per_incident, side.seconds) == (0.0, 0.0, 0.0)


def test_say_defaults_to_no_ticket():
    assert Say("x").ticket is None
