"""Runs end to end on the embedded store: what an agent holds, and how runs end."""

import asyncio
import threading
from typing import Any

import pytest
from pydantic import BaseModel

import interlock
from interlock import StopReason

MEMORY = "sqlite:///:memory:"


class Ticket(BaseModel):
    id: str
    url: str


class World:
    """A remote that counts effects."""

    def __init__(self):
        self.effects = []

    def create(self, **fields):
        self.effects.append(fields)
        return {"id": str(len(self.effects)), "url": f"https://t/{len(self.effects)}"}


@pytest.fixture
async def gate():
    gate = interlock.Interlock(store=MEMORY)
    yield gate
    await gate.aclose()


@pytest.fixture
def world():
    return World()


async def test_a_run_answers_with_the_agents_output_and_its_counters(gate, world):
    @gate.tool("ticket.create", effect="write", output=Ticket)
    async def create(title: str, *, idempotency_key: str) -> dict[str, Any]:
        return world.create(title=title, key=idempotency_key)

    async def agent(run, task):
        reply = await run.model(ask, task)
        ticket = await run.call("ticket.create", {"title": reply["text"]})
        assert isinstance(ticket, Ticket)
        return ticket.url

    async def ask(prompt):
        return {"text": prompt.upper(), "usage": {"input_tokens": 3, "output_tokens": 2, "cost_usd": 0.01}}

    result = await gate.run(agent, "users can't log in", tenant_id="acme", request_id="req_7842")
    assert result.reason is StopReason.SUCCESS
    assert result.output == "https://t/1"
    assert (result.steps, result.tool_calls, result.tokens) == (1, 1, 5)
    assert result.cost_usd == pytest.approx(0.01)
    assert (result.tenant_id, result.request_id) == ("acme", "req_7842")
    assert result.run_id.startswith("run_")
    assert world.effects[0]["title"] == "USERS CAN'T LOG IN"
    assert world.effects[0]["key"].startswith("il1_")


async def test_a_request_is_run_once_and_a_duplicate_gets_its_outcome(gate, world):
    runs = []

    async def agent(run, task):
        runs.append(run.run_id)
        return {"echo": task}

    first = await gate.run(agent, "x", request_id="r1")
    second = await gate.run(agent, "x", request_id="r1")
    assert runs == [first.run_id]
    assert second.replayed
    assert (second.run_id, second.output, second.reason) == (first.run_id, {"echo": "x"}, StopReason.SUCCESS)


async def test_concurrent_duplicates_wait_for_the_one_run(gate):
    started = []

    async def agent(run, task):
        started.append(run.run_id)
        await asyncio.sleep(0.05)
        return "done"

    results = await asyncio.gather(*(gate.run(agent, "x", request_id="r1") for _ in range(8)))
    assert len(started) == 1
    assert {r.output for r in results} == {"done"}
    assert {r.run_id for r in results} == set(started)


async def test_the_same_request_id_with_another_payload_is_invalid_input(gate):
    async def agent(run, task):
        return task

    await gate.run(agent, "x", request_id="r1")
    other = await gate.run(agent, "y", request_id="r1")
    assert other.reason is StopReason.INVALID_INPUT
    assert "another payload" in other.details["message"]
    other_tenant = await gate.run(agent, "y", request_id="r1", tenant_id="b")
    assert other_tenant.reason is StopReason.SUCCESS


async def test_retry_plans_afresh_under_the_same_effect_keys(gate, world):
    @gate.tool("pay", effect="write")
    async def pay(amount: int, *, idempotency_key: str) -> dict[str, Any]:
        return world.create(amount=amount, key=idempotency_key)

    async def agent(run, task):
        return await run.call("pay", {"amount": 5})

    first = await gate.run(agent, "x", request_id="r1")
    again = await gate.run(agent, "x", request_id="r1", retry=True)
    assert not again.replayed
    assert again.run_id != first.run_id
    assert again.output == first.output
    assert len(world.effects) == 1


@pytest.mark.parametrize("bad", ["", "a\nb", "x" * 10_000, "\x00"])
async def test_an_unusable_request_id_is_invalid_input(gate, bad):
    async def agent(run, task):
        raise AssertionError("never run")

    result = await gate.run(agent, "x", request_id=bad)
    assert result.reason is StopReason.INVALID_INPUT
    assert "request_id" in result.details["message"]


