"""Recorded tools answer by tool and arguments, in order, and let a retry find what the model had to ask for again."""

from __future__ import annotations

import pytest
from recorded import call, run

from interlock.forensics.effects import SetEffects
from interlock.forensics.tape import RecordedFailure, Tape, arguments_of
from interlock.forensics.traces import RecordedCall

EFFECTS = SetEffects(reads=("get",), allow_repeat=("toggle",))


def passing(tool="get", args=None):
    return call(tool, args, "Error: 503 Service Unavailable", error="server_or_network")


def ask(tape, recorded, attempts=1):
    """Propose a recorded call and ask its tool at most so often; return what came back at last."""
    tape.proposed(recorded)
    outcome = None
    for _ in range(attempts):
        try:
            return tape.answer(recorded.tool, arguments_of(recorded))
        except (RecordedFailure, TimeoutError) as error:
            outcome = error
    return outcome


def test_equal_calls_are_answered_in_order():
    calls = [call("get", {"id": 1}, "a"), call("get", {"id": 2}, "b"), call("get", {"id": 1}, "c")]
    tape = Tape(run(*calls), EFFECTS)
    assert [ask(tape, c) for c in calls] == ["a", "b", "c"]


def test_a_retry_is_given_what_the_model_got_by_asking_again():
    calls = [passing(), call("get", output="at last"), call("get", output="later")]
    tape = Tape(run(*calls), EFFECTS)
    assert [ask(tape, c, attempts=2) for c in calls] == ["at last", "at last", "later"]
    assert tape.attempts == 4


def test_a_burst_is_used_up_by_attempts_not_by_turns():
    calls = [passing(), passing(), passing(), call("get", output="ok")]
    tape = Tape(run(*calls), EFFECTS)
    first, *rest = [ask(tape, c, attempts=2) for c in calls]
    assert isinstance(first, RecordedFailure)
    assert rest == ["ok", "ok", "ok"]


def test_without_retries_the_model_sees_the_record():
    calls = [passing(), passing(), call("get", output="ok")]
    tape = Tape(run(*calls), EFFECTS)
    seen = [ask(tape, c) for c in calls]
    assert [getattr(s, "status", s) for s in seen] == [503, 503, "ok"]


def test_an_answer_that_was_never_fetched_is_not_given_to_a_later_turn():
    calls = [call("get", output="old"), call("get", output="old"), call("get", output="new")]
    tape = Tape(run(*calls), EFFECTS)
    ask(tape, calls[0])
    tape.proposed(calls[1])  # answered from the record: the tool is not asked
    assert ask(tape, calls[2]) == "new"


def test_a_failure_at_the_end_of_the_record_stays():
    tape = Tape(run(passing()), EFFECTS)
    assert ask(tape, passing(), attempts=3).status == 503


@pytest.mark.parametrize(
    ("error", "status"),
    [("bad_arguments", 400), ("not_found", 404), ("auth", 403), ("rate_limit", 429), ("business_or_other", 422)],
)
def test_kinds_of_failure_come_back_as_statuses(error, status):
    recorded = call("get", error=error, output="no")
    failure = ask(Tape(run(recorded), EFFECTS), recorded)
    assert (failure.status, str(failure)) == (status, "no")


def test_a_timeout_comes_back_as_one_and_a_set_may_take_failures_for_answers():
    recorded = call("get", error="timeout", output="Tool call timed out.")
    assert isinstance(ask(Tape(run(recorded), EFFECTS), recorded), TimeoutError)
    answers = SetEffects(errors={"timeout": "output"})
    assert ask(Tape(run(recorded), answers), recorded) == "Tool call timed out."


def test_arguments_that_are_no_object_or_not_kept_still_tell_calls_apart():
    head = RecordedCall("get", None, "f" * 40, "a", None)
    text = call("get", "not json", "b")
    tape = Tape(run(head, text), EFFECTS)
    assert [ask(tape, c) for c in (head, text)] == ["a", "b"]


def test_an_answer_of_which_the_rest_is_missing_is_told_apart_by_its_hash():
    long = [RecordedCall("get", {"i": i}, str(i), "same beginning", f"{i}" * 40) for i in range(2)]
    first, second = (ask(Tape(run(c), EFFECTS), c) for c in long)
    assert first != second
    assert first.startswith("same beginning…")


def test_arguments_the_record_does_not_know_are_counted():
    tape = Tape(run(call("get", {"id": 1})), EFFECTS)
    with pytest.raises(LookupError):
        tape.answer("get", {"id": 2})
    assert tape.strayed == 1


def test_what_was_performed_is_counted_and_what_failed_is_not():
    calls = [call("pay", {"to": "x"}), call("pay", {"to": "x"}), call("pay", {"to": "y"}, error="business_or_other")]
    tape = Tape(run(*calls), EFFECTS)
    for each in calls:
        ask(tape, each)
    assert list(tape.performed.values()) == [2]
