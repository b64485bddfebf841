"""Log lines: what they say, what they leave out, and that nothing waits or fails for them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest
from record_scenes import Scope

from interlock.record.lines import LineSink, LoggingOptions
from interlock.record.trace import Kind, Refused, pack
from interlock.record.writer import LineWriter

ARTICLE_INCLUDE = ("run_id", "tool", "args_hash", "elapsed_s", "status", "stop_reason", "cost_usd")
AT = 1_732_245_462.25  # 2024-11-22T03:17:42.250Z

RECORD = {
    "run_id": "run_abc123",
    "tenant_id": "acme",
    "timestamp": "2024-11-22T03:17:42Z",
    "stop_reason": "tool_budget",
    "steps": 47,
    "tool_calls": 35,
    "duration_s": 127.3,
    "cost_usd": 2.47,
    "trace": [{"step": 0, "tool": "search.read"}],
    "details": {"message": "GET /x?api_key=abc failed"},
}


def entry(*, status="success", more=None, tool="search.read", at=AT, turn=1, seq=1):
    return Kind(tool, status, "read", more), pack(seq, turn, 1, at, 0.834, b"\xa1" * 16)


@pytest.fixture
def write(tmp_path, clock):
    """Write calls, runs or events with the given options; return the lines as dicts (or text)."""

    def run(act, **options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
        sink = LineSink(LoggingOptions(**{"level": "info", "to": str(path)} | options), clock, gather_s=0)
        act(sink, Scope(clock).trace)
        sink.close()
        text = path.read_text() if path.exists() else ""
        return [orjson.loads(line) for line in text.splitlines()] if options.get("structured", True) else text

    return run


def test_a_call_is_one_json_line(write):
    (line,) = write(lambda sink, trace: sink.call(trace, entry()))
    assert line == {
        "timestamp": "2024-11-22T03:17:42.250Z",
        "level": "info",
        "event": "call",
        "run_id": "run_abc123",
        "tenant_id": "acme",
        "step": 0,
        "tool": "search.read",
        "args_hash": "a1" * 16,
        "elapsed_s": 0.834,
        "status": "success",
        "seq": 1,
        "effect": "read",
        "attempts": 1,
    }


def test_a_refusal_is_a_warning_with_its_reason(write):
    more = Refused("tool_denied", "deny", ())
    (line,) = write(lambda sink, trace: sink.call(trace, entry(status="denied", more=more)))
    assert (line["level"], line["status"], line["reason"], line["policy"]) == (
        "warning",
        "denied",
        "tool_denied",
        "deny",
    )
    assert "key" not in line


@pytest.mark.parametrize("status", ["replayed", "repeated"])
def test_an_answer_from_a_record_is_no_warning(write, status):
    (line,) = write(lambda sink, trace: sink.call(trace, entry(status=status)))
    assert line["level"] == "info"


def test_the_articles_include_selects_its_fields(write):
    def act(sink, trace):
        sink.call(trace, entry())
        sink.call(trace, entry(status="denied", more=Refused("tool_denied", "deny", ())))
        sink.run(RECORD)

    always = {"timestamp", "level", "event"}
    call, refusal, run = write(act, include=ARTICLE_INCLUDE)
    assert set(call) == always | {"run_id", "tool", "args_hash", "elapsed_s", "status"}
    assert set(refusal) == set(call) | {"reason"}
    assert set(run) == always | {"run_id", "elapsed_s", "stop_reason", "cost_usd"}


def test_the_end_of_a_run_is_a_line_without_its_trace(write):
    (line,) = write(lambda sink, _: sink.run(RECORD))
    assert (line["event"], line["level"], line["stop_reason"]) == ("run", "warning", "tool_budget")
    assert line["elapsed_s"] == 127.3
    assert "duration_s" not in line
    assert "trace" not in line


def test_the_trace_is_in_the_line_when_asked_for(write):
    (line,) = write(lambda sink, _: sink.run(RECORD), include=("run_id", "trace"))
    assert line["trace"] == RECORD["trace"]


def test_a_run_that_succeeded_is_no_warning(write):
    assert write(lambda sink, _: sink.run(RECORD | {"stop_reason": "success"}))[0]["level"] == "info"
    assert write(lambda sink, _: sink.run(RECORD | {"stop_reason": "success"}), level="warning") == []


def test_events_below_the_level_are_not_written(write):
    def act(sink, _):
        sink.event("debug", "a", {})
        sink.event("info", "b", {})
        sink.event("error", "c", {"token": "x"})

    assert [line["event"] for line in write(act, level="warning")] == ["c"]


def test_what_details_say_is_redacted(write):
    (line,) = write(lambda sink, _: sink.run(RECORD))
    assert "abc" not in line["details"]["message"]


def test_arguments_are_written_only_when_asked_for_and_redacted(write):
    args = b'{"title":"Login outage","api_key":"k1","deep":{"Access-Token":"k2","note":"Bearer abcdef123456"}}'
    plain = write(lambda sink, trace: sink.call(trace, entry(), args))[0]
    assert plain["args"]["api_key"] == "[redacted]"

    def act(sink, trace):
        assert sink.wants_args
        sink.call(trace, entry(), args)

    (line,) = write(act, include=("tool", "args"), redact=("token", "api_key"))
    assert line["args"]["title"] == "Login outage"
    assert not {"k1", "k2", "abcdef123456"} & set(orjson.dumps(line).decode().split('"'))


def test_by_default_nobody_hands_arguments_over(clock):
    assert not LineSink(LoggingOptions(), clock).wants_args


def test_text_says_the_same_and_no_value_begins_a_line_of_its_own(write):
    def act(sink, trace):
        sink.call(trace, entry())
        sink.event("warning", "run", {"message": "a b\n2026 error forged=1", "n": 3, "none": None, "list": [1]})

    text = write(act, structured=False)
    call, run = text.splitlines()
    assert call.startswith(
        "2024-11-22T03:17:42.250Z info call run_id=run_abc123 tenant_id=acme step=0 tool=search.read"
    )
    assert 'message="a b\\n2026 error forged=1" n=3 list=[1]' in run


@pytest.mark.parametrize("at", [0.0, 59.9996, 60.0, 1_732_245_462.0, 951_826_500.5])
def test_timestamps_are_iso_8601_in_utc(write, at):
    from datetime import UTC, datetime

    (line,) = write(lambda sink, trace: sink.call(trace, entry(at=at)))
    read = datetime.strptime(line["timestamp"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert 0 <= at - read.timestamp() < 0.00101


def test_timestamps_follow_a_clock_that_goes_back(write):
    lines = write(lambda sink, trace: [sink.call(trace, entry(at=at)) for at in (AT, AT - 3600, AT)])
    assert [line["timestamp"][11:16] for line in lines] == ["03:17", "02:17", "03:17"]


def test_lines_go_to_stderr_as_it_is_at_that_moment(clock, capsys):
    sink = LineSink(LoggingOptions(level="info"), clock, gather_s=0)
    sink.event("info", "hello", {})
    assert sink.flush()
    assert '"event":"hello"' in capsys.readouterr().err
    sink.close()


def test_a_directory_that_is_missing_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "log"
    writer = LineWriter(str(path), bytes, gather_s=0)
    writer.put(b"x\n")
    writer.close()
    assert path.read_bytes() == b"x\n"


def test_lines_of_many_threads_are_all_there_and_whole(tmp_path):
    path = tmp_path / "log"
    writer = LineWriter(str(path), bytes, gather_s=0.001)

    def work(name):
        for i in range(500):
            writer.put(b"%d-%d\n" % (name, i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 4000
    for n in range(8):
        mine = [line for line in lines if line.startswith(b"%d-" % n)]
        assert mine == [b"%d-%d" % (n, i) for i in range(500)]
    writer.close()


def test_a_line_after_close_starts_anew(tmp_path):
    path = tmp_path / "log"
    writer = LineWriter(str(path), bytes, gather_s=0)
    for i in range(3):
        writer.put(b"%d\n" % i)
        writer.close()
    assert path.read_bytes() == b"0\n1\n2\n"


def test_nothing_runs_before_the_first_line(tmp_path):
    before = threading.active_count()
    writer = LineWriter(str(tmp_path / "log"), bytes)
    assert writer.flush()
    writer.close()
    assert threading.active_count() == before
    assert not (tmp_path / "log").exists()


def test_a_rotated_file_is_opened_anew(tmp_path):
    path = tmp_path / "log"
    writer = LineWriter(str(path), bytes, gather_s=0)
    writer.put(b"old\n")
    assert writer.flush()
    path.rename(tmp_path / "log.1")
    writer.put(b"new\n")
    writer.close()
    assert (tmp_path / "log.1").read_bytes() == b"old\n"
    assert path.read_bytes() == b"new\n"


def test_a_full_disk_loses_lines_counts_them_warns_once_and_goes_on(tmp_path, capsys):
    path = tmp_path / "log"
    path.mkdir()  # cannot be opened for writing, as a disk that is full cannot be written
    writer = LineWriter(str(path), bytes, gather_s=0)
    for _ in range(2):
        writer.put(b"lost\n")
        writer.put(b"lost\n")
        assert writer.flush()
    assert writer.lost == 4
    assert capsys.readouterr().err.count("log lines are being lost") == 1
    path.rmdir()
    writer.put(b"kept\n")
    writer.close()
    said, kept = path.read_bytes().splitlines()
    assert orjson.loads(said) == {"level": "error", "event": "lines_lost", "lost": 4}
    assert kept == b"kept"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_without_space_is_survived(capsys):
    writer = LineWriter("/dev/full", bytes, gather_s=0)
    writer.put(b"x\n")
    writer.close()
    assert writer.lost == 1
    assert "No space left" in capsys.readouterr().err


def test_a_torn_line_is_ended_before_the_next(tmp_path, monkeypatch):
    path, real, left = tmp_path / "log", os.write, [3]

    def full_after_three_bytes(fd, data):
        if left[0] <= 0:
            raise OSError(28, "No space left on device")
        n = real(fd, bytes(data)[: left[0]])
        left[0] -= n
        return n

    writer = LineWriter(str(path), bytes, gather_s=0)
    monkeypatch.setattr(os, "write", full_after_three_bytes)
    writer.put(b"abcdef\n")
    assert writer.flush()
    left[0] = 1_000
    writer.put(b"next\n")
    writer.close()
    torn, said, kept = path.read_bytes().splitlines()
    assert (torn, orjson.loads(said)["lost"], kept) == (b"abc", 1, b"next")


def test_a_queue_that_is_full_loses_the_newest_without_waiting(tmp_path):
    free, entered = threading.Event(), threading.Event()

    def stuck(item):
        entered.set()
        assert free.wait(5)
        return item

    writer = LineWriter(str(tmp_path / "log"), stuck, gather_s=0, max_queued=3)
    writer.put(b"first\n")
    assert entered.wait(5)
    for i in range(5):
        writer.put(b"%d\n" % i)
    assert writer.lost == 2
    assert not writer.flush(timeout_s=0.01)
    free.set()
    writer.close()
    assert (tmp_path / "log").read_bytes().count(b"\n") == 5  # first, 0, 1, 2 and what was lost


def test_a_line_that_cannot_be_made_loses_only_itself(tmp_path, capsys):
    writer = LineWriter(str(tmp_path / "log"), lambda item: item + b"\n", gather_s=0)
    writer.put(None)
    writer.put(b"fine")
    writer.close()
    assert writer.lost == 1
    assert (tmp_path / "log").read_bytes().endswith(b"fine\n")
    assert "being lost" in capsys.readouterr().err


def test_lines_are_written_when_the_interpreter_ends(tmp_path):
    path = tmp_path / "log"
    code = f"""
from interlock.record.lines import LineSink, LoggingOptions
sink = LineSink(LoggingOptions(level="info", to={str(path)!r}))
for i in range(100):
    sink.event("info", "n", {{"i": i}})
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    assert [orjson.loads(line)["i"] for line in path.read_bytes().splitlines()] == list(range(100))


def test_records_can_be_written_one_a_line(tmp_path):
    path = tmp_path / "records.jsonl"
    writer = LineWriter(str(path), gather_s=0)
    writer.put(RECORD)
    writer.put(RECORD | {"run_id": "run_2", "odd": {1}})
    writer.close()
    first, second = (orjson.loads(line) for line in path.read_bytes().splitlines())
    assert first == RECORD
    assert (second["run_id"], second["odd"]) == ("run_2", "{1}")