async def test_a_task_that_is_not_json_needs_a_payload_when_a_request_id_is_given(gate):
    async def agent(run, task):
        return "ok"

    refused = await gate.run(agent, object(), request_id="r1")
    assert refused.reason is StopReason.INVALID_INPUT
    assert "payload=" in refused.details["message"]
    assert (await gate.run(agent, object(), request_id="r1", payload={"n": 1})).ok
    assert (await gate.run(agent, object())).ok


async def test_what_an_agent_raises_is_a_named_reason_never_an_exception(gate):
    async def broken(run, task):
        raise KeyError("boom")

    async def slow(run, task):
        raise TimeoutError

    result = await gate.run(broken, "x")
    assert result.reason is StopReason.INTERNAL_ERROR
    assert result.details["error"] == "KeyError"
    assert (await gate.run(slow, "x")).reason is StopReason.TOOL_TIMEOUT


async def test_a_refusal_not_caught_ends_the_run_with_its_reason(gate):
    async def agent(run, task):
        await run.call("db.write", {"sql": "drop"})

    result = await gate.run(agent, "x")
    assert result.reason is StopReason.TOOL_DENIED
    assert result.details["policy"] == "unknown_tool"


async def test_observe_hands_a_refusal_to_the_loop(gate):
    async def agent(run, task):
        seen = await run.observe("email.send", {"to": "a"})
        assert not seen.ok
        assert seen.reason is StopReason.TOOL_DENIED
        assert seen.status == "denied"
        assert "again" not in seen.for_model
        return "went on"

    assert (await gate.run(agent, "x")).output == "went on"


async def test_a_decorated_tool_called_inside_a_run_is_a_guarded_call_and_outside_it_is_refused(gate, world):
    @gate.tool("add", effect="read")
    async def add(a: int, b: int = 2) -> int:
        return a + b

    async def agent(run, task):
        return [await add(1), await add(1, b=5), await add(a=3, b=4)]

    result = await gate.run(agent, "x")
    assert result.output == [3, 6, 7]
    assert result.tool_calls == 3
    with pytest.raises(interlock.NoRun, match="unguarded"):
        await add(1)
    assert await add.unguarded(1) == 3


async def test_sync_agents_and_sync_tools_use_the_same_words(gate):
    threads = set()

    @gate.tool("slow.read", effect="read")
    def slow(n: int) -> int:
        threads.add(threading.current_thread().name)
        return n * 2

    def agent(run, task):
        with run.step():
            pass
        direct = slow(n=3)
        called = run.call("slow.read", {"n": 4})
        seen = run.observe("slow.read", {"n": 5})
        with run.child("sub") as child:
            nested = child.call("slow.read", {"n": 6})
        return [direct, called, seen.value, nested]

    result = await gate.run(agent, "x")
    assert result.output == [6, 8, 10, 12]
    assert result.steps == 1
    assert threading.main_thread().name not in threads


def test_run_sync_needs_no_loop():
    with interlock.Interlock(store=MEMORY) as gate:

        @gate.tool("echo", effect="read")
        async def echo(x: str) -> str:
            return x

        def agent(run, task):
            return run.call("echo", {"x": task})

        assert gate.run_sync(agent, "hello").output == "hello"


async def test_parallel_calls_share_the_run(gate):
    @gate.tool("read", effect="read")
    async def read(n: int) -> int:
        await asyncio.sleep(0)
        return n

    async def agent(run, task):
        async with run.step():
            pass
        return await asyncio.gather(*(run.call("read", {"n": n}) for n in range(10)))

    result = await gate.run(agent, "x")
    assert result.output == list(range(10))
    assert result.tool_calls == 10


async def test_a_stop_refuses_further_calls_and_ends_at_the_next_model_turn(gate):
    seen = []

    @gate.tool("read", effect="read")
    async def read(n: int) -> int:
        return n

    async def agent(run, task):
        for n in range(10):
            async with run.step():
                seen.append(n)
            await run.observe("read", {"n": n})

    result = await gate.run(agent, "x", budgets={"max_tool_calls": 3})
    assert result.reason is StopReason.TOOL_BUDGET
    assert result.tool_calls == 3
    assert seen == [0, 1, 2, 3]  # the fourth turn's call was refused; the fifth turn did not start


