"""Pydantic AI: `Agent(…, capabilities=[interlock_capability(gate), recalling(gate, scope={"user": "ann"})])`.

What the gate's memory knows of the prompt stands before it in each request, as the user's words and within its
budget; it is not written into the history.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from interlock.adapters.packages import needs, tested
from interlock.adapters.remembered import Recalling, ScopeOf
from interlock.config.gate import Interlock

with needs("pydantic-ai"):
    from pydantic_ai import RunContext
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, UserPromptPart
    from pydantic_ai.models import ModelRequestContext

__all__ = ["RecallingCapability", "recalling"]

tested("pydantic-ai-slim", "2.68")


def recalling(gate: Interlock, *, scope: ScopeOf, k: int = 8, max_tokens: int | None = None) -> RecallingCapability:
    """Return the capability that tells an agent what the gate's memory knows of its prompt.

    Args:
        gate: The one of `interlock_capability`.
        scope: Whose memory: `{"user": …, "session": …}`, or a function of the run. The tenant is the run's.
        k, max_tokens: See `run.memory.recall`.
    """
    return RecallingCapability(Recalling(gate, scope, k, max_tokens))


class RecallingCapability(AbstractCapability[Any]):
    """Memory as a capability; made by `recalling`."""

    id = "interlock-memory"

    def __init__(self, recalls: Recalling) -> None:
        self._recalls = recalls

    async def wrap_model_request(
        self,
        ctx: RunContext[Any],  # noqa: ARG002 - the framework passes it
        *,
        request_context: ModelRequestContext,
        handler: Callable[[ModelRequestContext], Awaitable[ModelResponse]],
    ) -> ModelResponse:
        """Put what is known before the prompt; outside of the turn, so that a replayed turn reads it too."""
        messages = await self._with_notes(request_context.messages)
        return await handler(replace(request_context, messages=messages))

    async def _with_notes(self, messages: list[ModelMessage]) -> list[ModelMessage]:
        for at in range(len(messages) - 1, -1, -1):
            message = messages[at]
            if not isinstance(message, ModelRequest):
                continue
            for place, part in enumerate(message.parts):
                question = _text(part.content) if isinstance(part, UserPromptPart) else ""
                if question:
                    text = await self._recalls.text(question)
                    if not text:
                        return messages
                    parts = [*message.parts[:place], UserPromptPart(text), *message.parts[place:]]
                    return [*messages[:at], replace(message, parts=parts), *messages[at + 1 :]]
        return messages


def _text(content: Any) -> str:
    """Return the words of a prompt, which may have pictures between them."""
    if isinstance(content, str):
        return content
    return "\n".join(part for part in content if isinstance(part, str))
