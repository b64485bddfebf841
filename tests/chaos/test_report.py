"""The report: its exact JSON, its verdict, and the lines that lead on."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from interlock.chaos.report import DUPLICATES_EXPECTED, Doubt, DrillReport, ScenarioReport
from interlock.chaos.scenarios import SCENARIOS, Mission
from interlock.chaos.score import Outcome, Side
from interlock.chaos.table import render


def side(**figures) -> Side:
    whole = {
        "asked": 60,
        "effects": 60,
        "duplicates": 0,
        "incidents": 0,
        "lost": 0,
        "reasons": {"success": 60},
        "forbidden": 0,
        "invented": 0,
        "refused": 0,
        "circuit_opens": 0,
        "calls": 70,
        "cost_usd": 1.5,
        "seconds": 1800.0,
    }
    return Side(**(whole | figures))


def report(bare=None, guarded=None, **words) -> DrillReport:
    bare = bare or side(effects=100, duplicates=40, incidents=15, lost=42, reasons={"answered": 57, "gave_up": 3})
    triage = ScenarioReport("triage", "Ticket triage", bare, guarded or side(), SCENARIOS[0].reported)
    quiet = ScenarioReport("injection", "Injection", side(asked=0, forbidden=4), side(asked=0, refused=4), {})
    whole = {"seed": 3, "time_scale": 0.008, "store": "sqlite:////tmp/a b/drill.db", "elapsed_s": 30.4}
    return DrillReport(scenarios=(triage, quiet), **(whole | words))


def test_the_json_has_exactly_the_agreed_shape():
    data = json.loads(json.dumps(report().as_json()))
    assert set(data) == {"seed", "time_scale", "scenarios"}
    assert (data["seed"], data["time_scale"]) == (3, 0.008)
    for scenario in data["scenarios"]:
        assert set(scenario) == {"name", "bare", "guarded"}
        for counted in (scenario["bare"], scenario["guarded"]):
            assert set(counted) == {"asked", "effects", "duplicates", "lost", "reasons"}
    assert data["scenarios"][0]["bare"] == {
        "asked": 60,
        "effects": 100,
        "duplicates": 40,
        "lost": 42,
        "reasons": {"answered": 57, "gave_up": 3},
    }


def test_a_drill_that_shows_the_incident_and_its_absence_succeeds():
    assert report().failures == ()
    assert report().exit_code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"guarded": side(duplicates=1)}, "1 duplicates under Interlock"),
        ({"guarded": side(lost=2)}, "2 lost under Interlock"),
        ({"bare": side(duplicates=DUPLICATES_EXPECTED - 1)}, "33 duplicates on the bare side"),
    ],
)
def test_a_drill_that_shows_anything_else_fails(words, says):
    failed = report(**words)
    assert failed.exit_code == 1
    assert says in failed.failures[0]


def test_34_duplicates_are_enough():
    assert report(bare=side(duplicates=DUPLICATES_EXPECTED)).exit_code == 0


def test_a_guarded_failure_in_any_scenario_counts():
    whole = report()
    bad = replace(whole.scenarios[1], guarded=side(asked=0, lost=1))
    assert replace(whole, scenarios=(whole.scenarios[0], bad)).exit_code == 1


def test_the_doubt_comes_with_the_command_that_settles_it():
    effect = {"id": "T-1007", "key": "il1_x", "url": "https://tickets.example/T-1007"}
    doubted = report(doubt=Doubt("ab12", "Users cannot log in", effect))
    words = shlex.split(doubted.settle_command)
    assert words[:4] == ["interlock", "settle", "ab12", "--done"]
    assert json.loads(words[4])["id"] == "T-1007"
    assert words[-2:] == ["--store", "sqlite:////tmp/a b/drill.db"]
    assert doubted.settle_command in render(doubted)
    never = report(doubt=Doubt("ab12", "Users cannot log in", None))
    assert "--not-performed" in never.settle_command


def test_the_end_of_the_text():
    lines = render(report(worst_run="run_77")).splitlines()
    assert lines[-1] == "a scripted agent against a scripted backend, seed 3"
    assert lines[-2].startswith("store")
    assert "interlock show run_77" in lines[-3]
    assert "none was left open" in lines[-4]
    assert "no run was stopped" in render(report())


def test_the_table_has_the_agreed_rows_and_columns():
    text = render(report(), width=140)
    for words in ("bare", "Interlock", "the article reported", "tickets asked for", "in the backend", "duplicates"):
        assert words in text
    for words in (
        "accepted but lost to the agent",
        "runs by stop reason",
        "circuit opens",
        "calls",
        "dollars",
        "seconds",
    ):
        assert words in text
    assert "40 (40%, 2.7 an incident)" in text
    assert "34 (45 %, 2.8 an incident)" in text
    assert "\x1b[" not in text
    assert "\x1b[" in render(report(), color=True)


def test_each_runaway_has_a_row_of_its_own():
    def run(reason: str, steps: int) -> Outcome:
        return Outcome(Mission("research agent", lambda _: iter(())), reason, None, steps, steps, 0.5, 0.0, 30.0)

    bare, guarded = side(asked=0, outcomes=(run("answered", 621),)), side(asked=0, outcomes=(run("loop_detected", 9),))
    runaways = ScenarioReport("runaways", "Runaways", bare, guarded, {"research agent": "620 calls, $247, 2,220 s"})
    text = render(replace(report(), scenarios=(*report().scenarios, runaways)), width=160)
    assert "621 steps, $0.50, 30 s" in text
    assert "9 steps, $0.50, 30 s: loop_detected" in text
    assert "620 calls, $247, 2,220 s" in text
