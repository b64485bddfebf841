"""One schedule, lived on virtual time; and what was wrong with it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from schedule_plans import Plan
from schedule_world import (
    FLIPS,
    FLIPS_PER_S,
    LIMITED,
    MODEL,
    ORDERED,
    READERS,
    REFUNDS,
    SEVERAL,
    USD_PER_TOKEN,
    World,
    gate,
)

from interlock import RunResult, StopReason
from interlock.chaos.account import account_of
from interlock.chaos.faults import STORE_KINDS, Kind
from interlock.chaos.hearing import Hearing
from interlock.chaos.scene import Scene, TrialClock
from interlock.config.trial import standing_in
from interlock.core.clock import run_virtual
from interlock.core.errors import InterlockError, StoreUnavailable
from interlock.journal.store import ClaimState, Settlement

OUTPUT_TOKENS, INPUT_TOKENS = 60, 10
HUNG_S = 7_200.0
TIMEOUT_S = 30.0
MOST_ATTEMPTS = 3
MOST_RETURNS, AGAIN_S = 2, 40.0
MINUTE_S, AT_ONCE = 60.0, ("reset", "connect_refused", "http_500", "http_502", "http_503", "http_504")
TRIED: Counter[str] = Counter()  # what all schedules of this process came to
QUIET = replace(gate.settings.logging, level="error")


@dataclass
class Lived:
    """What is known of one schedule after the fact.

    Attributes:
        proposed: Calls that the agent made, by (tool, n); None for what the model made up. answers: how many came.
        entered: How often the agent was started. left: tasks that are still there when all is closed.
        turns, usd, tokens: What model turns came to. answered: those of them that the model answered.
        account: What can be seen of it (`interlock.chaos.account`), where that was asked for.
    """

    plan: Plan
    scene: Scene
    result: RunResult | None = None
    results: list[RunResult] = field(default_factory=list)
    record: dict[str, Any] | None = None
    proposed: Counter = field(default_factory=Counter)
    made: int = 0
    entered: int = 0
    left: int = 0
    turns: int = 0
    usd: float = 0.0
    tokens: int = 0
    answered: int = 0
    elapsed_s: float = 0.0
    account: tuple[str, ...] = ()


class Agent:
    """Takes its turns, lane beside lane; is helpful: proposes what failed once more; survives what the model says."""

    def __init__(self, lived):
        self.lived = lived

    async def __call__(self, run, task):
        self.lived.entered += 1
        done = await asyncio.gather(*(self.lane(run, lane) for lane in self.lived.plan.lanes), return_exceptions=True)
        return {"done": total(done)}

    async def lane(self, run, lane):
        done = 0
        for turn in lane:
            calls = list(turn.calls)
            if turn.usd is not None:
                async with run.step() as step:
                    step.charge({"cost_usd": turn.usd, "input_tokens": 5, "output_tokens": 5})
                self.took(turn.usd, 10)
                made = [(tool, {"n": n}) for tool, n in calls]
            else:
                made = await self.asked(run, calls)
            # It waits for its calls, whatever became of one of them: so every call can be on record.
            done += total(await asyncio.gather(*(self.call(run, *one) for one in made), return_exceptions=True))
        return done

    def took(self, usd, tokens):
        self.lived.turns += 1
        self.lived.usd += usd
        self.lived.tokens += tokens

    async def asked(self, run, calls):
        async def ask(wanted):
            await asyncio.sleep(0.2)  # so that turns of several lanes are under way at once
            first = {"tool": calls[0][0], "args": {"n": calls[0][1]}} if calls else {"text": "nothing to do"}
            return {**first, "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}}

        try:
            reply = await run.model(ask, "go on", model=MODEL, max_output_tokens=OUTPUT_TOKENS)
        except InterlockError:
            raise
        except Exception:  # the model is rate limited: the agent does without it
            return [(tool, {"n": n}) for tool, n in calls]
        self.lived.answered += 1
        self.took(USD_PER_TOKEN * (INPUT_TOKENS + OUTPUT_TOKENS), INPUT_TOKENS + OUTPUT_TOKENS)
        first = [(reply["tool"], reply["args"])] if "tool" in reply else []
        return first + [(tool, {"n": n}) for tool, n in calls[1:]]

    async def call(self, run, tool, args):
        for _ in range(2 if self.lived.plan.again else 1):
            self.lived.made += 1
            self.lived.proposed[tool, args.get("n")] += 1
            seen = await run.observe(tool, args)
            if seen.ok:
                return 1
        return 0


def total(found):
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return sum(found)


def settings_of(plan):
    budgets = replace(gate.settings.agent.budgets, **plan.caps)
    agent = replace(gate.settings.agent, budgets=budgets, on_stop="wrap_up" if plan.wrap_up else None)
    return replace(gate.settings, agent=agent, logging=QUIET, shutdown_grace_s=0.0)


def live(plan, *, off=(), told=False):
    """Live a schedule to its end; `off` are guards that are switched off, to see that something is then wrong."""
    World.forget(dict(plan.slow_s))
    ORDERED.clear()
    return run_virtual(_live(plan, off, Hearing() if told else None), patience_s=0.0)


async def _live(plan, off, hearing):
    clock = TrialClock(seed=plan.seed)
    scene = Scene(plan.faults, seed=plan.seed, clock=clock, off=off, hearing=hearing)
    lived = Lived(plan, scene)
    agent, config = Agent(lived), settings_of(plan)
    if "admission" in off:  # it has a part outside the funnel
        breaker = replace(config.tools.circuit_breakers, enabled=False)
        config = replace(config, tools=replace(config.tools, circuit_breakers=breaker))

    def opened():
        return gate.on_trial(scene.trial(), settings=config, store="sqlite:///:memory:", clock=clock)

    first = opened()
    store = first.house().store
    second = opened() if any(fault.kind is Kind.TWO_WORKERS for fault in plan.faults) else first

    async def deliver(to, delay_s):
        await asyncio.sleep(delay_s)
        with standing_in(gate, to):
            return await to.run(agent, {"n": 1}, tenant_id="t", request_id="r", agent_name="a")

    deliveries = [deliver(first, 0.0)]
    for fault in plan.faults:
        if fault.kind in {Kind.DUPLICATE_DELIVERY, Kind.TWO_WORKERS}:
            scene.note_request_fault(fault, "request")
            deliveries.append(deliver(second if fault.kind is Kind.TWO_WORKERS else first, fault.delay_s or 0.0))
    began_s = clock.monotonic()
    async with asyncio.timeout(HUNG_S):
        lived.results = await asyncio.gather(*deliveries)
        lived.result = lived.results[0]
        for _ in range(MOST_RETURNS if plan.person else 0):
            if lived.result.reason is not StopReason.OUTCOME_UNKNOWN:
                break
            await settle(store, scene)
            lived.result = await deliver(first, AGAIN_S)
            lived.results.append(lived.result)
        lived.elapsed_s = clock.monotonic() - began_s
        await store.flush()
        row = await store.run(lived.result.run_id) if lived.result.run_id else None
        lived.record = None if row is None or row.record is None else dict(row.record)
        if hearing is not None:
            gates = dict.fromkeys((first, second))
            lived.account = await account_of(scene, hearing, store, list(gates), lived.results)
        for house in {first, second}:
            await house.aclose()
    lived.left = len(asyncio.all_tasks()) - 1
    return lived


async def settle(store, scene):
    """Settle every doubt as somebody would who asks the remote."""
    executed = {request.key for request in scene.requests if request.executed}
    for doubt in await store.doubts():
        happened = bool(executed & {doubt.sent_key, doubt.key.hex()})
        state = ClaimState.DONE if happened else ClaimState.FAILED_CLEAN
        with contextlib.suppress(StoreUnavailable):
            await store.settle(doubt.key, Settlement(state, b'{"id":0}' if happened else None, by="ada"))


def wrong_with(lived):
    """Return what is wrong, in words; nothing if all is well."""
    looks = (_effects, _end, _budgets, _record, _accounts, _attempts, _breakers)
    return [wrong for look in looks for wrong in look(lived)]


def _effects(lived):
    happened = Counter((tool, n) for tool, n, _ in World.effects)
    for (tool, n), times in happened.items():
        meant = lived.proposed[tool, n] if tool in SEVERAL else 1
        if times > meant:
            yield f"{tool}({n}) was meant {meant} times and happened {times} times"
        if not lived.proposed[tool, n]:
            yield f"{tool}({n}) happened, and nobody proposed it"
    if World.requests["db.drop"]:
        yield "a denied tool was reached"
    if any(tool == "refund.pay" and n % 2 for tool, n, _ in World.effects):
        yield "what a person refused has happened"
    refunds = {(each.run_id, each.seq) for each in lived.scene.requests if each.tool == "refund.pay"}
    if len(refunds) > REFUNDS:
        yield f"{len(refunds)} calls of refund.pay went out, of {REFUNDS}"
    if World.most_readers > READERS:
        yield f"{World.most_readers} read at once, not {READERS}"
    flips = sorted(request.at_s for request in lived.scene.requests if request.tool == "lamp.flip")
    for (i, early_s), (j, late_s) in itertools.combinations(enumerate(flips), 2):
        if j - i + 1 > FLIPS + FLIPS_PER_S * (late_s - early_s) + 1e-6:
            yield f"{j - i + 1} flips within {late_s - early_s} s"


def _end(lived):
    for result in lived.results:
        if StopReason(result.reason) is StopReason.INTERNAL_ERROR:
            yield f"an end without a name: {result.details}"
    if lived.left:
        yield f"{lived.left} tasks are left"


def _budgets(lived):
    result, caps, plan = lived.result, lived.plan.caps, lived.plan
    most = caps.get("max_usd", 1.0)
    undeclared = [turn.usd for lane in plan.lanes for turn in lane if turn.usd is not None]
    # The cap may be passed by the turns in flight, where a turn does not say what it may cost.
    slack = min(len(undeclared), len(plan.lanes)) * max(undeclared, default=0.0)
    if result.cost_usd > most + slack + 1e-9:
        yield f"${result.cost_usd} spent of ${most} (and {slack})"
    # Dollars bound the wrap-up turn too; tokens and steps do not.
    more = INPUT_TOKENS + OUTPUT_TOKENS if plan.wrap_up else 0
    if not undeclared and "max_tokens" in caps and result.tokens > caps["max_tokens"] + more:
        yield f"{result.tokens} tokens used of {caps['max_tokens']}"
    steps = caps.get("max_steps", 250) + (1 if plan.wrap_up else 0)
    if result.steps > steps:
        yield f"{result.steps} steps of {steps}"
    # What the loop guard answers from the record costs nothing: it counts as a call, and goes nowhere.
    reached = {(request.run_id, request.seq) for request in lived.scene.requests}
    if len(reached) > caps.get("max_tool_calls", 250):
        yield f"{len(reached)} calls went out, of {caps['max_tool_calls']}"
    if not any(fault.kind in STORE_KINDS for fault in plan.faults):
        # A write under way gets its full time, and a wrap-up turn its own.
        latest_s = caps.get("max_seconds", 900.0) + TIMEOUT_S + 40.0
        if lived.elapsed_s > latest_s and len(lived.results) == 1:
            yield f"took {lived.elapsed_s} s of {latest_s}"


def _record(lived):
    record, run_id = lived.record, lived.result.run_id
    if record is None:
        if lived.result.reason is not StopReason.STORE_UNAVAILABLE:
            yield f"there is no record, and nothing says so: {lived.result}"
        return
    rows = len(record["trace"]) + record["trace_dropped"]
    if lived.entered == 1 and rows != lived.made:
        yield f"{lived.made} calls were made, and {rows} are on record"
    if lived.entered == 1 and len(lived.scene.proposed) != lived.made:
        yield f"{lived.made} calls were made, and {len(lived.scene.proposed)} were seen"
    noted = Counter((each["fault"], each["where"], each["seq"], each["attempt"]) for each in record["injected"])
    for injection in lived.scene.injections:
        if injection.run_id == run_id and not noted[injection.fault, injection.where, injection.seq, injection.attempt]:
            yield f"injected and not on record: {injection}"
    if lived.result.reason is not StopReason.STORE_UNAVAILABLE and record["stop_reason"] != lived.result.reason:
        yield f"told {lived.result.reason}, and {record['stop_reason']} is on record"


def _accounts(lived):
    """What is told of the use must be the use; where each model turn came to its end."""
    result, whole = lived.result, lived.entered == 1 and len(lived.scene.prompts) == lived.answered
    if not whole or result.reason in {StopReason.TIME_BUDGET, StopReason.STORE_UNAVAILABLE}:
        return
    if abs(result.cost_usd - lived.usd) > 1e-6:
        yield f"${lived.usd} were spent, and ${result.cost_usd} are told"
    if result.tokens != lived.tokens:
        yield f"{lived.tokens} tokens were used, and {result.tokens} are told"
    if lived.turns - 1 > result.steps or result.steps > lived.turns:
        yield f"{lived.turns} turns were taken, and {result.steps} are told"


def _attempts(lived):
    """No call has more attempts than it may, each is on record, and a wait that was asked for is kept."""
    rows = {row["seq"]: row for row in (lived.record or {}).get("trace", ())}
    by_call = {}
    for request in lived.scene.requests:
        if request.run_id == lived.result.run_id:
            by_call.setdefault(request.seq, []).append(request)
    asked_s = {
        (each.seq, each.attempt): fault.retry_after_s
        for each in lived.scene.injections
        for fault in lived.plan.faults
        if fault.label == each.fault == "http_429" and fault.retry_after_s is not None
    }
    for seq, requests in by_call.items():
        if len(requests) > MOST_ATTEMPTS * max(1, lived.entered):  # whoever resumes a run may try again
            yield f"call {seq} had {len(requests)} attempts"
        if lived.entered == 1 and seq in rows and rows[seq]["attempts"] != len(requests):
            yield f"call {seq} had {len(requests)} attempts, and {rows[seq]['attempts']} are on record"
        for before, after in itertools.pairwise(requests):
            least_s = asked_s.get((seq, before.attempt), 0.0)
            if after.at_s - before.at_s < least_s - 1e-6 and lone_429(lived):
                yield f"call {seq} was to wait {least_s} s and waited {after.at_s - before.at_s}"


def _breakers(lived):
    """A tool whose last five attempts failed within a minute is left alone for a minute; then one may try."""
    if any(fault.kind is Kind.TWO_WORKERS for fault in lived.plan.faults):
        return  # each process has breakers of its own
    struck = {(each.run_id, each.seq, each.attempt): each.fault for each in lived.scene.injections}
    for tool in {request.tool for request in lived.scene.requests} - LIMITED:
        failures, open_s = [], None
        for request in sorted((r for r in lived.scene.requests if r.tool == tool), key=lambda r: r.at_s):
            fault = struck.get((request.run_id, request.seq, request.attempt), "")
            failed = request.output is None and fault.startswith(AT_ONCE)
            if open_s is not None and open_s < request.at_s < open_s + MINUTE_S - 1e-6:
                yield f"{tool} was tried at {request.at_s} s, and left alone since {open_s} s"
            if open_s is not None and request.at_s >= open_s + MINUTE_S - 1e-6:
                if request.output is None and not failed:
                    break  # it failed later: nobody can say from here on
                open_s, failures = (request.at_s if failed else None), []
            elif failed and open_s is None:
                failures = [*failures[-4:], request.at_s]
                if len(failures) == 5 and request.at_s - failures[0] < MINUTE_S:
                    open_s, failures = request.at_s, []


def lone_429(lived):
    return sum(fault.label == "http_429" for fault in lived.plan.faults) == 1
