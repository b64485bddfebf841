"""backtest and drill, as verbs: what they find is tested where they live."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def recorded(here):
    """Two recorded agents: one asks a question and answers, one asks the same seven times."""

    def messages(asks: int) -> dict:
        said: list[dict] = [{"role": "user", "content": "where is my order?"}]
        for i in range(asks):
            call = {"id": f"c{i}", "type": "function", "function": {"name": "order_get", "arguments": '{"id": 7}'}}
            said.append({"role": "assistant", "content": None, "tool_calls": [call]})
            said.append({"role": "tool", "tool_call_id": f"c{i}", "content": '{"state": "lost"}'})
        return {"messages": [*said, {"role": "assistant", "content": "It is lost."}]}

    path = here / "agents.jsonl"
    path.write_text("\n".join(json.dumps(messages(asks)) for asks in (1, 7)), encoding="utf-8")
    effects = here / "effects.yaml"
    effects.write_text("agents:\n  reads: ['order_get']\n", encoding="utf-8")
    return path, effects


def test_backtest_counts_runs_by_reason_and_calls_saved(typed, recorded):
    path, effects = recorded
    said = typed("backtest", "--funnel", path, "--effects", effects, "--json")
    assert said.code == 0
    (found,) = said.json["sets"]
    assert found["reasons"] == {"success": 1, "loop_detected": 1}
    assert found["calls"]["recorded"] == 8
    assert found["calls"]["saved"] > 0
    out = typed("backtest", "--funnel", path, "--effects", effects).out
    assert "agents" in out
    assert "loop_detected" in out


def test_backtest_judges_the_profile_that_is_named(typed, recorded):
    path, effects = recorded
    assert (
        typed("backtest", "--funnel", path, "--effects", effects, "--profile", "article", "--json").json["profile"]
        == "article"
    )


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["agents.jsonl", "--against", "nowhere.yaml"], 1, "nowhere.yaml"),
        (["--funnel"], 2, "PATH"),
        (["--funnel", "nowhere"], 1, "no such file or folder"),
        (["--funnel", "notes.jsonl"], 1, "nothing was read"),
        (["--funnel", "agents.jsonl", "--profile", "suport"], 1, "no profile is called"),
    ],
)
def test_backtest_of_what_cannot_be(typed, recorded, here, args, code, says):
    (here / "notes.jsonl").write_text('{"note": 1}', encoding="utf-8")
    said = typed("backtest", *args)
    assert said.code == code
    assert says in said.err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--time-scale", "0"], "--time-scale"),
        (["--backend", "http://127.0.0.1:1"], "nothing was sent"),
        (["--backend", "http://127.0.0.1:1", "--yes"], "does not answer"),
        (["--backend", "gopher://x", "--yes"], "--backend"),
    ],
)
def test_a_drill_that_cannot_be(typed, args, says):
    said = typed("drill", *args)
    assert said.code == 1
    assert says in said.err
    assert "Traceback" not in said.err


@pytest.mark.full
@pytest.mark.process
def test_the_drill(typed):
    said = typed("drill", "--json", "--seed", "2")
    assert said.code == 0
    assert said.json["seed"] == 2
    triage = said.json["scenarios"][0]
    assert triage["bare"]["duplicates"] >= 34
    assert (triage["guarded"]["duplicates"], triage["guarded"]["lost"]) == (0, 0)
    assert "73 runs" in said.err
