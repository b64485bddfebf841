"""Stories of writes whose outcome nobody knows: a remote that is asked, that lies, hangs, or says no too early."""

from __future__ import annotations

import asyncio
from typing import Any

from schedule_telling import Teller, script, story

from interlock.journal.store import ClaimState, Settlement

SEND = "parcel.send"
ALONE = {
    "agent": {"budgets": {"max_seconds": 3600}, "max_refusals": None, "stop_on": ["cost_budget"]},
    "tools": {"allow": ["*"], "circuit_breakers": {"enabled": False}, "retries": {"max_attempts": 1}},
}


class Remote:
    """Sends parcels, each as its plan says, and can be asked; what it is asked and does is said."""

    def __init__(self, teller: Teller, gate: Any, *, only_key: bool = False, sync: bool = False, **words: Any) -> None:
        self.teller, self.gate = teller, gate
        self.sends: dict[int, list[Any]] = {}
        self.says: dict[int, list[Any]] = {}
        self.sent: list[int] = []
        self.last = 0

        async def found(n: int, *, idempotency_key: str) -> Any:
            said = self._said(n)
            if callable(said):
                said = await said()
            if said == "yes":
                return {"n": n, "idempotency_key": idempotency_key}
            return said

        def found_in_thread(n: int) -> Any:
            said = self._said(n)
            return found_later(said) if said == "later" else said

        async def found_later(said: Any) -> Any:
            return {"n": 0, "said": said}

        async def found_by_key(*, idempotency_key: str, **_: Any) -> Any:
            return self._said(self.last)

        words.setdefault("lookup", found_by_key if only_key else found_in_thread if sync else found)
        words.setdefault("on_unknown", "lookup")

        @gate.tool(SEND, effect="write", output=dict, **words)
        async def send(n: int, *, idempotency_key: str) -> Any:
            self.last = n
            plan = self.sends.get(n, [])
            what = plan.pop(0) if plan else "sent"
            teller.say("remote:", str(n), str(what))
            if what == "refused":
                raise ConnectionRefusedError
            if what != "lost before":
                self.sent.append(n)
            if what == "slow":
                await asyncio.sleep(100.0)
            if str(what).startswith("lost"):
                raise ConnectionResetError
            return {"n": n}

    def _said(self, n: int) -> Any:
        plan = self.says.get(n, [])
        said = plan.pop(0) if len(plan) > 1 else plan[0] if plan else None
        self.teller.say(
            "looked up:", str(n), getattr(said, "__name__", said if isinstance(said, str) else repr(said)[:30])
        )
        if isinstance(said, BaseException):
            raise said
        return said

    def plan(self, n: int, sends: list[Any], says: list[Any]) -> tuple[str, dict[str, Any]]:
        self.sends[n], self.says[n] = sends, says
        return SEND, {"n": n}


async def hang() -> None:
    await asyncio.sleep(10_000.0)


async def cancels_itself() -> None:
    raise asyncio.CancelledError


async def swallows() -> None:
    try:
        await asyncio.sleep(10_000.0)
    except asyncio.CancelledError:
        raise ValueError("too late to say") from None


class Thing:
    __slots__ = ()
    idempotency_key = "somebody's"


@story("a remote is asked whether a write happened")
async def looked_up(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, timeout_s=10.0)
    plans = [
        (["lost"], ["yes"]),
        (["lost"], [{"n": 1}]),
        (["lost before"], [None]),
        (["lost before", "lost before"], [None]),
        (["lost before", "refused"], [None]),
        (["lost before", "lost"], [None, None, "yes"]),
        (["lost before", "lost"], [None, None, ValueError("down")]),
        (["lost"], [None, "yes"]),
        (["lost"], [ConnectionError("down")]),
        (["lost"], [{"n": 1, "idempotency_key": "another"}]),
        (["lost"], [Thing()]),
        (["lost"], ["not a parcel"]),
        (["lost"], [[]]),
        (["lost"], [hang]),
        (["lost"], [swallows]),
        (["lost"], [cancels_itself]),
        (["slow"], ["yes"]),
        (["refused"], ["yes"]),
    ]
    seen: list[Any] = []
    calls = [remote.plan(n, *plan) for n, plan in enumerate(plans)]
    result = await teller.run(gate, script(teller, *([call] for call in calls), seen=seen), request_id="r")
    wanted = ["success", "success", "success", "tool_failed", "tool_failed", "success", "outcome_unknown", "success"]
    teller.expect("came to", [str(each.reason or "success") for each in seen][:8], wanted)
    twice = sorted({n for n in remote.sent if remote.sent.count(n) > 1})
    teller.expect("sent twice", twice, [])
    doubts = await gate.house().store.doubts()
    teller.expect("doubts", len(doubts), sum(each.reason == "outcome_unknown" for each in seen))
    # The same again: what is known is answered; what is not is asked once more.
    for n in (8, 9, 13):
        remote.says[n] = ["yes"]
    calls = [(SEND, {"n": n}) for n in (0, 2, 3, 8, 9, 10, 13)]
    again = await teller.run(gate, script(teller, calls), request_id="r", retry=True)
    teller.expect("another run", again.run_id != result.run_id, True)


