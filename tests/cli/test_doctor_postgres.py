"""doctor on PostgreSQL: each finding on a real server that is set up so, what to do about it, and exit 1 where a record
can be lost."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from dataclasses import replace

import pytest
from pg_server import PATIENCE_S, USER, Server, binaries

from interlock.cli.doctor_postgres import kept_by_server
from interlock.journal.store import NewRun
from interlock.stores.pg_address import parse_address
from interlock.stores.pg_schema import SCHEMA_VERSION
from interlock.stores.postgres import PostgresStore

KEY = "5e" * 32


@pytest.fixture(scope="module")
def server():
    """A server of this module's own, whose settings it changes."""
    server = Server(fsync=None)
    server.execute("create role workers login; grant create on database postgres to workers; create role agents login")
    yield server
    server.remove()


@pytest.fixture
def url(server):
    """The URL of a store with the role of the workers."""
    url = server.new_url().replace("postgres@", "workers@")
    server.make(url)
    yield url
    server.execute(f"drop schema {parse_address(url).schema} cascade")


@pytest.fixture
def setting(server):
    """Return a function that sets a parameter of the server; all are reset in the end."""

    def tell(name, value):
        server.execute(f"alter system set {name} = '{value}'")
        reload(server, name, value)

    yield tell
    before = {name: server.execute(f"select boot_val from pg_settings where name = '{name}'")[0][0]
              for (name,) in server.execute("select name from pg_file_settings where sourcefile like '%auto.conf'")}  # fmt: skip
    server.execute("alter system reset all")
    for name, value in before.items():
        reload(server, name, value)


def reload(server, name, value):
    server.execute("select pg_reload_conf()")
    until = time.monotonic() + PATIENCE_S
    # A backend takes it in with its next command.
    while server.execute(f"select setting from pg_settings where name = '{name}'")[0][0] != value:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def found(typed, url, monkeypatch):
    """Ask the doctor; return the exit code and the findings by subject: the first of each."""
    monkeypatch.setenv("INTERLOCK_KEY", KEY)

    def ask(store=url):
        said = typed("doctor", "--json", "--store", store)
        findings = {}
        for finding in said.json["findings"]:
            findings.setdefault(finding["subject"], (finding["level"], finding["text"]))
        return said.code, findings

    return ask


def test_a_store_that_is_well(found):
    code, findings = found()
    assert code == 0
    subjects = (
        "configuration sealing server fsync full_page_writes synchronous_commit standbys clock schema role writers"
    )
    for subject in [*subjects.split(), "connections", "stuck runs", "store", "doubts"]:
        assert findings.get(subject, ("ok",))[0] == "ok", subject
    assert findings["role"][1] == "workers, of the workers: sees all tenants (owner)"
    assert findings["schema"][1] == f"version {SCHEMA_VERSION}, this program knows {SCHEMA_VERSION}"


# What can lose a record


@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
def test_a_server_that_does_not_wait_for_its_disk(found, setting, name):
    setting(name, "off")
    code, findings = found()
    assert (code, findings[name][0]) == (1, "error")
    assert f"set {name} = on in postgresql.conf" in findings[name][1]


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("role workers", "alter role workers set synchronous_commit = on"),
        ("role agents", "alter role agents set synchronous_commit = on"),
        ("database postgres", "alter database postgres set synchronous_commit = on"),
        ("role workers in database postgres", "alter role workers in database postgres set synchronous_commit = on"),
    ],
)
def test_commits_that_do_not_wait_wherever_that_is_said(server, found, where, says):
    """Whoever asks the doctor is not always who works: other roles are looked at, too."""
    server.execute(f"alter {where} set synchronous_commit = off")
    try:
        code, findings = found()
    finally:
        server.execute(f"alter {where} reset synchronous_commit")
    assert (code, findings["synchronous_commit"][0]) == (0, "warning")
    assert findings["synchronous_commit"][1].startswith("off for ")
    assert "forget the last kill" in findings["synchronous_commit"][1]
    assert findings["synchronous_commit"][1].endswith(says)
    assert found()[1]["synchronous_commit"][0] == "ok"


def test_commits_of_the_whole_server_that_do_not_wait(found, setting):
    setting("synchronous_commit", "off")
    assert "off for the server" in found()[1]["synchronous_commit"][1]
    assert "postgresql.conf" in found()[1]["synchronous_commit"][1]


