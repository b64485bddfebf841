"""Stories of plain functions: their threads, what they raise, and those that go on when nobody waits for them."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

from schedule_telling import Teller, ask, script, story

EASY = {
    "agent": {"budgets": {"max_seconds": 600}, "max_refusals": None, "stop_on": ["cost_budget"]},
    "tools": {"allow": ["*"], "timeouts_s": {"default": 2.0}, "retries": {"max_attempts": 2, "backoff_ms": [0]}},
}


def easy(**tools: Any) -> dict[str, Any]:
    return {**EASY, "tools": {**EASY["tools"], **tools}}


class Shop:
    """Plain functions as tools; what hangs, hangs until it is let go."""

    def __init__(self, teller: Teller, gate: Any) -> None:
        self.letting_go = threading.Event()
        self.entered: list[str] = []
        lock = threading.Lock()

        def work(how: str) -> dict[str, str]:
            with lock:
                self.entered.append(how)
            if how.startswith("hang"):
                self.letting_go.wait(30.0)
            if how.endswith("raise"):
                raise ConnectionResetError("late")
            if how.endswith("refuse"):
                raise ConnectionRefusedError("late")
            raised = {"stop": StopIteration("x"), "exit": SystemExit(3), "interrupt": KeyboardInterrupt()}.get(how)
            if raised is not None:
                raise raised
            return {"how": how}

        @gate.tool("plain.read", effect="read")
        def read(how: str) -> dict[str, str]:
            return work(how)

        @gate.tool("plain.put", effect="write", output=dict)
        def put(how: str, *, idempotency_key: str) -> Any:
            assert idempotency_key
            done = work(how)
            return ["not", "valid"] if how.endswith("invalid") else done

        @gate.tool("plain.post", effect="write", on_unknown="tell")
        def post(how: str) -> dict[str, str]:
            return work(how)

    async def let_go(self) -> None:
        self.letting_go.set()
        for _ in range(3):
            await asyncio.sleep(0.01)


@story("plain functions and what they raise", threads=True)
async def raise_and_return(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    shop = Shop(teller, gate)
    hows = ("well", "raise", "refuse", "stop", "exit", "interrupt")
    seen: list[Any] = []
    await teller.run(
        gate,
        script(teller, *([(f"plain.{kind}", {"how": how})] for kind in ("read", "post") for how in hows), seen=seen),
    )
    teller.expect("entered", shop.entered[:2], ["well", "raise"])
    teller.expect("it ended none of us", [str(each.reason) for each in seen[3:6]], ["tool_failed"] * 3)


@story("an async tool that would end the program")
async def exits(teller: Teller) -> None:
    gate = teller.gate(**EASY)

    @gate.tool("odd.read", effect="read")
    async def read(how: str) -> None:
        raise {"exit": SystemExit(3), "cancel": asyncio.CancelledError(), "stop": StopAsyncIteration()}[how]

    @gate.tool("odd.put", effect="write", on_unknown="tell")
    async def put(how: str) -> None:
        raise {"exit": SystemExit(3), "cancel": asyncio.CancelledError(), "stop": StopAsyncIteration()}[how]

    @gate.tool("odd.send", effect="write", on_unknown="tell")
    async def send(how: str, *, idempotency_key: str) -> None:
        raise {"exit": SystemExit(3), "cancel": asyncio.CancelledError(), "stop": StopAsyncIteration()}[how]

    names = ("odd.read", "odd.put", "odd.send")
    result = await teller.run(
        gate, script(teller, *([(name, {"how": how})] for name in names for how in ("exit", "cancel", "stop")))
    )
    teller.expect("the run goes on", str(result.reason), "success")


@story("a thread outlives its timeout, and answers late", threads=True)
async def late_answers(teller: Teller) -> None:
    for how in ("hang", "hang, then raise", "hang, then refuse", "hang, invalid"):
        gate = teller.gate(**easy(circuit_breakers={"enabled": False}))
        shop = Shop(teller, gate)
        result = await teller.run(gate, script(teller, [("plain.put", {"how": how})], [("plain.put", {"how": how})]))
        teller.expect("entered while it hangs", shop.entered, [how])
        await shop.let_go()
        await teller.claims(gate, result.run_id)
        await teller.run(gate, script(teller, [("plain.put", {"how": how})]), request_id="again")


@story("threads that hang are counted", threads=True)
async def abandoned(teller: Teller) -> None:
    gate = teller.gate(**easy(max_abandoned_threads=2, circuit_breakers={"enabled": False}))
    shop = Shop(teller, gate)
    hangs = [[("plain.read", {"how": f"hang {n}"})] for n in range(4)]
    seen: list[Any] = []
    await teller.run(gate, script(teller, *hangs, [("plain.post", {"how": "well"})], seen=seen))
    teller.expect("refused once two hang", [str(each.reason) for each in seen[2:4]], ["circuit_open"] * 2)
    teller.say("status", gate.house().admission.status())
    await shop.let_go()
    teller.say("status", gate.house().admission.status())
    await teller.run(gate, script(teller, [("plain.read", {"how": "well"})], seen=seen))
    teller.expect("free again", seen[-1].ok, True)


@story("a thread that hangs keeps its slot", threads=True)
async def slots(teller: Teller) -> None:
    gate = teller.gate(**easy(limits={"plain.read": {"concurrency": 1, "max_wait_s": 1.0}}))
    shop = Shop(teller, gate)
    seen: list[Any] = []
    await teller.run(gate, script(teller, [("plain.read", {"how": "hang"})], [("plain.read", {"how": "b"})], seen=seen))
    teller.expect("no slot", [str(each.reason) for each in seen], ["tool_timeout", "tool_rate_limit"])
    await shop.let_go()
    await teller.run(gate, script(teller, [("plain.read", {"how": "c"})], seen=seen))
    teller.expect("a slot", seen[-1].ok, True)


@story("more jobs than threads", threads=True)
async def crowded(teller: Teller) -> None:
    gate = teller.gate(**easy(max_abandoned_threads=100, circuit_breakers={"enabled": False}))
    pool = gate.house().perform._pool
    pool._max_threads = 2
    shop = Shop(teller, gate)
    calls = [("plain.read", f"hang {n}") for n in range(3)] + [("plain.put", "hang 9")]
    seen: list[Any] = []

    async def agent(run: Any, task: Any) -> None:
        async def use(n: int, tool: str, how: str) -> None:
            await asyncio.sleep(0.5 * n)  # one after the other, so that each finds the threads in one state
            await teller.use(run, tool, how=how)

        await asyncio.gather(*(use(n, *call) for n, call in enumerate(calls)))

    await teller.run(gate, agent)
    teller.say("entered", sorted(shop.entered))
    await shop.let_go()
    again = [[("plain.read", {"how": f"well {n}"}) for n in range(5)], [("plain.read", {"how": "more"})]]
    await teller.run(gate, script(teller, *again, seen=seen, said=False))
    teller.expect("all are answered", [each.ok for each in seen[-6:]], [True] * 6)
    teller.say("hanging", pool.abandoned("plain.read"), pool.abandoned("plain.put"))


@story("nobody waits for a thread any more", threads=True)
async def cancelled(teller: Teller) -> None:
    gate = teller.gate(**easy(timeouts_s={"default": 50.0}))
    shop = Shop(teller, gate)

    async def agent(run: Any, task: Any) -> None:
        await run.model(ask, "go on", model="m:1", max_output_tokens=20)
        await asyncio.gather(*(teller.use(run, tool, how="hang") for tool in ("plain.read", "plain.post")))

    running = asyncio.ensure_future(gate.run(agent, request_id="r"))
    await asyncio.sleep(1.0)
    running.cancel()
    try:
        await running
    except asyncio.CancelledError:
        teller.say("cancelled")
    await shop.let_go()
    (row,) = await gate.house().store.runs()
    await teller.recorded(gate, row.run_id)
    teller.expect("the write was done all the same", shop.entered.count("hang"), 2)


@story("a plain function used outside of a timeout", threads=True)
async def patient(teller: Teller) -> None:
    gate = teller.gate(mode="observe", **EASY)
    Shop(teller, gate)
    result = await teller.run(
        gate, script(teller, [("plain.read", {"how": "well"})], [("plain.put", {"how": "raise"})])
    )
    teller.expect("nothing is refused", str(result.reason), "success")


@story("an attempt that swallows its cancellation")
async def swallows(teller: Teller) -> None:
    gate = teller.gate(**EASY)

    @gate.tool("slow.read", effect="read")
    async def read(how: str) -> str:
        try:
            await asyncio.sleep(100.0)
        except asyncio.CancelledError:
            if how == "answers":
                return "after all"
            if how == "fails":
                raise ValueError("while cleaning up") from None
            if how == "cleans up":
                await asyncio.sleep(0.5)
            if how != "stays":
                raise
            await stays()
        return "never"

    async def stays() -> None:
        for _ in range(5):
            try:
                await asyncio.sleep(100.0)
            except BaseException:
                teller.say("it will not go")

    @gate.tool("slow.put", effect="write", on_unknown="tell")
    async def put(how: str) -> str:
        return await read.unguarded(how)

    hows = ("waits", "answers", "fails", "cleans up", "stays")
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None  # what will not go complains once more when all is over
    try:
        seen: list[Any] = []
        calls = [[(f"slow.{kind}", {"how": how})] for kind in ("read", "put") for how in hows]
        await teller.run(gate, script(teller, *calls, seen=seen))
    finally:
        sys.unraisablehook = hook
    teller.expect("what answers is heard", [each.ok for each in seen], [False, True, False, False, False] * 2)


@story("the run's own time cuts a read, and no write")
async def deadline(teller: Teller) -> None:
    for kind in ("read", "put"):
        gate = teller.gate(**EASY | {"agent": {"budgets": {"max_seconds": 1.5}}})

        @gate.tool("slow.read", effect="read")
        async def read(n: int) -> str:
            try:
                await asyncio.sleep(1.9)
            except asyncio.CancelledError:
                if n == 2:
                    return "swallowed"
                raise
            return "in time"

        @gate.tool("slow.put", effect="write")
        async def put(n: int, *, idempotency_key: str) -> str:
            await asyncio.sleep(1.9)
            return "in time"

        seen: list[Any] = []
        agent = script(teller, [(f"slow.{kind}", {"n": 1})], [(f"slow.{kind}", {"n": 2})], seen=seen)
        result = await teller.run(gate, agent)
        teller.expect("ended", str(result.reason), "time_budget")
        teller.say("answered", [each.value for each in seen])
