"""Pydantic AI: `Agent(…, capabilities=[interlock_capability(gate)])`, and every tool call passes the gate.

The capability sits innermost. Each execution of a function or MCP tool is a guarded call, whatever other
capabilities retry or rewrite around it; each model request is a turn of the run, streamed or not. An agent that
runs inside `gate.run` belongs to that run; elsewhere each `agent.run` opens a run of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from interlock.adapters.agents import AgentRun, Turn
from interlock.adapters.packages import needs, tested
from interlock.adapters.pydantic_ai_tools import (
    GuardedToolset,
    declared_effect,
    function_of,
    guarded_call,
    wants_key,
    with_placeholder,
    without_key,
)
from interlock.adapters.pydantic_ai_values import AgentStopped, Billing, as_output, as_partial, as_task
from interlock.adapters.seam import Seam
from interlock.config.gate import Interlock
from interlock.core.errors import AlreadyEnded, RunStopped
from interlock.core.results import RunResult
from interlock.supervisor.run import Run
from interlock.supervisor.turns import ModelTurn

with needs("pydantic-ai"):
    from pydantic import ValidationError
    from pydantic_ai import AbstractToolset, ModelRetry, RunContext
    from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
    from pydantic_ai.messages import ModelResponse, ToolCallPart
    from pydantic_ai.models import ModelRequestContext
    from pydantic_ai.run import AgentRunResult
    from pydantic_ai.tools import ToolDefinition

__all__ = ["AgentStopped", "InterlockCapability", "interlock_capability"]

tested("pydantic-ai-slim", "2.68")

Named = str | Callable[[RunContext[Any]], str | None] | None


def interlock_capability(
    gate: Interlock,
    *,
    tenant_id: Named = None,
    request_id: Named = None,
    approvals: Literal["store", "framework"] = "store",
    on_result: Callable[[RunResult], Any] | None = None,
) -> InterlockCapability:
    """Return the capability that puts an agent behind `gate`.

    Args:
        gate: Settings, tools and store.
        tenant_id, request_id: Of runs that the capability opens itself (outside `gate.run`): text, or a function of
            the run context; left out, the keys `tenant_id` and `request_id` of `agent.run(…, metadata={…})`.
        approvals: Where a person decides on a tool with `approval: required`: in the store (`interlock approvals`),
            or by the framework's own `DeferredToolRequests`, which must be among the agent's output types.
        on_result: Told of the result of each run that the capability opened.
    """
    return InterlockCapability(Seam(gate), tenant_id, request_id, approvals, on_result)


class InterlockCapability(AbstractCapability[Any]):
    """The gate as a capability; made by `interlock_capability`.

    Attributes:
        run: The current run's, while an agent runs; None before.
    """

    id = "interlock"

    def __init__(
        self,
        seam: Seam,
        tenant_id: Named,
        request_id: Named,
        approvals: Literal["store", "framework"],
        on_result: Callable[[RunResult], Any] | None,
    ) -> None:
        self._seam = seam
        self._tenant_id = tenant_id
        self._request_id = request_id
        self.approvals = approvals
        self._on_result = on_result
        self.run: Run | None = None
        self._tokens = 0
        self._messages: list[Any] = []

    def get_ordering(self) -> CapabilityOrdering:
        """Innermost: what others retry or rewrite passes the gate each time, as it will be sent."""
        return CapabilityOrdering(position="innermost")

    async def for_run(self, ctx: RunContext[Any]) -> InterlockCapability:  # noqa: ARG002 - the framework passes it
        """Return an instance of its own for each agent run."""
        own = copy.copy(self)
        own.run = None
        own._tokens = 0  # noqa: SLF001 - of the same class
        own._messages = []  # noqa: SLF001
        return own

    # -- the run

    async def wrap_run(self, ctx: RunContext[Any], *, handler: Callable[[], Awaitable[Any]]) -> AgentRunResult[Any]:
        """Work in the current run, in a child of it where another agent is at work, or in a run opened for this one."""
        run = self._seam.run()
        if run is not None:
            return await self._within(run, ctx, handler)
        opened = self._seam.gate.open_run(
            as_task(ctx.prompt),
            agent_name=_name_of(ctx),
            tenant_id=self._said(self._tenant_id, "tenant_id", ctx) or "default",
            request_id=self._said(self._request_id, "request_id", ctx),
        )
        result: AgentRunResult[Any] | None = None
        failed: AgentStopped | None = None
        try:
            async with opened as run:
                try:
                    result = await self._within(run, ctx, handler)
                    run.output = result.output
                except AgentStopped as error:
                    failed = error
                    raise
        except AlreadyEnded as ended:
            return as_output(ctx, ended)
        finally:
            if run is not None and run.result is not None and self._on_result is not None:
                self._on_result(run.result)
        if result is not None and run.result is not None and run.result.ok:
            return result
        stopped = failed or AgentStopped.of(run.scope.stop, self._messages)
        stopped.result = run.result
        raise stopped

    async def _within(
        self, run: Run, ctx: RunContext[Any], handler: Callable[[], Awaitable[Any]]
    ) -> AgentRunResult[Any]:
        async with AgentRun(run, _name_of(ctx)) as own:
            self.run = own
            try:
                result: AgentRunResult[Any] = await handler()
            except BaseException:
                own.partial = as_partial(self._messages) if own.partial is None else own.partial
                raise
            return result

    @staticmethod
    def _said(word: Named, key: str, ctx: RunContext[Any]) -> str | None:
        if word is None:
            found = (ctx.metadata or {}).get(key)
            return None if found is None else str(found)
        return word(ctx) if callable(word) else word

    # -- model requests

    async def wrap_model_request(
        self,
        ctx: RunContext[Any],
        *,
        request_context: ModelRequestContext,
        handler: Callable[[ModelRequestContext], Awaitable[ModelResponse]],
    ) -> ModelResponse:
        """Make the request a turn of the run: here it stops, and here it is charged and recorded."""
        run = self.run
        if run is None:
            return await handler(request_context)
        self._messages = ctx.messages
        billing = Billing.of(request_context)
        try:
            async with Turn(
                run,
                model=billing.model,
                max_output_tokens=billing.max_output_tokens,
                # What was said so far will be read again; what is new since is in the answer to it.
                input_tokens=self._tokens,
                record=ModelResponse,
            ) as turn:
                response = await self._answered(turn, request_context, handler, billing)
                await self._note_absent(run, request_context, response)
                return response
        except AgentStopped:
            raise
        except RunStopped as stop:
            raise AgentStopped.by(stop, list(ctx.messages)) from stop

    async def _answered(
        self,
        turn: ModelTurn,
        request_context: ModelRequestContext,
        handler: Callable[[ModelRequestContext], Awaitable[ModelResponse]],
        billing: Billing,
    ) -> ModelResponse:
        if turn.replayed:
            response: ModelResponse = turn.reply
        else:
            if turn.wrap_up:
                billing.without_tools(request_context)
            try:
                response = await handler(request_context)
            except BaseException:
                billing.charge_interrupted(turn, request_context)
                raise
            billing.charge(turn, response)
            turn.reply = response
        self._tokens = response.usage.input_tokens + response.usage.output_tokens
        return response

    async def _note_absent(self, run: Run, request_context: ModelRequestContext, response: ModelResponse) -> None:
        """Put calls of tools that were not offered on record; the framework itself tells the model."""
        calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
        if not calls:
            return
        parameters = request_context.model_request_parameters
        offered = {tool.name for tool in parameters.function_tools} | {tool.name for tool in parameters.output_tools}
        for call in calls:
            if call.tool_name not in offered:
                await self._seam.absent(run, call.tool_name, call.args, call.tool_call_id)

    # -- tools

    async def prepare_tools(self, ctx: RunContext[Any], tool_defs: list[ToolDefinition]) -> list[ToolDefinition]:  # noqa: ARG002 - the framework passes it
        """Hide the argument `idempotency_key`, which the gate fills."""
        return [without_key(tool_def) for tool_def in tool_defs]

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        """Put every tool that the framework executes behind the gate."""
        return GuardedToolset(toolset, self.call_tool)

    async def call_tool(self, toolset: AbstractToolset[Any], name: str, args: Any, ctx: Any, tool: Any) -> Any:
        """Make one tool call through the gate."""
        run = self.run or self._seam.run()
        if run is None:
            return await toolset.call_tool(name, args, ctx, tool)
        by_framework = self.approvals == "framework"
        return await guarded_call(self._seam, run, toolset, name, args, ctx, tool, by_framework=by_framework)

    async def wrap_tool_validate(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: str | dict[str, Any],
        handler: Callable[[Any], Awaitable[dict[str, Any]]],
    ) -> dict[str, Any]:
        """Put calls whose arguments do not fit on record; the framework asks the model to correct them."""
        try:
            return await handler(with_placeholder(args) if wants_key(tool_def) else args)
        except (ValidationError, ModelRetry):
            run = self.run
            if run is not None and not ctx.partial_output:
                tool = None if ctx.tool_manager is None else (ctx.tool_manager.tools or {}).get(call.tool_name)
                await self._seam.invalid(
                    run,
                    call.tool_name,
                    call.tool_call_id,
                    function=function_of(tool),
                    effect=declared_effect(tool_def),
                )
            raise


def _name_of(ctx: RunContext[Any]) -> str:
    return (ctx.agent.name if ctx.agent is not None else None) or "agent"
