"""Microsoft Agent Framework with its real loop and OpenAI client, over a transport that is a script."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import httpx
import pytest
from agent_framework import (
    Agent,
    FunctionMiddleware,
    FunctionTool,
    MiddlewareFailure,
    MiddlewareTermination,
    tool,
)
from agent_framework.openai import OpenAIChatCompletionClient
from openai import AsyncOpenAI

from interlock import Interlock, StopReason
from interlock.adapters.agent_framework import AgentStopped, interlock_middleware
from interlock.core.errors import NoRun

PRICE = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 10.0}


def use(name: str, call_id: str = "c1", /, **args: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}


class Model:
    """Says one thing after the other, and the last for ever."""

    def __init__(self, *script: Any) -> None:
        self.script = script
        self.asked: list[dict[str, Any]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        said = self.script[min(len(self.asked), len(self.script) - 1)]
        self.asked.append(body)
        message = (
            {"role": "assistant", "content": said}
            if isinstance(said, str)
            else {"role": "assistant", "content": None, "tool_calls": said}
        )
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        finish = "stop" if isinstance(said, str) else "tool_calls"
        head = {"id": f"r{len(self.asked)}", "created": 1, "model": "scripted"}
        if not body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": finish}
            return httpx.Response(200, json={**head, "object": "chat.completion", "choices": [choice], "usage": usage})
        if not isinstance(said, str):
            message["tool_calls"] = [{**call, "index": i} for i, call in enumerate(said)]
        chunk = {**head, "object": "chat.completion.chunk"}
        lines = [
            {**chunk, "choices": [{"index": 0, "delta": message, "finish_reason": None}]},
            {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
            {**chunk, "choices": [], "usage": usage},
        ]
        text = "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"
        return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})

    def client(self) -> Any:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.answer))
        return OpenAIChatCompletionClient(
            "scripted",
            async_client=AsyncOpenAI(api_key="x", base_url="http://model/v1", http_client=http, max_retries=0),
        )

    def told(self) -> list[str]:
        return [m["content"] for m in self.asked[-1]["messages"] if m["role"] == "tool"]


def gate(store: Any = ":memory:", **changes: Any) -> Interlock:
    tools = {
        "allow": ["*"],
        "effects": {"look": "read"},
        "retries": {"max_attempts": 3, "backoff_ms": [0]},
        **changes.pop("tools", {}),
    }
    config = {
        "prices": {"scripted": PRICE},
        "tools": tools,
        "approvals": {"wait_s": 0},
        "logging": {"level": "error"},
        **changes,
    }
    return Interlock(config, store=f"sqlite:///{store}")


def agent(g: Interlock, model: Model, tools: list[Any], before: Any = (), after: Any = ()) -> Any:
    return Agent(model.client(), "Help.", name="a", tools=tools, middleware=[*before, *interlock_middleware(g), *after])


async def run(g: Interlock, work: Any, *, stream: bool = False, **options: Any) -> Any:
    async def body(_run: Any, task: str) -> str:
        if not stream:
            return (await work.run(task)).text
        replies = work.run(task, stream=True)
        async for _ in replies:
            pass
        return (await replies.get_final_response()).text

    return await g.run(body, "go", agent_name="body", **options)


def ticket(done: Counter[str], *errors: Exception) -> FunctionTool:
    async def create(title: str) -> dict[str, str]:
        """Create a ticket."""
        done[title] += 1
        if done[title] <= len(errors):
            raise errors[done[title] - 1]
        return {"url": title}

    return FunctionTool(name="ticket", description="Create a ticket.", func=create)


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_pass_the_funnel_and_turns_are_charged(stream):
    done: Counter[str] = Counter()
    model = Model([use("ticket", title="a")], "done")
    async with gate() as g:
        result = await run(g, agent(g, model, [ticket(done)]), stream=stream)
    assert (result.output, result.steps, result.tool_calls, result.tokens) == ("done", 2, 1, 220)
    assert result.cost_usd == pytest.approx(220 * 10 / 1e6)
    assert json.loads(model.told()[0]) == {"url": "a"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_lost_answer_stops_the_run_at_the_next_turn(stream):
    done: Counter[str] = Counter()
    model = Model([use("ticket", title="a")])
    async with gate() as g:
        result = await run(g, agent(g, model, [ticket(done, *[TimeoutError()] * 9)]), stream=stream)
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert done == {"a": 1}
    assert len(model.asked) == 1


async def test_refusals_are_told_and_siblings_settle():
    done: Counter[str] = Counter()

    @tool(approval_mode="never_require")
    async def note(text: str) -> str:
        """Note."""
        done[text] += 1
        return "noted"

    model = Model([use("ticket", title="a"), use("note", "c2", text="n"), use("purge", "c3")], "done")
    async with gate(tools={"deny": ["ticket"]}) as g:
        result = await run(g, agent(g, model, [ticket(done), note]))
    assert result.ok
    assert done == {"n": 1}
    assert model.told()[0] == "This tool is not permitted here. It was not executed, and will not be."
    assert result.tool_calls == 1  # a refused call costs no budget
    assert "not found" in model.told()[2]


async def test_the_key_is_hidden_and_filled():
    keys: list[str] = []

    async def refund(order: str, *, idempotency_key: str) -> str:
        """Refund."""
        keys.append(idempotency_key)
        if len(keys) == 1:
            raise TimeoutError
        return "refunded"

    model = Model([use("refund", order="7", idempotency_key="mine")], "done")
    async with gate(tools={"writes": {"refund": {"on_unknown": "resend"}}}) as g:
        result = await run(g, agent(g, model, [FunctionTool(name="refund", description="Refund.", func=refund)]))
    assert result.ok, result.details
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert keys[0].startswith("il1_")
    assert "idempotency_key" not in json.dumps(model.asked[0]["tools"])
    assert model.told() == ["refunded"]


async def test_a_tool_of_the_gate_and_a_sync_one():
    keys: list[str] = []
    async with gate() as g:

        @g.tool("ticket.create", effect="write", allow=True)
        def create_ticket(title: str, *, idempotency_key: str) -> dict[str, str]:
            """Create a ticket."""
            keys.append(idempotency_key)
            if len(keys) == 1:
                raise TimeoutError
            return {"url": title}

        made = FunctionTool(name="ticket_create", description="Create.", func=create_ticket)
        model = Model([use("ticket_create", title="a")], "done")
        result = await run(g, agent(g, model, [made]))
    assert result.ok, result.details
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert json.loads(model.told()[0]) == {"url": "a"}


async def test_arguments_that_do_not_fit_are_refused():
    done: Counter[str] = Counter()
    broken = use("ticket")
    broken["function"]["arguments"] = '{"title": "a'
    model = Model([use("ticket", title=7), use("ticket", "c2", name="a"), {**broken, "id": "c3"}], "done")
    async with gate() as g:
        result = await run(g, agent(g, model, [ticket(done)]))
    assert result.ok
    assert not done
    assert all("It was not executed." in text for text in model.told())


async def test_middlewares_that_repeat_the_call_or_end_the_loop():
    done: Counter[str] = Counter()

    class Twice(FunctionMiddleware):
        async def process(self, context, call_next):
            await call_next()
            await call_next()

    class Ends(FunctionMiddleware):
        async def process(self, context, call_next):
            await call_next()
            raise MiddlewareTermination("enough", result=context.result)

    async with gate() as g:
        result = await run(g, agent(g, Model([use("ticket", title="a")], "done"), [ticket(done)], before=[Twice()]))
        assert result.output == "done"
        assert done == {"a": 1}
        model = Model([use("ticket", title="b")], "done")
        result = await run(g, agent(g, model, [ticket(done)], after=[Ends()]))
        assert result.ok, result.details
    assert done == {"a": 1, "b": 1}
    assert len(model.asked) == 1


async def test_a_failure_of_another_middleware_after_the_write_is_no_proof():
    done: Counter[str] = Counter()

    class Breaks(FunctionMiddleware):
        async def process(self, context, call_next):
            await call_next()
            raise MiddlewareFailure("audit log is down")

    async with gate() as g:
        result = await run(g, agent(g, Model([use("ticket", title="a")]), [ticket(done)], after=[Breaks()]))
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert done == {"a": 1}


async def test_the_frameworks_own_approval_counts():
    done: Counter[str] = Counter()

    @tool(approval_mode="always_require")
    async def refund(order: str) -> str:
        """Refund."""
        done[order] += 1
        return "refunded"

    from agent_framework import Message

    async with gate(tools={"writes": {"refund": {"approval": "required"}}}) as g:
        model = Model([use("refund", order="7")], "done")
        work = agent(g, model, [refund])

        async def body(_run: Any, _task: str) -> str:
            session = work.create_session()
            first = await work.run("go", session=session)
            (request,) = first.user_input_requests
            assert not done
            second = await work.run(
                Message("user", [request.to_function_approval_response(approved=True)]), session=session
            )
            return second.text

        result = await g.run(body, "go")
    assert result.output == "done", result.details
    assert done == {"7": 1}


async def test_an_agent_inside_a_tool_works_in_a_child():
    done: Counter[str] = Counter()
    inner_model = Model([use("ticket", title="a")], "found")
    outer_model = Model([use("research", task="x")], [use("ticket", "c9", title="a")], "done")
    async with gate(tools={"effects": {"research": "read"}}) as g:
        inner = agent(g, inner_model, [ticket(done)])
        outer = agent(g, outer_model, [inner.as_tool(name="research", description="Research."), ticket(done)])
        result = await run(g, outer)
    assert result.output == "done", result.details
    assert result.steps == 5
    assert done == {"a": 1}


async def test_a_parked_run_goes_on_by_replay(tmp_path):
    done: Counter[str] = Counter()

    async def approve(x: int) -> str:
        done["approved"] += x
        return "ok"

    tools = [ticket(done), FunctionTool(name="approve", description="Ask.", func=approve)]
    script = ([use("ticket", title="a")], [use("ticket", "c2", title="a"), use("approve", "c3", x=1)], "done")
    for stream in (False, True):
        async with gate(tmp_path / f"{stream}.db", tools={"writes": {"approve": {"approval": "required"}}}) as g:
            first = await run(g, agent(g, Model(*script), tools), stream=stream, request_id="r1")
            assert first.reason is StopReason.APPROVAL_PENDING
            store = g.house().store
            (row,) = await store.approvals.list()
            await store.approvals.decide(row.id, approved=True, by="me")
            model = Model("done")
            second = await run(g, agent(g, model, tools), stream=stream, request_id="r1", retry="resume")
        assert second.ok, second.details
        assert len(model.asked) == 1
        assert done == {"a": 1, "approved": 1}
        done.clear()


async def test_outside_of_a_run_nothing_is_done():
    model = Model([use("ticket", title="a")])
    async with gate() as g:
        with pytest.raises(NoRun, match=r"gate\.run"):
            await agent(g, model, [ticket(Counter())]).run("go")
    assert not model.asked
    assert issubclass(AgentStopped, MiddlewareFailure)


async def test_what_a_function_does_is_read_off_its_properties_where_nobody_else_says():
    done: Counter[str] = Counter()
    said_read = ticket(done, *[TimeoutError()] * 2)
    said_read.additional_properties = {"effect": "read"}
    async with gate() as g:
        result = await run(g, agent(g, Model([use("ticket", title="a")], "done"), [said_read]))
    assert result.ok
    assert done == {"a": 3}, "a lost answer of a read is asked for again"
    lost = ticket(done, *[TimeoutError()] * 9)
    lost.additional_properties = {"effect": "read"}
    async with gate(tools={"effects": {"ticket": "write"}}) as g:
        result = await run(g, agent(g, Model([use("ticket", title="b")], "done"), [lost]))
    assert result.reason is StopReason.OUTCOME_UNKNOWN, "what the configuration says goes before it"
    assert done["b"] == 1
