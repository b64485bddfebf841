"""LangChain: `create_agent`, over chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ToolRetryMiddleware
from langchain_core.messages import HumanMessage
from langchain_core.tools import BaseTool, StructuredTool
from langchain_openai import ChatOpenAI

from conformance.column import Column, Job, Tool, Wire
from interlock import Interlock, Run, RunResult
from interlock.adapters.langchain import interlock_middleware

__all__ = ["COLUMN", "agent_of", "as_tool", "model_of", "say"]


def as_tool(tool: Tool) -> BaseTool:
    """Return a tool as LangChain's users make it: out of its function."""
    fn = {"func": tool.fn} if tool.sync else {"coroutine": tool.fn}
    return StructuredTool.from_function(name=tool.name, description=tool.description, **fn)


def model_of(job: Job) -> ChatOpenAI:
    """Return the model, with the framework's own retrying of requests."""
    return ChatOpenAI(model=job.model, base_url=job.openai_url, api_key=job.api_key, stream_usage=None)


def agent_of(job: Job, middleware: Sequence[AgentMiddleware[Any, Any]]) -> Any:
    """Return the agent, with these middlewares."""
    tools = [as_tool(tool) for tool in job.tools]
    if job.nested is not None:
        nested = job.nested
        inner = create_agent(
            model_of(job), [as_tool(tool) for tool in nested.tools], system_prompt=nested.system, middleware=middleware
        )

        async def ask(task: str) -> str:
            state = await inner.ainvoke({"messages": [HumanMessage(task)]})
            return str(state["messages"][-1].text)

        tools.append(StructuredTool.from_function(coroutine=ask, name=nested.name, description=nested.description))
    if job.own_retries:
        middleware = [ToolRetryMiddleware(), *middleware]
    return create_agent(model_of(job), tools, system_prompt=job.system, middleware=middleware)


async def say(agent: Any, job: Job) -> str:
    """Return what the agent says in the end."""
    given = {"messages": [HumanMessage(job.prompt)]}
    if not job.stream:
        state = await agent.ainvoke(given)
        return str(state["messages"][-1].text)
    text = ""
    async for mode, piece in agent.astream(given, stream_mode=["messages", "updates"]):
        if mode == "updates" and "model" in piece:
            text = str(piece["model"]["messages"][-1].text)
    return text


async def bare(job: Job) -> str:
    """Run the agent as it is."""
    return await say(agent_of(job, []), job)


async def guarded(job: Job, gate: Interlock) -> RunResult:
    """Run the same agent with one more middleware."""
    agent = agent_of(job, [interlock_middleware(gate)])

    async def work(_run: Run, _task: str) -> str:
        return await say(agent, job)

    return await gate.run(work, job.prompt, **job.options)


COLUMN = Column(
    name="langchain",
    distribution="langchain",
    requires=("langchain==1.4.7", "langgraph==1.2.22", "langchain-openai==1.7.3"),
    wire=Wire.OPENAI_CHAT,
    bare=bare,
    guarded=guarded,
)
