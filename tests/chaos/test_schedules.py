"""500 schedules of faults from one seed, over every kind: one effect per intent, a named end, a whole record.

A failure names its number: the schedule of a number is always the same.
"""

from __future__ import annotations

import random

import pytest

from interlock import Interlock, StopReason
from interlock.chaos.faults import STORE_KINDS, TOOL_KINDS, Fault, Kind
from interlock.chaos.suite import Suite, Task
from interlock.chaos.trying import try_once

SCHEDULES, A_TEST = 500, 50
SEED = 20_26
CALLS = 12
KINDS = sorted(TOOL_KINDS | STORE_KINDS | {Kind.DUPLICATE_DELIVERY, Kind.TWO_WORKERS})

gate = Interlock({"tools": {"allow": ["*"]}, "logging": {"level": "error"}}, store="sqlite:///:memory:")
REMOTE: list[tuple[str, int, str]] = []


@gate.tool("note.read", effect="read")
async def read(n: int) -> dict:
    return {"text": f"note {n}"}


@gate.tool("note.send", effect="write")
async def send(n: int, *, idempotency_key: str) -> dict:
    REMOTE.append(("note.send", n, idempotency_key))
    return {"id": n}


@gate.tool("invoice.send", effect="write", on_unknown="stop", allow=True)
async def invoice(n: int) -> dict:
    REMOTE.append(("invoice.send", n, f"{len(REMOTE)}"))
    return {"id": n}


async def agent(run, task):
    """Take turns, and be helpful: propose what failed once more."""
    done = 0
    for n in range(CALLS):
        async with run.step():
            tool = ("note.read", "note.send", "invoice.send")[n % 3]
        for _ in range(2):
            seen = await run.observe(tool, {"n": n})
            if seen.ok:
                done += 1
                break
    return done


def schedule(number: int) -> tuple[Fault, ...]:
    chance = random.Random(f"{SEED}:{number}")

    def fault() -> Fault:
        kind = Kind(chance.choice(KINDS))
        return Fault(
            kind,
            tool=chance.choice(["claim", "settle", "end", "*"]) if kind in STORE_KINDS else chance.choice(["*", "*.send"]),
            calls=tuple(sorted(chance.sample(range(1, CALLS + 1), chance.randint(1, 4)))) if chance.random() < 0.6 else (),
            attempts=(1,) if chance.random() < 0.4 else (),
            probability=chance.choice([0.2, 0.5, 1.0]),
            status=chance.choice([401, 409, 429, 500, 502, 503, 504]),
            retry_after_s=chance.choice([None, 0.5, 3.0]),
            delay_s=chance.choice([0.0, 0.3, 4.0, 40.0]),
            size_bytes=2_000,
        )  # fmt: skip

    return tuple(fault() for _ in range(chance.randint(1, 4)))


def tried(number: int, off=()):
    task = Task("schedule", "any", faults=schedule(number))
    REMOTE.clear()
    return try_once(agent, gate, Suite((task,)), task, seed=number, off=off)


def happened_twice() -> bool:
    keys = {(tool, n, key) for tool, n, key in REMOTE}
    return len(keys) > len({(tool, n) for tool, n, _ in keys})


@pytest.mark.parametrize("first", range(0, SCHEDULES, A_TEST))
def test_whatever_fails_an_intent_has_one_effect_and_the_run_a_name(first):
    for number in range(first, first + A_TEST):
        found = tried(number)
        assert not happened_twice(), f"schedule {number}: an effect happened twice: {sorted(REMOTE)}"
        assert StopReason(found.reason) is not StopReason.INTERNAL_ERROR, f"schedule {number}"
        assert found.failures == (), f"schedule {number}: {found.failures}"


@pytest.mark.parametrize("number", range(0, SCHEDULES, 100))
def test_a_schedule_is_one_history(number):
    assert tried(number) == tried(number)


def test_without_claims_the_schedules_show_effects_that_happen_twice():
    twice = 0
    for number in range(A_TEST):
        tried(number, off=["recall", "claim"])
        twice += happened_twice()
    assert twice


def test_the_schedules_reach_every_kind():
    assert {fault.kind for number in range(SCHEDULES) for fault in schedule(number)} == set(KINDS)
