"""Erasing a subject leaves no byte of it: proved in the files of the store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import gzip
import json
from contextlib import closing
from pathlib import Path

import pytest
from memory_scenes import ACME, ANN, BOB, CHAT, GLOBEX, NOW, new_artifact, new_fact, statement, texts

from interlock.core.canonical import canonical_json
from interlock.journal.replay import CallRecord, TurnRecord
from interlock.journal.store import ClaimState, Intent, NewRun, RunState, Settlement
from interlock.memory.fact import Origin
from interlock.memory.residue import Standing, search_files
from interlock.memory.store import PurgePolicy
from interlock.stores.pg_address import parse_address
from interlock.stores.postgres import PostgresStore
from interlock.stores.sqlite import SqliteStore
from interlock.supervisor.erasure import Proof, erase

KEY = {"INTERLOCK_KEY": "5e" * 32}
SUBJECT = "marie.curie@example.com"
TEXT = "Madame Curie, “polonium”\tprefers letters to e-mail"


@pytest.fixture
def store(make_store):
    return make_store()


@pytest.fixture
def places(make_store, tmp_path, request):
    """Where the bytes of this test's store lie; nothing for one in memory."""
    if not make_store.durable:
        return []
    if request.node.callspec.params["make_store"] == "postgres":
        return [request.getfixturevalue("pg_server").data]
    return [tmp_path]


async def run_that_says(store, run_id, said, *, tenant="acme", doubt=False, over=True):
    """A run in whose task, turn, results, write, trace, approval and output something stands."""
    content = canonical_json({"said": said})
    row = (await store.begin(NewRun(run_id, tenant, f"req-{run_id}", "support", None, run_id, task=content))).row
    store.history.turn_soon(run_id, 1, TurnRecord("", 1, content))
    store.history.call_soon(run_id, 1, CallRecord("", 1, "crm.read", b"d" * 16, 1, 1, "success", False, content))
    store.trace_soon(run_id, 1, [{"seq": 1, "tool": "crm.read", "note": said}])
    key = row.request_time_ms.to_bytes(8, "big") + run_id.encode().ljust(16, b"-")[:16]
    await store.claim(
        Intent(key, tenant, f"req-{run_id}", run_id, "", "support", "mail.send", b"d" * 16, 1, "stop", "il1_a", 1, 1, 1)
    )
    state = ClaimState.IN_DOUBT if doubt else ClaimState.DONE
    evidence = [{"attempt": 1, "kind": "said", "why": said}]
    await store.settle(key, Settlement(state, None if doubt else content, evidence=evidence))
    if over:
        await store.end(run_id, 1, RunState.ENDED, "success", {"run_id": run_id, "details": {"said": said}}, content)
    return key


def left_in(places, **wanted):
    return search_files(places, wanted).found


async def test_nothing_is_left_of_rows_history_index_and_runs(store, places, clock):
    await store.memory.remember(ANN, new_fact(TEXT, subject=SUBJECT, tags=("vip",)))
    first = await store.memory.remember(ACME, statement("letters", key="channel", subject=SUBJECT))
    await store.memory.remember(ACME, statement("e-mail", key="channel", subject=SUBJECT, now=NOW + 1))
    await store.memory.remember(BOB, new_fact(f"Bob shares a desk with {SUBJECT.upper()}"))
    await store.memory.remember(BOB, new_fact("Bob likes tea"))
    store.memory.put_artifact_soon(ANN, new_artifact(data=canonical_json({"who": SUBJECT}), subject=SUBJECT))
    await run_that_says(store, "run-told", TEXT)
    await run_that_says(store, "run-other", "Bob likes tea")
    await store.flush()
    assert not places or left_in(places, text=TEXT, subject=SUBJECT)

    # SQLite overwrites what it deletes; PostgreSQL has to write the tables of runs anew.
    done = await erase(store, ACME, SUBJECT, clock, whole=isinstance(store, PostgresStore))

    assert (done.facts, done.artifacts, done.kept, done.regions) == (4, 1, (), ())
    assert done.runs == ("run-told",)
    assert left_in(places, text=TEXT, subject=SUBJECT, shouted=SUBJECT.upper()) == ()
    assert await store.memory.show(ACME, first.fact_id) == []
    assert await texts(store.memory, BOB, "tea") == ["Bob likes tea"]
    # The tombstone answers: the write is done, and is not sent again.
    row = await store.run("run-told")
    assert (row.state, row.record["purged"], row.output) == (RunState.ENDED, True, None)
    (claim,) = await store.claims_of("run-told")
    assert (claim.state, claim.result_kept, claim.evidence) == (ClaimState.DONE, False, ())
    assert (await store.run("run-other")).record["details"] == {"said": "Bob likes tea"}


