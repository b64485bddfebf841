"""The world of the fault schedules: tools of every kind of write, and a remote that knows what was meant."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import ClassVar

from pydantic import BaseModel

from interlock import Interlock

MODEL = "m:1"
USD_PER_TOKEN = 10.0 / 1e6
READERS, FLIPS, FLIPS_PER_S = 2, 2, 1.0
REFUNDS = 2
LIMITED = {"note.read", "lamp.flip"}

gate = Interlock(
    {
        "tools": {
            "allow": ["*"],
            "deny": ["db.*"],
            "writes": {"shell.tell": {"on_unknown": "tell"}},
            "budgets": {"refund.pay": {"max_calls": REFUNDS}},
            "limits": {"note.read": {"concurrency": READERS}, "lamp.flip": {"rate_per_s": FLIPS_PER_S, "burst": FLIPS}},
        },
        "prices": {MODEL: {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 10.0}},
        "logging": {"level": "error"},
    },
    store="sqlite:///:memory:",
)


class World:
    """The remote: what happened (tool, what was meant, key or number), and how slowly each tool answers."""

    effects: ClassVar[list] = []
    requests: ClassVar[Counter] = Counter()
    slow_s: ClassVar[dict] = {}
    readers: ClassVar[int] = 0
    most_readers: ClassVar[int] = 0

    @classmethod
    def forget(cls, slow_s):
        cls.effects, cls.requests, cls.slow_s = [], Counter(), slow_s
        cls.readers = cls.most_readers = 0

    @classmethod
    async def happen(cls, tool, n, key=None):
        """A remote that is given a key does nothing again for a key that it knows."""
        cls.requests[tool] += 1
        if key is None or (tool, n, key) not in cls.effects:
            cls.effects.append((tool, n, len(cls.effects) if key is None else key))
        await asyncio.sleep(cls.slow_s.get(tool, 0.0))
        return {"id": n}


class Note(BaseModel):
    text: str


@gate.tool("note.read", effect="read", output=Note)
async def read(n: int) -> dict:
    World.requests["note.read"] += 1
    World.readers += 1
    World.most_readers = max(World.most_readers, World.readers)
    try:
        await asyncio.sleep(World.slow_s.get("note.read", 0.0))
    finally:
        World.readers -= 1
    return {"text": f"note {n}"}


@gate.tool("note.send", effect="write")
async def send(n: int, *, idempotency_key: str) -> dict:
    return await World.happen("note.send", n, idempotency_key)


@gate.tool("invoice.send", effect="write", on_unknown="stop", allow=True)
async def invoice(n: int) -> dict:
    return await World.happen("invoice.send", n)


ORDERED = set()


async def placed(n: int, *, idempotency_key: str) -> dict | None:
    return {"id": n} if idempotency_key in ORDERED else None


@gate.tool("order.place", effect="write", on_unknown="lookup", lookup=placed)
async def order(n: int, *, idempotency_key: str) -> dict:
    """Not deduplicated by the remote: what arrives twice happens twice."""
    ORDERED.add(idempotency_key)
    return await World.happen("order.place", n)


@gate.tool("shell.tell", effect="write", on_unknown="tell")
async def tell(n: int) -> dict:
    return await World.happen("shell.tell", n)


@gate.tool("lamp.flip", effect="write", repeat="allow")
async def flip(n: int, *, idempotency_key: str) -> dict:
    return await World.happen("lamp.flip", n, idempotency_key)


@gate.tool("db.drop", effect="write", on_unknown="stop", allow=True)
async def drop(n: int) -> dict:
    return await World.happen("db.drop", n)


async def even(call) -> bool:
    """Somebody who says yes to even numbers, after a while."""
    await asyncio.sleep(0.5)
    return call.args["n"] % 2 == 0


@gate.tool("refund.pay", effect="write", approval=even)
async def refund(n: int, *, idempotency_key: str) -> dict:
    return await World.happen("refund.pay", n, idempotency_key)


TOOLS = ("note.read", "note.send", "invoice.send", "order.place", "shell.tell", "lamp.flip", "refund.pay", "db.drop")
SEVERAL = {"lamp.flip"}  # each proposal means one more
