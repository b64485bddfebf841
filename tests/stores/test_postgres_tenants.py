"""Row-level security: who does not own the tables sees one tenant, whatever he asks (SEMANTICS D3)."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest
from scenes import DONE, DOUBT, Scene, new_run
from test_postgres_cuts import EXPECTED, history

from interlock.core.errors import ConfigError, StoreUnavailable
from interlock.journal.replay import CallRecord, TurnRecord
from interlock.journal.store import Fenced, RunState
from interlock.policy.approval import ApprovalRequest, ApprovalState
from interlock.stores.pg_address import parse_address
from interlock.stores.pg_connections import connect, transaction
from interlock.stores.postgres import PostgresStore
from interlock.stores.writer import WriterOptions

ROLE = "tenant_service"


@pytest.fixture
def role(pg_server, pg_url):
    schema = parse_address(pg_url).schema
    pg_server.execute(f"create role {ROLE} login; select {schema}.admit('{ROLE}')")
    yield ROLE
    pg_server.execute(f"drop owned by {ROLE}; drop role {ROLE}")


@pytest.fixture
def open_store(pg_url, role, clock):
    opened = []

    def make(tenant=None, role=None):
        url = pg_url.replace("postgres@", f"{role}@") if role else pg_url
        url += f"&tenant={tenant}" if tenant else ""
        store = PostgresStore(url, replay="plaintext", options=WriterOptions(linger_s=0.01))
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
async def both(open_store, clock):
    """Two tenants' rows, written by a worker; and a store bound to each of the two."""
    worker = open_store()
    scenes = {}
    for tenant in ("acme", "globex"):
        scene = scenes[tenant] = Scene(worker, clock)
        await scene.begin(f"run-{tenant}", "q", tenant_id=tenant)
        await scene.end(RunState.PARKED, "approval_pending")
        await scene.begin("again", "q", tenant_id=tenant, resume=True)
        await scene.claim(f"open-{tenant}")
        await scene.settle(DOUBT, f"open-{tenant}")
        request = ApprovalRequest(
            scene.key(tenant), tenant, f"run-{tenant}", "t", "v1", "…", scene.row.started_at + 600.0
        )
        await worker.approvals.request(request)
        worker.trace_soon(f"run-{tenant}", 2, [{"seq": 1}])
        worker.history.turn_soon(f"run-{tenant}", 2, TurnRecord("", 1, b"1"))
        worker.history.call_soon(f"run-{tenant}", 2, CallRecord("", 1, "t", b"d", 1, 1, "success"))
        await worker.tenants.reserve(tenant, "2026-11-22", 1.0, 5.0)
        await worker.tenants.enter(tenant, f"run-{tenant}", 5)
    await worker.flush()
    return scenes["acme"], scenes["globex"], open_store("acme", ROLE), open_store("globex", ROLE)


async def test_each_reads_its_own_rows_alone(both):
    acme, globex, mine, _ = both
    assert [row.run_id for row in await mine.runs()] == ["run-acme"]
    assert await mine.runs(tenant_id="globex") == []
    assert await mine.run("run-globex") is None
    assert (await mine.find(acme.key("open-acme"))).tenant_id == "acme"
    assert await mine.find(globex.key("open-globex")) is None
    assert [claim.tenant_id for claim in await mine.doubts()] == ["acme"]
    assert await mine.doubts("globex") == []
    assert await mine.claims_of("run-globex") == []
    assert [row.tenant_id for row in await mine.approvals.list()] == ["acme"]
    assert await mine.approvals.get(globex.key("globex"), "v1") is None
    assert await mine.calls_of("run-acme") == [{"seq": 1}]
    assert await mine.calls_of("run-globex") == []
    assert len((await mine.history.history("run-acme")).turns) == 1
    theirs = await mine.history.history("run-globex")
    assert (theirs.turns, theirs.calls) == ([], [])


