"""Stories of tools that fail or are crowded: breakers and their probes, rates, slots, hedged waits, attempts and time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from schedule_telling import Teller, script, story

from interlock.budget.tenants import TenantCaps
from interlock.core.calls import Answer
from interlock.core.errors import ConfigError, InterlockError
from interlock.policy.approval import ApprovalOptions, given, refused
from interlock.resilience.admission import BreakerOptions, LimitOptions
from interlock.resilience.breaker import Breaker
from interlock.resilience.failure import Failure
from interlock.resilience.limiter import Limiter, TokenBucket
from interlock.resilience.retry import RetryOptions

AGENT = {"budgets": {"max_seconds": 3600}, "max_refusals": None, "stop_on": ["cost_budget", "tool_budget"]}


class Status(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


def make(
    teller: Teller, plan: list[Any], mode: str = "enforce", run_budgets: Any = None, **tools: Any
) -> tuple[Any, list[float]]:
    """Return a gate with a read and a write that do as `plan` says, step by step; and when they were tried."""
    agent = AGENT if run_budgets is None else {**AGENT, "budgets": run_budgets}
    gate = teller.gate(mode=mode, agent=agent, tools={"allow": ["*"], "retries": {"max_attempts": 1}, **tools})
    tried: list[float] = []

    async def act() -> str:
        tried.append(round(teller.clock.monotonic() - teller.began_s, 3))
        step = plan.pop(0) if plan else None
        if isinstance(step, int | float):
            await asyncio.sleep(step)
        if isinstance(step, BaseException):
            raise step
        return "done"

    @gate.tool("a.read", effect="read")
    async def read(n: int = 0) -> str:
        return await act()

    @gate.tool("a.put", effect="write")
    async def put(n: int = 0, *, idempotency_key: str) -> str:
        return await act()

    @gate.tool("a.valid", effect="read", output=dict)
    async def valid(n: int = 0) -> Any:
        return await act()

    return gate, tried


def paced(teller: Teller, *steps: Any) -> Any:
    """Return an agent that waits so many seconds, or uses these tools side by side."""

    async def agent(run: Any, task: Any) -> str:
        n = 0
        for step in steps:
            if isinstance(step, int | float):
                await asyncio.sleep(step)
                continue
            tools = step if isinstance(step, tuple) else (step,)
            n += len(tools)
            uses = (teller.use(run, tool, n=n * 10 + i) for i, tool in enumerate(tools))
            await asyncio.gather(*uses, return_exceptions=True)
        return "done"

    return agent


BREAKER = {"circuit_breakers": {"failure_threshold": 2, "window_seconds": 10}}
LOST = ConnectionResetError("lost")


@story("a breaker, its rest and its probe")
async def breaker(teller: Teller) -> None:
    cases: dict[str, tuple[list[Any], tuple[Any, ...]]] = {
        "closes": ([LOST, LOST, None], ("a.read", "a.read", "a.read", 5, "a.read", 6, "a.read", "a.read")),
        "opens again": ([LOST] * 3, ("a.read", "a.read", 10, "a.read", "a.read", 9.9, "a.read", 0.2, "a.read")),
        "one probe": ([LOST, LOST, 3.0], ("a.read", "a.read", 11, ("a.read", "a.read", "a.read"), "a.read")),
        "a slow probe": ([LOST, LOST, 25.0], ("a.read", "a.read", 11, ("a.read",), "a.read")),
        "spread out": ([LOST] * 4, ("a.read", 6, "a.read", 6, "a.read", 11, "a.read", 6, "a.read")),
        "at the edge": ([LOST] * 3, ("a.read", 10, "a.read", "a.read")),
        "refused probe": ([LOST, LOST, Status(404)], ("a.read", "a.read", 11, "a.read", "a.read")),
        "busy probe": ([LOST, LOST, Status(429)], ("a.read", "a.read", 11, "a.read", "a.read")),
        "a 501": ([Status(501)] * 3, ("a.read", "a.read", "a.read")),
        "odd probe": ([LOST, LOST, ValueError("odd")], ("a.read", "a.read", 11, "a.read", "a.read", "a.read")),
        "statuses": ([Status(500), Status(404), Status(503)], ("a.read", "a.read", "a.read", "a.read")),
        "busy": ([Status(429)] * 3, ("a.read", "a.read", "a.read", "a.read")),
        "timeouts": ([50.0, 50.0], ("a.read", "a.read", "a.read")),
        "not believed": ([None] * 3, ("a.valid", "a.valid", "a.valid")),
        "failures between": ([LOST, None, LOST, None], ("a.read", "a.read", "a.read", "a.read")),
    }
    for mode in ("enforce", "observe"):
        for name, (plan, steps) in cases.items():
            gate, tried = make(teller, list(plan), mode, timeouts_s={"default": 30 if "slow" in name else 2}, **BREAKER)
            teller.say("--", mode, name)
            result = await gate.run(paced(teller, *steps))
            teller.say(name, str(result.reason), len(tried), gate.house().admission.status())
            if (mode, name) == ("enforce", "closes"):
                teller.expect("left alone, then tried", len(tried), 4)


@story("a probe that is called off")
async def probe_called_off(teller: Teller) -> None:
    gate, tried = make(teller, [LOST, LOST, 30.0, None], timeouts_s={"default": 60}, **BREAKER)
    await gate.run(paced(teller, "a.read", "a.read", 11))
    probing = asyncio.ensure_future(gate.run(paced(teller, "a.read")))
    await asyncio.sleep(2.0)
    await gate.run(paced(teller, "a.read"))
    probing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await probing
    teller.say("status", gate.house().admission.status())
    await gate.run(paced(teller, "a.read", 9, "a.read"))
    teller.say("tried", tried, gate.house().admission.status())
    # A write that is called off between its admission and its claim gives the probe back.
    gate, tried = make(teller, [LOST, LOST, None], **BREAKER)
    await gate.run(paced(teller, "a.put", "a.put", 11))
    gate.house().store.away = {"claim"}
    await gate.run(paced(teller, "a.put"))
    gate.house().store.away = set()
    await gate.run(paced(teller, "a.put"))
    teller.say("tried", tried, gate.house().admission.status())


@story("rates and slots")
async def limits(teller: Teller) -> None:
    both = ("a.read", "a.read", "a.read", "a.read")
    cases: dict[str, tuple[dict[str, Any], list[Any], tuple[Any, ...]]] = {
        "two a second": ({"rate_per_s": 2}, [], (both, both)),
        "one in four seconds": ({"rate_per_s": 0.25}, [], (both, both)),
        "a burst": ({"rate_per_s": 1, "burst": 3}, [], (both, 1.5, both)),
        "no patience": ({"rate_per_s": 1, "max_wait_s": 0}, [], (both, 5, both)),
        "some patience": ({"rate_per_s": 1, "burst": 1, "max_wait_s": 1.5}, [], (both, both)),
        "one at once": ({"concurrency": 1}, [2.0] * 4, (both,)),
        "two at once, no patience": ({"concurrency": 2, "max_wait_s": 1}, [2.0] * 4, (both, both)),
        "slots and rate": ({"concurrency": 1, "rate_per_s": 1, "burst": 2}, [0.3] * 4, (both,)),
        "one at once, failing": ({"concurrency": 1}, [LOST, 2.0, LOST, 1.0], (both, both)),
    }
    for mode in ("enforce", "observe"):
        for name, (limit, plan, steps) in cases.items():
            gate, tried = make(teller, list(plan), mode, limits={"a.*": limit})
            began_s = teller.clock.monotonic() - teller.began_s
            await gate.run(paced(teller, *steps))
            teller.say(mode, name, [round(at - began_s, 3) + 0.0 for at in tried], gate.house().admission.status())
            if mode == "enforce" and "concurrency" not in limit:
                burst = limit.get("burst") or max(1, int(limit["rate_per_s"]))
                most = (j - i < burst + limit["rate_per_s"] * (tried[j] - tried[i]) + 1e-6
                        for j in range(len(tried)) for i in range(j))  # fmt: skip
                teller.expect(f"{name}: never faster", all(most), True)


@story("a tool that waits and fails at once: breaker and rate together")
async def breaker_and_limit(teller: Teller) -> None:
    for limit in ({"rate_per_s": 1, "burst": 2}, {"concurrency": 1}):
        gate, tried = make(teller, [LOST, LOST, 1.0, None], limits={"a.*": limit}, **BREAKER)
        await gate.run(paced(teller, ("a.read",) * 4, 11, ("a.read",) * 4, 20, ("a.read",) * 3))
        teller.say(str(limit), tried, gate.house().admission.status())


@story("a waiting call is called off")
async def waiting(teller: Teller) -> None:
    for limit in ({"rate_per_s": 0.1}, {"concurrency": 1}):
        gate, tried = make(teller, [20.0], limits={"a.*": {**limit, "max_wait_s": 100}}, timeouts_s={"default": 90})
        first = asyncio.ensure_future(gate.run(paced(teller, "a.read")))
        await asyncio.sleep(1.0)
        second = asyncio.ensure_future(gate.run(paced(teller, ("a.read", "a.put"))))
        await asyncio.sleep(1.0)
        teller.say("status", gate.house().admission.status())
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await gate.run(paced(teller, "a.read"))
        teller.say(str(limit), tried, gate.house().admission.status())
        # The run that waits is stopped by its own budget meanwhile.
        gate, tried = make(
            teller,
            [20.0],
            limits={"a.*": {**limit, "max_wait_s": 100}},
            run_budgets={"max_tool_calls": 2, "max_seconds": 3600},
        )

        async def agent(run: Any, task: Any) -> None:
            uses = [asyncio.ensure_future(teller.use(run, "a.read", n=n)) for n in range(2)]
            await asyncio.sleep(3.1)
            uses.append(asyncio.ensure_future(teller.use(run, "a.read", n=9)))
            await asyncio.gather(*uses, return_exceptions=True)

        result = await gate.run(agent)
        teller.say(str(result.reason), tried, gate.house().admission.status())
        # Its time is over before its turn.
        gate, tried = make(teller, [20.0], limits={"a.*": {**limit, "max_wait_s": 100}}, run_budgets={"max_seconds": 5})
        result = await gate.run(paced(teller, "a.read", "a.read"))
        teller.say(str(result.reason), tried)


@story("attempts: how many, how long apart, and why no more")
async def attempts(teller: Teller) -> None:
    base: dict[str, Any] = {"circuit_breakers": {"enabled": False}}
    cases: dict[str, tuple[list[Any], dict[str, Any], Any]] = {
        "three": ([LOST] * 5, {"retries": {"max_attempts": 3, "backoff_ms": [1000, 4000]}}, None),
        "five, the last wait again": ([LOST] * 6, {"retries": {"max_attempts": 5, "backoff_ms": [1000]}}, None),
        "cap of the tool": ([LOST] * 9, {"retries": {"max_attempts": 3}, "budgets": {"a.*": {"max_retries": 1}}}, None),
        "none for the tool": (
            [LOST] * 9,
            {"retries": {"max_attempts": 3}, "budgets": {"a.*": {"max_retries": 0}}},
            None,
        ),
        "left out": ([Status(502)] * 3, {"retries": {"max_attempts": 3, "retryable_status": [503]}}, None),
        "in time": ([LOST] * 9, {"retries": {"max_attempts": 9, "backoff_ms": [4000]}}, {"max_seconds": 8}),
        "slow": ([3.0, LOST, None], {"retries": {"max_attempts": 3}, "timeouts_s": {"default": 2}}, None),
        "its time is over": ([4.0], {"retries": {"max_attempts": 3}, "timeouts_s": {"default": 2}}, {"max_seconds": 2}),
        "calls": ([LOST] * 9, {"retries": {"max_attempts": 3}}, {"max_tool_calls": 1, "max_seconds": 60}),
    }
    for mode in ("enforce", "observe"):
        for tool in ("a.read", "a.put"):
            for name, (plan, tools, budgets) in cases.items():
                gate, tried = make(teller, list(plan), mode, budgets, **base, **tools)
                began_s = teller.clock.monotonic() - teller.began_s
                teller.say("--", mode, tool, name)
                result = await gate.run(paced(teller, (tool, tool), tool))
                teller.say(name, str(result.reason), [round(at - began_s, 3) + 0.0 for at in tried])


async def cleans_up(how: str) -> str:
    """Answer after a while; cancelled, do as it is told."""
    try:
        await asyncio.sleep(9.0)
    except asyncio.CancelledError:
        if how == "leaves":
            raise
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.8)
        if how == "raises":
            raise ValueError("while it cleaned up") from None
    return "after all"


@story("cancelled from outside while its own time is up")
async def cut_twice(teller: Teller) -> None:
    for how in ("raises", "answers", "leaves"):
        for tool in ("s.read", "s.put"):
            for after_s in (1.0, 2.0, 2.5):
                gate = teller.gate(
                    agent=AGENT, tools={"allow": ["*"], "timeouts_s": {"default": 2}, "retries": {"max_attempts": 1}}
                )

                @gate.tool("s.put", effect="write")
                async def put(how: str, *, idempotency_key: str) -> str:
                    return await cleans_up(how)

                @gate.tool("s.read", effect="read")
                async def read(how: str) -> str:
                    return await cleans_up(how)

                async def agent(run: Any, task: Any, tool: str = tool, how: str = how) -> str:
                    seen = await run.observe(tool, {"how": how})
                    return str(seen.status)

                running = asyncio.ensure_future(gate.run(agent, request_id="r"))
                await asyncio.sleep(after_s)
                running.cancel()
                (ended,) = await asyncio.gather(running, return_exceptions=True)
                await asyncio.sleep(5.0)
                teller.say(how, tool, after_s, type(ended).__name__, str(getattr(ended, "reason", "")))
                for row in await gate.house().store.runs():
                    await teller.recorded(gate, row.run_id)


@story("no limit of its own, and answers that are no coroutines")
async def unlimited(teller: Teller) -> None:
    gate, _ = make(teller, [300.0], timeouts_s={"default": 86_400}, run_budgets={"max_seconds": None})
    await gate.run(paced(teller, "a.read"))

    class Waits:
        def __await__(self) -> Any:
            return asyncio.sleep(1.0, Answer("waited")).__await__()

    async def agent(run: Any, task: Any) -> None:
        answer = await run.through("a.read", {"n": 5}, lambda call: Waits())
        teller.say("through", answer.value)
        with contextlib.suppress(InterlockError):
            await run.through("a.put", {"n": 5}, lambda call: Waits())

    teller.say(str((await gate.run(agent)).reason))
    gate, _ = make(teller, [3.0, 1.0], "observe", timeouts_s={"default": 2})
    await teller.run(gate, paced(teller, "a.read", "a.read"))


@story("a guarded tool that uses another")
async def nested(teller: Teller) -> None:
    gate = teller.gate(
        agent=AGENT, tools={"allow": ["*"], "deny": ["b.*"], "circuit_breakers": {"failure_threshold": 2}}
    )

    @gate.tool("b.read", effect="read")
    async def denied() -> str:
        return "never"

    @gate.tool("c.read", effect="read")
    async def uses() -> str:
        return str(await denied())

    @gate.tool("c.put", effect="write", on_unknown="tell")
    async def writes() -> str:
        return str(await denied())

    await teller.run(gate, script(teller, *([[(name, {})] for name in ("c.read", "c.put", "c.read", "c.read")])))


@story("options that cannot be")
async def options(teller: Teller) -> None:
    makers: list[tuple[Any, dict[str, Any], bool]] = [
        (LimitOptions, {"concurrency": 0}, False),
        (LimitOptions, {"concurrency": 1, "rate_per_s": 0.1, "burst": 1, "max_wait_s": 0}, True),
        (LimitOptions, {"rate_per_s": 0.0}, False),
        (LimitOptions, {"burst": 0}, False),
        (LimitOptions, {"max_wait_s": -0.1}, False),
        (LimitOptions, {"max_wait_s": float("nan")}, False),
        (BreakerOptions, {"failure_threshold": 0}, False),
        (BreakerOptions, {"failure_threshold": 1, "window_seconds": 0.1}, True),
        (BreakerOptions, {"window_seconds": 0}, False),
        (Breaker, {"threshold": 0, "window_s": 1.0}, False),
        (Breaker, {"threshold": 1, "window_s": 0.0}, False),
        (Breaker, {"threshold": 1, "window_s": 1.0, "cooldown_s": 0.0}, False),
        (RetryOptions, {"max_attempts": 0}, False),
        (RetryOptions, {"max_attempts": 1, "backoff_ms": (0,), "max_retries": 0}, True),
        (RetryOptions, {"backoff_ms": (5, -1)}, False),
        (RetryOptions, {"max_retries": -1}, False),
        (TokenBucket, {"rate_per_s": 0, "burst": 1}, False),
        (TokenBucket, {"rate_per_s": 1, "burst": 0}, False),
        (TokenBucket, {"rate_per_s": 0.5, "burst": 1}, True),
        (Limiter, {"concurrency": 0, "rate_per_s": None, "burst": None, "clock": teller.clock}, False),
        (Limiter, {"concurrency": 1, "rate_per_s": None, "burst": None, "clock": teller.clock}, True),
        (Failure, {"reason": "tool_failed", "performed": "perhaps", "kind": "x"}, False),
        (ApprovalOptions, {"wait_s": -1}, False),
        (ApprovalOptions, {"expires_s": 0}, False),
        (ApprovalOptions, {"poll_s": 0}, False),
        (ApprovalOptions, {"wait_s": 0, "expires_s": 0.1, "poll_s": 0.1}, True),
        (TenantCaps, {"max_usd_per_day": 1.0}, True),
    ]
    for maker, words, fine in makers:
        try:
            maker(**words)
            could = True
        except (ValueError, ConfigError) as error:
            could = False
            teller.say(maker.__name__, str(error))
        shown = {key: value for key, value in words.items() if key != "clock"}
        teller.expect(f"{maker.__name__} {shown}", could, fine)
    teller.expect("asked elsewhere", (given(None), refused(None)), (True, False))
