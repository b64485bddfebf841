"""On every record that lies beside its normalised form, calls, order and argument hashes are the oracle's."""

from __future__ import annotations

import gzip
import json

import pytest

from interlock.forensics.trace_files import TraceFile
from interlock.forensics.traces import Broken, args_hash

RAW = ("tau_airline_gpt4o", "tau_retail_503", "agentrx_tau_retail", "livemcp", "tau2", "agentdojo", "letta_fs")
NORMALISED = (*RAW, "moatless", "mini_swe")
# Outputs of this set were cut in the raw records and hashed whole in the oracle.
CUT_OUTPUTS = {"livemcp"}


def oracle(data, name):
    with gzip.open(data / name / "normalized.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read(data, name, form):
    runs = list(TraceFile(data / name / f"{form}.jsonl.gz", name).runs())
    assert [run for run in runs if isinstance(run, Broken)] == []
    return runs


def calls(run):
    return [(step, c.tool, c.args_hash) for step, turn in enumerate(run.turns) for c in turn.calls]


def expected(record):
    return [(c["step"], c["tool"], c["args_sha1"]) for c in record["calls"]]


@pytest.mark.parametrize("name", RAW)
def test_raw_records_equal_the_oracle(data, name):
    truth, runs = oracle(data, name), read(data, name, "records")
    assert [calls(run) for run in runs] == [expected(record) for record in truth]
    assert [run.steps for run in runs] == [record["steps"] for record in truth]
    assert [run.success for run in runs] == [record["success"] for record in truth]
    assert [run.task for run in runs] == [record["task"] for record in truth]
    assert [run.run_id for run in runs] == [record["run_id"] for record in truth]


@pytest.mark.parametrize("name", sorted(set(RAW) - CUT_OUTPUTS))
def test_raw_outputs_equal_the_oracle(data, name):
    for run, record in zip(read(data, name, "records"), oracle(data, name), strict=True):
        assert [c.output_hash for c in run.calls] == [c["out_sha1"] for c in record["calls"]]


@pytest.mark.parametrize("name", RAW)
def test_failures_are_told_from_answers_as_in_the_oracle(data, name):
    for run, record in zip(read(data, name, "records"), oracle(data, name), strict=True):
        assert [c.error is not None for c in run.calls] == [bool(c.get("error")) for c in record["calls"]]


@pytest.mark.parametrize("name", NORMALISED)
def test_normalised_records_equal_the_oracle(data, name):
    truth, runs = oracle(data, name), read(data, name, "normalized")
    assert [calls(run) for run in runs] == [expected(record) for record in truth]
    assert [run.run_id for run in runs] == [record["run_id"] for record in truth]
    assert [run.steps for run in runs] == [record["steps"] for record in truth]
    for run in runs:
        assert [args_hash(c.args) for c in run.calls if c.args is not None] == [
            c.args_hash for c in run.calls if c.args is not None
        ]


@pytest.mark.parametrize("name", ["tau2", "agentdojo", "letta_fs"])
def test_raw_records_know_model_domain_cost_and_time_as_the_oracle(data, name):
    for run, record in zip(read(data, name, "records"), oracle(data, name), strict=True):
        assert (run.run_id, run.model, run.domain) == (record["run_id"], record["model"], record["domain"])
        assert (run.cost_usd, run.seconds) == (record["cost_usd"], record["seconds"])
        for c, truth in zip(run.calls, record["calls"], strict=True):
            assert c.at_s == pytest.approx(truth.get("t"), abs=0.001)


@pytest.mark.parametrize(
    ("sample", "name", "has_id"),
    [
        (
            "mini_swe_agent/pydicom__pydicom-1256.traj.json.gz",
            "mini_swe",
            "deepseek_chat_dev_rerun/pydicom__pydicom-1256",
        ),
        ("moatless/django__django-11001.trajectory.json.gz", "moatless", "django__django-11001"),
    ],
)
def test_raw_samples_of_coding_agents_equal_the_oracle(data, sample, name, has_id):
    (run,) = TraceFile(data / "samples" / sample, name).runs()
    (record,) = [record for record in oracle(data, name) if has_id in record["run_id"]]
    assert calls(run) == expected(record)
    assert [c.output_hash for c in run.calls] == [c.get("out_sha1") for c in record["calls"]]
    assert run.cost_usd == pytest.approx(record["cost_usd"])
    assert (run.steps, run.task) == (record["steps"], record["task"])


def test_spans_of_all_dialects_hold_the_same_conversation(data):
    found = {}
    for file in sorted((data / "samples" / "otel").glob("*client_span*.json")):
        (run,) = TraceFile(file, "otel").runs()
        found[file.name] = (run.steps, [(c.tool, c.args, c.output) for c in run.calls], run.said)
    assert len(found) == 4
    weather = (2, [("get_weather", {"location": "Paris"}, "rainy, 57°F")], ("Weather in Paris?",))
    assert set(map(str, found.values())) == {str(weather)}
    (tool,) = TraceFile(data / "samples" / "otel" / "otel_genai_tool_execution_span.json", "otel").runs()
    assert [(c.tool, c.args) for c in tool.calls] == [("get_weather", {"city": "New York"})]
