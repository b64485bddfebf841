"""CrewAI: a crew as a run of the gate; its tools behind the funnel, each request to a model a turn.

    from interlock.adapters import crewai

    result = await crewai.run(gate, crew, {"topic": "logins"}, request_id="req_7842")     # was: crew.kickoff(…)

Hooks of the framework swallow what they raise, so none is used: copies of the crew's tools and models are run.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import ValidationError, create_model

from interlock.adapters.packages import needs, tested

with needs("crewai"):
    from crewai import Agent, Crew
    from crewai.tools import BaseTool
    from openai.types.chat import ChatCompletionMessageFunctionToolCall

from interlock.adapters.agents import AgentRun, Turn
from interlock.adapters.outcome import Outcome
from interlock.adapters.seam import Seam, across
from interlock.adapters.values import Unfit, as_json, parsed
from interlock.budget.prices import Usage
from interlock.config.gate import Interlock
from interlock.core.errors import NoRun
from interlock.core.results import RunResult
from interlock.gateway.tools import attempt_under_way
from interlock.supervisor.run import Run
from interlock.validation.mismatch import from_pydantic

__all__ = ["CrewResult", "kickoff", "run", "run_sync"]

tested("crewai", "1.15")

KEY = "idempotency_key"


@dataclass(frozen=True, slots=True)
class CrewResult(RunResult):
    """A run's result, with the crew's own.

    Attributes:
        native: The `CrewOutput`; None where the run was stopped, or the request had its outcome before.
    """

    native: Any = None


async def run(gate: Interlock, crew: Crew, inputs: Mapping[str, Any] | None = None, **options: Any) -> CrewResult:
    """Do what `crew.kickoff(inputs)` does, as one run of the gate; never raises for what happens inside.

    Args:
        gate: The gate.
        crew: The crew, as it is; guarded copies of its agents, tasks, tools and models are run.
        inputs: Of the crew; part of the request.
        options: Of `Interlock.run`: `tenant_id`, `request_id`, `budgets`, …

    Raises:
        AlreadyRunning: As `Interlock.run`.
    """
    work = _Work(gate, crew)
    return work.result(await gate.run(work.run, dict(inputs or {}), **{"agent_name": work.name, **options}))


def run_sync(gate: Interlock, crew: Crew, inputs: Mapping[str, Any] | None = None, **options: Any) -> CrewResult:
    """Do what `run` does, from sync code."""
    work = _Work(gate, crew)
    return work.result(gate.run_sync(work.run, dict(inputs or {}), **{"agent_name": work.name, **options}))


def kickoff(gate: Interlock, crew: Crew, inputs: Mapping[str, Any] | None = None) -> Any:
    """Do what `crew.kickoff(inputs)` does, inside the current run; inside a tool of one, in a child of it.

    Raises:
        NoRun: There is no current run of this gate: use `run`.
    """
    seam = Seam(gate)
    here = seam.run()
    if here is None:
        raise NoRun("crewai.kickoff was called outside a run of its gate: use crewai.run or gate.run")
    with AgentRun(here, crew.name) as run:
        return _Copies(seam, run).crew(crew).kickoff(inputs=dict(inputs or {}))


class _Work:
    """One `run`: the crew, and what came of it."""

    def __init__(self, gate: Interlock, crew: Crew) -> None:
        self.name = crew.name or "crew"
        self._gate = gate
        self._crew = crew
        self._native: Any = None

    def run(self, _run: Run, inputs: dict[str, Any]) -> Any:
        """Be the agent of the run; in a thread, as crews block."""
        self._native = kickoff(self._gate, self._crew, inputs)
        return self._native.raw

    def result(self, result: RunResult) -> CrewResult:
        """Return the gate's result, with the crew's."""
        return CrewResult(
            **{field.name: getattr(result, field.name) for field in fields(RunResult)}, native=self._native
        )


class _Copies:
    """Guarded copies of one run's crew; the original stays as it is."""

    def __init__(self, seam: Seam, run: Run) -> None:
        self._seam = seam
        self._run = run
        self._agents: dict[int, Any] = {}
        self._tasks: dict[int, Any] = {}

    def crew(self, crew: Crew) -> Crew:
        guarded = copy.copy(crew)
        guarded.agents = [self._agent(agent) for agent in crew.agents]
        if crew.manager_agent is not None:
            guarded.manager_agent = self._agent(crew.manager_agent)
        guarded.tasks = [self._task(task) for task in crew.tasks]
        guarded.cache = False
        return guarded

    def _agent(self, agent: Any) -> Any:
        known = self._agents.get(id(agent))
        if known is not None:
            return known
        guarded = self._agents[id(agent)] = copy.copy(agent)
        if isinstance(agent, Agent):
            guarded.tools = [self._tool(tool) for tool in agent.tools or ()]
            guarded.llm = self._model(agent.llm)
            guarded.agent_executor = None
            guarded.cache = False
        return guarded

    def _task(self, task: Any) -> Any:
        known = self._tasks.get(id(task))
        if known is not None:
            return known
        guarded = self._tasks[id(task)] = copy.copy(task)
        guarded.agent = None if task.agent is None else self._agent(task.agent)
        guarded.tools = [self._tool(tool) for tool in task.tools or ()]
        if isinstance(task.context, list):
            guarded.context = [self._task(other) for other in task.context]
        return guarded

    def _tool(self, tool: Any) -> Any:
        return (
            tool
            if isinstance(tool, GuardedTool) or not isinstance(tool, BaseTool)
            else _guarded(tool, self._seam, self._run)
        )

    def _model(self, model: Any) -> Any:
        guarded = copy.copy(model)
        turns = _Turns(self._seam, self._run, guarded)
        # Not a field of the model, and looked up before the method of its class.
        object.__setattr__(guarded, "call", turns.call)
        object.__setattr__(guarded, "acall", turns.acall)
        return guarded


