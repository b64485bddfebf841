"""The suite `everything` on an agent of LangChain: `interlock chaos run everything --agent everything_langchain:agent`."""

from __future__ import annotations

from typing import Any

from everything_words import TOOLS, thought
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import StructuredTool

from interlock import Run
from interlock.adapters.langchain import interlock_middleware
from interlock.chaos import everything_agent as shop
from interlock.chaos.everything_agent import gate


class Chat(BaseChatModel):
    """Says what the suite's scripted model would."""

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


async def agent(_run: Run, task: dict[str, Any]) -> str:
    """Do what the task says, with LangChain."""
    shop._PARCELS.clear()
    tools = [
        StructuredTool.from_function(coroutine=fn, name=name, description=fn.__doc__) for name, fn in TOOLS.items()
    ]
    chat = Chat(task=task, model_name=task.get("model", shop.MODEL))
    made = create_agent(chat, tools, middleware=[interlock_middleware(gate)])
    state = await made.ainvoke({"messages": [HumanMessage("Do it.")]}, {"recursion_limit": 500})
    return state["messages"][-1].text
