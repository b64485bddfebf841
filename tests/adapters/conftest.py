"""A gate, closed after the test."""

import pytest
from adapter_scenes import make_gate


@pytest.fixture
async def opened():
    """Return a function that makes gates, which are closed after the test."""
    gates = []

    def make(**tools):
        gates.append(make_gate(**tools))
        return gates[-1]

    yield make
    for gate in gates:
        await gate.aclose()
