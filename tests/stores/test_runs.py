"""The contract of `RunStore`: one request, one run at a time, one outcome; on every store."""

from __future__ import annotations

import asyncio

import pytest
from scenes import new_run

from interlock.core.errors import ConfigError
from interlock.journal.store import Fenced, RunState


async def test_a_new_request_begins_a_run(scene):
    begun = await scene.begin()
    assert begun.fresh
    row = begun.row
    assert (row.run_id, row.tenant_id, row.request_id, row.agent, row.payload_hash) == (
        "r1",
        "acme",
        "q1",
        "support",
        "h",
    )
    assert (row.state, row.reason, row.fence, row.attempts, row.path) == (RunState.RUNNING, None, 1, 1, "")
    assert row.request_time_ms == int(scene.clock.wall() * 1000)
    assert row.started_at == scene.clock.wall()
    assert await scene.store.run("r1") == row


@pytest.mark.parametrize("words", [{}, {"retry": True}, {"resume": True}])
async def test_a_running_request_is_nobody_else_s(scene, words):
    first = await scene.begin()
    begun = await scene.begin("r2", payload_hash="other", **words)
    assert not begun.fresh
    assert begun.row == first.row
    assert await scene.store.run("r2") is None


async def test_the_same_request_id_of_another_tenant_is_another_request(scene):
    await scene.begin()
    assert (await scene.begin("r2", tenant_id="globex")).fresh


@pytest.mark.parametrize("state", [RunState.ENDED, RunState.PARKED])
async def test_an_outcome_stands_until_it_is_asked_for_anew(scene, state):
    await scene.begin()
    assert await scene.end(state, "tool_failed")
    begun = await scene.begin("r2")
    assert not begun.fresh
    assert (begun.row.run_id, begun.row.state, begun.row.reason) == ("r1", state, "tool_failed")
    assert begun.row.record == {"stop_reason": "tool_failed"}
    assert begun.row.output == b'"done"'


@pytest.mark.parametrize("state", [RunState.ENDED, RunState.PARKED])
async def test_retry_begins_a_new_run_under_the_old_time(scene, state):
    first = (await scene.begin()).row
    await scene.end(state, "outcome_unknown")
    scene.clock.advance(3600.0)
    begun = await scene.begin("r2", retry=True)
    assert begun.fresh
    assert (begun.row.run_id, begun.row.fence, begun.row.attempts) == ("r2", 1, 1)
    assert begun.row.request_time_ms == first.request_time_ms
    assert begun.row.started_at == scene.clock.wall()
    old = await scene.store.run("r1")
    assert (old.state, old.reason) == (RunState.ENDED, "outcome_unknown")
    assert (await scene.begin("r3")).row.run_id == "r2"


async def test_resume_reopens_a_parked_run_under_its_own_id(scene):
    await scene.begin()
    await scene.end(RunState.PARKED, "approval_pending")
    begun = await scene.begin("r2", resume=True)
    assert begun.fresh
    row = begun.row
    assert (row.run_id, row.state, row.reason, row.ended_at) == ("r1", RunState.RUNNING, None, None)
    assert (row.fence, row.attempts) == (2, 2)


async def test_resume_does_not_reopen_what_has_ended(scene):
    await scene.begin()
    await scene.end()
    begun = await scene.begin("r2", resume=True)
    assert not begun.fresh
    assert begun.row.state is RunState.ENDED


async def test_64_submissions_of_one_request_make_one_run(scene):
    outcomes = await asyncio.gather(*(scene.store.begin(new_run(f"r{i}")) for i in range(64)))
    assert [begun.fresh for begun in outcomes].count(True) == 1
    assert len({begun.row.run_id for begun in outcomes}) == 1
    assert len(await scene.store.runs()) == 1


class TestEnd:
    async def test_the_outcome_is_written_once(self, scene):
        await scene.begin()
        scene.clock.advance(2.0)
        assert await scene.end(reason="success")
        assert not await scene.end(reason="killed")
        row = await scene.store.run("r1")
        assert (row.reason, row.ended_at, row.output, row.output_kept) == (
            "success",
            scene.clock.wall(),
            b'"done"',
            True,
        )

    async def test_a_fenced_owner_writes_nothing(self, scene):
        await scene.begin()
        old = scene.row
        await scene.end(RunState.PARKED, "outcome_unknown")
        await scene.begin(resume=True)
        assert not await scene.end(fence=old.fence)
        assert (await scene.store.run("r1")).state is RunState.RUNNING
        assert await scene.end(fence=old.fence + 1)

    async def test_a_run_that_is_not_there_cannot_end(self, scene):
        await scene.begin()
        assert not await scene.store.end("r9", 1, RunState.ENDED, "success", {}, None)

    async def test_no_output_is_none(self, scene):
        await scene.begin()
        await scene.end(output=None)
        row = await scene.store.run("r1")
        assert (row.output, row.output_kept) == (None, False)

    async def test_a_record_of_odd_values_is_kept_rather_than_lost(self, scene):
        await scene.begin()
        await scene.end(record={"at": {1, 2}, 3: b"x", "deep": {"error": ValueError("boom")}})
        assert (await scene.store.run("r1")).record["deep"] == {"error": "boom"}


