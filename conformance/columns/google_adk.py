"""Google ADK: `Runner.run_async`, over Anthropic messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anthropic import AsyncAnthropic
from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.apps import App
from google.adk.models.anthropic_llm import AnthropicLlm
from google.adk.plugins import ReflectAndRetryToolPlugin
from google.adk.runners import InMemoryRunner
from google.adk.tools import AgentTool, FunctionTool
from google.genai import types

from conformance.column import Column, Job, Wire
from interlock import Interlock, Run, RunResult
from interlock.adapters.google_adk import interlock_plugin

__all__ = ["COLUMN", "runner_of", "say"]


def _model(job: Job) -> AnthropicLlm:
    return AnthropicLlm(model=job.model, client=AsyncAnthropic(base_url=job.anthropic_url, api_key=job.api_key))


def runner_of(job: Job, plugins: Sequence[Any]) -> InMemoryRunner:
    """Return the runner, with these plugins."""
    tools: list[Any] = [FunctionTool(tool.fn) for tool in job.tools]
    if job.nested is not None:
        nested = job.nested
        inner = LlmAgent(
            name=nested.name,
            description=nested.description,
            instruction=nested.system,
            model=_model(job),
            tools=[FunctionTool(tool.fn) for tool in nested.tools],
        )
        tools.append(AgentTool(inner))
    agent = LlmAgent(name="agent", instruction=job.system, model=_model(job), tools=tools)
    own = [ReflectAndRetryToolPlugin()] if job.own_retries else []
    return InMemoryRunner(app=App(name="conformance", root_agent=agent, plugins=[*own, *plugins]))


async def say(runner: InMemoryRunner, job: Job) -> str:
    """Return what the agent says in the end."""
    session = await runner.session_service.create_session(app_name="conformance", user_id="user")
    mode = StreamingMode.SSE if job.stream else StreamingMode.NONE
    text = ""
    async for event in runner.run_async(
        user_id="user",
        session_id=session.id,
        new_message=types.UserContent(job.prompt),
        run_config=RunConfig(streaming_mode=mode),
    ):
        if event.is_final_response() and event.content and event.content.parts:
            text = "".join(part.text or "" for part in event.content.parts)
    return text


async def bare(job: Job) -> str:
    """Run the agent as it is."""
    return await say(runner_of(job, []), job)


async def guarded(job: Job, gate: Interlock) -> RunResult:
    """Run the same agent with one more plugin."""
    runner = runner_of(job, [interlock_plugin(gate)])

    async def work(_run: Run, _task: str) -> str:
        return await say(runner, job)

    return await gate.run(work, job.prompt, **job.options)


COLUMN = Column(
    name="google-adk",
    distribution="google-adk",
    requires=("google-adk==2.13.0", "anthropic==2.12.0"),
    wire=Wire.ANTHROPIC,
    bare=bare,
    guarded=guarded,
    cannot={"malformed_json": "ADK's Anthropic client raises on a tool use that is no object, before plugins see it"},
)