async def test_no_table_with_a_tenant_in_it_is_readable_without_naming_one(pg_server, pg_url, both):
    """And none was forgotten: every table that carries a tenant is bound."""
    schema = parse_address(pg_url).schema
    tables = [
        row[0]
        for row in pg_server.execute(
            f"select table_name from information_schema.columns where table_schema = '{schema}' and column_name = 'tenant_id'"
            # Those of memory ask for more than a tenant: tests/memory/test_postgres_scope.py.
            " and table_name not like 'memory%'"
        )
    ]
    assert len(tables) >= 9
    for table in tables:
        assert pg_server.execute(f"select 1 from {schema}.{table}"), f"{table} is empty: the test shows nothing"
        pg_server.execute(f"set role {ROLE}")
        try:
            assert pg_server.execute(f"select 1 from {schema}.{table}") == [], table
            pg_server.execute("select set_config('interlock.tenant', 'acme', false)")
            seen = pg_server.execute(f"select distinct tenant_id from {schema}.{table}")
            assert [row[0] for row in seen] == ["acme"], table
        finally:
            pg_server.execute("reset role")
            pg_server.execute("reset interlock.tenant")


async def test_nobody_changes_another_s_rows(pg_server, pg_url, both):
    _acme, globex, mine, _ = both
    assert not await mine.settle(globex.key("open-globex"), DONE)
    assert not await mine.end("run-globex", 2, RunState.ENDED, "killed", {}, None)
    theirs = (await globex.store.approvals.list(tenant_id="globex"))[0]
    assert await mine.approvals.decide(theirs.id, True, "mallory") is None
    mine.trace_soon("run-globex", 1, [{"seq": 1, "status": "forged"}])
    mine.history.forget_soon("run-globex", 1)
    await mine.flush()
    assert await globex.store.calls_of("run-globex") == [{"seq": 1}]
    assert len((await globex.store.history.history("run-globex")).turns) == 1
    assert (await globex.store.approvals.get(globex.key("globex"), "v1")).state is ApprovalState.PENDING
    assert (await globex.store.run("run-globex")).state is RunState.RUNNING
    assert await mine.leases.attempts_of("run-globex") == []
    assert not await mine.leases.requeue("run-globex")
    assert not await mine.leases.hand_back("run-globex", 2, 0.0)
    pg_server.execute(f"update {parse_address(pg_url).schema}.runs set lease_until_s = 1")
    assert (await mine.leases.take(["support"], None, {})).run_id == "run-acme"
    assert await mine.leases.take(["support"], None, {}) is None
    assert await mine.leases.reap(0.0, []) == []
    assert (await globex.store.run("run-globex")).fence == 2


async def test_nobody_begins_or_claims_in_another_s_name_and_the_rest_goes_on(both):
    acme, globex, mine, _ = both
    outcomes = await asyncio.gather(
        mine.begin(new_run("forged", "q9", tenant_id="globex")),
        mine.begin(new_run("good", "q9", tenant_id="acme")),
        mine.claim(globex.intent("forged")),
        mine.claim(acme.intent("good")),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], StoreUnavailable)
    assert outcomes[1].fresh
    assert isinstance(outcomes[2], Exception)
    assert outcomes[3] is None
    mine.begin_soon(new_run("forged", "q8", tenant_id="globex"))
    await mine.flush()
    assert mine.lost == 1
    assert await globex.store.run("forged") is None


async def test_a_tenant_switches_itself_off_and_nobody_else(both):
    acme, _globex, mine, theirs = both
    await mine.switches.set("tenant", "acme", "kill", reason="fire", actor="ada")
    for scope, subject in (
        ("global", ""),
        ("tenant", "globex"),
        ("tool", "*"),
        ("agent", "support"),
        ("run", "run-globex"),
    ):
        with pytest.raises(StoreUnavailable, match="row-level security"):
            await mine.switches.set(scope, subject, "kill", reason="fire", actor="ada")
    await acme.store.switches.set("run", "run-globex", "kill", reason="fire", actor="ada")
    await acme.store.switches.set("tool", "db.*", "kill", reason="fire", actor="ada")

    async def subjects(store):
        return [switch.subject for switch in (await store.switches.read()).switches]

    assert await subjects(mine) == ["acme", "db.*"]
    assert await subjects(theirs) == ["run-globex", "db.*"]
    assert await subjects(acme.store) == ["acme", "run-globex", "db.*"]
    assert not await theirs.switches.lift("tenant", "acme", "kill", reason="no", actor="mallory")
    assert await mine.switches.lift("tenant", "acme", "kill", reason="out", actor="ada")