class TestSoon:
    async def test_the_row_is_there_before_any_intent_of_the_run(self, scene):
        time_ms = scene.store.begin_soon(new_run())
        assert time_ms == int(scene.clock.wall() * 1000)
        begun = await scene.begin("r2")
        assert not begun.fresh
        scene.row = begun.row
        assert scene.row.request_time_ms == time_ms
        assert await scene.claim() is None

    async def test_without_a_row_there_is_no_claim(self, scene):
        await scene.begin()
        with pytest.raises(Fenced):
            await scene.claim(run_id="never-begun")

    async def test_the_end_follows_the_beginning(self, scene):
        scene.store.begin_soon(new_run())
        scene.store.end_soon("r1", 1, RunState.ENDED, "success", {"a": 1}, b"1")
        scene.store.trace_soon("r1", 1, [{"seq": 1, "tool": "kb.read"}, {"seq": 2, "tool": "kb.read"}])
        await scene.store.flush()
        row = await scene.store.run("r1")
        assert (row.state, row.reason, row.record, row.output) == (RunState.ENDED, "success", {"a": 1}, b"1")
        assert [entry["seq"] for entry in await scene.store.calls_of("r1")] == [1, 2]

    async def test_trace_rows_may_come_in_parts_and_again(self, scene):
        await scene.begin()
        scene.store.trace_soon("r1", 1, [{"seq": 2, "status": "success"}])
        scene.store.trace_soon("r1", 1, [{"seq": 1, "status": "denied"}, {"seq": 2, "status": "in_doubt"}])
        await scene.store.flush()
        assert [entry["status"] for entry in await scene.store.calls_of("r1")] == ["denied", "in_doubt"]
        assert await scene.store.calls_of("r2") == []


class TestChildren:
    def child(self, run_id="c1", root="r1", path="research", **words):
        return new_run(run_id, root_run_id=root, path=path, payload_hash=None, **words)

    async def test_a_child_shares_the_request_and_its_time(self, scene):
        root = (await scene.begin()).row
        scene.clock.advance(10.0)
        begun = await scene.store.begin(self.child())
        assert begun.fresh
        assert (begun.row.root_run_id, begun.row.path) == ("r1", "research")
        assert begun.row.request_time_ms == root.request_time_ms
        assert (await scene.store.begin(self.child("c2", path="research/2"))).fresh

    async def test_the_root_s_request_is_still_the_root_s(self, scene):
        await scene.begin()
        await scene.store.begin(self.child())
        assert (await scene.begin("r2")).row.run_id == "r1"

    async def test_a_child_begins_again_under_a_resumed_or_retried_root(self, scene):
        await scene.begin()
        await scene.store.begin(self.child())
        await scene.end(RunState.PARKED, "outcome_unknown")
        await scene.begin(resume=True)
        begun = await scene.store.begin(self.child("c2", fence=2))
        assert (begun.fresh, begun.row.run_id) == (True, "c2")
        assert (await scene.store.run("c1")).state is RunState.ENDED


class TestLists:
    async def test_the_newest_come_first(self, scene):
        for i in range(5):
            await scene.begin(f"r{i}", f"q{i}", tenant_id="even" if i % 2 == 0 else "odd")
            if i < 3:
                await scene.end(reason="success" if i else "killed")
        runs = scene.store.runs
        assert [row.run_id for row in await runs()] == ["r4", "r3", "r2", "r1", "r0"]
        assert [row.run_id for row in await runs(limit=2)] == ["r4", "r3"]
        assert [row.run_id for row in await runs(tenant_id="odd")] == ["r3", "r1"]
        assert [row.run_id for row in await runs(reason="killed")] == ["r0"]
        assert [row.run_id for row in await runs(state=RunState.RUNNING)] == ["r4", "r3"]
        assert [row.run_id for row in await runs(tenant_id="even", state=RunState.ENDED)] == ["r2", "r0"]
        assert await runs(tenant_id="'; drop table runs") == []

    async def test_a_run_that_is_not_there_is_none(self, scene):
        assert await scene.store.run("r1") is None


class TestReplayModes:
    """SEMANTICS D5: what replay needs is sealed, kept as it is, or not kept."""

    @pytest.mark.parametrize(("replay", "kept"), [("on", True), ("plaintext", True), ("off", False)])
    async def test_outputs_are_kept_as_the_mode_says(self, make_store, clock, replay, kept):
        from scenes import DONE, Scene

        scene = Scene(make_store(replay=replay), clock)
        await scene.begin()
        await scene.claim()
        await scene.settle(DONE)
        await scene.end()
        row, claim = await scene.store.run("r1"), await scene.find()
        assert (row.output, row.output_kept) == ((b'"done"', True) if kept else (None, False))
        assert (claim.result, claim.result_kept) == ((b'{"id":1}', True) if kept else (None, False))

    def test_any_other_mode_is_an_error(self, make_store):
        with pytest.raises(ConfigError, match="on, off, plaintext"):
            make_store(replay="maybe")