async def test_what_cannot_be_dropped_yet_is_said(store, clock):
    await store.memory.remember(ANN, new_fact(TEXT, subject=SUBJECT))
    await run_that_says(store, "run-doubt", TEXT, doubt=True)
    await run_that_says(store, "run-now", TEXT, over=False)
    done = await erase(store, ACME, SUBJECT, clock, proof=Proof())
    assert dict(done.erasure.kept) == {"run-doubt": "it has an open doubt", "run-now": "it is not over"}
    assert done.verdict == "incomplete"
    assert {found.where for found in done.found} >= {"model turn of run run-doubt", "task of run run-now"}
    assert len(await store.doubts()) >= 1


async def test_a_run_that_wrote_a_fact_goes_whatever_it_says(store, clock):
    await run_that_says(store, "run-wrote", "something else")
    await store.memory.remember(ANN, new_fact("short", subject="x", origin=Origin(run_id="run-wrote")))
    done = await erase(store, ACME, "x", clock)
    assert done.runs == ("run-wrote",)
    assert (await store.run("run-wrote")).record["purged"]


async def test_others_keep_what_is_theirs(store, clock):
    for scope in (GLOBEX, ANN):
        await store.memory.remember(scope, new_fact(TEXT, subject=SUBJECT))
    await run_that_says(store, "theirs", TEXT, tenant="globex")
    done = await erase(store, ACME, SUBJECT, clock)
    assert (done.facts, done.runs) == (1, ())
    assert await texts(store.memory, GLOBEX, "polonium") == [TEXT]
    assert (await store.run("theirs")).record["details"] == {"said": TEXT}


async def test_the_proof_finds_its_canary_first_and_nothing_afterwards(store, places, clock, tmp_path):
    await store.memory.remember(CHAT, new_fact(TEXT, subject=SUBJECT))
    await run_that_says(store, "run-told", TEXT)
    logs = tmp_path / "logs"
    logs.mkdir()
    proof = Proof(log=lambda canary: (logs / "app.log").write_text("a call, its arguments hashed\n"), also=[logs])
    done = await erase(store, ACME, SUBJECT, clock, proof=proof, whole=isinstance(store, PostgresStore))
    assert done.canary_recalled
    assert done.canary_seen > 3
    assert done.found == ()
    assert not any(region.standing is Standing.NOT_PROVABLE for region in done.regions), done.regions
    assert done.verdict == "erased"
    assert done.searched.files >= 1
    assert done.outside
    assert SUBJECT not in repr(done)
    assert not places or left_in(places, text=TEXT, subject=SUBJECT) == ()


async def test_a_log_that_says_it_is_found(store, clock, tmp_path):
    """In each form, in a file that is rotated and packed; a file that cannot be opened is listed, not passed over."""
    await store.memory.remember(ANN, new_fact(TEXT, subject=SUBJECT))
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "plain.log").write_text(f"seen {SUBJECT}\n")
    (logs / "wide.log").write_bytes(TEXT.encode("utf-16"))
    (logs / "json.log").write_text(json.dumps({"args": json.dumps({"text": TEXT})}))
    (logs / "old.log.gz").write_bytes(gzip.compress(json.dumps({"text": TEXT}, ensure_ascii=False).encode()))
    (logs / "old.log.zst").write_bytes(b"\x28\xb5\x2f\xfd....")
    done = await erase(store, ACME, SUBJECT, clock, proof=Proof(also=[logs]))
    # Texts have numbers: the canary's is one of them, and which comes first is nobody's promise.
    found = {(Path(f.where.removesuffix(" (unpacked)")).name, f.text.split()[0], f.form) for f in done.found}
    assert found >= {
        ("plain.log", "subject", "UTF-8"),
        ("wide.log", "text", "UTF-16LE"),
        ("json.log", "text", "JSON in JSON"),
        ("old.log.gz", "text", "JSON, not ASCII"),
    }
    assert any(region.where.endswith("old.log.zst") for region in done.regions)
    assert done.verdict == "incomplete"


async def test_values_sealed_with_a_lost_key_are_listed(tmp_path, clock):
    path = tmp_path / "interlock.db"
    first = SqliteStore(path, clock=clock, environ={"INTERLOCK_KEY": "11" * 32})
    await run_that_says(first, "run-sealed", "quiet")
    first.close()
    store = SqliteStore(path, clock=clock, environ={"INTERLOCK_KEY": "22" * 32})
    try:
        done = await erase(store, ACME, SUBJECT, clock, proof=Proof())
        sealed = {region.where for region in done.regions if region.standing is Standing.DESTROYED}
        assert sealed == {
            "task (1 values)",
            "output (1 values)",
            "model turn (1 values)",
            "result (1 values)",
            "result of a write (1 values)",
        }
        assert done.verdict == "erased"
    finally:
        store.close()


