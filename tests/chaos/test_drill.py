"""The drill on virtual time: what each side does, seed by seed, and that a broken guard is seen."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from interlock.chaos import guarded, scenarios
from interlock.chaos.remote import Remote
from interlock.core.reasons import StopReason


def in_project(entries, scenario: str, side: str):
    return [e for e in entries if e["project"].startswith(f"{scenario}-{side}-")]


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_incident_happens_bare_and_does_not_under_interlock(drill, seed):
    report, effects, _ = drill(seed)
    assert report.failures == ()
    bare = Counter(e["subject"] for e in in_project(effects, "triage", "bare"))
    under = Counter(e["subject"] for e in in_project(effects, "triage", "interlock"))
    assert sum(n - 1 for n in bare.values()) == report.scenarios[0].bare.duplicates >= 34
    assert set(under.values()) == {1}
    assert report.scenarios[0].guarded.reasons["success"] > 48
    # What ended otherwise waits for a person, by a doubt that the drill can show.
    assert report.doubt is not None
    assert report.doubt.effect is not None


def test_equal_seeds_give_equal_drills(drill):
    assert drill(3)[0].as_json() == drill(3)[0].as_json() != drill(4)[0].as_json()


def test_every_ticket_asked_for_is_made_once_or_in_doubt(drill):
    report, effects, _ = drill(1)
    triage = report.scenarios[0].guarded
    made = {e["subject"] for e in in_project(effects, "triage", "interlock")}
    last = {o.mission.asks_for: o for o in triage.outcomes}
    assert triage.asked == len(last) == 60
    assert {o.reason for o in last.values()} == {"success", "outcome_unknown"}
    assert {title for title, o in last.items() if o.reason == "success"} <= made


def test_every_accepted_ticket_is_stated_or_named_in_a_doubt(drill):
    report, effects, _ = drill(1)
    triage = report.scenarios[0].guarded
    stated = {o.said["ticket"] for o in triage.outcomes if o.said and o.said["ticket"]}
    unstated = {e["subject"] for e in in_project(effects, "triage", "interlock") if e["id"] not in stated}
    assert unstated  # some answers were lost for good: the drill shows what becomes of them
    assert unstated <= {o.mission.asks_for for o in triage.outcomes if o.doubts}


def test_the_report_counts_what_the_backend_lists(drill):
    report, effects, _ = drill(1)
    for scenario in report.scenarios:
        assert scenario.bare.effects == len(in_project(effects, scenario.name, "bare"))
        assert scenario.guarded.effects == len(in_project(effects, scenario.name, "interlock"))


def test_both_sides_meet_the_same_faults(drill):
    _, _, requests = drill(1)
    met = {side: defaultdict(list) for side in ("bare", "interlock")}
    for side, tickets in met.items():
        for request in in_project(requests, "triage", side):
            tickets[request["subject"]].append((request["at_s"], request["fault"]))
    assert met["bare"].keys() == met["interlock"].keys()
    compared = 0
    for subject, bare in met["bare"].items():
        for (bare_s, bare_fault), (under_s, under_fault) in zip(bare, met["interlock"][subject], strict=False):
            # In the two dark minutes, and after the window, a fault depends on when the request came.
            if not any(720 <= at_s < 840 or at_s > 1800 for at_s in (bare_s, under_s)):
                assert bare_fault == under_fault
                compared += 1
    assert compared > 60


def test_every_run_ends_with_a_named_reason(drill):
    report, _, _ = drill(1)
    for scenario in report.scenarios:
        assert set(scenario.guarded.reasons) <= set(StopReason) - {StopReason.INTERNAL_ERROR, StopReason.INVALID_INPUT}


def test_the_circuit_opens_and_what_it_refused_is_delivered_again(drill):
    report, _, _ = drill(1)
    triage = report.scenarios[0].guarded
    refused = {o.mission.asks_for for o in triage.outcomes if o.reason == "circuit_open"}
    assert triage.circuit_opens > 0
    assert refused
    later = {o.mission.asks_for for o in triage.outcomes if o.reason != "circuit_open"}
    assert refused <= later


def test_the_runaways_are_stopped_each_for_its_own_reason(drill):
    report, _, _ = drill(1)
    under = {o.mission.name: o for o in report.scenarios[1].guarded.outcomes}
    assert {name: o.reason for name, o in under.items()} == {
        "research agent": "loop_detected",
        "typical runaway": "step_budget",
        "worst runaway": "no_progress",
    }
    for bare in report.scenarios[1].bare.outcomes:
        assert under[bare.mission.name].steps <= 25
        assert under[bare.mission.name].cost_usd <= 1.0 < bare.cost_usd
    assert report.worst_run == under["typical runaway"].run_id


def test_forbidden_writes_happen_bare_and_are_refused_on_record(drill):
    report, effects, _ = drill(1)
    assert Counter(e["kind"] for e in in_project(effects, "injection", "bare")) == {"row": 2, "email": 2}
    assert in_project(effects, "injection", "interlock") == []
    assert report.scenarios[2].guarded.refused == 5
    assert report.scenarios[2].guarded.reasons == {"success": 1, "tool_denied": 1}


def test_no_value_is_invented_under_interlock(drill):
    report, _, _ = drill(1)
    schema = report.scenarios[3]
    assert (schema.bare.invented, schema.bare.lost) == (8, 3)
    assert (schema.guarded.invented, schema.guarded.lost) == (0, 0)
    assert schema.guarded.reasons["tool_output_invalid"] == 6


def test_the_drill_sees_it_when_the_key_is_not_sent(drill, monkeypatch):
    with_key = Remote.create_ticket

    async def without_key(self, project, title, description, idempotency_key=None):
        return await with_key(self, project, title, description)

    monkeypatch.setattr(Remote, "create_ticket", without_key)
    report, _, _ = drill(1)
    assert report.exit_code == 1
    assert report.scenarios[0].guarded.duplicates > 10
    assert report.scenarios[0].guarded.lost > 10


def test_the_drill_sees_it_when_doubts_are_not_kept(drill, monkeypatch):
    whole = guarded.GuardedSide.ledger

    async def forgetful(self, outcomes):
        ledger = await whole(self, outcomes)
        return guarded.Ledger((), frozenset(), ledger.refused, ledger.circuit_opens)

    monkeypatch.setattr(guarded.GuardedSide, "ledger", forgetful)
    report, _, _ = drill(1)
    assert report.exit_code == 1
    assert report.scenarios[0].guarded.lost > 0
    assert report.scenarios[3].guarded.lost == 3
    assert report.settle_command is None


def test_the_drill_sees_it_when_outputs_are_believed(drill, monkeypatch):
    strict = guarded.configuration

    def lenient(time_scale):
        return strict(time_scale) | {"validation": {"output": {"fail_closed": False}}}

    monkeypatch.setattr(guarded, "configuration", lenient)
    report, _, _ = drill(1)
    assert report.exit_code == 1
    assert report.scenarios[3].guarded.invented > 0


def test_the_drill_sees_it_when_there_was_no_incident(drill, monkeypatch):
    monkeypatch.setattr(scenarios, "TRIAGE_RUNS", 9)
    report, _, _ = drill(1)
    assert report.exit_code == 1
    assert "fewer than the 34" in report.failures[0]
