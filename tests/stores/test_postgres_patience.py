"""A slow server is not one that is away: patience is with silence, and what many ask at once is asked once."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from pg_cutter import Cutter
from pg_server import PATIENCE_S
from scenes import new_run

from interlock.core.errors import StoreUnavailable
from interlock.journal.store import RunState
from interlock.stores.pg_address import parse_address
from interlock.stores.pg_connections import connect
from interlock.stores.pg_work import alone
from interlock.stores.postgres import PostgresStore
from interlock.stores.writer import WriterOptions


@pytest.fixture
def opened(pg_url):
    """Return a function that opens a store, and close all of them in the end."""
    stores = []

    def make(url=pg_url, **words):
        options = words.pop("options", WriterOptions(patience_s=30.0, linger_s=0.01))
        stores.append(PostgresStore(url, environ={}, replay="plaintext", options=options, **words))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def deadlocks(server):
    return (server.folder / "log").read_bytes().count(b"deadlock detected")


@contextlib.asynccontextmanager
async def locked(url, sql):
    """A transaction of somebody else's that holds a lock."""
    db = await connect(parse_address(url), PATIENCE_S)
    try:
        async with db.transaction():
            await db.execute(sql)
            yield
    finally:
        await db.close()


async def waiting(server, count):
    """Return when so many connections wait for a lock."""
    async with asyncio.timeout(PATIENCE_S):
        while server.execute("select count(*) from pg_stat_activity where wait_event_type = 'Lock'")[0][0] < count:  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.02)


async def slowly(db):
    await db.execute("select pg_sleep(0.15)")
    return True


async def test_a_batch_of_many_statements_may_take_longer_than_one_may_be_silent(opened):
    store = opened(options=WriterOptions(patience_s=1.0, linger_s=0.01))
    assert await asyncio.gather(*(store._writer.submit(alone(slowly)) for _ in range(10))) == [True] * 10

    async def silently(db):
        await db.execute("select pg_sleep(30)")

    with pytest.raises(StoreUnavailable, match="no answer in time"):
        await store._writer.submit(alone(silently))


async def test_many_requests_that_are_known_already_may_take_longer_too(opened, pg_server, pg_url):
    """Each of them is looked at by itself."""
    store = opened(options=WriterOptions(patience_s=1.0, linger_s=0.01))
    runs = [new_run(f"r{i}", f"q{i}") for i in range(12)]
    await asyncio.gather(*(store.begin(run) for run in runs))
    schema = parse_address(pg_url).schema
    pg_server.execute(
        f"update {schema}.runs set lease_until_s = 1; create or replace function {schema}.slow() returns trigger "
        "language plpgsql as $$ begin perform pg_sleep(0.2); return new; end $$; "
        f"create trigger slow before update on {schema}.runs for each row execute function {schema}.slow()"
    )
    try:
        again = await asyncio.gather(*(store.begin(new_run(f"s{i}", f"q{i}"), resume=True) for i in range(12)))
    finally:
        pg_server.execute(f"drop trigger slow on {schema}.runs; drop function {schema}.slow()")
    assert {(begun.fresh, begun.row.fence) for begun in again} == {(True, 2)}


async def test_leases_that_are_confirmed_at_one_moment_share_a_statement(opened, pg_server, pg_url, clock):
    cutter = Cutter(pg_server)
    store = opened(f"postgresql://postgres@/postgres?host={cutter.folder}&schema={parse_address(pg_url).schema}")
    await asyncio.gather(*(store.begin(new_run(f"r{i}", f"q{i}")) for i in range(100)))
    leases = [store.leases.hold(f"r{i}", 1, 0.0) for i in range(100)]
    await store.leases.confirm(leases[0])
    cutter.arm(0)
    assert all(await asyncio.gather(*map(store.leases.confirm, leases)))
    assert cutter.statements < 20
    cutter.close()


async def test_a_lease_is_confirmed_beside_a_writer_that_is_busy(opened):
    store = opened()
    await store.begin(new_run())
    lease = store.leases.hold("r1", 1, 0.0)
    busy = [store._writer.submit(alone(slowly)) for _ in range(20)]
    await store.leases.confirm(lease)
    assert not busy[-1].done()
    assert lease.until_s > 0.0
    await asyncio.gather(*busy)


async def test_a_lease_cannot_be_confirmed_once_the_store_is_closed(opened):
    store = opened()
    await store.begin(new_run())
    lease = store.leases.hold("r1", 1, 0.0)
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.leases.confirm(lease)


async def test_renewals_wait_for_nobody_and_nobody_for_them(opened, pg_server, pg_url):
    """A run whose row is locked is asked for again; the others are renewed meanwhile."""
    store = opened(lease_ttl_s=3600.0)
    names = ("r1", "r2", "r3")
    await asyncio.gather(*(store.begin(new_run(name, name)) for name in names))
    leases = [store.leases.hold(name, 1, 0.0) for name in names]
    await store.leases.confirm(leases[0])
    schema = parse_address(pg_url).schema
    async with locked(pg_url, f"select 1 from {schema}.runs where run_id = 'r1' for no key update"):
        renewed = [asyncio.ensure_future(store.leases.confirm(lease)) for lease in leases]
        assert await asyncio.gather(*renewed[1:]) == [True, True]
        assert not renewed[0].done()
        assert pg_server.execute("select 1 from pg_stat_activity where wait_event_type = 'Lock'") == []
    assert await renewed[0]


