"""Stories of runs that come back: by their record, through workers; and of what is forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

from schedule_journal_stories import EASY, Desk, settle_all
from schedule_telling import MODEL, Teller, ask, script, story

from interlock.core.errors import ConfigError
from interlock.journal.retention import DAY_S, Ages
from interlock.journal.store import ClaimState
from interlock.supervisor.worker import WorkerOptions


@story("a parked run goes on by its record, or diverges")
async def replayed(teller: Teller) -> None:
    def plan(*calls: tuple[str, str], turns: bool = True) -> Any:
        async def agent(run: Any, task: Any) -> str:
            for tool, what in calls:
                if turns and tool != "now":
                    await run.model(ask, "go on", model=MODEL, max_output_tokens=20)
                await teller.use(run, tool, what=what)
            return "done"

        return agent

    reads, lost = ("near.read", "x"), ("bare.post", "lost")
    before = (reads, ("told.post", "t"), ("near.read", "y"), lost, ("keyed.put", "last"))
    others = {
        "the same": before,
        "another first": (("near.read", "z"), *before[1:]),
        "in another order": (before[2], before[1], before[0], lost),
        "another last": (*before[:3], ("bare.post", "other")),
        "less": before[:2],
    }
    for turns in (True, False):
        for name, after in others.items():
            teller.say(f"-- {name}, {'with' if turns else 'without'} turns")
            gate = teller.gate(**EASY | {"agent": {"budgets": {"max_seconds": 3600}}})
            desk = Desk(teller, gate, [None, ConnectionResetError("lost")])
            parked = await teller.run(gate, plan(*before, turns=turns), request_id="r")
            teller.expect("parked", str(parked.reason), "outcome_unknown")
            await settle_all(gate.house().store, ClaimState.DONE, b'{"what":"settled"}')
            result = await teller.run(gate, plan(*after, turns=turns), request_id="r")
            teller.say("spent", round(result.cost_usd, 6))
            teller.expect("sent once", [desk.done.count(what) for what in ("t", "lost")], [1, 1])


@story("workers take what is queued, and hand it back")
async def workers(teller: Teller) -> None:
    config = {**EASY, "tenants": {"t": {"budgets": {"max_concurrent_runs": 1}}}}
    gate = teller.gate(**config)
    desk = Desk(teller, gate, [ConnectionResetError("lost")])

    async def agent(run: Any, task: Any) -> str:
        await run.model(ask, "go on", model=MODEL, max_output_tokens=20)
        await teller.use(run, "told.post", what=str(task))
        await asyncio.sleep(30.0)
        await teller.use(run, "keyed.put", what=str(task))
        return "done"

    async def dies(run: Any, task: Any) -> str:
        raise ValueError("always")

    options = WorkerOptions(concurrency=2, per_tenant=1)
    worker = gate.worker({"a": agent, "b": dies}, options)
    working = asyncio.ensure_future(worker.run())
    for n, tenant in enumerate(("t", "t", "u")):
        await gate.submit("a", n, tenant_id=tenant, request_id=f"r{n}")
    await gate.submit("b", 9, tenant_id="v", request_id="r9")
    await asyncio.sleep(45.0)
    worker.drain()
    await working
    rows = sorted(await gate.house().store.runs(), key=lambda row: row.request_id)
    teller.say("after draining", [(row.request_id, str(row.state), str(row.reason)) for row in rows])
    other = teller.gate(beside=gate, **config)
    again = Desk(teller, other)
    worker = other.worker({"a": agent, "b": dies}, WorkerOptions())
    working = asyncio.ensure_future(worker.run())
    await asyncio.sleep(100.0)
    worker.drain()
    await working
    for row in sorted(await gate.house().store.runs(), key=lambda row: row.request_id):
        teller.say(row.request_id, str(row.state), str(row.reason), row.fence)
        await teller.recorded(gate, row.run_id)
    teller.expect("each once", sorted([*desk.done, *again.done]), ["0", "0", "1", "1", "2", "2"])


@story("what is old is forgotten, and no doubt")
async def purged(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    desk = Desk(teller, gate, [ConnectionResetError("lost")])
    store = gate.house().store
    await teller.run(gate, script(teller, [("bare.post", {"what": "lost"})]), request_id="doubt")
    await teller.run(gate, script(teller, [("keyed.put", {"what": "a"})]), request_id="done")
    await gate.submit("a", 1, request_id="queued")
    day = DAY_S
    for days, ages in (
        (10, Ages(30 * day, 90 * day, day)),
        (25, Ages(30 * day, 90 * day, day)),
        (5, Ages(None, None, day)),
        (5, Ages(30 * day, None, day)),
        (50, Ages(30 * day, 90 * day, day)),
    ):
        teller.clock.jump_wall(days * day)
        teller.say(f"{days} days later, would", str(await store.retention.purge(ages, dry_run=True)))
        teller.say("did", str(await store.retention.purge(ages)))
        await teller.run(gate, script(teller, [("keyed.put", {"what": "a"})]), request_id="done")
    teller.expect("the doubt stays", len(await store.doubts()), 1)
    teller.say("done", desk.done)
    for content_s, keys_s, horizon_s in (
        (-1.0, None, day),
        (float("inf"), None, day),
        (1.0, -1.0, 0.0),
        (1.0, 10.0, day),
        (None, 5 * day, day),
        (9 * day, 5 * day, day),
        (5 * day, 5 * day, 5 * day),
    ):
        try:
            teller.say(str(Ages(content_s, keys_s, horizon_s)))
        except ConfigError as error:
            teller.say(str(error))


@story("names of arguments that identify an effect")
async def identities(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    desk = Desk(teller, gate)
    calls = [
        ("named.put", {"order": "1", "note": "a"}),
        ("named.put", {"order": "1", "note": "b"}),
        ("named.put", {"order": "2"}),
        ("any.put", {"order": "3", "more": 1}),
        ("any.put", {"order": "3", "more": 2}),
        ("any.put", {"more": 2}),
        ("any.put", {"more": 3}),
    ]
    await teller.run(gate, script(teller, *([call] for call in calls)))
    teller.expect("done", desk.done, ["1, a", "2, None", "3", "None", "None"])
    tools = {**EASY["tools"], "writes": {"wrong.put": {"identity": ["nothing"]}}}
    try:
        wrong = teller.gate(**EASY | {"tools": tools})

        @wrong.tool("wrong.put", effect="write")
        async def put(order: str, *, idempotency_key: str) -> None: ...

        seen: list[Any] = []
        await teller.run(wrong, script(teller, [("wrong.put", {"order": "1"})], seen=seen))
        teller.expect("refused", str(seen[0].reason), "invalid_input")
    except ConfigError as error:
        teller.say(str(error))
