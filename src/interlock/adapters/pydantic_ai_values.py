"""Pydantic AI's own types as the gate's words: stops, usage, what is kept of an agent that was stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from interlock.adapters.packages import needs
from interlock.adapters.values import as_json
from interlock.budget.prices import Usage
from interlock.core.calls import Stop
from interlock.core.canonical import NotCanonical
from interlock.core.errors import AlreadyEnded, RunStopped
from interlock.core.reasons import StopReason
from interlock.core.results import RunResult
from interlock.supervisor.turns import ModelTurn

with needs("pydantic-ai"):
    from pydantic_ai.exceptions import AgentRunError
    from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelResponse, TextPart
    from pydantic_ai.models import ModelRequestContext
    from pydantic_ai.run import AgentRunResult

__all__ = ["AgentStopped", "Billing", "as_output", "as_partial", "as_task"]


class AgentStopped(RunStopped, AgentRunError):
    """The run is over, for `reason`: raised where the agent would have asked its model again.

    Attributes:
        messages: The conversation up to here.
        result: The outcome of the run, where the capability opened it; inside `gate.run` that returns it.
    """

    messages: list[Any]
    result: RunResult | None = None

    @classmethod
    def by(cls, stop: RunStopped, messages: list[Any]) -> Self:
        """Return the framework's form of a stop."""
        error = cls(stop.reason, str(stop), details=stop.details)
        error.messages = messages
        return error

    @classmethod
    def of(cls, stop: Stop | None, messages: list[Any]) -> Self:
        """Return the framework's form of a decided stop."""
        reason = StopReason.INTERNAL_ERROR if stop is None else stop.reason
        error = cls(reason, "" if stop is None else stop.message)
        error.messages = messages
        return error


class Billing:
    """Whom a model request is charged to, and what it says it used.

    Attributes:
        model: `provider:model`, or None where several may answer: then the reply names it.
        max_output_tokens: From the model settings, or None.
    """

    __slots__ = ("max_output_tokens", "model")

    def __init__(self, model: str | None, max_output_tokens: int | None) -> None:
        self.model = model
        self.max_output_tokens = max_output_tokens

    @classmethod
    def of(cls, request: ModelRequestContext) -> Self:
        """Read a request."""
        model = request.model
        name = None if getattr(model, "models", None) else f"{model.system}:{model.model_name}"
        return cls(name, (request.model_settings or {}).get("max_tokens"))

    def charge(self, turn: ModelTurn, response: ModelResponse) -> None:
        """Charge what a reply says it used; a reply that says nothing costs what was reserved."""
        used = response.usage
        if used.input_tokens or used.output_tokens:
            usage = Usage(used.input_tokens, used.output_tokens, used.cache_read_tokens, used.cache_write_tokens)
            name = response.model_name
            turn.charge(usage, model=f"{response.provider_name}:{name}" if response.provider_name and name else name)

    def charge_interrupted(self, turn: ModelTurn, request: ModelRequestContext) -> None:
        """Charge what a stream had used when it was left."""
        ledger = getattr(request, "_usage_response_ledger", None)
        for response in getattr(ledger, "responses", ()):
            self.charge(turn, response)

    @staticmethod
    def without_tools(request: ModelRequestContext) -> None:
        """Let the model only answer."""
        request.model_request_parameters = replace(request.model_request_parameters, function_tools=[], native_tools=[])


def as_task(prompt: Any) -> Any:
    """Return a prompt as JSON, which says of a request what it is about."""
    return prompt if isinstance(prompt, str) else as_json(prompt)


def as_partial(messages: Sequence[Any]) -> dict[str, Any] | None:
    """Return what there is of an agent that did not come to its end: its last text, and the conversation as JSON."""
    if not messages:
        return None
    texts = [
        part.content
        for message in messages
        if isinstance(message, ModelResponse)
        for part in message.parts
        if isinstance(part, TextPart) and part.content
    ]
    said: Any = None
    with contextlib.suppress(ValueError):
        said = ModelMessagesTypeAdapter.dump_python(list(messages), mode="json")
    return {"text": texts[-1] if texts else "", "messages": said}


def as_output(ctx: Any, ended: AlreadyEnded) -> AgentRunResult[Any]:
    """Return the stored outcome of a request that was delivered before, as the agent's result.

    Raises:
        AgentStopped: It did not succeed; `result` says how it ended.
        AlreadyEnded: What was stored is not of the agent's output type any more.
    """
    result: RunResult = ended.result
    if not result.ok:
        error = AgentStopped(result.reason, str(ended), details=result.details)
        error.messages, error.result = [], result
        raise error from None
    output_type = getattr(ctx.agent, "output_type", str)
    try:
        return AgentRunResult(TypeAdapter(output_type).validate_python(result.output))
    except (ValidationError, NotCanonical, TypeError) as error:
        raise ended from error
