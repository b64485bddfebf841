"""A gate, closed after the test; and the scripted model of the conformance matrix, found from the repository's root."""

import sys
from pathlib import Path

import pytest
from adapter_scenes import make_gate

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)


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
