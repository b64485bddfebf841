"""Load on virtual time: what is measured is what was put there, to the second; and it ends when it should."""

from __future__ import annotations

import asyncio
import sys

import pytest

from interlock.chaos import load_agent
from interlock.chaos.latencies import LogNormal, Recorded
from interlock.chaos.load import LoadOptions, load_test
from interlock.chaos.load_meter import LOAD_KINDS, Taken
from interlock.chaos.load_report import Level, saturation
from interlock.chaos.spoken import spoken_fault
from interlock.core.clock import LoopClock, run_virtual
from interlock.core.errors import ConfigError

SECOND, TENTH = (Recorded("test", "numbers", {}, (seconds,)) for seconds in (1.0, 0.1))
CHEAP = {"tools": {"retries": {"backoff_ms": [4_000]}}}


def under_load(clock_seed=1, **words):
    """The report of a load test on virtual time."""
    words = {"tools": SECOND, "store": "sqlite:///:memory:", "runs": 10, "seconds": 600.0, **words}

    async def main():
        return await load_test(
            LoadOptions(**words), lambda level, elapsed_s: None, asyncio.Event(), LoopClock(seed=clock_seed)
        )

    return run_virtual(main(), patience_s=0.005)


def test_a_closed_loop_keeps_so_many_runs_under_way():
    report = under_load(concurrency=5, runs=20, calls=4, writes=0.5)
    (level,) = report.levels
    assert (level.runs, level.begun, level.most_at_once, level.cut) == (20, 20, 5, 0)
    assert dict(level.reasons) == {"success": 20}
    assert level.taken.calls == 80
    # Four calls of a second each, in four rounds.
    assert level.elapsed_s == pytest.approx(16.0, rel=0.2)
    assert level.runs_per_s == pytest.approx(20 / level.elapsed_s)
    assert list(level.taken.tool_s) == pytest.approx([1.0] * 80)
    assert report.writes == {"requests": 40, "effects": 40, "duplicates": 0}
    assert report.failures == []


def test_an_open_loop_begins_runs_when_they_arrive():
    report = under_load(rate_per_s=20.0, runs=100, calls=2, tools=TENTH)
    (level,) = report.levels
    assert (level.runs, level.concurrency, level.rate_per_s, level.shed) == (100, None, 20.0, 0)
    assert level.elapsed_s == pytest.approx(5.0, rel=0.3)
    assert 3 < level.most_at_once < 30


def test_arrivals_that_find_too_many_are_counted():
    report = under_load(rate_per_s=50.0, runs=100, calls=2, most_at_once=10)
    (level,) = report.levels
    assert level.most_at_once == 10
    assert level.shed == 100 - level.begun > 50


def test_it_is_over_after_so_many_seconds():
    report = under_load(concurrency=7, runs=1_000, seconds=10.5, calls=4)
    (level,) = report.levels
    assert level.elapsed_s == pytest.approx(10.5, abs=0.2)
    assert level.cut == 7
    assert level.runs in {7, 14}
    assert level.begun == level.runs + 7


def test_overhead_is_what_the_tool_did_not_take():
    """A store that takes two seconds a change is the gate's; the tool, its faults and a backoff are not."""
    quick = under_load(faults=(spoken_fault("503_errors tool=*.read attempts=[1]"),), calls=4, writes=0.0, runs=1)
    (level,) = quick.levels
    assert level.taken.injected == {"http_503": 4}
    assert dict(level.reasons) == {"success": 1}
    # Each waits for a backoff before its second try, and none of that is overhead.
    assert max(level.taken.overhead_s) < 0.2
    assert sum(level.run_s) > sum(level.taken.tool_s) == pytest.approx(4.0)
    slow = under_load(faults=(spoken_fault("store_slow tool=claim delay_s=2"),), calls=4, writes=0.5, runs=5)
    (level,) = slow.levels
    assert len(level.taken.store_s) == 10
    assert min(level.taken.store_s) >= 2.0
    assert sum(each >= 2.0 for each in level.taken.overhead_s) == 10
    assert list(level.taken.tool_s) == pytest.approx([1.0] * 20)


def test_waiting_for_a_place_is_counted_apart(tmp_path):
    config = tmp_path / "interlock.yaml"
    config.write_text("tools: {allow: ['*'], limits: {'search.read': {concurrency: 1}}, effects: {'*.read': read}}\n")
    report = under_load(concurrency=3, runs=3, calls=1, writes=0.0, config=config)
    (level,) = report.levels
    assert sorted(level.taken.place_s) == pytest.approx([1.0, 2.0], abs=0.3)  # the first waits for nobody
    assert max(level.taken.overhead_s) >= 2.0


def test_refusals_are_counted_by_reason():
    report = under_load(faults=(spoken_fault("reset tool=search.read"),), calls=8, writes=0.0, concurrency=1, runs=4)
    (level,) = report.levels
    assert sum(level.taken.refused.values()) > 4
    assert level.taken.refused["circuit_open"] > 0


def test_one_effect_for_each_write_whose_answer_is_lost():
    report = under_load(faults=(spoken_fault("answer_lost tool=ticket.* attempts=[1]"),), calls=4, writes=0.5, runs=2)
    assert report.writes == {"requests": 8, "effects": 4, "duplicates": 0}


