from __future__ import annotations

import pytest
from desks import Desk, Remote

from interlock.core.clock import ManualClock
from interlock.stores.sqlite import SqliteStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock):
    store = SqliteStore(":memory:", clock=clock, environ={})
    yield store
    store.close()


@pytest.fixture
def remote() -> Remote:
    return Remote()


@pytest.fixture
def desk(clock, store, remote) -> Desk:
    return Desk(clock, store, remote)
