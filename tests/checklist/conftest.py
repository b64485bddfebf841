"""Gates for the tests of the checklist: made of a mapping, in memory, closed at the end."""

from __future__ import annotations

import asyncio

import pytest

import interlock


@pytest.fixture
async def make():
    """Return `Interlock(config)` on a store in memory."""
    made = []

    def of(config=None, *, store="sqlite:///:memory:", **options):
        gate = interlock.Interlock(config, store=store, **options)
        made.append(gate)
        return gate

    yield of
    for gate in made:
        await gate.aclose()


@pytest.fixture
def never():
    """Return a coroutine function that never comes back by itself."""

    async def wait():
        await asyncio.Event().wait()

    return wait
