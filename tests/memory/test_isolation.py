"""No history of operations, with whatever names, lets one scope see or touch what is another's."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_model import HOSTILE, WORDS, operations, play

from interlock.core.clock import ManualClock
from interlock.core.trust import Trust
from interlock.memory.scope import Scope
from interlock.stores.sqlite import SqliteStore

SCALE = int(os.environ.get("INTERLOCK_PROOF_SCALE", "1"))


async def on_sqlite(history):
    store = SqliteStore(":memory:", clock=ManualClock(), environ={"INTERLOCK_KEY": "5e" * 32})
    try:
        await play(store.memory, history)
    finally:
        store.close()


@settings(max_examples=120 * SCALE)
@given(st.lists(operations, min_size=5, max_size=40))
def test_a_store_does_what_the_model_does(history):
    asyncio.run(on_sqlite(history))


def random_scope(chance):
    # Mostly few names, so that scopes meet; at times any.
    names = HOSTILE[:2] if chance.random() < 0.7 else HOSTILE
    return Scope(*(chance.choice(names) for _ in range(chance.randrange(1, 4))))


def random_step(chance):
    scope, spot, trust = random_scope(chance), chance.randrange(6), chance.choice(list(Trust))
    return chance.choice(
        (
            ("remember", scope, spot, chance.choice(WORDS), chance.choice((5.0, 50.0)), trust),
            ("remember", scope, spot, chance.choice(WORDS), 50.0, trust),
            ("get", scope, spot),
            ("search", scope, chance.choice((*WORDS, ""))),
            ("forget", scope, spot, trust),
            ("pin", scope, spot, trust),
            ("verify", scope, spot, trust),
            ("supersede", scope, spot, chance.randrange(6), trust),
            ("quarantine", scope, spot),
            ("release", scope, spot, trust),
            ("list", scope),
            ("purge", scope),
            ("erase", scope, chance.choice(WORDS)),
            ("wait", chance.choice((1.0, 5.0))),
        )
    )


@pytest.mark.parametrize("seed", range(2 * SCALE))
async def test_every_store_does_what_the_model_does(memory, seed):
    chance = random.Random(seed)
    await play(memory, [random_step(chance) for _ in range(150)])
