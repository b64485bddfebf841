"""Every call is on record, refusals included, and a recorder never changes what a call returns."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest
from record_scenes import Scope, answering, failing, make_call, make_tool

from interlock.core.calls import Effect
from interlock.core.errors import BudgetExceeded, OutcomeUnknown, RunStopped, ToolDenied, ToolOutputInvalid, ToolTimeout
from interlock.core.reasons import StopReason
from interlock.record.lines import LineSink, LoggingOptions
from interlock.record.metrics import Metrics
from interlock.record.recorder import Recorder


async def record(scope, proceed, *, tool=None, metrics=None, sinks=(), lines=None, **call_facts):
    tool = tool or make_tool()
    call = make_call(scope, tool, **call_facts)
    return await Recorder(metrics or Metrics(), lines, sinks)(tool, proceed)(call)


async def test_a_row_holds_the_articles_five_fields_first(scope, clock):
    await record(scope, answering(clock, seconds=0.834))
    (row,) = scope.trace.rows()
    assert list(row)[:5] == ["step", "tool", "args_hash", "duration_ms", "status"]
    assert row["step"] == 0
    assert row["tool"] == "search.read"
    assert row["args_hash"] == "01" * 16
    assert row["duration_ms"] == pytest.approx(834)
    assert row["status"] == "success"
    assert (row["seq"], row["effect"], row["attempts"]) == (1, "read", 1)


async def test_the_answer_passes_through_unchanged(scope, clock):
    value = {"big": [1, 2, 3]}
    answer = await record(scope, answering(clock, value=value))
    assert answer.value is value


@pytest.mark.parametrize("status", ["replayed", "repeated"])
async def test_calls_answered_from_a_record_are_on_record_as_such(scope, clock, status):
    await record(scope, answering(clock, status=status, attempts=0))
    (row,) = scope.trace.rows()
    assert (row["status"], row["attempts"]) == (status, 0)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ToolDenied("no", details={"policy": "deny"}), "denied", "tool_denied"),
        (BudgetExceeded(StopReason.TOOL_BUDGET, "used up"), "refused", "tool_budget"),
        (ToolTimeout("slow"), "timeout", "tool_timeout"),
        (ToolOutputInvalid("t", []), "invalid_output", "tool_output_invalid"),
        (OutcomeUnknown("?"), "in_doubt", "outcome_unknown"),
        (RunStopped(StopReason.KILLED), "stopped", "killed"),
        (RuntimeError("a bug of ours"), "error", "internal_error"),
        (asyncio.CancelledError(), "cancelled", "cancelled"),
        (KeyboardInterrupt(), "error", "internal_error"),
    ],
)
async def test_whatever_ends_a_call_is_on_record_and_raised_unchanged(scope, clock, error, status, reason):
    with pytest.raises(type(error)) as raised:
        await record(scope, failing(clock, error, seconds=1.5))
    assert raised.value is error
    (row,) = scope.trace.rows()
    assert (row["status"], row["reason"], row["duration_ms"]) == (status, reason, 1500.0)


async def test_a_refusal_names_the_rule_that_said_no(scope, clock):
    with pytest.raises(ToolDenied):
        await record(scope, failing(clock, ToolDenied("no", details={"policy": "safe_mode"})))
    assert scope.trace.rows()[0]["policy"] == "safe_mode"


async def test_a_write_is_on_record_with_its_key(scope, clock):
    tool = make_tool("ticket.create", effect=Effect.WRITE)

    async def claimed(call):
        call.key = b"\x07" * 24
        return await answering(clock)(call)

    await record(scope, claimed, tool=tool)
    (row,) = scope.trace.rows()
    assert (row["effect"], row["key"]) == ("write", "07" * 24)
    assert "reason" not in row


async def test_what_an_observing_run_would_have_refused_is_on_record(clock):
    scope = Scope(clock, observing=True)

    async def lenient(call):
        call.refuse(ToolDenied("no"))
        call.refuse(BudgetExceeded(StopReason.TOOL_BUDGET))
        return await answering(clock)(call)

    await record(scope, lenient)
    (row,) = scope.trace.rows()
    assert (row["status"], row["would_have"]) == ("success", ("tool_denied", "tool_budget"))
    assert scope.trace.would_have() == ["tool_denied", "tool_budget"]


async def test_steps_are_model_turns_from_zero(scope, clock):
    await record(scope, answering(clock), seq=1, turn=1)
    await record(scope, answering(clock), seq=2, turn=3)
    assert [row["step"] for row in scope.trace.rows()] == [0, 2]


async def test_without_model_turns_every_call_is_a_step(scope, clock):
    await record(scope, answering(clock), seq=1, turn=0)
    await record(scope, answering(clock), seq=2, turn=0)
    assert [row["step"] for row in scope.trace.rows()] == [0, 1]


async def test_the_ring_keeps_the_last_calls_and_counts_the_others(clock):
    scope = Scope(clock, kept=3)
    for seq in range(1, 6):
        await record(scope, answering(clock), seq=seq)
    assert [row["seq"] for row in scope.trace.rows()] == [3, 4, 5]
    assert scope.trace.dropped == 2
    assert scope.trace.added == 5
    for seq in range(6, 2_001):
        await record(scope, answering(clock), seq=seq)
    assert [row["seq"] for row in scope.trace.rows()] == [1_998, 1_999, 2_000]
    assert (scope.trace.dropped, len(scope.trace._kinds) < 300) == (1_997, True)


async def test_sinks_see_every_call(scope, clock):
    seen = []
    sinks = [lambda trace, entry: seen.append((trace.run_id, entry[0].status))]
    await record(scope, answering(clock), sinks=sinks)
    with pytest.raises(ToolDenied):
        await record(scope, failing(clock, ToolDenied("no")), sinks=sinks)
    assert seen == [("run_abc123", "success"), ("run_abc123", "denied")]


async def test_a_sink_that_fails_takes_nothing_away_from_the_call(scope, clock):
    def broken(_trace, _entry):
        raise OSError("disk full")

    metrics = Metrics()
    answer = await record(scope, answering(clock, value=7), sinks=[broken], metrics=metrics)
    assert answer.value == 7
    with pytest.raises(ToolDenied):
        await record(scope, failing(clock, ToolDenied("no")), sinks=[broken], metrics=metrics)
    assert 'interlock_records_lost_total{sink="trace"} 2' in metrics.render()


async def test_counters_tell_outcomes_denials_and_durations(scope, clock):
    metrics = Metrics()
    await record(scope, answering(clock, seconds=0.3), metrics=metrics)
    with pytest.raises(ToolDenied):
        await record(scope, failing(clock, ToolDenied("no")), metrics=metrics)
    with pytest.raises(ToolTimeout):
        await record(scope, failing(clock, ToolTimeout("slow"), attempts=2), metrics=metrics)
    text = metrics.render()
    assert 'interlock_tool_calls_total{tool="search.read",outcome="success"} 1' in text
    assert 'interlock_tool_calls_total{tool="search.read",outcome="timeout"} 1' in text
    assert 'interlock_denials_total{tool="search.read",reason="tool_denied"} 1' in text
    assert 'reason="tool_timeout"' not in text, "a call that was sent is not a denial"
    assert 'interlock_tool_call_duration_seconds_count{tool="search.read"} 3' in text


async def test_a_name_that_nobody_registered_is_never_a_label(scope, clock):
    metrics = Metrics()
    with pytest.raises(ToolDenied):
        await record(scope, failing(clock, ToolDenied("no")), tool=make_tool("made.up/9", known=False), metrics=metrics)
    assert "made.up" not in metrics.render()
    assert 'tool="unknown"' in metrics.render()
    assert scope.trace.rows()[0]["tool"] == "made.up/9"


@pytest.mark.parametrize(
    ("level", "answered", "refused"), [("debug", 1, 1), ("info", 1, 1), ("warning", 0, 1), ("error", 0, 0)]
)
async def test_the_level_decides_which_calls_become_lines(scope, clock, tmp_path, level, answered, refused):
    path = tmp_path / "log"
    lines = LineSink(LoggingOptions(level=level, to=str(path)), clock, gather_s=0)
    await record(scope, answering(clock), lines=lines)
    with pytest.raises(ToolDenied):
        await record(scope, failing(clock, ToolDenied("no")), lines=lines)
    lines.close()
    written = path.read_text() if path.exists() else ""
    assert written.count('"status":"success"') == answered
    assert written.count('"status":"denied"') == refused


@pytest.mark.parametrize("effect", list(Effect))
async def test_what_a_call_leaves_in_its_run_is_small_and_nothing_for_the_garbage_collector(scope, clock, effect):
    tool = make_tool(effect=effect)
    guarded = Recorder(Metrics())(tool, answering(clock))

    def call(seq):
        call = make_call(scope, tool, seq=seq)
        call.key = seq.to_bytes(24, "big") if effect is Effect.WRITE else None
        return call

    await guarded(call(1))
    gc.collect()
    tracked = len(gc.get_objects())
    for seq in range(2, 1_002):
        await guarded(call(seq))
    gc.collect()
    assert len(gc.get_objects()) - tracked < 100
    assert sys.getsizeof(scope.trace._numbers) + sys.getsizeof(scope.trace._kinds) < 96 * 1_000


async def test_a_row_says_when_and_beside_which_calls(scope, clock):
    await record(scope, answering(clock, seconds=2), seq=1, turn=4)
    await record(scope, answering(clock), seq=2, turn=0)
    first, second = scope.trace.rows()
    assert (first["batch"], second["batch"]) == (4, -2)
    assert first["ended_at"] == pytest.approx(clock.wall(), abs=0.001)
