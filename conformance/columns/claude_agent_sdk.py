"""Claude Agent SDK: `query`, through its own command line, which is pointed at the scripted model."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from claude_agent_sdk import (
    ClaudeAgentOptions,
    ResultMessage,
    SdkMcpTool,
    ToolAnnotations,
    create_sdk_mcp_server,
    query,
)

from conformance.column import Column, Job, Nested, Tool, Wire
from interlock import Interlock, RunResult
from interlock.adapters import claude_agent_sdk, idempotency_key

__all__ = ["COLUMN", "options_of", "tool_of"]

TASK = {"type": "object", "properties": {"task": {"type": "string"}}, "required": ["task"]}


def tool_of(tool: Tool) -> SdkMcpTool[Any]:
    """Return a tool as the SDK's users make it."""

    async def handler(args: dict[str, Any]) -> dict[str, Any]:
        key = {"idempotency_key": idempotency_key()} if tool.keyed else {}
        work = asyncio.to_thread(tool.fn, **args, **key) if tool.sync else tool.fn(**args, **key)
        value = await work
        return {"content": [{"type": "text", "text": json.dumps(value)}]}

    hint = ToolAnnotations(readOnlyHint=True) if tool.effect == "read" else None
    return SdkMcpTool(tool.name, tool.description, dict(tool.parameters), handler, hint)


def options_of(job: Job, system: str, server: Any) -> ClaudeAgentOptions:
    """Return the options of a session with these tools."""
    home = tempfile.mkdtemp(prefix="conformance-")
    env = {
        "ANTHROPIC_BASE_URL": job.anthropic_url,
        "ANTHROPIC_API_KEY": job.api_key,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "ENABLE_TOOL_SEARCH": "false",
        "HOME": home,
        "IS_SANDBOX": "1",
    }
    return ClaudeAgentOptions(
        model=job.model,
        system_prompt=system,
        mcp_servers={"work": server},
        allowed_tools=["mcp__work"],
        tools=[],
        setting_sources=[],
        include_partial_messages=job.stream,
        cwd=home,
        env=env,
    )


Make = Callable[[Sequence[SdkMcpTool[Any]]], Any]
Ask = Callable[[str, ClaudeAgentOptions], Any]


def _nested(job: Job, nested: Nested, make: Make, ask: Ask) -> SdkMcpTool[Any]:
    async def handler(args: dict[str, Any]) -> dict[str, Any]:
        server = make([tool_of(tool) for tool in nested.tools])
        said = ""
        async for message in ask(args["task"], options_of(job, nested.system, server)):
            said = message.result or said if isinstance(message, ResultMessage) else said
        return {"content": [{"type": "text", "text": said}]}

    return SdkMcpTool(nested.name, nested.description, TASK, handler)


def _tools(job: Job, make: Make, ask: Ask) -> list[SdkMcpTool[Any]]:
    tools = [tool_of(tool) for tool in job.tools]
    return tools if job.nested is None else [*tools, _nested(job, job.nested, make, ask)]


async def bare(job: Job) -> Any:
    """Run the session with the SDK's defaults."""

    def make(tools: Sequence[SdkMcpTool[Any]]) -> Any:
        return create_sdk_mcp_server("work", tools=list(tools))

    def ask(prompt: str, options: ClaudeAgentOptions) -> Any:
        return query(prompt=prompt, options=options)

    said = None
    async for message in ask(job.prompt, options_of(job, job.system, make(_tools(job, make, ask)))):
        said = message.result if isinstance(message, ResultMessage) else said
    return said


async def guarded(job: Job, gate: Interlock) -> RunResult:
    """Run it under the gate."""

    def make(tools: Sequence[SdkMcpTool[Any]]) -> Any:
        return claude_agent_sdk.create_sdk_mcp_server(gate, "work", tools=tools)

    def ask(prompt: str, options: ClaudeAgentOptions) -> Any:
        return claude_agent_sdk.query(gate, prompt=prompt, options=options)

    options = options_of(job, job.system, make(_tools(job, make, ask)))
    return await claude_agent_sdk.run(gate, job.prompt, options, **job.options)


COLUMN = Column(
    name="claude-agent-sdk",
    distribution="claude-agent-sdk",
    requires=("claude-agent-sdk==0.2.187",),
    wire=Wire.ANTHROPIC,
    bare=bare,
    guarded=guarded,
    cannot={
        "killed_worker": (
            "its command line asks the model by itself: a session that is taken up again and words its calls anew"
            " ends as replay_diverged; nothing is sent twice"
        ),
    },
)
