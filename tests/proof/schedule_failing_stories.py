"""Stories of calls that fail in passing: between two guards, at the very moment of a deadline, dropped, queued, unheard."""

from __future__ import annotations

import asyncio
import gc
import http.client
import threading
from typing import Any

from schedule_limit_stories import AGENT, LOST, Status, make, paced
from schedule_telling import MODEL, Teller, ask, script, story
from schedule_thread_stories import Shop, easy

from interlock import Interlock
from interlock.core.calls import Answer
from interlock.core.errors import InterlockError
from interlock.gateway.tools import current_run


@story("the time is over between two guards")
async def between(teller: Teller) -> None:
    for held_s in (1.0, 2.0, 3.0):
        gate, tried = make(teller, [], run_budgets={"max_seconds": 2})
        store = gate.house().store
        claim = store.claim

        async def slow_claim(intent: Any, held_s: float = held_s, claim: Any = claim) -> Any:
            await asyncio.sleep(held_s)
            return await claim(intent)

        store.claim = slow_claim
        await teller.run(gate, paced(teller, "a.put"))
        teller.expect(f"sent, when the store took {held_s:g} s", len(tried), int(held_s < 2))


@story("a plain function is still at work when it would be sent again", threads=True)
async def still_at_work(teller: Teller) -> None:
    gate = teller.gate(**easy(retries={"max_attempts": 1}, circuit_breakers={"enabled": False}))
    letting_go, entered = threading.Event(), []

    async def found(n: int) -> Any:
        teller.say("looked up")

    @gate.tool("plain.send", effect="write", on_unknown="lookup", lookup=found, settle_s=0.0)
    def send(n: int) -> dict[str, int]:
        entered.append(n)
        letting_go.wait(30.0)
        return {"n": n}

    result = await teller.run(gate, script(teller, [("plain.send", {"n": 1})]), request_id="r")
    teller.expect("entered once", entered, [1])
    letting_go.set()
    for _ in range(3):
        await asyncio.sleep(0.01)
    await teller.claims(gate, result.run_id)


@story("a slot is free at the moment at which the run is stopped")
async def stopped_at_once(teller: Teller) -> None:
    gate = teller.gate(
        agent={**AGENT, "budgets": {"max_tool_calls": 2, "max_seconds": 3600}},
        tools={"allow": ["*"], "limits": {"a.read": {"concurrency": 1, "max_wait_s": 100}}},
    )
    made: list[int] = []

    @gate.tool("a.read", effect="read")
    async def read(n: int) -> int:
        made.append(n)
        if n == 1:
            await asyncio.sleep(2.0)
            await teller.use(current_run.get(), "a.read", n=3)  # one too many: that stops the run
        return n

    async def agent(run: Any, task: Any) -> None:
        await asyncio.gather(*(teller.use(run, "a.read", n=n) for n in (1, 2)), return_exceptions=True)

    stopped = asyncio.ensure_future(gate.run(agent))
    await asyncio.sleep(1.1)
    other = asyncio.ensure_future(gate.run(paced(teller, "a.read")))
    await teller.recorded(gate, (await stopped).run_id)
    await other
    teller.say("the next one has it at once", gate.house().admission.status())
    teller.expect("the second is not made", made, [1, 10])
    await gate.run(paced(teller, "a.read", 5, "a.read"))
    teller.expect("the slot is free", len(made), 4)


@story("a call that is dropped half-way")
async def dropped(teller: Teller) -> None:
    gate = teller.gate(agent=AGENT, tools={"allow": ["*"]})
    entered: list[int] = []

    @gate.tool("a.wait", effect="read")
    async def wait(n: int) -> str:
        entered.append(n)
        try:
            await asyncio.sleep(5.0)
        except GeneratorExit:
            teller.say("closed")
            raise
        return "done"

    class Dropped:
        """Awaits a call until its tool is at work, and then lets it go."""

        def __init__(self, call: Any) -> None:
            self.call = call

        def __await__(self) -> Any:
            steps = self.call.__await__()
            while not entered:
                waits_for = steps.send(None)
                if not entered:
                    yield waits_for
            steps.close()

    async def agent(run: Any, task: Any) -> None:
        await Dropped(run.through("a.wait", {"n": 1}, lambda call: wait.unguarded(n=1)))
        teller.say("dropped")
        entered.clear()
        try:
            await Dropped(run.call("a.wait", {"n": 1}))
        except InterlockError as error:
            teller.say("it says", str(error))
        await teller.use(run, "a.wait", n=2)

    await teller.run(gate, agent)
    teller.expect(
        "closed before it went on", [line.split(": ")[1] for line in teller.told.lines[:2]], ["closed", "dropped"]
    )


