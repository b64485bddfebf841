"""On PostgreSQL the scope is held by row-level security: whatever a statement asks for, it sees one scope."""

from __future__ import annotations

import asyncio

import pytest
from memory_scenes import ACME, ANN, BOB, CHAT, GLOBEX, NOW, held, new_artifact, new_fact, statement, texts

from interlock.core.errors import ConfigError, StoreUnavailable
from interlock.core.trust import Trust
from interlock.memory.fact import State
from interlock.memory.store import PurgePolicy, Search
from interlock.stores.pg_address import parse_address
from interlock.stores.pg_connections import connect, transaction
from interlock.stores.pg_reach import Reach, ScopedMemory
from interlock.stores.postgres import PostgresStore
from interlock.stores.writer import WriterOptions

ROLE = "memory_tenant"
OWNER = "memory_owner"


@pytest.fixture
def open_store(pg_url):
    opened = []

    def make(url=pg_url, **words):
        opened.append(PostgresStore(url, environ={}, replay="off", options=WriterOptions(linger_s=0.01), **words))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
async def filled(open_store):
    """A fact and an artifact in each of five scopes."""
    store = open_store()
    for scope in (ACME, ANN, CHAT, BOB, GLOBEX):
        await store.memory.remember(scope, new_fact(f"secret of {'/'.join(filter(None, scope.parts))}", ttl_s=1e9))
        store.memory.put_artifact_soon(scope, new_artifact(ttl_s=1e9))
    await store.flush()
    return store


@pytest.fixture
async def db(pg_url):
    """A connection of the role that made the store: a superuser."""
    connection = await connect(parse_address(pg_url), 30.0)
    yield connection
    await connection.close()


def table(pg_url, name):
    return f"{parse_address(pg_url).schema}.memory_{name}"


@pytest.mark.parametrize("name", ["facts", "artifacts", "gone"])
async def test_no_row_is_seen_where_no_scope_is_named(pg_url, filled, db, name):
    await filled.memory.drop(ACME, (await filled.memory.list_facts(ACME, NOW))[0].fact_id)
    assert await db.fetchval(f"select count(*) from {table(pg_url, name)}") > 0  # a superuser is exempt …
    await db.execute("set role interlock_memory")  # … and memory is not his to read as himself
    assert await db.fetchval(f"select count(*) from {table(pg_url, name)}") == 0
    for names in ({"tenant": "acme"}, {"reach": "read"}, {"reach": "below"}, {"reach": "write", "user": "ann"}):
        async with transaction(db, None):
            for key, value in names.items():
                await db.execute(f"select set_config('interlock.{key}', $1, true)", value)
            assert await db.fetchval(f"select count(*) from {table(pg_url, name)}") == 0, names


@pytest.mark.parametrize(
    ("reach", "scope", "seen"),
    [
        (Reach.READ, CHAT, {"acme", "acme/ann", "acme/ann/chat-1"}),
        (Reach.READ, BOB, {"acme", "acme/bob"}),
        (Reach.READ, ACME, {"acme"}),
        (Reach.WRITE, ANN, {"acme/ann"}),
        (Reach.BELOW, ANN, {"acme/ann", "acme/ann/chat-1"}),
        (Reach.BELOW, GLOBEX, {"globex"}),
    ],
)
async def test_a_statement_without_any_condition_sees_its_scope_alone(pg_url, filled, db, reach, scope, seen):
    """The clause that a query forgets is in the policy."""
    scoped = ScopedMemory(parse_address(pg_url), become=True)
    async with transaction(db, None), scoped.within(db, reach, scope, NOW):
        rows = await db.fetch(f"select text from {table(pg_url, 'facts')}")
    assert {row[0].removeprefix("secret of ") for row in rows} == seen


async def test_nobody_inserts_moves_or_deletes_in_another_scope(pg_url, filled, db):
    scoped = ScopedMemory(parse_address(pg_url), become=True)
    facts = table(pg_url, "facts")
    copied = f"""insert into {facts} (fact_id, tenant_id, user_id, session_id, state, trust, created_at, expires_at,
        text, origin, words) select 'mem_' || md5($1), $1, $2, '', state, trust, created_at, expires_at, text, origin, words
        from {facts} limit 1"""
    for tenant, user in (("globex", "ann"), ("acme", "bob"), ("acme", "")):
        with pytest.raises(Exception, match="row-level security"):
            async with transaction(db, None), scoped.within(db, Reach.WRITE, ANN, NOW):
                await db.execute(copied, tenant, user)
    for changed in ("tenant_id = 'globex'", "user_id = 'bob'", "user_id = ''"):
        with pytest.raises(Exception, match="row-level security"):
            async with transaction(db, None), scoped.within(db, Reach.WRITE, ANN, NOW):
                await db.execute(f"update {facts} set {changed}")
    async with transaction(db, None), scoped.within(db, Reach.WRITE, ANN, NOW):
        assert await db.execute(f"delete from {facts} where tenant_id = 'globex'") == "DELETE 0"
        assert await db.execute(f"delete from {facts}") == "DELETE 1"
    async with transaction(db, None), scoped.within(db, Reach.READ, ANN, NOW):
        assert await db.execute(f"delete from {facts}") == "DELETE 0"
    assert await held(filled.memory, GLOBEX, (await filled.memory.list_facts(GLOBEX, NOW))[0].fact_id)


