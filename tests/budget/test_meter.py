"""The meter: reserve before, settle after, children on the parent's budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.budget.meter import BudgetOptions, Meter, Refused, Reservation
from interlock.core.reasons import StopReason

FREE = BudgetOptions(None, None, None, None)


def test_calls_are_counted_up_to_the_cap_and_not_beyond():
    meter = Meter(BudgetOptions(max_tool_calls=2))
    assert meter.admit_call("a", 1, None) is None
    assert meter.admit_call("a", 2, None) is None
    refused = meter.admit_call("a", 3, None)
    assert refused is not None
    assert refused.reason is StopReason.TOOL_BUDGET
    assert refused.run_wide
    assert meter.calls == 2
    assert "agent.budgets.max_tool_calls = 2" in str(refused.error("a"))


def test_the_refusal_tells_the_model_neither_key_nor_number():
    refused = Refused(StopReason.TOOL_BUDGET, "agent.budgets.max_tool_calls", 40)
    told = refused.error("ticket.create").for_model
    assert "40" not in told
    assert "max_tool_calls" not in told
    assert "again" not in told


def test_a_cap_of_one_tool_refuses_that_tool_alone_and_is_not_run_wide():
    meter = Meter(FREE)
    assert meter.admit_call("ticket.create", 1, 1) is None
    refused = meter.admit_call("ticket.create", 2, 1)
    assert refused is not None
    assert not refused.run_wide
    assert refused.key == "tools.budgets.ticket.create.max_calls"
    assert meter.admit_call("search", 3, None) is None


def test_equal_calls_are_one_unique_call():
    meter = Meter(BudgetOptions(max_unique_calls=1))
    assert meter.admit_call("a", 7, None) is None
    assert meter.admit_call("a", 7, None) is None
    refused = meter.admit_call("a", 8, None)
    assert refused is not None
    assert refused.key == "agent.budgets.max_unique_calls"


def test_what_the_journal_answers_is_a_tool_call_but_not_a_unique_one():
    meter = Meter(BudgetOptions(max_unique_calls=1, max_tool_calls=10))
    assert meter.admit_call("w", 1, 1) is None
    meter.not_executed("w", 1, first=True)
    assert meter.calls == 1
    assert meter.admit_call("w", 2, 1) is None  # neither the unique cap nor the tool's own is used up


def test_a_child_draws_on_its_parent_and_its_own_cap_does_not_touch_the_parent():
    parent = Meter(BudgetOptions(max_tool_calls=3))
    child = Meter(BudgetOptions(None, None, 1, None), parent)
    assert child.admit_call("a", 1, None) is None
    assert child.admit_call("a", 2, None) is not None
    assert (parent.calls, child.calls) == (1, 1)
    assert parent.admit_call("a", 2, None) is None
    assert parent.admit_call("a", 3, None) is None
    other = Meter(FREE, parent)
    assert other.admit_call("a", 4, None) is not None


def test_a_turn_whose_worst_case_breaks_the_cap_is_not_started():
    meter = Meter(BudgetOptions(max_usd=1.0))
    held = meter.admit_turn(0.7, 100)
    assert isinstance(held, Reservation)
    second = meter.admit_turn(0.4, 100)  # 0.7 is still held
    assert isinstance(second, Refused)
    assert second.reason is StopReason.COST_BUDGET
    meter.settle_turn(held, 0.1, 30)
    assert isinstance(meter.admit_turn(0.4, 100), Reservation)
    assert meter.usd == pytest.approx(0.1)
    assert meter.tokens == 30


def test_undeclared_turns_reserve_what_is_configured_else_the_dearest_turn_so_far():
    meter = Meter(BudgetOptions(max_usd=1.0))
    first = meter.admit_turn(None, None)
    assert isinstance(first, Reservation)
    assert (first.usd, first.exact) == (0.0, False)
    meter.settle_turn(first, 0.6, 10)
    second = meter.admit_turn(None, None)
    assert isinstance(second, Refused)  # another turn like the dearest would pass the cap
    configured = Meter(BudgetOptions(max_usd=1.0, reserve_usd_per_turn=0.3))
    turn = configured.admit_turn(None, None)
    assert isinstance(turn, Reservation)
    assert turn.usd == pytest.approx(0.3)


def test_an_undeclared_turn_may_pass_the_cap_once_and_the_meter_says_so():
    meter = Meter(BudgetOptions(max_usd=1.0))
    held = meter.admit_turn(None, None)
    assert isinstance(held, Reservation)
    meter.settle_turn(held, 1.5, 10)
    assert meter.overdrawn
    assert isinstance(meter.admit_turn(None, None), Refused)


def test_steps_and_tokens_have_their_own_reasons():
    assert _reason(Meter(BudgetOptions(max_steps=0)).admit_turn(None, None)) is StopReason.STEP_BUDGET
    meter = Meter(BudgetOptions(max_steps=None, max_usd=None, max_tokens=100))
    assert _reason(meter.admit_turn(None, 101)) is StopReason.TOKEN_BUDGET
    held = meter.admit_turn(None, 100)
    assert isinstance(held, Reservation)
    meter.settle_turn(held, 0.0, 100)
    assert _reason(meter.admit_turn(None, None)) is StopReason.TOKEN_BUDGET


def _reason(answer):
    assert isinstance(answer, Refused)
    return answer.reason


def test_an_unknown_price_marks_every_meter_above():
    parent = Meter(BudgetOptions(max_usd=1.0))
    child = Meter(FREE, parent)
    child.mark_unpriced("foo:bar")
    assert parent.unpriced == "foo:bar"
    assert child.capped_usd()
    assert not Meter(FREE).capped_usd()


@given(
    cap=st.floats(0.01, 10.0),
    turns=st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 1.0)), max_size=40),
    siblings=st.integers(1, 3),
)
def test_declared_turns_never_pass_the_cap_whoever_takes_them(cap, turns, siblings):
    parent = Meter(BudgetOptions(max_steps=None, max_usd=cap))
    meters = [parent, *(Meter(FREE, parent) for _ in range(siblings))]
    held = []
    for i, (worst, share) in enumerate(turns):
        meter = meters[i % len(meters)]
        answer = meter.admit_turn(worst, None)
        if isinstance(answer, Reservation):
            held.append((meter, answer, worst * share))
        if i % 3 == 2:
            while held:
                taker, reservation, cost = held.pop()
                taker.settle_turn(reservation, cost, 0)
    for taker, reservation, cost in held:
        taker.settle_turn(reservation, cost, 0)
    assert parent.usd <= cap + 1e-9