@story("attempts that others make, in a gate that is not on trial")
async def others(teller: Teller) -> None:
    config = {"agent": AGENT, "tools": {"allow": ["*"], "timeouts_s": {"default": 2}}, "logging": {"level": "error"}}
    for mode in ("enforce", "observe"):
        gate = Interlock({**config, "mode": mode}, store="sqlite:///:memory:", clock=teller.clock)

        class Waits:
            def __init__(self, delay_s: float) -> None:
                self.delay_s = delay_s

            def __await__(self) -> Any:
                return asyncio.sleep(self.delay_s, Answer("waited")).__await__()

        @gate.tool("a.read", effect="read")
        async def read(n: int) -> str:
            return "by itself"

        async def agent(run: Any, task: Any, mode: str = mode) -> str:
            said = [str(await run.call("a.read", {"n": 1}))]
            for number, delay_s in enumerate((1.0, 2.0, 3.0)):
                try:
                    waits = Waits(delay_s)
                    answer = await run.through("a.read", {"n": 2 + number}, lambda call, waits=waits: waits)
                    said.append(str(answer.value))
                except Exception as error:
                    said.append(f"{type(error).__name__}: {error}")
            teller.say(mode, said)
            return said[1]

        result = await gate.run(agent)
        teller.expect("waited for", result.output, "waited")
        for each in (await gate.house().store.run(result.run_id)).record["trace"]:
            teller.say("row", *(str(each.get(key, "-")) for key in ("tool", "status", "would_have")))
        await gate.aclose()


@story("plain functions that wait for a thread", threads=True)
async def queued(teller: Teller) -> None:
    gate = teller.gate(agent=AGENT, tools={"allow": ["*"], "timeouts_s": {"default": 60}})
    pool = gate.house().perform._pool
    models = gate.house().supervisor._machinery.threads
    pool._max_threads = models._max_threads = 1
    shop = Shop(teller, gate)

    async def hangs(run: Any, task: Any) -> None:
        await run.model(lambda: shop.letting_go.wait(30.0))

    async def asks(run: Any, task: Any) -> None:
        await run.model(lambda: shop.entered.append("model"))

    agents = (hangs, script(teller, [("plain.read", {"how": "hang"})], said=False))
    hanging = [asyncio.ensure_future(gate.run(each)) for each in agents]
    await asyncio.sleep(0.5)

    # A read and a plain model's turn stand in the queue when their runs are cancelled: neither is ever entered.
    waits = [
        asyncio.ensure_future(gate.run(script(teller, [("plain.read", {"how": "well"})]), request_id="r")),
        asyncio.ensure_future(gate.run(asks, request_id="m")),
    ]
    await asyncio.sleep(0.5)
    teller.expect("in the queues", [len(pool._queue), len(models._queue)], [1, 1])
    for each in waits:
        each.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    await shop.let_go()
    await asyncio.gather(*hanging)
    await teller.run(gate, script(teller, [("plain.read", {"how": "more"})]))
    result = await gate.run(asks)
    teller.expect("its thread goes on", str(result.reason), "success")
    teller.expect("entered", shop.entered, ["hang", "more", "model"])
    for row in await gate.house().store.runs():
        if row.request_id == "r":
            await teller.recorded(gate, row.run_id)
    for each in (pool, models):
        teller.expect("threads", [each._threads, len(each._queue), len(each._running)], [1, 0, 0])


@story("there are no more threads to be had", threads=True)
async def no_threads(teller: Teller) -> None:
    gate = teller.gate(**easy(retries={"max_attempts": 1}, timeouts_s={"default": 60}))
    Shop(teller, gate)
    start = threading.Thread.start
    served = gate.house().perform._pool

    def fails(thread: threading.Thread) -> None:
        if thread.name == "interlock-tool":
            raise RuntimeError("can't start new thread")
        start(thread)

    seen: list[Any] = []
    threading.Thread.start = fails  # type: ignore[method-assign]
    try:
        await teller.run(gate, script(teller, [("plain.read", {"how": "never"})], seen=seen))
        threading.Thread.start = start  # type: ignore[method-assign]
        await teller.run(gate, script(teller, [("plain.read", {"how": "first"})], seen=seen))
        threading.Thread.start = fails  # type: ignore[method-assign]
        turns = [("plain.read", {"how": f"side by side {n}"}) for n in range(3)]
        await teller.run(gate, script(teller, turns, seen=seen, said=False))
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
    teller.expect("the one thread does it all", [each.ok for each in seen], [False, True, True, True, True])
    teller.expect("threads", [served._threads, len(served._queue)], [1, 0])
    daemons = {thread.daemon for thread in threading.enumerate() if thread.name == "interlock-tool"}
    teller.expect("none of them keeps the process", daemons, {True})


