"""Stories at the very edge of a window, a wait or a cap, and of writes that meet others on their way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from dataclasses import replace
from typing import Any

from schedule_journal_stories import EASY, Desk
from schedule_lookup_stories import ALONE, Remote
from schedule_telling import Teller, script, story

from interlock.journal.store import ClaimState

LOST = ConnectionResetError("lost")
DOWN = ConnectionError("down")


@story("the last second of a remote's memory")
async def last_second(teller: Teller) -> None:
    for after_s, sends in ((60.0, 3), (60.25, 2)):
        gate = teller.gate(**EASY | {"tools": {**EASY["tools"], "dedupe_window_s": 60}})
        desk = Desk(teller, gate, [LOST, LOST])
        call = [("keyed.put", {"what": "a"})]
        await teller.run(gate, script(teller, call), request_id="r")
        await asyncio.sleep(after_s)
        await teller.run(gate, script(teller, call), request_id="r", retry=True)
        teller.expect(f"sent, {after_s} s after", len(desk.done), sends)


@story("a no counts from one second on")
async def counts(teller: Teller) -> None:
    for after_s, closed in ((9.75, 0), (10.0, 1)):
        gate = teller.gate(**ALONE)
        remote = Remote(teller, gate, settle_s=10.0)
        await teller.run(gate, script(teller, [remote.plan(1, ["lost before"], [DOWN, None])]), request_id="r")
        await asyncio.sleep(after_s)
        teller.expect(f"closed by a round, {after_s} s after", await gate.house().rounds.go(), closed)
    for after_s in (0.0, 3.75, 4.0):
        gate = teller.gate(**ALONE)
        remote = Remote(teller, gate, settle_s=4.0)
        call = [remote.plan(1, ["lost before", "sent"], [DOWN, None])]
        await teller.run(gate, script(teller, call), request_id="r")
        await asyncio.sleep(after_s)
        await teller.run(gate, script(teller, call), request_id="r", retry=True)
        teller.expect("sent after all", remote.sent, [1])


@story("how often a remote is asked about a doubt")
async def how_often(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, settle_s=0.0)
    await teller.run(gate, script(teller, [remote.plan(1, ["lost"], [DOWN])]))
    asked, lines = [], 0
    for second in range(1_300):
        await gate.house().rounds.go()
        if len(teller.told.lines) > lines + (not asked):
            asked.append(second)
        lines = len(teller.told.lines)
        await asyncio.sleep(1.0)
    teller.expect("asked at", asked[1:], [5, 15, 35, 75, 155, 315, 615, 915, 1215])


@story("a remote hears no more than some questions at a time")
async def at_a_time(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, settle_s=0.0, timeout_s=50.0)

    async def slowly() -> str:
        await asyncio.sleep(2.0)
        return "yes"

    calls = [remote.plan(n, ["lost"], [DOWN, slowly]) for n in range(10)]
    await teller.run(gate, script(teller, *([call] for call in calls), said=False))
    begins = len(teller.told.lines)
    teller.expect("closed", await gate.house().rounds.go(), 10)
    asked = [line.split(" s:")[0] for line in teller.told.lines[begins:] if "looked up" in line]
    teller.expect("at a time", [asked.count(second) for second in ("0", "2")], [8, 2])


@story("two questions that hang keep a remote from a third")
async def third_question(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, settle_s=0.0, timeout_s=5.0)

    async def stays() -> None:
        for _ in range(4):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(40.0)

    for n in range(4):
        says = [DOWN, DOWN] if n == 0 else [DOWN, stays, "yes"]
        await teller.run(gate, script(teller, [remote.plan(n, ["lost"], says)]))
        teller.say("closed", await gate.house().rounds.go())
    asked = [line.split("looked up: ")[1] for line in teller.told.lines if "stays" in line]
    teller.expect("asked, and hanging", asked, ["1 stays", "2 stays"])
    await asyncio.sleep(1_000.0)
    remote.says[0] = ["yes"]
    teller.expect("asked again when they have ended", await gate.house().rounds.go(), 3)


@story("a round meets a question that the run itself asks")
async def asked_twice(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, settle_s=0.0, timeout_s=50.0)

    async def slowly() -> str:
        await asyncio.sleep(20.0)
        return "yes"

    async def agent(run: Any, task: Any) -> None:
        sending = asyncio.ensure_future(teller.use(run, *[remote.plan(1, ["lost"], [slowly])[0]], n=1))
        await asyncio.sleep(5.0)
        teller.expect("doubts", len(await gate.house().store.doubts()), 1)
        teller.expect("closed meanwhile", await gate.house().rounds.go(), 0)
        await sending

    await teller.run(gate, agent)
    teller.expect("asked once", sum("looked up" in line for line in teller.told.lines), 1)


@story("nothing is kept of questions that were answered")
async def questions_kept(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, settle_s=0.0)

    async def fails() -> None:
        raise ConnectionError("down")

    plans = [(["lost"], [said]) for said in ("yes", fails, {"n": 2})]
    await gate.run(script(teller, *([remote.plan(n, *plan)] for n, plan in enumerate(plans))))
    await asyncio.sleep(1.0)
    gc.collect()
    here = asyncio.get_running_loop()
    tasks = [each for each in gc.get_objects() if isinstance(each, asyncio.Task) and each.get_loop() is here]
    left = sum(each.done() and "_answer" in repr(each.get_coro()) for each in tasks)
    teller.expect("left of them", left, 0)


@story("what a look-up is told, that takes whatever there is")
async def takes_all(teller: Teller) -> None:
    async def more(n: int, **others: Any) -> Any:
        teller.say("asked with", n, others)
        return {"n": n}

    async def key(*others: Any, idempotency_key: str, **words: Any) -> Any:
        teller.say("asked with", list(others), len(idempotency_key), sorted(words))
        return {"n": 0}

    async def some(n: int) -> Any:
        teller.say("asked with", n)
        return {"n": n}

    for lookup in (more, key, some):
        gate = teller.gate(**ALONE)

        @gate.tool("two.send", effect="write", output=dict, on_unknown="lookup", lookup=lookup, settle_s=0.0)
        async def send(n: int, m: int = 2, *, idempotency_key: str) -> Any:
            raise ConnectionResetError

        result = await teller.run(gate, script(teller, [("two.send", {"n": 7, "m": 8})]))
        teller.expect("found", str(result.reason), "success")
    told = [line.split("asked with ")[1] for line in teller.told.lines if "asked with" in line]
    teller.expect("told", told, ['7 {"m": 8}', '[] 56 ["m", "n"]', "7"])


@story("a write whose doubt cannot be written down")
async def unwritten(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    store = gate.house().store
    Desk(teller, gate, [LOST] * 3)

    async def agent(run: Any, task: Any) -> None:
        for tool in ("told.post", "bare.post"):
            store.away = {"settle"}
            await teller.use(run, tool, what="a")
            store.away = set()

    await teller.run(gate, agent)


@story("a doubt of others stands where a cancelled write would have claimed")
async def cut_while_claiming(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    store = gate.house().store
    desk = Desk(teller, gate, [LOST, LOST])
    call = [("named.put", {"order": "7"})]
    first = await teller.run(gate, script(teller, call), request_id="r")

    async def unseen(key: bytes) -> None:
        return None

    async def slowly(intent: Any) -> Any:
        await asyncio.sleep(50.0)

    find, store.find, store.claim = store.find, unseen, slowly
    running = asyncio.ensure_future(gate.run(script(teller, call), request_id="r", retry=True))
    await asyncio.sleep(5.0)
    teller.say("left", await gate.house().inflight.aclose(1.0))
    await asyncio.gather(running, return_exceptions=True)
    store.find = find
    await store.flush()
    await teller.claims(gate, first.run_id)
    (doubt,) = await store.doubts()
    teller.expect("nobody has closed it", (str(doubt.state), doubt.settled_by != "shutdown"), ("in_doubt", True))
    teller.say("sent", desk.done)


@story("how often a claim may change before it is no race any more")
async def races(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    store = gate.house().store
    Desk(teller, gate)
    claim, tries = store.claim, []

    async def keeps_changing(intent: Any) -> Any:
        tries.append(intent.tool)
        await claim(intent)
        return replace(await store.find(intent.key), state=ClaimState.FAILED_CLEAN)

    store.claim = keeps_changing
    await teller.run(gate, script(teller, [("keyed.put", {"what": "a"})]))
    teller.expect("claimed", len(tries), 5)


@story("nobody asks what became of a write that was given up")
async def given_up(teller: Teller) -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(str(what["message"])))
    gate = teller.gate(**EASY)

    async def late() -> None:
        await asyncio.sleep(5.0)
        raise ConnectionResetError("lost")

    Desk(teller, gate, [late, late])

    async def agent(run: Any, task: Any) -> None:
        for tool in ("bare.post", "told.post"):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(run.call(tool, {"what": tool}), 1.0)
        await asyncio.sleep(20.0)

    await gate.run(agent)
    gc.collect()
    teller.expect("the loop complains of nothing", told, [])


@story("an answer that comes after its timeout, or after the closing", threads=True)
async def late_answers(teller: Teller) -> None:
    tools = {**EASY["tools"], "retries": {"max_attempts": 1}, "circuit_breakers": {"enabled": False}}
    for closing in (False, True):
        gate = teller.gate(**EASY | {"tools": tools})
        store = gate.house().store
        tries, lets_go = _slow(gate, KeyError("late") if not closing else None)
        call = [("slow.put", {"what": "a"})]
        first = await teller.run(gate, script(teller, call), request_id="r")
        teller.expect("tried", tries, ["a"])
        if closing:
            teller.say("left", await gate.house().inflight.aclose(1.0))
        else:
            await teller.run(gate, script(teller, call), request_id="r", retry=True)
            teller.expect("nothing is sent while it may still come", tries, ["a"])
        lets_go.set()
        await asyncio.sleep(0.05)
        await store.flush()
        await teller.claims(gate, first.run_id)
        if not closing:
            await teller.run(gate, script(teller, call), request_id="r", retry=True)
            teller.expect("then it is", tries, ["a", "a"])


def _slow(gate: Any, error: Exception | None) -> tuple[list[str], threading.Event]:
    """Add a tool on a thread, which is slow the first time; return what it is called with, and what lets it go on."""
    tries: list[str] = []
    lets_go = threading.Event()

    @gate.tool("slow.put", effect="write", timeout_s=1.0)
    def put(what: str, *, idempotency_key: str) -> str:
        tries.append(what)
        if len(tries) == 1:
            lets_go.wait(30.0)
            if error is not None:
                raise error
        return what

    return tries, lets_go