# -- tools


class GuardedTool(BaseTool):
    """A tool whose every use passes the funnel."""

    use: Callable[[dict[str, Any]], Any]
    use_soon: Callable[[dict[str, Any]], Any]

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Use the tool; arguments that do not fit are refused in the funnel."""
        unfit = self._unfit(kwargs)
        return super().run(*args, **kwargs) if unfit is None else self.use(unfit)

    async def arun(self, *args: Any, **kwargs: Any) -> Any:
        """Do what `run` does."""
        unfit = self._unfit(kwargs)
        return await super().arun(*args, **kwargs) if unfit is None else await self.use_soon(unfit)

    def _unfit(self, kwargs: dict[str, Any]) -> Unfit | None:
        try:
            self._validate_kwargs(kwargs)
        except ValueError as error:
            cause = error.__cause__
            known = frozenset(self.args_schema.model_fields)
            return Unfit(kwargs, from_pydantic(cause, known).errors if isinstance(cause, ValidationError) else ())
        return None

    def _run(self, **kwargs: Any) -> Any:
        return self.use(kwargs)

    async def _arun(self, **kwargs: Any) -> Any:
        return await self.use_soon(kwargs)


def _guarded(tool: BaseTool, seam: Seam, run: Run) -> GuardedTool:
    keyed = KEY in tool.args_schema.model_fields

    def attempt(args: dict[str, Any]) -> Any:
        made = tool._run(**_with_key(args, keyed=keyed))  # noqa: SLF001 - what its author wrote, and `run` calls
        return asyncio.run(_awaited(made)) if inspect.isawaitable(made) else made

    async def attempt_soon(args: dict[str, Any]) -> Any:
        return await tool._arun(**_with_key(args, keyed=keyed))  # noqa: SLF001

    def use(args: dict[str, Any]) -> Any:
        return _told(seam.call_sync(run, tool.name, args, attempt))

    async def use_soon(args: dict[str, Any]) -> Any:
        return _told(await seam.call(run, tool.name, args, attempt_soon))

    schema = tool.args_schema
    return GuardedTool(
        name=tool.name,
        description=tool.description,
        args_schema=_without_key(schema) if keyed else schema,
        result_as_answer=tool.result_as_answer,
        max_usage_count=tool.max_usage_count,
        # Its store of results would answer in front of the gate.
        cache_function=_never,
        use=use,
        use_soon=use_soon,
    )


def _on_record(run: Run, noting: Coroutine[Any, Any, Outcome]) -> Outcome:
    return asyncio.run_coroutine_threadsafe(noting, run.bridge.loop).result()


def _with_key(args: dict[str, Any], *, keyed: bool) -> dict[str, Any]:
    attempt = attempt_under_way.get()
    return {**args, KEY: attempt.sent_key} if keyed and attempt is not None else args


def _without_key(schema: Any) -> Any:
    kept = {name: (field.annotation, field) for name, field in schema.model_fields.items() if name != KEY}
    return create_model(str(schema.__name__), **kept)  # type: ignore[call-overload]


def _told(outcome: Outcome) -> Any:
    return outcome.value if outcome.ok and outcome.fresh and outcome.note is None else outcome.for_model


def _never(_args: Any = None, _result: Any = None) -> bool:
    return False


async def _awaited(made: Any) -> Any:
    return await made


# -- models


class _Turns:
    """The requests to one model, as turns of the run."""

    def __init__(self, seam: Seam, run: Run, model: Any) -> None:
        self._seam = seam
        self._run = run
        self._model = model

    def _turn(self) -> Turn:
        model = self._model
        name, cap = str(model.model).replace("/", ":", 1), model.max_tokens
        name = name if ":" in name else f"{model.provider or 'openai'}:{name}"
        return Turn(self._run, model=name, max_output_tokens=cap if isinstance(cap, int) else None, record=dict)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the model, as one turn."""
        with self._turn() as turn:
            if turn.replayed:
                reply = _rebuilt(turn.reply)
            else:
                before = self._used()
                reply = type(self._model).call(self._model, *args, **_last(kwargs) if turn.wrap_up else kwargs)
                turn.charge(self._more(before))
                turn.reply = _kept(reply)
        for noting in self._amiss(reply, kwargs):
            _on_record(self._run, noting)
        return reply

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the model, as one turn."""
        async with self._turn() as turn:
            if turn.replayed:
                reply = _rebuilt(turn.reply)
            else:
                before = self._used()
                reply = await type(self._model).acall(self._model, *args, **_last(kwargs) if turn.wrap_up else kwargs)
                turn.charge(self._more(before))
                turn.reply = _kept(reply)
        for noting in self._amiss(reply, kwargs):
            await across(self._run, noting)
        return reply

    def _amiss(self, reply: Any, kwargs: Mapping[str, Any]) -> list[Coroutine[Any, Any, Outcome]]:
        """Return what puts on record the tool calls of a reply that the framework answers by itself."""
        offered = {said["function"]["name"] for said in kwargs.get("tools") or ()}
        found = []
        for call in reply if isinstance(reply, list) and offered else ():
            said = call if isinstance(call, dict) else call.model_dump()
            name, args, call_id = said["function"]["name"], parsed(said["function"]["arguments"]), said.get("id")
            if name not in offered:
                found.append(self._seam.absent(self._run, name, args, call_id))
            elif not isinstance(args, dict):
                found.append(self._seam.invalid(self._run, name, call_id))
        return found

    def _used(self) -> tuple[int, int, int]:
        used = self._model.get_token_usage_summary()
        return used.prompt_tokens, used.completion_tokens, used.cached_prompt_tokens

    def _more(self, before: tuple[int, int, int]) -> Usage:
        return Usage(*(now - then for now, then in zip(self._used(), before, strict=True)))


def _last(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "tools": None, "available_functions": None}


def _kept(reply: Any) -> Any:
    """Return a reply as JSON: a text, or the tool calls that it asks for; of a stream those are mappings."""
    if isinstance(reply, list):
        plain = all(isinstance(call, dict) for call in reply)
        return {"plain": plain, "calls": reply if plain else [call.model_dump(mode="json") for call in reply]}
    return {"text": reply} if isinstance(reply, str) else {"other": as_json(reply)}


def _rebuilt(kept: Mapping[str, Any]) -> Any:
    if "calls" in kept:
        calls = kept["calls"]
        return (
            calls if kept["plain"] else [ChatCompletionMessageFunctionToolCall.model_validate(call) for call in calls]
        )
    return kept["text"] if "text" in kept else kept["other"]
