"""Purge on PostgreSQL: content goes, tombstones answer; keys go with their request; a doubt and a young key never."""

from __future__ import annotations

import pytest
from scenes import DONE, DOUBT, Scene, new_run

from interlock.journal.replay import CallRecord, TurnRecord
from interlock.journal.retention import Ages
from interlock.journal.store import ClaimState, RunState
from interlock.policy.approval import ApprovalRequest
from interlock.stores.pg_address import parse_address
from interlock.stores.pg_purge import PgRetention
from interlock.stores.postgres import PostgresStore

DAY = 86_400.0
AGES = Ages(30 * DAY, 90 * DAY, DAY)
CONTENT_ONLY = Ages(0.0, None, DAY)
TABLES = ("requests", "runs", "attempts", "journal", "turns", "results", "calls", "approvals")


@pytest.fixture
def store(pg_server, pg_url, clock):
    clock.govern(pg_server, parse_address(pg_url).schema)
    store = PostgresStore(pg_url, clock=clock, replay="plaintext", environ={})
    yield store
    store.close()


@pytest.fixture
def scene(store, clock):
    return Scene(store, clock)


@pytest.fixture
def counts(pg_server, pg_url):
    schema = parse_address(pg_url).schema
    return lambda: {t: pg_server.execute(f"select count(*) from {schema}.{t}")[0][0] for t in TABLES}


async def finished(scene, run_id="r1", request_id="q1", *, writes=1, reads=2, **words):
    store = scene.store
    await scene.begin(run_id, request_id, task=b'"secret task"', **words)
    for n in range(writes):
        await scene.claim(f"{run_id}/{n}")
        await scene.settle(DONE, f"{run_id}/{n}")
    for n in range(reads):
        store.history.turn_soon(run_id, 1, TurnRecord("", n, b'"secret reply"'))
        store.history.call_soon(run_id, 1, CallRecord("", n, "kb.read", b"d", 1, n, "success", value=b'"secret"'))
    for n in range(reads):
        store.trace_soon(run_id, 1, [{"seq": n}])
    await scene.end(record={"run_id": run_id, "steps": 3, "trace": ["secret", "\x00"]})
    await store.flush()


async def test_content_goes_and_the_tombstone_answers(scene, store, clock, counts, pg_server, pg_url):
    await finished(scene)
    clock.advance(30 * DAY - 1.0)
    assert (await store.retention.purge(AGES)).content == 0
    clock.advance(1.0)
    done = await store.retention.purge(AGES)
    assert (done.content, done.requests, done.claims, done.slices) == (1, 0, 0, 1)
    left = {table: n for table, n in counts().items() if n}
    assert left == {"requests": 1, "runs": 1, "journal": 1}
    row = (await scene.begin("r2")).row
    assert (row.run_id, row.state, row.reason, row.output_kept) == ("r1", RunState.ENDED, "success", False)
    assert row.record == {"purged": True, "run_id": "r1", "steps": 3}
    claim = await store.find(scene.key("r1/0"))
    assert (claim.state, claim.result_kept, claim.args_digest) == (ClaimState.DONE, False, b"d" * 16)
    schema = parse_address(pg_url).schema
    assert "secret" not in str([pg_server.execute(f"select t::text from {schema}.{t} t") for t in ("runs", "journal")])
    again = await store.retention.purge(AGES)
    assert (again.content, again.slices) == (0, 0)


async def test_keys_go_with_their_request_and_everything_else(scene, store, clock, counts):
    await finished(scene, writes=3)
    await scene.begin("r2", retry=True)
    await store.begin(new_run("r2.1", root_run_id="r2", path="/sub"))
    await store.end("r2.1", 1, RunState.ENDED, "success", {"steps": 1}, b"1")
    await scene.end(RunState.PARKED, "outcome_unknown")
    await scene.begin("r3", resume=True)
    row = await store.approvals.request(
        ApprovalRequest(scene.key("x"), "acme", "r2", "t", "v1", "words", clock.wall() + 60.0)
    )
    await store.approvals.decide(row.id, True, "ada")
    await scene.end()
    clock.advance(90 * DAY)
    dry = await store.retention.purge(AGES, dry_run=True)
    done = await store.retention.purge(AGES)
    assert (dry.requests, dry.claims, dry.slices) == (1, 3, 0)
    assert (done.content, done.requests, done.claims) == (0, 1, 3)
    assert set(counts().values()) == {0}
    assert (await scene.begin("r4")).fresh


async def test_with_content_only_no_key_goes(scene, store, clock, counts):
    await finished(scene)
    clock.advance(400 * DAY)
    done = await store.retention.purge(CONTENT_ONLY)
    assert (done.content, done.requests) == (1, 0)
    assert (counts()["requests"], counts()["journal"]) == (1, 1)


async def test_one_tenant_alone(scene, store, clock):
    await finished(scene)
    await finished(scene, "r2", "q2", tenant_id="globex")
    clock.advance(90 * DAY)
    assert (await store.retention.purge(AGES, tenant_id="globex")).requests == 1
    assert await store.run("r1") is not None
    assert await store.run("r2") is None


async def test_doubts_and_runs_that_are_not_over_stay_whole(scene, store, clock):
    await scene.begin("doubtful", "q1", task=b'"t"')
    await scene.claim("doubt")
    await scene.settle(DOUBT, "doubt")
    await scene.end(reason="outcome_unknown")
    await scene.begin("parked", "q2")
    await scene.end(RunState.PARKED, "approval_pending")
    await scene.begin("running", "q3")
    clock.advance(1_000 * DAY)
    done = await store.retention.purge(AGES)
    assert (done.doubts, done.unfinished, done.content, done.requests) == (1, 2, 0, 0)
    assert (await store.run("doubtful")).output == b'"done"'
    assert len(await store.doubts()) == 1


async def test_what_becomes_young_before_its_slice_is_left_alone(scene, store, clock):
    """Looked at again inside the transaction: between finding and forgetting, somebody tries the request anew."""
    await finished(scene)
    clock.advance(90 * DAY)
    ask = store._reader.ask

    async def first_somebody_else(query, *, repeat):
        if not repeat:
            await store.begin(new_run("r2"), retry=True)
        return await ask(query, repeat=repeat)

    store.retention._reader = type(
        "Reader", (), {"ask": staticmethod(first_somebody_else), "fetch": store._reader.fetch}
    )
    assert (await store.retention.purge(AGES)).requests == 0
    assert (await store.find(scene.key("r1/0"))).result is not None


async def test_a_run_with_many_rows_takes_many_slices_and_the_request_goes_first(scene, store, clock, counts, pg_url):
    await finished(scene, writes=25, reads=25)
    clock.advance(90 * DAY)
    retention = PgRetention(store._reader, parse_address(pg_url).schema, slice_rows=10)
    seen = []
    ask = store._reader.ask

    async def watched(query, *, repeat):
        result = await ask(query, repeat=repeat)
        seen.append((counts()["requests"], counts()["journal"]))
        return result

    retention._reader = type("Reader", (), {"ask": staticmethod(watched), "fetch": store._reader.fetch})
    done = await retention.purge(AGES)
    assert (done.requests, done.claims) == (1, 25)
    assert done.slices == len(seen) > 10
    assert set(counts().values()) == {0}
    assert not [left for left in seen if left[0] and left[1] < 25]
