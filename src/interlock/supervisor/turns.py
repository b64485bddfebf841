"""One model turn: the place where a run stops, and where its cost is reserved and charged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from interlock.budget.meter import Refused, Reservation
from interlock.budget.prices import Usage, read_model, read_usage
from interlock.budget.tenants import Held
from interlock.core.calls import Stop
from interlock.core.errors import RunStopped, StoreUnavailable
from interlock.core.reasons import StopReason
from interlock.gateway.scope import RunScope
from interlock.journal.replay import TurnRecord
from interlock.supervisor import replies
from interlock.supervisor.bridge import Bridge, Opened
from interlock.supervisor.deadline import Cut, Deadline
from interlock.supervisor.machinery import Machinery

__all__ = ["ModelTurn", "Turning"]

UNNAMED = "the unnamed model"
_UNSAID: Any = object()


class Turning(Protocol):
    """A run, as far as its turns need it."""

    scope: RunScope
    deadline: Deadline | None

    async def begin_turn(self) -> bool:
        """See `Run.begin_turn`."""
        ...

    def end_turn(self) -> None:
        """See `Run.end_turn`."""
        ...

    def stop(self, stop: Stop) -> None:
        """See `Run.stop`."""
        ...

    def cannot_be_resumed(self, why: str) -> None:
        """See `Run.cannot_be_resumed`."""
        ...


class ModelTurn(Opened["ModelTurn"]):
    """An open model turn; made by `run.step`.

    A turn that ends without a charge costs what was reserved for it if it was declared, else nothing; a turn
    that raises costs nothing.

    Attributes:
        number: Of the turn, from 1 in each run.
        wrap_up: This is the one turn after the stop: its reply should be an answer, and ask for no tools.
        replayed: `reply` is what an earlier attempt of the run recorded: do not ask the model, charge nothing.
        reply: Set it to what the model said, where `run.step` was told to `record` it.
    """

    __slots__ = (
        "_charged",
        "_cut",
        "_cuts",
        "_held",
        "_held_of_tenant",
        "_machinery",
        "_model",
        "_record",
        "_run",
        "_worst",
        "number",
        "replayed",
        "reply",
        "wrap_up",
    )

    def __init__(
        self,
        run: Turning,
        machinery: Machinery,
        bridge: Bridge,
        model: str | None,
        max_output_tokens: int | None,
        input_tokens: int | None,
        record: Any,
    ) -> None:
        super().__init__(bridge)
        self._run = run
        self._machinery = machinery
        self._model = model
        self._worst = None if max_output_tokens is None else Usage(input_tokens or 0, max_output_tokens)
        self._held: Reservation | None = None
        self._held_of_tenant: Held | None = None
        self._charged: list[tuple[float, int]] = []
        self._cut: Cut | None = None
        self._cuts = True
        self._record = record
        self.reply: Any = _UNSAID
        self.replayed = False
        self.number = 0
        self.wrap_up = False

    def __enter__(self) -> Self:
        self.uncut()  # a sync agent's own code cannot be cut; its next call or turn is refused
        self._bridge.hop(self.open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        swallowed: bool = self._bridge.hop(self.close(error))
        return swallowed

    def uncut(self) -> Self:
        """Let the deadline not cut this turn: it is opened and closed by other tasks than the one that asks."""
        self._cuts = False
        return self

    async def open(self) -> ModelTurn:
        """Pass the stop boundary and reserve.

        Raises:
            RunStopped: The run is over, or a budget does not allow this turn.
        """
        run = self._run
        record = self._recorded()
        self.wrap_up = await run.begin_turn()
        if record is not None and not self.wrap_up:
            return self._replay(record)
        held = await self._admitted()
        while isinstance(held, Stop):
            run.stop(held)
            # Or raises: there is one wrap-up turn, and most ask for this turn once.
            self.wrap_up = await run.begin_turn()
            held = await self._admitted()
        self._held = held
        scope = run.scope
        if scope.tape is not None and (held.usd or held.tokens):
            scope.tape.hold(scope.meter.reserved())
        scope.turn += 1
        self.number = scope.turn
        if self._cuts:
            self._cut = self._limit()
        return self

    def _limit(self) -> Cut | None:
        """Return what cuts this turn when its time is up."""
        if self.wrap_up:
            return Cut(self._machinery.wrap_up_s)
        run = self._run
        if run.scope.observing:
            return None
        if run.deadline is not None:
            return run.deadline.cut()
        left_s = run.scope.deadline_s - run.scope.clock.monotonic()  # of a child, which may have less than its root
        return None if left_s == float("inf") else Cut(left_s)

    def _recorded(self) -> TurnRecord | None:
        """Return what an earlier attempt recorded of this turn, if it can be answered from it."""
        scope = self._run.scope
        if self._record is None or scope.tape is None or scope.stop is not None:
            return None
        record = scope.tape.turn(scope.turn + 1)
        return None if record is None or record.reply is None else record

    def _replay(self, record: TurnRecord) -> ModelTurn:
        assert record.reply is not None
        scope = self._run.scope
        scope.turn += 1
        self.number = scope.turn
        scope.meter.replay_turn(record.usd, record.tokens)
        self.replayed = True
        self.reply = replies.read(record.reply, self._record)
        return self

    async def _admitted(self) -> Reservation | Stop:
        held = self._reserve()
        cap_usd = self._machinery.tenants.dollar_cap(self._run.scope.tenant_id)
        if isinstance(held, Stop) or cap_usd is None:
            return held
        return await self._reserve_of_tenant(held, cap_usd) or held

    def _refused(self, stop: Stop) -> Stop | None:
        """Return what the turn is refused with; None where the run only observes, and takes it all the same."""
        return None if self._run.scope.spared(stop.reason) and not self.wrap_up else stop

    def _reserve(self) -> Reservation | Stop:
        meter = self._run.scope.meter
        capped = meter.capped_usd() and not self._machinery.unpriced_allowed
        worst_usd = None
        unknown = meter.unpriced
        if self._model is not None:
            worst = self._machinery.prices.cost_usd(self._model, self._worst or Usage(1, 1))
            if worst is None:
                unknown = self._model
            elif self._worst is not None:
                worst_usd = worst
        if unknown is not None and capped:
            stop = self._refused(
                Stop(
                    StopReason.COST_BUDGET,
                    f"price of {unknown} unknown: {_remedy(unknown)}, or set max_usd: null",
                    {"budget": "agent.budgets.max_usd", "unpriced": unknown},
                )
            )
            if stop is not None:
                return stop
        worst_tokens = None if self._worst is None else self._worst.tokens
        held = meter.admit_wrap_up(worst_usd) if self.wrap_up else meter.admit_turn(worst_usd, worst_tokens)
        if isinstance(held, Refused):
            error = held.error("model turn")
            return self._refused(Stop(error.reason, str(error), error.details)) or meter.take_turn(
                worst_usd, worst_tokens
            )
        return held

    async def _reserve_of_tenant(self, held: Reservation, cap_usd: float) -> Stop | None:
        """Hold the turn's dollars with its tenant too; what stops it, or None."""
        scope, tenants = self._run.scope, self._machinery.tenants
        try:
            self._held_of_tenant = await tenants.reserve(scope.tenant_id, held.usd, cap_usd)
            if self._held_of_tenant is not None:
                return None
            key = f"tenants.{scope.tenant_id}.budgets.max_usd_per_day"
            text = f"model turn: {key} = {cap_usd:g} is used up"
            stop = self._refused(Stop(StopReason.COST_BUDGET, text, {"budget": key}))
        except StoreUnavailable as error:
            stop = self._refused(Stop(error.reason, str(error)))
        if stop is None:
            self._held_of_tenant = tenants.unheld(scope.tenant_id)
        else:
            scope.meter.cancel_turn(held)
        return stop

    def charge(self, usage: Any, *, model: str | None = None) -> None:
        """Charge the usage of a reply: OpenAI's or Anthropic's object, a mapping, or a `Usage`.

        Args:
            usage: With `input_tokens`/`prompt_tokens` and `output_tokens`/`completion_tokens`, or `cost_usd`.
            model: Its name, where `run.step` was not told.
        """
        found = usage if type(usage) is Usage else read_usage({"usage": usage})
        if found is not None:
            self._charge(found, model)

    def charge_reply(self, reply: Any, reader: Callable[[Any], Any] | None = None) -> None:
        """Charge what the reply itself says it used; nothing where it says nothing."""
        found = read_usage(reply, reader)
        if found is not None:
            self._charge(found, read_model(reply))

    def _charge(self, usage: Usage, model: str | None) -> None:
        name = self._model or model
        usd = usage.cost_usd if name is None else self._machinery.prices.cost_usd(name, usage)
        if usd is None:
            self._run.scope.meter.mark_unpriced(name or UNNAMED)
        scope = self._run.scope
        agent = scope.agent.partition("/")[0]
        if scope.growth.seen(usage.input_tokens, scope.turn) is not None:
            self._machinery.metrics.prompt_grown(agent)
        self._machinery.metrics.spent(agent, name or "unnamed", usd)
        self._charged.append((usd or 0.0, usage.tokens))

    async def close(self, error: BaseException | None) -> bool:
        """Settle the reservation; a turn cut by the deadline stops the run."""
        run, held = self._run, self._held
        if held is not None:
            self._held = None
            usd, tokens = 0.0, 0
            for charged_usd, charged_tokens in self._charged:
                usd, tokens = usd + charged_usd, tokens + charged_tokens
            if not self._charged and error is None and held.exact:
                usd, tokens = held.usd, held.tokens
            run.scope.meter.settle_turn(held, usd, tokens)
            self._write_down(error, held, usd, tokens)
            if self._held_of_tenant is not None:
                self._machinery.tenants.settle(self._held_of_tenant, usd)
        try:
            if self._cut is not None and self._cut.lift(error):
                stop = Stop(StopReason.TIME_BUDGET, "the deadline cut a model turn (agent.budgets.max_seconds)")
                run.stop(stop)
                raise RunStopped(stop.reason, stop.message) from error
        finally:
            run.end_turn()
        return False

    def _write_down(self, error: BaseException | None, held: Reservation, usd: float, tokens: int) -> None:
        """Record the turn, and that it holds nothing any more."""
        scope = self._run.scope
        tape = scope.tape
        left = scope.meter.reserved() if tape is not None and (held.usd or held.tokens) else None
        # A turn that was cut off because its run stops is not a decision of the run.
        stopped = scope.stop is not None and isinstance(error, asyncio.CancelledError)
        if self._record is not None and isinstance(error, Exception) and scope.turn == self.number:
            scope.turn -= 1  # nothing came of it: whoever asks again takes this very turn
        elif tape is not None and not self.wrap_up and not stopped:
            reply = self._kept() if error is None else None
            tape.keep_turn(self.number, reply, self._model or "", usd, tokens, left)
            return
        if tape is not None and left is not None:
            tape.hold(left)

    def _kept(self) -> bytes | None:
        """Return the reply as it is recorded; None, and the run cannot be entered again, where it cannot be."""
        if self._record is None or self.reply is _UNSAID:
            return None
        kept = replies.write(self.reply, self._record)
        if kept is None:
            self._run.cannot_be_resumed("a model's reply is not JSON: name its reply_type in run.model")
        return kept


def _remedy(model: str) -> str:
    return "name it (run.model(…, model=…))" if model == UNNAMED else f"add prices.{model}"
