"""runs, show, doctor: what a store says."""

from __future__ import annotations

from pathlib import Path

import pytest

from interlock.cli.waterfall import waterfall
from interlock.core.reasons import EXIT_CODES, StopReason


def test_runs_newest_first(typed, store):
    said = typed("runs")
    lines = said.out.splitlines()
    assert said.code == 0
    assert [line.split()[2] for line in lines[1:]] == [
        "run_now",
        "run_doubt",
        "run_seen_too",
        "run_seen",
        "run_loop",
        "run_ok",
    ]
    assert "loop_detected" in lines[5]
    assert "$0.0321" in lines[5]
    assert "running" in lines[1]


def test_runs_as_json_and_filtered(typed, store):
    assert [run["run_id"] for run in typed("runs", "--json", "--reason", "loop_detected").json] == ["run_loop"]
    assert [run["run_id"] for run in typed("runs", "--json", "--tenant", "beta").json] == ["run_ok"]
    assert [run["run_id"] for run in typed("runs", "--json", "--state", "parked").json] == ["run_doubt"]
    assert len(typed("runs", "--json", "--limit", "2").json) == 2
    run = typed("runs", "--json", "--reason", "loop_detected").json[0]
    assert (run["stop_reason"], run["steps"], run["cost_usd"], run["state"]) == ("loop_detected", 4, 0.0321, "ended")


@pytest.mark.parametrize("args", [["--reason", "looped"], ["--state", "asleep"], ["--limit", "0"]])
def test_runs_with_a_filter_that_cannot_be(typed, store, args):
    assert typed("runs", *args).code == 2


def test_would_have_is_summed_up(typed, store):
    summed = typed("runs", "--would-have", "--json").json
    assert summed["runs"] == 6
    assert summed["would_have"] == [
        {"reason": "tool_denied", "runs": 2, "calls": 3, "tools": {"db.drop": 3}},
        {"reason": "loop_detected", "runs": 1, "calls": 1, "tools": {"web.fetch": 1}},
    ]
    assert "db.drop 3" in typed("runs", "--would-have").out


def test_show_says_why_and_what_to_do(typed, store):
    out = typed("show", "run_loop").out
    assert "run_loop  loop_detected" in out
    assert "4 steps, 4 calls, 4,200 tokens, $0.0321, 12.5 s" in out
    assert "message: kb.read for the 5th time" in out
    assert "partial" not in out
    assert "interlock runbook loop_detected" in out
    rows = [line.split() for line in out.splitlines() if line.lstrip()[:1].isdigit() and "█" in line]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert "= call 1" in out
    assert "tool_denied (deny)" in out


def test_show_takes_the_newest_run_when_none_is_named(typed, store):
    assert typed("show", "--json").json["run_id"] == "run_now"


def test_a_run_under_way_shows_the_calls_written_so_far(typed, store):
    shown = typed("show", "run_now", "--json").json
    assert shown["state"] == "running"
    assert [row["tool"] for row in shown["trace"]] == ["kb.read"]
    assert "running" in typed("show", "run_now").out


def test_show_as_json_is_the_record_first(typed, store):
    shown = typed("show", "run_loop", "--json").json
    assert list(shown)[:9] == [
        "run_id",
        "tenant_id",
        "timestamp",
        "stop_reason",
        "steps",
        "tool_calls",
        "duration_s",
        "cost_usd",
        "trace",
    ]
    assert shown["trace"][3]["policy"] == "deny"
    assert shown["claims"] == []


def test_show_of_a_parked_run_has_the_command_that_closes_its_doubt(typed, store):
    out = typed("show", "run_doubt").out
    assert "outcome_unknown (parked)" in out
    assert "ticket.create call 3: in doubt; attempt 1: read timeout" in out
    assert f"interlock settle {(int(1.7e12).to_bytes(8, 'big') + bytes(range(16))).hex()} --not-performed" in out
    assert "order.create call 3: done, answer withheld" in out


def test_show_can_exit_with_the_reason(typed, store):
    assert typed("show", "run_loop", "--exit-code").code == EXIT_CODES[StopReason.LOOP_DETECTED]
    assert typed("show", "run_loop", "--exit-code", "--json").code == EXIT_CODES[StopReason.LOOP_DETECTED]
    assert typed("show", "run_ok", "--exit-code").code == 0
    assert typed("show", "run_loop").code == 0


def test_show_of_nothing(typed, store):
    said = typed("show", "run_nope")
    assert said.code == 1
    assert "no run has the id 'run_nope'" in said.err


def test_what_a_model_wrote_cannot_move_the_cursor(typed, store, monkeypatch):
    monkeypatch.setattr("interlock.cli.records.when", lambda _at: "\x1b[2J\x07now")
    out = typed("show", "run_loop").out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "�[2J�now" in out


