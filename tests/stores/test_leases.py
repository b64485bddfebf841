"""Leases and the queue: several stores on one file or database stand for several processes."""

from __future__ import annotations

import contextlib
import time

import pytest
from scenes import CLEAN, DONE, DOUBT, Scene, new_run

from interlock.core.clock import SYSTEM
from interlock.journal.replay import TurnRecord
from interlock.journal.store import ClaimState, Fenced, RunState, Settlement
from interlock.policy.approval import ApprovalRequest
from interlock.stores import queue
from interlock.stores.leases import QUIET_S
from interlock.stores.pg_address import parse_address
from interlock.stores.postgres import PostgresStore
from interlock.stores.sqlite import SqliteStore

TTL_S = 5.0


@pytest.fixture(params=["file", "postgres"])
def make(request, path, clock):
    with contextlib.ExitStack() as opened:
        if request.param == "postgres":
            url = request.getfixturevalue("pg_url")

        def make(**words):
            words = {"clock": clock, "replay": "plaintext", "environ": {}, **words}
            if request.param == "postgres":
                if words["clock"] is clock:
                    clock.govern(request.getfixturevalue("pg_server"), parse_address(url).schema)
                store = PostgresStore(url, **words)
            else:
                store = SqliteStore(path, **words)
            opened.callback(store.close)
            return store

        yield make


@pytest.fixture
def stores(make):
    return make(), make()


async def begin(store, run_id="r1", request_id="q1", **words):
    flags = {name: words.pop(name) for name in ("retry", "resume", "revive") if name in words}
    return await store.begin(new_run(run_id, request_id, **words), **flags)


async def test_what_begins_has_a_lease_that_others_see(stores, clock):
    ours, theirs = stores
    begun = await begin(ours)
    assert begun.row.lease_left_s == TTL_S
    clock.advance(2.0)
    assert (await theirs.run("r1")).lease_left_s == TTL_S - 2.0


async def test_a_live_lease_is_nobody_else_s_and_one_that_ran_out_is_taken_over_once(stores, clock):
    ours, theirs = stores
    first = (await begin(ours)).row
    clock.advance(TTL_S - 0.01)
    assert not (await begin(theirs, "r2", resume=True)).fresh
    clock.advance(0.01)
    taken = await begin(theirs, "r2", resume=True)
    assert taken.fresh
    assert (taken.row.run_id, taken.row.fence, taken.row.attempts) == ("r1", first.fence + 1, 2)
    assert not (await begin(ours, "r3", resume=True)).fresh


async def test_the_old_owner_claims_ends_and_renews_nothing_any_more(stores, clock):
    ours, theirs = stores
    scene = Scene(ours, clock)
    await scene.begin()
    lease = ours.leases.hold("r1", 1, clock.boot())
    clock.advance(TTL_S)
    await begin(theirs, "r2", resume=True)
    with pytest.raises(Fenced):
        await scene.claim()
    assert not await scene.end()
    assert not await ours.leases.confirm(lease)
    assert lease.lost


async def test_a_lease_that_was_not_renewed_in_time_is_kept_where_nobody_took_the_run(stores, clock):
    ours, theirs = stores
    await begin(ours)
    lease = ours.leases.hold("r1", 1, clock.boot())
    clock.advance(10 * TTL_S)
    assert lease.until_s < clock.boot()
    assert await ours.leases.confirm(lease)
    assert clock.boot() < lease.until_s
    assert not (await begin(theirs, "r2", resume=True)).fresh


async def test_a_late_result_of_the_old_owner_counts_but_his_never_sent_does_not(stores, clock):
    ours, theirs = stores
    scene = Scene(ours, clock)
    await scene.begin()
    await scene.claim("a")
    await scene.claim("b")
    clock.advance(TTL_S)
    row = (await begin(theirs, "r2", resume=True)).row
    assert await theirs.resend(scene.key("a"), "r1", row.fence) is None
    assert await theirs.resend(scene.key("b"), "r1", row.fence) is None
    assert not await scene.settle(Settlement(ClaimState.FAILED_CLEAN, fence=1), "a")
    assert await scene.settle(DONE, "b")
    assert (await scene.find("a")).state is ClaimState.INTENT


