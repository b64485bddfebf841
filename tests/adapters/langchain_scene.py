"""Scenes for the adapters of LangChain and LangGraph: a scripted chat model, a gate, and a counted world."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from interlock import Interlock
from interlock.adapters.langchain import interlock_middleware
from interlock.adapters.langgraph import guarded_model, tool_wrappers

USAGE = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
PRICE = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 10.0}
TURN_USD = 110 * 10.0 / 1e6
CONFIG: dict[str, Any] = {
    "prices": {"scripted": PRICE},
    "tools": {
        "allow": ["*"],
        "effects": {"search": "read", "look": "read"},
        "retries": {"max_attempts": 3, "backoff_ms": [0]},
    },
    "approvals": {"wait_s": 0},
    "logging": {"level": "error"},
}


def gate(store: Any = ":memory:", **changes: Any) -> Interlock:
    """Return a gate that allows every tool; `tools__deny=[…]` changes one key."""
    config: dict[str, Any] = {**CONFIG, "tools": dict(CONFIG["tools"])}
    for place, value in changes.items():
        section, _, key = place.partition("__")
        if key:
            config[section] = {**config.get(section, {}), key: value}
        else:
            config[section] = value
    return Interlock(config, store=f"sqlite:///{store}")


def use(name: str, call_id: str = "c1", /, **args: Any) -> dict[str, Any]:
    """Return a tool call."""
    return {"name": name, "args": args, "id": call_id, "type": "tool_call"}


def asks(*calls: dict[str, Any], text: str = "") -> AIMessage:
    """Return a reply that asks for tools."""
    return AIMessage(text, tool_calls=list(calls), usage_metadata=USAGE)


def says(text: str) -> AIMessage:
    """Return a last reply."""
    return AIMessage(text, usage_metadata=USAGE)


class Scripted(BaseChatModel):
    """Says one thing after the other, and the last for ever; notes what it was asked."""

    script: list[Any]
    asked: list[list[BaseMessage]] = []  # noqa: RUF012 - a field of a pydantic model
    offered: list[Any] = []  # noqa: RUF012
    streams: bool = False
    model_name: str = "scripted"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=list(tools), **kwargs)

    def _next(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        number = len(self.asked)
        self.asked.append(messages)
        self.offered.append(kwargs.get("tools") or [])
        said = self.script[min(number, len(self.script) - 1)]
        if isinstance(said, Exception):
            raise said
        reply: AIMessage = said(messages) if callable(said) else said
        return reply.model_copy(update={"id": f"reply-{uuid.uuid4()}"})

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages, kwargs))])


class Streaming(Scripted):
    """The same in pieces: text word by word, usage with the last one."""

    def _stream(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        reply = self._next(messages, kwargs)
        words = str(reply.content).split(" ") if reply.content else []
        for word in words:
            yield ChatGenerationChunk(message=AIMessageChunk(f"{word} ", id=reply.id))
        import json

        calls = [
            {"name": c["name"], "args": json.dumps(c["args"]), "id": c["id"], "index": i}
            for i, c in enumerate(reply.tool_calls)
        ]
        yield ChatGenerationChunk(
            message=AIMessageChunk("", id=reply.id, tool_call_chunks=calls, usage_metadata=reply.usage_metadata)
        )


def model(*script: Any, streams: bool = False) -> Any:
    """Return a scripted model of its own."""
    return (Streaming if streams else Scripted)(script=list(script), asked=[], offered=[])


class World:
    """What tools have done."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()


def given(text: str = "go") -> dict[str, Any]:
    """Return the input of an agent."""
    return {"messages": [HumanMessage(text)]}


def told(state: Any) -> list[ToolMessage]:
    """Return what the model was told of its tool calls."""
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


def agent(gate_: Interlock | None, chat: Any, tools: list[Any], before: Any = (), after: Any = (), **words: Any) -> Any:
    """Return a LangChain agent, guarded if there is a gate."""
    own = [] if gate_ is None else [interlock_middleware(gate_)]
    return create_agent(chat, tools, middleware=[*before, *own, *after], **words)


def graph(gate_: Interlock | None, chat: Any, tools: list[Any], **words: Any) -> Any:
    """Return a graph of one's own, guarded if there is a gate."""
    bound = (chat if gate_ is None else guarded_model(chat, gate_)).bind_tools(tools)

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [bound.invoke(state["messages"])]}

    async def aask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    from langchain_core.runnables import RunnableLambda

    retry_policy = words.pop("retry_policy", None)
    wrappers: Any = {} if gate_ is None else tool_wrappers(gate_)
    built = StateGraph(MessagesState)
    built.add_node("model", RunnableLambda(ask, aask))
    built.add_node("tools", ToolNode(tools, **wrappers, **words), retry_policy=retry_policy)
    built.add_edge(START, "model")
    built.add_conditional_edges("model", tools_condition)
    built.add_edge("tools", "model")
    return built.compile()


BUILDERS = {"langchain": agent, "langgraph": graph}