@story("as many threads as there may be, and no more", threads=True)
async def many_threads(teller: Teller) -> None:
    gate = teller.gate(agent={"budgets": {"max_seconds": 600, "max_tool_calls": None}}, tools={"allow": ["*"]})
    pool = gate.house().perform._pool
    shop = Shop(teller, gate)
    turn = [("plain.read", {"how": f"hang {n}"}) for n in range(66)]
    running = asyncio.ensure_future(gate.run(script(teller, turn, said=False)))
    await asyncio.sleep(1.0)
    teller.expect("at once", len(shop.entered), 64)
    await shop.let_go()
    result = await running
    teller.expect("all in the end", [len(shop.entered), str(result.reason), pool._threads], [66, "success", 64])


@story("nobody hears what a thread raises too late", threads=True)
async def unheard(teller: Teller) -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(str(what["message"])))
    gate = teller.gate(**easy(retries={"max_attempts": 1}, circuit_breakers={"enabled": False}))
    shop = Shop(teller, gate)
    pool = gate.house().perform._pool
    calls = [("plain.read", {"how": f"hang {n}, raise"}) for n in range(2)]
    await teller.run(gate, script(teller, calls))
    teller.expect("hang", [pool.abandoned("plain.read"), pool._abandoned_total, pool._threads], [2, 2, 2])
    await shop.let_go()
    await asyncio.sleep(1.0)
    gc.collect()
    teller.expect("the loop complains of nothing", told, [])
    freed: list[str] = []
    answered, open_still = (asyncio.get_running_loop().create_future() for _ in range(2))
    answered.set_result(None)
    for future, name in ((answered, "answered"), (open_still, "open still")):
        pool.when_free(future, lambda name=name: freed.append(name))  # type: ignore[misc]
    teller.expect("free at once", freed, ["answered"])
    open_still.set_result(None)
    await asyncio.sleep(0)
    teller.expect("free when it is answered", freed, ["answered", "open still"])
    teller.expect("hang no more", [pool.abandoned("plain.read"), pool._abandoned_total, len(pool._running)], [0, 0, 0])


@story("watched, and cut at the very moment")
async def watched(teller: Teller) -> None:
    for mode in ("enforce", "observe"):
        for plan in ([1.5], [2.0], [2.5]):
            gate, _ = make(teller, list(plan), mode, timeouts_s={"default": 2})
            teller.say(mode, plan)
            await teller.run(gate, paced(teller, "a.read"))
    gate, tried = make(teller, [LOST], "observe", timeouts_s={"default": 2}, retries={"max_attempts": 3})
    await teller.run(gate, paced(teller, "a.read"))
    teller.expect("watching tries nothing again", len(tried), 1)


@story("a tenant's dollars, watched and counted")
async def counted(teller: Teller) -> None:
    tenants = {"t": {"budgets": {"max_usd_per_day": 0.0049}}}
    gate = teller.gate(mode="observe", agent=AGENT, tenants=tenants)
    wider = {"t": {"budgets": {"max_usd_per_day": 0.0075}}}  # for a turn more than was spent, and not for two
    strict = teller.gate(beside=gate, agent=AGENT, tenants=wider)

    async def agent(run: Any, task: Any) -> str:
        for _ in range(2):
            await run.model(ask, "go on", model=MODEL, max_output_tokens=20, input_tokens=100)
        return "done"

    ended = []
    for each in (gate, gate, gate, strict):
        ended.append(str((await teller.run(each, agent, tenant_id="t")).reason))
    teller.expect("counted while it was watched", ended, ["success"] * 3 + ["cost_budget"])
    teller.clock.jump_wall(86_400.0)
    result = await teller.run(strict, agent, tenant_id="t")
    teller.expect("the next day", str(result.reason), "success")


@story("what the standard library raises")
async def standard(teller: Teller) -> None:
    raised: dict[str, Any] = {
        "an address": lambda: http.client.InvalidURL("no such port"),
        "a status line": lambda: http.client.BadStatusLine("odd"),
        "less than promised": lambda: http.client.IncompleteRead(b"", 9),
        "hung up": lambda: http.client.RemoteDisconnected("gone"),
        "busy": lambda: Status(429),
    }
    for name, raises in raised.items():
        gate, tried = make(teller, [raises(), raises()], retries={"max_attempts": 2, "backoff_ms": [0]})
        await teller.run(gate, paced(teller, "a.put"))
        teller.say(name, len(tried))
