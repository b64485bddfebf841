"""A LangChain tool behind the funnel: the model sees it without its key, the graph executes it guarded.

The guard sits at the tool itself, inside every middleware: whatever a middleware changes in the arguments is
judged as it will be executed, and whatever it repeats meets the record.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Literal

from langchain_core.tools import BaseTool, StructuredTool, Tool
from pydantic import BaseModel, create_model

from interlock.adapters.langchain_values import NOTHING
from interlock.adapters.shelf import Schemas, code_of, own_rules
from interlock.adapters.values import ToolArguments
from interlock.core.calls import Schema
from interlock.core.errors import ConfigError
from interlock.gateway.tools import KEY, attempt_under_way
from interlock.gateway.tools import Tool as GateTool
from interlock.validation.schemas import compile_inputs

__all__ = ["Entered", "ToolFacts", "entered"]

_RUNS = (StructuredTool._run, Tool._run)  # noqa: SLF001 - how to see that a subclass does something else
_EFFECTS: dict[Any, Literal["read", "write"]] = {"read": "read", "write": "write"}


class Entered:
    """What was seen of one attempt inside the tool's own function.

    Attributes:
        begun: It was entered. returned: its value, or NOTHING. raised: its exception.
    """

    __slots__ = ("begun", "raised", "returned")

    def __init__(self) -> None:
        self.begun = False
        self.returned: Any = NOTHING
        self.raised: Exception | None = None


entered: ContextVar[Entered | None] = ContextVar("interlock_langchain_tool", default=None)


class ToolFacts:
    """What the gate needs of one tool.

    Attributes:
        tool: The tool as the application made it.
        exposed: What the model is told of: the same, without `idempotency_key`; `tool` itself where it takes none.
        executed: What an attempt invokes: reports what happens inside, and fills the key.
        effect: What the tool's own metadata says: `metadata={"effect": "read"}`, or `extras`; else None.
        function: What will be called, if it is a tool of a gate. inputs: what the arguments must fit.
        injected: Names of arguments that the graph fills. blocks: it has no async form.
        awaits: It has no sync form. watched: its function reports what happens inside.
        fills: It takes the key as an argument of the call, where its function cannot be reached.
    """

    __slots__ = (
        "awaits",
        "blocks",
        "effect",
        "executed",
        "exposed",
        "fills",
        "function",
        "injected",
        "inputs",
        "tool",
        "watched",
    )

    def __init__(self, tool: BaseTool, schemas: Schemas, *, strict: bool) -> None:
        self.tool = tool
        parts = _parts(tool)
        functions = tuple(parts.values()) or (tool._run, tool._arun)  # noqa: SLF001 - what a class of its own overrides
        self.watched = bool(parts)
        self.blocks = "coroutine" not in parts if parts else type(tool)._arun is BaseTool._arun  # noqa: SLF001
        self.awaits = self.watched and "func" not in parts
        self.effect = _effect(tool)
        self.function = next((fn for fn in functions if isinstance(fn, GateTool)), None)
        takes_key = any(_takes_key(fn) for fn in functions)
        self.fills = takes_key and not self.watched
        self.exposed = _without_key(tool) if takes_key else tool
        # What the signature has and the model does not see is the graph's to fill.
        named = {name for fn in functions for name in inspect.signature(fn).parameters}
        self.injected = frozenset() if _of_one_text(tool) else frozenset(named) - set(_visible(self.exposed))
        self.executed: BaseTool = tool if self.fills else self.exposed
        if parts:
            self.executed = self.exposed.model_copy()
            for name, fn in parts.items():
                # A tool of a gate is no coroutine function, and is awaited where LangChain awaits.
                awaits = name == "coroutine" or inspect.iscoroutinefunction(fn)
                setattr(self.executed, name, _watched(fn, takes_key=_takes_key(fn), awaits=awaits))
        place = (tool.name, _spelled(self.exposed), own_rules(tool.args_schema), *map(code_of, parts.values()))
        self.inputs = schemas.of(place, functools.partial(_inputs, self.exposed, strict=strict))


def _parts(tool: BaseTool) -> dict[str, Callable[..., Any]]:
    """Return the functions that the tool is made of; none where it is a class of its own."""
    if not isinstance(tool, StructuredTool | Tool) or type(tool)._run not in _RUNS:  # noqa: SLF001
        return {}
    found = {"func": tool.func, "coroutine": tool.coroutine}
    return {name: fn for name, fn in found.items() if fn is not None}


def _of_one_text(tool: BaseTool) -> bool:
    """Whether the tool takes one text, under whatever name: LangChain's oldest kind."""
    return isinstance(tool, Tool) and tool.args_schema is None


