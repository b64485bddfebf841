"""One structured record a run, the article's structure first."""

from __future__ import annotations

import orjson
from record_scenes import Scope, answering, make_call, make_tool

from interlock.core.clock import ManualClock
from interlock.core.reasons import StopReason
from interlock.core.results import RunResult
from interlock.record.metrics import Metrics
from interlock.record.recorder import Recorder
from interlock.record.redact import Redactor
from interlock.record.runrecord import build_record
from interlock.record.trace import Trace

ARTICLE = ["run_id", "tenant_id", "timestamp", "stop_reason", "steps", "tool_calls", "duration_s", "cost_usd", "trace"]
ENDED_AT = 1_732_245_462.9


def result(**facts):
    given = {
        "run_id": "run_abc123",
        "reason": StopReason.TOOL_BUDGET,
        "steps": 47,
        "tool_calls": 35,
        "cost_usd": 2.47,
        "elapsed_s": 127.3,
        "tokens": 900,
        "tenant_id": "acme_corp",
        "request_id": "req_7842",
    }
    return RunResult(**given | facts)


def test_the_articles_fields_come_first_in_its_order_with_its_values():
    record = build_record(result(), Trace("run_abc123", agent="triage"), ended_at=ENDED_AT)
    assert list(record)[: len(ARTICLE)] == ARTICLE
    assert [record[name] for name in ARTICLE] == [
        "run_abc123",
        "acme_corp",
        "2024-11-22T03:17:42Z",
        "tool_budget",
        47,
        35,
        127.3,
        2.47,
        [],
    ]


def test_ours_come_after():
    record = build_record(result(), Trace("run_abc123", agent="triage"), ended_at=ENDED_AT, attempts=2)
    assert (record["request_id"], record["agent"], record["tokens"], record["attempts"]) == (
        "req_7842",
        "triage",
        900,
        2,
    )
    assert (record["root_run_id"], record["path"], record["parked"]) == ("run_abc123", "", False)


def test_a_child_names_its_root():
    record = build_record(result(), Trace("run_abc123"), ended_at=0, root_run_id="run_root", path="research/1")
    assert (record["root_run_id"], record["path"]) == ("run_root", "research/1")


def test_a_parked_run_says_so():
    record = build_record(result(reason=StopReason.OUTCOME_UNKNOWN), Trace("r"), ended_at=0)
    assert record["parked"] is True


async def test_the_trace_is_in_it_and_what_was_dropped():
    clock = ManualClock()
    scope = Scope(clock, kept=2)
    tool = make_tool()
    guarded = Recorder(Metrics())(tool, answering(clock, seconds=0.5))
    for seq in range(1, 4):
        await guarded(make_call(scope, tool, seq=seq, turn=seq))
    record = build_record(result(), scope.trace, ended_at=0)
    assert [row["step"] for row in record["trace"]] == [1, 2]
    assert record["trace"][0]["args_hash"] == "02" * 16
    assert record["trace_dropped"] == 1
    assert orjson.loads(orjson.dumps(record))["trace"][0]["duration_ms"] == 500.0


def test_details_are_redacted_and_hold_no_content():
    details = {
        "error": "HTTPError",
        "message": "401 for https://x?token=abc",
        "headers": {"Authorization": "Bearer abcdef123456"},
        "partial": {"draft": "what the agent wrote"},
        "output": "content",
    }
    record = build_record(result(details=details), Trace("r"), ended_at=0)
    text = orjson.dumps(record).decode()
    assert record["details"]["error"] == "HTTPError"
    assert not [word for word in ("abc&", "=abc", "abcdef123456", "wrote", "content") if word in text]


def test_an_output_is_never_in_it():
    record = build_record(result(reason=StopReason.SUCCESS, output="what the agent wrote"), Trace("r"), ended_at=0)
    assert b"wrote" not in orjson.dumps(record)


def test_facts_are_added_redacted_and_replace_nothing():
    facts = {"profile": "support", "run_id": "forged", "model": {"api_key": "k"}}
    record = build_record(result(), Trace("r"), ended_at=0, facts=facts, redactor=Redactor(("api_key",)))
    assert (record["profile"], record["run_id"], record["model"]) == (
        "support",
        "run_abc123",
        {"api_key": "[redacted]"},
    )


def test_details_that_are_not_json_do_not_break_the_record():
    record = build_record(result(details={"error": ValueError("x"), "n": 2**90}), Trace("r"), ended_at=0)
    assert orjson.loads(orjson.dumps(record))["details"]["error"] == "[ValueError]"
