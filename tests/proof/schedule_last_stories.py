"""Stories of small things that mutants have shown nobody to look at."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import fields
from typing import Any

import aiohttp
from aiohttp.http_exceptions import BadStatusLine
from schedule_journal_stories import EASY, Desk, settle_all
from schedule_limit_stories import LOST, make, paced
from schedule_lookup_stories import ALONE, SEND, Remote
from schedule_remote_stories import Answered, breakers, caused
from schedule_remote_stories import remote as remote_of
from schedule_taint_stories import make as mail_of
from schedule_telling import MODEL, Teller, ask, script, story

from interlock.budget.loops import LoopOptions
from interlock.budget.meter import BudgetOptions
from interlock.config.sections import ApprovalSettings, Budgets, LoopSettings, SafeModeSettings
from interlock.config.tool_sections import BreakerSettings, LimitSettings, RetrySettings
from interlock.core.errors import RunStopped
from interlock.core.reasons import StopReason
from interlock.journal.store import ClaimState
from interlock.policy.approval import ApprovalOptions
from interlock.policy.switches import SafeModeOptions
from interlock.resilience.admission import BreakerOptions, LimitOptions
from interlock.resilience.classify import register_classifier
from interlock.resilience.failure import Failure
from interlock.resilience.retry import RetryOptions


@story("guards without a file do as the file's defaults say")
async def defaults(teller: Teller) -> None:
    pairs: list[tuple[Any, Any]] = [
        (LimitOptions(), LimitSettings()),
        (BreakerOptions(), BreakerSettings()),
        (RetryOptions(), RetrySettings()),
        (ApprovalOptions(), ApprovalSettings()),
        (BudgetOptions(), Budgets()),
        (LoopOptions(), LoopSettings()),
        (SafeModeOptions(), SafeModeSettings()),
    ]
    for guard, section in pairs:
        for each in fields(guard):
            if hasattr(section, each.name):
                name = f"{type(section).__name__}.{each.name}"
                teller.expect(name, repr(getattr(guard, each.name)), repr(getattr(section, each.name)))


@story("a probe that answers what cannot be believed")
async def odd_probe(teller: Teller) -> None:
    breaker = {"circuit_breakers": {"failure_threshold": 2, "window_seconds": 10}}
    for probe in (None, LOST):
        gate, tried = make(teller, [LOST, LOST, probe], **breaker)
        await gate.run(paced(teller, "a.valid", "a.valid", 11, "a.valid", "a.valid", "a.valid"))
        teller.expect("it has answered", len(tried), 5 if probe is None else 3)


@story("errors of one kind in the clothes of another")
async def clothes(teller: Teller) -> None:
    def parsed() -> Exception:
        info: Any = type("Info", (), {"real_url": "https://remote.example"})()
        return caused(aiohttp.ClientResponseError(info, (), status=400), BadStatusLine("what?"))

    def deep(depth: int) -> Any:
        def made() -> Exception:
            error: Exception = Answered(502)
            for _ in range(depth):
                error = caused(OSError("again"), error)
            return caused(ConnectionRefusedError("refused"), error)

        return made

    raised = {
        "a reply that aiohttp cannot read": parsed,
        "a reply of 400": lambda: aiohttp.ClientResponseError(parsed().request_info, (), status=400),  # type: ignore[attr-defined]
        "a timeout by its name": type("GatewayTimeout", (Exception,), {}),
        "no timeout": type("GatewayTired", (Exception,), {}),
        **{f"a fallback, {depth} deep": deep(depth) for depth in (0, 1, 9, 10, 11)},
    }
    gate = remote_of(teller, raised, **breakers(False))
    seen: list[Any] = []
    await teller.run(gate, script(teller, *([("remote.post", {"how": how})] for how in raised), seen=seen))
    doubts = [how for how, each in zip(raised, seen, strict=True) if each.reason == StopReason.OUTCOME_UNKNOWN]
    teller.expect("a reply that cannot be read proves nothing", "a reply that aiohttp cannot read" in doubts, True)
    teller.expect("a reply of 400 does", "a reply of 400" in doubts, False)
    teller.expect("nor does a fallback", "a fallback, 1 deep" in doubts, True)


@story("plain look-ups, round after round", threads=True)
async def plain_rounds(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, sync=True, settle_s=0.0)
    down = KeyError("down")
    await teller.run(gate, script(teller, [remote.plan(1, ["lost"], [down, down, down, down, {"n": 1}])]))
    closed = []
    for _ in range(6):
        closed.append(await gate.house().rounds.go())
        await asyncio.sleep(400.0)
    teller.expect("asked until it answers", closed, [0, 0, 0, 1, 0, 0])


@story("a call that the store held up is made when the run goes on")
async def passing(teller: Teller) -> None:
    lost, held = ("bare.post", "lost"), ("keyed.put", "held up")
    for turns in (True, False):
        for order in ((lost, held), (held, lost)):
            gate = teller.gate(**EASY | {"agent": {"budgets": {"max_seconds": 3600}}})
            store = gate.house().store
            desk = Desk(teller, gate, [ConnectionResetError("lost")])

            async def agent(run: Any, task: Any, turns: bool = turns, order: Any = order, store: Any = store) -> str:
                if turns:
                    await run.model(ask, "go on", model=MODEL, max_output_tokens=20)
                for tool, what in order:
                    store.away = {"claim"} if tool == "keyed.put" and task == "away" and not store.returned else set()
                    with contextlib.suppress(RunStopped):
                        await teller.use(run, tool, what=what)
                    store.away = set()
                return "done"

            store.returned = False
            first = await teller.run(gate, agent, "away", request_id="r")
            store.returned = True
            await settle_all(store, ClaimState.DONE, b'{"what":"settled"}')
            second = await teller.run(gate, agent, "away", request_id="r")
            teller.say("turns" if turns else "no turns", order, str(first.reason), str(second.reason))
            teller.expect("the lost one once", desk.done.count("lost"), 1)


@story("a write that was taken over is cut off as well")
async def cut_again(teller: Teller) -> None:
    first = teller.gate(**EASY)
    second = teller.gate(beside=first, **EASY)
    old, new = Desk(teller, first, [100.0]), Desk(teller, second, [100.0])

    async def agent(run: Any, task: Any) -> None:
        await teller.use(run, "keyed.put", what="a")

    runs = [asyncio.ensure_future(first.run(agent, request_id="r", agent_name="a", wait_s=1.0))]
    await asyncio.sleep(5.0)
    store = first.house().store
    (row,) = await store.runs()
    await store.leases.hand_back(row.run_id, row.fence, 5.0)
    runs.append(asyncio.ensure_future(second.run(agent, request_id="r", agent_name="a")))
    await asyncio.sleep(5.0)
    teller.say("left", await second.house().inflight.aclose(1.0))
    await store.flush()
    await teller.claims(second, row.run_id)
    for run in runs:
        run.cancel()
    await asyncio.gather(*runs, return_exceptions=True)
    teller.say(old.done, new.done)


@story("a word at the very beginning of a page")
async def beginnings(teller: Teller) -> None:
    gate, sent = mail_of(teller, {"then": "refuse", "arguments": ["to"]})
    pages = ("a5566 is a code", "5577", "5588, and more", "x 5599")

    @gate.tool("web.begin", effect="read")
    async def begin(n: int) -> str:
        return pages[n]

    async def agent(run: Any, task: Any) -> None:
        for n in range(len(pages)):
            await run.observe("web.begin", {"n": n})
        for to in ("5566", "5577", "5588", "5599"):
            await teller.use(run, "mail.send", to=to)

    await teller.run(gate, agent)
    teller.expect("sent", sent, ["5566"])


@story("what is counted of a look-up's tool that is asked by hand")
async def asked_by_hand(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, settle_s=5.0)
    await teller.run(gate, script(teller, [remote.plan(1, ["lost before", "sent"], [None])]))
    teller.expect("sent once it was known not to have happened", remote.sent, [1])
    teller.say(SEND)


@story("one classifier is taken out, and the other stays")
async def one_stays(teller: Teller) -> None:
    def says(reason: StopReason) -> Any:
        return lambda error: Failure(reason, "no", "known") if isinstance(error, KeyError) else None

    gate = remote_of(teller, {"known": lambda: KeyError("x")}, **breakers(False))
    older, newer = (
        register_classifier(says(reason)) for reason in (StopReason.TOOL_RATE_LIMIT, StopReason.TOOL_FAILED)
    )
    reasons = []
    for remove in (newer, older, older):
        seen: list[Any] = []
        await gate.run(script(teller, [("remote.post", {"how": "known"})], seen=seen))
        reasons.append(str(seen[0].reason))
        remove()
    teller.expect("the newest that is left", reasons, ["tool_failed", "tool_rate_limit", "outcome_unknown"])
