"""How long tools take: the distribution that was asked for, or the one that was recorded."""

from __future__ import annotations

import asyncio
import json

import pytest

import interlock
from interlock.chaos.latencies import LogNormal, none, read_latencies
from interlock.chaos.load_meter import chance_of
from interlock.core.errors import ConfigError


def test_a_log_normal_has_the_median_and_the_p99_that_were_asked_for():
    wanted = LogNormal(0.12, 1.5)
    assert wanted.draw("any", 0.5) == pytest.approx(0.12)
    assert wanted.draw("any", 0.99) == pytest.approx(1.5)
    drawn = sorted(wanted.draw("any", chance_of(1, n)) for n in range(4_000))
    assert drawn[2_000] == pytest.approx(0.12, rel=0.1)
    assert drawn[3_960] == pytest.approx(1.5, rel=0.3)
    assert wanted.draw("any", 0.0) > 0.0
    assert wanted.draw("any", 1.0) == 15.0  # ten times the p99 at most
    assert LogNormal(0.1, 0.1).draw("any", 0.7) == pytest.approx(0.1)


def test_chance_is_of_the_seed_and_the_place():
    assert chance_of(1, 2, 3) == chance_of(1, 2, 3)
    assert len({chance_of(seed, n) for seed in range(10) for n in range(10)}) == 100
    assert all(0.0 < chance_of(n) < 1.0 for n in range(1_000))


@pytest.mark.parametrize(("median_s", "p99_s"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, 90_000.0)])
def test_a_log_normal_that_is_none(median_s, p99_s):
    with pytest.raises(ConfigError, match="the median is above 0"):
        LogNormal(median_s, p99_s)


def test_a_list_of_seconds(tmp_path):
    file = tmp_path / "seconds.txt"
    file.write_text("# measured on Monday\n0.3\n0.1\n\n0.2\n")
    found = read_latencies(str(file))
    assert (found.of, found.draw("a", 0.0), found.draw("b", 0.5), found.draw("c", 0.99)) == ("numbers", 0.1, 0.2, 0.3)
    assert found.as_json()["count"] == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.1\n-1\n", "seconds.txt:2: -1 is not 0 to 86400 seconds"),
        ("0.1\nnan\n", "seconds.txt:2: nan is not 0 to 86400 seconds"),
        ("0.1\nfast\n", "seconds.txt:2: 'fast' is no number"),
        ("", "no time of any call is recorded there"),
        ("hello\n", "no time of any call is recorded there"),
    ],
)
def test_a_list_that_is_none(tmp_path, text, said):
    file = tmp_path / "seconds.txt"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_latencies(str(file))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        read_latencies(str(tmp_path / "none"))


def test_the_timings_of_a_store(tmp_path):
    url = f"sqlite:///{tmp_path}/runs.db"

    async def agent(run, task):
        for n in range(3):
            await run.call("search.read", {"query": f"{n}"})
        await run.call("kb.read", {"topic": "a"})
        return [(await run.observe("nobody.read", {})).ok]

    async def recorded():
        async with interlock.Interlock({"logging": {"level": "error"}}, store=url) as gate:

            @gate.tool("search.read", effect="read")
            async def search(query: str) -> dict:
                return {"about": query}

            @gate.tool("kb.read", effect="read")
            async def article(topic: str) -> dict:
                return {"about": topic}

            result = await gate.run(agent)
            store = gate.house().store
            await store.flush()
            return [each["duration_ms"] / 1e3 for each in (await store.run(result.run_id)).record["trace"]]

    seconds = asyncio.run(recorded())
    for source in (url, f"{tmp_path}/runs.db"):
        found = read_latencies(source)
        assert found.of == "calls"
        assert sorted(found.by_tool) == ["kb.read", "search.read"]  # what was denied took no tool's time
        assert sorted(found.all) == pytest.approx(sorted(seconds[:4]))
        assert found.draw("kb.read", 0.9) == pytest.approx(seconds[3])
        assert found.draw("another", 0.99) == found.all[-1]


def test_gaps_where_a_record_has_no_times_of_answers(tmp_path):
    calls = [
        {"tool": "a", "step": n, "args": {}, "out": f"{n}", "write": False, "t": t} for n, t in enumerate((1, 3, 8))
    ]
    run = {"dataset": "d", "run_id": "r", "model": "m", "domain": "", "task": "", "success": True, "steps": 3}
    (tmp_path / "normalized.jsonl").write_text(json.dumps({**run, "cost_usd": None, "calls": calls}) + "\n")
    found = read_latencies(str(tmp_path / "normalized.jsonl"))
    assert (found.of, list(found.all)) == ("gaps", [2.0, 5.0])


def test_none_adds_nothing():
    assert none().draw("any", 0.99) == 0.0