async def test_only_barren_deaths_count(stores, clock):
    ours, theirs = stores
    scene = Scene(ours, clock)
    await scene.begin()
    for n in (1, 2):
        clock.advance(TTL_S)
        scene.row = (await begin(ours, "r2", resume=True)).row
        assert scene.row.barren == n
    await scene.claim()
    clock.advance(TTL_S)
    row = (await begin(theirs, "r2", resume=True)).row
    assert (row.barren, row.attempts) == (0, 4)


async def test_attempts_are_kept_with_owner_fence_start_and_end(stores, clock):
    ours, theirs = stores
    started = clock.wall()
    await begin(ours)
    clock.advance(TTL_S + 2.0)
    await begin(theirs, "r2", resume=True)
    first, second = await ours.leases.attempts_of("r1")
    assert (first.fence, first.started_at, first.ended_at, first.ended_as) == (
        1,
        started,
        pytest.approx(started + TTL_S),
        "lease_lost",
    )
    assert (second.fence, second.started_at, second.ended_at, second.ended_as) == (2, clock.wall(), None, "running")
    assert first.owner != second.owner
    await theirs.end("r1", 2, RunState.ENDED, "success", {}, None)
    assert (await ours.leases.attempts_of("r1"))[1].ended_as == "success"


async def test_the_time_of_dead_attempts_counts_up_to_their_last_renewal(stores, clock):
    ours, theirs = stores
    await begin(ours)
    lease = ours.leases.hold("r1", 1, clock.boot())
    clock.advance(3.0)
    await ours.leases.confirm(lease)
    clock.advance(TTL_S)
    assert (await begin(theirs, "r2", resume=True)).row.used_s == pytest.approx(3.0)


async def test_records_of_a_fenced_owner_are_not_kept(stores, clock):
    from interlock.journal.replay import TurnRecord

    ours, theirs = stores
    await begin(ours)
    clock.advance(TTL_S)
    await begin(theirs, "r2", resume=True)
    ours.history.turn_soon("r1", 1, TurnRecord("", 1, b"1"))
    theirs.history.turn_soon("r1", 2, TurnRecord("", 1, b"2"))
    await ours.flush()
    await theirs.flush()
    assert [turn.reply for turn in (await ours.history.history("r1")).turns] == [b"2"]


