"""OpenAI Agents SDK: every agent that runs inside a run of the gate is guarded, as it stands.

    from interlock.adapters import openai_agents

    gate = interlock.Interlock("interlock.yaml")
    result = await openai_agents.run(gate, agent, "Users can't log in", tenant_id="acme", request_id="req_7842")

Where code of your own calls `Runner.run`, say `openai_agents.install(gate)` once and hand that code to `gate.run`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from interlock.adapters.packages import needs, tested

with needs("openai-agents"):
    import agents as sdk
    from agents import Agent, AgentsException, FunctionTool, MaxTurnsExceeded, Runner
    from agents.items import ItemHelpers
    from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner
    from agents.run_config import RunOptions

from interlock.adapters.agents import AgentRun
from interlock.adapters.openai_agents_copies import Copies
from interlock.adapters.openai_agents_models import Stopped
from interlock.adapters.openai_agents_tools import entered
from interlock.adapters.seam import Seam
from interlock.adapters.values import as_json
from interlock.config.gate import Interlock
from interlock.core.calls import Stop
from interlock.core.reasons import StopReason
from interlock.core.results import RunResult
from interlock.gateway.tools import Tool
from interlock.supervisor.run import Run

__all__ = ["AgentsResult", "Stopped", "function_tool", "install", "run", "run_sync"]

tested("openai-agents", "0.24")

Approvals = Literal["store", "framework"]


@dataclass(frozen=True, slots=True)
class AgentsResult(RunResult):
    """A run's result, with what the SDK made of it.

    Attributes:
        native: The SDK's `RunResult` or `RunResultStreaming`; of a run that was stopped, its `RunErrorDetails` (input,
            new_items, raw_responses); None where the request had its outcome before this call.
    """

    native: Any = None


async def run(
    gate: Interlock,
    agent: Agent[Any],
    input: Any,  # noqa: A002 - the SDK's word
    *,
    on_event: Callable[[Any], Any] | None = None,
    approvals: Approvals = "store",
    **options: Any,
) -> AgentsResult:
    """Do what `Runner.run(agent, input)` does, as one run of the gate; never raises for what happens inside.

    Args:
        gate: The gate.
        agent: The agent, as it is; what runs are guarded copies of it, of what it hands off to and of its tools.
        input: A text or input items; or a `RunState`, and then `payload=` with a `request_id`.
        on_event: Takes each stream event, sync or async; the agent is then run as `Runner.run_streamed` does.
        approvals: See `install`.
        options: Of `Interlock.run` (`tenant_id`, `request_id`, `budgets`, …) and of `Runner.run` (`context`,
            `max_turns`, `hooks`, `run_config`, `session`, …).

    Raises:
        AlreadyRunning: As `Interlock.run`.
    """
    work = _Work(gate, agent, input, on_event, approvals, options)
    return work.result(await gate.run(work.run, work.task, agent_name=work.name, **work.options))


def run_sync(gate: Interlock, agent: Agent[Any], input: Any, **options: Any) -> AgentsResult:  # noqa: A002
    """Do what `run` does, from sync code."""
    work = _Work(gate, agent, input, options.pop("on_event", None), options.pop("approvals", "store"), options)
    return work.result(gate.run_sync(work.run, work.task, agent_name=work.name, **work.options))


def install(gate: Interlock, *, approvals: Approvals = "store") -> None:
    """Guard whatever `Runner` runs inside a run of this gate; outside of one nothing changes.

    It takes the place of the SDK's default runner, in front of the one that is there.

    Args:
        gate: The gate.
        approvals: Where a person decides on a tool with `approval: required`: in the store (`interlock
            approvals`), or in the SDK, by the interruption that it makes of `needs_approval`.
    """
    runner = get_default_agent_runner()
    if not isinstance(runner, GuardingRunner):
        runner = GuardingRunner(runner)
        set_default_agent_runner(runner)
    runner.guard(gate, approvals)


def function_tool(tool: Tool, **options: Any) -> FunctionTool:
    """Do what the SDK's `function_tool` does, of a tool decorated with `@gate.tool`; the SDK takes functions only."""

    @functools.wraps(tool)
    async def call(*args: Any, **kwargs: Any) -> Any:
        made = tool(*args, **kwargs)
        return await made if inspect.isawaitable(made) else made

    return sdk.function_tool(call, **options)


