"""The agent of the suite `everything` as frameworks' users would build it: `--agent everything_frameworks:langchain`.

Their models are functions of this process, so that the suite's virtual clock holds; tools, gate and the model's words
are those of the agent that ships with the suite. A framework's agent does not raise what its tools said: it goes on.
"""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import StructuredTool
from pydantic_ai import Agent, Tool
from pydantic_ai.messages import ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from interlock import Run
from interlock.adapters.langchain import interlock_middleware
from interlock.adapters.pydantic_ai import interlock_capability
from interlock.chaos import everything_agent as shop
from interlock.chaos.everything_agent import gate

TOOLS = {
    "search.read": shop.search,
    "kb.read": shop.article,
    "price.read": shop.price,
    "ticket.create": shop.create_ticket,
    "invoice.send": shop.send_invoice,
    "parcel.send": shop.send_parcel,
    "refund.create": shop.refund,
    "db.write": shop.write_row,
}


async def thought(task: dict[str, Any], turn: int, said: list[str]) -> dict[str, Any]:
    """Return what the suite's scripted model would say."""
    if turn > int(task.get("turns", 1)):
        return await shop.think({"do": []}, 0, [])
    return await shop.think(task, turn, [text[: shop.SHOWN_CHARACTERS] for text in said])


class Shop(FunctionModel):
    """A model that has a price."""

    @property
    def system(self) -> str:
        """See `Model`."""
        return "everything"


async def pydantic_ai(_run: Run, task: dict[str, Any]) -> str:
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


class Chat(BaseChatModel):
    """The same for LangChain."""

    task: Any
    model_name: str
    max_tokens: int = 100

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """See `BaseChatModel`."""
        return self.bind(tools=list(tools), **kwargs)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        turn = sum(isinstance(message, AIMessage) for message in messages) + 1
        reply = await thought(self.task, turn, [m.text for m in messages if isinstance(m, ToolMessage)])
        calls = [
            {"name": use["tool"], "args": use["args"], "id": f"c{turn}.{i}", "type": "tool_call"}
            for i, use in enumerate(reply["uses"])
        ]
        spent = {**reply["usage"], "total_tokens": sum(reply["usage"].values())}
        text = "" if calls else reply["text"]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text, tool_calls=calls, usage_metadata=spent))])


async def langchain(_run: Run, task: dict[str, Any]) -> str:
    """Do what the task says, with LangChain."""
    shop._PARCELS.clear()
    tools = [
        StructuredTool.from_function(coroutine=fn, name=name, description=fn.__doc__) for name, fn in TOOLS.items()
    ]
    chat = Chat(task=task, model_name=task.get("model", shop.MODEL))
    made = create_agent(chat, tools, middleware=[interlock_middleware(gate)])
    state = await made.ainvoke({"messages": [HumanMessage("Do it.")]}, {"recursion_limit": 500})
    return state["messages"][-1].text
