"""Purge: content goes, tombstones answer; keys go together with their request; a doubt and a young key never."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenes import DONE, DOUBT, Scene, new_run

from interlock.core.clock import ManualClock
from interlock.core.errors import ConfigError
from interlock.journal.retention import Ages, Fate, Standing, fate
from interlock.journal.store import ClaimState, RunState, Settlement
from interlock.policy.approval import ApprovalRequest
from interlock.stores import purge
from interlock.stores.purge import SliceOptions, SqliteRetention
from interlock.stores.sqlite import SqliteStore

KEY = {"INTERLOCK_KEY": "5e" * 32}
DAY = 86_400.0
HORIZON = DAY
AGES = Ages(30 * DAY, 90 * DAY, HORIZON)
CONTENT_ONLY = Ages(0.0, None, HORIZON)
RECORD = {"run_id": "r1", "stop_reason": "success", "steps": 3, "tool_calls": 2, "cost_usd": 0.25, "trace": [{"x": 1}]}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def store(empty_file, path, clock):
    shutil.copy(empty_file, path)
    store = SqliteStore(path, clock=clock, environ=KEY)
    yield store
    store.close()


@pytest.fixture
def scene(store, clock):
    return Scene(store, clock)


def slices_of(store, clock, **options):
    return SqliteRetention(store._writer, store._reader, clock, options=SliceOptions(**options))


def rows(path, query, *params):
    db = sqlite3.connect(path)
    try:
        return db.execute(query, params).fetchall()
    finally:
        db.close()


def counts(path):
    tables = ("requests", "runs", "journal", "turns", "results", "calls", "approvals")
    return {table: rows(path, f"select count(*) from {table}")[0][0] for table in tables}


def read_rows(db, run_id, reads):
    for n in range(reads):
        db.execute("insert into turns values (?, '', ?, 'small', 0.1, 10, ?)", (run_id, n, b"a reply"))
        place = (run_id, n, b"d" * 16, n)
        db.execute("insert into results values (?, '', ?, 'kb.read', ?, 1, ?, 'success', 0, x'01', null)", place)


async def finished(scene, run_id="r1", request_id="q1", *, writes=1, reads=2, state=RunState.ENDED, **words):
    """One request with writes, turns, results and a trace, that has ended."""
    store = scene.store
    await scene.begin(run_id, request_id, task=b'"secret task"', **words)
    for n in range(writes):
        await scene.claim(f"{run_id}/{n}")
        await scene.settle(DONE, f"{run_id}/{n}")
    store._writer.later(read_rows, run_id, reads)
    for n in range(reads):
        store.trace_soon(run_id, 1, [{"seq": n, "tool": "kb.read"}])
    await scene.end(state, "success", record={**RECORD, "run_id": run_id})
    await store.flush()


# Content


async def test_content_goes_and_the_tombstone_answers(scene, store, path, clock):
    await finished(scene)
    clock.advance(30 * DAY)
    done = await store.retention.purge(AGES)
    assert (done.content, done.requests, done.claims) == (1, 0, 0)
    assert counts(path) == {
        "requests": 1, "runs": 1, "journal": 1, "turns": 0, "results": 0, "calls": 0, "approvals": 0
    }  # fmt: skip
    row = (await scene.begin("r2")).row
    assert (row.run_id, row.state, row.reason, row.output_kept) == ("r1", RunState.ENDED, "success", False)
    assert (row.record["steps"], row.record["tool_calls"], row.record["cost_usd"]) == (3, 2, 0.25)
    assert "trace" not in row.record
    assert rows(path, "select task from runs") == [(None,)]
    claim = await store.find(scene.key("r1/0"))
    assert (claim.state, claim.result_kept, claim.args_digest) == (ClaimState.DONE, False, b"d" * 16)
    assert claim.verified


async def test_a_payload_that_differs_is_still_told(scene, store, clock):
    await finished(scene)
    clock.advance(30 * DAY)
    await store.retention.purge(AGES)
    begun = await scene.begin("r2", payload_hash="other")
    assert (begun.fresh, begun.row.payload_hash) == (False, "h")


async def test_an_old_equal_write_is_not_sent_again_when_the_request_is_tried_anew(scene, store, clock):
    await finished(scene)
    key = scene.key("r1/0")
    clock.advance(31 * DAY)
    await store.retention.purge(AGES)
    await scene.begin("r2", retry=True)
    standing = await scene.claim("r1/0")
    assert standing is not None
    assert (standing.key, standing.state) == (key, ClaimState.DONE)


async def test_nothing_is_left_of_the_content_in_the_rows(scene, store, path, clock):
    await finished(scene)
    clock.advance(30 * DAY)
    await store.retention.purge(AGES)
    assert rows(path, "select count(*) from journal where result is not null") == [(0,)]
    assert b"trace" not in rows(path, "select record from runs")[0][0]
    assert rows(path, "select output from runs") == [(None,)]


@pytest.mark.parametrize(("days", "content"), [(29.99, 0), (30.0, 1)])
async def test_the_age_counts_from_the_last_work_on_the_request(scene, store, clock, days, content):
    await scene.begin()
    clock.advance(40 * DAY)
    await scene.end()
    clock.advance(days * DAY)
    assert (await store.retention.purge(AGES)).content == content


async def test_a_late_word_of_a_person_makes_a_request_young(scene, store, clock):
    await scene.begin()
    await scene.claim()
    await scene.settle(DOUBT)
    await scene.end(RunState.ENDED, "outcome_unknown")
    clock.advance(100 * DAY)
    await scene.settle(Settlement(ClaimState.DONE, by="ana", reason="seen"))
    assert (await store.retention.purge(AGES)).requests == 0
    clock.advance(90 * DAY)
    assert (await store.retention.purge(AGES)).requests == 1


async def test_a_second_purge_finds_nothing_to_do(scene, store, clock):
    await finished(scene)
    clock.advance(30 * DAY)
    await store.retention.purge(AGES)
    done = await store.retention.purge(AGES)
    assert (done.content, done.slices) == (0, 0)


async def test_words_shown_to_approvers_go_and_open_questions_stay(scene, store, path, clock):
    await scene.begin()
    for name, approved in (("a", True), ("b", None)):
        asked = ApprovalRequest(scene.key(name), "acme", "r1", "refund", "v1", "refund 17", clock.wall() + 400 * DAY)
        row = await store.approvals.request(asked)
        if approved is not None:
            await store.approvals.decide(row.id, approved, "ana", "fine")
    await scene.end()
    clock.advance(30 * DAY)
    await store.retention.purge(AGES)
    assert sorted(rows(path, "select state, rendered from approvals")) == [("approved", ""), ("pending", "refund 17")]
    clock.advance(60 * DAY)
    await store.retention.purge(AGES)
    assert counts(path)["approvals"] == 0


# Keys


async def test_keys_go_with_their_request_and_everything_else(scene, store, path, clock):
    await finished(scene, writes=3)
    clock.advance(90 * DAY)
    done = await store.retention.purge(AGES)
    assert (done.content, done.requests, done.claims, done.slices) == (0, 1, 3, 1)
    assert set(counts(path).values()) == {0}
    assert (await scene.begin("r2")).fresh


async def test_with_content_only_no_key_goes(scene, store, path, clock):
    await finished(scene)
    clock.advance(400 * DAY)
    done = await store.retention.purge(CONTENT_ONLY)
    assert (done.content, done.requests) == (1, 0)
    assert (counts(path)["requests"], counts(path)["journal"]) == (1, 1)


async def test_attempts_tried_anew_go_with_the_request(scene, store, path, clock):
    await finished(scene)
    await finished(scene, "r2", retry=True)
    clock.advance(30 * DAY)
    assert (await store.retention.purge(AGES)).content == 1
    assert rows(path, "select count(*) from runs where output is not null or task is not null") == [(0,)]
    clock.advance(60 * DAY)
    done = await store.retention.purge(AGES)
    assert (done.requests, done.claims) == (1, 2)
    assert set(counts(path).values()) == {0}


async def test_children_go_with_their_root(scene, store, path, clock):
    await scene.begin()
    await store.begin(new_run("r1.1", root_run_id="r1", path="/sub"))
    await scene.claim(path="/sub")
    await scene.settle(DONE)
    await store.end("r1.1", 1, RunState.ENDED, "success", {"steps": 1}, b"1")
    await scene.end()
    clock.advance(90 * DAY)
    assert (await store.retention.purge(AGES)).requests == 1
    assert set(counts(path).values()) == {0}


async def test_one_tenant_alone(scene, store, clock):
    await finished(scene)
    await finished(scene, "r2", "q2", tenant_id="globex")
    clock.advance(90 * DAY)
    assert (await store.retention.purge(AGES, tenant_id="globex")).requests == 1
    assert await store.run("r1") is not None
    assert await store.run("r2") is None
    assert (await store.retention.purge(AGES, tenant_id="nobody")).requests == 0


async def test_a_dry_run_counts_the_same_and_changes_nothing(scene, store, path, clock):
    await finished(scene, writes=2)
    clock.advance(70 * DAY)
    await finished(scene, "r2", "q2")
    clock.advance(30 * DAY)
    before = counts(path), store._writer.batches
    dry = await store.retention.purge(AGES, dry_run=True)
    assert (counts(path), store._writer.batches) == before
    done = await store.retention.purge(AGES)
    assert (dry.content, dry.requests, dry.claims) == (done.content, done.requests, done.claims) == (1, 1, 2)
    assert dry.slices == 0


# What is never touched


@pytest.mark.parametrize("ages", [AGES, CONTENT_ONLY])
async def test_an_open_doubt_keeps_its_request_whole(scene, store, path, clock, ages):
    await finished(scene)
    await scene.begin("r2", "q2", task=b'"t"')
    await scene.claim("doubt")
    await scene.settle(DOUBT, "doubt")
    await scene.end(RunState.ENDED, "outcome_unknown")
    clock.advance(1_000 * DAY)
    done = await store.retention.purge(ages)
    assert done.doubts == 1
    assert [claim.key for claim in await store.doubts()] == [scene.key("doubt")]
    row = await store.run("r2")
    assert (row.record, row.output) == ({"stop_reason": "outcome_unknown"}, b'"done"')
    assert rows(path, "select task is not null from runs where run_id = 'r2'") == [(1,)]


async def test_an_intent_of_a_dead_process_is_a_doubt(scene, store, clock):
    await scene.begin()
    await scene.claim()
    await scene.end()
    clock.advance(1_000 * DAY)
    assert (await store.retention.purge(AGES)).doubts == 1
    assert (await scene.find()).state is ClaimState.INTENT


@pytest.mark.parametrize("state", [None, RunState.PARKED])
async def test_a_run_that_is_not_over_is_kept(scene, store, clock, state):
    await scene.begin()
    await scene.claim()
    await scene.settle(DONE)
    if state is not None:
        await scene.end(state, "approval_pending")
    clock.advance(1_000 * DAY)
    done = await store.retention.purge(AGES)
    assert (done.unfinished, done.slices) == (1, 0)
    row = await store.run("r1")
    assert row.state is (state or RunState.RUNNING)
    assert (await scene.find()).result is not None


async def test_a_request_tried_anew_and_at_work_keeps_its_old_attempts(scene, store, clock):
    await finished(scene)
    clock.advance(200 * DAY)
    await scene.begin("r2", retry=True)
    clock.advance(200 * DAY)
    done = await store.retention.purge(AGES)
    assert (done.unfinished, done.slices) == (1, 0)
    assert (await store.run("r1")).output == b'"done"'


async def test_a_clock_that_went_back_makes_nothing_old(scene, store, clock):
    await finished(scene)
    clock.advance(100 * DAY)
    clock.jump_wall(-3_600.0 * 24 * 365)
    done = await store.retention.purge(AGES)
    assert (done.requests, done.content) == (0, 0)


async def test_what_becomes_young_before_its_slice_is_left_alone(scene, store, path, clock):
    """Looked at again inside the transaction: between finding and forgetting, somebody tries the request anew."""
    await finished(scene)
    clock.advance(90 * DAY)
    submit = store._writer.submit
    seen = []

    def first_somebody_else(work, *args):
        if not seen:
            seen.append(submit(lambda db: db.execute("update runs set state = 'running' where run_id = 'r1'").rowcount))
        return submit(work, *args)

    store._writer.submit = first_somebody_else
    done = await store.retention.purge(AGES)
    assert (await seen[0], done.requests, done.content) == (1, 0, 0)
    assert (await store.find(scene.key("r1/0"))).result is not None


# Slices, counted in transactions


async def test_many_small_requests_share_slices(scene, store, clock):
    for n in range(10):
        await finished(scene, f"r{n}", f"q{n}", writes=0, reads=0)
    clock.advance(30 * DAY)
    before = store._writer.batches
    done = await slices_of(store, clock, rows=4).purge(AGES)
    # A run's row and its look count one each.
    assert (done.content, done.slices) == (10, 5)
    assert store._writer.batches - before == 5


async def test_one_large_run_takes_many_slices(scene, store, path, clock):
    await finished(scene, reads=40)
    clock.advance(30 * DAY)
    before = store._writer.batches
    done = await slices_of(store, clock, rows=10).purge(AGES)
    assert done.content == 1
    assert done.slices == store._writer.batches - before >= 12
    assert (counts(path)["turns"], counts(path)["results"], counts(path)["calls"]) == (0, 0, 0)


async def test_no_slice_takes_more_rows_than_it_may(scene, store, path, clock):
    await finished(scene, reads=30, writes=30)
    clock.advance(30 * DAY)
    changes = []
    submit = store._writer.submit

    def counted(work, *args):
        def work_counted(db, *args):
            before = db.total_changes
            result = work(db, *args)
            changes.append(db.total_changes - before)
            return result

        return submit(work_counted, *args)

    store._writer.submit = counted
    await slices_of(store, clock, rows=7).purge(AGES)
    assert max(changes) <= 7
    assert sum(changes) == 30 * 4 + 1


async def test_large_values_fill_a_slice_by_their_bytes(scene, store, clock):
    await scene.begin()
    for n in range(6):
        await scene.claim(f"w{n}")
        await scene.settle(Settlement(ClaimState.DONE, b'"' + b"x" * 10_000 + b'"'), f"w{n}")
    await scene.end()
    clock.advance(30 * DAY)
    assert (await slices_of(store, clock, size_bytes=25_000).purge(AGES)).slices == 3


async def test_one_value_larger_than_a_slice_goes_all_the_same(scene, store, clock):
    await finished(scene, writes=0)
    clock.advance(30 * DAY)
    done = await slices_of(store, clock, size_bytes=1).purge(AGES)
    assert (done.content, done.slices) == (1, 7)


async def test_a_slice_ends_when_its_time_is_over(scene, store, clock):
    for n in range(4):
        await finished(scene, f"r{n}", f"q{n}", writes=0, reads=0)
    clock.advance(30 * DAY)

    class Ticking(ManualClock):
        def monotonic(self):
            self.advance(0.004)
            return super().monotonic()

    ticking = Ticking(start_s=1_000.0, wall_s=clock.wall())
    assert (await slices_of(store, ticking).purge(AGES)).slices == 4


async def test_a_request_goes_in_one_transaction_with_its_claims_although_the_slice_was_begun(
    scene, store, path, clock
):
    await finished(scene, "r1", "q1", writes=3, reads=0)
    await finished(scene, "r2", "q2", writes=3, reads=0)
    clock.advance(90 * DAY)
    assert (await slices_of(store, clock).purge(CONTENT_ONLY)).content == 2
    submit = store._writer.submit
    left = []

    async def watched(work, *args):
        result = await submit(work, *args)
        left.append((counts(path)["requests"], counts(path)["journal"]))
        return result

    store._writer.submit = watched
    done = await slices_of(store, clock, rows=8).purge(AGES)
    assert (done.requests, done.claims, done.slices) == (2, 6, 2)
    assert left == [(1, 3), (0, 0)]


async def test_more_claims_than_a_slice_takes_the_request_goes_first(scene, store, path, clock):
    await finished(scene, writes=10, reads=0)
    clock.advance(90 * DAY)
    await slices_of(store, clock).purge(CONTENT_ONLY)
    submit = store._writer.submit
    left = []

    async def watched(work, *args):
        result = await submit(work, *args)
        left.append((counts(path)["requests"], counts(path)["journal"]))
        return result

    store._writer.submit = watched
    done = await slices_of(store, clock, rows=4).purge(AGES)
    assert (done.requests, done.claims) == (1, 10)
    assert left[0] == (0, 6)
    assert set(counts(path).values()) == {0}


async def test_a_purge_that_dies_between_slices_is_gone_on_with(scene, store, path, clock):
    await finished(scene, writes=9, reads=9)
    clock.advance(90 * DAY)
    submit = store._writer.submit
    for stops_after in (1, 2, 3):
        allowed = iter(range(stops_after))

        async def dying(work, *args, allowed=allowed):
            if next(allowed, None) is None:
                raise KeyboardInterrupt
            return await submit(work, *args)

        store._writer.submit = dying
        with pytest.raises(KeyboardInterrupt):
            await slices_of(store, clock, rows=3).purge(AGES)
    store._writer.submit = submit
    done = await slices_of(store, clock, rows=3).purge(AGES)
    assert done.requests == 1
    assert set(counts(path).values()) == {0}


async def test_others_write_between_slices(scene, store, path, clock):
    """Another store on the same file writes while a purge of many slices is under way."""
    for n in range(30):
        await finished(scene, f"r{n}", f"q{n}", writes=0, reads=0)
    clock.advance(90 * DAY)
    other = SqliteStore(path, clock=clock, environ=KEY)
    order = []

    async def write():
        for n in range(5):
            await other.begin(new_run(f"new{n}", f"new{n}"))
            order.append("write")

    async def forget():
        done = await slices_of(store, clock, rows=2).purge(AGES)
        order.append("purged")
        return done

    try:
        done, _ = await asyncio.gather(forget(), write())
        assert done.requests == 30
        assert order[:5].count("write") >= 4
        assert await other.run("new4") is not None
    finally:
        other.close()


async def test_the_log_is_moved_between_slices_and_not_by_a_commit(scene, store, path, clock, monkeypatch):
    for n in range(30):
        await finished(scene, f"r{n}", f"q{n}", writes=0, reads=0)
    clock.advance(90 * DAY)
    opened = []
    connect = purge.connect

    def counted(path, **words):
        opened.append(path)
        return connect(path, **words)

    monkeypatch.setattr(purge, "connect", counted)
    retention = SqliteRetention(store._writer, store._reader, clock, str(path), SliceOptions(rows=2))
    done = await retention.purge(AGES)
    assert done.slices >= 30
    assert len(opened) == done.slices // 8


async def test_an_empty_store(store):
    assert (await store.retention.purge(AGES)).slices == 0


async def test_a_store_in_memory(clock):
    store = SqliteStore(":memory:", clock=clock, environ=KEY)
    try:
        scene = Scene(store, clock)
        await finished(scene)
        clock.advance(90 * DAY)
        assert (await store.retention.purge(AGES)).requests == 1
        assert await store.run("r1") is None
    finally:
        store.close()


# Ages


@pytest.mark.parametrize(
    ("content", "keys", "horizon", "says"),
    [
        (1.0, 0.5 * DAY, DAY, "tools.dedupe_window_s"),
        (2 * DAY, DAY, DAY, "retention.content_days"),
        (None, 90 * DAY, DAY, "retention.content_days"),
        (-1.0, None, DAY, "retention.content_days"),
        (float("nan"), None, DAY, "retention.content_days"),
        (1.0, float("inf"), DAY, "retention.keys_days"),
    ],
)
def test_ages_that_cannot_be(content, keys, horizon, says):
    with pytest.raises(ConfigError, match=says):
        Ages(content, keys, horizon)


async def test_null_keeps_everything(scene, store, clock):
    await finished(scene)
    clock.advance(1_000 * DAY)
    assert (await store.retention.purge(Ages(None, None, HORIZON))).slices == 0
    assert (await store.run("r1")).output == b'"done"'


seconds = st.floats(0, 400 * DAY)


@st.composite
def some_ages(draw):
    horizon = draw(st.floats(0, 100 * DAY))
    content = draw(st.none() | seconds)
    keys = None if content is None else draw(st.none() | st.floats(max(content, horizon), 500 * DAY))
    return Ages(content, keys, horizon)


@given(
    ages=some_ages(),
    finished=st.booleans(),
    doubt=st.booleans(),
    content=st.booleans(),
    age_s=st.floats(-DAY, 900 * DAY),
)
def test_the_decision_never_touches_a_doubt_a_run_at_work_or_a_young_key(ages, finished, doubt, content, age_s):
    now = 2e9
    standing = Standing(finished, doubt, now - age_s, content)
    age_s = now - standing.last_s
    decided = fate(standing, ages, now)
    if doubt or not finished:
        assert decided not in {Fate.REMOVE, Fate.DROP_CONTENT}
    if decided is Fate.REMOVE:
        assert age_s >= ages.horizon_s
        assert age_s >= ages.keys_s
    if decided is Fate.DROP_CONTENT:
        assert content
        assert age_s >= ages.content_s
    if finished and not doubt and ages.keys_s is not None and age_s >= ages.keys_s:
        assert decided is Fate.REMOVE


@contextmanager
def memory(clock):
    store = SqliteStore(":memory:", clock=clock, environ={}, replay="plaintext")
    try:
        yield store
    finally:
        store.close()


requests_ = st.lists(
    st.tuples(
        st.floats(0, 120),  # days since it began
        st.sampled_from(["running", "parked", "ended"]),
        st.lists(st.sampled_from(["intent", "done", "failed_clean", "in_doubt"]), max_size=3),
        st.booleans(),  # tried anew
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests=requests_, ages=some_ages(), rows_=st.integers(1, 5))
def test_no_open_doubt_no_young_key_and_no_run_at_work_is_ever_lost(requests, ages, rows_):
    """Over ages and states, in slices of any size: what must stay is there, what stays half is not seen."""

    async def play():
        clock = ManualClock(wall_s=2e9)
        with memory(clock) as store:
            made = []
            for n, (age_days, ended_as, claims, again) in enumerate(sorted(requests, key=lambda r: -r[0])):
                clock.jump_wall(2e9 - age_days * DAY - clock.wall())
                scene = Scene(store, clock)
                await scene.begin(f"r{n}", f"q{n}")
                for i, claim in enumerate(claims):
                    await scene.claim(f"{n}/{i}")
                    if claim != "intent":
                        await scene.settle(Settlement(ClaimState(claim), b"1"), f"{n}/{i}")
                state = ended_as
                if state != "running":
                    await scene.end(RunState(state))
                    if again:
                        await scene.begin(f"r{n}b", f"q{n}", retry=True)
                        await scene.end()
                        state = "ended"
                made.append((n, scene, clock.wall(), state, claims))
            clock.jump_wall(2e9 - clock.wall())
            await slices_of(store, clock, rows=rows_).purge(ages)
            for n, scene, at, state, claims in made:
                age_s = clock.wall() - at
                kept = [await scene.find(f"{n}/{i}") for i in range(len(claims))]
                run = await store.run(scene.row.run_id)
                is_open = {"intent", "in_doubt"} & set(claims)
                if is_open or state != "ended" or age_s < ages.horizon_s or ages.keys_s is None or age_s < ages.keys_s:
                    assert run is not None
                    assert None not in kept
                    assert [claim.state for claim in kept] == claims
                else:
                    assert run is None
                    assert kept == [None] * len(claims)
                if run is not None and (
                    is_open or state != "ended" or ages.content_s is None or age_s < ages.content_s
                ):
                    assert all(claim.result_kept == (claim.state is ClaimState.DONE) for claim in kept)
                elif run is not None:
                    assert not run.output_kept
                    assert not any(claim.result_kept for claim in kept)

    asyncio.run(play())
