"""A clock that stands still, and a run on it."""

import pytest
from record_scenes import Scope

from interlock.core.clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def scope(clock):
    return Scope(clock)
