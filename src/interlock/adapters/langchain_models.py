"""A LangChain model's request as a turn of the run: its price name, its worst case, what it used."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately

from interlock.adapters.langchain_values import corrected, dumped_reply, read_reply
from interlock.budget.prices import Usage
from interlock.core.fields import read_field
from interlock.supervisor.run import Run
from interlock.supervisor.turns import ModelTurn

__all__ = ["counting", "partial_of", "recall", "settle", "words_of"]

# What the price list calls the providers that LangChain knows by another name; only these are said beside the model.
_PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google_genai": "google",
    "google_vertexai": "google",
    "azure": "azure",
    "amazon_bedrock": "aws",
    "bedrock": "aws",
    "mistral": "mistral",
    "mistralai": "mistral",
    "groq": "groq",
    "deepseek": "deepseek",
    "xai": "x-ai",
    "cohere": "cohere",
    "fireworks": "fireworks",
    "together": "together",
    "openrouter": "openrouter",
}
# Applications that make their model anew for each request: what is known of them is bounded.
MODELS_KEPT = 64
_COUNTING: dict[int, tuple[BaseChatModel, BaseChatModel]] = {}
_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_NAMING = ("model_name", "model", "model_id", "deployment_name", *_CAPS)
_NAMED: dict[int, tuple[BaseChatModel, list[Any], tuple[str, str | None, Any]]] = {}


def words_of(model: BaseChatModel, prices: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `run.step` is told of a request.

    Args:
        prices: The configuration's own prices; a name in them goes before the provider's.
        settings: Of this request.
    """
    named, provider, usual = _names_of(model)
    if provider is not None and named not in prices:
        named = f"{provider}:{named}"
    cap = next((settings[key] for key in _CAPS if settings.get(key)), usual)
    return {"model": named, "max_output_tokens": cap if isinstance(cap, int) and cap > 0 else None, "record": dict}


def _names_of(model: BaseChatModel) -> tuple[str, str | None, Any]:
    """Return a model's name, its provider in the price list, and its own cap on what it says.

    LangChain makes them for tracers, from all of the model: they are kept for as long as what they are made of stays.
    """
    kind: Any = type(model)
    fields = model.__dict__
    made_of = list(map(fields.get, _NAMING))
    made_of += [read_field(model, name) for name in _elsewhere(kind)]
    found = _NAMED.get(id(model))
    if found is not None and found[0] is model and found[1] == made_of:
        return found[2]
    said: Mapping[str, Any] = model._get_ls_params()  # noqa: SLF001 - what LangChain tells tracers of a model
    name = str(said.get("ls_model_name") or getattr(model, "model_name", "") or getattr(model, "model", ""))
    names = (
        name or model._llm_type,  # noqa: SLF001 - the same
        _PROVIDERS.get(str(said.get("ls_provider"))),
        said.get("ls_max_tokens"),
    )
    if len(_NAMED) >= MODELS_KEPT:
        _NAMED.clear()
    _NAMED[id(model)] = (model, made_of, names)
    return names


@functools.lru_cache(maxsize=MODELS_KEPT)
def _elsewhere(kind: type[BaseChatModel]) -> tuple[str, ...]:
    """Return which of the names are no fields of this class: properties of it, or what it accepts beside its fields."""
    if kind.model_config.get("extra") == "allow":
        return _NAMING
    return tuple(name for name in _NAMING if name not in kind.model_fields and hasattr(kind, name))


def counting(model: BaseChatModel) -> BaseChatModel:
    """Return the model, such that its streams say what they used; the same one for the same model."""
    if getattr(model, "stream_usage", True):
        return model
    found = _COUNTING.get(id(model))
    if found is not None and found[0] is model:
        return found[1]
    if len(_COUNTING) >= MODELS_KEPT:
        _COUNTING.clear()
    # `ChatOpenAI` leaves it off wherever the base URL is not OpenAI's own.
    made = model.model_copy(update={"stream_usage": True})
    _COUNTING[id(model)] = (model, made)
    return made


def settle(run: Run, turn: ModelTurn, asked: Sequence[AnyMessage], replied: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Charge a reply, keep it for a later attempt of the run, and return it as the agent should see it."""
    replied = [corrected(message) for message in replied]
    for message in replied:
        if isinstance(message, AIMessage):
            turn.charge(_usage(message) or _estimate(asked, message))
    if run.scope.tape is not None:
        turn.reply = dumped_reply(replied)
    return replied


def recall(turn: ModelTurn) -> list[BaseMessage]:
    """Return the reply that an earlier attempt of the run got."""
    return read_reply(turn.reply)


def _usage(message: AIMessage) -> Usage | None:
    usage = message.usage_metadata
    if usage is None:
        return None
    details = usage.get("input_token_details") or {}
    return Usage(usage["input_tokens"], usage["output_tokens"], details.get("cache_read") or 0)


def _estimate(asked: Sequence[AnyMessage], message: AIMessage) -> dict[str, int]:
    """A reply that does not say what it used must not be free: about four characters a token."""
    return {
        "input_tokens": count_tokens_approximately(asked),
        "output_tokens": count_tokens_approximately([message]),
    }


def partial_of(*parts: Sequence[BaseMessage]) -> Callable[[], dict[str, Any]]:
    """Return what writes down what exists so far, as JSON: the last text of the model, and the messages."""
    return functools.partial(_written, parts)


def _written(parts: Sequence[Sequence[BaseMessage]]) -> dict[str, Any]:
    messages = [message for part in parts for message in part]
    text = next((m.text for m in reversed(messages) if isinstance(m, AIMessage) and m.text), "")
    return {"text": str(text), "messages": dumped_reply(list(messages))["messages"]}
