"""A framework's tool call becomes a guarded call: once, for all adapters.

The framework keeps its agent, its tools and its loop. An adapter meets each call where the framework is about to
make it, and hands it over together with the framework's own handler: the gate decides whether, how often and under
which key that handler is called, and what came of it goes back as an `Outcome`. Nothing here raises into a batch of
parallel calls: a refusal is an outcome, and a decided stop is raised where the next model turn begins (`agents.Turn`).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Literal, TypeVar

from interlock.adapters.attempts import Attempts, Handler, SyncAttempts, SyncHandler, absent
from interlock.adapters.outcome import Outcome
from interlock.adapters.shelf import Asked, Said, Shelf
from interlock.adapters.values import defaults_of, parsed
from interlock.config.gate import Interlock
from interlock.core.calls import Answer, Schema, Stop
from interlock.core.errors import ConfigError, InterlockError
from interlock.gateway.tools import current_run
from interlock.supervisor.run import Run

__all__ = ["Handler", "Seam", "SyncHandler", "across"]

T = TypeVar("T")

# In place of arguments: what no schema accepts.
_UNFIT: Any = []


def across(run: Run, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
    """Return what awaits `work` on the run's own event loop, from whichever loop this one is; await it at once."""
    home = run.bridge.loop
    # No coroutine of its own around it: each would be passed again whenever the work goes on.
    if asyncio.get_running_loop() is home:
        return work
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, home))


class Seam:
    """What one adapter needs of one gate.

    Attributes:
        by_framework: The framework asks the person whom `approval: required` demands; false until its adapter says so.
    """

    __slots__ = ("_known", "_shelf", "by_framework", "gate")

    def __init__(self, gate: Interlock) -> None:
        self.gate = gate
        self.by_framework = False
        self._shelf = Shelf(gate.house)
        self._known: Callable[[], Run | None] = _nobody

    def run(self) -> Run | None:
        """Return the current run, if it is one of this gate's."""
        run, known = current_run.get(), self._known()
        if run is known:
            return known
        if not isinstance(run, Run) or not run.belongs_to(self._shelf.home().gateway):
            return None
        # Asked for at every turn and call; a run does not change its gate.
        self._known = weakref.ref(run)
        return run

    def call(
        self,
        run: Run,
        name: str,
        args: Any,
        handler: Handler,
        *,
        effect: Literal["read", "write"] | None = None,
        schema: Mapping[str, Any] | None = None,
        function: Any = None,
        inputs: Schema | None = None,
        tool_call_id: str | None = None,
        timeout_s: float | None = None,
        approval: Asked = None,
        passes: tuple[type[Exception], ...] = (),
        threaded: bool = False,
    ) -> Coroutine[Any, Any, Outcome]:
        """Pass a call that the framework is about to make through the funnel; `handler` makes each attempt.

        Args:
            run: The run it belongs to.
            name: Of the tool, as the framework calls it.
            args: As the model gave them, or as the framework has validated them; JSON text is read. What is no
                object is refused.
            handler: Makes one attempt, and returns what the tool returned, or raises what it raised.
            effect: What the framework's own metadata says; the configuration and `@gate.tool` go before it.
            schema: JSON Schema of the arguments; its defaults are filled in.
            function: What the framework will call, where the adapter can see it: the tool itself, if it is decorated.
            inputs: What the arguments must fit, where the framework looks only inside the attempt; one object a tool.
            tool_call_id: The model's own id, for the record alone.
            timeout_s: The framework's own timeout of this tool, in place of its own cutting; where nothing else is
                declared.
            approval: `required`: the framework says that a person must approve; likewise. `given`: the framework has
                asked one, and the answer is yes, whatever the configuration demands; `refused`: it is no.
            passes: Exceptions that are the framework's own control flow: nothing was done, and they are raised on.
            threaded: The handler blocks a thread of the framework, which goes on after a timeout.

        Raises:
            Exception: One of `passes`; and, under `mode: observe`, whatever the tool raised.
        """
        tool = self._shelf.tool(name, function, Said(effect, timeout_s, inputs, approval))
        given = parsed(args)
        attempts = Attempts(handler, given, passes, threaded=threaded)
        answering = across(run, run.through(tool, _filled(given, schema), attempts.make, tool_call_id))
        return _outcome(run, answering, attempts)

    def call_sync(
        self,
        run: Run,
        name: str,
        args: Any,
        handler: SyncHandler,
        *,
        effect: Literal["read", "write"] | None = None,
        schema: Mapping[str, Any] | None = None,
        function: Any = None,
        inputs: Schema | None = None,
        tool_call_id: str | None = None,
        timeout_s: float | None = None,
        approval: Asked = None,
        passes: tuple[type[Exception], ...] = (),
    ) -> Outcome:
        """Do what `call` does, blocking; attempts are made in threads of the gate.

        Raises:
            ConfigError: Called on the run's own event loop, which it would block for good.
        """
        off_the_loop(run)
        tool = self._shelf.tool(name, function, Said(effect, timeout_s, inputs, approval))
        given = parsed(args)
        attempts = SyncAttempts(self._shelf.home(), handler, given, passes)
        answering = run.through(tool, _filled(given, schema), attempts.make, tool_call_id)
        return asyncio.run_coroutine_threadsafe(_outcome(run, answering, attempts), run.bridge.loop).result()

    async def absent(self, run: Run, name: str, args: Any, tool_call_id: str | None = None) -> Outcome:
        """Refuse, on record, a call of a tool that the framework does not offer: unknown, or hidden at this time."""
        given, attempts = parsed(args), Attempts(absent, None)
        args = given if isinstance(given, dict) else {}
        answering = run.through(self._shelf.absent(name), args, attempts.make, tool_call_id)
        return await _outcome(run, across(run, answering), attempts)

    async def invalid(
        self,
        run: Run,
        name: str,
        tool_call_id: str | None = None,
        *,
        function: Any = None,
        effect: Literal["read", "write"] | None = None,
    ) -> Outcome:
        """Refuse, on record, a call whose arguments the framework does not accept."""
        attempts = Attempts(absent, None)
        tool = self._shelf.tool(name, function, Said(effect))
        return await _outcome(run, across(run, run.through(tool, _UNFIT, attempts.make, tool_call_id)), attempts)

    def needs_approval(
        self, name: str, *, function: Any = None, effect: Literal["read", "write"] | None = None
    ) -> bool:
        """Whether the configuration, or `@gate.tool`, demands a person's yes for calls of this tool."""
        return self._shelf.needs_approval(self._shelf.tool(name, function, Said(effect)))