async def test_what_was_purged_and_forgotten_leaves_no_byte_either(make_store, store, places, clock):
    """A row that goes by age is overwritten at once; an erasure cleans the log, and the index, behind it."""
    await store.memory.remember(ANN, new_fact(TEXT, subject=SUBJECT, ttl_s=1.0))
    kept = await store.memory.remember(ANN, new_fact(f"{TEXT} again"))
    await store.memory.purge(ACME, PurgePolicy(), NOW + 2)
    await store.memory.forget(ANN, kept.fact_id, kept.trust)
    await erase(store, ACME, "nobody", clock)
    assert left_in(places, text=TEXT, subject=SUBJECT) == ()


async def test_a_reader_that_holds_the_log_is_said(tmp_path, clock):
    path = tmp_path / "interlock.db"
    store = SqliteStore(path, clock=clock, environ={})
    try:
        await store.memory.remember(ANN, new_fact(TEXT, subject=SUBJECT))
        import sqlite3

        with closing(sqlite3.connect(path, isolation_level=None)) as reader, reader:
            reader.execute("begin")
            reader.execute("select count(*) from memory_facts").fetchone()
            done = await erase(store, ACME, SUBJECT, clock)
            assert [region.where for region in done.regions] == [f"{path}-wal"]
            reader.execute("rollback")
        assert (await erase(store, ACME, SUBJECT, clock)).regions == ()
        assert left_in([tmp_path], text=TEXT, subject=SUBJECT) == ()
    finally:
        store.close()


async def test_what_postgresql_does_not_clean_by_itself_is_said(pg_server, pg_url, clock):
    """Tables of runs are rewritten only when asked to, since that stops the workers; a slot holds the log."""
    store = PostgresStore(pg_url, clock=clock, environ=KEY)
    pg_server.execute("select pg_create_physical_replication_slot('held', true)")
    try:
        await store.memory.remember(ANN, new_fact(TEXT, subject=SUBJECT))
        done = await erase(store, ACME, SUBJECT, clock, proof=Proof())
        said = {region.where: region.why for region in done.regions}
        assert {where for where in said if where.startswith("table")} == {
            f"table {name}" for name in ("runs", "turns", "results", "calls", "journal", "approvals")
        }
        assert "--vacuum" in said["table runs"]
        assert "replication slot" in said["write-ahead log (pg_wal)"]
        assert any(Path(found.where).parent.name == "pg_wal" for found in done.found)
        assert done.verdict == "incomplete"
    finally:
        pg_server.execute("select pg_drop_replication_slot('held')")
    # What the slot held goes with the server's next checkpoints, one of which may be under way.
    for _ in range(3):
        again = await erase(store, ACME, SUBJECT, clock, whole=True, proof=Proof())
        if again.verdict == "erased":
            break
    store.close()
    assert (again.verdict, again.regions, again.found) == ("erased", (), ())


async def test_no_sample_of_a_value_stays_with_the_planner(pg_server, pg_url, clock):
    """The server keeps values that stand often in a column in a table of its own, which no erasure reaches."""
    store = PostgresStore(pg_url, clock=clock, environ=KEY)
    for i in range(300):
        new = new_fact(TEXT, subject=SUBJECT, key=f"k{i}", tags=(SUBJECT,))
        store.memory.remember_soon(ANN if i % 2 else BOB, new)
        store.memory.put_artifact_soon(ANN, new_artifact(f"{SUBJECT} {i}", subject=SUBJECT))
    await store.flush()
    store.close()
    schema = parse_address(pg_url).schema
    pg_server.execute(f"analyze {schema}.memory_facts")
    pg_server.execute(f"analyze {schema}.memory_artifacts")
    rows = pg_server.execute(f"select attname, s::text from pg_stats s where schemaname = '{schema}'")
    assert {name for name, _ in rows} & {"tenant_id"}
    assert not [name for name, sample in rows if "curie" in sample.lower() or name == "user_id"]


async def test_a_role_that_may_not_clean_the_server_says_so(pg_server, open_role, clock):
    store = PostgresStore(open_role, clock=clock, environ=KEY)
    await store.memory.remember(ANN, new_fact(TEXT, subject=SUBJECT))
    done = await erase(store, ACME, SUBJECT, clock, whole=True, proof=Proof())
    store.close()
    said = {region.where: region.why for region in done.regions}
    assert "permission denied" in said["write-ahead log (pg_wal)"] or "must be" in said["write-ahead log (pg_wal)"]
    assert "cannot be read from here" in said["files of the server"]
    assert (done.canary_recalled, done.canary_seen > 0, done.found) == (True, True, ())
    assert done.verdict == "not provable"


@pytest.fixture
def open_role(pg_server):
    """The URL of a store of a role without privileges."""
    pg_server.execute("create role plain_owner login; grant create on database postgres to plain_owner")
    yield pg_server.url("plain_owned").replace("postgres@", "plain_owner@")
    pg_server.execute("drop schema if exists plain_owned cascade; drop owned by plain_owner; drop role plain_owner")
