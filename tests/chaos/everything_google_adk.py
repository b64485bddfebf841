"""The suite `everything` on an agent of Google ADK: `interlock chaos run everything --agent everything_google_adk:agent`."""

from __future__ import annotations

import json
from typing import Any

from everything_words import TOOLS, thought
from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools import FunctionTool
from google.genai import types

from interlock import Run
from interlock.adapters.google_adk import interlock_plugin
from interlock.chaos import everything_agent as shop
from interlock.chaos.everything_agent import gate


class Gemini(BaseLlm):
    """Says what the suite's scripted model would."""

    task: Any

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
        """See `BaseLlm`."""
        turn = sum(content.role == "model" for content in llm_request.contents) + 1
        parts = [part for content in llm_request.contents for part in content.parts or ()]
        said = [json.dumps(dict(p.function_response.response)) for p in parts if p.function_response]
        reply = await thought(self.task, turn, said)
        uses = [
            types.Part(function_call=types.FunctionCall(id=f"c{turn}.{i}", name=use["tool"], args=use["args"]))
            for i, use in enumerate(reply["uses"])
        ]
        usage = types.GenerateContentResponseUsageMetadata(prompt_token_count=400, candidates_token_count=60)
        content = types.ModelContent(uses or [types.Part(text=reply["text"])])
        yield LlmResponse(content=content, usage_metadata=usage, model_version=self.model)


async def agent(_run: Run, task: dict[str, Any]) -> str:
    """Do what the task says, with Google ADK."""
    shop._PARCELS.clear()
    tools = []
    for name, fn in TOOLS.items():
        tools.append(FunctionTool(fn))
        tools[-1].name = name
    config = types.GenerateContentConfig(max_output_tokens=100)
    made = LlmAgent(
        name="agent",
        model=Gemini(model=task.get("model", shop.MODEL), task=task),
        tools=tools,
        generate_content_config=config,
    )
    runner = InMemoryRunner(app=App(name="everything", root_agent=made, plugins=[interlock_plugin(gate)]))
    session = await runner.session_service.create_session(app_name="everything", user_id="ann")
    text = ""
    async for event in runner.run_async(user_id="ann", session_id=session.id, new_message=types.UserContent("Do it.")):
        if event.is_final_response() and event.content and event.content.parts:
            text = "".join(part.text or "" for part in event.content.parts)
    return text
