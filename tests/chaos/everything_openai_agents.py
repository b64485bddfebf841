"""The suite `everything` on an agent of OpenAI's SDK: `interlock chaos run everything --agent everything_openai_agents:agent`.

The SDK's entrance opens the run itself; so the function's first parameter is the gate.
"""

from __future__ import annotations

import json
from typing import Any

from agents import Agent, ModelSettings, RunConfig
from agents.items import ModelResponse
from agents.models.interface import Model
from agents.usage import Usage
from everything_words import TOOLS, thought
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from interlock.adapters import openai_agents
from interlock.chaos import everything_agent as shop
from interlock.chaos.everything_agent import gate

__all__ = ["agent", "gate"]


class Responses(Model):
    """Says what the suite's scripted model would."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        self.model = str(task.get("model", shop.MODEL)).replace(":", "/")

    async def get_response(self, system_instructions: Any, input: Any, *_words: Any, **_options: Any) -> Any:  # noqa: A002
        """See `Model`."""
        items = [] if isinstance(input, str) else input
        calls = [item for item in items if item.get("type") == "function_call"]
        turn = len({call["call_id"].partition(".")[0] for call in calls}) + 1
        said = [str(item["output"]) for item in items if item.get("type") == "function_call_output"]
        reply = await thought(self.task, turn, said)
        output: list[Any] = [
            ResponseFunctionToolCall(
                type="function_call", call_id=f"c{turn}.{i}", name=use["tool"], arguments=json.dumps(use["args"])
            )
            for i, use in enumerate(reply["uses"])
        ]
        if not output:
            part = ResponseOutputText(type="output_text", text=reply["text"], annotations=[])
            output = [
                ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[part])
            ]
        usage = Usage(requests=1, input_tokens=400, output_tokens=60, total_tokens=460)
        return ModelResponse(output=output, usage=usage, response_id=None)

    def stream_response(self, *_words: Any, **_options: Any) -> Any:
        """See `Model`."""
        raise NotImplementedError


async def agent(gate: Any, task: dict[str, Any], **options: Any) -> Any:
    """Do what the task says, with the OpenAI Agents SDK, whose entrance opens the run."""
    shop._PARCELS.clear()
    tools = [openai_agents.function_tool(fn, name_override=name) for name, fn in TOOLS.items()]
    made = Agent(name="agent", model=Responses(task), tools=tools, model_settings=ModelSettings(max_tokens=100))
    options |= {"run_config": RunConfig(tracing_disabled=True), "max_turns": 500}
    return await openai_agents.run(gate, made, "Do it.", **options)
