"""One run in flight: what an agent holds in its hand.

Every method works from an async agent (await it) and from a sync one (call it); see `bridge.py`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from interlock.budget.meter import BudgetOptions
from interlock.core.calls import Answer, Stop, ToolSpec
from interlock.core.errors import InterlockError, LeaseLost, OutcomeUnknown, RunStopped
from interlock.core.reasons import StopReason
from interlock.core.results import RunResult
from interlock.gateway.gateway import Gateway, Perform
from interlock.gateway.scope import RunScope
from interlock.journal.ownership import Lease, hold_on
from interlock.supervisor import replies
from interlock.supervisor.bridge import Bridge
from interlock.supervisor.child import Child
from interlock.supervisor.deadline import Deadline
from interlock.supervisor.machinery import Machinery
from interlock.supervisor.memories import RunArtifacts, RunMemory
from interlock.supervisor.observation import Observation, as_text
from interlock.supervisor.stopping import NO_WRAP_UP, TAKEN_OVER, TIME_IS_UP, Refusals, Straggler, stops
from interlock.supervisor.turns import ModelTurn

__all__ = ["Run"]


class Family(Protocol):
    """Where runs are opened and closed; the supervisor."""

    def open_child(
        self, parent: Run, name: str, budgets: Mapping[str, Any] | BudgetOptions | None, allow: Sequence[str] | None
    ) -> Run:
        """Open a run below `parent`."""
        ...

    async def close(self, run: Run, error: BaseException | None) -> RunResult | None:
        """End a run whose block was left, with or without an error, and record it; None: it is another worker's."""
        ...