@story("a look-up on a thread", threads=True)
async def looked_up_in_a_thread(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, sync=True, settle_s=0.4)
    plans = [(["lost"], [{"n": 0}]), (["lost"], ["later"]), (["lost before"], [None]), (["lost"], [KeyError("down")])]
    await teller.run(gate, script(teller, *([remote.plan(n, *plan)] for n, plan in enumerate(plans))))


@story("a no that would come too late")
async def too_late(teller: Teller) -> None:
    gate = teller.gate(**ALONE | {"agent": {"budgets": {"max_seconds": 20}}})
    remote = Remote(teller, gate, settle_s=30.0)
    result = await teller.run(gate, script(teller, [remote.plan(1, ["lost before"], [None])]), request_id="short")
    teller.expect("it parks", str(result.reason), "outcome_unknown")
    await asyncio.sleep(31.0)
    result = await teller.run(gate, script(teller, [(SEND, {"n": 1})]), request_id="short", retry="resume")
    teller.expect("then it goes on", (str(result.reason), remote.sent), ("success", [1]))


@story("the run is stopped while a no is waited for")
async def stopped_meanwhile(teller: Teller) -> None:
    config = ALONE | {"agent": {"budgets": {"max_seconds": 3600, "max_tool_calls": 1}}}
    gate = teller.gate(**config)
    remote = Remote(teller, gate, settle_s=30.0)

    async def agent(run: Any, task: Any) -> None:
        sending = asyncio.ensure_future(teller.use(run, *[remote.plan(1, ["lost before"], [None])[0]], n=1))
        await asyncio.sleep(5.0)
        await teller.use(run, SEND, n=2)
        await sending

    result = await teller.run(gate, agent)
    teller.expect("nothing was sent after the stop", (str(result.reason), remote.sent), ("tool_budget", []))


@story("somebody settles it while the remote is asked")
async def settled_meanwhile(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, settle_s=0.0)

    def closes(state: ClaimState | None, result: bytes | None = None) -> Any:
        async def closing() -> None:
            store = gate.house().store
            for claim in await store.doubts():
                if state is None:
                    await store.resend(claim.key, claim.run_id, claim.fence)
                else:
                    await store.settle(claim.key, Settlement(state, result, by="ada", reason="looked"))

        return closing

    plans = [
        (["lost"], [closes(ClaimState.DONE, b'{"n":7}')]),
        (["lost before"], [closes(ClaimState.FAILED_CLEAN)]),
        (["lost"], [closes(None)]),
        (["lost"], [closes(ClaimState.DONE)]),
        (["lost"], [closes(ClaimState.DONE, b'"no parcel"')]),
    ]
    seen: list[Any] = []
    await teller.run(gate, script(teller, *([remote.plan(n, *plan)] for n, plan in enumerate(plans)), seen=seen))
    teller.expect("answered by what was settled", seen[0].value, {"n": 7})
    teller.expect("sent again after a no", remote.sent.count(1), 1)