async def test_what_has_expired_is_not_in_the_policy_s_sight(pg_url, filled, db):
    """To the second, and whatever the date has become."""
    await filled.memory.remember(ANN, new_fact("short", ttl_s=60.0))
    scoped = ScopedMemory(parse_address(pg_url), become=True)
    facts = table(pg_url, "facts")

    async def seen(now):
        async with transaction(db, None), scoped.within(db, Reach.READ, ANN, now):
            return await db.fetchval(f"select count(*) from {facts} where text = 'short'")

    assert [await seen(NOW + later) for later in (-301, -300, 0, 59.999, 60, 61)] == [0, 1, 1, 1, 0, 0]
    for date in ("'NaN'", "'Infinity'"):
        await db.execute(f"update {facts} set expires_at = {date} where text = 'short'")
        assert await seen(NOW) == 0
    await db.execute(f"update {facts} set expires_at = {NOW + 60}, created_at = 'NaN' where text = 'short'")
    assert await seen(NOW) == 0


async def test_the_scope_is_named_for_one_transaction_and_no_longer(pg_url, filled, db):
    scoped = ScopedMemory(parse_address(pg_url), become=True)
    async with transaction(db, None):
        async with scoped.within(db, Reach.READ, ANN, NOW):
            assert await db.fetchval("select current_user") == "interlock_memory"
        # Others share the transaction: they are who they were, and see no memory by our scope.
        assert await db.fetchval("select current_user") == "postgres"
        assert await db.fetchval("select current_setting('interlock.reach', true)") == ""
    async with transaction(db, None), scoped.within(db, Reach.READ, ANN, NOW):
        pass
    await db.execute("set role interlock_memory")
    assert await db.fetchval(f"select count(*) from {table(pg_url, 'facts')}") == 0


async def test_a_store_becomes_a_role_that_the_policies_hold(filled):
    """A superuser's too: with a query that forgets every condition, each verb is held to its scope."""
    forgetful = filled.memory
    forgetful._text = lambda text: text.replace("{s}", forgetful._schema).replace("f.tenant_id = $1", "$1 = $1")
    assert {fact.scope for fact in await forgetful.list_facts(ANN, NOW)} == {ANN, CHAT}
    assert (await forgetful.stats(ANN, NOW)).active == 2


async def test_facts_share_a_transaction_with_journals(filled):
    """A statement on memory that is refused spoils nothing, and leaves nobody with another role."""
    before = filled._writer.batches
    outcomes = await asyncio.gather(
        *(filled.memory.remember(scope, new_fact(f"again {i}")) for i, scope in enumerate((ANN, GLOBEX) * 10)),
        filled.tenants.reserve("acme", "2026-11-22", 1.0, 5.0),
    )
    assert [fact.scope for fact in outcomes[:20]] == [ANN, GLOBEX] * 10
    assert outcomes[20]
    assert filled._writer.batches - before < len(outcomes)


async def test_a_store_of_one_tenant_reaches_no_other(pg_server, pg_url, filled, open_store):
    schema = parse_address(pg_url).schema
    pg_server.execute(f"create role {ROLE} login; select {schema}.admit('{ROLE}')")
    try:
        mine = open_store(pg_url.replace("postgres@", f"{ROLE}@") + "&tenant=acme")
        assert await texts(mine.memory, GLOBEX, "secret") == []
        assert await mine.memory.list_facts(GLOBEX, NOW) == []
        assert await texts(mine.memory, ACME, "secret") == ["secret of acme"]
        assert await mine.memory.purge(GLOBEX, PurgePolicy(whole=True), NOW) == 0
        with pytest.raises(StoreUnavailable, match="row-level security"):
            await mine.memory.remember(GLOBEX, new_fact("forged"))
        assert (await mine.memory.remember(ANN, new_fact("own"))).text == "own"
        assert await mine.memory.purge_expired(NOW + 1e10) == 0
        assert await texts(filled.memory, GLOBEX, "secret") == ["secret of globex"]
        mine.close()
    finally:
        pg_server.execute(f"drop owned by {ROLE}; drop role {ROLE}")


