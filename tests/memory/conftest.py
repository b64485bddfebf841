"""Every store that keeps memory, behind one fixture: the contract's tests run the same bodies on all of them."""

from __future__ import annotations

import pytest
from pg_server import Server

from interlock.core.clock import ManualClock
from interlock.stores.postgres import PostgresStore
from interlock.stores.sqlite import SqliteStore

KEY = {"INTERLOCK_KEY": "5e" * 32}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(scope="session")
def pg_server():
    # Little of a log, since erasures go through all of it; what survives a power failure is not tested here.
    server = Server(fsync="off", min_wal_size="32MB", max_wal_size="48MB")
    yield server
    server.remove()


@pytest.fixture(scope="session")
def pg_schema(pg_server):
    """The URL of a store whose schema all tests share, one after the other."""
    url = pg_server.new_url()
    pg_server.make(url)
    return url


@pytest.fixture
def pg_url(pg_server, pg_schema):
    """The URL of an empty store on PostgreSQL."""
    yield pg_schema
    pg_server.empty(pg_schema)


@pytest.fixture(params=["memory", "file", "postgres"])
def make_store(request, tmp_path, clock):
    """Return a function that opens the store of this test; once more means the same data, where there is a disk."""
    opened = []
    url = request.getfixturevalue("pg_url") if request.param == "postgres" else None

    def make():
        if url is not None:
            opened.append(PostgresStore(url, clock=clock, environ=KEY))
            return opened[-1]
        path = ":memory:" if request.param == "memory" else tmp_path / "interlock.db"
        store = SqliteStore(path, clock=clock, environ=KEY)
        opened.append(store)
        return store

    make.durable = request.param != "memory"
    yield make
    for store in opened:
        store.close()


@pytest.fixture
def memory(make_store):
    return make_store().memory
