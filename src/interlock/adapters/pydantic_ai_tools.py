"""A tool of Pydantic AI, met at the very place where its toolset would run it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import TypeAdapter

from interlock.adapters import idempotency_key
from interlock.adapters.outcome import Outcome
from interlock.adapters.packages import needs
from interlock.adapters.seam import Seam
from interlock.adapters.values import parsed
from interlock.gateway.tools import KEY, Tool
from interlock.supervisor.run import Run

with needs("pydantic-ai"):
    from pydantic_ai import AbstractToolset, ApprovalRequired, CallDeferred, ModelRetry, ToolFailed, ToolReturn
    from pydantic_ai.exceptions import SkipToolExecution
    from pydantic_ai.tools import ToolDefinition
    from pydantic_ai.toolsets import WrapperToolset

__all__ = [
    "GuardedToolset",
    "declared_effect",
    "function_of",
    "guarded_call",
    "wants_key",
    "with_placeholder",
    "without_key",
]

# The framework's own control flow. Nothing was done when a tool raises one of these of its own accord.
_CONTROL = (ModelRetry, ToolFailed, CallDeferred, ApprovalRequired, SkipToolExecution)
_SAID = (ModelRetry, ToolFailed)
# Marks a tool whose argument `idempotency_key` was hidden from the model.
_WANTS_KEY = "interlock.idempotency_key"
_RETURN: TypeAdapter[Any] = TypeAdapter(ToolReturn)


@dataclass
class GuardedToolset(WrapperToolset[Any]):
    """All tools of an agent, each call of which is made by `guard`."""

    guard: Callable[[AbstractToolset[Any], str, Any, Any, Any], Awaitable[Any]]

    async def call_tool(self, name: str, tool_args: dict[str, Any], ctx: Any, tool: Any) -> Any:
        """Make one call."""
        return await self.guard(self.wrapped, name, tool_args, ctx, tool)


async def guarded_call(
    seam: Seam,
    run: Run,
    toolset: AbstractToolset[Any],
    name: str,
    args: dict[str, Any],
    ctx: Any,
    tool: Any,
    *,
    by_framework: bool,
) -> Any:
    """Make one call through the gate, and return what the model gets in the framework's own terms.

    Args:
        by_framework: The framework asks the person whom `approval: required` demands.

    Raises:
        ToolFailed: A refusal, or a failure: told to the model, without an invitation to try again.
        ApprovalRequired: `by_framework`, and nobody has been asked yet.
    """
    function, effect = function_of(tool), declared_effect(tool.tool_def)
    approval: Literal["given"] | None = None
    if by_framework and seam.needs_approval(name, function=function, effect=effect):
        if not ctx.tool_call_approved:
            raise ApprovalRequired
        approval = "given"
    source = _source(tool)
    timeout_s = _timeout_s(tool, source)
    if timeout_s is not None:
        # The gate cuts instead: a thread that is cut by the framework is lost, and its answer with it.
        tool = replace(tool, tool_def=replace(tool.tool_def, timeout=math.inf))
    keyed = wants_key(tool.tool_def)
    if keyed:
        args = {name: value for name, value in args.items() if name != KEY}
    wrapped: ToolReturn[Any] | None = None

    async def handler(pristine: dict[str, Any]) -> Any:
        nonlocal wrapped
        if keyed:
            pristine[KEY] = idempotency_key() or ""
        value = await _performed(toolset, name, pristine, ctx, tool)
        if not isinstance(function, Tool) or not isinstance(value, ToolReturn):
            return value
        # What was declared is the output of the function, not of what the framework wraps around it.
        wrapped = value
        return value.return_value

    outcome = await seam.call(
        run,
        name,
        args,
        handler,
        effect=effect,
        schema=None if function is not None else tool.tool_def.parameters_json_schema,
        function=function,
        tool_call_id=ctx.tool_call_id,
        timeout_s=timeout_s,
        approval=approval,
        passes=_CONTROL,
        threaded=not getattr(source, "is_async", True),
    )
    value = _native(outcome)
    return value if wrapped is None or outcome.note is not None else replace(wrapped, return_value=value)


async def _performed(toolset: AbstractToolset[Any], name: str, args: dict[str, Any], ctx: Any, tool: Any) -> Any:
    """Run the tool. A write that asks for a retry because of an error is judged by that error."""
    try:
        return await toolset.call_tool(name, args, ctx, tool)
    except _SAID as error:
        said: Exception = error
    if idempotency_key() is not None:
        cause = said.__cause__ or said.__context__
        if isinstance(cause, Exception) and not isinstance(cause, _CONTROL):
            said = cause
    try:
        raise said
    finally:
        del said


def _native(outcome: Outcome) -> Any:
    if not outcome.ok:
        raise ToolFailed(outcome.for_model)
    if outcome.note is not None:
        return outcome.for_model
    value = outcome.value
    if not outcome.fresh and isinstance(value, dict) and value.get("kind") == "tool-return" and "return_value" in value:
        return _RETURN.validate_python(value)
    return value


def _source(tool: Any) -> Any:
    """Return the tool as its own toolset made it, from below those that combine or rename."""
    while (inner := getattr(tool, "source_tool", None)) is not None:
        tool = inner
    return tool


def without_key(tool_def: ToolDefinition) -> ToolDefinition:
    """Return what the model sees of a tool: not the argument `idempotency_key`, which the gate fills."""
    schema = tool_def.parameters_json_schema
    properties = schema.get("properties")
    if not properties or KEY not in properties:
        return tool_def
    shown = {**schema, "properties": {name: said for name, said in properties.items() if name != KEY}}
    if KEY in shown.get("required", ()):
        shown["required"] = [name for name in shown["required"] if name != KEY]
    return replace(tool_def, parameters_json_schema=shown, metadata={**(tool_def.metadata or {}), _WANTS_KEY: True})


def wants_key(tool_def: ToolDefinition) -> bool:
    """Whether the gate fills this tool's argument `idempotency_key`."""
    return bool(tool_def.metadata) and _WANTS_KEY in tool_def.metadata


def with_placeholder(args: Any) -> Any:
    """Return the model's arguments as a tool that takes a key accepts them."""
    given = parsed(args)
    return {**given, KEY: ""} if isinstance(given, dict) else args


def _timeout_s(tool: Any, source: Any) -> float | None:
    own = tool.tool_def.timeout
    timeout_s: float | None = getattr(source.toolset, "timeout", None) if own is None else own
    return timeout_s


def function_of(tool: Any) -> Any:
    """Return the Python function behind a function tool; None for others."""
    schema = getattr(getattr(_source(tool), "call_func", None), "__self__", None)
    return getattr(schema, "function", None)


def declared_effect(tool_def: Any) -> Literal["read", "write"] | None:
    """Return what the tool's metadata says, `{"effect": "read"}`; anything but these two words says nothing."""
    word = (tool_def.metadata or {}).get("effect")
    return word if word in {"read", "write"} else None