async def test_a_store_of_one_tenant_keeps_the_contract(open_store, clock):
    """The whole life of a run, as the tests of cuts have it, with every statement bound to the tenant."""
    said = await history(open_store("acme", ROLE), clock)
    assert said[:14] == EXPECTED[:14]
    assert said[15:] == EXPECTED[15:]


def test_a_role_that_sees_one_tenant_is_not_taken_for_one_that_sees_all(open_store):
    with pytest.raises(ConfigError, match=r"add \?tenant="):
        open_store(role=ROLE)
    with pytest.raises(ConfigError, match=r"sees all tenants"):
        open_store("acme")


def test_a_tenant_makes_no_store(pg_server, role):
    with pytest.raises(ConfigError, match="role of the workers"):
        PostgresStore(f"{pg_server.new_url().replace('postgres@', ROLE + '@')}&tenant=acme", replay="off")


@pytest.mark.parametrize("table", ["journal", "turns", "results", "calls", "attempts"])
def test_no_row_belongs_to_one_tenant_and_to_a_run_of_another(pg_server, pg_url, both, table):
    """Not even for the owner of the tables, whom row-level security does not bind: the foreign key carries the tenant."""
    schema = parse_address(pg_url).schema
    with pytest.raises(Exception, match="violates foreign key constraint"):
        pg_server.execute(f"update {schema}.{table} set tenant_id = 'globex' where run_id = 'run-acme'")


async def test_a_worker_claims_for_the_tenant_of_the_run_alone(both, clock):
    """The grouped statements see all tenants; each intent is held against its own run's."""
    acme, globex, _, _ = both
    mixed = acme.intent("mixed")._replace(tenant_id="globex")
    outcomes = await asyncio.gather(
        acme.store.claim(mixed), acme.store.claim(acme.intent("fine")), globex.store.claim(globex.intent("too")),
        return_exceptions=True,
    )  # fmt: skip
    assert isinstance(outcomes[0], Fenced)
    assert outcomes[1:] == [None, None]
    assert await acme.store.find(mixed.key) is None


async def test_the_tenant_is_named_for_one_transaction_and_no_longer(pg_url, both):
    """So that a pooler cannot hand it on with the connection."""
    schema = parse_address(pg_url).schema
    db = await connect(parse_address(pg_url.replace("postgres@", f"{ROLE}@")), 30.0)
    try:
        count = f"select count(*) from {schema}.runs"
        async with transaction(db, "acme"):
            assert await db.fetchval(count) == 1
        assert await db.fetchval(count) == 0
        async with transaction(db, "globex"):
            assert await db.fetchval(f"select tenant_id from {schema}.runs") == "globex"
        assert await db.fetchval("select current_setting('interlock.tenant', true)") in {"", None}
    finally:
        await db.close()


async def test_a_tenant_named_with_quotes_is_a_name_like_any_other(pg_url, both, open_store):
    hostile = "acme'; reset role; --"
    mine = PostgresStore(
        f"{pg_url.replace('postgres@', ROLE + '@')}&tenant={quote(hostile)}", replay="plaintext", environ={}
    )
    try:
        assert await mine.runs() == []
        assert (await mine.begin(new_run("own", "q", tenant_id=hostile))).fresh
        assert [row.run_id for row in await mine.runs()] == ["own"]
    finally:
        mine.close()
