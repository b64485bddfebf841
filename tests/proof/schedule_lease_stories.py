"""Stories of leases: an owner who is slow, one who is dead, one who comes back, and runs that kill their workers."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

from schedule_journal_stories import EASY, Desk
from schedule_telling import MODEL, Failing, Teller, ask, story

from interlock.journal.ownership import Lease, left_s

TTL_S = 5.0


def leased(teller: Teller, *, beside: Any = None, **config: Any) -> Any:
    """Return a gate whose leases run out, as those on a file do, where nobody renews them: there is no heartbeat."""
    gate = teller.gate(beside=beside, **{**EASY, **config})
    opened = gate._trial.store

    def opens(how: Any) -> Any:
        store = opened(how)
        object.__setattr__(store._store._holder, "ttl_s", TTL_S)
        store._store.leases.ttl_s = TTL_S
        store.leases = Failing(store._store.leases)
        return store

    if beside is None:
        gate._trial = replace(gate._trial, store=opens)
    return gate


def plan(teller: Teller, *steps: str | float) -> Any:
    """Return an agent that sleeps, reads (`?…`) and writes."""

    async def agent(run: Any, task: Any) -> str:
        await run.model(ask, "go on", model=MODEL, max_output_tokens=20)
        for step in steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                await teller.use(run, "near.read" if step.startswith("?") else "keyed.put", what=step)
        return "done"

    return agent


@story("an owner who is slow, and whose run nobody else has asked for")
async def slow_owner(teller: Teller) -> None:
    gate = leased(teller)
    desk = Desk(teller, gate)
    store = gate.house().store

    async def watch() -> None:
        for _ in range(6):
            (row,) = await store.runs()
            teller.say("left", row.lease_left_s)
            await asyncio.sleep(2.0)

    watching = asyncio.ensure_future(watch())
    result = await teller.run(gate, plan(teller, "a", 6.0, "b", 4.0, "c"), request_id="r")
    await watching
    teller.expect("it goes on", (str(result.reason), desk.done), ("success", ["a", "b", "c"]))


@story("a lease cannot be renewed: its owner stops before others may begin")
async def store_away(teller: Teller) -> None:
    for first_s, sent in ((4.25, 2), (4.5, 1), (4.75, 1)):
        gate = leased(teller)
        desk = Desk(teller, gate)
        gate.house().store.leases.away = {"confirm"}
        result = await teller.run(gate, plan(teller, "a", first_s, "b"), request_id="r")
        teller.expect("sent", (first_s, len(desk.done), str(result.reason)), (first_s, sent, str(result.reason)))


@story("an owner who was taken for dead comes back")
async def taken_for_dead(teller: Teller) -> None:
    for wait_s, second_s in ((4.0, 3.0), (5.0, 3.0), (9.0, 20.0)):
        first = leased(teller)
        second = leased(teller, beside=first)
        old, new = Desk(teller, first), Desk(teller, second)
        agent = plan(teller, "a", "?x", 10.0, "b", 1.0, "c")
        working = asyncio.ensure_future(first.run(agent, request_id="r", agent_name="a", wait_s=0.0))
        await asyncio.sleep(wait_s)
        other = plan(teller, "a", "?x", second_s, "b", "c")
        result = await teller.run(second, other, request_id="r", wait_s=8.0)
        (ended,) = await asyncio.gather(working, return_exceptions=True)
        teller.say("the old one:", str(getattr(ended, "reason", repr(ended))))
        store = first.house().store
        (row,) = await store.runs()
        for attempt in await store.leases.attempts_of(row.run_id):
            teller.say("attempt", attempt.fence, attempt.ended_as, round(attempt.started_at % 1_000, 3))
        teller.say("fence", row.fence, "attempts", row.attempts, "barren", row.barren, "used", row.used_s)
        teller.expect("each once", (str(result.reason), sorted([*old.done, *new.done])), ("success", ["a", "b", "c"]))


@story("a run over which one worker after the other dies")
async def dies_again(teller: Teller) -> None:
    for growing in (False, True):
        first = leased(teller)
        gates = [first, *(leased(teller, beside=first) for _ in range(6))]
        running = []
        for n, gate in enumerate(gates):
            Desk(teller, gate)
            steps = [f"?{i}" for i in range(n if growing else 1)]
            running.append(
                asyncio.ensure_future(gate.run(plan(teller, *steps, 10_000.0), request_id="r", agent_name="a"))
            )
            await asyncio.sleep(TTL_S + 1.0)
            (row,) = await first.house().store.runs()
            teller.say("fence", row.fence, str(row.state), str(row.reason), "barren", row.barren, "used", row.used_s)
        teller.expect("given up", str(row.reason), "None" if growing else "abandoned")
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@story("a lease that is lost stays lost")
async def stays_lost(teller: Teller) -> None:
    now_s, told = 100.0, []
    lease = Lease("r", 3, now_s + TTL_S)
    lease.renewed(now_s, TTL_S)
    teller.say("kept by an answer that is late", lease.until_s)
    lease.renewed(now_s + 1.0, TTL_S)
    teller.expect("renewed, less a margin", (lease.until_s, lease.lost), (now_s + 5.5, False))
    lease.lose()
    teller.expect("lost, with nobody to be told", (lease.until_s, lease.lost), (-math.inf, True))
    other = Lease("r", 3, now_s)
    other.on_lost = lambda: told.append(other.run_id)
    for _ in range(3):
        other.lose()
        other.renewed(now_s + 9.0, TTL_S)
    teller.expect("lost once and for all", (other.until_s, told), (-math.inf, ["r"]))
    left = [left_s(*words, now_s, "here") for words in ((None, None), (now_s + 2.0, "here"), (now_s + 2.0, "there"))]
    teller.expect("left", left, [None, 2.0, -math.inf])
