"""Traces are handed to the store in the background, run by run, in order."""

from __future__ import annotations

import threading

import pytest
from record_scenes import Scope, answering, failing, make_call, make_tool

from interlock.core.errors import ToolDenied
from interlock.record.background import MAX_BATCH
from interlock.record.keeper import TraceKeeper
from interlock.record.metrics import Metrics
from interlock.record.recorder import Recorder
from interlock.record.trace import Kind, Trace, pack


async def test_every_call_reaches_the_store_as_a_row(clock):
    kept = {}
    keeper = TraceKeeper(lambda run_id, _fence, rows: kept.setdefault(run_id, []).extend(rows), gather_s=0)
    scope, tool = Scope(clock), make_tool()
    recorder = Recorder(Metrics(), None, (keeper.call,))
    for seq in range(1, 301):
        await recorder(tool, answering(clock))(make_call(scope, tool, seq=seq))
    with pytest.raises(ToolDenied):
        await recorder(tool, failing(clock, ToolDenied("no")))(make_call(scope, tool, seq=301))
    keeper.close()
    assert [row["seq"] for row in kept["run_abc123"]] == list(range(1, 302))
    assert kept["run_abc123"][-1]["reason"] == "tool_denied"
    assert kept["run_abc123"] == scope.trace.rows()


def entry(scope, tool, clock, seq):
    return Kind(tool.name, "success", "read", None), pack(seq, 1, 1, clock.wall(), 0.1, b"\x01" * 16)


def test_runs_do_not_mix(clock):
    kept = []
    keeper = TraceKeeper(lambda run_id, _fence, rows: kept.extend((run_id, row["seq"]) for row in rows), gather_s=0)
    one, two, tool = Trace("one"), Trace("two"), make_tool()
    for seq in (1, 2):
        keeper.call(one, entry(one, tool, clock, seq))
        keeper.call(two, entry(two, tool, clock, seq))
    keeper.close()
    assert sorted(kept) == [("one", 1), ("one", 2), ("two", 1), ("two", 2)]


def test_a_whole_batch_is_not_gathered_any_longer(clock):
    came = threading.Event()
    keeper = TraceKeeper(lambda _run_id, _fence, _rows: came.set(), gather_s=3600.0)
    trace, tool = Trace("run"), make_tool()
    for seq in range(1, MAX_BATCH + 3):
        keeper.call(trace, entry(trace, tool, clock, seq))
    assert came.wait(30)
    keeper.close()


def test_a_store_that_fails_loses_its_rows_and_the_next_ones_are_kept(clock):
    kept, down = [], [True]

    def keep(_run_id, _fence, rows):
        if down[0]:
            raise OSError("store down")
        kept.extend(rows)

    keeper, trace, tool = TraceKeeper(keep, gather_s=0), Trace("run"), make_tool()
    keeper.call(trace, entry(trace, tool, clock, 1))
    assert keeper.flush()
    down[0] = False
    keeper.call(trace, entry(trace, tool, clock, 2))
    keeper.close()
    assert keeper.lost == 1
    assert [row["seq"] for row in kept] == [2]


def test_a_run_whose_record_has_its_calls_leaves_only_later_ones_to_keep(clock):
    kept = []
    keeper = TraceKeeper(lambda _run_id, _fence, rows: kept.extend(row["seq"] for row in rows), gather_s=0)
    trace, tool = Trace("run"), make_tool()
    for seq in (1, 2):
        trace.add(*entry(trace, tool, clock, seq))
    trace.recorded()
    keeper.handle([(trace, entry(trace, tool, clock, seq)) for seq in (1, 2)])
    assert kept == []
    late = entry(trace, tool, clock, 3)  # a write that was under way when its run ended
    trace.add(*late)
    keeper.handle([(trace, late)])
    assert kept == [3]


def test_calls_that_a_long_run_has_let_go_of_are_kept_though_it_has_ended(clock):
    kept = []
    keeper = TraceKeeper(lambda _run_id, _fence, rows: kept.extend(row["seq"] for row in rows), gather_s=0)
    trace, tool = Trace("run", kept=2), make_tool()
    calls = [entry(trace, tool, clock, seq) for seq in (1, 2, 3)]
    for call in calls:
        trace.add(*call)
    trace.recorded()
    keeper.handle([(trace, call) for call in calls])
    assert kept == [1, 2, 3]
