"""A Google ADK agent behind the gate: the three lines that were added end in `# <-`.

The model asks to wipe the database beside a harmless search. The one is refused, the other is done, and the model is
told which is which. No API key: the model is scripted.

    python examples/google_adk_agent.py        (pip install "interlock[google-adk]")
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai import types

import interlock
from interlock.adapters.google_adk import interlock_plugin  # <-

wiped: list[str] = []


def search(query: str) -> str:
    """Search the knowledge base."""
    return f"how to fix {query}"


def wipe(table: str) -> str:
    """Delete all rows of a table."""
    wiped.append(table)
    return "gone"


class Scripted(BaseLlm):
    """Stands in for a model."""

    async def generate_content_async(
        self,
        llm_request: Any,
        stream: bool = False,  # noqa: ARG002
    ) -> AsyncGenerator[LlmResponse, None]:
        responses = [p.function_response for c in llm_request.contents for p in c.parts or () if p.function_response]
        parts = [
            types.Part(function_call=types.FunctionCall(id="c1", name="search", args={"query": "login"})),
            types.Part(function_call=types.FunctionCall(id="c2", name="wipe", args={"table": "users"})),
        ]
        if responses:
            parts = [types.Part(text="; ".join(f"{r.name}: {next(iter(r.response.values()))}" for r in responses))]
        usage = types.GenerateContentResponseUsageMetadata(prompt_token_count=500, candidates_token_count=20)
        yield LlmResponse(content=types.ModelContent(parts), usage_metadata=usage)


async def main() -> None:
    """Run the agent."""
    config = {
        "tools": {"allow": ["search"], "effects": {"search": "read"}},
        "prices": {"scripted": {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10.0}},
    }
    gate = interlock.Interlock(config, store="sqlite:///:memory:")  # <-
    agent = LlmAgent(name="support", model=Scripted(model="scripted"), tools=[search, wipe])
    app = App(
        name="support",
        root_agent=agent,
        plugins=[interlock_plugin(gate)],  # <-
    )
    runner = InMemoryRunner(app=app)

    async def support(_run: interlock.Run, task: str) -> str:
        session = await runner.session_service.create_session(app_name="support", user_id="ana")
        text = ""
        async for event in runner.run_async(user_id="ana", session_id=session.id, new_message=types.UserContent(task)):
            if event.is_final_response() and event.content:
                text = "".join(part.text or "" for part in event.content.parts or ())
        return text

    result = await gate.run(support, "Users cannot log in", request_id="req_1")
    print(result.reason, "| steps:", result.steps, f"| ${result.cost_usd:.4f}", "| tables wiped:", len(wiped))
    print(result.output)
    await gate.aclose()


if __name__ == "__main__":
    asyncio.run(main())