async def test_an_owner_without_privileges_is_bound_too(pg_server, open_store):
    """The common case: the role that makes the store is no superuser. No other role is needed, nor made."""
    pg_server.execute(f"create role {OWNER} login; grant create on database postgres to {OWNER}")
    url = pg_server.url("owned_memory").replace("postgres@", f"{OWNER}@")
    try:
        store = open_store(url)
        await store.memory.remember(ANN, new_fact("mine", ttl_s=1e9))
        await store.memory.remember(GLOBEX, new_fact("short"))
        assert await texts(store.memory, CHAT, "mine") == ["mine"]
        assert await texts(store.memory, GLOBEX, "mine") == []
        owner = await connect(parse_address(url), 30.0)
        assert await owner.fetchval("select count(*) from owned_memory.memory_facts") == 0
        await owner.close()
        assert await store.memory.purge_expired(NOW + 100) == 1
        assert (await store.memory.stats(ANN, NOW)).active == 1
        store.close()
    finally:
        pg_server.execute(f"drop schema if exists owned_memory cascade; drop owned by {OWNER}; drop role {OWNER}")


async def test_a_role_that_nothing_binds_is_refused(pg_server, open_store):
    """Memory needs a role that the policies hold; everything else works without."""
    pg_server.execute(f"create role {OWNER} login bypassrls; grant create on database postgres to {OWNER}")
    pg_server.execute("alter role interlock_memory rename to somebody")
    try:
        store = open_store(pg_server.url("owned_memory").replace("postgres@", f"{OWNER}@"))
        with pytest.raises(ConfigError, match="no role interlock_memory to become"):
            await store.memory.get(ANN, "mem_1", NOW)
        assert await store.runs() == []
        store.close()
    finally:
        pg_server.execute("alter role somebody rename to interlock_memory")
        pg_server.execute(f"drop schema if exists owned_memory cascade; drop owned by {OWNER}; drop role {OWNER}")


async def test_two_workers_that_say_the_same_leave_one_statement(open_store):
    stores = [open_store() for _ in range(3)]
    for round_ in range(5):
        await asyncio.gather(
            *(
                store.memory.remember(ANN, statement(f"{round_}-{i}-{n}", now=NOW + round_))
                for i, store in enumerate(stores)
                for n in range(5)
            )
        )
    facts = await stores[0].memory.list_facts(ANN, NOW + 10, limit=1000)
    assert len(facts) == 75
    assert sum(fact.state is State.ACTIVE for fact in facts) == 1
    assert all(fact.superseded_by for fact in facts if fact.state is State.SUPERSEDED)


async def test_one_fact_that_two_workers_write_is_one(open_store):
    """A resumed run beside its zombie: the id is the same, and so is the answer."""
    one, other = open_store(), open_store()
    new = new_fact("once")
    facts = await asyncio.gather(*(store.memory.remember(ANN, new) for store in (one, other) for _ in range(5)))
    assert {fact.fact_id for fact in facts} == {new.fact_id}
    assert (await one.memory.stats(ANN, NOW)).active == 1


async def test_recall_beside_a_purge(open_store):
    """Each answer is whole, and what a purge does not name is always found."""
    reader, writer = open_store(), open_store()
    for i in range(300):
        writer.memory.remember_soon(ANN, new_fact(f"kept {i}" if i % 10 == 0 else f"old {i}", now=NOW - (i % 10)))
    await writer.flush()

    async def recall():
        while not purge.done():
            hits = await reader.memory.search(ANN, Search(words=("kept",), limit=100), NOW)
            assert len(hits) == 30
            assert all(hit.fact.text.startswith("kept") for hit in hits)

    purge = asyncio.ensure_future(writer.memory.purge(ACME, PurgePolicy(older_than_s=1), NOW))
    await asyncio.gather(recall(), recall())
    assert await purge == 270
    assert await texts(reader.memory, ANN, "old") == []


async def test_words_that_are_syntax_elsewhere(filled):
    hostile = [
        "' | secret",
        "secret:*",
        "a & !b",
        "x'; drop table memory_facts; --",
        "\\",
        "''",
        "<->",
        "\N{SYMBOL FOR ESCAPE}0",
    ]
    for text in hostile:
        await filled.memory.remember(ANN, new_fact(f"{text} marked", subject=text, tags=(text,)))
        found = await filled.memory.search(ANN, Search(words=(text, "marked"), subject=text, tags=(text,)), NOW)
        assert [hit.fact.text for hit in found] == [f"{text} marked"]
        assert found[0].fact.subject == text
        assert found[0].fact.trust is Trust.NORMAL
