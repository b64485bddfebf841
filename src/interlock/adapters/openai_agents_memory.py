"""OpenAI Agents SDK: `RunConfig(call_model_input_filter=recalling(gate, scope={"user": "ann"}))`.

What the gate's memory knows of the last user message stands before it in each request, as the user's words and
within its budget; it is not written into the session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from interlock.adapters.packages import needs, tested
from interlock.adapters.remembered import Recalling, ScopeOf
from interlock.config.gate import Interlock

with needs("openai-agents"):
    from agents.run import CallModelData, ModelInputData

__all__ = ["recalling"]

tested("openai-agents", "0.24")


def recalling(
    gate: Interlock, *, scope: ScopeOf, k: int = 8, max_tokens: int | None = None
) -> Callable[[CallModelData[Any]], Awaitable[ModelInputData]]:
    """Return a `call_model_input_filter` that tells an agent what the gate's memory knows of its question.

    Args:
        gate: The one of `openai_agents.run`.
        scope: Whose memory: `{"user": …, "session": …}`, or a function of the run. The tenant is the run's.
        k, max_tokens: See `run.memory.recall`.
    """
    recalls = Recalling(gate, scope, k, max_tokens)

    async def with_notes(data: CallModelData[Any]) -> ModelInputData:
        items: list[Any] = list(data.model_data.input)
        for at in range(len(items) - 1, -1, -1):
            question = _question(items[at])
            if question:
                text = await recalls.text(question)
                if text:
                    items.insert(at, {"role": "user", "content": text})
                break
        return ModelInputData(input=items, instructions=data.model_data.instructions)

    return with_notes


def _question(item: Any) -> str:
    """Return the words of a user's message; "" of anything else."""
    if not isinstance(item, dict) or item.get("role") != "user":
        return ""
    content = item.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in content or () if isinstance(part, dict) and part.get("text"))
