"""LangChain agents and graphs of one's own, with the real runtime: what the gate promises holds in both."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from langchain.agents.middleware import ModelRetryMiddleware, ToolRetryMiddleware
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, InjectedToolArg, StructuredTool, ToolException, tool
from langchain_scene import BUILDERS, PRICE, TURN_USD, World, agent, asks, gate, given, graph, model, says, told, use
from langgraph.errors import GraphBubbleUp
from langgraph.types import RetryPolicy

from interlock import StopReason
from interlock.adapters.langchain import GraphStopped
from interlock.core.errors import NoRun

BOTH = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


def ticket_tool(world: World, *errors: Exception, sync: bool = False) -> BaseTool:
    """A write that loses its answer as often as there are errors."""

    def act(title: str) -> dict[str, str]:
        """Create a ticket."""
        world.done[title] += 1
        if world.done[title] <= len(errors):
            raise errors[world.done[title] - 1]
        return {"url": f"https://t/{title}"}

    async def aact(title: str) -> dict[str, str]:
        return act(title)

    words = {"func": act} if sync else {"func": act, "coroutine": aact}
    return StructuredTool.from_function(name="ticket", description="Create a ticket.", **words)


async def run(gate_: Any, work: Any, **options: Any) -> tuple[Any, Any]:
    """Run `work` (a graph's input to a state) in a run; return result and state."""
    kept: dict[str, Any] = {}

    async def body(_run: Any, task: str) -> Any:
        kept["state"] = await work.ainvoke(given(task))
        return kept["state"]["messages"][-1].text

    result = await gate_.run(body, "go", **options)
    return result, kept.get("state")


def run_sync(gate_: Any, work: Any, **options: Any) -> tuple[Any, Any]:
    """Do the same from sync code."""
    kept: dict[str, Any] = {}

    def body(_run: Any, task: str) -> Any:
        kept["state"] = work.invoke(given(task))
        return kept["state"]["messages"][-1].text

    result = gate_.run_sync(body, "go", **options)
    return result, kept.get("state")


# -- the plain course of things


@BOTH
async def test_a_call_passes_the_funnel_and_its_native_result_goes_on(build):
    world = World()
    async with gate() as g:
        result, state = await run(
            g, build(g, model(asks(use("ticket", title="a")), says("done")), [ticket_tool(world)])
        )
    assert (result.reason, result.output, result.steps, result.tool_calls) == (StopReason.SUCCESS, "done", 2, 1)
    assert result.cost_usd == pytest.approx(2 * TURN_USD)
    assert result.tokens == 220
    assert [m.content for m in told(state)] == ['{"url": "https://t/a"}']
    assert world.done == {"a": 1}


@BOTH
def test_sync_graphs_run_in_sync_agents(build):
    world = World()
    g = gate()
    try:
        result, state = run_sync(
            g,
            build(
                g,
                model(asks(use("ticket", title="a"), use("ticket", "c2", title="b")), says("done")),
                [ticket_tool(world, sync=True)],
            ),
        )
    finally:
        g.close()
    assert (result.reason, result.steps, result.tool_calls) == (StopReason.SUCCESS, 2, 2)
    assert len(told(state)) == 2
    assert world.done == {"a": 1, "b": 1}


@BOTH
async def test_a_lost_answer_stops_the_run_at_the_next_model_turn(build):
    world = World()
    chat = model(asks(use("ticket", title="a")))
    async with gate() as g:
        result, _ = await run(g, build(g, chat, [ticket_tool(world, *[TimeoutError("lost")] * 9)]))
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert result.parked
    assert world.done == {"a": 1}
    assert len(chat.asked) == 1


@BOTH
async def test_the_model_is_told_what_is_known_and_never_to_try_again(build):
    async with gate(tools__deny=["ticket"]) as g:
        chat = model(asks(use("ticket", title="a")), says("done"))
        result, state = await run(g, build(g, chat, [ticket_tool(World())]))
    (message,) = told(state)
    assert message.status == "error"
    assert message.content == "This tool is not permitted here. It was not executed, and will not be."
    assert message.additional_kwargs["interlock"] == {"status": "denied", "reason": "tool_denied"}
    assert result.ok


@BOTH
async def test_siblings_of_a_refusal_settle(build):
    world = World()

    @tool
    async def slow(x: int) -> str:
        """Take a while."""
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        world.done["slow"] += x
        return "slow"

    async with gate(tools__deny=["ticket"]) as g:
        chat = model(asks(use("ticket", title="a"), use("slow", "c2", x=1), use("slow", "c3", x=2)), says("done"))
        result, state = await run(g, build(g, chat, [ticket_tool(world), slow]))
    assert result.ok
    assert world.done == {"slow": 3}
    assert sorted(m.status for m in told(state)) == ["error", "success", "success"]


@BOTH
async def test_a_stop_in_a_batch_lets_the_batch_finish(build):
    world = World()
    chat = model(asks(*(use("ticket", f"c{i}", title=str(i)) for i in range(5))))
    async with gate(agent__budgets={"max_tool_calls": 3}) as g:
        result, _ = await run(g, build(g, chat, [ticket_tool(world)]))
    assert result.reason is StopReason.TOOL_BUDGET
    assert sum(world.done.values()) == 3
    assert len(chat.asked) == 1


# -- what the frameworks would do


@pytest.mark.parametrize("where", ["before", "after"])
async def test_retries_of_middlewares_cannot_multiply_a_write(where):
    world = World()
    retries = {where: [ToolRetryMiddleware(initial_delay=0.0, jitter=False)]}
    chat = model(asks(use("ticket", title="a")), says("done"))
    bare_world = World()
    with_retries = agent(
        None,
        model(asks(use("ticket", title="a")), says("done")),
        [ticket_tool(bare_world, *[TimeoutError()] * 9)],
        **retries,
    )
    await with_retries.ainvoke(given())
    async with gate() as g:
        result, _ = await run(g, agent(g, chat, [ticket_tool(world, *[TimeoutError()] * 9)], **retries))
    assert bare_world.done == {"a": 3}
    assert world.done == {"a": 1}
    assert result.reason is StopReason.OUTCOME_UNKNOWN


async def test_retries_of_a_node_cannot_multiply_a_write():
    policy = RetryPolicy(initial_interval=0.0, jitter=False, retry_on=Exception)
    bare_world, world = World(), World()
    bare = graph(
        None,
        model(asks(use("ticket", title="a"))),
        [ticket_tool(bare_world, *[TimeoutError()] * 9)],
        retry_policy=policy,
    )
    with pytest.raises(TimeoutError):
        await bare.ainvoke(given())
    async with gate() as g:
        guarded = graph(
            g, model(asks(use("ticket", title="a"))), [ticket_tool(world, *[TimeoutError()] * 9)], retry_policy=policy
        )
        result, _ = await run(g, guarded)
    assert bare_world.done == {"a": 3}
    assert world.done == {"a": 1}
    assert result.reason is StopReason.OUTCOME_UNKNOWN


@BOTH
async def test_reads_are_retried_by_the_gate_alone(build):
    world = World()

    @tool
    async def search(q: str) -> str:
        """Search."""
        world.done[q] += 1
        if world.done[q] < 3:
            raise ConnectionResetError
        return "found"

    async with gate() as g:
        result, state = await run(g, build(g, model(asks(use("search", q="x")), says("done")), [search]))
    assert result.ok
    assert world.done == {"x": 3}
    assert [m.content for m in told(state)] == ["found"]


async def test_the_stop_passes_retries_of_the_model_and_handlers_of_errors():
    chat = model(asks(use("ticket", title="a")))
    async with gate(agent__budgets={"max_steps": 1}) as g:
        retries = ModelRetryMiddleware(initial_delay=0.0, jitter=False)
        result, _ = await run(g, agent(g, chat, [ticket_tool(World())], before=[retries]))
        assert result.reason is StopReason.STEP_BUDGET
        assert len(chat.asked) == 1
        chat = model(asks(use("ticket", title="a")))
        result, _ = await run(g, graph(g, chat, [ticket_tool(World())], handle_tool_errors=True))
    assert result.reason is StopReason.STEP_BUDGET
    assert len(chat.asked) == 1


@BOTH
async def test_errors_that_the_node_would_word_are_judged_by_the_funnel(build):
    """`handle_tool_errors=True` would make a message of the lost answer, and the model would go on."""
    world = World()
    words = {"handle_tool_errors": True} if build is graph else {}
    async with gate() as g:
        result, _ = await run(
            g, build(g, model(asks(use("ticket", title="a"))), [ticket_tool(world, *[OSError()] * 9)], **words)
        )
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert world.done == {"a": 1}


async def test_tools_that_word_their_own_errors_have_failed_all_the_same():
    world = World()

    def book(seat: str) -> str:
        """Book a seat."""
        world.done[seat] += 1
        raise ToolException("the seat map is down, please try again")

    booking = StructuredTool.from_function(book, handle_tool_error=True)
    async with gate() as g:
        result, _ = await run(g, agent(g, model(asks(use("book", seat="12A"))), [booking]))
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert world.done == {"12A": 1}


# -- arguments


@BOTH
async def test_arguments_that_do_not_fit_are_refused_on_record(build):
    world = World()
    chat = model(
        asks(use("ticket", title=7)), asks(use("ticket", name="a")), asks(use("ticket", title="a")), says("done")
    )
    async with gate() as g:
        result, state = await run(g, build(g, chat, [ticket_tool(world)]))
    assert result.ok
    assert result.tool_calls == 3
    assert world.done == {"a": 1}
    statuses = [m.additional_kwargs.get("interlock", {}).get("status") for m in told(state)]
    assert statuses == ["invalid_arguments", "invalid_arguments", None]


@BOTH
async def test_json_that_the_model_wrote_wrongly_is_told_and_corrected(build):
    world = World()
    broken = AIMessage(
        "",
        invalid_tool_calls=[
            {"name": "ticket", "args": '{"title": "a', "id": "c0", "error": "x", "type": "invalid_tool_call"}
        ],
    )
    chat = model(broken, asks(use("ticket", title="a")), says("done"))
    async with gate() as g:
        result, state = await run(g, build(g, chat, [ticket_tool(world)]))
    assert result.output == "done"
    assert world.done == {"a": 1}
    assert [m.status for m in told(state)] == ["error", "success"]
    assert told(state)[0].tool_call_id == "c0"


@BOTH
async def test_a_tool_that_is_not_there_is_refused_on_record(build):
    world = World()
    chat = model(asks(use("purge", everything=True)), asks(use("ticket", title="a")), says("done"))
    async with gate() as g:

        @g.tool("purge", effect="write", allow=True)
        async def purge(everything: bool) -> str:
            world.done["purged"] += 1
            return "gone"

        result, state = await run(g, build(g, chat, [ticket_tool(world)]))
    assert result.ok
    assert world.done == {"a": 1}
    assert told(state)[0].content == "This tool is not permitted here. It was not executed, and will not be."


async def test_what_other_middlewares_make_of_the_arguments_is_what_is_judged():
    from langchain.agents.middleware import wrap_tool_call

    world = World()

    @wrap_tool_call
    async def shout(request, handler):
        args = {"title": request.tool_call["args"]["title"].upper()}
        return await handler(request.override(tool_call={**request.tool_call, "args": args}))

    for place in ("before", "after"):
        chat = model(asks(use("ticket", title="a")), asks(use("ticket", title="A")), says("done"))
        async with gate() as g:
            result, _ = await run(g, agent(g, chat, [ticket_tool(world)], **{place: [shout]}))
        assert result.ok
        assert world.done == {"A": 1}  # the second is the first again, and answered from the record
        world.done.clear()


# -- the key


@BOTH
async def test_the_key_is_hidden_from_the_model_and_filled_from_the_claim(build):
    keys: list[str] = []

    async def refund(order: str, *, idempotency_key: str) -> str:
        """Refund an order."""
        keys.append(idempotency_key)
        if len(keys) == 1:
            raise TimeoutError
        return "refunded"

    refunding = StructuredTool.from_function(coroutine=refund)
    chat = model(asks(use("refund", order="7", idempotency_key="mine")), asks(use("refund", order="7")), says("done"))
    async with gate(tools__writes={"refund": {"on_unknown": "resend"}}) as g:
        result, state = await run(g, build(g, chat, [refunding]))
    assert result.ok
    assert len(set(keys)) == 1
    assert keys[0].startswith("il1_")
    assert "idempotency_key" not in str(chat.offered[0][0].args)
    assert [m.content for m in told(state)] == ["refunded", "refunded"]


@BOTH
async def test_tools_of_classes_of_their_own_get_the_key_too(build):
    keys: list[Any] = []

    class Refund(BaseTool):
        name: str = "refund"
        description: str = "Refund an order."

        def _run(self, order: str, idempotency_key: Annotated[str, InjectedToolArg]) -> str:
            keys.append(idempotency_key)
            return f"refunded {order}"

    chat = model(asks(use("refund", order="7")), says("done"))
    async with gate(tools__writes={"refund": {"on_unknown": "resend"}}) as g:
        result, state = await run(g, build(g, chat, [Refund()]))
    assert result.ok, result.details
    assert keys[0].startswith("il1_")
    assert [m.content for m in told(state)] == ["refunded 7"]


@BOTH
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_tool_of_the_gate_is_what_its_decorator_says(build, is_async):
    keys: list[str] = []
    async with gate() as g:
        if is_async:

            @g.tool("ticket.create", effect="write", allow=True)
            async def create_ticket(title: str, *, idempotency_key: str) -> dict[str, str]:
                """Create a ticket."""
                keys.append(idempotency_key)
                if len(keys) == 1:
                    raise TimeoutError
                return {"url": title}
        else:

            @g.tool("ticket.create", effect="write", allow=True)
            def create_ticket(title: str, *, idempotency_key: str) -> dict[str, str]:
                """Create a ticket."""
                keys.append(idempotency_key)
                if len(keys) == 1:
                    raise TimeoutError
                return {"url": title}

        made = StructuredTool.from_function(create_ticket, name="ticket_create")
        result, state = await run(g, build(g, model(asks(use("ticket_create", title="a")), says("done")), [made]))
    assert result.ok, result.details
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert [m.content for m in told(state)] == ['{"url":"a"}'] or [m.content for m in told(state)] == ['{"url": "a"}']


async def test_effects_are_read_from_the_tools_own_metadata():
    reads = World()

    @tool
    async def peek(x: int) -> str:
        """Look."""
        reads.done["peek"] += 1
        if reads.done["peek"] < 2:
            raise TimeoutError
        return "seen"

    peek.metadata = {"effect": "read"}
    async with gate() as g:
        result, _ = await run(g, agent(g, model(asks(use("peek", x=1)), says("done")), [peek]))
    assert result.ok
    assert reads.done == {"peek": 2}


# -- without a run, in the wrong place


@BOTH
async def test_a_graph_outside_a_run_does_nothing(build):
    world, chat = World(), model(asks(use("ticket", title="a")))
    words = (
        {"before": [ModelRetryMiddleware(initial_delay=0.0, jitter=False)]}
        if build is agent
        else {"handle_tool_errors": True}
    )
    async with gate() as g:
        with pytest.raises(NoRun, match=r"gate\.run"):
            await build(g, chat, [ticket_tool(world)], **words).ainvoke(given())
        async with gate() as other:

            async def body(_run: Any, _task: str) -> None:
                await build(g, chat, [ticket_tool(world)], **words).ainvoke(given())

            result = await other.run(body)
    assert result.details["error"] == "_Unopened"
    assert not world.done
    assert not chat.asked


@BOTH
async def test_a_sync_graph_on_the_runs_own_loop_is_told_so(build):
    async with gate() as g:

        async def body(_run: Any, _task: str) -> None:
            build(g, model(asks(use("ticket", title="a"))), [ticket_tool(World())]).invoke(given())

        result = await g.run(body)
    assert result.reason is StopReason.INVALID_INPUT
    assert "ainvoke" in result.details["message"]


def test_stops_are_both_ours_and_langgraphs():
    assert issubclass(GraphStopped, GraphBubbleUp)
    error = GraphStopped(StopReason.KILLED)
    assert (error.status, error.reason) == ("stopped", StopReason.KILLED)


async def test_an_unknown_price_stops_before_the_first_turn():
    chat = model(says("done"))
    chat.model_name = "unheard-of"
    async with gate() as g:
        result, _ = await run(g, agent(g, chat, [ticket_tool(World())]))
    assert result.reason is StopReason.COST_BUDGET
    assert "prices.unheard-of" in result.details["message"]
    assert not chat.asked


async def test_a_reply_that_does_not_say_what_it_used_is_not_free():
    async with gate() as g:
        result, _ = await run(g, agent(g, model(AIMessage("x" * 4000)), [ticket_tool(World())]))
    assert result.tokens > 900
    assert result.cost_usd == pytest.approx(result.tokens * PRICE["input_usd_per_mtok"] / 1e6)


async def test_observing_lets_the_tools_own_exception_through():
    async with gate(mode="observe") as g:
        result, _ = await run(
            g, agent(g, model(asks(use("ticket", title="a"))), [ticket_tool(World(), ZeroDivisionError("own"))])
        )
    assert result.details["error"] == "ZeroDivisionError"