async def test_siblings_of_a_refused_call_settle(gate, world):
    gone = asyncio.Event()

    @gate.tool("slow.write", effect="write")
    async def write(n: int, *, idempotency_key: str) -> dict[str, Any]:
        gone.set()
        await asyncio.sleep(0.02)
        return world.create(n=n)

    async def agent(run, task):
        async with run.step():
            pass
        sibling = asyncio.ensure_future(run.observe("slow.write", {"n": 1}))
        await gone.wait()
        refused = await run.observe("slow.write", {"n": 2})
        assert refused.reason is StopReason.TOOL_BUDGET
        assert (await sibling).ok
        async with run.step():
            raise AssertionError("no further turn")

    result = await gate.run(agent, "x", budgets={"max_tool_calls": 1})
    assert result.reason is StopReason.TOOL_BUDGET
    assert len(world.effects) == 1


async def test_an_agent_that_swallows_the_stop_is_cancelled_at_its_third_further_call(gate):
    calls = 0

    @gate.tool("read", effect="read")
    async def read(n: int) -> int:
        return n

    async def agent(run, task):
        nonlocal calls
        while True:
            calls += 1
            try:
                await run.call("read", {"n": calls})
            except interlock.InterlockError:
                await asyncio.sleep(0)

    result = await gate.run(agent, "x", budgets={"max_tool_calls": 5})
    assert result.reason is StopReason.TOOL_BUDGET
    assert calls <= 5 + 1 + 4


async def test_an_agent_that_ignores_even_its_cancellation_is_left_behind(gate):
    release = asyncio.Event()

    async def agent(run, task):
        await run.observe("nothing", {})
        while not release.is_set():
            try:
                async with run.step():
                    pass
            except asyncio.CancelledError:
                pass
            except interlock.RunStopped:
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

    result = await gate.run(agent, "x", budgets={"max_steps": 1})
    assert result.reason is StopReason.STEP_BUDGET
    release.set()


async def test_three_turns_of_nothing_but_refusals_end_the_run_with_the_last_ones_reason(gate):
    turns = 0

    async def agent(run, task):
        nonlocal turns
        while True:
            async with run.step():
                turns += 1
            await run.observe("db.write", {"n": turns})

    result = await gate.run(agent, "x")
    assert result.reason is StopReason.TOOL_DENIED
    assert turns == 3
    assert result.details["refusals"] == 3


async def test_an_executed_call_resets_the_count_of_refusals(gate):
    @gate.tool("read", effect="read")
    async def read(n: int) -> int:
        return n

    async def agent(run, task):
        for n in range(12):
            async with run.step():
                pass
            await run.observe("db.write", {"n": n})
            if n % 2:
                await run.observe("read", {"n": n})
        return "done"

    assert (await gate.run(agent, "x")).output == "done"


async def test_a_child_draws_on_the_parents_budget_and_its_own_cap_stops_only_it(gate):
    @gate.tool("read", effect="read")
    async def read(n: int) -> int:
        return n

    async def agent(run, task):
        async with run.child("scout", budgets={"max_tool_calls": 1}) as child:
            await child.call("read", {"n": 1})
            refused = await child.observe("read", {"n": 2})
            assert refused.reason is StopReason.TOOL_BUDGET
        assert child.result.reason is StopReason.TOOL_BUDGET
        assert child.result.tool_calls == 1
        await run.call("read", {"n": 3})
        return "parent went on"

    result = await gate.run(agent, "x", budgets={"max_tool_calls": 2})
    assert result.output == "parent went on"
    assert result.tool_calls == 2


async def test_equal_writes_of_two_children_are_one_effect(gate, world):
    @gate.tool("pay", effect="write")
    async def pay(amount: int, *, idempotency_key: str) -> dict[str, Any]:
        return world.create(amount=amount)

    async def agent(run, task):
        values = []
        for name in ("a", "b"):
            async with run.child(name) as child:
                values.append(await child.call("pay", {"amount": 5}))
        return values

    result = await gate.run(agent, "x")
    assert result.output[0] == result.output[1]
    assert len(world.effects) == 1