class Run:
    """One run in flight.

    Attributes:
        run_id, tenant_id, request_id, agent: Who it is. memory, artifacts: what it remembers, and keeps of outputs.
        partial: Whatever exists so far, or a function that returns it; kept in `result.details["partial"]` if the run
            is stopped.
        result: The `RunResult`, once the run has ended.
        returning: The worker drains: what stops this run now is not its end, and another worker goes on with it.
    """

    def __init__(
        self, machinery: Machinery, family: Family, scope: RunScope, bridge: Bridge, *, parent: Run | None = None
    ) -> None:
        self.run_id, self.tenant_id = scope.run_id, scope.tenant_id
        self.request_id, self.agent = scope.request_id, scope.agent
        self.memory = RunMemory(scope, bridge, machinery.remembering)
        self.artifacts = RunArtifacts(scope, bridge, machinery.keeping)
        self.partial: Any = None
        self.result: RunResult | None = None
        self.scope = scope
        self.doubts: list[str] = []
        self.not_resumable: str | None = None
        self.output: Any = None
        self._machinery = machinery
        self._family = family
        self.bridge = bridge
        self._parent = parent
        self._children: list[Run] = []
        self._child_names: dict[str, int] = {}
        self._refusals = Refusals(machinery.stopping.max_refusals)
        self._straggler: Straggler | None = None
        self.deadline: Deadline | None = None
        self._wrapped_up = self.returning = False

    # -- calls

    def call(self, tool: str, args: Mapping[str, Any] | None = None, *, tool_call_id: str | None = None) -> Any:
        """Use a tool, and return its validated output.

        Args:
            tool: Its name.
            args: Its arguments by name.
            tool_call_id: The model's own id of this call, for the record.

        Raises:
            InterlockError: A refusal or a failure; see `core/errors.py`. `RunStopped` once a stop is decided.
        """
        return self.bridge.cross(self._call(tool, args or {}, tool_call_id, bare=True))

    def through(
        self, tool: str | ToolSpec, args: Mapping[str, Any], perform: Perform, tool_call_id: str | None = None
    ) -> Coroutine[Any, Any, Answer]:
        """Pass a call through the funnel whose attempts another makes (`perform`); for adapters, on the run's loop."""
        return self._call(tool, args, tool_call_id, perform, bare=False)

    def belongs_to(self, gateway: Gateway) -> bool:
        """Whether calls of this run pass this gateway."""
        return self._machinery.gateway is gateway

    def observe(self, tool: str, args: Mapping[str, Any] | None = None, *, tool_call_id: str | None = None) -> Any:
        """Use a tool, and return an `Observation`; a refusal does not raise.

        Raises:
            RunStopped: A stop is decided: nothing more is done in this run. LeaseLost: another worker has it.
        """
        return self.bridge.cross(self._observation(tool, args or {}, tool_call_id))

    async def _observation(self, tool: str, args: Mapping[str, Any], tool_call_id: str | None) -> Observation:
        try:
            answer: Answer = await self._call(tool, args, tool_call_id, bare=False)
        except (RunStopped, LeaseLost):
            raise
        except InterlockError as error:
            return Observation(False, None, error.for_model, error.status, error.reason, error)
        except Exception as error:  # an observing run hands the tool's own exception through
            return Observation(False, None, "The tool failed.", "error", StopReason.TOOL_FAILED, error)
        return Observation(True, answer.value, as_text(answer), answer.status)

    async def _call(
        self,
        tool: str | ToolSpec,
        args: Mapping[str, Any],
        tool_call_id: str | None,
        perform: Perform | None = None,
        *,
        bare: bool,
    ) -> Any:
        """Pass the gateway; return the answer, or its value alone if `bare` (a frame less for each call under way)."""
        scope = self.scope
        if scope.stop is not None:
            if self._straggler is not None and perform is None:  # a framework ends its batch, however large it is
                self._straggler.called()
        elif self._parent is not None and self._parent.scope.stop is not None:
            self.stop(self._parent.scope.stop)
        lease = scope.lease
        if lease is not None and lease.until_s <= scope.clock.boot() and (scope.stop is None or lease.lost):
            await self._hold_on(lease)
        scope.in_flight += 1
        turn = scope.turn
        refusal: InterlockError | None = None
        try:
            # Without declared turns every call is a batch of its own.
            answer = await self._machinery.gateway.call(
                scope, tool, args, turn or -scope.seq - 1, tool_call_id, perform
            )
            return answer.value if bare else answer
        except InterlockError as error:
            refusal = self._judge(error)
            raise
        finally:
            scope.in_flight -= 1
            if scope.stop is None:
                stop = self._refusals.note(refusal, turns=turn > 0)
                if stop is not None:
                    self.stop(stop)
            elif not scope.in_flight:
                self._idle()

    def _judge(self, error: InterlockError) -> InterlockError | None:
        """Stop the run if this error does; return it if it was a refusal: nothing was executed."""
        if isinstance(error, OutcomeUnknown):
            key = error.details.get("key")
            if isinstance(key, str) and key not in self.doubts:
                self.doubts.append(key)
        if isinstance(error, LeaseLost) and self.scope.lease is not None:
            self.scope.lease.lose()
        if stops(error, self._machinery.stopping.stop_on):
            self.stop(Stop(error.reason, str(error), error.details))
        return None if error.executed else error

    # -- stopping

    def stop(self, stop: Stop) -> None:
        """Decide that this run stops, and its children with it; only the first decision counts."""
        if self.scope.stop is not None:
            return
        self.scope.stop = stop
        for child in self._children:
            child.stop(stop)
        if not self.scope.in_flight:
            self._idle()

    def _idle(self) -> None:
        if self._straggler is not None:
            self._straggler.settled()

    def watch(self, cancel: Callable[[], None]) -> None:
        """Let `cancel` be called when the agent goes on after a stop."""
        self._straggler = Straggler(self.bridge.later, cancel)

    def over(self, result: RunResult) -> None:
        """Take in that the run has ended."""
        self.result = result
        if self._straggler is not None:
            self._straggler.spare()
            self._straggler = None
        if self.scope.stop is None:
            self.scope.stop = Stop(result.reason, "the run has ended")

    # -- model turns

    def step(
        self,
        *,
        model: str | None = None,
        max_output_tokens: int | None = None,
        input_tokens: int | None = None,
        record: Any = None,
    ) -> ModelTurn:
        """Open one model turn: `async with run.step(model=…) as step: reply = …; step.charge(reply.usage)`.

        Entering is where a run stops; it reads the switches and reserves the turn's worst case.

        Args:
            model: `provider:model`, for the price; None where nothing is charged.
            max_output_tokens: Worst case of the output.
            input_tokens: Of the prompt, counted or estimated; without it only the output is reserved.
            record: Type of the reply (`dict` for plain JSON), so that a later attempt of this run gets the same one:
                ask the model only if `step.replayed` is False, and set `step.reply`.

        Raises:
            RunStopped: A stop is decided, or a budget does not allow the turn.
        """
        return ModelTurn(self, self._machinery, self.bridge, model, max_output_tokens, input_tokens, record)

    def model(
        self,
        fn: Callable[..., Any],
        *args: Any,
        model: str | None = None,
        max_output_tokens: int | None = None,
        input_tokens: int | None = None,
        reply_type: Any = None,
        usage: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Take one model turn: call `fn(*args, **kwargs)` inside a step, charge its usage, return its reply.

        Args:
            fn: Asks the model; async, or sync (then in a worker thread).
            model, max_output_tokens, input_tokens: See `step`.
            reply_type: How to rebuild a stored reply that is not plain JSON.
            usage: Reads the usage of a reply that is not OpenAI-, Anthropic- or `{"usage": …}`-shaped.
        """
        record = replies.PLAIN if reply_type is None else reply_type
        step = self.step(model=model, max_output_tokens=max_output_tokens, input_tokens=input_tokens, record=record)
        return self.bridge.cross(self._model(self._machinery.asking(self.scope, fn), args, kwargs, step, usage))

    async def _model(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        step: ModelTurn,
        usage: Callable[[Any], Any] | None,
    ) -> Any:
        async with step:
            if step.replayed:
                return step.reply
            if inspect.iscoroutinefunction(fn):
                reply = await fn(*args, **kwargs)
            else:
                reply = await self._machinery.threads.submit(functools.partial(fn, *args, **kwargs), {}, "model")
                if inspect.isawaitable(reply):
                    reply = await reply
            step.charge_reply(reply, usage)
            step.reply = reply
        return reply

    def cannot_be_resumed(self, why: str) -> None:
        """Take in that a later attempt could not be answered as this one is; said once."""
        if self.not_resumable is None:
            self.not_resumable = why
            warnings.warn(f"run {self.run_id} cannot be resumed after a crash: {why}", RuntimeWarning, stacklevel=3)

    async def begin_turn(self) -> bool:
        """Pass the stop boundary before a model turn; return whether it is the wrap-up turn.

        Raises:
            RunStopped: Nothing more is done in this run. LeaseLost: another worker has it.
        """
        scope = self.scope
        lease = scope.lease
        if lease is not None and lease.until_s <= scope.clock.boot() and (scope.stop is None or lease.lost):
            await self._hold_on(lease)
        if scope.stop is None and self._parent is not None and self._parent.scope.stop is not None:
            self.stop(self._parent.scope.stop)
        if scope.stop is None:
            stop = self._refusals.turn_over()
            if stop is not None:
                self.stop(stop)
        if scope.stop is None and not self._machinery.switches.idle():
            await self._check_switches()
        if scope.stop is None and scope.is_over():
            self.stop(TIME_IS_UP)
        stop = scope.stop
        if stop is None:
            return False
        if self._machinery.stopping.wrap_up and not self._wrapped_up and stop.reason not in NO_WRAP_UP:
            self._wrapped_up = True
            if self._straggler is not None:
                self._straggler.spare()
            return True
        raise RunStopped(stop.reason, stop.message, details=stop.details)

    async def _check_switches(self) -> None:
        try:
            await self._machinery.switches.check_turn(self.scope)
        except InterlockError as error:
            self.stop(Stop(error.reason, str(error), error.details))

    def end_turn(self) -> None:
        """Take in that a model turn is over."""
        if self.scope.stop is not None and not self.scope.in_flight:
            self._idle()

    # -- ownership

    async def _hold_on(self, lease: Lease) -> None:
        """Go on only if the run is still this worker's.

        Raises:
            LeaseLost: It is not.
        """
        try:
            await hold_on(self._machinery.leases, lease)
        except InterlockError as error:
            self.stop(Stop(error.reason, str(error)))
            raise

    def watch_lease(self, lease: Lease) -> None:
        """Stop when another worker takes the run over, whatever the agent is at."""
        lease.on_lost = self._taken_over

    def _taken_over(self) -> None:
        """Called in any thread."""
        with contextlib.suppress(RuntimeError):  # that loop is closed: nothing of this run goes on
            self.bridge.loop.call_soon_threadsafe(self.stop, TAKEN_OVER)

    @property
    def lost(self) -> bool:
        """Whether another worker has this run by now."""
        return self.scope.lease is not None and self.scope.lease.lost

    # -- children

    def child(
        self,
        name: str | None = None,
        *,
        budgets: Mapping[str, Any] | BudgetOptions | None = None,
        allow: Sequence[str] | None = None,
    ) -> Child[Run]:
        """Open a sub-agent's run on this run's budget: `async with run.child("researcher") as child: …`.

        Args:
            name: Identifies it across retries; without one, its ordinal does.
            budgets: Caps of its own, e.g. `{"max_steps": 5}`; they stop only the child.
            allow: Globs; it may use what matches these and what the parent may use.
        """
        return Child(self.bridge, functools.partial(self._open_child, name, budgets, allow), self._close_child)

    def _open_child(
        self,
        name: str | None,
        budgets: Mapping[str, Any] | BudgetOptions | None,
        allow: Sequence[str] | None,
    ) -> Run:
        run = self._family.open_child(self, self._child_name(name), budgets, allow)
        self._children.append(run)
        return run

    async def _close_child(self, child: Run, error: BaseException | None) -> None:
        """Record the child's outcome. Its errors are ours to handle."""
        await self._family.close(child, error)
        self._children.remove(child)
        for key in child.doubts:
            if key not in self.doubts:
                self.doubts.append(key)

    def _child_name(self, name: str | None) -> str:
        """Return a name that no other child of this run has: its own, or an ordinal."""
        base = name or f"child{self.scope.turn or ''}"
        n = self._child_names[base] = self._child_names.get(base, 0) + 1
        return base if n == 1 else f"{base}#{n}"

    def __repr__(self) -> str:
        return f"<Run {self.run_id} of {self.agent}>"
