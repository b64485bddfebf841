"""interlock purge: what is old goes, by the configuration or by a word; what cannot be is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

DAY = 86_400.0


@pytest.fixture(autouse=True)
def purged_at(store, clock):
    """The filled store, a hundred days later."""
    clock.advance(100 * DAY)


def test_the_ages_are_those_of_the_configuration(typed):
    done = typed("purge", "--json").json
    assert done["ages"] == {"content_days": 30, "keys_days": 90}
    # Four ended requests go; a parked one with its doubt and one that runs are kept.
    assert (done["requests"], done["content"], done["unfinished"], done["dry_run"]) == (4, 0, 2, False)
    assert {run["run_id"] for run in typed("runs", "--json").json} == {"run_doubt", "run_now"}
    assert "1 in doubt" in typed("doubts").err


def test_content_only_keeps_every_request(typed):
    said = typed("purge", "--older-than", 5, "--content-only")
    assert (said.code, said.out.splitlines()[0]) == (0, "content older than 5 days: dropped of 4 requests")
    assert "keys" not in said.out
    assert "2 requests that are not over: interlock runs" in said.out
    assert "slices" in said.err
    shown = typed("show", "run_loop", "--json").json
    assert (shown["stop_reason"], shown["steps"], shown["cost_usd"], shown["trace"]) == ("loop_detected", 4, 0.0321, [])
    assert "4 steps, 4 calls" in typed("show", "run_loop").out
    assert len(typed("runs", "--json").json) == 6


def test_a_dry_run_says_what_would_go(typed):
    out = typed("purge", "--dry-run").out
    assert "keys older than 90 days: 4 requests would be removed with their 0 claims" in out
    assert len(typed("runs", "--json").json) == 6
    assert typed("purge", "--dry-run", "--json").json["slices"] == 0


def test_one_tenant(typed):
    assert typed("purge", "--tenant", "beta", "--json").json["requests"] == 1
    assert len(typed("runs", "--json").json) == 5


def test_keys_younger_than_the_horizon_are_refused(typed):
    said = typed("purge", "--older-than", 0.5)
    assert said.code == 1
    assert "--older-than 0.5: is shorter than tools.dedupe_window_s (1 d)" in said.err
    assert "--content-only" in said.err
    assert len(typed("runs", "--json").json) == 6
    assert typed("purge", "--older-than", 0.5, "--content-only").code == 0


@pytest.mark.parametrize("days", ["-1", "nan", "inf"])
def test_ages_that_cannot_be(typed, days):
    said = typed("purge", f"--older-than={days}", "--content-only")
    assert (said.code, "--older-than: is a number of days" in said.err) == (1, True)


def test_an_age_that_is_no_number(typed):
    assert typed("purge", "--older-than", "old").code == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "retention:\n  keys_days: 0.5\n  content_days: 0.5\n",
            "interlock.yaml:2: retention.keys_days: 0.5 is shorter",
        ),
        ("tools:\n  dedupe_window_s: 8640000\n", "interlock.yaml:2: retention.keys_days: 90 is shorter than tools"),
        (
            "retention:\n  keys_days: 20\n",
            "interlock.yaml:2: retention.keys_days: 20 is shorter than retention.content",
        ),
        ("retention: {content_days: null}\n", "retention.content_days (null)"),
        ("retention: {content_days: -1}\n", "retention.content_days"),
        ("retention: {content: 1}\n", "unknown key"),
    ],
)
def test_a_configuration_that_would_lose_keys_is_refused(typed, text, says):
    Path("interlock.yaml").write_text(text, encoding="utf-8")
    said = typed("purge", "--store", "interlock.db")
    assert (said.code, says in said.err) == (1, True), said.err
    assert typed("check").code == 1
    Path("interlock.yaml").unlink()
    assert len(typed("runs", "--json").json) == 6


def test_null_keeps(typed):
    Path("interlock.yaml").write_text("retention: {content_days: null, keys_days: null}\n", encoding="utf-8")
    said = typed("purge")
    assert (said.code, "everything is kept" in said.err) == (0, True)
    assert len(typed("runs", "--json").json) == 6


def test_without_a_store(typed):
    said = typed("purge", "--store", "nowhere.db")
    assert (said.code, "there is no store at nowhere.db" in said.err) == (1, True)
