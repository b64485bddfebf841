"""Google ADK: `App(…, plugins=[interlock_plugin(gate)])`, and every tool call passes the gate.

Before each request to a model the plugin puts guarded tools in the place of those that the request may lead to:
the framework's own callbacks, confirmations and traces stay around them. A request is a turn of the run from the
plugin's callback before it to the one after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import inspect
import json
from typing import Any, Literal

from pydantic import BaseModel

from interlock.adapters.agents import Turn
from interlock.adapters.nests import Nest, nested_in
from interlock.adapters.packages import needs, tested
from interlock.adapters.seam import Seam
from interlock.adapters.values import ToolArguments, as_json
from interlock.budget.prices import Usage
from interlock.config.gate import Interlock
from interlock.core.calls import Schema
from interlock.core.errors import ConfigError, LeaseLost, NoRun, RunStopped
from interlock.gateway.tools import KEY, Tool, attempt_under_way
from interlock.supervisor.run import Run
from interlock.supervisor.turns import ModelTurn
from interlock.validation.schemas import compile_inputs

with needs("google-adk"):
    from google.adk.models.llm_request import LlmRequest
    from google.adk.models.llm_response import LlmResponse
    from google.adk.plugins.base_plugin import BasePlugin
    from google.adk.tools.base_tool import BaseTool
    from google.adk.tools.function_tool import FunctionTool

__all__ = ["InterlockPlugin", "interlock_plugin"]

NO_RUN = (
    "no run of this gate is open here: call the runner inside gate.run(agent, task) or `async with gate.open_run(task)`"
)
# Applications that make their tools anew for each request: what is known of them is bounded.
TOOLS_KEPT = 1024
_EFFECTS: dict[Any, Literal["read", "write"]] = {"read": "read", "write": "write"}


def interlock_plugin(gate: Interlock) -> InterlockPlugin:
    """Return the plugin that puts a runner's agents behind the gate. Put it last among the plugins.

    Args:
        gate: Its runs are those in which agents may work: `gate.run`, or `gate.open_run`.
    """
    tested("google-adk", "2.13")
    return InterlockPlugin(gate)


class InterlockPlugin(BasePlugin):
    """The gate as a plugin; made by `interlock_plugin`."""

    def __init__(self, gate: Interlock) -> None:
        super().__init__(name="interlock")
        self._seam = Seam(gate)
        self._strict = gate.settings.validation.input.strict
        self._schemas: dict[tuple[str, str], Schema] = {}
        self._facts: dict[int, _Facts] = {}
        self._open: dict[tuple[str, str, str], _Asked] = {}

    async def _run(self) -> Run:
        run, nest = self._seam.run(), nested_in.get()
        if run is None:
            raise NoRun(NO_RUN)
        return run if nest is None else await nest.run()

    # -- the model

    async def before_model_callback(self, *, callback_context: Any, llm_request: LlmRequest) -> LlmResponse | None:
        """Open a turn of the run; answer it from the record where there is one; end the agent where it is over."""
        run = await self._run()
        place = _place(callback_context)
        await self._close(place, None)  # another callback answered the last request in the model's place
        turn = Turn(run, model=llm_request.model, max_output_tokens=_cap(llm_request), record=dict).uncut()
        try:
            opened = await turn.__aenter__()
        except (RunStopped, LeaseLost) as stop:
            callback_context._invocation_context.end_invocation = True  # noqa: SLF001 - there is no public way
            return LlmResponse(error_code=f"INTERLOCK_{stop.reason.upper()}", error_message=stop.for_model)
        asked = self._open[place] = _Asked(run, turn, opened)
        self._guard_tools(llm_request)
        if opened.wrap_up:
            llm_request.config.tools = []
        if not opened.replayed:
            return None
        response = LlmResponse.model_validate(opened.reply)
        _keep_partial(asked.run, response)
        await self._close(place, None)
        return response

    async def after_model_callback(self, *, callback_context: Any, llm_response: LlmResponse) -> None:
        """Charge the request, keep its reply, and close its turn; pieces of a stream are not a reply."""
        if llm_response.partial:
            return
        place = _place(callback_context)
        asked = self._open.get(place)
        if asked is None:
            return
        _charge(asked.run, asked.turn, llm_response)
        _keep_partial(asked.run, llm_response)
        await self._close(place, None)

    async def on_model_error_callback(
        self,
        *,
        callback_context: Any,
        llm_request: LlmRequest,  # noqa: ARG002 - the framework passes it
        error: Exception,
    ) -> None:
        """Close the turn of a request that failed."""
        await self._close(_place(callback_context), error)

    async def _close(self, place: tuple[str, str, str], error: BaseException | None) -> None:
        asked = self._open.pop(place, None)
        if asked is not None:
            await asked.block.__aexit__(None if error is None else type(error), error, None)

    # -- tools

    async def before_tool_callback(
        self, *, tool: BaseTool, tool_args: dict[str, Any], tool_context: Any
    ) -> dict[str, Any] | None:
        """Refuse what was not offered; guard what came to the request after us."""
        if getattr(tool, "_interlock", None) is self or _of_the_framework(tool):
            return None
        if type(tool) is BaseTool:  # what stands for a name that no tool has
            outcome = await self._seam.absent(await self._run(), tool.name, tool_args, tool_context.function_call_id)
            return {"error": outcome.for_model}
        value = await self._call(tool, tool_args, tool_context)
        return value if isinstance(value, dict) else {"result": value}

    def _guard_tools(self, request: LlmRequest) -> None:
        for name, tool in request.tools_dict.items():
            if not _of_the_framework(tool):
                request.tools_dict[name] = self._guarded(tool)
        for holder in request.config.tools or ():
            for declaration in getattr(holder, "function_declarations", None) or ():
                _hide_key(declaration)

    def _guarded(self, tool: BaseTool) -> BaseTool:
        if getattr(tool, "_interlock", None) is self:
            return tool
        guarded = copy.copy(tool)

        async def run_async(*, args: dict[str, Any], tool_context: Any) -> Any:
            return await self._call(tool, args, tool_context)

        guarded.run_async = run_async
        guarded._interlock = self  # noqa: SLF001 - a mark of ours on a copy of ours
        return guarded

    async def _call(self, tool: BaseTool, args: dict[str, Any], tool_context: Any) -> Any:
        run = await self._run()
        facts = self._facts_of(tool)
        confirmation = tool_context.tool_confirmation

        async def handler(given: dict[str, Any]) -> Any:
            if facts.takes_key:
                attempt = attempt_under_way.get()
                given[KEY] = None if attempt is None else attempt.sent_key
            nest = Nest(run, tool.name).enter()
            try:
                value = await _performed(tool, given, tool_context, blocks=facts.blocks)
            except BaseException as error:
                await nest.aclose(error)
                raise
            else:
                await nest.aclose(None)
                return value
            finally:
                nest.leave()

        outcome = await self._seam.call(
            run,
            tool.name,
            {name: value for name, value in args.items() if name != KEY},
            handler,
            effect=_EFFECTS.get((tool.custom_metadata or {}).get("effect")),
            function=facts.function,
            inputs=facts.inputs,
            tool_call_id=tool_context.function_call_id,
            approval=None if confirmation is None else "given" if confirmation.confirmed else "refused",
            threaded=facts.blocks,
        )
        if outcome.ok and outcome.note is None:
            # A declared output is a model; ADK's clients, and its stores of sessions, take JSON.
            return as_json(outcome.value) if isinstance(outcome.value, BaseModel) else outcome.value
        return {"result": outcome.for_model} if outcome.ok else {"error": outcome.for_model}

    def _facts_of(self, tool: BaseTool) -> _Facts:
        found = self._facts.get(id(tool))
        if found is None or found.tool is not tool:
            if len(self._facts) >= TOOLS_KEPT:
                self._facts.clear()
            found = self._facts[id(tool)] = _Facts(tool, self._inputs(tool))
        return found

    def _inputs(self, tool: BaseTool) -> Schema:
        declaration = tool._get_declaration()  # noqa: SLF001 - what the framework tells models of a tool
        spelled = "" if declaration is None else declaration.model_dump_json(exclude_none=True)
        found = self._schemas.get((tool.name, spelled))
        if found is None:
            if len(self._schemas) >= TOOLS_KEPT:
                self._schemas.clear()
            found = self._schemas[(tool.name, spelled)] = self._compiled(tool)
        return found

    def _compiled(self, tool: BaseTool) -> Schema:
        if isinstance(tool, FunctionTool):
            own = {KEY, "input_stream", "tool_context", str(getattr(tool, "_context_param_name", ""))}
            with contextlib.suppress(ConfigError):
                return compile_inputs(tool.func, strict=self._strict, ignore=own)
        return ToolArguments()


class _Facts:
    """What the gate needs of one tool.

    Attributes:
        tool: As the application made it. inputs: what its arguments must fit.
        function: What will be called, if it is a tool of a gate. takes_key: it is none, and takes `idempotency_key`.
        blocks: It is a plain function.
    """

    __slots__ = ("blocks", "function", "inputs", "takes_key", "tool")

    def __init__(self, tool: BaseTool, inputs: Schema) -> None:
        fn = tool.func if isinstance(tool, FunctionTool) else None
        self.tool = tool
        self.inputs = inputs
        self.function = fn if isinstance(fn, Tool) else None
        self.takes_key = fn is not None and self.function is None and KEY in inspect.signature(fn).parameters
        self.blocks = fn is not None and not inspect.iscoroutinefunction(fn) and not inspect.isasyncgenfunction(fn)


class _Asked:
    """A request under way."""

    __slots__ = ("block", "run", "turn")

    def __init__(self, run: Run, block: Turn, turn: ModelTurn) -> None:
        self.run = run
        self.block = block
        self.turn = turn


async def _performed(tool: BaseTool, args: dict[str, Any], tool_context: Any, *, blocks: bool) -> Any:
    if not blocks:
        return await tool.run_async(args=args, tool_context=tool_context)
    # The framework would call a plain function on the event loop, where no deadline reaches it.
    return await asyncio.to_thread(lambda: asyncio.run(_coroutine(tool, args, tool_context)))


async def _coroutine(tool: BaseTool, args: dict[str, Any], tool_context: Any) -> Any:
    return await tool.run_async(args=args, tool_context=tool_context)


def _of_the_framework(tool: BaseTool) -> bool:
    """Whether a tool only steers the framework: a transfer to another agent, the end of a loop, a structured answer."""
    fn = getattr(tool, "func", None)
    module = getattr(fn, "__module__", "") or ""
    return module.startswith("google.adk.") or tool.name in {"transfer_to_agent", "set_model_response"}


def _hide_key(declaration: Any) -> None:
    """Take `idempotency_key` out of what the model is told of a tool; the gate fills it."""
    schema = declaration.parameters_json_schema
    if isinstance(schema, dict) and KEY in (schema.get("properties") or {}):
        properties = {name: said for name, said in schema["properties"].items() if name != KEY}
        required = [name for name in schema.get("required") or () if name != KEY]
        declaration.parameters_json_schema = {**schema, "properties": properties, "required": required}
    parameters = declaration.parameters
    if parameters is not None and KEY in (parameters.properties or {}):
        declaration.parameters = parameters.model_copy(
            update={
                "properties": {name: said for name, said in parameters.properties.items() if name != KEY},
                "required": [name for name in parameters.required or () if name != KEY],
            }
        )


def _place(context: Any) -> tuple[str, str, str]:
    """Return what tells requests under way apart: an agent asks one thing at a time in its branch."""
    inner = context._invocation_context  # noqa: SLF001 - there is no public way to the branch
    return context.invocation_id, context.agent_name, str(inner.branch or "")


def _cap(request: LlmRequest) -> int | None:
    cap = getattr(request.config, "max_output_tokens", None)
    return cap if isinstance(cap, int) and cap > 0 else None


def _keep_partial(run: Run, response: LlmResponse) -> None:
    run.partial = functools.partial(_so_far, response)


def _so_far(response: LlmResponse) -> dict[str, Any]:
    texts = [part.text for part in (response.content.parts or ()) if part.text] if response.content else []
    return {"text": "".join(texts), "messages": [_as_json(response)]}


def _as_json(response: LlmResponse) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(response.model_dump_json(exclude_none=True))
    return said


def _charge(run: Run, turn: ModelTurn, response: LlmResponse) -> None:
    usage = response.usage_metadata
    if usage is not None:
        output = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
        asked = (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0)
        turn.charge(Usage(asked, output, usage.cached_content_token_count or 0))
    if run.scope.tape is not None:
        turn.reply = _as_json(response)
