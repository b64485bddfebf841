"""Every store that there is, behind one fixture: the contract's tests run the same bodies on all of them."""

from __future__ import annotations

import pytest
from scenes import Scene

from interlock.core.clock import ManualClock
from interlock.stores.sqlite import SqliteStore


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(params=["memory", "file"])
def make_store(request, tmp_path, clock):
    """Return a function that opens the store of this test: once more means the same data, where there is a disk."""
    opened = []

    def make(**words):
        path = ":memory:" if request.param == "memory" else tmp_path / "interlock.db"
        store = SqliteStore(path, **{"clock": clock, "environ": {}, **words})
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
