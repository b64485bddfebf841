"""Stories of what may be spent: prices and how replies state their use, caps of runs, children, tools and tenants; loops."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import genai_prices
from schedule_telling import MODEL, USAGE, Teller, ask, script, story

from interlock.budget.prices import Usage
from interlock.core.errors import InterlockError

EASY = {
    "agent": {"budgets": {"max_seconds": 3600, "max_usd": 100}, "max_refusals": None, "stop_on": ["cost_budget"]},
    "tools": {"allow": ["*"]},
}


def capped(**budgets: Any) -> dict[str, Any]:
    return {**EASY, "agent": {**EASY["agent"], "budgets": {"max_seconds": 3600, "max_usd": 100, **budgets}}}


def shop(gate: Any) -> list[str]:
    """Give a gate a read, a keyed write and one that may repeat; return what they did."""
    done: list[str] = []

    @gate.tool("a.read", effect="read")
    async def read(n: Any) -> Any:
        done.append(f"read {n}"[:20])
        return "same" if n == "same" else ["x" * 70_000] if n == "large" else {"n": str(n)[:9]}

    @gate.tool("a.put", effect="write")
    async def put(n: Any, *, idempotency_key: str) -> Any:
        done.append(f"put {n}")
        if n == "refused":
            raise ConnectionRefusedError
        return {"n": n}

    @gate.tool("a.flip", effect="write", repeat="allow")
    async def flip(n: Any, *, idempotency_key: str) -> Any:
        done.append(f"flip {n}")
        return {"n": n}

    @gate.tool("a.fail", effect="read")
    async def fail(n: Any) -> Any:
        done.append(f"fail {n}")
        raise ValueError("always")

    return done


async def cost_of(gate: Any, model: str | None, reply: Any, **words: Any) -> Any:
    async def agent(run: Any, task: Any) -> None:
        async def asked() -> Any:
            return reply

        await run.model(asked, model=model, reply_type=None, **words)

    return await gate.run(agent)


@story("what a model turn costs by the list")
async def listed(teller: Teller) -> None:
    gate = teller.gate(**capped(max_usd=1_000))
    shapes = {
        "plain": (1_000, 200, 0, 0),
        "cached": (10_000, 10, 4_000, 0),
        "written": (10_000, 300, 2_000, 1_000),
        "large": (150_000, 20, 0, 0),
        "at the bound": (100_000, 100_000, 5, 7),
        "more cached than sent": (100, 5, 900, 0),
        "only output": (0, 77, 0, 0),
    }
    models = (
        "openai:gpt-4o",
        "anthropic:claude-sonnet-4-0",
        "google:gemini-2.5-pro",
        "deepseek:deepseek-chat",
        "gpt-4o",
    )
    for model in models:
        for name, (given, output, read, write) in shapes.items():
            provider, _, bare = model.rpartition(":")
            usage = Usage(given, output, read, write)
            try:
                price = genai_prices.calc_price(
                    genai_prices.Usage(
                        input_tokens=given,
                        output_tokens=output,
                        cache_read_tokens=read or None,
                        cache_write_tokens=write or None,
                    ),
                    model_ref=bare,
                    provider_id=provider or None,
                )
                wanted = float(price.total_price)
            except ValueError:
                teller.say(model, name, "the list has no answer")
                continue
            result = await cost_of(gate, model, {"usage": usage})
            if abs(result.cost_usd - wanted) > 1e-9:
                teller.told.wrong.append(f"{model} {name}: ${result.cost_usd}, not ${wanted}")
            teller.say(model, name, str(result.reason), result.tokens)


@story("how replies state their use")
async def stated(teller: Teller) -> None:
    gate = teller.gate(**EASY)
    details = {"prompt_tokens": 1_000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 600}}
    replies: dict[str, Any] = {
        "openai": {"usage": details},
        "openai, input": {
            "usage": {"input_tokens": 50, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 9}}
        },
        "anthropic": {
            "usage": {
                "input_tokens": 10,
                "output_tokens": 20,
                "cache_read_input_tokens": 300,
                "cache_creation_input_tokens": 40,
            }
        },
        "request": {"usage": {"request_tokens": 7, "response_tokens": 3}},
        "object": SimpleNamespace(usage=SimpleNamespace(input_tokens=5, output_tokens=None)),
        "called": SimpleNamespace(usage=lambda: {"input_tokens": 8, "output_tokens": 2}),
        "dollars": {"usage": {"cost_usd": 0.25}},
        "dollars and tokens": {"usage": {"cost_usd": 1, "input_tokens": 4, "output_tokens": 4}},
        "nothing": {"text": "no use is stated"},
        "none": {"usage": None},
        "empty": {"usage": {}},
        "another model": {"usage": USAGE, "model": "unheard-of"},
        "no count": {"usage": {"input_tokens": "many"}},
        "true": {"usage": {"input_tokens": True}},
        "below nothing": {"usage": {"input_tokens": -1, "output_tokens": 1}},
        "no dollars": {"usage": {"cost_usd": "much", "input_tokens": 4}},
        "true dollars": {"usage": {"cost_usd": True}},
        "infinite dollars": {"usage": {"cost_usd": float("inf")}},
        "dollars below nothing": {"usage": {"cost_usd": -0.1}},
        "zero dollars": {"usage": {"cost_usd": 0}},
    }
    wanted = {"dollars": 0.25, "openai": 0.0101, "anthropic": 0.0037}
    for name, reply in replies.items():
        for model in (MODEL, None):
            result = await gate.run(turn_of(reply), model)
            teller.say(name, str(model), str(result.reason), result.tokens, f"${result.cost_usd:.6f}", result.details)
            if name in wanted and model == MODEL:
                teller.expect(f"{name} costs", round(result.cost_usd, 6), wanted[name])


def turn_of(reply: Any, **words: Any) -> Any:
    async def agent(run: Any, model: Any) -> None:
        async with run.step(model=model, **words) as step:
            step.charge_reply(reply)

    return agent


@story("prices that nobody knows")
async def unpriced(teller: Teller) -> None:
    for word in ("refuse", "allow"):
        for budgets in ({"max_usd": 5}, {"max_usd": None}):
            gate = teller.gate(prices_unknown=word, **capped(**budgets))

            async def agent(run: Any, task: Any) -> None:
                for model in ("unheard-of", "unheard-of", None, MODEL):
                    async with run.child() as child:
                        await child.model(ask, model=model)
                    await run.model(ask, model=model, max_output_tokens=10)

            result = await teller.run(gate, agent)
            teller.say(word, budgets, result.steps)


@story("caps of a run, one by one")
async def caps(teller: Teller) -> None:
    calls = [[("a.read", {"n": n})] for n in (1, 2, 2, 1, 3, 4)]
    cases: dict[str, dict[str, Any]] = {
        "unique": {"max_unique_calls": 2},
        "calls": {"max_tool_calls": 3},
        "steps": {"max_steps": 3},
        "tokens": {"max_tokens": 300},
        "dollars": {"max_usd": 0.0030},
        "age": {"max_age_s": 3},
        "seconds": {"max_seconds": 3},
        "nothing": {"max_tool_calls": 0},
        "no limit": {"max_steps": None, "max_seconds": None, "max_tool_calls": None, "max_usd": None},
    }
    for name, budgets in cases.items():
        for stop_on in (["cost_budget"], ["tool_budget", "step_budget", "cost_budget"]):
            config = capped(**budgets)
            config["agent"] = {**config["agent"], "stop_on": stop_on}
            gate = teller.gate(**config)
            done = shop(gate)
            agent = script(teller, *calls)

            async def slowly(run: Any, task: Any, agent: Any = agent) -> Any:
                if run.scope.deadline_s < 1e9:
                    await teller.use(run, "a.read", n=9)
                    await asyncio.sleep(2.5)
                return await agent(run, task)

            teller.say("--", name, stop_on)
            result = await teller.run(gate, slowly)
            teller.say("done", done)
            if name == "unique":
                teller.expect("different calls", len(set(done)), 2)
            if name == "nothing":
                teller.expect("nothing was done", done, [])
            if name == "dollars":
                teller.expect("within the cap", result.cost_usd <= 0.0030, True)


@story("calls when the time is over")
async def late(teller: Teller) -> None:
    for mode in ("enforce", "observe"):
        gate = teller.gate(mode=mode, **capped(max_seconds=2))
        done = shop(gate)

        async def agent(run: Any, task: Any) -> None:
            await teller.use(run, "a.read", n=1)
            await asyncio.sleep(3.0)
            await asyncio.gather(teller.use(run, "a.read", n=2), teller.use(run, "a.put", n=2), return_exceptions=True)

        await teller.run(gate, agent)
        teller.expect("done", len(done), 1 if mode == "enforce" else 3)


@story("turns that do not say what they may cost")
async def undeclared(teller: Teller) -> None:
    for budgets in ({"max_usd": 0.01}, {"max_usd": 0.01, "reserve_usd_per_turn": 0.004}, {"max_tokens": 100}):
        for wrap_up in (None, "wrap_up"):
            config = capped(**budgets)
            config["agent"] = {**config["agent"], "on_stop": wrap_up}
            gate = teller.gate(**config)

            async def agent(run: Any, task: Any) -> str:
                async def one(usd: float) -> None:
                    async with run.step() as step:
                        teller.say("a turn", str(step.number), str(step.wrap_up))
                        await asyncio.sleep(1.0)
                        step.charge({"cost_usd": usd, "input_tokens": 10, "output_tokens": 10})

                for usd in (0.001, 0.002, 0.003):
                    await one(usd)
                await asyncio.gather(*(one(0.003) for _ in range(3)), return_exceptions=True)
                async with run.step(model=MODEL, max_output_tokens=50) as step:
                    teller.say("one that says it", str(step.wrap_up))
                    step.charge(USAGE)
                for _ in range(4):
                    await one(0.001)
                return "done"

            result = await teller.run(gate, agent)
            teller.expect("at most the turns in flight too much", result.cost_usd <= 0.01 + 3 * 0.003 + 0.0012, True)


@story("children draw on what their parent has")
async def children(teller: Teller) -> None:
    config = capped(max_steps=6, max_tool_calls=5, max_unique_calls=4, max_usd=0.02)
    config["tools"] = {"allow": ["*"], "budgets": {"a.put": {"max_calls": 2}}}
    gate = teller.gate(**config)
    done = shop(gate)

    async def agent(run: Any, task: Any) -> str:
        for name, words in (
            ("first", {"budgets": {"max_steps": 1}}),
            ("second", {"budgets": {"max_tool_calls": 1}}),
            ("third", {"budgets": {"max_usd": 0.001}}),
            ("fourth", {"allow": ["a.put"]}),
            ("fifth", {}),
        ):
            try:
                async with run.child(name, **words) as child:
                    for n in range(2):
                        await child.model(ask, model=MODEL, max_output_tokens=20, input_tokens=100)
                        await teller.use(child, "a.read", n=n)
                        await teller.use(child, "a.put", n=n)
            except InterlockError as error:
                teller.say(name, "ended", type(error).__name__, str(error.reason), str(error))
        return "done"

    result = await teller.run(gate, agent)
    teller.expect("within the caps", (result.steps <= 6, len(done) <= 5), (True, True))
    teller.say("done", done)


@story("answered calls are not counted as made")
async def answered(teller: Teller) -> None:
    config = capped(max_unique_calls=3)
    config["tools"] = {"allow": ["*"], "budgets": {"a.put": {"max_calls": 2}}}
    gate = teller.gate(**config)
    done = shop(gate)
    calls = [("a.put", {"n": n}) for n in (1, 1, 1, 2, 1, 3)] + [("a.read", {"n": n}) for n in (1, 2, 3)]
    await teller.run(gate, script(teller, *([call] for call in calls)), request_id="r")
    teller.expect("done", done, ["put 1", "put 2", "read 1"])
    await teller.run(gate, script(teller, *([call] for call in calls)), request_id="r", retry=True)
    teller.say("done", done)


@story("what a tenant may use")
async def tenants(teller: Teller) -> None:
    budgets = {"max_usd_per_day": 0.005, "max_concurrent_runs": 1, "max_steps": 3}
    gate = teller.gate(**EASY, tenants={"t": {"budgets": budgets}, "u": {"budgets": {"max_concurrent_runs": 2}}})
    shop(gate)

    async def slow(run: Any, task: Any) -> str:
        await run.model(ask, model=MODEL, max_output_tokens=20, input_tokens=100)
        await asyncio.sleep(2.0)
        await teller.use(run, "a.read", n=task)
        return "done"

    await asyncio.gather(*(teller.run(gate, slow, n, tenant_id=tenant) for n, tenant in enumerate("tttuuu")))
    for _ in range(2):
        await teller.run(gate, script(teller, [("a.read", {"n": 1})], [("a.read", {"n": 2})]), tenant_id="t")
    teller.clock.jump_wall(86_400.0)
    result = await teller.run(gate, script(teller, *([("a.read", {"n": n})] for n in range(5))), tenant_id="t")
    teller.expect("the next day, to the narrower cap", (str(result.reason), result.steps), ("step_budget", 3))
    store = gate.house().store
    store.away |= {"reserve"}
    await teller.run(gate, slow, 1, tenant_id="t")
    waits = [
        asyncio.ensure_future(teller.run(gate, slow, n, tenant_id="t", budgets={"max_seconds": 3})) for n in range(4)
    ]
    await asyncio.gather(*waits)


@story("what a loop is")
async def loops(teller: Teller) -> None:
    plans: dict[str, list[list[tuple[str, dict[str, Any]]]]] = {
        "reads": [[("a.read", {"n": "same"})]] * 6,
        "large answers": [[("a.read", {"n": "large"})]] * 6,
        "failures": [[("a.fail", {"n": 1})]] * 6,
        "in one batch": [[("a.read", {"n": "same"})] * 4] * 3,
        "writes": [[("a.put", {"n": 1})]] * 6,
        "allowed writes": [[("a.flip", {"n": 1})]] * 6,
        "allowed writes in one batch": [[("a.flip", {"n": 1})] * 3] * 2,
        "a cycle of two": [[("a.flip", {"n": n % 2})] for n in range(9)],
        "a cycle of three": [[("a.flip", {"n": n % 3})] for n in range(12)],
        "a cycle of four": [[("a.flip", {"n": n % 4})] for n in range(16)],
        "a cycle of five": [[("a.flip", {"n": n % 5})] for n in range(16)],
        "a write between": [[("a.read", {"n": "same"})], [("a.read", {"n": "same"})], [("a.put", {"n": 1})]] * 3,
        "the same write between": [[("a.put", {"n": 1})], [("a.put", {"n": 1})], [("a.put", {"n": 2})]] * 3,
        "refused writes": [[("a.put", {"n": "refused"})]] * 5,
        "nothing new": [[("a.read", {"n": n % 4})] for n in range(14)],
    }
    for mode in ("enforce", "observe"):
        for name, turns in plans.items():
            gate = teller.gate(mode=mode, **EASY)
            done = shop(gate)
            seen: list[Any] = []
            result = await gate.run(script(teller, *turns, seen=seen, said=False), agent_name="a")
            teller.say(
                f"{mode}, {name}: {result.reason}, {len(done)} made", [each.status for each in seen], result.details
            )
    for rules in ({"exempt": ["a.read"]}, {"repeated_calls_threshold": None}, {"no_progress_threshold": None}):
        gate = teller.gate(**EASY | {"agent": {**EASY["agent"], "loop_detection": rules}})
        done = shop(gate)
        result = await gate.run(script(teller, *([[("a.read", {"n": "same"})]] * 8), said=False))
        teller.say(str(rules), str(result.reason), len(done))
        if "exempt" in rules:
            teller.expect("exempt", len(done), 8)


@story("a long run remembers what it has seen")
async def long_run(teller: Teller) -> None:
    config = capped(max_tool_calls=None, max_steps=None)
    config["agent"] = {**config["agent"], "loop_detection": {"no_progress_threshold": None}, "stop_on": []}
    gate = teller.gate(**config)
    done = shop(gate)

    async def agent(run: Any, task: Any) -> None:
        async def use(n: Any, tool: str = "a.read") -> str:
            return str((await run.observe(tool, {"n": n})).status)

        for first, last, again in (
            (0, 70, (3, 3, 69, 69)),
            (100, 2_250, (100, 100, 2_200, 5)),
            (3_000, 5_100, (100, 5, 5)),
        ):
            made = [await use(n) for n in range(first, last)]
            teller.say(f"{last - first} new calls", str(set(made)), [await use(n) for n in again])
        teller.say("after a write", [await use(7, "a.put"), *[await use(n) for n in (5, 5, 5)], await use(7, "a.put")])

    result = await gate.run(agent)
    teller.say(str(result.reason), len(done))
