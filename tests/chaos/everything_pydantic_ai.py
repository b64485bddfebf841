"""The suite `everything` on an agent of Pydantic AI: `interlock chaos run everything --agent everything_pydantic_ai:agent`."""

from __future__ import annotations

from typing import Any

from everything_words import TOOLS, thought
from pydantic_ai import Agent, Tool
from pydantic_ai.messages import ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from interlock import Run
from interlock.adapters.pydantic_ai import interlock_capability
from interlock.chaos import everything_agent as shop
from interlock.chaos.everything_agent import gate


class Shop(FunctionModel):
    """A model that has a price."""

    @property
    def system(self) -> str:
        """See `Model`."""
        return "everything"


async def agent(_run: Run, task: dict[str, Any]) -> str:
    """Do what the task says, with Pydantic AI."""

    async def answer(messages: list[Any], _info: Any) -> ModelResponse:
        turn = sum(isinstance(message, ModelResponse) for message in messages) + 1
        parts = [part for message in messages for part in message.parts]
        said = [str(part.content) for part in parts if isinstance(part, ToolReturnPart | RetryPromptPart)]
        reply = await thought(task, turn, said)
        uses = [ToolCallPart(use["tool"], use["args"]) for use in reply["uses"]]
        return ModelResponse(uses or [TextPart(reply["text"])], usage=RequestUsage(**reply["usage"]))

    shop._PARCELS.clear()
    made = Agent(
        Shop(answer, model_name=task.get("model", "scripted")),
        tools=[Tool(fn, name=name, max_retries=100) for name, fn in TOOLS.items()],
        capabilities=[interlock_capability(gate)],
        model_settings=ModelSettings(max_tokens=100),
    )
    return (await made.run("Do it.")).output