class _Work:
    """One `run`: the agent, and what came of it."""

    def __init__(
        self,
        gate: Interlock,
        agent: Agent[Any],
        given: Any,
        on_event: Callable[[Any], Any] | None,
        approvals: Approvals,
        options: dict[str, Any],
    ) -> None:
        install(gate, approvals=approvals)
        self.options = {name: value for name, value in options.items() if name not in RunOptions.__annotations__}
        self.name = self.options.pop("agent_name", None) or agent.name
        self.task = given if isinstance(given, str | list) else None
        self._agent = agent
        self._input = given
        self._on_event = on_event
        self._runner = {name: value for name, value in options.items() if name in RunOptions.__annotations__}
        self._native: Any = None

    async def run(self, run: Run, _task: Any) -> Any:
        """Be the agent of the run."""
        try:
            return await self._run(run)
        except MaxTurnsExceeded as error:
            self._native = error.run_data
            text = (
                "max_turns of Runner.run (10 by default) is used up: with max_turns=None the gate's max_steps decides"
            )
            run.stop(Stop(StopReason.STEP_BUDGET, text, {"budget": "max_turns"}))
            raise
        except AgentsException as error:
            self._native = error.run_data
            raise

    async def _run(self, run: Run) -> Any:
        if self._on_event is None:
            native: Any = await Runner.run(self._agent, self._input, **self._runner)
        else:
            native = Runner.run_streamed(self._agent, self._input, **self._runner)
            async for event in native.stream_events():
                said = self._on_event(event)
                if inspect.isawaitable(said):
                    await said
        self._native = native
        if native.interruptions:
            text = "the SDK waits for approvals of tools that it does not run itself: see `native.to_state()`"
            run.stop(Stop(StopReason.APPROVAL_PENDING, text))
        return as_json(native.final_output)

    def result(self, result: RunResult) -> AgentsResult:
        """Return the gate's result, with the SDK's."""
        return AgentsResult(
            **{field.name: getattr(result, field.name) for field in fields(RunResult)}, native=self._native
        )


class GuardingRunner(AgentRunner):
    """The SDK's runner, but that what runs inside a run of a gate is guarded: agents used as tools, too."""

    def __init__(self, inner: AgentRunner) -> None:
        self._inner = inner
        self._seams: list[Seam] = []

    def guard(self, gate: Interlock, approvals: Approvals) -> None:
        """Take in a gate, or where its approvals are decided from now on."""
        seam = next((seam for seam in self._seams if seam.gate is gate), None)
        if seam is None:
            seam = Seam(gate)
            self._seams.append(seam)
        seam.by_framework = approvals == "framework"

    def _here(self) -> tuple[Seam, Run] | None:
        for seam in self._seams:
            run = seam.run()
            if run is not None:
                return seam, run
        return None

    async def run(self, starting_agent: Agent[Any], input: Any, **kwargs: Any) -> Any:  # noqa: A002
        """Run an agent."""
        here = self._here()
        if here is None:
            return await self._inner.run(starting_agent, input, **kwargs)
        seam, run = here
        copies = Copies(seam)
        block = contextlib.nullcontext(run) if entered.get() is run else AgentRun(run, starting_agent.name)
        async with block as run:
            try:
                return await self._inner.run(
                    copies.agent(starting_agent), copies.state(input), **copies.options(kwargs)
                )
            except AgentsException as error:
                if error.run_data is not None:
                    run.partial = _partial(error.run_data.new_items)
                raise

    def run_streamed(self, starting_agent: Agent[Any], input: Any, **kwargs: Any) -> Any:  # noqa: A002
        """Run an agent, and stream its events."""
        here = self._here()
        if here is None:
            return self._inner.run_streamed(starting_agent, input, **kwargs)
        seam, run = here
        copies = Copies(seam)
        result = self._inner.run_streamed(copies.agent(starting_agent), copies.state(input), **copies.options(kwargs))

        def over(task: Any) -> None:
            if not task.cancelled() and task.exception() is not None:
                run.partial = _partial(result.new_items)

        if result.run_loop_task is not None:
            result.run_loop_task.add_done_callback(over)
        return result


def _partial(items: list[Any]) -> Mapping[str, Any] | None:
    """Return what an agent has said so far, as JSON; None where it has said nothing."""
    text = ItemHelpers.text_message_outputs(items)
    messages = as_json([item.to_input_item() for item in items])
    return {"text": text, "messages": messages} if items else None
