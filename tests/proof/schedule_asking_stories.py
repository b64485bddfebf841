"""Stories of who is asked before a write, and of what counts as a yes."""

from __future__ import annotations

import asyncio
from typing import Any

from schedule_policy_stories import AGENT, each, make
from schedule_telling import Teller, script, story

from interlock.policy.approval import ApprovalRequest


async def asked(teller: Teller, yes: int, *approvers: Any) -> None:
    for approver in approvers:
        for kind in ("write", "read"):
            config = {"tools": {"allow": ["*"]}, "approvals": {"wait_s": 5, "expires_s": 60}}
            gate, done = make(teller, {"a.do": kind}, config, approval=approver)
            teller.say("--", approver.__name__, kind)
            await teller.run(gate, script(teller, *each("a.do", "a.do")))
            teller.expect("done", len(done), yes)


@story("who is asked, and what counts as a yes")
async def approvers(teller: Teller) -> None:
    async def slowly(call: Any) -> bool:
        await asyncio.sleep(3.0)
        return True

    async def never(call: Any) -> bool:
        await asyncio.sleep(1_000.0)
        return True

    async def no(call: Any) -> bool:
        return False

    async def word(call: Any) -> Any:
        return "yes"

    async def fails(call: Any) -> bool:
        raise KeyError("x")

    async def leaves(call: Any) -> bool:
        raise asyncio.CancelledError

    await asked(teller, 2, slowly)
    await asked(teller, 0, never, no, word, fails, leaves)


@story("plain functions are asked on a thread", threads=True)
async def plain_approvers(teller: Teller) -> None:
    async def at_once() -> bool:
        return True

    def first(call: Any) -> bool:
        return bool(call.args["n"] == 0)

    def later(call: Any) -> Any:
        return at_once()

    def exits(call: Any) -> bool:
        raise SystemExit(1)

    def counts(call: Any) -> Any:
        return 1

    await asked(teller, 1, first)
    await asked(teller, 2, later)
    await asked(teller, 0, exits, counts)


@story("somebody decides in the store, or nobody, or too late")
async def decided(teller: Teller) -> None:
    async def looks(gate: Any, delay_s: float, approved: bool, other: str = "") -> None:
        approvals = gate.house().store.approvals
        await asyncio.sleep(delay_s)
        for row in await approvals.list():
            teller.say("asked", row.tool, row.rendered[:100])
            if other:
                words = (row.effect_key, row.tenant_id, row.run_id, row.tool, other, "x", teller.clock.wall() + 60)
                await approvals.request(ApprovalRequest(*words))
            else:
                decided = await approvals.decide(row.id, approved, "ada", "" if approved else "not today")
                teller.say("decided", str(decided and decided.state))

    cases: dict[str, tuple[float, bool, str]] = {
        "yes": (1.0, True, ""),
        "no": (1.0, False, ""),
        "nobody": (50.0, True, ""),
        "too late": (7.0, True, ""),
        "other rules": (1.0, True, "another"),
    }
    for mode in ("enforce", "observe"):
        for name, (delay_s, approved, other) in cases.items():
            for kind in ("write", "read"):
                config = {"mode": mode, "tools": {"allow": ["*"]}, "approvals": {"wait_s": 9, "expires_s": 6}}
                gate, done = make(teller, {"a.do": kind}, config, approval="required")
                teller.say("--", mode, name, kind)
                looking = asyncio.ensure_future(looks(gate, delay_s, approved, other))
                await teller.run(gate, script(teller, *each("a.do"), [("a.do", {"n": 0})]), request_id="r")
                looking.cancel()
                if mode == "enforce" and name not in {"yes", "too late"}:
                    teller.expect("not done", done, [])
    config = {"tools": {"allow": ["*"]}, "approvals": {"wait_s": 3, "expires_s": 60}}
    gate, done = make(teller, {"a.do": "write"}, config, approval="required")
    parked = await teller.run(gate, script(teller, *each("a.do")), request_id="r")
    teller.expect("parked", str(parked.reason), "approval_pending")
    await looks(gate, 1.0, True)
    await teller.run(gate, script(teller, *each("a.do")), request_id="r", retry=True)
    teller.expect("one grant, one effect", done, ["a.do"])


@story("the store is away while somebody is asked, and the run is stopped")
async def asking_cut_short(teller: Teller) -> None:
    config: dict[str, Any] = {"tools": {"allow": ["*"]}, "approvals": {"wait_s": 30, "expires_s": 60}}
    gate, done = make(teller, {"a.do": "write"}, config, approval="required")
    part = gate.house().store.approvals

    async def returns() -> None:
        await asyncio.sleep(1.0)
        part.away = {"get"}
        await asyncio.sleep(5.0)
        for row in await part.list():
            await part.decide(row.id, True, "ada")
        part.away = set()

    back = asyncio.ensure_future(returns())
    await teller.run(gate, script(teller, *each("a.do")))
    await back
    teller.expect("done", done, ["a.do"])
    for required in ("required", slow_yes):
        config = {
            **config,
            "agent": {**AGENT, "budgets": {"max_seconds": 3600, "max_tool_calls": 1}, "stop_on": ["tool_budget"]},
        }
        gate, done = make(teller, {"a.do": "write"}, config, approval=required)

        async def agent(run: Any, task: Any) -> None:
            asking = asyncio.ensure_future(teller.use(run, "a.do", n=1))
            await asyncio.sleep(2.0)
            await asyncio.gather(asking, teller.use(run, "a.do", n=2), return_exceptions=True)

        await teller.run(gate, agent)
        teller.expect("not done", done, [])


async def slow_yes(call: Any) -> bool:
    await asyncio.sleep(20.0)
    return True


@story("equal writes that are asked about")
async def repeats(teller: Teller) -> None:
    config = {"tools": {"allow": ["*"]}, "approvals": {"wait_s": 3, "expires_s": 60}}
    for approval in (None, "required", slow_yes):
        gate, done = make(teller, {"a.do": "write"}, config, repeat="ask", approval=approval)
        await teller.run(gate, script(teller, *[[("a.do", {"n": 0})]] * 3))
        teller.expect("done", len(done), 1 if approval is None else 0)