def _effect(tool: BaseTool) -> Literal["read", "write"] | None:
    for said in (tool.metadata, tool.extras):
        effect = _EFFECTS.get(said.get("effect")) if said else None
        if effect is not None:
            return effect
    return None


def _takes_key(fn: Callable[..., Any]) -> bool:
    return not isinstance(fn, GateTool) and KEY in inspect.signature(fn).parameters


def _visible(tool: BaseTool) -> tuple[str, ...]:
    """Return the arguments that the model sees."""
    schema = tool.tool_call_schema
    if isinstance(schema, Mapping):
        return tuple(schema.get("properties") or ())
    return tuple(getattr(schema, "model_fields", ()))


def _without_key(tool: BaseTool) -> BaseTool:
    """Return the tool as the model may see it: `idempotency_key` is filled by the gate."""
    schema: Any = tool.args_schema if tool.args_schema is not None else tool.get_input_schema()
    if isinstance(schema, Mapping):
        required = [name for name in schema.get("required") or () if name != KEY]
        properties = {name: said for name, said in (schema.get("properties") or {}).items() if name != KEY}
        shown: Any = {**schema, "properties": properties, "required": required}
    else:
        fields: dict[str, Any] = {
            name: (field.rebuild_annotation(), field) for name, field in schema.model_fields.items() if name != KEY
        }
        shown = create_model(schema.__name__, __doc__=schema.__doc__, __module__=schema.__module__, **fields)
    exposed = tool.model_copy()
    exposed.args_schema = shown
    return exposed


def _spelled(tool: BaseTool) -> str:
    """Return the schema of the arguments as text."""
    schema: Any = tool.tool_call_schema
    plain = schema if isinstance(schema, Mapping) else schema.model_json_schema()
    return json.dumps(plain, sort_keys=True, default=str)


def _inputs(tool: BaseTool, *, strict: bool) -> Schema:
    if _of_one_text(tool):
        return ToolArguments()
    schema = tool.tool_call_schema
    if isinstance(schema, Mapping) or (isinstance(schema, type) and issubclass(schema, BaseModel)):
        # A schema that cannot be compiled (or JSON Schema without its extra) leaves the checking to LangChain.
        with contextlib.suppress(ConfigError):
            return compile_inputs(schema, strict=strict)
    return ToolArguments()


def _watched(fn: Callable[..., Any], *, takes_key: bool, awaits: bool) -> Callable[..., Any]:
    """Return `fn`, saying what becomes of it, with the key where it takes one."""

    def fill(kwargs: dict[str, Any]) -> dict[str, Any]:
        attempt = attempt_under_way.get()
        return {**kwargs, KEY: None if attempt is None else attempt.sent_key} if takes_key else kwargs

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        with _Watch() as seen:
            seen.returned = await fn(*args, **fill(kwargs))
        return seen.returned

    def called(*args: Any, **kwargs: Any) -> Any:
        with _Watch() as seen:
            seen.returned = fn(*args, **fill(kwargs))
        return seen.returned

    # LangChain reads the signature, to know what else a tool wants to be given.
    return functools.wraps(fn)(awaited if awaits else called)


class _Watch:
    """Notes what happens inside a tool's function."""

    __slots__ = ("_seen",)

    def __enter__(self) -> Entered:
        self._seen = entered.get() or Entered()
        self._seen.begun = True
        return self._seen

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            self._seen.raised = error
