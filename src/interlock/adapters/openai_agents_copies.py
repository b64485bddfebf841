"""Guarded copies of one run's agents: their tools, MCP servers, models and handoffs; the originals stay as they are."""

from __future__ import annotations

import copy
import inspect
import weakref
from typing import Any

from agents import Agent, FunctionTool, Handoff, Model, ModelProvider, ModelResponse, RunConfig, RunState, Tool
from agents.models.multi_provider import MultiProvider

from interlock.adapters.openai_agents_models import CallIds, TurnModel, TurnProvider, hosted_calls
from interlock.adapters.openai_agents_tools import GuardedServer, guard_in_place, guarded_tool
from interlock.adapters.seam import Seam
from interlock.record.trace import Kind, pack
from interlock.supervisor.run import Run

__all__ = ["Copies"]


class Copies:
    """The guarded copies that one run of the SDK's loop works with."""

    def __init__(self, seam: Seam) -> None:
        self._seam = seam
        self._agents: dict[int, tuple[Agent[Any], Agent[Any]]] = {}
        self._ours: set[int] = set()
        self._asked: dict[tuple[str, str], str] = {}
        self._args: dict[str, str] = {}
        self._ids = CallIds()

    # -- agents

    def agent(self, agent: Agent[Any]) -> Agent[Any]:
        """Return the guarded copy of an agent; one that is a copy already, as it is."""
        if id(agent) in self._ours:
            return agent
        known = self._agents.get(id(agent))
        if known is not None:
            return known[1]
        guarded = copy.copy(agent)
        # Before its handoffs: agents may hand off to each other in a circle.
        self._agents[id(agent)] = (agent, guarded)
        self._ours.add(id(guarded))
        guarded.tools = [guarded_tool(tool, self._seam) for tool in agent.tools]
        guarded.mcp_servers = [GuardedServer(server, self._seam, self._id_of) for server in agent.mcp_servers]
        if isinstance(agent.model, Model):
            guarded.model = self._model(agent.model, None)
        guarded.handoffs = [
            self._handoff(target) if isinstance(target, Handoff) else self.agent(target) for target in agent.handoffs
        ]
        return guarded

    def _handoff(self, handoff: Handoff[Any, Any]) -> Handoff[Any, Any]:
        guarded = copy.copy(handoff)

        async def invoke(ctx: Any, arguments: str) -> Any:
            return self.agent(await handoff.on_invoke_handoff(ctx, arguments))

        guarded.on_invoke_handoff = invoke
        target = None if handoff._agent_ref is None else handoff._agent_ref()  # noqa: SLF001 - read by the SDK's RunState
        if isinstance(target, Agent):
            guarded._agent_ref = weakref.ref(self.agent(target))  # noqa: SLF001
        return guarded

    def state(self, given: Any) -> Any:
        """Return the input of a run; a `RunState` has agents of its own, which are guarded where they are."""
        if isinstance(given, RunState):
            seen: set[int] = set()
            for agent in (given._starting_agent, given._current_agent):  # noqa: SLF001 - there is no public way
                if agent is not None:
                    self._in_place(agent, seen)
        return given

    def _in_place(self, agent: Agent[Any], seen: set[int]) -> None:
        if id(agent) in seen or id(agent) in self._ours:
            return
        seen.add(id(agent))
        for tool in agent.tools:
            if isinstance(tool, FunctionTool):
                guard_in_place(tool, self._seam)
        agent.mcp_servers = [
            server if isinstance(server, GuardedServer) else GuardedServer(server, self._seam, self._id_of)
            for server in agent.mcp_servers
        ]
        if isinstance(agent.model, Model):
            agent.model = self._model(agent.model, None)
        for target in agent.handoffs:
            if isinstance(target, Agent):
                self._in_place(target, seen)

    # -- models

    def _model(self, model: Model, name: str | None) -> Model:
        if isinstance(model, TurnModel):
            return model
        said = str(name or getattr(model, "model", None) or type(model).__name__)
        vendor, _, rest = said.removeprefix("litellm/").partition("/")
        price = f"{vendor}:{rest}" if rest else f"openai:{said}"
        return TurnModel(model, self._seam.run, price, self._heard, self._offered, self._ids)

    def _offered(self, tools: list[Tool]) -> None:
        """Take in what a turn may use: a tool that came by no way we know of is guarded where it is."""
        for tool in tools:
            if isinstance(tool, FunctionTool) and tool._mcp_tool_binding is None:  # noqa: SLF001 - MCP's own are made anew
                guard_in_place(tool, self._seam)

    def _heard(self, run: Run, reply: ModelResponse) -> None:
        """Take in a reply before the SDK acts on it."""
        for item in reply.output:
            if getattr(item, "type", None) == "function_call":
                call: Any = item
                self._args[call.call_id] = call.arguments
                self._asked.setdefault((call.name, call.arguments), call.call_id)
        for name, kind in hosted_calls(reply):
            scope = run.scope
            words = Kind(name, f"not_guarded_{kind}", "write", None)
            scope.trace.add(words, pack(scope.seq, scope.turn, 1, scope.clock.wall(), 0.0, bytes(16)))

    def _id_of(self, tool: str, _args: Any) -> str | None:
        return next((call_id for (name, _), call_id in self._asked.items() if name.endswith(tool)), None)

    # -- the runner's options

    def options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the runner's options, with models whose requests are turns, and unknown tools refused."""
        given = kwargs.get("run_config")
        config = RunConfig() if given is None else RunConfig(**given) if isinstance(given, dict) else copy.copy(given)
        if isinstance(config.model, Model):
            config.model = self._model(config.model, None)
        provider: ModelProvider = config.model_provider or MultiProvider()
        config.model_provider = provider if isinstance(provider, TurnProvider) else TurnProvider(provider, self._model)
        config.tool_not_found_behavior = "return_error_to_model"
        config.tool_error_formatter = self._formatter(config.tool_error_formatter)
        return {**kwargs, "run_config": config}

    def _formatter(self, given: Any) -> Any:
        if getattr(given, "__self__", None) is self:
            return given

        async def explain(args: Any) -> str | None:
            if args.kind == "tool_not_found":
                return await self._not_there(args.tool_name, args.call_id)
            said = None if given is None else given(args)
            return await said if inspect.isawaitable(said) else said

        return explain

    async def _not_there(self, name: str, call_id: str) -> str:
        """Refuse a tool that this agent does not have, on the record."""
        run = self._seam.run()
        if run is None:
            return f"There is no tool {name}. Nothing was executed."
        return (await self._seam.absent(run, name, self._args.get(call_id), call_id)).for_model