# The waterfall


def row(ms, batch=None, **more):
    return {"duration_ms": ms, "tool": "t", "args_hash": str(ms), "status": "success", "batch": batch} | more


def bars(*rows, width=10):
    return [(line.start, line.length) for line in waterfall(rows, width)]


def test_calls_of_a_batch_stand_beside_each_other_and_batches_follow():
    assert bars(row(50, 1), row(50, 1), row(50, 2)) == [(0, 5), (0, 5), (5, 5)]


def test_calls_without_a_batch_follow_each_other():
    assert bars(row(20), row(30), row(50)) == [(0, 2), (2, 3), (5, 5)]


def test_a_call_that_took_no_time_is_seen_all_the_same():
    assert bars(row(0), row(100), row(0)) == [(0, 1), (0, 10), (9, 1)]
    assert bars(row(0)) == [(0, 1)]
    assert bars() == []
    assert bars({}) == [(0, 1)]


def test_a_bar_never_leaves_the_page():
    for start, length in bars(*(row(ms) for ms in range(1, 400)), width=32):
        assert 0 <= start < 32
        assert 1 <= length <= 32 - start


# doctor


def levels(said):
    return {finding["subject"]: finding["level"] for finding in said.json["findings"]}


def test_doctor_on_a_store_that_is_well(typed, store):
    said = typed("doctor", "--json")
    assert said.code == 0
    found = levels(said)
    assert (found["configuration"], found["store"], found["disk"], found["sealing"]) == ("ok", "ok", "ok", "ok")
    assert (found["doubts"], found["approvals"]) == ("warning", "warning")
    assert "1 open" in typed("doctor").out


def test_doctor_tells_of_switches(typed, store):
    typed("kill", "tenant", "acme", "--by", "ana", "--reason", "storm")
    assert "kill tenant acme, by ana" in typed("doctor").out


def test_doctor_finds_a_key_that_others_can_read(typed, store):
    Path("interlock.key").chmod(0o644)
    said = typed("doctor", "--json")
    assert levels(said)["sealing"] == "warning"


def test_doctor_knows_file_systems_that_cannot_hold_a_store(typed, store, monkeypatch, here):
    mounts = here / "mounts"
    monkeypatch.setattr("interlock.cli.machine.MOUNTS", mounts)
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {here} nfs4 rw 0 0\n", encoding="utf-8")
    said = typed("doctor", "--json")
    assert (said.code, levels(said)["file system"]) == (1, "error")
    mounts.write_text(f"server:/x / nfs4 rw 0 0\ntmpfs {here} tmpfs rw 0 0\n", encoding="utf-8")
    assert levels(typed("doctor", "--json"))["file system"] == "error"
    mounts.unlink()
    assert "file system" not in levels(typed("doctor", "--json"))


def test_doctor_without_a_store_or_with_a_broken_file(typed):
    said = typed("doctor", "--json")
    assert (said.code, levels(said)["store"]) == (1, "error")
    Path("interlock.yaml").write_text("zzz: 1", encoding="utf-8")
    said = typed("doctor", "--json")
    assert (said.code, levels(said)) == (1, {"configuration": "error"})


# Which store


def test_the_store_is_found_by_option_environment_and_configuration(typed, store, monkeypatch):
    moved = store.rename(store.with_name("moved.db"))
    assert typed("runs").code == 1
    assert typed("runs", "--store", moved).code == 0
    assert typed("runs", "--store", f"sqlite:///{moved}").code == 0
    Path("interlock.yaml").write_text("store: moved.db", encoding="utf-8")
    assert typed("runs").code == 0
    assert typed("runs", "--config", "interlock.yaml").code == 0
    monkeypatch.setenv("INTERLOCK_STORE", "elsewhere.db")
    assert "no store at elsewhere.db" in typed("runs").err


def test_a_verb_never_makes_a_store(typed, here):
    assert typed("kill", "global", "--by", "ana", "--reason", "storm").code == 1
    assert list(here.iterdir()) == []
    assert "in memory" in typed("runs", "--store", ":memory:").err
    assert "not supported" in typed("runs", "--store", "redis://db/x").err


def test_a_broken_configuration_does_not_stop_who_names_the_store(typed, store):
    Path("interlock.yaml").write_text("zzz: 1", encoding="utf-8")
    assert typed("runs").code == 1
    said = typed("kill", "global", "--by", "ana", "--reason", "storm", "--store", store)
    assert said.code == 0
    assert "the configuration is ignored" in said.err


def test_a_file_that_is_no_store(typed, here):
    (here / "interlock.db").write_text("hello " * 100, encoding="utf-8")
    said = typed("runs")
    assert said.code == 1
    assert "interlock.db" in said.err
    assert "Traceback" not in said.err
