"""Behind PgBouncer in transaction mode: each transaction may get another connection, and nothing relies on the last one."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from pg_server import PATIENCE_S, USER
from scenes import DONE, Scene, new_run
from test_postgres_cuts import expected, history

from interlock.core.trust import Trust
from interlock.journal.store import ClaimState
from interlock.memory.fact import NewFact
from interlock.memory.scope import Scope
from interlock.memory.store import Search
from interlock.stores.pg_address import parse_address
from interlock.stores.postgres import PostgresStore
from interlock.stores.writer import WriterOptions

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")

CONFIG = """
[databases]
postgres = host={server} port=5432 dbname=postgres user=postgres
tenants = host={server} port=5432 dbname=postgres user=pooled_tenants
[pgbouncer]
unix_socket_dir = {folder}
listen_port = 6432
listen_addr =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 100
server_reset_query = discard all
server_reset_query_always = 1
logfile = {folder}/log
pidfile = {folder}/pid
"""


@pytest.fixture(scope="module")
def pooler(pg_server):
    """A pooler of three connections, each of which forgets everything after each transaction; its folder."""
    with tempfile.TemporaryDirectory(prefix="il-pool-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "config.ini").write_text(CONFIG.format(server=pg_server.folder, folder=folder))
        if USER:
            shutil.chown(folder, USER["user"], USER["group"])
        process = subprocess.Popen(
            [PGBOUNCER, str(folder / "config.ini")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **USER
        )
        ceiling = time.monotonic() + PATIENCE_S
        while not (folder / ".s.PGSQL.6432").exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < ceiling
            time.sleep(0.02)
        yield folder
        process.terminate()
        process.wait()


@pytest.fixture
def open_store(pooler, pg_url):
    opened = []

    def make(database="postgres", tenant=None, **words):
        schema = parse_address(pg_url).schema
        url = f"postgresql://postgres@/{database}?host={pooler}&port=6432&schema={schema}&pooler=transaction"
        url += f"&tenant={tenant}" if tenant else ""
        words = {"environ": {}, "replay": "plaintext", "options": WriterOptions(linger_s=0.01), **words}
        opened.append(PostgresStore(url, **words))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


async def test_the_contract_holds(open_store, clock):
    assert await history(open_store(), clock) == expected(0)


async def test_several_stores_on_fewer_connections(open_store, clock):
    stores = [open_store() for _ in range(4)]

    async def work(n, store):
        scene = Scene(store, clock)
        await scene.begin(f"run-{n}", f"request-{n}")
        keys = [f"{n}-{i}" for i in range(40)]
        assert await asyncio.gather(*(scene.claim(key) for key in keys)) == [None] * 40
        assert all(await asyncio.gather(*(scene.settle(DONE, key) for key in keys)))
        assert {(await scene.find(key)).state for key in keys} == {ClaimState.DONE}
        await store.switches.set("tool", f"tool.{n}", "kill", reason="fire", actor="ada")
        return len(await store.claims_of(f"run-{n}"))

    assert await asyncio.gather(*(work(n, store) for n, store in enumerate(stores))) == [40] * 4
    assert len((await stores[0].switches.read()).switches) == 4


async def test_leases_are_renewed_and_runs_taken_over(open_store, clock):
    ours, theirs = open_store(lease_ttl_s=0.4), open_store(lease_ttl_s=0.4)
    scene = Scene(ours, clock)
    await scene.begin()
    lease = ours.leases.hold("r1", 1, 0.0)
    first = lease.until_s
    ceiling = time.monotonic() + PATIENCE_S
    while lease.until_s <= first:
        assert time.monotonic() < ceiling
        await asyncio.sleep(0.05)
    ours.leases.let_go(lease)
    while not (await theirs.begin(_again(scene), resume=True)).fresh:
        assert time.monotonic() < ceiling
        await asyncio.sleep(0.05)
    assert (await ours.run("r1")).fence == 2


async def test_tenants_that_share_connections_see_their_own_rows_alone(open_store, pg_server, pg_url, clock):
    schema = parse_address(pg_url).schema
    pg_server.execute(f"create role pooled_tenants login; select {schema}.admit('pooled_tenants')")
    try:
        stores = {name: open_store("tenants", name) for name in ("acme", "globex", "initech", "hooli")}

        async def work(name, store):
            scene = Scene(store, clock)
            await scene.begin(f"run-{name}", "q", tenant_id=name)
            for i in range(20):
                assert await scene.claim(f"{name}-{i}") is None
                assert [row.tenant_id for row in await store.runs()] == [name]
            return len(await store.claims_of(f"run-{name}"))

        assert await asyncio.gather(*(work(*one) for one in stores.items())) == [20] * 4
        for store in stores.values():
            store.close()
    finally:
        pg_server.execute("drop owned by pooled_tenants; drop role pooled_tenants")


async def test_nobody_listens_behind_a_pooler_and_runs_are_found_all_the_same(open_store, pg_server):
    """What LISTEN asks for would stay with one of the pooler's connections."""
    store, other = open_store(), open_store()
    silence = store.leases.ring(lambda: None)
    await other.leases.queue(new_run())
    assert (await store.leases.take(["support"], None, {})).run_id == "r1"
    assert pg_server.execute("select 1 from pg_stat_activity where query ilike 'listen%'") == []
    silence()


def _again(scene):
    return new_run("r2", scene.row.request_id)


async def test_memory_names_its_scope_in_each_transaction(open_store):
    """Whatever connection it gets, and whoever had it before."""
    store = open_store()
    scopes = [Scope("acme"), Scope("acme", "ann"), Scope("globex"), Scope("globex", "bob", "chat")]

    async def work(n, scope):
        for i in range(20):
            fact_id = f"mem_{n * 100 + i:032x}"
            new = NewFact(fact_id=fact_id, text=f"word {n} {i}", created_at=1_000.0, expires_at=2_000.0)
            await store.memory.remember(scope, new)
            hits = await store.memory.search(scope, Search(words=("word",)), 1_500.0)
            assert {hit.fact.scope for hit in hits} <= set(scope.visible())
            assert sum(hit.fact.scope == scope for hit in hits) == i + 1
        return await store.memory.forget(scope, f"mem_{n * 100:032x}", Trust.NORMAL)

    assert await asyncio.gather(*(work(n, scope) for n, scope in enumerate(scopes))) == [True] * 4