@contextlib.contextmanager
def standby(server, folder, *words):
    """A client that copies the server's log, as a standby does."""
    copy = server.folder / folder
    copy.mkdir(exist_ok=True)
    if USER:
        import shutil

        shutil.chown(copy, USER["user"], USER["group"])
    command = [binaries() / "pg_receivewal", "-D", copy, "-h", server.folder, "-U", "postgres", *words]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, cwd=server.folder, **USER)
    try:
        until = time.monotonic() + PATIENCE_S
        while not server.execute("select 1 from pg_stat_replication where state = 'streaming'"):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.communicate()
        until = time.monotonic() + PATIENCE_S
        while server.execute("select 1 from pg_stat_replication"):
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_standby_that_copies_later(server, found, url, setting):
    as_admin = url.replace("workers@", "postgres@")
    with standby(server, "late"):
        code, findings = found(as_admin)
        assert (code, findings["standbys"][0]) == (0, "warning")
        assert findings["standbys"][1].startswith("pg_receivewal copies asynchronously")
        assert "synchronous_standby_names" in findings["standbys"][1]
        # The role of the workers may not see it, and says so.
        assert "grant pg_monitor to workers" in found()[1]["standbys"][1]
        setting("synchronous_commit", "local")
        code, findings = found(as_admin)
        assert (code, findings["synchronous_commit"][0]) == (1, "error")
        assert "a failover can forget" in findings["synchronous_commit"][1]
        setting("synchronous_commit", "remote_write")
        assert found(as_admin)[1]["synchronous_commit"][0] == "warning"


def test_a_standby_in_step(server, found, url, setting):
    with standby(server, "in-step", "--synchronous"):
        setting("synchronous_standby_names", "pg_receivewal")
        until = time.monotonic() + PATIENCE_S
        while not server.execute("select 1 from pg_stat_replication where sync_state = 'sync'"):
            assert time.monotonic() < until
            time.sleep(0.02)
        assert found(url.replace("workers@", "postgres@"))[1]["standbys"] == ("ok", "in step: pg_receivewal")


def test_a_standby_that_is_waited_for_and_not_there(found, setting):
    """Nothing can be written; the doctor says why all the same."""
    setting("synchronous_standby_names", "gone")
    code, findings = found()
    assert code == 1
    assert findings["standbys"] == (
        "error",
        "synchronous_standby_names = 'gone', and none of them is connected: commits wait; start one",
    )
    assert (findings["store"][0], "no answer in time" in findings["store"][1]) == ("error", True)


# What holds up work


def test_runs_whose_process_is_gone(server, url, found):
    store = PostgresStore(url, replay="off", environ={})
    asyncio.run(store.begin(NewRun("run_now", "acme", "req_now", "triage", "h", "run_now")))
    store.close()
    assert found()[1]["stuck runs"][0] == "ok"
    schema = parse_address(url).schema
    server.execute(
        f"update {schema}.runs set lease_until_s = 1; create or replace function {schema}.up_since_s() "
        "returns double precision language sql stable as 'select 0::double precision'"
    )
    code, findings = found()
    level, text = findings["stuck runs"]
    assert (code, level) == (0, "warning")
    assert "run_now of triage for acme" in text
    assert "interlock show run_now" in text


def test_processes_that_ended_without_a_goodbye_are_counted_and_swept_up_by_the_next_worker(server, url, found):
    schema = parse_address(url).schema
    rows = f"select id from {schema}.writers"
    server.execute(
        f"insert into {schema}.writers values ('killed', 1, {schema}.now_s() - 90000), ('new', 2, {schema}.now_s())"
    )
    assert found()[1]["writers"][1].startswith("1 rows of processes")
    assert {row[0] for row in server.execute(rows)} >= {"killed", "new"}  # who only looks sweeps nothing
    PostgresStore(url, replay="off", environ={}).close()
    assert [row[0] for row in server.execute(rows)] == ["new"]


async def test_few_connections_left(url):
    store = PostgresStore(url, replay="off", environ={})
    health = await store.checkup.health()
    store.close()
    assert 0 < health.connections < health.most_connections == 200
    crowded = replace(health, connections=190)
    (finding,) = [finding for finding in kept_by_server(crowded) if finding.subject == "connections"]
    assert (finding.level, "190 of 200" in finding.text, "max_connections" in finding.text) == ("warning", True, True)


async def test_a_server_that_only_reads(url):
    store = PostgresStore(url, replay="off", environ={})
    health = await store.checkup.health()
    store.close()
    assert not health.standby
    (finding,) = [one for one in kept_by_server(replace(health, standby=True)) if one.subject == "server role"]
    assert (finding.level, "name the primary" in finding.text) == ("error", True)