@story("a key that the remote has forgotten")
async def forgotten(teller: Teller) -> None:
    config = ALONE | {
        "tools": {**ALONE["tools"], "dedupe_window_s": 60, "retries": {"max_attempts": 3, "backoff_ms": [5]}}
    }
    gate = teller.gate(**config)
    remote = Remote(teller, gate, on_unknown="resend", settle_s=1.0)
    other = Remote(teller, gate2 := teller.gate(**config), on_unknown="resend", lookup=None)

    result = await teller.run(gate, script(teller, [remote.plan(1, ["lost", "sent"], [])]), request_id="a")
    teller.expect("the same key again", (str(result.reason), remote.sent), ("success", [1, 1]))
    await teller.run(gate, script(teller, [remote.plan(2, ["lost"] * 3, ["yes"])]), request_id="b")
    teller.clock.jump_wall(100.0)
    await teller.run(gate, script(teller, [(SEND, {"n": 2})]), request_id="b", retry=True)
    teller.expect("not sent again", remote.sent.count(2), 3)
    await teller.run(gate2, script(teller, [other.plan(3, ["lost"] * 3, [])]), request_id="c")
    teller.clock.jump_wall(50.0)
    await teller.run(gate2, script(teller, [(SEND, {"n": 3})]), request_id="c", retry=True)
    teller.expect("sent again in the window", other.sent.count(3), 4)
    await teller.run(gate2, script(teller, [other.plan(4, ["lost"] * 3, [])]), request_id="d")
    teller.clock.jump_wall(-5.0)
    await teller.run(gate2, script(teller, [(SEND, {"n": 4})]), request_id="d", retry=True)
    teller.expect("a clock that went back proves nothing", other.sent.count(4), 3)


@story("a worker asks about doubts, in rounds")
async def rounds(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, timeout_s=10.0)
    down = ConnectionError("down")

    @gate.tool("note.post", effect="write", on_unknown="tell")
    async def post(n: int) -> None:
        raise ConnectionResetError

    plans = [
        (["lost"], [down, "yes"]),
        (["lost before"], [down, None]),
        (["lost"], [down, {"n": 1, "idempotency_key": "other"}]),
        (["lost"], [down, "no parcel"]),
        (["lost"], [down, hang]),
        (["lost"], [down]),
    ]
    calls = [remote.plan(n, *plan) for n, plan in enumerate(plans)]
    await teller.run(gate, script(teller, calls, [("note.post", {"n": 1})]), request_id="r", tenant_id="t")
    house = gate.house()
    teller.expect("of another tenant", await house.rounds.go(["u"]), 0)
    closed = []
    for _ in range(8):
        closed.append(await house.rounds.go(["t"]))
        teller.say("closed", closed[-1], "of", len(await house.store.doubts()) + closed[-1])
        await asyncio.sleep(8.0)
    teller.expect("closed in all", sum(closed), 2)
    await asyncio.sleep(1_000.0)
    remote.says = {n: ["yes"] for n in range(6)}
    teller.expect("closed when all answer", await house.rounds.go(), 4)
    (run_id,) = {claim.run_id for claim in await house.store.doubts()}
    await teller.claims(gate, run_id)


@story("rounds, where the arguments are not kept")
async def without_arguments(teller: Teller) -> None:
    for only_key in (True, False):
        gate = teller.gate(**ALONE, replay="off")
        remote = Remote(teller, gate, only_key=only_key, settle_s=0.0)
        result = await teller.run(gate, script(teller, [remote.plan(1, ["lost"], [ConnectionError("down"), {"n": 1}])]))
        teller.expect("closed", await gate.house().rounds.go(), int(only_key))
        await teller.claims(gate, result.run_id)


@story("no more is asked while questions hang")
async def hanging_questions(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, settle_s=0.0, timeout_s=5.0)

    async def stays() -> None:
        for _ in range(30):
            try:
                await asyncio.sleep(40.0)
            except asyncio.CancelledError:
                continue

    calls = [remote.plan(n, ["lost"], [ConnectionError("down"), stays]) for n in range(4)]
    await teller.run(gate, script(teller, *([call] for call in calls)))
    for _ in range(3):
        await gate.house().rounds.go()
        await asyncio.sleep(20.0)
    asked = sum(line.endswith("stays") for line in teller.told.lines)
    teller.expect("questions that hang, all of the first round", asked, 4)


@story("a round beside the run itself")
async def busy(teller: Teller) -> None:
    gate = teller.gate(**ALONE)
    remote = Remote(teller, gate, timeout_s=200.0, settle_s=0.0)

    async def agent(run: Any, task: Any) -> None:
        sending = asyncio.ensure_future(teller.use(run, SEND, n=1))
        await asyncio.sleep(5.0)
        teller.expect("closed while it is under way", await gate.house().rounds.go(), 0)
        await sending

    remote.plan(1, ["slow"], [None])
    await teller.run(gate, agent)
    teller.expect("asked", [line for line in teller.told.lines if "looked up" in line], [])
