"""A framework's tool call becomes a guarded call, its model request a turn of the run: once, for all adapters.

The framework keeps its agent, its tools and its loop. An adapter meets each call where the framework is about to
make it, and hands it over together with the framework's own handler: the gate decides whether, how often and under
which key that handler is called, and what came of it goes back as an `Outcome`. Nothing here raises into a batch of
parallel calls: a refusal is an outcome, and a decided stop is raised where the next model turn begins.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeVar

from interlock.adapters.outcome import Outcome
from interlock.adapters.values import ToolArguments, ToolValue, defaults_of, parsed
from interlock.config.build import House
from interlock.config.gate import Interlock
from interlock.core.calls import Answer, Call, Effect, OnUnknown, Schema, Stop, ToolSpec
from interlock.core.errors import ConfigError, InterlockError, NotPerformed
from interlock.gateway.tools import Attempt, Tool, attempt_under_way, current_run
from interlock.policy.globs import valid_tool_name
from interlock.resilience.perform import contained
from interlock.supervisor.run import Run

__all__ = ["Handler", "Seam", "across"]

T = TypeVar("T")

# Calls the framework's tool, with arguments that no earlier attempt has touched.
Handler = Callable[[dict[str, Any]], Awaitable[Any]]
SyncHandler = Callable[[dict[str, Any]], Any]

_ARGUMENTS = ToolArguments()
_VALUE = ToolValue()
_SCALARS = frozenset({str, int, bool, float, type(None)})
# Tools come from the application, but an MCP server may offer others each time.
TOOLS_KEPT = 4096


async def across(run: Run, work: Coroutine[Any, Any, T]) -> T:
    """Await `work` on the run's own event loop, from whichever loop this one is."""
    home = run.bridge.loop
    if asyncio.get_running_loop() is home:
        return await work
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, home))


