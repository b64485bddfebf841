"""The tools of an OpenAI Agents SDK agent, behind the funnel: function tools, custom tools, agents as tools, MCP.

The SDK turns a tool's exception into "An error occurred … Please try again" before anybody sees it, cuts tools by a
timeout of its own, and cancels the siblings of one that raises. A guarded copy therefore never raises: it hands
the bare tool's own handler to the funnel, and answers with what came of it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Literal

from agents import CustomTool, FunctionTool, ModelBehaviorError, Tool
from agents.mcp import MCPServer
from agents.tool import maybe_invoke_function_tool_failure_error_function, set_function_tool_failure_error_function
from agents.tool_context import ToolContext
from mcp.types import CallToolResult

from interlock.adapters.agents import AgentRun
from interlock.adapters.outcome import Outcome
from interlock.adapters.seam import Seam
from interlock.adapters.values import Unfit, parsed
from interlock.core.errors import ConfigError
from interlock.gateway.tools import attempt_under_way
from interlock.supervisor.run import Run
from interlock.validation.jsonschemas import JsonSchema
from interlock.validation.mismatch import SchemaMismatch

__all__ = ["GuardedServer", "Unreadable", "entered", "guard_in_place", "guarded_tool"]

KEY = "idempotency_key"
# The child run that an agent used as a tool works in; the SDK's runner comes to it by itself, plain or streamed.
entered: ContextVar[Run | None] = ContextVar("interlock_openai_agents_entered", default=None)


class Unreadable(Exception):
    """The SDK could not read the arguments: the tool's function was not entered."""


def guarded_tool(tool: Tool, seam: Seam) -> Tool:
    """Return a copy of a tool that passes the funnel; a tool that the provider executes, as it is."""
    if isinstance(tool, FunctionTool):
        return tool if isinstance(tool.on_invoke_tool, _Invoker) else _guarded_function(tool, seam)
    if isinstance(tool, CustomTool):
        return _guarded_custom(tool, seam)
    return tool


# -- function tools


class _Invoker:
    """What the SDK calls in place of a function tool's own handler."""

    def __init__(self, tool: FunctionTool, seam: Seam) -> None:
        self._tool = tool
        self._seam = seam
        self._bare = copy.copy(tool)
        # Else the handler would answer with a text, and the funnel would never see the exception.
        set_function_tool_failure_error_function(self._bare, None)
        self._threaded = bool(getattr(tool.on_invoke_tool, "__agents_sync_function_tool__", False))
        self._keyed = KEY in (tool.params_json_schema.get("properties") or {})
        self._asked = asked_by_the_sdk(tool, seam)
        self._prepare: Callable[[str, str], Any] | None = None

    async def __call__(self, ctx: ToolContext[Any], arguments: str) -> Any:
        tool, seam = self._tool, self._seam
        run = seam.run()
        if run is None:
            return await tool.on_invoke_tool(ctx, arguments)
        # Where the SDK's own rule asks a person, it has had a yes before it comes here.
        asked = self._asked or await _asks(tool, ctx, arguments)
        given, prepared = self._read(arguments)
        # The SDK's reading of them serves the first attempt; what that changes in them, a second one must not see.
        once = iter((prepared,))
        try:
            outcome = await seam.call(
                run,
                tool.qualified_name,
                given,
                lambda args: self._attempt(ctx, arguments, args, next(once, None)),
                effect=_effect(tool),
                function=_function(tool),
                schema=None if isinstance(given, Unfit) else tool.params_json_schema,
                tool_call_id=ctx.tool_call_id,
                passes=(Unreadable,),
                timeout_s=_DELEGATED_S if tool._is_agent_tool else tool.timeout_seconds,  # noqa: SLF001
                approval="given" if asked else None,
                threaded=self._threaded,
            )
        except Unreadable as error:
            return f"{error} It was not executed."
        except Exception as error:  # `mode: observe`: as the bare tool would have done
            said = await maybe_invoke_function_tool_failure_error_function(function_tool=tool, context=ctx, error=error)
            if said is None:
                raise
            return said
        return told(outcome)

    def _read(self, arguments: str) -> tuple[Any, Any]:
        """Return the arguments, and the SDK's reading of them; marked, where that would fail for this tool."""
        args = parsed(arguments)
        if not isinstance(args, Mapping):
            return args, None
        text = json.dumps({**args, KEY: ""}) if self._keyed else arguments
        name = self._tool.name
        if self._prepare is None:
            prepare = getattr(self._bare.on_invoke_tool, "prepare_arguments", None)
            found = None if prepare is None else prepare(text, name)
            if found is None:
                return args, None
            # What reads them for a call; `prepare` itself looks besides whether a person must be asked.
            self._prepare = found.owner
        try:
            prepared = self._prepare(text, name)
        except ModelBehaviorError:
            return Unfit(args, _faults(self._tool, args)), None
        return args, None if self._keyed else prepared

    async def _attempt(self, ctx: ToolContext[Any], arguments: str, args: Mapping[str, Any], prepared: Any) -> Any:
        attempt = attempt_under_way.get()
        if ctx._function_tool_arguments is None:  # noqa: SLF001 - where the SDK leaves what it has read
            ctx._function_tool_arguments = prepared  # noqa: SLF001
        if self._keyed and attempt is not None:
            arguments = json.dumps({**args, KEY: attempt.sent_key or ""})
            ctx._function_tool_arguments = None  # noqa: SLF001 - what was prepared has no key
        try:
            run = self._seam.run()
            if not self._tool._is_agent_tool or run is None:  # noqa: SLF001 - the SDK's only mark of it
                return await self._bare.on_invoke_tool(ctx, arguments)
            async with AgentRun(run, self._tool.name) as child:
                token = entered.set(child)
                try:
                    return await self._bare.on_invoke_tool(ctx, arguments)
                finally:
                    entered.reset(token)
        except ModelBehaviorError as error:
            # Of a function tool it means that its arguments do not fit; said before the function is entered.
            if str(error).startswith("Invalid JSON input for tool"):
                raise Unreadable("The arguments do not fit the tool's schema.") from error
            raise


