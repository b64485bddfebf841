"""The matrix holds where it must, and fails for every adapter that does one thing wrong."""

from __future__ import annotations

import pytest
from conformance.matrix import run_matrix, verdict
from conformance.places import Place
from conformance.scenarios import SCENARIOS, scenario

pytestmark = pytest.mark.process


# What each column does wrong, the row that shows it, and words of the verdict.
WRONGS = [
    ("OWN_KEYS", "lost_answer_keyed", "lost 1 effect"),
    ("LEAKS", "lost_answer_keyed", "lost 1 effect"),
    ("LEAKS", "batch_with_refusal", "record differs: missing"),
    ("SWALLOWS", "kill_switch", "lost"),
    ("SLOPPY", "batch_with_refusal", "the model was invited to repeat"),
    ("SLOPPY", "batch_with_refusal", "2 steps, $0.0000; by hand 2 steps, $0.0060"),
    ("FALLS", "lost_answer_keyed", "raised RuntimeError: the adapter does not know what to do"),
    ("FALLS", "batch_with_refusal", "blank"),
    ("BLIND", "", "bare, it shows no duplicate in any row with a lost answer: the matrix cannot fail"),
    ("ABSENT", "", "could not be played: importlib.metadata.PackageNotFoundError"),
]


async def test_the_matrix_fails_for_every_adapter_that_does_one_thing_wrong():
    rows = [scenario(name) for name in ("lost_answer_keyed", "batch_with_refusal", "kill_switch", "denied_tool")]
    names = dict.fromkeys(column for column, _, _ in WRONGS)
    matrix = await run_matrix([Place(name.lower(), source=f"sabotaged:{name}") for name in names], rows)
    wrong = verdict(matrix, rows)

    unseen = [
        (column, row, says)
        for column, row, says in WRONGS
        if not any(line.startswith(column.lower()) and row in line and says in line for line in wrong)
    ]
    assert unseen == [], "\n".join(wrong)
    # What cannot be held says why and is nobody's failure; nor is the loop that does everything right.
    assert [line for line in wrong if line.startswith(("loop", "blind, denied_tool, guarded"))] == []
    cell = matrix.cell("denied_tool", "blind", guarded=True)
    assert cell.text == "cannot be held: it has no hook before a tool is called"
    assert matrix.cell("lost_answer_keyed", "absent", guarded=True) is None


async def test_the_hand_written_loop_holds_the_rows_that_kill_and_wait():
    rows = [scenario(name) for name in ("killed_worker", "late_write", "two_tenants", "approval_granted")]
    matrix = await run_matrix([], rows)
    assert verdict(matrix, rows) == []
    assert [(c.scenario, c.text) for c in matrix.cells if c.guarded] == [(row.name, "held") for row in rows]
    assert all(matrix.cell(row.name, "loop", guarded=False).lost for row in rows)


@pytest.mark.full
async def test_the_hand_written_loop_holds_every_row():
    matrix = await run_matrix([])
    assert verdict(matrix, SCENARIOS) == []
