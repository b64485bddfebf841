"""Stories of one effect per intent: take-over, retry afresh, shutdown, settling by hand, replay, purging."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from schedule_telling import MODEL, Teller, ask, script, story

from interlock.core.calls import Answer
from interlock.core.errors import AlreadyRunning, InterlockError
from interlock.journal.store import ClaimState, Settlement
from interlock.policy.switches import SwitchKind, SwitchScope

EASY = {
    "agent": {"budgets": {"max_seconds": 3600}, "max_refusals": None, "stop_on": ["cost_budget"]},
    "tools": {"allow": ["*"], "timeouts_s": {"default": 300}, "retries": {"max_attempts": 2, "backoff_ms": [0]}},
}


class Desk:
    """Writes of every class, whose remote does as `plan` says: a delay in seconds, an error, an async function."""

    def __init__(self, teller: Teller, gate: Any, plan: list[Any] | None = None) -> None:
        self.gate = gate
        self.done: list[str] = []
        self.plan = [] if plan is None else plan

        async def happen(what: str, key: str = "") -> dict[str, str]:
            teller.say("remote:", what)
            step = self.plan.pop(0) if self.plan else None
            if callable(step):
                step = await step()
            if isinstance(step, int | float):
                await asyncio.sleep(step)
            if not isinstance(step, ConnectionRefusedError):
                self.done.append(what)
            if isinstance(step, BaseException):
                raise step
            return {"what": what}

        @gate.tool("keyed.put", effect="write", output=dict)
        async def put(what: str, *, idempotency_key: str) -> Any:
            return await happen(what, idempotency_key)

        @gate.tool("bare.post", effect="write", on_unknown="stop", allow=True)
        async def post(what: str) -> Any:
            return await happen(what)

        @gate.tool("told.post", effect="write", on_unknown="tell")
        async def tell(what: str) -> Any:
            return await happen(what)

        @gate.tool("named.put", effect="write", identity=("order",))
        async def named(order: str, note: str | None = None, *, idempotency_key: str) -> Any:
            return await happen(f"{order}, {note}")

        @gate.tool("flip.put", effect="write", repeat="allow")
        async def flip(what: str, *, idempotency_key: str) -> Any:
            return await happen(what)

        @gate.tool("any.put", effect="write", identity=("order",))
        async def anything(*, idempotency_key: str, **more: Any) -> Any:
            return await happen(str(more.get("order")))

        @gate.tool("near.read", effect="read")
        async def read(what: str) -> str:
            return f"read {what}"


async def settle_all(store: Any, state: ClaimState, result: bytes | None = None, **words: Any) -> None:
    for row in await store.runs():
        for claim in await store.claims_of(row.run_id):
            if claim.state in {ClaimState.INTENT, ClaimState.IN_DOUBT}:
                await store.settle(claim.key, Settlement(state, result, by="ada", reason="looked", **words))


@story("a worker is taken over while its write is out")
async def taken_over(teller: Teller) -> None:
    for tool in ("keyed.put", "bare.post", "told.post"):
        for mode in ("enforce", "observe"):
            teller.say(f"-- {tool}, {mode}")
            first = teller.gate(mode=mode, **EASY)
            second = teller.gate(mode=mode, beside=first, **EASY)
            old, new = Desk(teller, first, [20.0]), Desk(teller, second)

            async def agent(run: Any, task: Any, tool: str = tool) -> str:
                await run.model(ask, "go on", model=MODEL, max_output_tokens=20)
                await teller.use(run, tool, what="a")
                await teller.use(run, "near.read", what="b")
                await teller.use(run, "keyed.put", what="c")
                return "done"

            working = asyncio.ensure_future(first.run(agent, request_id="r", agent_name="a", wait_s=5.0))
            await asyncio.sleep(5.0)
            store = first.house().store
            (row,) = await store.runs()
            teller.expect("handed back", await store.leases.hand_back(row.run_id, row.fence, 5.0), True)
            result = await teller.run(second, agent, request_id="r")
            outcome = await asyncio.gather(working, return_exceptions=True)
            teller.say("the old worker", *(str(getattr(each, "reason", repr(each))) for each in outcome))
            await teller.recorded(second, result.run_id)
            if tool != "keyed.put" and mode == "enforce":
                teller.expect("sent once", [*old.done, *new.done].count("a"), 1)


@story("a worker is taken over between two writes")
async def fenced(teller: Teller) -> None:
    first = teller.gate(**EASY)
    second = teller.gate(beside=first, **EASY)
    old, new = Desk(teller, first), Desk(teller, second)

    async def agent(run: Any, task: Any) -> str:
        for what in "abc":
            await run.model(ask, "go on", model=MODEL, max_output_tokens=20)
            await teller.use(run, "bare.post", what=what)
            await asyncio.sleep(10.0)
        return "done"

    working = asyncio.ensure_future(first.run(agent, request_id="r", agent_name="a", wait_s=0.0))
    await asyncio.sleep(15.0)
    store = first.house().store
    (row,) = await store.runs()
    await store.leases.hand_back(row.run_id, row.fence, 15.0)
    result = await teller.run(second, agent, request_id="r")
    with contextlib.suppress(AlreadyRunning):
        teller.say("the old worker", str((await working).reason))
    teller.expect("each once", (str(result.reason), sorted([*old.done, *new.done])), ("success", ["a", "b", "c"]))


@story("a request is planned afresh")
async def afresh(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    desk = Desk(teller, gate, [None, None, ConnectionRefusedError(), ConnectionRefusedError()])
    first = [("keyed.put", {"what": "a"})], [("named.put", {"order": "7", "note": "x"})], [("bare.post", {"what": "p"})]
    await teller.run(gate, script(teller, *first), request_id="r")
    second = [
        ("keyed.put", {"what": "other words"}),
        ("keyed.put", {"what": "a"}),
        ("named.put", {"order": "7", "note": "in other words"}),
        ("named.put", {"order": "8"}),
        ("bare.post", {"what": "in other words"}),
        ("flip.put", {"what": "a"}),
    ]
    seen: list[Any] = []
    await teller.run(gate, script(teller, *([call] for call in second), seen=seen), request_id="r", retry=True)
    refused = [each.error.details["policy"] for each in seen if str(each.reason) == "tool_denied"]
    teller.expect("refused", (refused, seen[0].ok), (["reworded_retry"], False))
    teller.expect("done", desk.done, ["a", "7, x", "8, None", "in other words", "a"])


@story("somebody settles a write that is under way")
async def settled_under_way(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    store = gate.house().store

    def settles(state: ClaimState, error: Exception, result: bytes | None = None) -> Any:
        async def step() -> Any:
            await settle_all(store, state, result)
            return error

        return step

    lost, refused = ConnectionResetError("lost"), ConnectionRefusedError("refused")
    cases: dict[str, Any] = {
        "done, lost": settles(ClaimState.DONE, lost, b'{"what":"settled"}'),
        "not done, lost": settles(ClaimState.FAILED_CLEAN, lost),
        "done, refused": settles(ClaimState.DONE, refused, b'{"what":"settled"}'),
        "done, no result": settles(ClaimState.DONE, lost),
    }
    for tool in ("bare.post", "keyed.put"):
        desk = None
        for what, step in cases.items():
            gate = teller.gate(**EASY)
            store = gate.house().store
            desk = Desk(teller, gate, [step])
            await teller.run(gate, script(teller, [(tool, {"what": what})], [(tool, {"what": what})]))
            teller.expect(f"{tool} {what}: sent", len(desk.done) <= 2, True)


@story("a done write whose answer was not believed")
async def unverified(teller: Teller) -> None:
    gate = teller.gate(**EASY)

    @gate.tool("bad.put", effect="write", output=dict)
    async def bad(n: int, *, idempotency_key: str) -> Any:
        return ["not", "valid"]

    @gate.tool("nested.put", effect="write", on_unknown="tell")
    async def nested(n: int) -> Any:
        return await bad(n=n)

    @gate.tool("nested.keyed", effect="write")
    async def nested_keyed(n: int, *, idempotency_key: str) -> Any:
        return await bad(n=n + 1)

    @gate.tool("odd.put", effect="write")
    async def odd(n: int, *, idempotency_key: str) -> Any:
        return {1, 2}

    calls = [("bad.put", {"n": 1})], [("bad.put", {"n": 1})], [("nested.put", {"n": 5})], [("nested.keyed", {"n": 8})]
    seen: list[Any] = []
    agent = script(teller, *calls, [("odd.put", {"n": 1})], [("odd.put", {"n": 1})], seen=seen)
    await teller.run(gate, agent)
    teller.expect("withheld twice", [str(each.reason) for each in seen[:2]], ["tool_output_invalid"] * 2)


@story("what a framework performs itself")
async def performed_elsewhere(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    Desk(teller, gate)

    async def agent(run: Any, task: Any) -> str:
        async def leaves(call: Any) -> Answer:
            raise asyncio.CancelledError

        async def answers(call: Any) -> Answer:
            return Answer({"what": "elsewhere"})

        for tool in ("told.post", "keyed.put", "near.read"):
            for what, perform in (("leaves", leaves), ("answers", answers)):
                try:
                    answer = await run.through(tool, {"what": f"{tool} {what}"}, perform)
                    teller.say(tool, what, answer.value, answer.status)
                except (InterlockError, asyncio.CancelledError) as error:
                    teller.say(tool, what, type(error).__name__, str(getattr(error, "reason", "")))
        return "done"

    await teller.run(gate, agent)


@story("closing while writes are out")
async def shutdown(teller: Teller) -> None:
    gate = teller.gate(**EASY | {"tools": {**EASY["tools"], "retries": {"max_attempts": 3, "backoff_ms": [60_000]}}})
    store = gate.house().store
    desk = Desk(teller, gate)

    async def stubborn() -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(50.0)
            except asyncio.CancelledError:
                teller.say("it will not let go")

    steps: dict[str, Any] = {
        "quick": 0.5,
        "slow": 100.0,
        "between attempts": ConnectionRefusedError(),
        "stubborn": stubborn,
    }

    async def agent(run: Any, task: Any) -> None:
        tools = ("keyed.put", "bare.post")
        await asyncio.gather(*(run.observe(tool, {"what": what}) for what in steps for tool in tools))

    desk.plan = [step for step in steps.values() for _ in range(2)]
    running = asyncio.ensure_future(gate.run(agent, request_id="r"))
    await asyncio.sleep(0.1)
    inflight = gate.house().inflight
    teller.say("under way", len(inflight))
    teller.expect("left in doubt after the grace", await inflight.aclose(1.0), 6)
    (row,) = await store.runs()
    await store.flush()
    await teller.claims(gate, row.run_id)
    await asyncio.sleep(500.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await teller.claims(gate, row.run_id)


@story("a caller leaves before its write has left")
async def not_sent(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    store = gate.house().store
    desk = Desk(teller, gate)
    claim, entered = store.claim, asyncio.Event()

    async def slow_claim(*args: Any, **words: Any) -> Any:
        entered.set()
        await asyncio.sleep(3.0)
        return await claim(*args, **words)

    store.claim = slow_claim
    running = asyncio.ensure_future(gate.run(script(teller, [("bare.post", {"what": "a"})]), request_id="r"))
    await entered.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await asyncio.sleep(10.0)
    (row,) = await store.runs()
    await teller.claims(gate, row.run_id)
    teller.expect("nothing left", desk.done, [])


@story("the store is away while nothing may be refused")
async def store_away(teller: Teller) -> None:
    for mode in ("observe", "enforce"):
        gate = teller.gate(mode=mode, **EASY)
        store = gate.house().store
        desk = Desk(teller, gate, [None, ConnectionResetError("lost")])

        async def agent(run: Any, task: Any, store: Any = store) -> str:
            await run.model(ask, "go on", model=MODEL, max_output_tokens=20)
            store.away |= {"claim"}
            await teller.use(run, "bare.post", what="a")
            await teller.use(run, "told.post", what="b")
            store.away -= {"claim"}
            store.away |= {"settle"}
            await teller.use(run, "bare.post", what="c")
            store.away -= {"settle"}
            return "done"

        await teller.run(gate, agent)
        teller.expect("sent", len(desk.done), 3 if mode == "observe" else 1)


@story("a switch is set between the check and the claim")
async def killed_at_claim(teller: Teller) -> None:
    scopes = [
        (SwitchScope.GLOBAL, "", SwitchKind.KILL),
        (SwitchScope.GLOBAL, "", SwitchKind.SAFE_MODE),
        (SwitchScope.TOOL, "*.put", SwitchKind.KILL),
        (SwitchScope.TENANT, "default", SwitchKind.KILL),
        (SwitchScope.AGENT, "a", SwitchKind.KILL),
    ]
    for scope, subject, kind in scopes:
        gate = teller.gate(**EASY)
        sent: list[int] = []

        async def yes(call: Any, gate: Any = gate, words: Any = (scope, subject, kind)) -> bool:
            await gate.house().store.switches.set(*words, reason="now", actor="ada")
            return True

        @gate.tool("risky.put", effect="write", approval=yes)
        async def put(n: int, *, idempotency_key: str, sent: list[int] = sent) -> None:
            sent.append(n)

        await teller.run(gate, script(teller, [("risky.put", {"n": 1})]))
        teller.expect(f"{scope} {kind}: nothing was sent", sent, [])


@story("a grant that ran out while its call waited")
async def spent_approval(teller: Teller) -> None:
    config = {**EASY, "approvals": {"wait_s": 10, "expires_s": 3}}
    config["tools"] = {**EASY["tools"], "limits": {"risky.put": {"rate_per_s": 0.1, "burst": 1}}}
    gate = teller.gate(**config)
    sent: list[int] = []

    @gate.tool("risky.put", effect="write", approval="required")
    async def put(n: int, *, idempotency_key: str) -> None:
        sent.append(n)

    async def approve() -> None:
        store = gate.house().store
        while True:
            await asyncio.sleep(0.5)
            for row in await store.approvals.list():
                await store.approvals.decide(row.id, True, "ada")

    approving = asyncio.ensure_future(approve())
    seen: list[Any] = []
    await teller.run(gate, script(teller, [("risky.put", {"n": 1})], [("risky.put", {"n": 2})], seen=seen))
    approving.cancel()
    teller.expect("only the first", ([str(each.reason) for each in seen], sent), (["None", "approval_expired"], [1]))
