"""What diagnosis, backtest and calibration must show on the shared recorded runs; skipped where they are not there."""

from __future__ import annotations

import collections
import dataclasses
import gzip
import json
import random
from pathlib import Path

import pytest

from interlock.forensics.calibration import calibrate
from interlock.forensics.diagnosis import diagnose
from interlock.forensics.funnel_report import backtest_funnel
from interlock.forensics.trace_files import TraceFile
from interlock.forensics.traces import RecordedRun

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
# Of sets without raw records only the normalised form is there.
NORMALISED = {"moatless", "mini_swe"}
SHEET = Path(__file__).with_name("precision_sheet.tsv")


def lines_of(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return list(lines)


def runs_of(data, name) -> list[RecordedRun]:
    form = "normalized" if name in NORMALISED else "records"
    runs = list(TraceFile(data / name / f"{form}.jsonl.gz", name).runs())
    assert all(isinstance(run, RecordedRun) for run in runs)
    return runs  # type: ignore[return-value]


@pytest.fixture(scope="session")
def cases(data):
    """Runs of cases.json, each with the categories that it is labelled with."""
    wanted = collections.defaultdict(list)
    for case in json.loads((data / "cases.json").read_text(encoding="utf-8")):
        wanted[case["dataset"], case["run_id"]].append(case["category"])
    found = [
        (run, wanted[name, run.run_id])
        for name in sorted({name for name, _ in wanted})
        for run in runs_of(data, name)
        if (name, run.run_id) in wanted
    ]
    assert len(found) == len(wanted)
    return found


def is_filed_as(verdict, category) -> bool:
    return verdict == "model" if "must NOT" in category else str(verdict) == category.split()[0]


def test_every_case_is_filed_as_labelled(cases):
    """A run that is labelled twice (a loop of payments) is filed as one of its labels."""
    wrong = [
        (run.run_id, verdict, categories)
        for run, categories in cases
        if not any(is_filed_as(verdict := diagnose(run).verdict, category) for category in categories)
    ]
    assert wrong == []


def test_duplicates_are_found_whatever_the_label_says(cases):
    for run, categories in cases:
        if any(category.startswith("3") for category in categories):
            assert "duplicate_write" in [finding.reason for finding in diagnose(run).evidence], run.run_id


def renamed(run: RecordedRun, seed: int) -> RecordedRun:
    """The same run with its id, its set and its tools under other names, consistently."""
    names = sorted({call.tool for call in run.calls})
    others = [f"t{seed}_{n}" for n in range(len(names))]
    random.Random(seed).shuffle(others)
    called = dict(zip(names, others, strict=True))
    turns = tuple(
        dataclasses.replace(turn, calls=tuple(dataclasses.replace(c, tool=called[c.tool]) for c in turn.calls))
        for turn in run.turns
    )
    return dataclasses.replace(run, dataset=f"set{seed}", run_id=f"run{seed}", turns=turns)


@pytest.mark.parametrize("seed", range(5))
def test_verdicts_do_not_hang_on_names(cases, seed):
    for run, _ in cases:
        before, after = diagnose(run), diagnose(renamed(run, seed))
        assert (after.verdict, after.confidence, after.missing) == (before.verdict, before.confidence, before.missing)
        assert [(f.step, f.args_hash, f.why) for f in after.evidence] == [
            (f.step, f.args_hash, f.why) for f in before.evidence
        ]


def test_model_errors_that_people_annotated_are_not_filed_under_infrastructure(data):
    records = [json.loads(line) for line in lines_of(data / "agentrx_tau_retail" / "records.jsonl.gz")]
    runs = runs_of(data, "agentrx_tau_retail")
    annotated = [run for run, record in zip(runs, records, strict=True) if record["src"].get("annotation")]
    assert len(annotated) > 10
    filed = [run.run_id for run in annotated if diagnose(run).verdict in range(1, 8)]
    assert len(filed) <= 0.05 * len(annotated), filed


def test_precision_on_runs_that_a_reader_filed_before(data):
    """The sheet keeps disagreements; the diagnoser must still say what it says there, and be right nine times of ten."""
    rows = [line.split("\t") for line in SHEET.read_text(encoding="utf-8").splitlines()[1:]]
    read = {(dataset, run_id): (reader, said) for dataset, run_id, reader, said in rows}
    assert len(read) == 100
    right = collections.Counter()
    filed = collections.Counter()
    for name in sorted({dataset for dataset, _ in read}):
        for run in runs_of(data, name):
            if (name, run.run_id) in read:
                reader, said = read[name, run.run_id]
                verdict = str(diagnose(run).verdict)
                assert verdict == said, run.run_id
                filed[verdict] += 1
                right[verdict] += verdict == reader
    assert sum(filed.values()) == 100
    assert {verdict: right[verdict] / times for verdict, times in filed.items() if right[verdict] < 0.9 * times} == {}


@pytest.fixture(scope="session")
def calibrated(data):
    """Each set, calibrated on one half of its tasks and judged on the other."""
    return {name: calibrate([data / name]).sets[0] for name in SETS}


def test_profile_default_stops_hardly_any_healthy_run(calibrated):
    for name, each in calibrated.items():
        figures = each.to_dict()["default"]
        print(name, "profile default:", figures["successful_stopped"], "stops,", figures["false_stops"], "false")
        assert figures["false_stops"] <= figures["successful"] / 100, name


def test_calibrated_budgets_stop_fewer_than_one_in_two_hundred(calibrated):
    shares = []
    for name, each in calibrated.items():
        figures = each.to_dict()["proposed"]
        print(name, "calibrated:", figures["successful_stopped"], "stops,", figures["false_stops"], "false")
        shares.append(figures["false_stop_pct"])
    assert sum(shares) / len(shares) <= 0.5, shares


def test_every_failing_runaway_is_stopped_within_five_calls_of_its_third_repeat(calibrated):
    found = [each for each in calibrated.values() if each.runaways]
    assert sum(each.runaways for each in found) > 90
    assert [(e.dataset, e.runaways, e.runaways_stopped, e.runaways_late) for e in found] == [
        (e.dataset, e.runaways, e.runaways, 0) for e in found
    ]


def test_bursts_of_503_are_hidden_and_no_healthy_retry_is_stopped(calibrated):
    each = calibrated["tau_retail_503"]
    assert each.bursts > 40
    assert each.bursts_seen <= 0.1 * each.bursts
    assert each.to_dict()["proposed"]["successful_stopped"] == 0


@pytest.mark.parametrize("name", ["agentdojo", "tau2"])
def test_no_equal_write_is_executed_twice_and_switches_work_as_before(data, name):
    report = backtest_funnel([data / name], profile="default", deep=False, recorded_time=False).sets[0]
    assert report.counts["duplicates_recorded"] > 200
    assert report.counts["duplicates_executed"] == 0
