"""Stories of what ends to the second: waits that nobody has set, what is kept, and answers that come too late."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from schedule_edge_stories import DOWN, LOST
from schedule_journal_stories import EASY, Desk
from schedule_lease_stories import TTL_S, leased
from schedule_lookup_stories import ALONE, Remote, hang
from schedule_taint_stories import make as mail_of
from schedule_telling import MODEL, USAGE, Teller, script, story

from interlock.journal.retention import DAY_S, Ages


@story("a look-up of which nothing is said")
async def nothing_said(teller: Teller) -> None:
    for after_s, closed in ((34.75, 0), (35.0, 1)):
        gate = teller.gate(**ALONE)
        remote = Remote(teller, gate)
        await teller.run(gate, script(teller, [remote.plan(1, ["lost before"], [DOWN, None])]), request_id="r")
        await asyncio.sleep(after_s)
        teller.expect(f"a no counts {after_s} s after", await gate.house().rounds.go(), closed)
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate)
    await teller.run(gate, script(teller, [remote.plan(1, ["lost"], [hang])]))
    began_s = teller.clock.monotonic()
    await asyncio.sleep(100.0)
    await gate.house().rounds.go()
    teller.expect("a question may take", teller.clock.monotonic() - began_s, 115.0)


@story("a look-up that does not say what it takes", threads=True)
async def no_signature(teller: Teller) -> None:
    gate = teller.gate(**ALONE)

    @gate.tool("dict.send", effect="write", output=dict, on_unknown="lookup", lookup=dict, settle_s=0.0)
    async def send(n: int, *, idempotency_key: str) -> Any:
        raise ConnectionResetError

    seen: list[Any] = []
    await teller.run(gate, script(teller, [("dict.send", {"n": 7})], seen=seen))
    teller.expect("found", seen[0].value, {"n": 7})


def slow(gate: Any, *steps: Any) -> tuple[list[str], threading.Event]:
    """Add a tool on a thread that returns or raises these; the last of them comes when it is let go."""
    tries: list[str] = []
    lets_go = threading.Event()

    @gate.tool("slow.put", effect="write", timeout_s=1.0, output=str)
    def put(what: str, *, idempotency_key: str) -> Any:
        tries.append(what)
        if len(tries) > len(steps):
            return what
        if len(tries) == len(steps):
            lets_go.wait(30.0)
        step = steps[len(tries) - 1]
        if isinstance(step, Exception):
            raise step
        return step

    return tries, lets_go


@story("what an answer is worth that comes too late", threads=True)
async def too_late(teller: Teller) -> None:
    tools = {**EASY["tools"], "retries": {"max_attempts": 2, "backoff_ms": [0]}, "circuit_breakers": {"enabled": False}}
    refused = ConnectionRefusedError("refused")
    for name, steps, states in (
        ("an answer", ("late",), ["done"]),
        ("no text", (["late"],), ["done"]),
        ("refused", (refused,), ["failed_clean"]),
        ("refused, after one was lost", (LOST, refused), ["in_doubt"]),
        ("refused, after one was refused", (refused, refused), ["failed_clean"]),
    ):
        words = {**tools, "retries": {"max_attempts": len(steps), "backoff_ms": [0]}}
        gate = teller.gate(**EASY | {"tools": words})
        store = gate.house().store
        tries, lets_go = slow(gate, *steps)
        teller.say("--", name)
        first = await teller.run(gate, script(teller, [("slow.put", {"what": "a"})]), request_id="r")
        lets_go.set()
        await asyncio.sleep(0.05)
        await store.flush()
        await teller.claims(gate, first.run_id)
        found = await store.claims_of(first.run_id)
        teller.expect("then it is", [str(claim.state) for claim in found], states)
        teller.expect("tried", len(tries), len(steps))


@story("what is kept is kept up to a second")
async def kept(teller: Teller) -> None:
    day = DAY_S
    for content, keys, ages in (
        (30 * day, 90 * day, Ages(30 * day, 90 * day, day)),
        (0.0, 90 * day, Ages(0.0, 90 * day, day)),
        (30 * day, 30 * day, Ages(30 * day, 30 * day, day)),
    ):
        gate = teller.gate(**EASY)
        Desk(teller, gate)
        store = gate.house().store
        await teller.run(gate, script(teller, [("keyed.put", {"what": "a"})]), request_id="r")
        before_s = 0.0
        for after_s in sorted({content - 1, content, keys - 1, keys}):
            teller.clock.jump_wall(after_s - before_s)
            before_s = after_s
            done = await store.retention.purge(ages, dry_run=True)
            teller.say(after_s, "would", str(done))
            teller.expect("goes", (done.content, done.requests), (int(content <= after_s < keys), int(after_s >= keys)))
        done = await store.retention.purge(ages)
        teller.say("did", str(done))


@story("turns that are not kept, when a worker has died")
async def turns_not_kept(teller: Teller) -> None:
    for write in (False, True):
        begun: list[int] = []
        first = leased(teller)
        second = leased(teller, beside=first)
        old, new = Desk(teller, first), Desk(teller, second)

        async def agent(run: Any, task: Any, write: bool = write, begun: list[int] = begun) -> str:
            begun.append(1)
            async with run.step(model=MODEL, max_output_tokens=20) as step:
                step.charge(USAGE)
            await teller.use(run, "keyed.put" if write else "near.read", what="a")
            await asyncio.sleep(60.0 if len(begun) == 1 else 1.0)
            return "done"

        working = asyncio.ensure_future(first.run(agent, request_id="r", agent_name="a"))
        await asyncio.sleep(TTL_S + 1.0)
        result = await teller.run(second, agent, request_id="r")
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        teller.expect("came to", str(result.reason), "abandoned" if write else "success")
        teller.expect("done", [*old.done, *new.done], ["a"] if write else [])
        teller.say("spent", round(result.cost_usd, 6))


@story("equal calls of a turn, when a worker has died")
async def equal_calls(teller: Teller) -> None:
    first = leased(teller)
    second = leased(teller, beside=first)
    for gate in (first, second):
        Desk(teller, gate)

    begun: list[int] = []

    async def agent(run: Any, task: Any) -> str:
        begun.append(1)
        for turn in range(3):
            async with run.child("c") as child:
                await run.model(ask_again, turn, model=MODEL, max_output_tokens=20)
                same = [("near.read", "x")] * 3 + [("near.read", f"{turn}")]
                await asyncio.gather(*(teller.use(run, tool, what=what) for tool, what in same))
                await teller.use(child, "near.read", what="x")
        await asyncio.sleep(60.0 if len(begun) == 1 else 1.0)
        await teller.use(run, "near.read", what="x")
        return "done"

    async def ask_again(*_: Any) -> Any:
        teller.say("the model is asked")
        return {"text": "go on", "usage": USAGE}

    working = asyncio.ensure_future(first.run(agent, request_id="r", agent_name="a"))
    await asyncio.sleep(TTL_S + 1.0)
    result = await teller.run(second, agent, request_id="r")
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    asked = sum("the model is asked" in line for line in teller.told.lines)
    teller.expect("it goes on", (str(result.reason), asked), ("success", 3))


@story("as much as is kept of what was read, and a letter more")
async def exactly_full(teller: Teller) -> None:
    gate, sent = mail_of(teller, {"then": "refuse", "arguments": ["to"]})
    lengths = [999_990] * 4 + [36, 1]  # and the four letters of `sent`, which is kept as well

    @gate.tool("web.much", effect="read")
    async def much(n: int) -> str:
        return "abcdef"[n] * lengths[n]

    async def agent(run: Any, task: Any) -> None:
        for n in range(len(lengths)):
            await run.observe("web.much", {"n": n})
            await run.observe("mail.send", {"to": f"nobody {n}"})

    await gate.run(agent)
    teller.expect("sent", sent, [f"nobody {n}" for n in range(len(lengths) - 1)])


@story("a key is as old as its first send, whoever sends it again")
async def first_send(teller: Teller) -> None:
    tools = {**EASY["tools"], "dedupe_window_s": 60, "retries": {"max_attempts": 3, "backoff_ms": [0]}}
    for after_s, each_s, sends in ((49.0, 5.5, 6), (50.0, 10.0, 5), (51.0, 5.5, 5)):
        gate = teller.gate(**EASY | {"tools": tools})

        async def slowly(each_s: float = each_s) -> None:
            await asyncio.sleep(each_s)
            raise ConnectionResetError("lost")

        Desk(teller, gate, [LOST] * 3 + [slowly] * 3)
        before = len(teller.told.lines)
        call = [("keyed.put", {"what": "a"})]
        await teller.run(gate, script(teller, call), request_id="r")
        await asyncio.sleep(after_s)
        await teller.run(gate, script(teller, call), request_id="r", retry=True)
        sent = sum("remote: a" in line for line in teller.told.lines[before:])
        teller.expect(f"sent, from {after_s} s on every {each_s} s", sent, sends)


@story("closing while a remote is asked")
async def closing_while_asked(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, settle_s=0.0, timeout_s=50.0)
    calls = [remote.plan(1, ["lost"], [hang])]
    running = asyncio.ensure_future(gate.run(script(teller, calls), request_id="r"))
    await asyncio.sleep(5.0)
    teller.say("left", await gate.house().inflight.aclose(1.0))
    await asyncio.gather(running, return_exceptions=True)
    store = gate.house().store
    await store.flush()
    (doubt,) = await store.doubts()
    await teller.claims(gate, doubt.run_id)
    teller.expect("its last word", doubt.evidence[-1].get("kind"), "cancelled")
