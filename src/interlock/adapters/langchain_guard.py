"""One gate's hold on LangChain's tools, for agents and for graphs of one's own alike."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import orjson
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException
from langgraph.errors import GraphBubbleUp, ParentCommand
from pydantic import ConfigDict, ValidationError

from interlock.adapters.agents import Turn
from interlock.adapters.langchain_tools import Entered, ToolFacts, entered
from interlock.adapters.langchain_values import MALFORMED, NOTHING, kept, message_of, refusal
from interlock.adapters.nests import Nest, nested_in
from interlock.adapters.outcome import Outcome
from interlock.adapters.seam import Seam
from interlock.adapters.shelf import Schemas
from interlock.config.gate import Interlock
from interlock.core.errors import ConfigError, InterlockError, LeaseLost, NoRun, NotPerformed, RunStopped
from interlock.gateway.tools import KEY, attempt_under_way
from interlock.supervisor.run import Run

__all__ = ["GraphStopped", "Guard", "changed", "through"]

T = TypeVar("T")

# Applications that make their tools anew for each request: what is known of them is bounded.
TOOLS_KEPT = 1024

NO_RUN = (
    "no run of this gate is open here: call the graph inside gate.run(agent, task) or"
    " `async with gate.open_run(task)`; a graph that is served elsewhere gets its runs there"
)


class GraphStopped(RunStopped, GraphBubbleUp):
    """The run is over: leaves the graph as LangGraph's own control flow does, so that nothing retries or words it."""


class _Fenced(LeaseLost, GraphBubbleUp):
    """Another worker has the run."""


class _Unopened(NoRun, GraphBubbleUp):
    """There is no run to guard in."""


class _Misused(ConfigError, GraphBubbleUp):
    """What the developer must read, and no model."""


def through(error: InterlockError) -> InterlockError:
    """Return the error in a form that neither retries of the framework nor its handlers of tool errors touch."""
    if isinstance(error, RunStopped) and not isinstance(error, GraphStopped):
        return GraphStopped(error.reason, str(error), details=error.details)
    if isinstance(error, LeaseLost) and not isinstance(error, _Fenced):
        return _Fenced(str(error), details=error.details)
    if isinstance(error, ConfigError) and not isinstance(error, _Misused):
        return _Misused(str(error))
    return error


def changed(request: T, **fields: Any) -> T:
    """Return a copy of a request with these fields: what its `override` does.

    That one constructs a new request, which warns of each field that is set, and silences each warning.
    """
    made = object.__new__(type(request))
    vars(made).update(vars(request), **fields)
    return made


