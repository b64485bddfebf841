"""Files that are full, locked, read-only, damaged or not ours: writes are refused, reads go on, nothing hangs."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from scenes import DONE, Scene, new_run

from interlock.core.errors import ConfigError, StoreUnavailable
from interlock.journal.store import ClaimState, RunState
from interlock.stores import database
from interlock.stores.database import SCHEMA_VERSION
from interlock.stores.sqlite import SqliteStore
from interlock.stores.writer import WriterOptions

IMPATIENT = WriterOptions(patience_s=0.2, linger_s=0.01, retry_s=0.01)


@pytest.fixture
def open_store(path):
    opened = []

    def make(**words):
        store = SqliteStore(path, **{"environ": {}, "options": IMPATIENT, **words})
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
async def scene(open_store, clock):
    store = open_store()
    scene = Scene(store, clock)
    await scene.begin()
    return scene


async def on_the_writer(store, statement):
    """Run a statement on the connection that writes, outside its transactions' results."""
    await store._writer.submit(lambda db: db.execute(statement).fetchall())


class TestOpening:
    @pytest.mark.parametrize("junk", [b"not a database" * 500, b"SQLite format 3\x00" + b"\xff" * 5000])
    def test_a_damaged_file_is_an_error_of_configuration(self, path, open_store, junk):
        path.write_bytes(junk)
        with pytest.raises(ConfigError, match="backup"):
            open_store()
        assert path.read_bytes() == junk

    def test_a_file_of_a_newer_version_is_left_alone(self, path, open_store):
        open_store().close()
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
        with pytest.raises(ConfigError, match=r"newer Interlock.*upgrade"):
            open_store()

    async def test_a_file_of_an_older_version_is_brought_up_to_date_with_what_is_in_it(
        self, path, open_store, clock, monkeypatch
    ):
        whole = database._MIGRATIONS
        monkeypatch.setattr(database, "_MIGRATIONS", whole[:1])
        monkeypatch.setattr(database, "SCHEMA_VERSION", 1)
        db = database.connect(str(path), patience_s=1.0)
        secret = database.migrate(db, str(path))
        db.execute("insert into switches values ('global', '*', 'kill', 'a fire', 'eve', 0, null)")
        for seq in (2, 1):
            db.execute("insert into calls values ('r0', ?, ?)", (seq, f'{{"seq":{seq},"tool":"kb.read"}}'))
        db.close()
        monkeypatch.undo()
        store = open_store()
        assert store.secret == secret
        assert [switch.reason for switch in (await store.switches.read()).switches] == ["a fire"]
        assert await store.calls_of("r0") == [{"seq": seq, "tool": "kb.read"} for seq in (1, 2)]
        fresh = database.connect(":memory:", patience_s=1.0)
        database.migrate(fresh, "fresh")
        schema = "select type, name, sql from sqlite_schema order by name"
        with closing(sqlite3.connect(path)) as older, older:
            assert older.execute(schema).fetchall() == fresh.execute(schema).fetchall()
        fresh.close()

    @pytest.mark.parametrize(
        "statement", ["create table theirs (x)", "pragma user_version = 1", "pragma application_id = 7"]
    )
    def test_somebody_else_s_database_is_left_alone(self, path, open_store, statement):
        db = sqlite3.connect(path)
        db.execute(statement)
        db.commit()
        db.close()
        with pytest.raises(ConfigError, match="another program"):
            open_store()
        db = sqlite3.connect(path)
        assert db.execute("select count(*) from sqlite_schema where name = 'runs'").fetchone() == (0,)
        db.close()

    def test_an_empty_file_becomes_a_store(self, path, open_store):
        path.touch()
        assert len(open_store().secret) == 32

    def test_a_file_without_its_secret_is_damaged(self, path, open_store):
        open_store().close()
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("delete from meta")
        with pytest.raises(ConfigError, match="secret is gone"):
            open_store()

    def test_a_folder_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(StoreUnavailable, match="create its folder"):
            SqliteStore(tmp_path / "nowhere" / "interlock.db", environ={})

    def test_a_folder_instead_of_a_file(self, tmp_path):
        with pytest.raises(StoreUnavailable, match="cannot be opened"):
            SqliteStore(tmp_path, environ={})

    def test_a_locked_file_is_waited_for_and_then_named(self, path, open_store):
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("begin exclusive")
        with pytest.raises(StoreUnavailable, match="locked"):
            open_store()
        db.execute("rollback")
        db.close()
        open_store()

    def test_the_files_are_the_owner_s_alone(self, path, open_store):
        open_store()
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file.name

    def test_paths_and_addresses(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for address in (f"sqlite:///{tmp_path}/a.db", "sqlite:///b.db", "c.db", tmp_path / "d.db"):
            SqliteStore(address, environ={}).close()
        assert {file.name for file in tmp_path.glob("?.db")} == {"a.db", "b.db", "c.db", "d.db"}
        store = SqliteStore("sqlite:///:memory:", environ={})
        assert store.path == ":memory:"
        store.close()
        for nothing in ("", "sqlite:///"):
            with pytest.raises(ConfigError, match="names no file"):
                SqliteStore(nothing, environ={})


class TestLocked:
    async def test_writes_are_refused_reads_go_on_and_nothing_is_lost(self, path, scene):
        await scene.claim("before")
        theirs = sqlite3.connect(path, isolation_level=None)
        theirs.execute("begin immediate")
        with pytest.raises(StoreUnavailable, match="locked"):
            await scene.claim("refused")
        scene.store.settle_soon(scene.key("before"), DONE)
        scene.store.end_soon("r1", 1, RunState.ENDED, "success", {}, None)
        assert (await scene.find("before")).state is ClaimState.INTENT
        theirs.execute("rollback")
        theirs.close()
        await scene.store.flush()
        assert (await scene.find("before")).state is ClaimState.DONE
        assert (await scene.store.run("r1")).state is RunState.ENDED
        assert await scene.find("refused") is None


class TestFull:
    async def fill(self, scene):
        db = sqlite3.connect(scene.store.path)
        pages = db.execute("pragma page_count").fetchone()[0]
        db.close()
        await on_the_writer(scene.store, f"pragma max_page_count = {pages + 4}")
        outcomes = await asyncio.gather(
            *(scene.claim(f"n{i}", tool="t" * 4000) for i in range(64)), return_exceptions=True
        )
        assert any(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
        return [name for name, outcome in zip((f"n{i}" for i in range(64)), outcomes, strict=True) if outcome is None]

    async def test_what_was_not_acknowledged_is_not_there(self, scene):
        taken = await self.fill(scene)
        assert {claim.sent_key for claim in await scene.store.claims_of("r1")} == {f"il1_{name}" for name in taken}

    async def test_it_says_so_reads_go_on_and_it_recovers_when_there_is_space(self, scene):
        await scene.claim("before")
        await self.fill(scene)
        with pytest.raises(StoreUnavailable, match="disk is full: free some space"):
            await asyncio.gather(*(scene.claim(f"m{i}", tool="t" * 9000) for i in range(9)))
        big = {"pad": "p" * 50_000}
        scene.store.trace_soon("r1", 1, [{"seq": 1, **big}])
        scene.store.trace_soon("r1", 1, [{"seq": 2, **big}])
        assert (await scene.find("before")).state is ClaimState.INTENT
        with pytest.raises(StoreUnavailable):
            await scene.claim("still full", tool="t" * 9000)
        # Queued before it, so written before it, or with it.
        await self.free(scene)
        assert await scene.claim("after") is None
        assert [entry["seq"] for entry in await scene.store.calls_of("r1")] == [1, 2]
        assert scene.store.lost == 0

    async def free(self, scene):
        """Another process frees space; for ours, the limit is lifted by hand."""
        scene.store._writer._db.execute("pragma max_page_count = 1000000")

    @pytest.mark.process
    def test_a_real_limit_of_the_operating_system(self, path):
        script = """
import asyncio, resource, signal, sys
from interlock.core.errors import StoreUnavailable
from interlock.journal.store import ClaimState, Intent, NewRun
from interlock.stores.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1], environ={})
    row = (await store.begin(NewRun("r1", "t", "q", "a", "h", "r1"))).row
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    taken = []
    for i in range(2000):
        key = row.request_time_ms.to_bytes(8, "big") + i.to_bytes(16, "big")
        intent = Intent(key, "t", "q", "r1", "", "a", "tool" * 200, b"", 1, "stop", "k", 1, 1, i)
        try:
            assert await store.claim(intent) is None
        except StoreUnavailable as error:
            print(error)
            break
        taken.append(key)
    else:
        sys.exit("the limit was never reached")
    assert (await store.find(taken[0])).state is ClaimState.INTENT
    assert (await store.find(taken[-1])).state is ClaimState.INTENT
    assert await store.find(key) is None

asyncio.run(main())
"""
        done = subprocess.run(
            [sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "disk" in done.stdout


class TestReadOnly:
    async def test_writes_are_refused_and_reads_go_on(self, scene):
        await scene.claim("before")
        await on_the_writer(scene.store, "pragma query_only = on")
        with pytest.raises(StoreUnavailable, match="read-only: make the file and its folder writable"):
            await scene.claim("refused")
        assert (await scene.find("before")).state is ClaimState.INTENT

    @pytest.mark.process
    @pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs users")
    def test_a_folder_we_may_not_write_to_is_named_at_once(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            SqliteStore(folder / "interlock.db", environ={}).close()
            for file in folder.iterdir():
                file.chmod(0o444)
            folder.chmod(0o555)
            script = (
                "import os, sys; from interlock.stores.sqlite import SqliteStore; "
                "from interlock.core.errors import StoreUnavailable\n"
                "SqliteStore(':memory:', environ={}).close()\n"  # whatever is imported late is imported now
                "if os.getuid() == 0: os.setuid(65534)\n"
                "try: SqliteStore(sys.argv[1], environ={})\n"
                "except StoreUnavailable as error: print(error)"
            )
            command = [sys.executable, "-c", script, folder / "interlock.db"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            folder.chmod(0o755)
        assert "writable" in done.stdout, done.stderr


class TestDamaged:
    """The file is damaged behind our back."""

    def overwrite(self, path, first_page):
        data = bytearray(path.read_bytes())
        data[4096 * first_page :] = b"\xff" * (len(data) - 4096 * first_page)
        path.write_bytes(data)

    async def filled(self, store, clock):
        scene = Scene(store, clock)
        await scene.begin()
        for i in range(50):
            await scene.claim(f"n{i}", tool="t" * 2000)
        return scene

    async def test_between_two_openings(self, path, open_store, clock):
        (await self.filled(open_store(), clock)).store.close()
        self.overwrite(path, 3)
        with pytest.raises(ConfigError, match="damaged: stop all workers and restore it from a backup"):
            open_store()

    async def test_while_it_is_open(self, path, open_store, clock):
        scene = await self.filled(open_store(), clock)
        scene.store._writer._db.execute("pragma cache_size = 1")
        scene.store._writer._db.execute("pragma wal_checkpoint(truncate)")
        self.overwrite(path, path.stat().st_size // 4096 // 2)
        outcomes = await asyncio.gather(*(scene.claim(f"m{i}") for i in range(20)), return_exceptions=True)
        assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
        assert "restore it from a backup" in str(outcomes[0])


class TestClosed:
    async def test_a_closed_store_refuses_everything_at_once(self, scene):
        await scene.claim()
        scene.store.close()
        for refused in (scene.claim("y"), scene.find(), scene.store.runs(), scene.store.flush()):
            with pytest.raises(StoreUnavailable, match="closed"):
                await refused
        scene.store.close()

    async def test_what_is_queued_is_written_on_closing(self, open_store):
        store = open_store(options=WriterOptions(linger_s=3600.0))
        for i in range(2000):
            store.begin_soon(new_run(f"r{i}", f"q{i}"))
        store.close()
        assert len(await open_store().runs(limit=5000)) == 2000

    async def test_those_who_wait_while_it_closes_are_answered(self, scene):
        waiting = [asyncio.ensure_future(scene.claim(f"n{i}")) for i in range(100)]
        await asyncio.sleep(0)
        scene.store.close()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert outcomes == [None] * 100

    @pytest.mark.process
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_the_child_of_a_fork_is_told_to_open_its_own(self, path):
        script = """
import asyncio, os, sys, warnings
from interlock.core.errors import StoreUnavailable
from interlock.journal.store import NewRun
from interlock.stores.sqlite import SqliteStore

warnings.simplefilter("ignore")
store = SqliteStore(sys.argv[1], environ={})
asyncio.run(store.begin(NewRun("r1", "t", "q", "a", "h", "r1")))
asyncio.run(store.run("r1"))
pid = os.fork()
if pid == 0:
    async def child():
        for refused in (store.begin(NewRun("r2", "t", "q2", "a", "h", "r2")), store.run("r1")):
            try:
                await refused
            except StoreUnavailable as error:
                assert "fork" in str(error)
            else:
                os._exit(1)
    asyncio.run(child())
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert asyncio.run(store.begin(NewRun("r3", "t", "q3", "a", "h", "r3"))).fresh
store.close()
"""
        done = subprocess.run(
            [sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr


class TestSpoiledBatch:
    async def test_one_bad_piece_of_work_does_not_spoil_the_others(self, scene):
        """A run that is begun twice under one id breaks a constraint; its neighbours in the batch are committed."""
        outcomes = await asyncio.gather(
            scene.claim("a"),
            scene.store.begin(new_run("r1", "other request")),
            scene.claim("b"),
            scene.store.end("r1", "not a fence", RunState.ENDED, "x", {}, None),
            scene.claim("c", tool=object()),
            scene.claim("d"),
            return_exceptions=True,
        )
        assert outcomes[0] is outcomes[2] is outcomes[5] is None
        assert isinstance(outcomes[1], StoreUnavailable)
        assert outcomes[3] is False
        assert isinstance(outcomes[4], Exception)
        assert len(await scene.store.claims_of("r1")) == 3
        assert (await scene.store.begin(new_run("r9", "other request"))).row.run_id == "r9"
