"""What a model is shown, read from any dialect; and what a scripted one answers.

A script is a function of the conversation so far, never of a counter of its own: a framework that drops a
result, asks twice or starts afresh gets what a model would answer to that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Heard", "Script", "Seen", "Turn", "Use", "agent_mark", "read_anthropic", "read_chat", "read_responses"]


def agent_mark(name: str) -> str:
    """Return the words by which the server knows whose conversation it is; they stand in the agent's system prompt."""
    return f"You are the agent called {name}."


@dataclass(frozen=True, slots=True)
class Heard:
    """One tool result that the model was sent."""

    call_id: str
    tool: str
    text: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A request to the model.

    Attributes:
        turn: Number of the turn that is asked for, from 1.
        heard: Tool results, oldest first.
        offered: The tools' schemas by name.
        told: System and user texts. delivery: which delivery of the request this is, from 1.
    """

    turn: int
    heard: tuple[Heard, ...]
    offered: Mapping[str, Any]
    told: str
    delivery: int = 1

    def last(self, tool: str) -> str:
        """Return what was last heard of a tool, or nothing."""
        return next((h.text for h in reversed(self.heard) if h.tool == tool), "")

    def times(self, tool: str) -> int:
        """Return how many results of a tool were heard."""
        return sum(h.tool == tool for h in self.heard)


@dataclass(frozen=True, slots=True)
class Use:
    """A tool use that the model wants; `raw` replaces the arguments' JSON, `call_id` the usual one."""

    tool: str
    args: Mapping[str, Any]
    raw: str | None = None
    call_id: str | None = None

    @property
    def json(self) -> str:
        """The arguments as the wire has them."""
        return json.dumps(self.args) if self.raw is None else self.raw


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model answers: tool uses, or a text that ends the conversation."""

    uses: tuple[Use, ...] = ()
    text: str = ""
    input_tokens: int = 1_000
    output_tokens: int = 50

    def ids(self, number: int) -> list[str]:
        """Return the id of each tool use of the turn with this number."""
        return [use.call_id or f"call_{number}_{i + 1}" for i, use in enumerate(self.uses)]


Script = Callable[[Seen], Turn]


def read_chat(body: Mapping[str, Any]) -> Seen:
    """Read a request of OpenAI chat completions."""
    turn, names, heard, told = 1, dict[str, str](), list[Heard](), list[str]()
    for message in body.get("messages", ()):
        role = message.get("role")
        if role == "assistant":
            turn += 1
            names |= {c["id"]: c["function"]["name"] for c in message.get("tool_calls") or ()}
        elif role == "tool":
            call_id = message.get("tool_call_id", "")
            heard.append(Heard(call_id, names.get(call_id, ""), _text(message.get("content"))))
        else:
            told.append(_text(message.get("content")))
    offered = {t["function"]["name"]: t["function"].get("parameters") or {} for t in body.get("tools") or ()}
    return Seen(turn, tuple(heard), offered, "\n".join(told))


def read_responses(body: Mapping[str, Any]) -> Seen:
    """Read a request of OpenAI responses."""
    items = body.get("input") or ()
    told = [_text(body.get("instructions"))]
    if isinstance(items, str):
        items, told = (), [*told, items]
    turn, speaking, names, heard = 1, False, dict[str, str](), list[Heard]()
    for item in items:
        kind, role = item.get("type", "message"), item.get("role")
        speaks = kind == "function_call" or role == "assistant"
        turn += speaks and not speaking
        speaking = speaks
        if kind == "function_call":
            names[item["call_id"]] = item["name"]
        elif kind == "function_call_output":
            heard.append(Heard(item["call_id"], names.get(item["call_id"], ""), _text(item.get("output"))))
        elif not speaks:
            told.append(_text(item.get("content")))
    offered = {t["name"]: t.get("parameters") or {} for t in body.get("tools") or () if "name" in t}
    return Seen(turn, tuple(heard), offered, "\n".join(told))


def read_anthropic(body: Mapping[str, Any]) -> Seen:
    """Read a request of Anthropic messages."""
    turn, names, heard, told = 1, dict[str, str](), list[Heard](), [_text(body.get("system"))]
    for message in body.get("messages", ()):
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        turn += message.get("role") == "assistant"
        for block in blocks:
            if block.get("type") == "tool_use":
                names[block["id"]] = block["name"]
            elif block.get("type") == "tool_result":
                call_id = block["tool_use_id"]
                heard.append(Heard(call_id, names.get(call_id, ""), _text(block.get("content"))))
            elif message.get("role") != "assistant":
                told.append(_text([block]))
    offered = {t["name"]: t.get("input_schema") or {} for t in body.get("tools") or () if "name" in t}
    return Seen(turn, tuple(heard), offered, "\n".join(told))


def _text(content: Any) -> str:
    """Return the text of a content field: a string, or parts that have one."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "\n".join(str(p.get("text") or "") if isinstance(p, Mapping) else str(p) for p in content)
    return json.dumps(content)