def test_an_effect_that_happens_twice_is_a_failure(monkeypatch):
    async def forgets_the_key(self, title: str, *, idempotency_key: str) -> load_agent.Ticket:
        self.requests[title] += 1
        self.tickets[f"{idempotency_key}{len(self.tickets)}"] = title
        return {"id": "1", "status": "created"}

    monkeypatch.setattr(load_agent.LoadAgent, "_create", forgets_the_key)
    report = under_load(faults=(spoken_fault("answer_lost tool=ticket.* attempts=[1]"),), calls=4, writes=0.5, runs=2)
    assert report.failures == ["4 effects happened twice"]


def test_the_same_seed_draws_the_same_latencies():
    def drawn(seed):
        report = under_load(seed=seed, tools=LogNormal(0.1, 1.0), runs=6, calls=3, concurrency=2)
        return sorted(round(each, 6) for each in report.levels[0].taken.tool_s)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_model_turns_take_their_time():
    report = under_load(model=LogNormal(10.0, 10.0), calls=2, runs=2, concurrency=2)
    assert report.levels[0].elapsed_s >= 22.0


def test_a_ramp_ends_where_more_brings_no_more(tmp_path):
    config = tmp_path / "interlock.yaml"
    limits = "limits: {'*.read': {concurrency: 4}}"
    config.write_text(
        f"tools: {{allow: ['*'], {limits}, effects: {{'*.read': read}}}}\nagent: {{budgets: {{max_seconds: 3600}}}}\n"
    )
    report = under_load(ramp=True, concurrency=256, runs=40, calls=4, writes=0.0, config=config, tools=TENTH)
    assert [level.concurrency for level in report.levels] == [1, 2, 4, 8, 16, 32]
    # Two tools, four calls at once each.
    assert report.saturated_at.concurrency == 8
    assert report.saturated_at.calls_per_s == pytest.approx(80.0, rel=0.3)


def test_a_ramp_of_rates():
    options = LoadOptions(ramp=True, rate_per_s=10.0)
    assert [level.rate_per_s for level in options.levels()] == [0.625, 1.25, 2.5, 5.0, 10.0]
    assert [level.concurrency for level in LoadOptions(ramp=True, concurrency=6).levels()] == [1, 2, 4, 6]


def level(calls, seconds=1.0):
    return Level(1, None, Taken(calls=calls), seconds)


def test_when_it_is_saturated():
    assert saturation([level(100), level(200), level(210)]) is None
    best = level(200)
    assert saturation([level(100), best, level(210), level(190)]) is best
    assert saturation([level(100), level(100), level(300)]) is None
    # Of so few calls nobody can say anything.
    assert saturation([level(6), level(5), level(4)]) is None


def test_a_person_ends_it_early():
    over = []

    async def main():
        stop = asyncio.Event()
        over.append(stop)
        told = lambda level, elapsed_s: stop.set() if elapsed_s > 3.0 else None  # noqa: E731
        options = LoadOptions(tools=SECOND, store="sqlite:///:memory:", runs=1_000, seconds=600.0, calls=2)
        before = asyncio.all_tasks()
        report = await load_test(options, told, stop, LoopClock(seed=1))
        assert asyncio.all_tasks() == before
        return report

    report = run_virtual(main(), patience_s=0.005)
    assert report.interrupted
    assert report.levels[0].elapsed_s < 4.0
    assert report.levels[0].cut == 50
    assert report.failures == []


def test_what_it_keeps_is_deleted_and_its_growth_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    report = under_load(store=None, runs=20, calls=4, writes=0.5)
    assert report.store_bytes_per_run > 500
    assert list(tmp_path.iterdir()) == []
    kept = f"sqlite:///{tmp_path}/kept.db"
    # The second meets the requests of the first, and is answered by none of them.
    assert [under_load(n, store=kept, runs=5).writes["effects"] for n in range(2)] == [10, 10]
    assert under_load(runs=1).store_bytes_per_run is None


def test_an_agent_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_load_agents.py").write_text(
        "import interlock\n"
        "gate = interlock.Interlock({'tools': {'allow': ['*']}}, store='sqlite:///:memory:')\n"
        "SEEN = []\n"
        "@gate.tool('note.read', effect='read')\n"
        "async def read(text: str) -> dict:\n"
        "    SEEN.append(text)\n"
        "    return {'n': len(SEEN)}\n"
        "async def agent(run, task):\n"
        "    with_the_gate = await read(text=task)\n"
        "    return with_the_gate\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    report = under_load(agent="my_load_agents:agent", task="hello", runs=7, tools=None)
    assert sys.modules["my_load_agents"].SEEN == ["hello"] * 7
    assert dict(report.levels[0].reasons) == {"success": 7}
    assert (report.writes, max(report.levels[0].taken.tool_s)) == (None, pytest.approx(0.0))
    assert report.as_json()["asked"]["tools"] == {"of": "none"}


@pytest.mark.parametrize("kind", ["kill_switch", "clock_jump", "model_slow", "two_workers"])
def test_faults_that_a_load_test_cannot_have(kind):
    with pytest.raises(ConfigError, match=f"--fault {kind}: a load test has faults of tools and of the store"):
        under_load(faults=(spoken_fault(kind),))
    assert kind not in LOAD_KINDS


@pytest.mark.parametrize("kind", sorted(LOAD_KINDS))
def test_every_fault_that_it_can_have_is_injected_and_every_run_ends(kind):
    report = under_load(faults=(spoken_fault(f"{kind} probability=0.5"),), calls=4, writes=0.5, runs=6)
    (level,) = report.levels
    assert sum(level.taken.injected.values()) > 0
    assert (level.runs, level.cut, dict(level.errors)) == (6, 0, {})
    assert report.failures == []