class Guard:
    """What the adapters of LangChain and LangGraph share of one gate.

    Attributes:
        seam: To the gate.
        by_framework: LangGraph's interrupts ask the person whom `approval: required` demands, before the call.
    """

    def __init__(self, gate: Interlock, *, by_framework: bool = False) -> None:
        self.seam = Seam(gate)
        self.by_framework = by_framework
        self._strict = gate.settings.validation.input.strict
        self._tools: dict[int, _GuardedTool] = {}
        self._schemas = Schemas(gate)

    # -- runs

    async def run(self) -> Run:
        """Return the run that this code works in; inside a tool call, the child that a nested agent gets.

        Raises:
            NoRun: There is none, or it is another gate's.
        """
        run, nest = self._current(), nested_in.get()
        return run if nest is None else await nest.run()

    def run_sync(self) -> Run:
        """Do the same in a thread.

        Raises:
            NoRun: As above. ConfigError: this is the run's own event loop, which a sync graph would block for good.
        """
        run, nest = self._current(), nested_in.get()
        if run.bridge.is_here():
            raise _Misused(
                "a sync call of a graph on the run's own event loop would block it for good: await `ainvoke` or"
                " `astream`, or make the agent a plain function (`def`), which runs in a thread of its own"
            )
        return run if nest is None else nest.run_sync()

    def _current(self) -> Run:
        run = self.seam.run()
        if run is None:
            raise _Unopened(NO_RUN)
        return run

    # -- resuming from a checkpoint

    async def catch_up(self, run: Run, state: Any) -> None:
        """Pass the recorded turns whose replies the graph's own checkpoint has brought along."""
        while _brought_along(run, state):
            async with Turn(run, record=dict):
                pass

    def catch_up_sync(self, run: Run, state: Any) -> None:
        """Do the same in a thread."""
        while _brought_along(run, state):
            with Turn(run, record=dict):
                pass

    # -- tools

    def needs_approval(self, name: str) -> bool:
        """Whether a person must be asked by the framework before a call of this tool."""
        if not self.by_framework:
            return False
        facts = next((tool.facts for tool in self._tools.values() if tool.name == name), None)
        function, effect = (None, None) if facts is None else (facts.function, facts.effect)
        return self.seam.needs_approval(name, function=function, effect=effect)

    def tool(self, tool: BaseTool) -> BaseTool:
        """Return the tool to execute in place of this one."""
        found = self._tools.get(id(tool))
        if found is not None and found.facts.tool is tool:
            return found
        if isinstance(tool, _GuardedTool):
            return tool
        facts = ToolFacts(tool, self._schemas, strict=self._strict)
        found = _GuardedTool(
            name=tool.name,
            description=tool.description,
            args_schema=facts.exposed.args_schema,
            return_direct=tool.return_direct,
            response_format=tool.response_format,
            metadata=tool.metadata,
            tags=tool.tags,
            extras=tool.extras,
            guard=self,
            facts=facts,
        )
        if len(self._tools) >= TOOLS_KEPT:
            self._tools.clear()
        self._tools[id(tool)] = found
        return found

    def exposed(self, tools: Iterable[Any]) -> list[Any]:
        """Return the tools as the model may see them."""
        shown = []
        for tool in tools:
            guarded = self.tool(tool) if isinstance(tool, BaseTool) else None
            shown.append(guarded.facts.exposed if isinstance(guarded, _GuardedTool) else tool)
        return shown

    async def refused(self, call: Mapping[str, Any]) -> Any:
        """Answer a call of a tool that this graph does not have."""
        run = await self.run()
        return _told(await self.seam.absent(run, *_named(call)), call)

    def refused_sync(self, call: Mapping[str, Any]) -> Any:
        """Do the same in a thread."""
        run = self.run_sync()
        return _told(run.bridge.cross(self.seam.absent(run, *_named(call))), call)


def _brought_along(run: Run, state: Any) -> bool:
    """Whether the reply of the next recorded turn stands in the graph's messages already."""
    tape = run.scope.tape
    record = None if tape is None or run.scope.stop is not None else tape.turn(run.scope.turn + 1)
    if record is None or record.reply is None:
        return False
    messages = state.get("messages", ()) if isinstance(state, Mapping) else getattr(state, "messages", state)
    there = {getattr(message, "id", None) for message in messages if getattr(message, "id", None)}
    said = {message["data"].get("id") for message in orjson.loads(record.reply).get("messages", ())}
    return bool(said) and said <= there


def _named(call: Mapping[str, Any]) -> tuple[str, Any, str | None]:
    return str(call.get("name")), call.get("args"), call.get("id")