async def test_open_run_serves_a_hand_written_loop(gate):
    @gate.tool("read", effect="read")
    async def read(n: int) -> int:
        return n

    async with gate.open_run("task") as run:
        run.output = await run.call("read", {"n": 1})
    assert run.result.reason is StopReason.SUCCESS
    assert run.result.output == 1
    async with gate.open_run("task", budgets={"max_steps": 2}) as run:
        while True:
            async with run.step():
                pass
    assert run.result.reason is StopReason.STEP_BUDGET


async def test_open_run_of_a_request_with_an_outcome_says_so(gate):
    async with gate.open_run("t", request_id="r1") as run:
        run.output = 1
    with pytest.raises(interlock.AlreadyEnded) as raised:
        async with gate.open_run("t", request_id="r1"):
            raise AssertionError("never entered")
    assert raised.value.result.output == 1


async def test_open_run_of_a_running_request_says_so(gate):
    async with gate.open_run("t", request_id="r1") as run:
        with pytest.raises(interlock.AlreadyRunning) as raised:
            async with gate.open_run("t", request_id="r1"):
                raise AssertionError("never entered")
        assert raised.value.run_id == run.run_id


async def test_a_cancelled_caller_is_recorded_and_raised(gate):
    entered = asyncio.Event()

    async def agent(run, task):
        entered.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(gate.run(agent, "x", request_id="r1"))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gate.house().store.flush()
    stored = await gate.run(agent, "x", request_id="r1")
    assert stored.reason is StopReason.CANCELLED


async def test_wrap_up_allows_one_last_turn_without_tools():
    async with interlock.Interlock({"agent": {"on_stop": "wrap_up"}}, store=MEMORY) as gate:

        @gate.tool("read", effect="read")
        async def read(n: int) -> int:
            return n

        async def agent(run, task):
            turns = 0
            while True:
                try:
                    async with run.step() as step:
                        turns += 1
                        if step.wrap_up:
                            return f"so far: {turns - 1}"
                except interlock.RunStopped:
                    return "no turn was given"
                await run.observe("read", {"n": turns})

        result = await gate.run(agent, "x", budgets={"max_tool_calls": 2})
    assert result.reason is StopReason.TOOL_BUDGET
    assert result.output is None
    assert result.details["partial"] == "so far: 3"


@pytest.mark.parametrize(
    ("budgets", "words", "wraps"),
    [
        ({"max_steps": 1}, {}, True),
        ({"max_tokens": 5}, {"max_output_tokens": 50}, True),
        ({"max_usd": 0.001}, {"max_output_tokens": 1_000_000, "model": "openai:gpt-4o"}, False),
        ({"max_steps": 1, "max_usd": 0.001}, {"max_output_tokens": 1_000_000, "model": "openai:gpt-4o"}, False),
        ({"max_steps": 1, "max_usd": 0.001}, {"max_output_tokens": 10, "model": "openai:gpt-4o"}, True),
        ({}, {"model": "nobody:unheard-of"}, False),
    ],
)
async def test_the_turn_that_a_budget_refuses_is_itself_the_wrap_up_turn_unless_it_would_cost(budgets, words, wraps):
    """Most agents ask for a turn once."""
    async with interlock.Interlock({"agent": {"on_stop": "wrap_up"}}, store=MEMORY) as gate:

        async def agent(run, task):
            async with run.step():
                pass
            async with run.step(**words) as step:
                return step.wrap_up
            return None

        result = await gate.run(agent, "x", budgets=budgets)
    assert not result.ok
    assert result.details.get("partial") is (True if wraps else None)


async def test_an_unknown_price_under_a_dollar_cap_stops_before_the_turn(gate):
    asked = []

    async def agent(run, task):
        await run.model(asked.append, "hi", model="nobody:unheard-of", max_output_tokens=5)

    result = await gate.run(agent, "x")
    assert result.reason is StopReason.COST_BUDGET
    assert "price of nobody:unheard-of unknown: add prices.nobody:unheard-of, or set max_usd: null" in str(
        result.details
    )
    assert asked == []


async def test_a_turn_that_could_break_the_dollar_cap_is_not_started(gate):
    turns = []

    async def ask(n):
        turns.append(n)
        return {"usage": {"input_tokens": 1_000, "output_tokens": 1_000}}

    async def agent(run, task):
        for n in range(10):
            await run.model(ask, n, model="openai:gpt-4o", max_output_tokens=1_000, input_tokens=1_000)

    result = await gate.run(agent, "x", budgets={"max_usd": 0.03})
    assert result.reason is StopReason.COST_BUDGET
    assert turns == [0, 1]  # 0.0125 each: a third could reach 0.0375
    assert result.cost_usd == pytest.approx(0.025)


