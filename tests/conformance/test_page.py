"""What the command prints: tables, JSON lines, notes, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conformance.conversation import Turn
from conformance.judge import Cell
from conformance.matrix import Matrix, verdict
from conformance.places import columns, find_place, words
from conformance.scenario import Scenario
from conformance.scenarios import SCENARIOS
from conformance.table import markdown

ROOT = Path(__file__).parents[2]
ROWS = tuple(
    Scenario(name, f"the row {name}", lambda _: Turn(), {}, lost_answer=name == "one") for name in ("one", "two")
)


def cell(scenario="one", framework="x", *, guarded=True, **fields):
    known = {"effects": 1, "wanted": 1, "lost": 0, "duplicated": 0, "reason": "success", "told": ()}
    return Cell(scenario, framework, "1.2", guarded, **known | fields)


def matrix(*cells, **absent):
    return Matrix(tuple(cells), absent)


def whole(**fields):
    """Two rows of one framework: bare it duplicates, guarded it holds; `fields` are of one guarded cell."""
    bare = [cell(lost=1, duplicated=1, guarded=False), cell("two", guarded=False)]
    return matrix(*bare, cell(), cell("two", **fields))


def test_a_matrix_that_is_as_it_must_be():
    assert verdict(whole(), ROWS) == []
    assert verdict(whole(cannot="there is no hook"), ROWS) == []


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (whole(lost=2), "x, two: lost 2 effects"),
        (whole(faults=("record differs",)), "x, two: NOT held: record differs"),
        (matrix(*whole().cells[:3]), "x, two, guarded: blank"),
        (matrix(*whole().cells[1:]), "x, one, bare: blank"),
        (matrix(cell(guarded=False), *whole().cells[1:]), "the matrix cannot fail"),
        (matrix(cell(guarded=False, lost=1, cannot="no bare run"), *whole().cells[1:]), "the matrix cannot fail"),
        (matrix(*whole().cells, y="No module named 'y'"), "y: could not be played: No module named 'y'"),
    ],
)
def test_what_makes_it_fail(cells, says):
    found = verdict(cells, ROWS)
    assert any(says in line for line in found), found


def test_the_page_has_no_blank_and_explains_what_cannot_be_held():
    page = markdown(
        matrix(
            cell(guarded=False, lost=3),
            cell("two", cannot="the hook comes too late"),
            cell("two", guarded=False, cannot="the hook comes too late"),
        ),
        ROWS,
    )
    assert "| the row one | lost 3 effects |" in page
    assert "| the row one | **blank** |" in page
    assert page.count("| the row two | cannot be held ¹ |") == 2
    assert page.endswith("\n- ¹ cannot be held: the hook comes too late\n")
    assert "|  | x 1.2 |" in page


@pytest.mark.process
@pytest.mark.parametrize(("words", "code"), [((), 0), (("--row", "no_such_row"), 2), (("--only", "nobody"), 2)])
def test_the_command(words, code):
    command = [sys.executable, "-m", "conformance", "--no-install", "--json", "--row", "redelivered", "--only", "loop"]
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])
    done = subprocess.run(
        [*command, *words], cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    if code:
        assert words[1] in done.stderr
        return
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    asked = {"scenario", "framework", "version", "guarded", "effects", "reason", "told_model"}
    assert [asked - line.keys() for line in lines] == [set(), set()]
    assert [(line["guarded"], line["effects"], line["wanted"]) for line in lines] == [(False, 4, 2), (True, 2, 2)]


def test_every_column_says_what_it_needs():
    for name in columns():
        assert find_place(name, install=False).name == name
    with pytest.raises(LookupError, match="no column is called"):
        find_place("no-such-framework", install=False)


def test_columns_pin_what_the_constraints_pin():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").split() if "==" in line)
    for name in columns():
        distribution, requires = words(name)
        wanted = dict(r.split("==") for r in requires)
        assert name == "loop" or distribution in {r.partition("[")[0] for r in wanted}, name
        if distribution in pinned:  # else it has an environment of its own, and pins that suit it
            assert {r: v for r, v in wanted.items() if pinned[r.partition("[")[0]] != v} == {}, name


def test_the_page_shows_every_row_and_the_pinned_versions():
    page = (ROOT / "docs/conformance.md").read_text("utf-8").partition("<!-- measured")[2]
    for side in page.split("**Under Interlock**"):
        assert [s.title for s in SCENARIOS if f"| {s.title} | " not in side] == [], "run `make conformance`"
    for name in columns():
        distribution, requires = words(name)
        pins = {r.partition("==")[0].partition("[")[0]: r.partition("==")[2] for r in requires}
        assert name == "loop" or f"| {name} {pins[distribution]} |" in page, "run `make conformance`"
    assert "**blank**" not in page
    assert "**NOT held**" not in page
