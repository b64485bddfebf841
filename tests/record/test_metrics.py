"""Numbers that a Prometheus server can read."""

from __future__ import annotations

import math
import re

import pytest

from interlock.core.reasons import StopReason
from interlock.record.metrics import MAX_SERIES, Metrics

SAMPLE = re.compile(r'^([a-z_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)+\})? (\S+)$')


def parse(text):
    """Read text format 0.0.4 strictly: {name: {labels: value}}; every sample after its HELP and TYPE."""
    assert text.endswith("\n")
    families, samples = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in families
            families[name] = kind
        elif not line.startswith("# HELP "):
            found = SAMPLE.match(line)
            assert found, line
            name, labels, value = found.groups()
            family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in families else name
            assert family in families, line
            labels = tuple(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', labels or ""))
            assert labels not in samples.setdefault(name, {}), line
            samples[name][labels] = float(value)
    return samples


def test_an_idle_process_renders_without_fault():
    samples = parse(Metrics().render())
    assert samples["interlock_dedup_hits_total"] == {(): 0}
    assert samples["interlock_run_duration_seconds_count"] == {(): 0}


def test_runs_and_dollars():
    metrics = Metrics()
    metrics.run_ended("triage", StopReason.SUCCESS, 2.0)
    metrics.run_ended("triage", StopReason.LOOP_DETECTED, 40.0, 1)
    metrics.run_ended("triage", StopReason.SUCCESS, 0.05)
    metrics.spent("triage", "gpt", 0.25)
    metrics.spent("triage", "gpt", 0.5)
    metrics.spent("triage", "new-model", None)
    samples = parse(metrics.render())
    assert samples["interlock_runs_total"] == {
        (("agent", "triage"), ("stop_reason", "success"), ("category", "none")): 2,
        (("agent", "triage"), ("stop_reason", "loop_detected"), ("category", "1")): 1,
    }
    assert samples["interlock_cost_usd_total"] == {(("agent", "triage"), ("model", "gpt")): 0.75}
    assert samples["interlock_cost_unknown_total"] == {(("model", "new-model"),): 1}
    assert samples["interlock_run_duration_seconds_sum"] == {(): pytest.approx(42.05)}


def test_an_unknown_price_is_never_zero_dollars():
    metrics = Metrics()
    metrics.spent("a", "m", None)
    assert "interlock_cost_usd_total" not in parse(metrics.render())


def test_buckets_are_cumulative_and_end_in_the_count():
    metrics = Metrics()
    cell = metrics.tool("t")
    for duration_s in (0.0005, 0.001, 0.3, 7.0, 1_000.0):
        cell.add("success", duration_s)
    samples = parse(metrics.render())
    buckets = {dict(labels)["le"]: n for labels, n in samples["interlock_tool_call_duration_seconds_bucket"].items()}
    assert buckets["0.001"] == 2, "an edge belongs to its bucket"
    assert buckets["0.5"] == 3
    assert buckets["10.0"] == 4
    assert buckets["+Inf"] == 5 == samples["interlock_tool_call_duration_seconds_count"][(("tool", "t"),)]
    assert list(buckets.values()) == sorted(buckets.values())


def test_replayed_writes_are_dedup_hits():
    metrics = Metrics()
    metrics.tool("a").add("replayed", 0.1)
    metrics.tool("b").add("replayed", 0.1)
    metrics.tool("b").add("success", 0.1)
    assert parse(metrics.render())["interlock_dedup_hits_total"] == {(): 2}


def test_labels_are_escaped():
    metrics = Metrics()
    metrics.run_ended('a"b\\c\nd', StopReason.SUCCESS, 1)
    samples = parse(metrics.render())
    assert list(samples["interlock_runs_total"]) == [
        (("agent", 'a\\"b\\\\c\\nd'), ("stop_reason", "success"), ("category", "none"))
    ]


def test_gauges_are_read_when_asked():
    metrics, state = Metrics(), {("search.read",): 0.0}
    metrics.watch("interlock_circuit_state", lambda: state)
    metrics.watch("interlock_safe_mode", lambda: {(): 1})
    state[("search.read",)] = 2.0
    samples = parse(metrics.render())
    assert samples["interlock_circuit_state"] == {(("tool", "search.read"),): 2}
    assert samples["interlock_safe_mode"] == {(): 1}


def test_a_gauge_that_cannot_be_read_takes_nothing_with_it():
    metrics = Metrics()

    def broken():
        raise OSError("store down")

    metrics.watch("interlock_approvals_pending", broken)
    metrics.run_ended("a", StopReason.SUCCESS, 1)
    samples = parse(metrics.render())
    assert "interlock_approvals_pending" not in samples
    assert "interlock_runs_total" in samples


def test_odd_numbers_are_still_numbers():
    metrics = Metrics()
    metrics.watch("interlock_approval_age_seconds", lambda: {(): math.inf})
    assert parse(metrics.render())["interlock_approval_age_seconds"] == {(): math.inf}


def test_an_unpublished_name_is_refused():
    with pytest.raises(KeyError):
        Metrics().watch("interlock_made_up", dict)


def test_labels_that_keep_taking_new_values_end_in_other():
    metrics = Metrics()
    for i in range(MAX_SERIES + 500):
        metrics.spent(f"agent{i}", "m", 1.0)
        metrics.tool(f"tool{i}").add("success", 0.1)
    samples = parse(metrics.render())
    spent = samples["interlock_cost_usd_total"]
    assert len(spent) == MAX_SERIES + 1
    assert spent[(("agent", "other"), ("model", "other"))] == 500
    assert samples["interlock_tool_calls_total"][(("tool", "other"), ("outcome", "success"))] == 500
