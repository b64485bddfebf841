"""Every store that there is, behind one fixture: the contract's tests run the same bodies on all of them."""

from __future__ import annotations

import shutil

import pytest
from pg_server import DatabaseClock, Server
from scenes import Scene

from interlock.stores.pg_address import parse_address
from interlock.stores.postgres import PostgresStore
from interlock.stores.sqlite import SqliteStore

KEY = {"INTERLOCK_KEY": "5e" * 32}


@pytest.fixture
def clock():
    return DatabaseClock()


@pytest.fixture(scope="session")
def pg_server():
    """The server of the contract's tests; those that kill one start their own."""
    server = Server()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory):
    """A new store, made once: what a schema costs to make is paid once, not in every test."""
    path = tmp_path_factory.mktemp("stores") / "interlock.db"
    SqliteStore(path, environ=KEY).close()
    return path


@pytest.fixture(scope="session")
def pg_schema(pg_server):
    """The URL of a store whose schema all tests share, one after the other."""
    url = pg_server.new_url()
    pg_server.make(url)
    pg_server.empty(url)
    return url


@pytest.fixture
def pg_url(pg_server, pg_schema):
    """The URL of an empty store on PostgreSQL."""
    yield pg_schema
    pg_server.empty(pg_schema)


@pytest.fixture(params=["memory", "file", "postgres"])
def make_store(request, tmp_path, clock):
    """Return a function that opens the store of this test: once more means the same data, where there is a disk."""
    opened = []
    if request.param == "postgres":
        url = request.getfixturevalue("pg_url")
        clock.govern(request.getfixturevalue("pg_server"), parse_address(url).schema)
    elif request.param == "file":
        shutil.copy(request.getfixturevalue("empty_file"), tmp_path / "interlock.db")

    def make(**words):
        words = {"clock": clock, "environ": KEY, **words}
        if request.param == "postgres":
            store = PostgresStore(url, **words)
        else:
            store = SqliteStore(":memory:" if request.param == "memory" else tmp_path / "interlock.db", **words)
        opened.append(store)
        return store

    make.durable = request.param != "memory"
    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(make_store):
    return make_store()


@pytest.fixture
def scene(store, clock):
    return Scene(store, clock)


@pytest.fixture
def path(tmp_path):
    """The path of a file store."""
    return tmp_path / "interlock.db"