def _faults(tool: FunctionTool, args: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what does not fit, where the extra for JSON Schema is there to say it."""
    try:
        JsonSchema(_without_key(tool.params_json_schema), closed=False).validate(args)
    except SchemaMismatch as mismatch:
        return mismatch.errors
    except ConfigError:
        pass
    return []


# An agent that is used as a tool may work for long; its own tools and turns have their own limits.
_DELEGATED_S = 86_400.0


def _guarded_function(tool: FunctionTool, seam: Seam) -> FunctionTool:
    guarded = copy.copy(tool)
    _guard(guarded, tool, seam)
    return guarded


def guard_in_place(tool: FunctionTool, seam: Seam) -> None:
    """Guard a tool that was given to an agent on its way: outside of runs it is what it was."""
    if not isinstance(tool.on_invoke_tool, _Invoker):
        _guard(tool, copy.copy(tool), seam)


def _guard(guarded: FunctionTool, bare: FunctionTool, seam: Seam) -> None:
    guarded.on_invoke_tool = _Invoker(bare, seam)
    # The funnel has the one deadline, and knows what became of a write that misses it.
    guarded.timeout_seconds = None
    if asked_by_the_sdk(bare, seam):
        guarded.needs_approval = True
    guarded.params_json_schema = _without_key(bare.params_json_schema)
    set_function_tool_failure_error_function(guarded, None)


def _function(tool: FunctionTool) -> Any:
    """Return what the SDK will call; of `openai_agents.function_tool`, the decorated tool itself."""
    function = getattr(tool, "__wrapped__", None)
    return getattr(function, "__wrapped__", function)


def _without_key(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema without `idempotency_key`, which is not the model's to choose."""
    properties = schema.get("properties") or {}
    if KEY not in properties:
        return schema
    found = {**schema, "properties": {name: said for name, said in properties.items() if name != KEY}}
    if "required" in schema:
        found["required"] = [name for name in schema["required"] if name != KEY]
    return found


def _effect(tool: FunctionTool) -> Literal["read", "write"] | None:
    """An agent changes nothing by itself: its tools pass the funnel one by one."""
    return "read" if tool._is_agent_tool else None  # noqa: SLF001 - the SDK's only mark of it


def asked_by_the_sdk(tool: FunctionTool, seam: Seam) -> bool:
    """Whether the SDK asks the person whom the gate's `approval: required` demands for this tool."""
    if not seam.by_framework:
        return False
    return seam.needs_approval(tool.qualified_name, function=_function(tool), effect=_effect(tool))


async def _asks(tool: FunctionTool, ctx: ToolContext[Any], arguments: str) -> bool:
    """Whether the SDK's own rule asks a person about this call; a rule that fails asks."""
    rule = tool.needs_approval
    if isinstance(rule, bool):
        return rule
    try:
        args = json.loads(arguments or "{}")
        return bool(await rule(ctx, args, ctx.tool_call_id))
    except Exception:
        return True


def told(outcome: Outcome) -> Any:
    """Return what the SDK gets of a call: the tool's own value where it is fresh, else what the model may read."""
    return outcome.value if outcome.ok and outcome.fresh and outcome.note is None else outcome.for_model


# -- custom tools: one text in, one text out


def _guarded_custom(tool: CustomTool, seam: Seam) -> CustomTool:
    bare: Callable[[ToolContext[Any], str], Any] = tool.on_invoke_tool

    async def invoke(ctx: ToolContext[Any], text: str) -> Any:
        run = seam.run()
        if run is None:
            return await _awaited(bare(ctx, text))
        outcome = await seam.call(
            run,
            tool.name,
            {"input": text},
            lambda args: _awaited(bare(ctx, args["input"])),
            tool_call_id=ctx.tool_call_id,
            approval="given" if tool.needs_approval is True else None,
        )
        return told(outcome)

    guarded = copy.copy(tool)
    guarded.on_invoke_tool = invoke
    return guarded


async def _awaited(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


# -- MCP


class GuardedServer(MCPServer):
    """An MCP server whose calls pass the funnel; everything else is the server's own.

    The SDK makes its tools anew each turn, so the calls are met here.

    Args:
        inner: The server; connected and closed by its owner.
        id_of: Finds the model's id of a call by tool and arguments, for the record.
    """

    def __init__(self, inner: MCPServer, seam: Seam, id_of: Callable[[str, Any], str | None]) -> None:
        # Not super().__init__: whatever this class does not say is asked of `inner`.
        self._inner = inner
        self._seam = seam
        self._id_of = id_of

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # a copy that is being made
            raise AttributeError(name)
        return getattr(self._inner, name)

    @property
    def name(self) -> str:
        """The server's."""
        return str(self._inner.name)

    @property
    def cached_tools(self) -> Any:
        """The server's."""
        return self._inner.cached_tools

    async def connect(self) -> None:
        """Connect the server."""
        await self._inner.connect()

    async def cleanup(self) -> None:
        """Close the server."""
        await self._inner.cleanup()

    async def list_tools(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the server."""
        return await self._inner.list_tools(*args, **kwargs)

    async def list_prompts(self) -> Any:
        """Ask the server."""
        return await self._inner.list_prompts()

    async def get_prompt(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """Ask the server."""
        return await self._inner.get_prompt(name, arguments)

    def _get_failure_error_function(self, agent_failure_error_function: Any) -> Any:  # noqa: ARG002
        """What fails around a call was not sent, or is told by the funnel: never "please try again"."""
        return _failed

    async def call_tool(
        self, tool_name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None = None
    ) -> CallToolResult:
        """Call the server's tool through the funnel."""
        seam = self._seam
        run = seam.run()
        if run is None:
            bare: CallToolResult = await self._inner.call_tool(tool_name, arguments, meta)
            return bare
        outcome = await seam.call(
            run,
            tool_name,
            arguments,
            lambda args: self._attempt(tool_name, args, meta),
            tool_call_id=self._id_of(tool_name, arguments),
            approval="given" if self._approved(tool_name) else None,
        )
        if outcome.ok and outcome.fresh and outcome.note is None and isinstance(outcome.value, CallToolResult):
            return outcome.value
        return CallToolResult.model_validate({"content": [{"type": "text", "text": _text(outcome)}]})

    def _get_needs_approval_for_tool(self, tool: Any, agent: Any) -> Any:
        """Let the SDK ask the person whom the gate demands, if that is its business; else as the server says."""
        return True if self._asked_by_the_sdk(tool.name) else super()._get_needs_approval_for_tool(tool, agent)

    def _asked_by_the_sdk(self, tool_name: str) -> bool:
        return self._seam.by_framework and self._seam.needs_approval(tool_name)

    def _approved(self, tool_name: str) -> bool:
        """Whether the SDK has asked a person before it came here; of a rule that is a function, nobody knows."""
        if self._asked_by_the_sdk(tool_name):
            return True
        rule = getattr(self._inner, "_needs_approval_policy", False)
        return rule is True or (isinstance(rule, dict) and rule.get(tool_name) is True)

    async def _attempt(self, tool_name: str, args: dict[str, Any], meta: dict[str, Any] | None) -> CallToolResult:
        # Its own repeating would send a write again behind the funnel's back. A copy shares the session.
        once = copy.copy(self._inner)
        if hasattr(once, "max_retry_attempts"):
            once.max_retry_attempts = 0
        attempt = attempt_under_way.get()
        if attempt is not None and attempt.sent_key is not None:
            meta = {**(meta or {}), "io.interlock/idempotency_key": attempt.sent_key}
        result: CallToolResult = await once.call_tool(tool_name, args, meta)
        return result


def _text(outcome: Outcome) -> str:
    """Return what the model reads of a call whose result is not fresh: the texts in it, where it is MCP's."""
    value = outcome.value
    if outcome.ok and isinstance(value, Mapping) and isinstance(value.get("content"), list):
        texts = [part.get("text", "") for part in value["content"] if isinstance(part, Mapping)]
        return "\n".join(text for text in (outcome.note, *texts) if text)
    return outcome.for_model


def _failed(_ctx: Any, error: Exception) -> str:
    if isinstance(error, ModelBehaviorError):
        return "The arguments are not valid JSON. It was not executed."
    return "The tool failed."