@pytest.mark.parametrize(("by_s", "level"), [(3_600.0, "warning"), (-3_600.0, "warning"), (2.0, "ok")])
def test_a_server_whose_clock_is_off(server, url, found, by_s, level):
    schema = parse_address(url).schema
    server.execute(
        f"create or replace function {schema}.now_s() returns double precision language sql stable "
        f"as 'select extract(epoch from statement_timestamp())::double precision + {by_s}'"
    )
    code, findings = found()
    assert (code, findings["clock"][0]) == (0, level)
    if level == "warning":
        assert f"{by_s:+.0f} s against this machine's" in findings["clock"][1]


def test_without_a_key_nothing_is_kept_to_go_on_from(found, monkeypatch, caplog):
    assert found()[1]["sealing"] == ("ok", "by INTERLOCK_KEY")
    monkeypatch.delenv("INTERLOCK_KEY")
    level, text = found()[1]["sealing"]
    assert (level, "resumes no run" in text) == ("warning", True)
    assert caplog.records == []  # said once, and not beside it


# Roles


def test_a_superuser_is_more_than_is_needed(found, url):
    level, text = found(url.replace("workers@", "postgres@"))[1]["role"]
    assert (level, "owns the schema and nothing else" in text) == ("warning", True)


def test_a_role_of_one_tenant(server, found, url):
    schema = parse_address(url).schema
    server.execute(f"select {schema}.admit('agents')")
    bound = url.replace("workers@", "agents@") + "&tenant=acme"
    assert found(bound)[1]["role"] == ("ok", "agents, bound to tenant acme by row-level security")
    code, findings = found(url.replace("workers@", "agents@"))
    assert (code, "add ?tenant=" in findings["store"][1]) == (1, True)
    server.execute(f"alter table {schema}.journal disable row level security")
    code, findings = found()
    assert (code, findings["role"][0]) == (1, "error")
    assert "sees every tenant" in findings["role"][1]


# Stores that cannot be opened, and that nobody makes by looking


class TestLooking:
    def test_makes_nothing(self, server, typed):
        missing = server.url("not_there")
        for verb in (
            ["doctor"],
            ["runs"],
            ["doubts"],
            ["show", "r1"],
            ["approvals", "list"],
            ["kill", "global", "--by", "ada", "--reason", "x"],
        ):
            said = typed(*verb, "--store", missing)
            assert said.code == 1, verb
            assert "no store in the schema not_there" in said.out + said.err, verb
        assert server.execute("select 1 from pg_namespace where nspname = 'not_there'") == []

    def test_brings_nothing_up(self, server, url, found, typed):
        """As it would be under workers of the version before."""
        schema = parse_address(url).schema
        server.execute(f"delete from {schema}.migrations where version = {SCHEMA_VERSION}")
        code, findings = found()
        assert (code, findings["store"][0]) == (1, "error")
        assert f"older Interlock (schema {SCHEMA_VERSION - 1}" in findings["store"][1]
        assert "start a worker of this one" in findings["store"][1]
        assert typed("kill", "global", "--by", "ada", "--reason", "fire", "--store", url).code == 1
        assert server.execute(f"select max(version) from {schema}.migrations")[0][0] == SCHEMA_VERSION - 1

    def test_says_what_is_newer_or_half(self, server, url, found):
        schema = parse_address(url).schema
        server.execute(f"insert into {schema}.migrations values ({SCHEMA_VERSION + 1}, 'from the future')")
        assert "written by a newer Interlock" in found()[1]["store"][1]
        server.execute(f"delete from {schema}.migrations where version > {SCHEMA_VERSION}; drop table {schema}.calls")
        assert "half a store: calls missing" in found()[1]["store"][1]

    def test_says_that_the_server_is_away(self, found, url, server):
        code, findings = found(f"postgresql://workers@/postgres?host={server.folder}/nowhere")
        assert (code, "server runs and can be reached" in findings["store"][1]) == (1, True)
        code, findings = found(url.replace("/postgres?", "/nowhere?"))
        assert (code, "no such database" in findings["store"][1]) == (1, True)

    def test_says_that_the_server_is_too_old(self, found, monkeypatch):
        monkeypatch.setattr("interlock.stores.pg_schema._OLDEST_SERVER", 99)
        code, findings = found()
        assert (code, findings["store"][0]) == (1, "error")
        assert "is too old: 99 or newer is needed" in findings["store"][1]