class TestQueue:
    async def test_queued_once_and_taken_once_with_its_task(self, stores):
        ours, theirs = stores
        queued = (await ours.leases.queue(new_run(task=b'{"task":1}'))).row
        assert queued.state is RunState.QUEUED
        assert await theirs.leases.task_of(queued.run_id) == b'{"task":1}'
        assert await theirs.leases.task_of("run_nobody") is None
        assert not (await theirs.leases.queue(new_run("r2"))).fresh
        row = await theirs.leases.take(["support"], None, {})
        assert (row.run_id, row.state, row.fence, row.attempts, row.task) == (
            "r1",
            RunState.RUNNING,
            1,
            1,
            b'{"task":1}',
        )
        assert await ours.leases.take(["support"], None, {}) is None

    async def test_oldest_first_and_fair_between_tenants(self, stores):
        ours, _ = stores
        for n, tenant in enumerate("aaab"):
            await ours.leases.queue(new_run(f"r{n}", f"q{n}", tenant_id=tenant))
        taken, busy = [], {}
        while (row := await ours.leases.take(["support"], None, busy)) is not None:
            taken.append(row.run_id)
            busy[row.tenant_id] = busy.get(row.tenant_id, 0) + 1
        assert taken == ["r0", "r3", "r1", "r2"]

    @pytest.mark.parametrize("make", ["file"], indirect=True)
    async def test_an_idle_worker_searches_a_file_again_only_when_somebody_has_written(
        self, stores, clock, monkeypatch
    ):
        ours, theirs = stores
        searched = []
        takeable = queue.takeable
        monkeypatch.setattr(queue, "takeable", lambda *words: searched.append(1) or takeable(*words))

        async def look():
            searched.clear()
            row = await ours.leases.take(["support"], None, {})
            return bool(searched), None if row is None else row.run_id

        assert [await look() for _ in range(3)] == [(True, None), (False, None), (False, None)]
        await theirs.switches.lift("global", "", "kill", reason="nothing", actor="us")
        await theirs.switches.set("global", "", "kill", reason="anything", actor="us")
        assert [await look() for _ in range(2)] == [(True, None), (False, None)]
        await theirs.leases.queue(new_run())
        assert await look() == (True, "r1")
        # A lease may run out though nobody writes.
        assert [await look() for _ in range(2)] == [(True, None)] * 2
        clock.advance(TTL_S)
        assert (await theirs.leases.take(["support"], None, {})).run_id == "r1"
        await theirs.end("r1", 2, RunState.ENDED, "success", {}, None)
        assert [await look() for _ in range(2)] == [(True, None), (False, None)]
        clock.advance(QUIET_S)
        assert await look() == (True, None)

    async def test_only_what_this_worker_can_do_and_may(self, stores):
        ours, _ = stores
        await ours.leases.queue(new_run())
        assert await ours.leases.take(["other"], None, {}) is None
        assert await ours.leases.take(["support"], ["globex"], {}) is None
        assert await ours.leases.take(["support"], ["acme"], {}) is not None

    async def test_a_dead_worker_s_run_is_taken_and_a_live_one_s_is_not(self, stores, clock):
        ours, theirs = stores
        await begin(ours)
        assert await theirs.leases.take(["support"], None, {}) is None
        clock.advance(TTL_S)
        row = await theirs.leases.take(["support"], None, {})
        assert (row.run_id, row.fence, row.attempts) == ("r1", 2, 2)

    async def test_handed_back_is_no_attempt(self, stores, clock):
        ours, theirs = stores
        await ours.leases.queue(new_run())
        row = await ours.leases.take(["support"], None, {})
        assert await ours.leases.hand_back("r1", row.fence, 7.0)
        assert not await ours.leases.hand_back("r1", row.fence, 7.0)
        again = await theirs.leases.take(["support"], None, {})
        assert (again.attempts, again.fence, again.barren, again.used_s) == (1, 2, 0, 7.0)
        assert [attempt.ended_as for attempt in await ours.leases.attempts_of("r1")] == ["handed_back", "running"]

    async def test_a_parked_run_is_queued_again(self, stores):
        ours, _ = stores
        await begin(ours)
        await ours.end("r1", 1, RunState.PARKED, "outcome_unknown", {"duration_s": 3.0}, None)
        assert await ours.leases.requeue("r1")
        assert not await ours.leases.requeue("r1")
        row = await ours.leases.take(["support"], None, {})
        assert (row.fence, row.used_s, row.reason) == (2, 3.0, None)

    async def test_orphans_are_reaped_after_their_time(self, stores, clock):
        ours, theirs = stores
        await begin(ours)
        clock.advance(TTL_S + 59.0)
        assert await theirs.leases.reap(60.0, []) == []
        clock.advance(1.0)
        assert await theirs.leases.reap(60.0, ["support"]) == []
        (row,) = await theirs.leases.reap(60.0, ["other"])
        assert (row.run_id, row.fence, row.state) == ("r1", 2, RunState.RUNNING)
        assert await ours.leases.reap(60.0, []) == []  # it has an owner again, who gives it up
        assert not await ours.end("r1", 1, RunState.ENDED, "success", {}, None)
        assert await theirs.end("r1", 2, RunState.ENDED, "abandoned", {}, None)

    async def test_a_worker_without_room_says_that_it_is_there(self, stores, clock):
        ours, theirs = stores
        await begin(ours)
        clock.advance(TTL_S + 14.0)
        assert await theirs.leases.shelter(15.0, ["support"], None) == 0
        clock.advance(1.0)
        assert await theirs.leases.shelter(15.0, ["other"], None) == 0
        assert await theirs.leases.shelter(15.0, ["support"], ["globex"]) == 0
        assert await theirs.leases.shelter(15.0, ["support"], ["acme"]) == 1
        row = await ours.run("r1")
        assert (row.state, row.attempts, row.barren) == (RunState.QUEUED, 1, 1)
        clock.advance(600.0)
        assert await ours.leases.reap(60.0, []) == []
        taken = await theirs.leases.take(["support"], None, {})
        assert (taken.run_id, taken.attempts, taken.barren) == ("r1", 2, 1)

    async def test_what_was_given_up_is_begun_again_only_where_that_is_asked_for(self, stores, clock):
        ours, _ = stores
        await begin(ours)
        await ours.end("r1", 1, RunState.ENDED, "abandoned", {}, None)
        assert not (await begin(ours, resume=True)).fresh
        begun = await begin(ours, resume=True, revive=True)
        assert (begun.fresh, begun.row.run_id, begun.row.fence) == (True, "r1", 2)
        await ours.end("r1", 2, RunState.ENDED, "success", {}, None)
        assert not (await begin(ours, resume=True, revive=True)).fresh
        assert [(a.fence, a.ended_as) for a in await ours.leases.attempts_of("r1")] == [
            (1, "abandoned"),
            (2, "success"),
        ]

    async def test_tenants_that_have_no_place_are_passed_over(self, stores):
        ours, _ = stores
        for n, tenant in enumerate(("acme", "acme", "globex")):
            await ours.leases.queue(new_run(f"r{n}", f"q{n}", tenant_id=tenant, task=b"{}"))
        assert (await ours.leases.take(["support"], None, {}, ["acme"])).tenant_id == "globex"
        assert await ours.leases.take(["support"], None, {}, ["acme"]) is None
        assert (await ours.leases.take(["support"], None, {})).run_id == "r0"

    async def test_parked_runs_that_wait_for_nothing_any_more_are_found(self, stores, clock):
        ours, _ = stores
        scene = Scene(ours, clock)
        for run_id, request_id in (("r1", "q1"), ("r2", "q2")):
            await scene.begin(run_id, request_id)
            await scene.claim(run_id)
            await scene.settle(DOUBT, run_id)
            await scene.end(RunState.PARKED, "outcome_unknown")
        assert await ours.leases.settled(["support"], None) == []
        await scene.settle(DONE, "r2")
        assert await ours.leases.settled(["support"], None) == ["r2"]
        assert await ours.leases.settled(["support"], ["acme"], ["r2"]) == []
        assert await ours.leases.settled(["other"], None) == await ours.leases.settled(["support"], ["globex"]) == []

    async def test_a_parked_run_waits_while_somebody_may_decide(self, stores, clock):
        ours, _ = stores
        scene = Scene(ours, clock)
        await scene.begin()
        asked = ApprovalRequest(scene.key(), "acme", "r1", "refund", "v1", "refund {}", clock.wall() + 60.0)
        row = await ours.approvals.request(asked)
        await scene.end(RunState.PARKED, "approval_pending")
        assert await ours.leases.settled(["support"], None) == []
        await ours.approvals.decide(row.id, True, "ana")
        assert await ours.leases.settled(["support"], None) == ["r1"]


