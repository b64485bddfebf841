"""Recorded runs made by hand, for tests."""

from __future__ import annotations

from interlock.forensics.traces import RecordedCall, RecordedRun, RecordedTurn, args_hash, text_hash


def call(tool, args=None, output="ok", *, error=None, at_s=None):
    args = {} if args is None else args
    return RecordedCall(tool, args, args_hash(args), output, text_hash(output), error, None, at_s)


def run(*turns, dataset="tau_retail_503", success=True, seconds=None, run_id="r1"):
    """A run of which each turn is a call, a list of calls, or a `RecordedTurn`."""
    made = [
        turn if isinstance(turn, RecordedTurn) else RecordedTurn(tuple(turn if isinstance(turn, list) else [turn]))
        for turn in turns
    ]
    return RecordedRun(dataset, run_id, "model", "", "task", success, tuple(made), None, seconds)
