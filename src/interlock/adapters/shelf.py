"""What the gate knows of a framework's tools, by name: as declared in code, or made out of what the framework says."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from interlock.adapters.values import ToolArguments, ToolValue
from interlock.config.build import House
from interlock.core.calls import Effect, OnUnknown, Schema, ToolSpec
from interlock.core.errors import ConfigError
from interlock.gateway.tools import Tool
from interlock.policy.approval import given, refused
from interlock.policy.globs import valid_tool_name

__all__ = ["Asked", "Said", "Schemas", "Shelf", "code_of", "own_rules"]

# Whether a person must approve, or has decided.
Asked = Literal["required", "given", "refused"] | None
_DECIDED = {"given": given, "refused": refused}

# Tools come from the application, but an MCP server may offer others each time.
TOOLS_KEPT = 4096
_ARGUMENTS = ToolArguments()
_VALUE = ToolValue()


# Of each gate: what its adapters have compiled, by what makes a tool of the framework what it is.
_COMPILED: weakref.WeakKeyDictionary[Any, dict[Any, Schema]] = weakref.WeakKeyDictionary()


# Parts of pydantic's own schema of a model in which nothing checks.
_NO_CHECK = {"serialization", "metadata"}


class Schemas:
    """What the arguments of a gate's tools must fit: tools that are made anew for each request share it.

    Args:
        gate: The gate.
    """

    __slots__ = ("_known",)

    def __init__(self, gate: object) -> None:
        self._known = _COMPILED.setdefault(gate, {})

    def of(self, place: Any, compiled: Callable[[], Schema]) -> Schema:
        """Return what was compiled for this place, or compile it.

        Args:
            place: The tool's name, its schema as text, the rules of its own, and what its functions are made of: tools
                alike in all are one.
        """
        found = self._known.get(place)
        if found is None:
            if len(self._known) >= TOOLS_KEPT:
                self._known.clear()
            found = self._known[place] = compiled()
        return found


def code_of(fn: Any) -> Any:
    """Return what tells a tool's function apart, and is the same each time that the function is made anew.

    The function itself would be kept, with all that it has seen.
    """
    return getattr(fn, "__code__", type(fn))


def own_rules(model: Any) -> Any:
    """Return a model of arguments that checks by functions of its own; None where its schema says all of it.

    Such functions may go by what they have seen when they were made, so that models alike as text are not one.
    """
    left = [getattr(model, "__pydantic_core_schema__", {})]
    while left:
        part = left.pop()
        if isinstance(part, Mapping):
            if str(part.get("type", "")).startswith("function-"):
                return model
            left += [value for name, value in part.items() if name not in _NO_CHECK]
        elif isinstance(part, list | tuple):
            left += part
    return None


class Said(NamedTuple):
    """What the framework itself says of a tool. What the configuration or `@gate.tool` says goes before it.

    Attributes:
        effect: `read` or `write`; None: it says nothing, so it is a write.
        timeout_s: Of one attempt. inputs: what the arguments must fit; None: the framework has looked.
        approval: A person must approve; or has, which the configuration cannot take back.
    """

    effect: Literal["read", "write"] | None = None
    timeout_s: float | None = None
    inputs: Schema | None = None
    approval: Asked = None


class Shelf:
    """The tools of one gate, as its adapters meet them.

    Args:
        home: Opens the gate's parts, or returns the open ones.
    """

    __slots__ = ("_home", "_open", "_tools")

    def __init__(self, home: Callable[[], House]) -> None:
        self._open = home
        self._home: House | None = None
        self._tools: dict[Any, ToolSpec] = {}

    def home(self) -> House:
        """Return the gate's parts."""
        home = self._open()
        if home is not self._home:
            self._home = home
            self._tools.clear()
        return home

    def tool(self, name: str, function: Any, said: Said) -> str | ToolSpec:
        """Return a tool for the gateway.

        Args:
            name: As the framework calls it.
            function: What the framework will call, where the adapter can see it.
            said: What the framework says of it.
        """
        home = self.home()
        own = isinstance(function, Tool) and home.gateway.declared(function.name) is function.spec
        declared: ToolSpec | None = function.spec if own else home.gateway.declared(name)
        keyless = declared is not None and not own and _by_key(declared)
        timed = declared is not None and declared.timeout_s is None and said.timeout_s is not None
        if declared is not None and not keyless and not timed and said.approval not in _DECIDED:
            return declared.name
        place = (name, declared, keyless, said)
        tool = self._tools.get(place)
        if tool is not None:
            return tool
        if declared is None:
            return self._keep(place, _foreign(name, home, said))
        changes: dict[str, Any] = {"timeout_s": said.timeout_s} if timed else {}
        if said.approval in _DECIDED:
            changes["approval"] = _DECIDED[said.approval]
        return self._keep(place, replace(_without_key(declared) if keyless else declared, **changes))

    def absent(self, name: str) -> ToolSpec:
        """Return what stands for a tool that the framework does not offer."""
        self.home()
        tool = self._tools.get(name)
        if tool is None:
            tool = self._keep(name, ToolSpec(name, _nowhere, is_async=True, known=False, inputs=_ARGUMENTS))
        return tool

    def needs_approval(self, tool: str | ToolSpec) -> bool:
        """Whether a person must approve calls of this tool in the store, because they may write."""
        settled = self.home().gateway.tool(tool)
        return settled.approval == "required" and settled.may_write

    def _keep(self, place: Any, tool: ToolSpec) -> ToolSpec:
        if len(self._tools) >= TOOLS_KEPT:
            self._tools.clear()
        self._tools[place] = tool
        return tool


def _by_key(tool: ToolSpec) -> bool:
    """Whether an unknown outcome of this tool is closed by the key that its own function sends."""
    return tool.takes_key and not tool.natural and tool.on_unknown is OnUnknown.RESEND


def _without_key(declared: ToolSpec) -> ToolSpec:
    """What was declared under this name holds, but that the key reaches the remote: another function is called."""
    return replace(declared, on_unknown=OnUnknown.STOP if declared.lookup is None else OnUnknown.LOOKUP)


def _foreign(name: str, home: House, said: Said) -> ToolSpec:
    tool = ToolSpec(
        name,
        _nowhere,
        is_async=True,
        effect=Effect.WRITE if said.effect is None else Effect(said.effect),
        # It may read its key (`interlock.adapters.idempotency_key`); the configuration says so by `resend`.
        takes_key=True,
        inputs=said.inputs or _ARGUMENTS,
        output=_VALUE,
        timeout_s=said.timeout_s,
        approval=_DECIDED.get(said.approval or "", "required" if said.approval else None),
        known=valid_tool_name(name),
    )
    try:
        home.declarations.settled(tool)
    except ConfigError:
        return tool  # the gateway says so, at the call
    try:
        home.declarations.check(tool)
    except ConfigError:  # `idempotency_required` names it, and nobody has said how its unknown outcome is closed
        return replace(tool, known=False)
    return tool


async def _nowhere(**_: Any) -> Any:
    raise LookupError("only the framework can call this tool")
