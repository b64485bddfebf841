"""What LangChain and LangGraph have of their own stays: injection, handoffs, streams, checkpoints, interrupts."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import pytest
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain.tools import InjectedState, InjectedStore, ToolRuntime
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, Tool, tool
from langchain_scene import BUILDERS, TURN_USD, World, agent, asks, gate, given, graph, model, says, told, use
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from interlock import StopReason

BOTH = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


async def run(gate_: Any, work: Any, **options: Any) -> tuple[Any, Any]:
    kept: dict[str, Any] = {}

    async def body(_run: Any, task: str) -> Any:
        kept["state"] = await work.ainvoke(given(task), options.pop("config", None))
        return kept["state"]["messages"][-1].text

    result = await gate_.run(body, "go", agent_name="body", **{k: v for k, v in options.items() if k != "config"})
    return result, kept.get("state")


# -- what the graph injects


async def test_injected_arguments_reach_the_tool_and_are_no_part_of_the_call():
    seen: list[Any] = []

    @tool
    async def note(
        text: str,
        state: Annotated[dict, InjectedState],
        store: Annotated[Any, InjectedStore()],
        runtime: ToolRuntime,
        call_id: Annotated[str, InjectedToolCallId],
    ) -> str:
        """Note something."""
        seen.append((text, len(state["messages"]), store is not None, runtime.tool_call_id, call_id))
        return "noted"

    chat = model(asks(use("note", text="a")), asks(use("note", "c2", text="a")), says("done"))
    async with gate() as g:
        result, state = await run(g, agent(g, chat, [note], store=InMemoryStore()))
    assert result.ok, result.details
    # The second is the same write of the same request, whatever the graph injected.
    assert seen == [("a", 2, True, "c1", "c1")]
    assert [m.content for m in told(state)] == ["noted", "noted"]


@BOTH
async def test_tools_of_other_kinds(build):
    world = World()

    class Look(BaseTool):
        name: str = "look"
        description: str = "Look."

        def _run(self, where: str) -> str:
            world.done["look"] += 1
            return f"saw {where}"

    def search(q: str) -> tuple[str, dict[str, int]]:
        """Search."""
        return f"found {q}", {"hits": 3}

    searching = StructuredTool.from_function(search, response_format="content_and_artifact")
    echo = Tool(name="echo", description="Echo.", func=lambda text: text.upper())
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

    async def remote(runtime: Any = None, **arguments: Any) -> Any:  # as langchain-mcp-adapters makes them
        return ([{"type": "text", "text": f"sunny in {arguments['city']}"}], {"structured_content": arguments})

    weather = StructuredTool(
        name="weather",
        description="Weather.",
        args_schema=schema,
        coroutine=remote,
        response_format="content_and_artifact",
    )
    calls = asks(
        use("look", "c1", where="here"),
        use("search", "c2", q="x"),
        use("echo", "c3", __arg1="hi"),
        use("weather", "c4", city="Oslo"),
        use("weather", "c5", town="Oslo"),
    )
    async with gate() as g:
        result, state = await run(g, build(g, model(calls, says("done")), [Look(), searching, echo, weather]))
    assert result.ok, result.details
    by_id = {m.tool_call_id: m for m in told(state)}
    assert by_id["c1"].content == "saw here"
    assert (by_id["c2"].content, by_id["c2"].artifact) == ("found x", {"hits": 3})
    assert by_id["c3"].content == "HI"
    assert by_id["c4"].artifact == {"structured_content": {"city": "Oslo"}}
    assert by_id["c5"].additional_kwargs["interlock"]["status"] == "invalid_arguments"


@BOTH
def test_a_tool_that_only_awaits_works_in_a_sync_graph(build):
    threads: list[str] = []

    async def search(q: str) -> str:
        """Search."""
        threads.append(threading.current_thread().name)
        return q

    g = gate()
    try:

        def body(_run: Any, _task: str) -> Any:
            chat = model(asks(use("search", q="x")), says("done"))
            return build(g, chat, [StructuredTool.from_function(coroutine=search)]).invoke(given())["messages"][-1].text

        result = g.run_sync(body, "go")
    finally:
        g.close()
    assert result.output == "done"
    assert threads == ["interlock-portal"]


@BOTH
async def test_commands_of_tools_update_the_graph_also_when_replayed(build):
    done: list[str] = []

    @tool
    async def claim(order: str, call_id: Annotated[str, InjectedToolCallId]) -> Command:
        """Claim an order."""
        done.append(order)
        return Command(update={"messages": [ToolMessage(f"claimed {order}", tool_call_id=call_id)]})

    chat = model(asks(use("claim", order="7")), asks(use("claim", "c2", order="7")), says("done"))
    async with gate() as g:
        result, state = await run(g, build(g, chat, [claim]))
    assert result.ok, result.details
    assert done == ["7"]
    assert [(m.content, m.tool_call_id) for m in told(state)] == [("claimed 7", "c1"), ("claimed 7", "c2")]


# -- streams


@BOTH
@pytest.mark.parametrize("way", ["astream", "astream_events", "stream"])
async def test_streams_are_charged_and_stopped(build, way):
    chunks: list[Any] = []
    chat = model(asks(use("search", q="x")), says("one two three"), streams=True)

    @tool
    def search(q: str) -> str:
        """Search."""
        return q

    async with gate() as g:
        work = build(g, chat, [search])

        async def body(_run: Any, _task: str) -> str:
            if way == "astream":
                async for piece in work.astream(given(), stream_mode="messages"):
                    chunks.append(piece)
            else:
                async for event in work.astream_events(given(), version="v2"):
                    if event["event"] == "on_chat_model_stream":
                        chunks.append(event)
            return "done"

        def sync_body(_run: Any, _task: str) -> str:
            chunks.extend(work.stream(given(), stream_mode="messages"))
            return "done"

        result = await g.run(sync_body if way == "stream" else body, "go")
    assert result.ok, result.details
    assert result.steps == 2
    assert result.tokens == 220
    assert result.cost_usd == pytest.approx(2 * TURN_USD)
    assert len(chunks) >= 4


# -- partial results, the framework's own state


@BOTH
async def test_partial_output_is_kept_and_native_messages_stay_available(build):
    chat = model(asks(use("search", q="1"), text="looking"), asks(use("search", "c2", q="2"), text="still looking"))

    @tool
    async def search(q: str) -> str:
        """Search."""
        return q

    saver = InMemorySaver()
    async with gate(agent__budgets={"max_steps": 2}) as g:
        work = build(g, chat, [search])
        work.checkpointer = saver
        config = {"configurable": {"thread_id": "t"}}
        result, _ = await run(g, work, config=config)
        native = await work.aget_state(config)
    assert result.reason is StopReason.STEP_BUDGET
    partial = result.details["partial"]
    assert partial["text"] == "still looking"
    assert [m["type"] for m in partial["messages"]] == ["human", "ai", "tool", "ai"]
    assert [m.type for m in native.values["messages"]] == ["human", "ai", "tool", "ai", "tool"]
    assert native.next == ("model",)


@BOTH
async def test_the_wrap_up_turn_has_no_tools(build):
    chat = model(asks(use("search", q="1"), use("search", "c2", q="2")), says("this is what I have"))

    @tool
    async def search(q: str) -> str:
        """Search."""
        return q

    async with gate(agent__budgets={"max_tool_calls": 1}, agent__on_stop="wrap_up") as g:
        result, _ = await run(g, build(g, chat, [search]))
    assert result.reason is StopReason.TOOL_BUDGET
    assert result.details["partial"] == "this is what I have"
    assert [len(tools) for tools in chat.offered] == [1, 0]


async def test_structured_output_comes_back_as_its_type():
    class Weather(BaseModel):
        city: str
        degrees: int

    chat = model(asks(use("Weather", city="Oslo", degrees=7)))
    from langchain.agents.structured_output import ToolStrategy

    async with gate() as g:
        _, state = await run(g, agent(g, chat, [], response_format=ToolStrategy(Weather)))
    assert state["structured_response"] == Weather(city="Oslo", degrees=7)


# -- resuming


def failing(world: World, crash: list[bool]) -> Any:
    @tool
    async def ticket(title: str) -> dict[str, str]:
        """Create a ticket."""
        world.done[title] += 1
        return {"url": title}

    @tool
    async def approve_me(x: int) -> str:
        """Wait for a person."""
        world.done["approved"] += x
        return "ok"

    return [ticket, approve_me]


@BOTH
async def test_a_parked_run_goes_on_by_replay(build, tmp_path):
    """The second delivery asks the model nothing again and executes nothing again, up to where the first one parked."""
    world = World()
    writes = {"approve_me": {"approval": "required"}}
    script = (
        asks(use("ticket", title="a")),
        asks(use("ticket", "c2", title="a"), use("approve_me", "c3", x=1)),
        says("done"),
    )
    async with gate(tmp_path / "a.db", tools__writes=writes) as g:
        first, _ = await run(g, build(g, model(*script), failing(world, [])), request_id="r1")
        assert first.reason is StopReason.APPROVAL_PENDING
        store = g.house().store
        (row,) = await store.approvals.list()
        await store.approvals.decide(row.id, approved=True, by="me")
        chat = model(says("done"), says("done"))
        second, state = await run(g, build(g, chat, failing(world, [])), request_id="r1", retry="resume")
    assert second.ok, second.details
    assert world.done == {"a": 1, "approved": 1}
    assert len(chat.asked) == 1  # only the turn that the first delivery had not come to
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "ai", "tool", "tool", "ai"]
    assert second.steps == 3


async def test_structured_output_and_commands_are_replayed_as_they_were(tmp_path):
    class Weather(BaseModel):
        city: str

    @tool
    async def claim(order: str, call_id: Annotated[str, InjectedToolCallId]) -> Command:
        """Claim an order."""
        return Command(update={"messages": [ToolMessage(f"claimed {order}", tool_call_id=call_id)]})

    @tool
    async def approve_me(x: int) -> str:
        """Wait for a person."""
        return "ok"

    from langchain.agents.structured_output import ToolStrategy

    words = {"response_format": ToolStrategy(Weather)}
    script = (
        asks(use("claim", order="7")),
        asks(use("approve_me", "c2", x=1)),
        asks(use("Weather", "c3", city="Oslo")),
    )
    async with gate(tmp_path / "a.db", tools__writes={"approve_me": {"approval": "required"}}) as g:
        await run(g, agent(g, model(*script), [claim, approve_me], **words), request_id="r1")
        store = g.house().store
        (row,) = await store.approvals.list()
        await store.approvals.decide(row.id, approved=True, by="me")
        chat = model(script[2])
        result, state = await run(g, agent(g, chat, [claim, approve_me], **words), request_id="r1", retry="resume")
    assert result.ok, result.details
    assert state["structured_response"] == Weather(city="Oslo")
    assert told(state)[0].content == "claimed 7"


# -- people


async def test_a_person_in_langgraphs_loop_decides_before_the_funnel_sees_the_call():
    world = World()
    hitl = HumanInTheLoopMiddleware(interrupt_on={"ticket": True})
    chat = model(asks(use("ticket", title="a")), says("done"))
    async with gate() as g:
        work = agent(g, chat, failing(world, []), before=[hitl], checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "t"}}

        async def begin(_run: Any, _task: str) -> str:
            state = await work.ainvoke(given(), config)
            return "asked" if "__interrupt__" in state else "not asked"

        async def decide(_run: Any, _task: str) -> str:
            edit = {"type": "edit", "edited_action": {"name": "ticket", "args": {"title": "b"}}}
            state = await work.ainvoke(Command(resume={"decisions": [edit]}), config)
            return state["messages"][-1].text

        first = await g.run(begin, "go")
        assert (first.output, world.done) == ("asked", {})
        second = await g.run(decide, "go")
    assert second.output == "done"
    assert world.done == {"b": 1}  # what the person made of it passed the funnel


@BOTH
async def test_an_interrupt_inside_a_tool_is_the_graphs_own(build):
    world = World()

    @tool
    async def refund(order: str) -> str:
        """Refund."""
        answer = interrupt({"refund": order})
        world.done[answer] += 1
        return f"refunded: {answer}"

    chat = model(asks(use("refund", order="7")), says("done"))
    async with gate() as g:
        work = build(g, chat, [refund])
        work.checkpointer = InMemorySaver()
        config = {"configurable": {"thread_id": "t"}}

        async def begin(_run: Any, _task: str) -> Any:
            return (await work.ainvoke(given(), config))["__interrupt__"][0].value

        async def go_on(_run: Any, _task: str) -> str:
            return (await work.ainvoke(Command(resume="yes"), config))["messages"][-1].text

        first = await g.run(begin, "go")
        assert (first.output, first.reason, world.done) == ({"refund": "7"}, StopReason.SUCCESS, {})
        second = await g.run(go_on, "go")
    assert second.output == "done"
    assert world.done == {"yes": 1}


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("answer", ["approve", "edit", "reject"])
async def test_the_frameworks_own_approval_parks_the_run_and_goes_on_from_its_checkpoint(tmp_path, answer, sync):
    """The refund is asked for by an interrupt; the search before it is neither paid nor executed again."""
    world = World()

    @tool
    async def search(q: str) -> str:
        """Search."""
        world.done["searched"] += 1
        return "found"

    @tool
    async def refund(order: str) -> str:
        """Refund."""
        world.done[order] += 1
        return "refunded"

    def build(g: Any, chat: Any, saver: Any) -> Any:
        from langchain.agents import create_agent

        from interlock.adapters.langchain import interlock_middleware

        middleware = [interlock_middleware(g, approvals="framework")]
        return create_agent(chat, [search, refund], middleware=middleware, checkpointer=saver)

    saver, config = InMemorySaver(), {"configurable": {"thread_id": "t"}}
    decisions = {
        "approve": {"type": "approve"},
        "edit": {"type": "edit", "edited_action": {"name": "refund", "args": {"order": "8"}}},
        "reject": {"type": "reject", "message": "not this one"},
    }

    async def go(g: Any, work: Any, said: Any) -> Any:
        async def body(_run: Any, _task: str) -> str:
            return (await work.ainvoke(said, config))["messages"][-1].text

        def sync_body(_run: Any, _task: str) -> str:
            return work.invoke(said, config)["messages"][-1].text

        return await g.run(sync_body if sync else body, "go", request_id="r1", retry="resume", agent_name="body")

    async with gate(tmp_path / "a.db", tools__writes={"refund": {"approval": "required"}}) as g:
        script = (asks(use("search", q="x")), asks(use("refund", "c2", order="7")))
        first = await go(g, build(g, model(*script), saver), given())
        assert first.reason is StopReason.APPROVAL_PENDING, first.details
        assert first.parked
        chat = model(says("done"))
        second = await go(g, build(g, chat, saver), Command(resume={"decisions": [decisions[answer]]}))
    assert second.output == "done", second.details
    assert second.steps == 3
    assert world.done == {"searched": 1} | {"approve": {"7": 1}, "edit": {"8": 1}, "reject": {}}[answer]
    assert len(chat.asked) == 1


@BOTH
async def test_a_graph_goes_on_from_its_own_checkpoint_under_the_same_request(build, tmp_path):
    """What LangGraph brings along of the first delivery is neither asked nor executed again."""
    world = World()
    tools = failing(world, [])
    saver, config = InMemorySaver(), {"configurable": {"thread_id": "t"}}
    writes = {"approve_me": {"approval": "required"}}

    async def go(g: Any, chat: Any, said: Any) -> Any:
        work = build(g, chat, tools)
        work.checkpointer = saver

        async def body(_run: Any, _task: str) -> str:
            return (await work.ainvoke(said, config))["messages"][-1].text

        return await g.run(body, "go", request_id="r1", retry="resume", agent_name="body")

    async with gate(tmp_path / "a.db", tools__writes=writes) as g:
        script = (asks(use("ticket", title="a")), asks(use("approve_me", "c2", x=1)))
        first = await go(g, model(*script), given())
        assert first.reason is StopReason.APPROVAL_PENDING
        store = g.house().store
        (row,) = await store.approvals.list()
        await store.approvals.decide(row.id, approved=True, by="me")
        chat = model(asks(use("approve_me", "c3", x=1)), asks(use("ticket", "c4", title="a")), says("done"))
        second = await go(g, chat, None)
    assert second.output == "done", second.details
    assert len(chat.asked) == 3
    assert second.steps == 5
    assert world.done == {"a": 1, "approved": 1}


# -- agents in agents


@BOTH
@pytest.mark.parametrize("sync", [False, True])
async def test_an_agent_inside_a_tool_works_in_a_child_of_the_run(build, sync):
    world = World()
    tools = failing(world, [])
    async with gate(tools__effects={"research": "read"}) as g:
        inner_chat = model(asks(use("ticket", title="a"), use("purge", "c2", x=1)), says("found"))
        inner = build(g, inner_chat, tools)

        async def research(task: str) -> str:
            """Research."""
            return (await inner.ainvoke(given(task)))["messages"][-1].text

        def research_sync(task: str) -> str:
            """Research."""
            return inner.invoke(given(task))["messages"][-1].text

        delegate = StructuredTool.from_function(
            **({"func": research_sync, "name": "research"} if sync else {"coroutine": research})
        )
        outer_chat = model(asks(use("research", task="x")), asks(use("ticket", "c9", title="a")), says("done"))
        outer = build(g, outer_chat, [delegate, *tools])
        children: list[Any] = []

        async def body(run_: Any, _task: str) -> str:
            original = run_._open_child
            run_._open_child = lambda *a: children.append(original(*a)) or children[-1]
            return (await outer.ainvoke(given()))["messages"][-1].text

        def sync_body(run_: Any, _task: str) -> str:
            original = run_._open_child
            run_._open_child = lambda *a: children.append(original(*a)) or children[-1]
            return outer.invoke(given())["messages"][-1].text

        result = await g.run(sync_body if sync else body, "go")
    assert result.output == "done", result.details
    assert [child.agent.rpartition("/")[2] for child in children] == ["research"]
    assert children[0].result.steps == 2
    assert result.steps == 5
    assert world.done == {"a": 1}  # the parent's write of the same ticket is the child's


async def test_a_stop_of_the_run_inside_a_nested_agent_is_told_to_the_outer_batch():
    world = World()
    async with gate(tools__effects={"research": "read"}, agent__budgets={"max_steps": 2}) as g:
        inner = agent(g, model(asks(use("ticket", title="a"))), failing(world, []))

        async def research(task: str) -> str:
            """Research."""
            return (await inner.ainvoke(given(task)))["messages"][-1].text

        outer_chat = model(asks(use("research", task="x")))
        outer = agent(g, outer_chat, [StructuredTool.from_function(coroutine=research)])
        result, _ = await run(g, outer)
    assert result.reason is StopReason.STEP_BUDGET
    assert len(outer_chat.asked) == 1


# -- side by side


async def test_runs_side_by_side_do_not_see_each_other():
    import asyncio

    worlds = [World() for _ in range(8)]
    async with gate() as g:
        works = [
            graph(g, model(asks(use("ticket", title=str(i))), says(str(i))), failing(world, []))
            for i, world in enumerate(worlds)
        ]
        results = await asyncio.gather(*(run(g, work, tenant_id=f"t{i}") for i, work in enumerate(works)))
    assert [result.output for result, _ in results] == [str(i) for i in range(8)]
    assert all(world.done == {str(i): 1} for i, world in enumerate(worlds))


async def test_one_agent_serves_many_runs_at_once():
    import asyncio

    world = World()

    def script(messages: list[Any]) -> AIMessage:
        return (
            says("done") if isinstance(messages[-1], ToolMessage) else asks(use("ticket", title=messages[-1].content))
        )

    async with gate() as g:
        work = agent(g, model(script), failing(world, []))

        async def body(_run: Any, task: str) -> str:
            return (await work.ainvoke({"messages": [HumanMessage(task)]}))["messages"][-1].text

        results = await asyncio.gather(*(g.run(body, f"t{i}") for i in range(10)))
    assert all(result.output == "done" for result in results)
    assert world.done == {f"t{i}": 1 for i in range(10)}
