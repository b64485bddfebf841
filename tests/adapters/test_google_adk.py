"""Google ADK with its real runner and a scripted model."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from google.adk.agents import LlmAgent, LoopAgent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.apps import App
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.plugins import ReflectAndRetryToolPlugin
from google.adk.runners import InMemoryRunner
from google.adk.tools import AgentTool, FunctionTool
from google.genai import types

from interlock import Interlock, StopReason
from interlock.adapters.google_adk import interlock_plugin

PRICE = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 10.0}


def use(name: str, call_id: str = "c1", /, **args: Any) -> types.Part:
    return types.Part(function_call=types.FunctionCall(id=call_id, name=name, args=args))


class Scripted(BaseLlm):
    """Says one thing after the other, and the last for ever."""

    script: list[Any]
    asked: list[Any]

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
        said = self.script[min(len(self.asked), len(self.script) - 1)]
        self.asked.append(llm_request.model_copy())
        if isinstance(said, Exception):
            raise said
        parts = [types.Part(text=said)] if isinstance(said, str) else list(said)
        usage = types.GenerateContentResponseUsageMetadata(prompt_token_count=100, candidates_token_count=10)
        if stream and isinstance(said, str):
            for word in said.split():
                yield LlmResponse(content=types.ModelContent(types.Part(text=word)), partial=True)
        yield LlmResponse(content=types.ModelContent(parts), usage_metadata=usage, model_version="scripted")

    def told(self) -> list[dict[str, Any]]:
        parts = [part for content in self.asked[-1].contents for part in content.parts or ()]
        return [dict(part.function_response.response) for part in parts if part.function_response]


def model(*script: Any) -> Scripted:
    return Scripted(model="scripted", script=list(script), asked=[])


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


async def say(agent: Any, plugins: list[Any], *, stream: bool = False) -> tuple[str, list[Any]]:
    runner = InMemoryRunner(app=App(name="app", root_agent=agent, plugins=plugins))
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    mode = RunConfig(streaming_mode=StreamingMode.SSE if stream else StreamingMode.NONE)
    text, events = "", []
    async for event in runner.run_async(
        user_id="u", session_id=session.id, new_message=types.UserContent("go"), run_config=mode
    ):
        events.append(event)
        if event.is_final_response() and event.content and event.content.parts:
            text = "".join(part.text or "" for part in event.content.parts)
    return text, events


async def run(g: Interlock, agent: Any, *, before: Any = (), stream: bool = False, **options: Any) -> Any:
    async def body(_run: Any, _task: str) -> str:
        return (await say(agent, [*before, interlock_plugin(g)], stream=stream))[0]

    return await g.run(body, "go", agent_name="body", **options)


def agent(chat: Scripted, tools: list[Any], name: str = "a") -> LlmAgent:
    return LlmAgent(name=name, model=chat, tools=tools, description="Helps.")


def ticket(done: Counter[str], *errors: Exception) -> FunctionTool:
    async def ticket(title: str) -> dict[str, str]:
        """Create a ticket."""
        done[title] += 1
        if done[title] <= len(errors):
            raise errors[done[title] - 1]
        return {"url": title}

    return FunctionTool(ticket)


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_pass_the_funnel_and_turns_are_charged(stream):
    done: Counter[str] = Counter()
    chat = model([use("ticket", title="a")], "all done")
    async with gate() as g:
        result = await run(g, agent(chat, [ticket(done)]), stream=stream)
    assert (result.output, result.steps, result.tool_calls, result.tokens) == ("all done", 2, 1, 220)
    assert result.cost_usd == pytest.approx(220 * 10 / 1e6)
    assert chat.told() == [{"url": "a"}]


async def test_a_lost_answer_ends_the_agent_at_the_next_turn_and_keeps_its_events():
    done: Counter[str] = Counter()
    chat = model([types.Part(text="I try."), use("ticket", title="a")])
    events: list[Any] = []
    async with gate() as g:
        work = agent(chat, [ticket(done, *[TimeoutError()] * 9)])

        async def body(_run: Any, _task: str) -> str:
            text, seen = await say(work, [interlock_plugin(g)])
            events.extend(seen)
            return text

        result = await g.run(body, "go")
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert result.details["partial"] in ("", {"text": "I try."}) or "I try." in str(result.details["partial"])
    assert done == {"a": 1}
    assert len(chat.asked) == 1
    assert events[-1].error_code == "INTERLOCK_OUTCOME_UNKNOWN"


async def test_retries_of_a_plugin_cannot_multiply_a_write():
    bare_done: Counter[str] = Counter()
    done: Counter[str] = Counter()
    script = ([use("ticket", title="a")], [use("ticket", "c2", title="a")], "done")
    await say(agent(model(*script), [ticket(bare_done, *[TimeoutError()] * 9)]), [ReflectAndRetryToolPlugin()])
    async with gate() as g:
        work = agent(model(*script), [ticket(done, *[TimeoutError()] * 9)])
        result = await run(g, work, before=[ReflectAndRetryToolPlugin()])
    assert bare_done == {"a": 2}
    assert done == {"a": 1}
    assert result.reason is StopReason.OUTCOME_UNKNOWN


async def test_refusals_are_told_and_siblings_settle():
    done: Counter[str] = Counter()

    async def note(text: str) -> None:
        """Note."""
        done[text] += 1

    chat = model(
        [use("ticket", title="a"), use("note", "c2", text="n"), use("purge", "c3"), use("ticket", "c4", title=7)],
        "done",
    )
    async with gate(tools={"deny": ["ticket"]}) as g:
        result = await run(g, agent(chat, [ticket(done), FunctionTool(note)]))
    assert result.ok, result.details
    assert done == {"n": 1}
    told = chat.told()
    assert told[0] == {"error": "This tool is not permitted here. It was not executed, and will not be."}
    assert told[2] == told[0]


async def test_arguments_that_do_not_fit_are_refused_in_the_funnel():
    done: Counter[str] = Counter()
    chat = model([use("ticket", title=7), use("ticket", "c2"), use("ticket", "c3", title="a", other=1)], "done")
    async with gate() as g:
        result = await run(g, agent(chat, [ticket(done)]))
    assert result.ok
    assert not done
    assert all("It was not executed." in told["error"] for told in chat.told())


@pytest.mark.parametrize("sync", [False, True])
async def test_the_key_is_hidden_and_filled(sync):
    keys: list[Any] = []

    async def refund(order: str, *, idempotency_key: str) -> str:
        """Refund."""
        keys.append(idempotency_key)
        if len(keys) == 1:
            raise TimeoutError
        return "refunded"

    def refund_sync(order: str, *, idempotency_key: str) -> str:
        """Refund."""
        keys.append(idempotency_key)
        if len(keys) == 1:
            raise TimeoutError
        return "refunded"

    refund_sync.__name__ = "refund"
    chat = model([use("refund", order="7")], "done")
    async with gate(tools={"writes": {"refund": {"on_unknown": "resend"}}}) as g:
        result = await run(g, agent(chat, [FunctionTool(refund_sync if sync else refund)]))
    assert result.ok, result.details
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert keys[0].startswith("il1_")
    assert "idempotency_key" not in str(chat.asked[0].config.tools)
    assert chat.told() == [{"result": "refunded"}]


@pytest.mark.filterwarnings("ignore:The `plugins` argument is deprecated")  # ADK's own AgentTool passes it
async def test_an_agent_inside_a_tool_works_in_a_child():
    done: Counter[str] = Counter()
    inner = agent(model([use("ticket", title="a")], "found"), [ticket(done)], "research")
    outer_chat = model([use("research", request="x")], [use("ticket", "c9", title="a")], "done")
    async with gate(tools={"effects": {"research": "read"}}) as g:
        result = await run(g, agent(outer_chat, [AgentTool(inner), ticket(done)]))
    assert result.output == "done", result.details
    assert result.steps == 5, outer_chat.told()
    assert done == {"a": 1}


@pytest.mark.filterwarnings("ignore:LoopAgent is deprecated")
async def test_a_loop_of_agents_ends_with_the_run():
    done: Counter[str] = Counter()
    chat = model([use("ticket", title="a")], "again")
    async with gate(agent={"budgets": {"max_steps": 5}}) as g:
        result = await run(g, LoopAgent(name="loop", sub_agents=[agent(chat, [ticket(done)])], max_iterations=50))
    assert result.reason is StopReason.STEP_BUDGET
    assert len(chat.asked) == 5


async def test_a_parked_run_goes_on_by_replay(tmp_path):
    done: Counter[str] = Counter()

    async def approve(x: int) -> str:
        """Ask."""
        done["approved"] += x
        return "ok"

    script = ([use("ticket", title="a")], [use("ticket", "c2", title="a"), use("approve", "c3", x=1)], "done")
    tools = [ticket(done), FunctionTool(approve)]
    async with gate(tmp_path / "a.db", tools={"writes": {"approve": {"approval": "required"}}}) as g:
        first = await run(g, agent(model(*script), tools), request_id="r1")
        assert first.reason is StopReason.APPROVAL_PENDING
        store = g.house().store
        (row,) = await store.approvals.list()
        await store.approvals.decide(row.id, approved=True, by="me")
        chat = model("done")
        second = await run(g, agent(chat, tools), request_id="r1", retry="resume")
    assert second.ok, second.details
    assert len(chat.asked) == 1
    assert done == {"a": 1, "approved": 1}


async def test_a_request_that_failed_closes_its_turn():
    chat = model(ConnectionError("model down"))
    async with gate() as g:
        result = await run(g, agent(chat, []))
    assert not result.ok
    assert result.details["error"] == "ConnectionError"
    assert result.steps == 1


async def test_outside_of_a_run_nothing_is_done():
    chat = model([use("ticket", title="a")])
    async with gate() as g:
        with pytest.raises(RuntimeError, match=r"gate\.run"):
            await say(agent(chat, [ticket(Counter())]), [interlock_plugin(g)])
    assert not chat.asked


async def test_what_a_tool_does_is_read_off_its_metadata_where_nobody_else_says():
    done: Counter[str] = Counter()
    said_read = ticket(done, *[TimeoutError()] * 2)
    said_read.custom_metadata = {"effect": "read"}
    async with gate() as g:
        result = await run(g, agent(model([use("ticket", title="a")], "done"), [said_read]))
    assert result.ok
    assert done == {"a": 3}, "a lost answer of a read is asked for again"
    lost = ticket(done, *[TimeoutError()] * 9)
    lost.custom_metadata = {"effect": "read"}
    async with gate(tools={"effects": {"ticket": "write"}}) as g:
        result = await run(g, agent(model([use("ticket", title="b")], "done"), [lost]))
    assert result.reason is StopReason.OUTCOME_UNKNOWN, "what the configuration says goes before it"
    assert done["b"] == 1


@pytest.mark.parametrize("confirmed", [True, False])
async def test_the_frameworks_own_confirmation_counts(confirmed):
    done: Counter[str] = Counter()

    async def refund(order: str) -> dict[str, str]:
        """Refund."""
        done[order] += 1
        return {"refunded": order}

    chat = model([use("refund", order="7")], "done")
    work = agent(chat, [FunctionTool(refund, require_confirmation=True)])
    rows: list[Any] = []
    async with gate(tools={"writes": {"refund": {"approval": "required"}}}) as g:
        runner = InMemoryRunner(app=App(name="app", root_agent=work, plugins=[interlock_plugin(g)]))
        session = await runner.session_service.create_session(app_name="app", user_id="u")

        async def turn(message: Any) -> list[Any]:
            given = {"user_id": "u", "session_id": session.id, "new_message": message}
            return [event async for event in runner.run_async(**given)]

        async def body(current: Any, _task: str) -> str:
            asked = [call for event in await turn(types.UserContent("go")) for call in event.get_function_calls()]
            assert not done
            (question,) = [call for call in asked if call.name == "adk_request_confirmation"]
            answer = types.FunctionResponse(id=question.id, name=question.name, response={"confirmed": confirmed})
            await turn(types.UserContent(types.Part(function_response=answer)))
            rows.extend(current.scope.trace.rows())
            return "over"

        result = await g.run(body, "go")
    assert result.output == "over", result.details
    assert done == ({"7": 1} if confirmed else {})
    assert [(row["tool"], row["status"]) for row in rows] == [("refund", "success" if confirmed else "refused")]
    assert confirmed or "not" in chat.told()[-1]["error"]