async def test_the_deadline_cuts_a_model_turn(gate):
    async def never():
        await asyncio.Event().wait()

    async def agent(run, task):
        await run.model(never)

    result = await gate.run(agent, "x", budgets={"max_seconds": 0.05})
    assert result.reason is StopReason.TIME_BUDGET


async def test_the_deadline_ends_an_agent_that_hangs_by_itself(gate):
    async def agent(run, task):
        run.partial = "half"
        await asyncio.Event().wait()

    result = await gate.run(agent, "x", budgets={"max_seconds": 0.05})
    assert result.reason is StopReason.TIME_BUDGET
    assert result.details["partial"] == "half"


async def test_a_sync_agent_that_cannot_be_cancelled_is_abandoned(gate):
    release = threading.Event()
    after = []

    def agent(run, task):
        release.wait(10)
        try:
            run.call("read", {"n": 1})
        except interlock.RunStopped:
            after.append("refused")

    result = await gate.run(agent, "x", budgets={"max_seconds": 0.05})
    assert result.reason is StopReason.TIME_BUDGET
    release.set()
    for _ in range(200):
        if after:
            break
        await asyncio.sleep(0.01)
    assert after == ["refused"]


async def test_a_kill_stops_the_run_at_its_next_call(gate):
    reads = []

    @gate.tool("read", effect="read")
    async def read(n: int) -> int:
        reads.append(n)
        if n == 2:
            await gate.house().store.switches.set("global", "", "kill", reason="looping rollout", actor="anna")
        return n

    clock = gate.house().clock

    async def agent(run, task):
        for n in range(100):
            async with run.step():
                pass
            await run.observe("read", {"n": n})
            if n >= 2:
                await clock.sleep(0.1)

    result = await gate.run(agent, "x")
    assert result.reason is StopReason.KILLED
    assert result.details["actor"] == "anna"
    assert len(reads) < 10


async def test_observe_mode_refuses_nothing_and_records_what_it_would_have():
    async with interlock.Interlock(
        {"mode": "observe", "tools": {"deny": ["db.*"]}, "agent": {"budgets": {"max_tool_calls": 2}}}, store=MEMORY
    ) as gate:

        @gate.tool("db.write", effect="write", allow=True)
        async def write(n: int) -> int:
            return n

        async def agent(run, task):
            return [await run.call("db.write", {"n": n}) for n in range(4)]

        result = await gate.run(agent, "x")
    assert result.output == [0, 1, 2, 3]
    assert set(result.details["would_have"]) == {"tool_denied", "tool_budget"}


async def test_the_record_has_the_fields_of_the_article(gate):
    @gate.tool("search.read", effect="read")
    async def search(q: str) -> list[str]:
        return [q]

    async def agent(run, task):
        async with run.step():
            pass
        await run.call("search.read", {"q": "a"})
        await run.observe("db.write", {})

    result = await gate.run(agent, "x", tenant_id="acme_corp", request_id="r1")
    row = await gate.house().store.run(result.run_id)
    record = row.record
    assert list(record)[:9] == [
        "run_id", "tenant_id", "timestamp", "stop_reason", "steps", "tool_calls", "duration_s", "cost_usd", "trace",
    ]  # fmt: skip
    assert [entry["status"] for entry in record["trace"]] == ["success", "denied"]
    assert list(record["trace"][0])[:5] == ["step", "tool", "args_hash", "duration_ms", "status"]
    assert record["stop_reason"] == "success"


async def test_calls_that_an_agent_does_not_wait_for_are_counted_on_record(gate):
    sent = asyncio.Event()

    @gate.tool("slow.send", effect="write", natural=True, allow=True)
    async def slow_send() -> dict:
        sent.set()
        await asyncio.sleep(0.05)
        return {}

    async def agent(run, task):
        under_way.append(asyncio.ensure_future(run.observe("slow.send", {})))
        await sent.wait()
        return "done"

    under_way = []
    result = await gate.run(agent, "x")
    assert result.details["unfinished_calls"] == 1
    await under_way[0]
