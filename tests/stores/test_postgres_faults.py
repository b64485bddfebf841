"""Addresses that are wrong, schemas that will not do, and a server that is away: each says what to do, nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
import subprocess
import sys
import threading

import pytest
from pg_server import Server
from scenes import DONE, Scene, new_run

from interlock.core.errors import ConfigError, StoreUnavailable
from interlock.journal.store import ClaimState, RunState
from interlock.stores.pg_address import parse_address
from interlock.stores.pg_schema import SCHEMA_VERSION, check_server
from interlock.stores.postgres import PostgresStore
from interlock.stores.writer import WriterOptions

PATIENT = WriterOptions(patience_s=30.0, linger_s=0.01, retry_s=0.05)
IMPATIENT = WriterOptions(patience_s=1.0, linger_s=0.01, retry_s=0.05)


@pytest.fixture
def opened():
    """Return a function that opens a store, and close all of them in the end."""
    stores = []

    def make(url, **words):
        store = PostgresStore(url, **{"environ": {}, "replay": "plaintext", "options": PATIENT, **words})
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()


class TestAddress:
    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("mysql://h/d", "mysql is not postgresql"),
            ("postgresql://h/d?schema=a-b", "schema="),
            ("postgresql://h/d?schema=", "schema="),
            ("postgresql://h/d?schema=a;drop", "schema="),
            ("postgresql://h/d?pooler=statement", "pooler="),
            ("postgresql://h/d?tenant=", "tenant="),
            ("postgresql://[h/d", "not a URL"),
            ("postgresql://h/d?x", "not a URL"),
            ("postgresql://h:port/d", "postgresql://user:password@host:5432/database"),
        ],
    )
    def test_that_is_none_is_an_error_of_configuration(self, opened, url, says):
        with pytest.raises(ConfigError, match=says):
            opened(url)

    def test_keeps_the_password_from_people_and_what_is_ours_from_the_driver(self):
        address = parse_address(
            "postgres://ada:hunter2@h:1/d?schema=s&pooler=transaction&tenant=t&password=x&sslmode=require"
        )
        assert address.dsn == "postgresql://ada:hunter2@h:1/d?password=x&sslmode=require"
        assert address.shown == "postgresql://ada@h:1/d?sslmode=require"
        assert (address.schema, address.pooled, address.tenant_id) == ("s", True, "t")

    @pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
    def test_an_unreachable_server_is_named_without_the_password(self, opened, scheme):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(StoreUnavailable, match="server runs and can be reached") as caught:
            opened(f"{scheme}://ada:hunter2@127.0.0.1:{port}/d")
        assert "hunter2" not in str(caught.value)
        assert str(port) in str(caught.value)

    def test_a_server_that_says_nothing_is_not_waited_for_for_ever(self, opened):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            with pytest.raises(StoreUnavailable, match="no answer in time"):
                opened(f"postgresql://ada@127.0.0.1:{silent.getsockname()[1]}/d?sslmode=disable", options=IMPATIENT)

    def test_a_server_that_speaks_another_language(self, opened):
        def answer():
            with contextlib.suppress(OSError):
                client, _ = other.accept()
                client.recv(1000)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                client.close()

        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            threading.Thread(target=answer, daemon=True).start()
            with pytest.raises(StoreUnavailable):
                opened(f"postgresql://ada@127.0.0.1:{other.getsockname()[1]}/d?sslmode=disable")

    def test_a_database_or_user_or_parameter_that_is_not_there(self, pg_server, opened):
        url = pg_server.url()
        with pytest.raises(ConfigError, match="no such database"):
            opened(url.replace("/postgres?", "/nowhere?"))
        with pytest.raises(ConfigError, match="check the user and the password"):
            opened(pg_server.url(user="nobody"))
        with pytest.raises(ConfigError, match="parameter of the URL"):
            opened(pg_server.url(shcema="x"))

    def test_without_the_driver_the_extra_is_named(self, monkeypatch, opened):
        monkeypatch.setitem(sys.modules, "asyncpg", None)
        with pytest.raises(ConfigError, match=r"pip install interlock\[postgres\]"):
            opened("postgresql://h/d")


@pytest.fixture
def new_url(pg_server):
    url = pg_server.new_url()
    yield url
    pg_server.execute(f"drop schema if exists {parse_address(url).schema} cascade")


class TestSchema:
    def test_is_made_once_by_many_that_open_it_at_once(self, new_url, opened):
        secrets = []
        threads = [threading.Thread(target=lambda: secrets.append(opened(new_url).secret)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(secrets) == 6
        assert len(set(secrets)) == 1

    def test_nothing_is_made_outside_of_it(self, pg_server, new_url, opened):
        opened(new_url)
        assert pg_server.execute("select 1 from pg_class c join pg_namespace s on s.oid = c.relnamespace "
                                 "where s.nspname = 'public'") == []  # fmt: skip

    def test_of_a_newer_version_is_left_alone(self, pg_server, new_url, opened):
        opened(new_url).close()
        schema = parse_address(new_url).schema
        pg_server.execute(f"insert into {schema}.migrations values ({SCHEMA_VERSION + 1}, 'from the future')")
        with pytest.raises(ConfigError, match=r"newer Interlock.*upgrade"):
            opened(new_url)

    async def test_of_an_older_version_is_brought_up_and_keeps_what_it_holds(self, pg_server, new_url, opened, clock):
        """As it was after the first step alone."""
        store = opened(new_url)
        await Scene(store, clock).begin()
        store.close()
        schema = parse_address(new_url).schema
        later = "attempts turns results calls journal runs requests approvals switches switch_events tenant_spend tenant_runs"
        pg_server.execute(
            f"delete from {schema}.migrations where version > 1; drop function {schema}.admit(name); "
            + "".join(f"drop table {schema}.memory_{name};" for name in ("facts", "artifacts", "gone"))
            + f"drop function {schema}.memory_lives, {schema}.memory_now, {schema}.memory_reach, {schema}.this_user, "
            f"{schema}.this_session; "
            + "".join(f"drop policy if exists of_tenant on {schema}.{table};" for table in later.split())
            + f"drop policy seen on {schema}.switches; drop policy set_by_tenant on {schema}.switches; "
            f"drop function {schema}.this_tenant(); "
            + "".join(f"alter table {schema}.{table} disable row level security;" for table in later.split())
            + f"drop index {schema}.runs_parked; alter table {schema}.journal drop args; "
            f"alter table {schema}.runs drop held_usd, drop held_tokens, drop spent_usd, drop spent_tokens; "
            f"alter table {schema}.calls rename column part to seq; "
            f"alter table {schema}.calls alter column seq type integer; "
            f"""insert into {schema}.calls values ('acme', 'r1', 2, '{{"seq":2}}'), ('acme', 'r1', 1, '{{"seq":1}}')"""
        )
        secret = pg_server.execute(f"select value from {schema}.meta")[0][0]
        store = opened(new_url)
        assert store.secret == secret
        store.trace_soon("r1", 1, [{"seq": 2, "status": "success"}, {"seq": 3}])
        await store.flush()
        assert await store.calls_of("r1") == [{"seq": 1}, {"seq": 2, "status": "success"}, {"seq": 3}]
        assert len(pg_server.execute(f"select 1 from {schema}.migrations")) == SCHEMA_VERSION

    @pytest.mark.parametrize("table", ["journal", "runs", "approvals"])
    def test_of_which_a_part_is_gone_is_half_a_store(self, pg_server, new_url, opened, table):
        opened(new_url).close()
        pg_server.execute(f"drop table {parse_address(new_url).schema}.{table} cascade")
        with pytest.raises(ConfigError, match=f"{table} missing.*backup"):
            opened(new_url)

    def test_of_another_program_is_left_alone(self, pg_server, new_url, opened):
        schema = parse_address(new_url).schema
        pg_server.execute(f"create schema {schema}; create table {schema}.runs (theirs text)")
        with pytest.raises(ConfigError, match="holds other tables"):
            opened(new_url)
        assert [
            row[0] for row in pg_server.execute(f"select tablename from pg_tables where schemaname = '{schema}'")
        ] == ["runs"]

    def test_without_its_secret_is_damaged(self, pg_server, new_url, opened):
        opened(new_url).close()
        pg_server.execute(f"delete from {parse_address(new_url).schema}.meta")
        with pytest.raises(ConfigError, match="secret is gone"):
            opened(new_url)

    def test_a_step_that_fails_leaves_nothing_behind(self, pg_server, new_url, opened):
        """The role may make a schema, but the second step meets a function that is there already."""
        schema = parse_address(new_url).schema
        pg_server.execute(
            f"create schema {schema}; create function {schema}.this_tenant() returns text language sql as 'select null::text'"
        )
        with pytest.raises((ConfigError, StoreUnavailable), match="this_tenant"):
            opened(new_url)
        assert pg_server.execute(f"select 1 from pg_tables where schemaname = '{schema}'") == []
        pg_server.execute(f"drop function {schema}.this_tenant()")
        opened(new_url)

    def test_a_role_that_may_make_nothing_is_told_so(self, pg_server, new_url, opened):
        pg_server.execute("create role no_rights login")
        try:
            with pytest.raises(StoreUnavailable, match="role lacks a right"):
                opened(new_url.replace("postgres@", "no_rights@"))
        finally:
            pg_server.execute("drop role no_rights")

    def test_a_server_of_an_older_version_is_named(self, opened, new_url):
        class Thirteen:
            def get_server_version(self):
                return type("Version", (), {"major": 13})

        with pytest.raises(ConfigError, match="PostgreSQL 13 is too old: 14"):
            check_server(Thirteen(), parse_address(new_url))


class TestReplay:
    def test_without_a_key_results_are_not_kept_and_that_is_said(self, pg_url, opened, caplog, clock):
        with caplog.at_level(logging.WARNING, "interlock"):
            store = opened(pg_url, replay="on")
        assert "INTERLOCK_KEY" in caplog.text
        assert not store.history.keeps

    def test_what_was_chosen_is_not_warned_of(self, pg_url, opened, caplog):
        opened(pg_url, replay="plaintext")
        opened(pg_url, replay="off")
        opened(pg_url, replay="on", environ={"INTERLOCK_KEY": "5e" * 32})
        assert [record for record in caplog.records if record.name == "interlock"] == []

    @pytest.mark.parametrize("key", ["secret", "00" * 31])
    def test_a_key_that_is_none_is_an_error(self, pg_url, opened, key):
        with pytest.raises(ConfigError, match="64 hexadecimal digits"):
            opened(pg_url, environ={"INTERLOCK_KEY": key})

    async def test_no_content_is_readable_in_the_tables(self, pg_server, pg_url, opened, clock):
        scene = Scene(opened(pg_url, replay="on", environ={"INTERLOCK_KEY": "5e" * 32}), clock)
        await scene.begin(task=b'"my password is hunter2"')
        await scene.claim()
        await scene.settle(DONE.__class__(DONE.state, b'{"card":"hunter2"}'))
        await scene.end(output=b'"the answer is hunter2"')
        schema = parse_address(pg_url).schema
        for table in ("runs", "journal"):
            text = str(pg_server.execute(f"select t::text, * from {schema}.{table} t"))
            assert "hunter2" not in text
            assert b"hunter2".hex() not in text


@pytest.fixture(scope="module")
def mortal():
    """A server that tests stop and kill."""
    server = Server(log_min_messages="fatal")
    yield server
    server.remove()


@pytest.fixture
def mortal_url(mortal):
    if mortal.process.poll() is not None:
        mortal.start()
    url = mortal.new_url()
    mortal.make(url)
    return url


class TestAway:
    """SEMANTICS D1."""

    async def test_writes_are_refused_in_time_and_what_nobody_waits_for_is_kept_in_order(
        self, mortal, mortal_url, opened, clock
    ):
        store = opened(mortal_url, options=IMPATIENT)
        scene = Scene(store, clock)
        await scene.begin()
        await scene.claim("before")
        mortal.stop()
        loop = asyncio.get_running_loop()
        for _ in range(2):
            began = loop.time()
            with pytest.raises(StoreUnavailable):
                await scene.claim("refused")
            assert loop.time() - began < 5.0
        for ask in (scene.find, store.switches.read, store.runs, store.doubts):
            with pytest.raises(StoreUnavailable):
                await ask()
        with pytest.raises(StoreUnavailable):
            await store.switches.set("global", "", "kill", reason="fire", actor="ada")
        store.settle_soon(scene.key("before"), DONE)
        store.begin_soon(new_run("r2", "q2"))
        store.trace_soon("r2", 1, [{"seq": 1}])
        store.end_soon("r2", 1, RunState.ENDED, "success", {}, None)
        with pytest.raises(StoreUnavailable):
            await scene.claim("refused too")
        mortal.start()
        await store.flush()
        assert (await scene.find("before")).state is ClaimState.DONE
        assert (await store.run("r2")).state is RunState.ENDED
        assert await store.calls_of("r2") == [{"seq": 1}]
        # What its caller was told had failed did not happen behind his back.
        assert await scene.find("refused") is None
        assert await scene.find("refused too") is None
        assert (await store.switches.read()).switches == ()
        assert await scene.claim("after") is None
        assert store.lost == 0

    async def test_the_backlog_is_bounded_and_what_is_lost_is_counted(self, mortal, mortal_url, opened, clock):
        store = opened(mortal_url, options=WriterOptions(patience_s=0.3, linger_s=0.01, retry_s=0.02, backlog=5))
        scene = Scene(store, clock)
        await scene.begin()
        mortal.stop()
        with pytest.raises(StoreUnavailable):
            await scene.claim()
        for i in range(20):
            store.trace_soon("r1", 1, [{"seq": i}])
        assert store.lost >= 10
        mortal.start()
        await store.flush()
        kept = [entry["seq"] for entry in await store.calls_of("r1")]
        assert kept == list(range(len(kept)))
        assert len(kept) + store.lost == 20

    async def test_who_waits_behind_more_than_one_batch_is_told_too(self, mortal, mortal_url, opened, clock):
        store = opened(mortal_url, options=WriterOptions(patience_s=0.5, linger_s=0.01, retry_s=0.05, batch=4))
        scene = Scene(store, clock)
        await scene.begin()
        mortal.stop()
        for i in range(40):
            store.trace_soon("r1", 1, [{"seq": i}])
        for _ in range(2):
            async with asyncio.timeout(20.0):
                with pytest.raises(StoreUnavailable):
                    await scene.claim("refused")
        mortal.start()
        await store.flush()
        assert len(await store.calls_of("r1")) == 40
        assert await scene.find("refused") is None

    async def test_a_restart_within_their_patience_is_not_seen_by_those_who_wait(
        self, mortal, mortal_url, opened, clock
    ):
        store = opened(mortal_url, options=PATIENT)
        scene = Scene(store, clock)
        await scene.begin()
        await asyncio.to_thread(mortal.stop)
        waiting = [asyncio.ensure_future(scene.claim(f"w{i}")) for i in range(10)]
        reading = asyncio.ensure_future(scene.find())
        await asyncio.sleep(0.1)
        await asyncio.to_thread(mortal.start)
        assert await asyncio.gather(*waiting) == [None] * 10
        assert await reading is None

    async def test_a_stopped_server_is_not_waited_for_for_ever(self, mortal, mortal_url, opened, clock):
        """SIGSTOP: connections stand, and nobody answers."""
        store = opened(mortal_url, options=IMPATIENT)
        scene = Scene(store, clock)
        await scene.begin()
        await scene.claim("before")
        pids = [
            row[0] for row in mortal.execute("select pid from pg_stat_activity where application_name = 'interlock'")
        ]
        stopped = [mortal.process.pid, *pids]
        signal_all(stopped, signal.SIGSTOP)
        try:
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(StoreUnavailable, match="no answer in time"):
                await scene.claim("refused")
            with pytest.raises(StoreUnavailable, match="no answer in time"):
                await scene.find()
            assert loop.time() - began < 10.0
        finally:
            signal_all(stopped, signal.SIGCONT)
        await store.flush()
        # It was carried out when the server went on, or it was not; either way nothing was sent, and it is free.
        assert await scene.claim("refused") is None
        assert (await scene.find("before")).state is ClaimState.INTENT

    async def test_after_a_restart_owners_have_the_time_of_a_lease_to_renew_before_take_overs_begin(
        self, mortal, mortal_url, opened, clock
    ):
        schema = parse_address(mortal_url).schema
        ours, theirs = opened(mortal_url, lease_ttl_s=3600.0), opened(mortal_url, lease_ttl_s=3600.0)
        await ours.begin(new_run())
        run_out = f"update {schema}.runs set lease_until_s = 1"
        mortal.execute(run_out)
        assert not (await theirs.begin(new_run("r2"), resume=True)).fresh
        assert await theirs.leases.take(["support"], None, {}) is None
        assert await theirs.leases.reap(0.0, []) == []
        assert await ours.leases.confirm(ours.leases.hold("r1", 1, clock.boot()))
        assert (await theirs.run("r1")).lease_left_s > 3000.0
        mortal.execute(run_out)
        later = opened(mortal_url, lease_ttl_s=0.001)
        assert (await later.begin(new_run("r2"), resume=True)).fresh

    async def test_closing_does_not_wait_for_ever_and_counts_what_is_lost(self, mortal, mortal_url, opened):
        store = opened(mortal_url, options=IMPATIENT)
        mortal.stop()
        store.begin_soon(new_run("r2", "q2"))
        store.trace_soon("r2", 1, [{"seq": 1}])
        await asyncio.to_thread(store.close)
        assert store.lost == 2
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.flush()

    @pytest.mark.process
    async def test_a_server_killed_between_claims_loses_nothing_that_it_acknowledged(
        self, mortal, mortal_url, opened, clock
    ):
        """SIGKILL of the server while 32 callers claim and settle: what they were told is there afterwards."""
        store = opened(mortal_url, options=PATIENT)
        scene = Scene(store, clock)
        await scene.begin()
        rounds, told = 0, {}

        async def caller(name):
            for i in itertools.count():
                if rounds >= 4:
                    return
                key = f"{name}-{i}"
                assert await scene.claim(key) is None
                told[key] = ClaimState.INTENT
                assert await scene.settle(DONE, key)
                told[key] = ClaimState.DONE

        async def killer():
            nonlocal rounds
            while rounds < 4:
                seen = len(told)
                while len(told) < seen + 50:  # noqa: ASYNC110 - what is waited for is work that others do
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(mortal.stop, signal.SIGKILL)
                await asyncio.to_thread(mortal.start)
                rounds += 1

        await asyncio.gather(killer(), *(caller(name) for name in range(32)))
        claims = {claim.sent_key.removeprefix("il1_"): claim for claim in await store.claims_of("r1")}
        assert claims.keys() == told.keys()
        assert {(claim.state, claim.sends) for claim in claims.values()} == {(ClaimState.DONE, 1)}


def signal_all(pids, what):
    for pid in pids:
        subprocess.run(["kill", f"-{what.name.removeprefix('SIG')}", str(pid)], check=True)


async def test_a_statement_of_one_that_cannot_be_stored_fails_alone(pg_url, opened, clock):
    """A lone surrogate is no text; the others of the same commit are not harmed."""
    store = opened(pg_url)
    scene = Scene(store, clock)
    await scene.begin()
    outcomes = await asyncio.gather(
        *(scene.claim(f"a{i}") for i in range(5)),
        scene.claim("bad", agent="\ud800"),
        scene.claim("huge", occurrence=2**40),
        *(scene.claim(f"b{i}") for i in range(5)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, StoreUnavailable) for outcome in outcomes] == [False] * 5 + [True] * 2 + [False] * 5
    assert len(await store.claims_of("r1")) == 10
    store.trace_soon("\ud800", 1, [{"seq": 1}])
    store.trace_soon("r1", 1, [{"seq": 2}])
    await store.flush()
    assert (store.lost, await store.calls_of("r1")) == (1, [{"seq": 2}])


async def test_a_store_is_used_from_several_event_loops(pg_url, opened, clock):
    store = opened(pg_url)
    scene = Scene(store, clock)
    await scene.begin()

    def loop(name):
        async def main():
            assert await asyncio.gather(*(scene.claim(f"{name}{i}") for i in range(20))) == [None] * 20
            assert (await scene.find(f"{name}0")).state is ClaimState.INTENT

        asyncio.run(main())

    threads = [threading.Thread(target=loop, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(await store.claims_of("r1")) == 80


async def test_an_intent_is_on_the_disk_even_where_the_server_s_default_is_not_to(pg_server, pg_url, opened, clock):
    pg_server.execute("alter role postgres set synchronous_commit = off")
    try:
        # As behind a pooler, where no session can be told to.
        scene = Scene(opened(f"{pg_url}&pooler=transaction"), clock)
        await scene.begin()
        written = "select pg_current_wal_insert_lsn() <= pg_current_wal_flush_lsn()"
        flushed = 0
        for i in range(20):
            await scene.claim(f"a{i}")
            flushed += pg_server.execute(written)[0][0]
        # The server's own housekeeping may write beside us; without our word hardly one commit would be flushed.
        assert flushed > 10
    finally:
        pg_server.execute("alter role postgres reset synchronous_commit")