class Seam:
    """What one adapter needs of one gate."""

    def __init__(self, gate: Interlock) -> None:
        self.gate = gate
        self._tools: dict[tuple[str, Any], ToolSpec] = {}
        self._house: House | None = None

    def run(self) -> Run | None:
        """Return the current run, if it is one of this gate's."""
        run = current_run.get()
        return run if isinstance(run, Run) and run.belongs_to(self._home().gateway) else None

    def _home(self) -> House:
        house = self.gate.house()
        if house is not self._house:
            self._house = house
            self._tools.clear()
        return house

    # -- calls

    async def call(
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
        approval: bool = False,
        passes: tuple[type[Exception], ...] = (),
        threaded: bool = False,
    ) -> Outcome:
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
            timeout_s: The framework's own timeout of this tool, in place of its own cutting. approval: the framework
                says that a person must approve. Both, like `effect`, where nothing else is declared.
            passes: Exceptions that are the framework's own control flow: nothing was done, and they are raised on.
            threaded: The handler blocks a thread of the framework, which goes on after a timeout.

        Raises:
            Exception: One of `passes`; and, under `mode: observe`, whatever the tool raised.
        """
        given, tool = parsed(args), self._tool(name, function, effect, timeout_s, inputs, approval=approval)
        attempts = _Attempts(handler, given, passes, threaded=threaded)
        answering = across(run, run.through(tool, _filled(given, schema), attempts.make, tool_call_id))
        return await self._outcome(run, answering, attempts)

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
        approval: bool = False,
        passes: tuple[type[Exception], ...] = (),
    ) -> Outcome:
        """Do what `call` does, blocking; attempts are made in threads of the gate.

        Raises:
            ConfigError: Called on the run's own event loop, which it would block for good.
        """
        off_the_loop(run)
        given, tool = parsed(args), self._tool(name, function, effect, timeout_s, inputs, approval=approval)
        attempts = _SyncAttempts(handler, given, passes, self._home())
        answering = run.through(tool, _filled(given, schema), attempts.make, tool_call_id)
        work = self._outcome(run, answering, attempts)
        return asyncio.run_coroutine_threadsafe(work, run.bridge.loop).result()

    @staticmethod
    async def _outcome(
        run: Run, answering: Coroutine[Any, Any, Answer], attempts: _Attempts | _SyncAttempts
    ) -> Outcome:
        try:
            answer = await answering
        except InterlockError as error:
            if attempts.passed is not None:
                raise attempts.passed from None
            if isinstance(error, ConfigError):
                # Not for the model: who runs the agent must read it.
                run.bridge.loop.call_soon_threadsafe(run.stop, Stop(error.reason, str(error)))
            return Outcome.refused(error)
        except Exception as error:  # an observing run hands the tool's own exception through
            raise (attempts.passed or attempts.raised or error) from None
        return Outcome.answered(answer, fresh=answer.value is attempts.value and answer.status == "success")

    # -- tools

    def _tool(
        self,
        name: str,
        function: Any,
        effect: str | None,
        timeout_s: float | None,
        inputs: Schema | None,
        *,
        approval: bool,
    ) -> str | ToolSpec:
        """Return what the gate knows of a tool: as it was declared, or made out of what the framework says."""
        home = self._home()
        if isinstance(function, Tool) and home.gateway.declared(function.name) is function.spec:
            return function.name
        declared = home.gateway.declared(name)
        if declared is not None and not _by_key(declared):
            return declared.name
        place = (name, declared or (effect, timeout_s, inputs, approval))
        tool = self._tools.get(place)
        if tool is None:
            if len(self._tools) >= TOOLS_KEPT:
                self._tools.clear()
            if declared is None:
                tool = _foreign(name, home, effect, timeout_s, inputs, approval=approval)
            else:
                tool = _without_key(declared)
            self._tools[place] = tool
        return tool


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


def _filled(args: Any, schema: Mapping[str, Any] | None) -> Any:
    """Return the arguments as the tool will receive them: with the defaults of their schema."""
    defaults = defaults_of(schema) if schema and isinstance(args, Mapping) else None
    return {**defaults, **args} if defaults else args


def _by_key(tool: ToolSpec) -> bool:
    """Whether an unknown outcome of this tool is closed by the key that its own function sends."""
    return tool.takes_key and not tool.natural and tool.on_unknown is OnUnknown.RESEND


def _without_key(declared: ToolSpec) -> ToolSpec:
    """What was declared under this name holds, but that the key reaches the remote: another function is called."""
    return replace(declared, on_unknown=OnUnknown.STOP if declared.lookup is None else OnUnknown.LOOKUP)


def _foreign(
    name: str, home: House, effect: str | None, timeout_s: float | None, inputs: Schema | None, *, approval: bool
) -> ToolSpec:
    tool = ToolSpec(
        name,
        _nowhere,
        is_async=True,
        effect=Effect.WRITE if effect is None else Effect(effect),
        # It may read its key (`interlock.adapters.idempotency_key`); the configuration says so by `resend`.
        takes_key=True,
        inputs=inputs or _ARGUMENTS,
        output=_VALUE,
        timeout_s=timeout_s,
        approval="required" if approval else None,
        known=valid_tool_name(name),
    )
    try:
        home.check(tool)
    except ConfigError:  # `idempotency_required` names it, and nobody has said how its unknown outcome is closed
        return replace(tool, known=False)
    return tool


async def _nowhere(**_: Any) -> Any:
    raise LookupError("only the framework can call this tool")


class _Attempts:
    """The attempts of one call, made by the framework's handler on the framework's own event loop.

    Attributes:
        passed: The framework's own control flow that the handler raised. raised: another exception.
        value: What the handler returned last.
    """

    __slots__ = ("_args", "_handler", "_loop", "_passes", "_threaded", "passed", "raised", "value")

    def __init__(self, handler: Handler, args: Any, passes: tuple[type[Exception], ...], *, threaded: bool) -> None:
        self._handler = handler
        self._args = args
        self._passes = passes
        self._threaded = threaded
        self._loop = asyncio.get_running_loop()
        self.passed: Exception | None = None
        self.raised: Exception | None = None
        self.value: Any = self

    async def make(self, call: Call[Any]) -> Answer:
        """Make one attempt."""
        self.passed = None
        token = attempt_under_way.set(Attempt(call.tool.fn, call.sent_key, self._loop))
        try:
            value = self.value = await self._made(call)
        except self._passes as error:
            self.passed = error
            raise NotPerformed(f"the framework's own {type(error).__name__}") from error
        except Exception as error:
            self.raised = error
            raise
        except BaseException as error:
            exit_ = contained(error)
            if exit_ is None:
                raise
            raise exit_ from error
        finally:
            attempt_under_way.reset(token)
        return Answer(value)

    async def _made(self, call: Call[Any]) -> Any:
        work = _value_of(self._handler(_fresh(self._args)))
        if asyncio.get_running_loop() is not self._loop:
            made: asyncio.Future[Any] = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
        elif self._threaded:
            made = asyncio.ensure_future(work)
        else:
            return await work
        if not self._threaded:
            return await made
        # The thread cannot be cut: what it comes to in the end still settles the claim.
        call.late = made
        try:
            value = await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(_looked_at)
            raise
        except Exception:
            call.late = None
            raise
        call.late = None
        return value


class _SyncAttempts:
    """The attempts of one call of a sync framework, made in threads of the gate; as `_Attempts`."""

    __slots__ = ("_args", "_handler", "_home", "_passes", "passed", "raised", "value")

    def __init__(self, handler: SyncHandler, args: Any, passes: tuple[type[Exception], ...], home: House) -> None:
        self._handler = handler
        self._args = args
        self._passes = passes
        self._home = home
        self.passed: Exception | None = None
        self.raised: Exception | None = None
        self.value: Any = self

    async def make(self, call: Call[Any]) -> Answer:
        """Make one attempt."""
        self.passed = None
        token = attempt_under_way.set(Attempt(call.tool.fn, call.sent_key, asyncio.get_running_loop()))
        try:
            answer = await self._home.perform.in_a_thread(call, self._handler, {"args": _fresh(self._args)})
        except self._passes as error:
            self.passed = error
            raise NotPerformed(f"the framework's own {type(error).__name__}") from error
        except Exception as error:
            self.raised = error
            raise
        finally:
            attempt_under_way.reset(token)
        self.value = answer.value
        return answer


def _fresh(args: Any) -> Any:
    """Return a copy of the arguments: a tool that changes them changes those of its own attempt alone."""
    if not isinstance(args, dict) or all(type(value) in _SCALARS for value in args.values()):
        return dict(args) if isinstance(args, dict) else args
    try:
        return copy.deepcopy(args)
    except Exception:  # of a type that cannot be copied: it is the framework's business
        return dict(args)


async def _value_of(result: Any) -> Any:
    value = await result
    # A framework that takes a decorated async tool for a sync one returns what it returned: a coroutine.
    return await value if inspect.iscoroutine(value) else value


def _looked_at(late: asyncio.Future[Any]) -> None:
    if not late.cancelled():
        late.exception()
