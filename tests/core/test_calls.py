"""The words of one call: what a tool's effect is, and what a refusal does."""

from __future__ import annotations

import pytest

from interlock.core.calls import Answer, Call, Effect, OnUnknown, Repeat, RunFacts, Stop, ToolSpec
from interlock.core.errors import InvalidArguments, ToolDenied
from interlock.core.reasons import StopReason


async def nothing(**_args):
    return None


class Scope(RunFacts):
    __slots__ = ()

    def __init__(self, *, observing=False):
        self.observing = observing


def make_tool(**kw):
    return ToolSpec("orders.read", nothing, is_async=True, **kw)


def make_call(effect=Effect.READ, *, observing=False, invalid=None):
    return Call(Scope(observing=observing), make_tool(), {"a": 1}, b'{"a":1}', b"d" * 16, effect, 3, 2, 1, invalid)


def by_verb(args):
    return args["verb"]


def test_a_tool_of_which_nothing_is_said_writes_and_is_never_sent_twice():
    tool = make_tool()
    assert tool.effect_of({}) is Effect.WRITE
    assert tool.may_write
    assert tool.on_unknown is OnUnknown.STOP
    assert tool.repeat is Repeat.COLLAPSE
    assert not tool.allow


@pytest.mark.parametrize("effect", Effect)
def test_a_fixed_effect_is_that_of_every_call(effect):
    assert make_tool(effect=effect).effect_of({"verb": "anything"}) is effect


@pytest.mark.parametrize(
    ("answer", "effect"),
    [("read", Effect.READ), (Effect.READ, Effect.READ), ("write", Effect.WRITE), (Effect.WRITE, Effect.WRITE)],
)
def test_a_function_of_the_arguments_decides(answer, effect):
    assert make_tool(effect=by_verb).effect_of({"verb": answer}) is effect


@pytest.mark.parametrize("args", [{}, {"verb": "peek"}, {"verb": None}, {"verb": 1}, {"verb": []}, {"verb": "READ"}])
def test_a_function_that_fails_or_says_nothing_known_means_write(args):
    assert make_tool(effect=by_verb).effect_of(args) is Effect.WRITE


@pytest.mark.parametrize(("effect", "may"), [(Effect.READ, False), (Effect.WRITE, True), (by_verb, True)])
def test_only_a_tool_that_always_reads_may_not_write(effect, may):
    assert make_tool(effect=effect).may_write is may


def test_a_call_begins_without_attempts_or_doubt():
    call = make_call()
    assert (call.seq, call.turn, call.batch, call.occurrence, call.attempts) == (3, 2, 1, 1, 0)
    assert call.unknown is False
    assert call.invalid is call.key is call.sent_key is call.approval_id is call.late is call.would_have is None
    assert call.evidence is call.raw is call.permit is call.tool_call_id is None


@pytest.mark.parametrize(("effect", "writes"), [(Effect.READ, False), (Effect.WRITE, True)])
def test_whether_a_call_writes_is_its_own_effect(effect, writes):
    assert make_call(effect).writes is writes


def test_a_refusal_is_raised():
    error, call = ToolDenied("no"), make_call()
    with pytest.raises(ToolDenied) as refused:
        call.refuse(error)
    assert refused.value is error
    assert call.would_have is None


def test_when_observing_refusals_are_noted_in_order_and_let_through():
    call = make_call(observing=True)
    call.refuse(ToolDenied())
    call.refuse(InvalidArguments())
    assert call.would_have == [StopReason.TOOL_DENIED, StopReason.INVALID_INPUT]
    assert make_call(observing=True).would_have is None


def test_an_answer_is_a_success_without_a_note_until_a_guard_says_otherwise():
    answer = Answer([1])
    assert (answer.value, answer.json, answer.status, answer.note) == ([1], None, "success", None)


def test_a_stop_has_facts_of_its_own():
    assert Stop(StopReason.KILLED) == Stop(StopReason.KILLED, "", {})
    assert Stop(StopReason.KILLED).details is not Stop(StopReason.KILLED).details


@pytest.mark.parametrize("value", [make_call(), Answer(1), Scope(), make_tool(), Stop(StopReason.KILLED)])
def test_words_take_no_names_that_they_do_not_know(value):
    assert not hasattr(value, "__dict__")
