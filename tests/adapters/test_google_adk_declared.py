"""A tool that a gate has declared, under Google ADK: the model reads its declared output as JSON."""

from __future__ import annotations

import json
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools import FunctionTool
from google.genai import types
from pydantic import BaseModel

from interlock import Interlock
from interlock.adapters.google_adk import interlock_plugin


class Page(BaseModel):
    """What a search promises."""

    results: list[str]
    partial: bool = False


class Once(BaseLlm):
    """Asks for one search, then ends; keeps what it was told."""

    told: list[Any]

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
        parts = [part for content in llm_request.contents for part in content.parts or ()]
        self.told += [part.function_response.response for part in parts if part.function_response]
        use = types.FunctionCall(id="c1", name="search", args={"q": "log in"})
        said = types.Part(text="done") if self.told else types.Part(function_call=use)
        usage = types.GenerateContentResponseUsageMetadata(prompt_token_count=100, candidates_token_count=10)
        yield LlmResponse(content=types.ModelContent(said), usage_metadata=usage)


async def test_the_model_is_told_json():
    budgets = {"budgets": {"max_usd": None}}
    async with Interlock({"agent": budgets, "logging": {"level": "error"}}, store="sqlite:///:memory:") as gate:

        @gate.tool("search", effect="read", output=Page)
        async def search(q: str) -> dict:
            return {"results": [q]}

        model = Once(model="scripted", told=[])
        agent = LlmAgent(name="agent", model=model, tools=[FunctionTool(search)])
        runner = InMemoryRunner(app=App(name="declared", root_agent=agent, plugins=[interlock_plugin(gate)]))
        session = await runner.session_service.create_session(app_name="declared", user_id="ann")

        async def work(_run, _task):
            words = {"user_id": "ann", "session_id": session.id, "new_message": types.UserContent("go")}
            return [event async for event in runner.run_async(**words)][-1].content.parts[0].text

        result = await gate.run(work, "go")
    assert (result.output, result.tool_calls) == ("done", 1)
    (told,) = model.told
    assert json.loads(json.dumps(told)) == {"results": ["log in"], "partial": False}
