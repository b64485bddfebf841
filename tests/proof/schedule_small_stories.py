"""Small stories: each of one line of a guard that none of the others comes to."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from dataclasses import replace
from typing import Any

from schedule_journal_stories import EASY, Desk, settle_all
from schedule_limit_stories import AGENT, LOST, make, paced
from schedule_lookup_stories import ALONE, SEND, Remote
from schedule_policy_stories import each
from schedule_policy_stories import make as tools_of
from schedule_telling import MODEL, Teller, ask, script, story

from interlock.core.canonical import canonical_json
from interlock.core.errors import ConfigError
from interlock.journal.store import ClaimState, Settlement


@story("a breaker opens while others wait for their turn")
async def opens_meanwhile(teller: Teller) -> None:
    breaker = {"circuit_breakers": {"failure_threshold": 2, "window_seconds": 30}}
    for limit in ({"concurrency": 1}, {"rate_per_s": 1, "burst": 1}, {"concurrency": 1, "rate_per_s": 1, "burst": 2}):
        gate, tried = make(teller, [1.0], timeouts_s={"default": 0.5}, limits={"a.*": limit}, **breaker)
        plan = [1.0] * 5
        gate, tried = make(teller, plan, timeouts_s={"default": 0.5}, limits={"a.*": limit}, **breaker)
        await gate.run(paced(teller, ("a.read",) * 4, 31, ("a.read",) * 3))
        teller.say(str(limit), tried, gate.house().admission.status())


@story("a later attempt ends otherwise")
async def later_attempts(teller: Teller) -> None:
    tools: dict[str, Any] = {"retries": {"max_attempts": 3, "backoff_ms": [0]}}
    gate, tried = make(teller, [LOST, None], **tools)
    await teller.run(gate, paced(teller, "a.valid"))
    gate, tried = make(teller, [LOST, 50.0], timeouts_s={"default": 90}, **tools)
    running = asyncio.ensure_future(gate.run(paced(teller, "a.put"), request_id="r"))
    await asyncio.sleep(5.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await asyncio.sleep(60.0)
    (row,) = await gate.house().store.runs()
    await teller.recorded(gate, row.run_id)
    teller.say("tried", tried)


@story("a thread that was never free", threads=True)
async def never_free(teller: Teller) -> None:
    gate = teller.gate(
        agent=AGENT, tools={"allow": ["*"], "timeouts_s": {"b.*": 1, "default": 3}, "retries": {"max_attempts": 1}}
    )
    gate.house().perform._pool._max_threads = 1
    letting_go = threading.Event()

    @gate.tool("a.read", effect="read")
    def hangs(n: int) -> int:
        letting_go.wait(30.0)
        return n

    @gate.tool("b.put", effect="write", on_unknown="tell")
    def waits(n: int) -> int:
        return n

    async def agent(run: Any, task: Any) -> None:
        hanging = asyncio.ensure_future(teller.use(run, "a.read", n=1))
        await asyncio.sleep(0.5)
        await teller.use(run, "b.put", n=2)
        await hanging
        letting_go.set()
        await asyncio.sleep(0.01)
        await teller.use(run, "b.put", n=2)

    await teller.run(gate, agent)
    lines = [line for line in teller.told.lines if "claim b.put" in line]
    teller.expect("the write, which was never entered, may be made again", "done by tool" in lines[0], True)


@story("results are durable soon after")
async def deferred(teller: Teller) -> None:
    gate = teller.gate(results="deferred", **EASY)
    desk = Desk(teller, gate, [None, LOST])
    await teller.run(gate, script(teller, *([("bare.post", {"what": what})] for what in "aab")), request_id="r")
    teller.expect("done", desk.done, ["a", "b"])


@story("two equal writes wait side by side")
async def side_by_side(teller: Teller) -> None:
    async def yes(call: Any) -> bool:
        await asyncio.sleep(2.0)
        return True

    gate = teller.gate(**EASY)
    done: list[int] = []

    @gate.tool("asked.put", effect="write", approval=yes)
    async def put(n: int, *, idempotency_key: str) -> int:
        done.append(n)
        await asyncio.sleep(3.0)
        return n

    await teller.run(gate, script(teller, [("asked.put", {"n": 1})] * 3 + [("asked.put", {"n": 2})]))
    teller.expect("each once", done, [1, 2])


@story("the second send is what a no is counted from")
async def second_send(teller: Teller) -> None:
    config = {**ALONE["tools"], "dedupe_window_s": 5, "retries": {"max_attempts": 2, "backoff_ms": [0]}}
    gate = teller.gate(**ALONE | {"tools": config})
    remote = Remote(teller, gate, on_unknown="resend", settle_s=20.0, timeout_s=8.0)

    async def slow_and_lost() -> None:
        await asyncio.sleep(7.0)

    remote.sends[1], remote.says[1] = ["lost before", "slow"], [None]
    await teller.run(gate, script(teller, [(SEND, {"n": 1})]))
    teller.say("sent", remote.sent)


@story("others have been quicker at the store")
async def quicker(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    store = gate.house().store
    desk = Desk(teller, gate)
    claim = store.claim

    async def done_before(intent: Any) -> Any:
        if await claim(intent) is None:
            await store.settle(intent.key, Settlement(ClaimState.DONE, b'{"what":"before"}', by="ada"))
        return await claim(intent)

    async def keeps_changing(intent: Any) -> Any:
        await claim(intent)
        return replace(await store.find(intent.key), state=ClaimState.FAILED_CLEAN)

    for other in (done_before, keeps_changing):
        store.claim = other
        await teller.run(gate, script(teller, *([(tool, {"what": "x"})] for tool in ("bare.post", "keyed.put"))))
    teller.expect("sent", desk.done, [])
    gate = teller.gate(**ALONE)
    store = gate.house().store
    remote = Remote(teller, gate, settle_s=0.0)
    find = store.find

    async def settled_before(key: bytes) -> Any:
        await settle_all(store, ClaimState.DONE, b'{"n":9}')
        return await find(key)

    store.find = settled_before
    await teller.run(gate, script(teller, [remote.plan(1, ["lost"], [None])]))


@story("planned afresh, where nothing is refused")
async def observed_afresh(teller: Teller) -> None:
    gate = teller.gate(mode="observe", **EASY)
    desk = Desk(teller, gate)
    for _ in range(3):
        calls = [[("bare.post", {"what": "a"})], [("keyed.put", {"what": "a"})]]
        await teller.run(gate, script(teller, *calls), request_id="r", retry=True)
    teller.expect("done as often as planned", len(desk.done), 6)


@story("a call is given up before it has left")
async def given_up(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    store = gate.house().store
    desk = Desk(teller, gate)
    claim = store.claim

    async def slow_claim(intent: Any) -> Any:
        await asyncio.sleep(3.0)
        return await claim(intent)

    store.claim = slow_claim

    async def agent(run: Any, task: Any) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(run.call("bare.post", {"what": "a"}), 1.0)
        await asyncio.sleep(10.0)
        store.claim = claim
        await teller.use(run, "bare.post", what="a")

    await teller.run(gate, agent)
    teller.expect("done", desk.done, ["a"])


@story("a doubt of a tool that has changed since")
async def changed_tool(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, settle_s=0.0)
    down = ConnectionError("down")
    await teller.run(gate, script(teller, [remote.plan(1, ["lost"], [down, "yes"])]))
    for parameter in ({"title": str}, {"n": str}):
        other = teller.gate(beside=gate, **ALONE)

        async def found(**words: Any) -> Any:
            teller.say("asked again")
            return {"n": 1}

        async def send(**words: Any) -> Any: ...

        send.__annotations__ = {**parameter}
        schema = {
            "type": "object",
            "properties": {name: {"type": "string"} for name in parameter},
            "required": list(parameter),
            "additionalProperties": False,
        }
        other.tool(SEND, effect="write", on_unknown="lookup", lookup=found, input=schema, settle_s=0.0)(send)
        teller.expect("closed", await other.house().rounds.go(), 0)
    (doubt,) = await gate.house().store.doubts()
    await teller.claims(gate, doubt.run_id)


@story("keys are not enough for a plain look-up", threads=True)
async def plain_lookup(teller: Teller) -> None:
    gate = teller.gate(**ALONE, replay="off")
    remote = Remote(teller, gate, sync=True, settle_s=0.0)
    result = await teller.run(gate, script(teller, [remote.plan(1, ["lost"], [KeyError("down"), {"n": 1}])]))
    teller.expect("closed", await gate.house().rounds.go(), 0)
    await teller.claims(gate, result.run_id)


async def costs(usd: float) -> dict[str, Any]:
    """A model turn that did not say before what it may cost."""
    return {"text": "go on", "usage": {"cost_usd": usd}}


@story("calls before the first turn, when a run goes on")
async def before_turns(teller: Teller) -> None:
    def plan(*first: str) -> Any:
        async def agent(run: Any, task: Any) -> str:
            for what in first:
                await teller.use(run, "near.read", what=what)
            await run.model(costs, 0.3)
            await teller.use(run, "bare.post", what="lost")
            for _ in range(2):
                await run.model(costs, 0.1)
                teller.say("a further turn")
            return "done"

        return agent

    for first, second in ((["a", "b"], ["a", "b"]), (["a"], ["a", "b"]), (["a", "b"], ["b"]), (["a", "b"], ["b", "a"])):
        for most_usd in (1.0, 0.55):
            gate = teller.gate(agent={"budgets": {"max_seconds": 3600, "max_usd": most_usd}}, tools=EASY["tools"])
            desk = Desk(teller, gate, [ConnectionResetError("lost")])
            teller.say("--", first, second, most_usd)
            await gate.run(plan(*first), request_id="r")
            await settle_all(gate.house().store, ClaimState.DONE, b'{"what":"settled"}')
            result = await teller.run(gate, plan(*second), request_id="r")
            teller.expect("sent once", desk.done, ["lost"])
            if first == second:
                teller.expect(
                    "a dear turn is reserved for again",
                    result.reason.value,
                    "success" if most_usd == 1 else "cost_budget",
                )


@story("answers that change, and then do not")
async def changing(teller: Teller) -> None:
    for outputs in ("xyyyyy", "xxyyyyy", "xyxyxyxy", "xxxyxxx", "xyzzzz"):
        gate = teller.gate(agent=AGENT, tools={"allow": ["*"]})
        left = list(outputs)

        @gate.tool("poll.read", effect="read")
        async def poll(n: int, left: list[str] = left) -> str:
            return left.pop(0)

        seen: list[Any] = []
        result = await gate.run(script(teller, *[[("poll.read", {"n": 1})]] * len(outputs), seen=seen, said=False))
        teller.say(outputs, str(result.reason), [each.status for each in seen], "".join(outputs[: -len(left) or None]))


@story("no dollars are left for the last turn")
async def nothing_left(teller: Teller) -> None:
    for mode in ("enforce", "observe"):
        for usd in (0.003, 0.005):
            gate = teller.gate(
                mode=mode, agent={**AGENT, "budgets": {"max_usd": 0.01, "max_tool_calls": 1}, "on_stop": "wrap_up"}
            )

            @gate.tool("a.read", effect="read")
            async def read(n: int) -> int:
                return n

            async def agent(run: Any, task: Any, usd: float = usd) -> None:
                for n in range(5):
                    async with run.step() as step:
                        teller.say("turn", str(step.number), str(step.wrap_up))
                        step.charge({"cost_usd": usd})
                    await teller.use(run, "a.read", n=n)

            result = await teller.run(gate, agent)
            teller.say(mode, round(result.cost_usd, 6))


@story("a place among a tenant's runs comes too late")
async def no_place(teller: Teller) -> None:
    tenants = {"t": {"budgets": {"max_concurrent_runs": 1, "max_usd_per_day": 0.01}}}
    gate = teller.gate(agent=AGENT, tenants=tenants)

    async def slow(run: Any, task: Any) -> str:
        async with run.step(model=MODEL, max_output_tokens=100) as step:
            step.charge({"input_tokens": 10, "output_tokens": 20 * task})
        await asyncio.sleep(2.0)
        return "done"

    words = {"tenant_id": "t", "budgets": {"max_seconds": 3}}
    ended = await asyncio.gather(*(teller.run(gate, slow, n, **words) for n in range(4)))
    teller.expect("in time", sum(result.ok for result in ended), 1)
    for n in (5, 10, 20):
        await teller.run(gate, slow, n, tenant_id="t")


@story("an approval that is none")
async def no_approver(teller: Teller) -> None:
    try:
        gate, done = tools_of(teller, {"a.put": "write"}, {"tools": {"allow": ["*"]}}, approval="sometimes")
        await teller.run(gate, script(teller, *each("a.put")))
        teller.say("done", done)
    except ConfigError as error:
        teller.say(str(error))


@story("what is checked, and let through all the same")
async def let_through(teller: Teller) -> None:
    rules = {"mail.put": {"then": "refuse", "arguments": ["text"]}}
    gate = teller.gate(
        agent=AGENT,
        tools={"allow": ["*"], "untrusted_output": ["web.*"], "when_tainted": rules},
        validation={"output": {"fail_closed": False}},
    )
    sent: list[str] = []

    @gate.tool("web.read", effect="read", output=dict)
    async def web(n: int) -> Any:
        return [object(), "mallory@evil.example", {"bob@evil.example"}, "carol@evil.example"][n]

    @gate.tool("mail.put", effect="write")
    async def mail(text: str, *, idempotency_key: str) -> str:
        sent.append(text)
        return "sent"

    texts = ("mallory@evil.example", "bob@evil.example", "ann@ours.example")
    calls = [[("web.read", {"n": n})] for n in (1, 2)] + [[("mail.put", {"text": text})] for text in texts]
    await teller.run(gate, script(teller, *calls))
    teller.expect("sent", sent, ["ann@ours.example"])
    teller.say(canonical_json(sent).decode(), str(ask.__name__))


@story("slots without a breaker")
async def only_slots(teller: Teller) -> None:
    off = {"circuit_breakers": {"enabled": False}}
    for limit in ({"concurrency": 1}, {"rate_per_s": 1, "burst": 1}):
        gate, tried = make(teller, [1.0, LOST, LOST, LOST], limits={"a.*": limit}, **off)
        await gate.run(paced(teller, ("a.read",) * 4, "a.read"))
        teller.expect("one at a time", tried[1] - tried[0], 1.0)
        teller.say(str(limit), tried, gate.house().admission.status())


@story("nobody asks for what a look-up raises too late")
async def late_lookup(teller: Teller) -> None:
    told: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, what: told.append(str(what["message"])))

    async def swallows() -> None:
        try:
            await asyncio.sleep(10_000.0)
        except asyncio.CancelledError:
            raise ValueError("too late to say") from None

    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, timeout_s=5.0)
    await teller.run(gate, script(teller, [remote.plan(1, ["lost"], [swallows])]))
    await asyncio.sleep(10.0)
    gc.collect()
    teller.expect("the loop complains of nothing", told, [])


@story("a worker has more runs of a tenant than the store knows of")
async def crowded_tenant(teller: Teller) -> None:
    tenants = {name: {"budgets": {"max_concurrent_runs": 2}} for name in ("t", "u")}
    gate = teller.gate(agent=AGENT, tenants=tenants)
    caretaker = gate.house().supervisor.caretaker
    for busy in ({}, {"t": 1}, {"t": 2}, {"t": 3, "u": 1}, {"v": 9}):
        teller.say("busy", busy, "full", await caretaker.full_tenants(busy))
    teller.expect("full", await caretaker.full_tenants({"t": 2, "u": 1}), ["t"])
    teller.expect("without caps", await teller.gate().house().supervisor.caretaker.full_tenants({"t": 9}), [])