class TestDisprove:
    """A look-up's "no" concerns what was sent before it was asked, and nothing that was sent since."""

    async def open_claim(self, stores, clock):
        scene = Scene(stores[0], clock)
        await scene.begin()
        assert await scene.claim(args=b'{"order":1}') is None
        await scene.settle(DOUBT)
        return scene, await scene.find()

    async def test_closes_what_is_as_it_was_seen(self, stores, clock):
        scene, seen = await self.open_claim(stores, clock)
        assert seen.args == b'{"order":1}'
        assert await stores[1].disprove(
            seen, Settlement(ClaimState.FAILED_CLEAN, evidence=({"by": "lookup"},), by="lookup")
        )
        closed = await scene.find()
        assert (closed.state, closed.settled_by, closed.args) == (ClaimState.FAILED_CLEAN, "lookup", None)
        assert closed.evidence == (*seen.evidence, {"by": "lookup"})
        assert not await stores[1].disprove(seen, CLEAN)

    async def test_says_nothing_of_a_later_send(self, stores, clock):
        scene, seen = await self.open_claim(stores, clock)
        assert await stores[0].resend(seen.key, "r1", 1) is None
        assert not await stores[1].disprove(seen, CLEAN)
        assert (await scene.find()).state is ClaimState.INTENT

    async def test_says_nothing_of_what_was_claimed_anew(self, stores, clock):
        scene, seen = await self.open_claim(stores, clock)
        await scene.settle(CLEAN)
        assert await scene.claim(seq=2) is None
        assert not await stores[1].disprove(seen, CLEAN)
        assert (await scene.find()).state is ClaimState.INTENT

    async def test_arguments_are_kept_until_the_claim_is_closed(self, stores, clock):
        scene, _ = await self.open_claim(stores, clock)
        await scene.settle(DOUBT)
        assert (await scene.find()).args == b'{"order":1}'
        await scene.settle(DONE)
        assert (await scene.find()).args is None


@pytest.mark.parametrize("make", ["file"], indirect=True)
@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
async def test_how_long_ago_a_write_was_sent_does_not_hang_on_the_wall_clock(stores, clock, jump_s):
    scene = Scene(stores[0], clock)
    await scene.begin()
    await scene.claim()
    clock.advance(7.0)
    clock.jump_wall(jump_s)
    assert (await scene.find()).sent_ago_s == pytest.approx(7.0)