async def test_a_lease_whose_row_stays_locked_cannot_be_confirmed(opened, pg_url):
    store = opened(lease_ttl_s=3600.0, options=WriterOptions(patience_s=0.5, linger_s=0.01))
    await store.begin(new_run())
    lease = store.leases.hold("r1", 1, 0.0)
    before = lease.until_s
    async with locked(pg_url, f"select 1 from {parse_address(pg_url).schema}.runs for no key update"):
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            await store.leases.confirm(lease)
    assert (lease.lost, lease.until_s) == (False, before)


async def test_two_processes_that_are_asked_for_the_same_requests_wait_in_one_order(opened, pg_server):
    ours, theirs = opened(), opened()
    before = deadlocks(pg_server)
    for round_ in range(5):
        requests = [f"{round_}-{i}" for i in range(64)]
        begun = await asyncio.gather(
            *(ours.begin(new_run(f"a{name}", name), resume=True) for name in requests),
            *(theirs.begin(new_run(f"b{name}", name), resume=True) for name in reversed(requests)),
        )
        assert sum(one.fresh for one in begun) == 64
    assert deadlocks(pg_server) == before


async def test_the_server_lets_go_of_what_a_stopped_or_dead_process_holds(opened):
    store = opened()
    (row,) = await store._reader.fetch(
        "select current_setting('idle_in_transaction_session_timeout'), "
        "current_setting('client_connection_check_interval')"
    )
    assert tuple(row) == ("10s", "2s")


async def test_of_two_that_try_a_request_again_at_one_moment_one_does(opened, pg_server, pg_url):
    """The second has waited for the first, and must see what the first has made of the request."""
    ours, theirs = opened(), opened()
    await ours.begin(new_run("r1", "q1"))
    assert await ours.end("r1", 1, RunState.ENDED, "tool_failed", {}, None)
    async with locked(pg_url, f"select 1 from {parse_address(pg_url).schema}.requests for update"):
        both = [
            asyncio.ensure_future(store.begin(new_run(name, "q1"), retry=True))
            for store, name in ((ours, "r2"), (theirs, "r3"))
        ]
        await waiting(pg_server, 2)
    begun = await asyncio.gather(*both)
    assert sorted(one.fresh for one in begun) == [False, True]
    assert begun[0].row.run_id == begun[1].row.run_id
    assert len(await ours.runs(state=RunState.RUNNING)) == 1


async def test_a_lease_is_not_taken_for_renewed_where_the_run_was_taken_meanwhile(opened, pg_url):
    """It seems to be ours until the one who takes it commits."""
    store = opened(lease_ttl_s=3600.0)
    await store.begin(new_run())
    lease = store.leases.hold("r1", 1, 0.0)
    before = lease.until_s
    schema = parse_address(pg_url).schema
    async with locked(pg_url, f"update {schema}.runs set fence = 2, owner = 'another'"):
        confirmed = asyncio.ensure_future(store.leases.confirm(lease))
        await asyncio.sleep(0.3)  # it is asked for, and asked for again
        assert not confirmed.done()
        assert lease.until_s == before
    assert not await confirmed
    assert lease.lost


@pytest.mark.parametrize("value", ["off", "remote_apply", "local"])
async def test_sessions_ask_for_commits_that_wait_and_for_no_less_than_the_server_does(opened, pg_server, value):
    pg_server.execute(f"alter role postgres set synchronous_commit = {value}")
    try:
        store = opened()
        (row,) = await store._reader.fetch("select current_setting('synchronous_commit')")
        assert row[0] == ("on" if value == "off" else value)
    finally:
        pg_server.execute("alter role postgres reset synchronous_commit")


async def test_a_beat_that_waits_for_its_turn_leaves_the_connection_to_whoever_has_it(opened, pg_server, pg_url):
    """A renewal held up by the server for longer than the next beats are patient is the one that comes through."""
    store = opened(lease_ttl_s=0.3)
    await store.begin(new_run())
    lease = store.leases.hold("r1", 1, 0.0)
    schema = parse_address(pg_url).schema
    async with locked(pg_url, f"lock table {schema}.runs in access exclusive mode"):
        confirmed = asyncio.ensure_future(store.leases.confirm(lease))
        await waiting(pg_server, 1)
        pids = "select pid from pg_stat_activity where wait_event_type = 'Lock'"
        # A beat may have been there before it, and was given up.
        async with asyncio.timeout(PATIENCE_S):
            while (first := pg_server.execute(pids)) != (await asyncio.sleep(0.3, pg_server.execute(pids))):
                pass
        await asyncio.sleep(1.0)  # ten beats
        assert pg_server.execute(pids) == first
    assert await confirmed
