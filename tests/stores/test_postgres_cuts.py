"""Connections that are cut at every statement, before it or before its answer: nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from pg_cutter import Cutter
from scenes import CLEAN, DONE, DOUBT, Scene

from interlock.core.errors import StoreUnavailable
from interlock.journal.store import ClaimState, Fenced, RunState
from interlock.policy.approval import ApprovalRequest, ApprovalState
from interlock.stores.pg_address import parse_address
from interlock.stores.postgres import PostgresStore
from interlock.stores.writer import WriterOptions

OPTIONS = WriterOptions(patience_s=5.0, linger_s=0.01, retry_s=0.05)


@pytest.fixture
def cutter(pg_server):
    cutter = Cutter(pg_server)
    yield cutter
    cutter.close()


@pytest.fixture
def open_store(pg_url, cutter):
    opened = []

    def make(options=OPTIONS):
        url = f"postgresql://postgres@/postgres?host={cutter.folder}&schema={parse_address(pg_url).schema}"
        store = PostgresStore(url, environ={}, replay="plaintext", options=options)
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


async def history(store, clock, n=0):
    """A piece of a life of the store, and everything that it answered."""
    scene = Scene(store, clock)
    said = []
    begun = await scene.begin(f"r{n}", f"q{n}")
    said.append((begun.fresh, begun.row.state, begun.row.fence))
    said.append(await scene.claim("a"))
    said.append(await scene.settle(DONE, "a"))
    said.append((await scene.claim("a")).state)
    said.append(await scene.claim("b"))
    said.append(await scene.settle(DOUBT, "b"))
    said.append(await store.resend(scene.key("b"), f"r{n}", 1))
    said.append(await scene.settle(CLEAN, "b"))
    said.append(await scene.claim("b"))
    row = await store.approvals.request(
        ApprovalRequest(scene.key("c"), "acme", f"r{n}", "t", "v1", "…", begun.row.started_at + 600.0)
    )
    said.append((await store.approvals.decide(row.id, True, "ada")).state)
    said.append(await scene.claim("c", approval_id=row.id))
    said.append((await store.approvals.get(scene.key("c"), "v1")).state)
    outcomes = await asyncio.gather(
        scene.claim("d"), scene.claim("a"), scene.claim("e", fence=9), scene.settle(DONE, "c"), return_exceptions=True
    )
    said.append([getattr(outcome, "state", type(outcome)) for outcome in outcomes])
    store.trace_soon(f"r{n}", 1, [{"seq": 1}])
    said.append(await scene.end(RunState.PARKED, "outcome_unknown"))
    begun = await scene.begin("later", f"q{n}", resume=True)
    said.append((begun.fresh, begun.row.run_id, begun.row.fence, begun.row.attempts))
    store.settle_soon(scene.key("d"), DONE)
    said.append(await scene.end())
    said.append((await store.run(f"r{n}")).state)
    claims = await store.claims_of(f"r{n}")
    said.append(sorted((claim.sent_key, claim.state, claim.sends, claim.evidence) for claim in claims))
    said.append(await store.calls_of(f"r{n}"))
    return said


EXPECTED = [
    (True, RunState.RUNNING, 1),
    None,
    True,
    ClaimState.DONE,
    None,
    True,
    None,
    True,
    None,
    ApprovalState.APPROVED,
    None,
    ApprovalState.CONSUMED,
    [type(None), ClaimState.DONE, Fenced, bool],
    True,
    (True, "r{n}", 2, 2),
    True,
    RunState.ENDED,
    [
        ("il1_a", ClaimState.DONE, 1, ()),
        ("il1_b", ClaimState.INTENT, 1, DOUBT.evidence),
        ("il1_c", ClaimState.DONE, 1, ()),
        ("il1_d", ClaimState.DONE, 1, ()),
    ],
    [{"seq": 1}],
]


def expected(n):
    said = list(EXPECTED)
    said[14] = (True, f"r{n}", 2, 2)
    return said


async def test_the_history_without_cuts(open_store, clock):
    assert await history(open_store(), clock) == expected(0)


@pytest.mark.parametrize("after", [False, True])
async def test_a_cut_at_any_statement_changes_nothing(open_store, cutter, clock, after):
    """W1 and W6 at each place: who waits hears the same, and the store holds the same, as if nothing had happened."""
    store = open_store()
    await history(store, clock)
    for at in range(1, 200):
        cutter.arm(at, after=after)
        assert await history(store, clock, at) == expected(at), f"cut at statement {at}"
        if not cutter.cuts:
            break
    assert 30 < at < 199


async def test_cuts_that_do_not_end_are_told_and_what_was_not_acknowledged_is_withdrawn(open_store, cutter, clock):
    """The commit is carried out each time, and its answer lost each time: the caller may not send, and knows it."""
    store = open_store(WriterOptions(patience_s=0.4, linger_s=0.01, retry_s=0.02))
    scene = Scene(store, clock)
    await scene.begin()
    await scene.claim("sent before")
    await scene.settle(DOUBT, "sent before")
    cutter.arm(1, after=True, times=10_000)
    with pytest.raises(StoreUnavailable):
        await scene.claim("lost")
    with pytest.raises(StoreUnavailable):
        await store.resend(scene.key("sent before"), "r1", 1)
    cutter.arm(0)
    await store.flush()
    lost = await scene.find("lost")
    assert lost is None or (lost.state, lost.settled_by) == (ClaimState.FAILED_CLEAN, "store")
    assert (await scene.find("sent before")).state is ClaimState.IN_DOUBT
    assert await scene.claim("lost") is None


async def test_many_callers_under_many_cuts(open_store, cutter, clock):
    store = open_store()
    scene = Scene(store, clock)
    await scene.begin()
    cuts, done = 0, 0

    async def saboteur():
        nonlocal cuts
        while cuts < 8:
            await asyncio.sleep(0.1)  # how long it is left alone; too short, and nobody could connect
            cutter.cut_all()
            cuts += 1

    async def caller(name):
        nonlocal done
        for i in itertools.count():
            if cuts >= 8:
                return
            assert await scene.claim(f"{name}-{i}") is None
            assert await scene.settle(DONE, f"{name}-{i}")
            done += 1

    await asyncio.gather(saboteur(), *(caller(name) for name in range(32)))
    claims = await store.claims_of("r1")
    assert len(claims) == done > 32
    assert {(claim.state, claim.sends) for claim in claims} == {(ClaimState.DONE, 1)}