class TestReserved:
    """What a model turn has reserved when its worker dies is charged, once."""

    async def test_what_is_held_at_the_crash_is_spent_for_whoever_goes_on(self, stores, clock):
        ours, theirs = stores
        await begin(ours)
        ours.history.hold_soon("r1", 1, (0.5, 100))
        ours.history.turn_soon("r1", 1, TurnRecord("", 1, b"1", "m", 0.2, 40), (0.25, 60))
        ours.history.hold_soon("r1", 1, (0.75, 160))
        await ours.flush()
        clock.advance(TTL_S)
        row = (await begin(theirs, resume=True)).row
        assert (row.spent_usd, row.spent_tokens) == (0.75, 160)
        ours.history.hold_soon("r1", 1, (9.0, 900))  # by now it is another's
        await ours.flush()
        clock.advance(TTL_S)
        row = (await begin(ours, resume=True)).row
        assert (row.spent_usd, row.spent_tokens) == (0.75, 160)

    async def test_what_was_settled_is_no_reservation(self, stores, clock):
        ours, theirs = stores
        await begin(ours)
        ours.history.hold_soon("r1", 1, (0.5, 100))
        ours.history.turn_soon("r1", 1, TurnRecord("", 1, b"1", "m", 0.2, 40), (0.0, 0))
        await ours.flush()
        clock.advance(TTL_S)
        row = (await begin(theirs, resume=True)).row
        assert (row.spent_usd, row.spent_tokens) == (0.0, 0)

    async def test_what_is_forgotten_stays_charged(self, stores):
        ours, _ = stores
        await begin(ours)
        for n in (1, 2):
            ours.history.turn_soon("r1", 1, TurnRecord("", n, None, "m", 0.2, 40))
        ours.history.forget_soon("r1", 2)  # of a fenced owner
        await ours.flush()
        assert len((await ours.history.history("r1")).turns) == 2
        ours.history.forget_soon("r1", 1)
        await ours.flush()
        row = await ours.run("r1")
        assert (row.spent_usd, row.spent_tokens) == (pytest.approx(0.4), 80)
        assert (await ours.history.history("r1")).turns == []


class TestFencedRows:
    """A fenced owner's trace and children are not written over the new one's."""

    async def test_trace_rows(self, stores, clock):
        ours, theirs = stores
        await begin(ours)
        clock.advance(TTL_S)
        await begin(theirs, resume=True)
        theirs.trace_soon("r1", 2, [{"seq": 1, "status": "new"}])
        await theirs.flush()
        ours.trace_soon("r1", 1, [{"seq": 1, "status": "old"}])
        await ours.flush()
        assert [row["status"] for row in await ours.calls_of("r1")] == ["new"]

    async def test_children(self, stores, clock):
        ours, theirs = stores
        await begin(ours)
        child = {"root_run_id": "r1", "path": "/sub", "payload_hash": None}
        await ours.begin(new_run("c0", **child))
        clock.advance(TTL_S)
        await begin(theirs, resume=True)
        assert (await ours.run("c0")).reason == "abandoned"  # with the attempt that it was of
        assert (await theirs.begin(new_run("c2", fence=2, **child))).row.fence == 2
        for run_id, path in (("c1", "/sub"), ("c3", "/other")):
            with pytest.raises(Fenced):
                await ours.begin(new_run(run_id, **{**child, "path": path}))
            assert await ours.run(run_id) is None
        assert (await theirs.run("c2")).state is RunState.RUNNING
        assert await theirs.end("c2", 2, RunState.ENDED, "success", {}, None)


async def test_the_heartbeat_renews_what_is_held_and_no_more(make):
    store = make(clock=SYSTEM, lease_ttl_s=0.3)
    await begin(store)
    await begin(store, "r2", "q2")
    lease = store.leases.hold("r1", 1, SYSTEM.boot())
    first = lease.until_s
    ceiling = time.monotonic() + 10.0
    while (await store.run("r2")).lease_left_s > 0 or lease.until_s <= first:
        assert time.monotonic() < ceiling
        time.sleep(0.01)  # noqa: ASYNC251 - a blocked event loop costs no lease
    assert (await store.run("r1")).lease_left_s > 0
    assert not lease.lost