def off_the_loop(run: Run) -> None:
    """Refuse to block the run's own event loop.

    Raises:
        ConfigError: It would.
    """
    if run.bridge.is_here():
        raise ConfigError(
            "a sync call of the framework on the run's own event loop would block it for good:"
            " await its async form, or make the agent a plain function (`def`), which runs in a thread"
        )


async def _outcome(run: Run, answering: Awaitable[Answer], attempts: Attempts | SyncAttempts) -> Outcome:
    try:
        answer = await answering
    except InterlockError as error:
        if attempts.passed is not None:
            raise attempts.passed from None
        if isinstance(error, ConfigError):
            # Not for the model: who runs the agent must read it.
            await across(run, _stop(run, error))
        return Outcome.refused(error)
    except Exception as error:  # an observing run hands the tool's own exception through
        raise (attempts.passed or attempts.raised or error) from None
    return Outcome.answered(answer, fresh=answer.value is attempts.value and answer.status == "success")


def _nobody() -> None:
    """Stand for a run that has not been met yet."""


async def _stop(run: Run, error: InterlockError) -> None:
    run.stop(Stop(error.reason, str(error)))


def _filled(args: Any, schema: Mapping[str, Any] | None) -> Any:
    """Return the arguments as the tool will receive them: with the defaults of their schema."""
    defaults = defaults_of(schema) if schema and isinstance(args, Mapping) else None
    return {**defaults, **args} if defaults else args
