"""What a cell says of what happened."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conformance.conversation import Heard, Turn
from conformance.judge import Facts, judge
from conformance.report import Ended, Played
from conformance.scenario import Delivery, Scenario

WANTED = {"ticket:a": 1}
ROW = Scenario("row", "A row", lambda _: Turn(), WANTED)
FACTS = Facts(WANTED, {}, 0, ((False, Heard("call_1_1", "row_append", "It was not executed.")),), 2)
DENIED = ("acme", "row_append", "ab12", "denied", "tool_denied")
PLAYED = Played("row", "x", guarded=True, version="1", deliveries=((Ended("success", steps=2),),), record=(DENIED,))


def told(text):
    return replace(FACTS, heard=((False, Heard("call_1_1", "row_append", text)),))


def ended(**fields):
    return replace(PLAYED, deliveries=((Ended(**{"reason": "success", "steps": 2} | fields),),))


def test_a_cell_that_is_as_it_must_be():
    cell = judge(ROW, PLAYED, FACTS, (PLAYED, FACTS))
    assert (cell.text, cell.held, cell.effects, cell.lost) == ("held", True, 1, 0)
    assert cell.as_json() == {
        "scenario": "row",
        "framework": "x",
        "version": "1",
        "guarded": True,
        "effects": 1,
        "reason": "success",
        "told_model": ["It was not executed."],
        "wanted": 1,
        "cell": "held",
        "faults": [],
    }


@pytest.mark.parametrize(
    ("effects", "text", "duplicated"),
    [
        ({"ticket:a": 3}, "lost 2 effects", 2),
        ({}, "lost 1 effect", 0),
        ({"ticket:a": 1, "row:b": 1}, "lost 1 effect", 0),
        ({"ticket:a": 1, "row:b": 2}, "lost 2 effects", 1),
        ({"ticket:b": 1}, "lost 2 effects", 0),
    ],
)
def test_effects_too_many_and_too_few(effects, text, duplicated):
    cell = judge(ROW, PLAYED, replace(FACTS, effects=effects))
    assert (cell.text, cell.held, cell.duplicated) == (text, False, duplicated)


def test_requests_are_counted_where_a_row_is_about_reads():
    row = replace(ROW, wanted={"search_read": 2}, counts="requests")
    cell = judge(row, PLAYED, Facts({}, {"search_read": 9, "row_append": 4}, 0, (), 9))
    assert (cell.effects, cell.wanted, cell.lost) == (9, 2, 11)


def test_what_was_done_too_early_counts_even_if_the_end_is_right():
    row = replace(ROW, deliveries=(Delivery(leaves={}),))
    assert judge(row, ended(effects=WANTED), FACTS).lost == 1


@pytest.mark.parametrize(
    ("played", "facts", "fault"),
    [
        (ended(reason="tool_failed", message="why"), FACTS, "delivery 1 ended as tool_failed (why), not success"),
        (ended(reason="raised", error="Traceback\nValueError: x"), FACTS, "raised ValueError: x"),
        (PLAYED, replace(FACTS, hasty=1), "1 requests before Retry-After was over"),
        (PLAYED, told("It was not executed. Please try again."), "the model was invited to repeat"),
        (PLAYED, told("No."), "the model was not told 'It was not executed.'"),
        (replace(PLAYED, record=()), FACTS, "record differs: missing row_append ab12 denied tool_denied, more -"),
        (replace(PLAYED, record=(DENIED, DENIED)), FACTS, "record differs: missing -, more row_append ab12"),
        (ended(steps=3), FACTS, "3 steps, $0.0000; by hand 2 steps, $0.0000"),
        (ended(cost_usd=0.5), FACTS, "2 steps, $0.5000; by hand 2 steps, $0.0000"),
        (replace(PLAYED, failed="Traceback\nOSError: no"), FACTS, "could not be played: OSError: no"),
        (replace(PLAYED, deliveries=()), FACTS, "0 of 1 deliveries were played"),
    ],
)
def test_faults_of_a_guarded_cell(played, facts, fault):
    cell = judge(ROW, played, facts, (PLAYED, FACTS))
    assert any(found.startswith(fault) for found in cell.faults), cell.faults
    assert cell.text == f"NOT held: {cell.faults[0]}"
    assert not cell.held


def test_a_bare_cell_is_judged_by_its_effects_alone():
    bare = replace(PLAYED, guarded=False, record=())
    assert judge(ROW, bare, told("Please try again.")).held


@pytest.mark.parametrize("guarded", [False, True])
def test_what_never_began_or_never_ended_is_no_framework_s_loss(guarded):
    played = replace(PLAYED, guarded=guarded)
    assert judge(ROW, played, replace(FACTS, turns=0)).faults == ("it never asked the model",)
    stuck = replace(played, deliveries=((Ended("stuck", error="did not end within 150 s"),),))
    assert judge(ROW, stuck, FACTS).faults == ("did not end within 150 s",)


def test_tools_answers_may_be_written_in_each_framework_s_way():
    theirs = told('{"id": "T-1"}')
    assert judge(ROW, PLAYED, told("id: T-1"), (PLAYED, theirs)).held


def test_a_correction_may_be_invited_where_the_model_can_correct():
    row = replace(ROW, correctable=True)
    assert judge(row, PLAYED, told("Fix it and try again."), (PLAYED, FACTS)).held


def test_what_cannot_be_read_need_not_be_hashed_alike_but_must_be_on_record():
    row = replace(ROW, correctable=True)
    other = (*DENIED[:2], "cd34", *DENIED[3:])
    assert judge(row, replace(PLAYED, record=(other,)), FACTS, (PLAYED, FACTS)).held
    assert not judge(ROW, replace(PLAYED, record=(other,)), FACTS, (PLAYED, FACTS)).held
    assert not judge(row, replace(PLAYED, record=()), FACTS, (PLAYED, FACTS)).held
