"""LangGraph: a graph of one's own with a `ToolNode`, over chat completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import StructuredTool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import RetryPolicy

from conformance.column import Column, Job, Wire
from conformance.columns.langchain import as_tool, model_of
from interlock import Interlock, Run, RunResult
from interlock.adapters.langgraph import guarded_model, tool_wrappers

__all__ = ["COLUMN", "agent_of", "say"]

Wrap = Callable[[BaseChatModel], BaseChatModel]
NONE: Mapping[str, Any] = {}


def _as_it_is(model: BaseChatModel) -> BaseChatModel:
    return model


def _graph(job: Job, wrap: Wrap, wrappers: Mapping[str, Any], *, system: str, tools: list[Any]) -> Any:
    model = wrap(model_of(job)).bind_tools(tools)

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([SystemMessage(system), *state["messages"]])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", ask)
    # A node that answers the model's mistakes, as graphs of one's own must: without it the first error ends the run.
    retry = RetryPolicy(initial_interval=0.01, retry_on=Exception) if job.own_retries else None
    handled = not job.own_retries
    graph.add_node("tools", ToolNode(tools, handle_tool_errors=handled, **wrappers), retry_policy=retry)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


def agent_of(job: Job, wrap: Wrap = _as_it_is, wrappers: Mapping[str, Any] = NONE) -> Any:
    """Return the graph, its models wrapped, its tool nodes with these wrappers."""
    tools: list[Any] = [as_tool(tool) for tool in job.tools]
    if job.nested is not None:
        nested = job.nested
        inner = _graph(job, wrap, wrappers, system=nested.system, tools=[as_tool(tool) for tool in nested.tools])

        async def ask(task: str) -> str:
            state = await inner.ainvoke({"messages": [HumanMessage(task)]})
            return str(state["messages"][-1].text)

        tools.append(StructuredTool.from_function(coroutine=ask, name=nested.name, description=nested.description))
    return _graph(job, wrap, wrappers, system=job.system, tools=tools)


async def say(graph: Any, job: Job) -> str:
    """Return what the graph says in the end."""
    given = {"messages": [HumanMessage(job.prompt)]}
    limit = {"recursion_limit": 200}
    if not job.stream:
        state = await graph.ainvoke(given, limit)
        return str(state["messages"][-1].text)
    text = ""
    async for mode, piece in graph.astream(given, limit, stream_mode=["messages", "updates"]):
        if mode == "updates" and "model" in piece:
            text = str(piece["model"]["messages"][-1].text)
    return text


async def bare(job: Job) -> str:
    """Run the graph as it is."""
    return await say(agent_of(job), job)


async def guarded(job: Job, gate: Interlock) -> RunResult:
    """Run the same graph, its model and its tool node guarded."""
    graph = agent_of(job, lambda model: guarded_model(model, gate), tool_wrappers(gate))

    async def work(_run: Run, _task: str) -> str:
        return await say(graph, job)

    return await gate.run(work, job.prompt, **job.options)


COLUMN = Column(
    name="langgraph",
    distribution="langgraph",
    requires=("langgraph==1.2.22", "langchain-openai==1.7.3"),
    wire=Wire.OPENAI_CHAT,
    bare=bare,
    guarded=guarded,
)
