"""Hand-written loops over OpenAI chat completions, OpenAI responses and Anthropic messages, and what is compatible.

    from interlock.adapters import chat

    tools = chat.Tools(gate, {"create_ticket": create_ticket})                  # once: the loop's own functions
    async with gate.open_run(task, request_id="req_7842") as run:
        while True:
            reply = await chat.ask(run, client.chat.completions.create, model="gpt-4o", messages=messages, tools=…)
            messages.append(reply.choices[0].message)
            if not chat.uses_of(reply):
                break
            messages += await tools.results(run, reply)

`ask` is a turn of the run: it is where the run stops, and where tokens and dollars are counted. `results` passes
every tool use of the reply through the funnel, all of them at once, and returns the messages that answer them.
In a sync loop (`with gate.open_run(…)`, a sync client) the same calls are made without `await`.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from interlock.adapters.agents import AgentRun
from interlock.adapters.chat_formats import Answered, ToolUse, format_of, messages_of, text_of, uses_of
from interlock.adapters.chat_turns import Stream, ask, stream
from interlock.adapters.seam import Seam
from interlock.adapters.values import ToolValue
from interlock.config.gate import Interlock
from interlock.core.calls import Effect, ToolSpec
from interlock.core.errors import ConfigError, InterlockError
from interlock.gateway.tools import Tool
from interlock.supervisor.observation import as_text
from interlock.supervisor.run import Run
from interlock.validation.schemas import compile_inputs

__all__ = ["Stream", "Tools", "ask", "stream", "sub_agent", "text_of", "uses_of"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_VALUE = ToolValue()


class Tools:
    """The functions of a hand-written loop, behind the funnel. Make one for a gate, not for a request.

    Args:
        gate: The gate.
        functions: By the name that the model knows them by; sync or async, called with keywords. Left out, the
            loop has the tools that are registered with `@gate.tool`. What a function's effect is, the configuration
            says (`tools.effects`, `tools.writes`), or `@gate.tool` where it is decorated; else it is a write.

    Raises:
        ConfigError: A function's arguments cannot be read, or two tools would have one name.
    """

    def __init__(self, gate: Interlock, functions: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self._gate = gate
        self._seam = Seam(gate)
        given = {spec.name: spec for spec in gate.tools} if functions is None else functions
        self._tools: dict[str, ToolSpec] = {}
        for name, tool in given.items():
            wire = _NOT_IN_NAMES.sub("_", name)
            if wire in self._tools:
                raise ConfigError(f"two tools would be called {wire} by the model: give one of them another name")
            self._tools[wire] = tool if isinstance(tool, ToolSpec) else self._spec(name, tool)

    def _spec(self, name: str, fn: Callable[..., Any]) -> ToolSpec:
        if isinstance(fn, Tool):
            return fn.spec
        spec = ToolSpec(
            name,
            fn,
            is_async=inspect.iscoroutinefunction(inspect.unwrap(fn)),
            effect=Effect.WRITE,
            takes_key="idempotency_key" in inspect.signature(fn).parameters,
            inputs=compile_inputs(fn, strict=self._gate.settings.validation.input.strict),
            output=_VALUE,
            description=inspect.getdoc(fn) or "",
        )
        self._gate.house().declarations.check(spec)
        return spec

    def results(self, run: Run, reply: Any) -> Any:
        """Make the tool uses of a reply, all at once, and return the messages that answer them; awaited in async code.

        Never raises for what comes of a call: the model is told. Once a stop is decided every use is refused, and
        the next `ask` raises `RunStopped`.

        Args:
            run: The run.
            reply: The client's reply; of a stream, `stream.reply`.
        """
        return run.bridge.cross(self._results(run, reply))

    async def _results(self, run: Run, reply: Any) -> list[dict[str, Any]]:
        form = format_of(reply)
        uses = uses_of(reply, form)
        if len(uses) == 1:  # the most frequent batch needs no task of its own
            return messages_of(form, [await self._answer(run, uses[0])])
        return messages_of(form, await asyncio.gather(*(self._answer(run, use) for use in uses)))

    async def _answer(self, run: Run, use: ToolUse) -> Answered:
        spec = self._tools.get(use.name)
        if spec is None:
            outcome = await self._seam.absent(run, use.name, use.args, use.id)
            return Answered(use, outcome.for_model, ok=False)
        args: Any = use.args
        try:
            house = self._gate.house()
            # By name where it is registered, so that the funnel is folded once.
            known = house.gateway.declared(spec.name) is spec
            answer = await run.through(spec.name if known else spec, args, house.perform.usual(spec), use.id)
        except InterlockError as error:
            return Answered(use, error.for_model, ok=False)
        except Exception:  # an observing run hands the tool's own exception through
            return Answered(use, "The tool failed.", ok=False)
        return Answered(use, as_text(answer), ok=True)


def sub_agent(run: Run, name: str) -> AgentRun:
    """Open a sub-agent's run on this run's budget: `async with chat.sub_agent(run, "researcher") as child: …`."""
    return AgentRun(run, name)
