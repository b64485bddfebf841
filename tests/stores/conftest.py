"""Every store that there is, behind one fixture: the contract's tests run the same bodies on all of them."""

from __future__ import annotations

import shutil

import pytest
from scenes import Scene

from interlock.core.clock import ManualClock
from interlock.stores.sqlite import SqliteStore

KEY = {"INTERLOCK_KEY": "5e" * 32}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory):
    """A new store, made once: what a schema costs to make is paid once, not in every test."""
    path = tmp_path_factory.mktemp("stores") / "interlock.db"
    SqliteStore(path, environ=KEY).close()
    return path


@pytest.fixture(params=["memory", "file"])
def make_store(request, tmp_path, clock, empty_file):
    """Return a function that opens the store of this test: once more means the same data, where there is a disk."""
    opened = []
    if request.param == "file":
        shutil.copy(empty_file, tmp_path / "interlock.db")

    def make(**words):
        path = ":memory:" if request.param == "memory" else tmp_path / "interlock.db"
        store = SqliteStore(path, **{"clock": clock, "environ": KEY, **words})
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
