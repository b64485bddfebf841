"""Profile `default` on the shared recorded runs: runaways stop, healthy runs do not, nothing is written twice."""

from __future__ import annotations

import functools
import itertools
import json
import os

import pytest

from interlock.config.settings import load_settings
from interlock.forensics.effects import load_effects
from interlock.forensics.funnel import drive
from interlock.forensics.funnel_report import SetReport, backtest_funnel
from interlock.forensics.trace_files import TraceFile

DEFAULT = load_settings(profile="default")
# A set of thousands is judged by every n-th run, unless INTERLOCK_TEST_FULL=1.
STRIDE = {"agentdojo": 20, "tau2": 3, "mini_swe": 4}
SETS = (
    "tau_airline_gpt4o",
    "tau_retail_503",
    "agentrx_tau_retail",
    "livemcp",
    "tau2",
    "agentdojo",
    "letta_fs",
    "moatless",
    "mini_swe",
)


@pytest.fixture(scope="session")
def cases(data):
    """Each run of cases.json: category to its runs as the funnel left them."""
    wanted = {}
    for case in json.loads((data / "cases.json").read_text(encoding="utf-8")):
        wanted.setdefault((case["dataset"], case["run_id"]), []).append(case["category"])
    by_category = {}
    for dataset in {dataset for dataset, _ in wanted}:
        for run in TraceFile(data / dataset / "normalized.jsonl.gz", dataset).runs():
            categories = wanted.pop((dataset, run.run_id), ())
            if categories:
                result = drive(run, DEFAULT, load_effects()[dataset])
                for category in categories:
                    by_category.setdefault(category, []).append(result)
    assert wanted == {}
    return by_category


@pytest.fixture(scope="session")
def driven(data):
    """Given a set's name, every n-th of its runs as profile `default` left it; each set is driven once."""

    @functools.cache
    def of(name):
        runs = TraceFile(data / name / "normalized.jsonl.gz", name).runs()
        stride = 1 if os.environ.get("INTERLOCK_TEST_FULL") == "1" else STRIDE.get(name, 1)
        # Recorded seconds belong to the machine of the record, and are judged elsewhere.
        return [
            drive(run, DEFAULT, load_effects()[name], recorded_time=False)
            for run in itertools.islice(runs, 0, None, stride)
        ]

    return of


def test_every_runaway_stops(cases):
    runaways = cases["1 unbounded loop"]
    assert len(runaways) == 12
    assert [r.run.run_id for r in runaways if not r.stopped] == []
    # … and soon: within five calls of the third repeat, which is at most the 8th call of these runs.
    assert [r.run.run_id for r in runaways if (r.stopped_at or 0) > 13] == []


def test_no_healthy_run_is_stopped(cases):
    healthy = [r for category, results in cases.items() if "must NOT be stopped" in category for r in results]
    assert len(healthy) == 14
    assert [(r.run.run_id, str(r.reason)) for r in healthy if r.stopped] == []


def test_no_duplicate_of_the_record_is_executed(cases):
    duplicates = cases["3 duplicate side effect"]
    assert sum(r.duplicates_recorded for r in duplicates) > 200
    assert [r.run.run_id for r in duplicates if r.duplicates_executed] == []


@pytest.mark.parametrize("name", SETS)
def test_the_funnel_changes_no_arguments_and_writes_nothing_twice(driven, name):
    for result in driven(name):
        assert result.strayed == 0, result.run.run_id
        assert result.duplicates_executed == 0, result.run.run_id
        assert result.executed + result.answered + result.refused == result.proposed, result.run.run_id


@pytest.mark.parametrize("name", SETS)
def test_false_stops_stay_below_one_per_cent(driven, name):
    """Of runs labelled successful that neither ran away nor wrote twice."""
    report = SetReport(name)
    for result in driven(name):
        report.add(result)
    label = report.successful
    assert label.runs > 0
    assert label.stopped - label.stopped_runaways <= label.runs / 100, report.stopped


def test_most_503s_are_hidden_and_no_successful_run_is_stopped_by_them(driven):
    results = driven("tau_retail_503")
    recorded = sum(r.transient_recorded for r in results)
    assert recorded == 60
    assert sum(r.transient_seen for r in results) < recorded / 3
    assert [r.run.run_id for r in results if r.stopped and r.run.success] == []


@pytest.mark.parametrize("name", ["tau_retail_503", "livemcp"])
def test_raw_records_end_as_the_normalised_ones(data, driven, name):
    normalised = SetReport(name)
    for result in driven(name):
        normalised.add(result)
    raw = backtest_funnel([data / name / "records.jsonl.gz"], profile="default").sets[0]
    assert raw.reasons == normalised.reasons
    for count in ("recorded", "executed", "answered", "refused", "duplicates_executed"):
        assert (count, raw.counts[count]) == (count, normalised.counts[count])
    assert raw.successful == normalised.successful
