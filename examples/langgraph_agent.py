"""A LangGraph graph of one's own behind the gate: the lines that were added end in `# <-`.

The model asks for the same search again and again. The third is answered from the record, the run ends by name
after the fifth, and what the graph has said so far is kept. No API key: the model is scripted.

    python examples/langgraph_agent.py        (pip install "interlock[langchain]")
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

from langchain.tools import tool
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

import interlock
from interlock.adapters.langgraph import guarded_model, tool_wrappers  # <-

searches = 0


@tool
def search(query: str) -> str:
    """Search the knowledge base."""
    global searches  # noqa: PLW0603
    searches += 1
    return f"nothing about {query}"


class Scripted(GenericFakeChatModel):
    """Stands in for a model."""

    def bind_tools(self, tools: Any, **words: Any) -> Any:  # noqa: ARG002
        return self.bind(**words)


def stubborn() -> Iterator[AIMessage]:
    """Ask the same for ever."""
    usage = {"input_tokens": 500, "output_tokens": 20, "total_tokens": 520}
    for number in count(1):
        call = {"name": "search", "args": {"query": "login"}, "id": f"call_{number}", "type": "tool_call"}
        yield AIMessage(f"Searching ({number}).", tool_calls=[call], usage_metadata=usage)


def main() -> None:
    """Run the graph."""
    config = {
        "tools": {"allow": ["search"], "effects": {"search": "read"}},
        "prices": {"generic-fake-chat-model": {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10.0}},
    }
    gate = interlock.Interlock(config, store="sqlite:///:memory:")
    model = guarded_model(Scripted(messages=stubborn()), gate).bind_tools([search])  # <-

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", ask)
    graph.add_node("tools", ToolNode([search], **tool_wrappers(gate)))  # <-
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    app = graph.compile()

    def support(_run: interlock.Run, task: str) -> str:
        return str(app.invoke({"messages": [("user", task)]})["messages"][-1].text)

    result = gate.run_sync(support, "Users cannot log in")
    print(result.reason, "| steps:", result.steps, "| searches executed:", searches)
    print("kept:", result.details["partial"]["text"])
    gate.close()


if __name__ == "__main__":
    main()