class _GuardedTool(BaseTool):
    """A tool whose every invocation passes the funnel."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    guard: Any
    facts: Any

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 - LangChain's word
        """Pass the funnel, blocking; attempts are made in threads of the gate."""
        try:
            run = self.guard.run_sync()
            use = _Use(run, self.facts, input, config, kwargs, asked=self.guard.needs_approval(self.name))
            outcome = self.guard.seam.call_sync(run, self.name, use.args, use.make_sync, **use.words)
        except ConfigError as error:
            raise through(error) from None
        except GraphStopped as stop:  # an agent inside the tool was stopped: this batch goes on to its end
            outcome = Outcome.refused(stop)
        return use.answer(outcome)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        """Pass the funnel."""
        try:
            run = await self.guard.run()
            use = _Use(run, self.facts, input, config, kwargs, asked=self.guard.needs_approval(self.name))
            outcome = await self.guard.seam.call(
                run, self.name, use.args, use.make, threaded=self.facts.blocks, **use.words
            )
        except GraphStopped as stop:
            outcome = Outcome.refused(stop)
        return use.answer(outcome)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a guarded tool is invoked, not run")  # pragma: no cover - LangChain demands it


class _Use:
    """One use of a tool: its attempts, and its answer.

    Attributes:
        args: What the model gave. words: for the seam. asked: whether a person has approved, through the framework.
    """

    __slots__ = ("_config", "_facts", "_given", "_kwargs", "_native", "_run", "args", "words")

    def __init__(
        self,
        run: Run,
        facts: ToolFacts,
        given: Any,
        config: RunnableConfig | None,
        kwargs: dict[str, Any],
        *,
        asked: bool,
    ) -> None:
        self._run = run
        self._facts = facts
        self._given = given
        self._config = config
        self._kwargs = kwargs
        self._native: Any = NOTHING
        args = given["args"]
        proposed = {name: value for name, value in args.items() if name not in facts.injected and name != KEY}
        # What the model wrote was no JSON: that is what the funnel gets, and refuses.
        self.args: Any = proposed.get(MALFORMED, proposed)
        self.words: dict[str, Any] = {
            "effect": facts.effect,
            "function": facts.function,
            "inputs": facts.inputs,
            "tool_call_id": given.get("id"),
            "passes": (GraphBubbleUp,),
            # Whoever came this far was asked.
            "approval": "given" if asked else None,
        }

    async def make(self, args: dict[str, Any]) -> Any:
        """Make one attempt."""
        with _Attempt(self._run, self._facts) as (seen, nest):
            try:
                answer = await self._facts.executed.ainvoke(self._input(args), self._config, **self._kwargs)
            except BaseException as error:
                await nest.aclose(error)
                answer = self._instead(error, seen)
            else:
                await nest.aclose(None)
            return self._kept(answer, seen)

    def make_sync(self, args: dict[str, Any]) -> Any:
        """Make one attempt, blocking; a tool that has only an async form is awaited on the run's loop."""
        if self._facts.awaits:
            return asyncio.run_coroutine_threadsafe(self.make(args), self._run.bridge.loop).result()
        with _Attempt(self._run, self._facts) as (seen, nest):
            try:
                answer = self._facts.executed.invoke(self._input(args), self._config, **self._kwargs)
            except BaseException as error:
                nest.close(error)
                answer = self._instead(error, seen)
            else:
                nest.close(None)
            return self._kept(answer, seen)

    def _input(self, args: Mapping[str, Any]) -> dict[str, Any]:
        given = self._given
        injected = {name: value for name, value in given["args"].items() if name in self._facts.injected}
        if self._facts.fills:
            attempt = attempt_under_way.get()
            injected[KEY] = None if attempt is None else attempt.sent_key
        return {**given, "type": "tool_call", "args": {**args, **injected}}

    def _instead(self, error: BaseException, seen: Entered) -> Any:
        """Return what an exception means instead; else raise it."""
        if isinstance(error, ParentCommand):
            return error.args[0]  # a handoff out of a graph inside the tool: its answer
        if isinstance(error, ValidationError) and self._facts.watched and not seen.begun:
            raise NotPerformed("LangChain refused the arguments before the tool's function was entered") from error
        raise error

    def _kept(self, answer: Any, seen: Entered) -> Any:
        if getattr(answer, "status", None) == "error":
            # `handle_tool_error` has made words of an exception: what the funnel must know is the exception.
            raise seen.raised or ToolException(str(answer.content))
        self._native = answer
        return kept(answer, seen.returned)

    def answer(self, outcome: Outcome) -> Any:
        """Return what the graph gets."""
        if outcome.fresh and outcome.note is None:
            return self._native
        return _told(outcome, self._given | {"name": self._facts.tool.name})


def _told(outcome: Outcome, call: Mapping[str, Any]) -> Any:
    told: dict[str, Any] = {"name": str(call.get("name")), "tool_call_id": call.get("id") or ""}
    if outcome.ok:
        return message_of(outcome.value, outcome.for_model, **told)
    return refusal(outcome.for_model, status=outcome.status, reason=outcome.reason, **told)


class _Attempt:
    """Around one attempt: what it does inside is seen, and an agent inside it works in a child of the run."""

    __slots__ = ("_pair", "_seen")

    def __init__(self, run: Run, facts: ToolFacts) -> None:
        self._pair = (Entered(), Nest(run, facts.tool.name))

    def __enter__(self) -> tuple[Entered, Nest]:
        self._seen = entered.set(self._pair[0])
        self._pair[1].enter()
        return self._pair

    def __exit__(self, *_: object) -> None:
        entered.reset(self._seen)
        self._pair[1].leave()
