"""Can we afford it: reserve before, settle after; a child draws on its parent.

A model turn whose worst case would break a cap is not started. A denied call costs nothing; a call that is
answered from a record counts as a tool call, not as a unique one. The time budget is the run's `deadline_s`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from interlock.core.calls import Answer, Call, Proceed, RunFacts, ToolSpec
from interlock.core.errors import BudgetExceeded
from interlock.core.reasons import StopReason

__all__ = ["BudgetOptions", "Meter", "MeterGuard", "Metered", "Reservation"]

# How a cap is told to the model: which kind, never the number or the key.
_FOR_MODEL = {
    StopReason.TOOL_BUDGET: "No further calls of this tool are possible. It was not executed.",
    StopReason.TIME_BUDGET: "The time for this task is over. It was not executed.",
}


@dataclass(frozen=True, slots=True)
class BudgetOptions:
    """`agent.budgets`; None means unlimited.

    Attributes:
        max_steps: Model turns. max_seconds: seconds under a live lease. max_tool_calls: calls, answered ones included.
        max_usd: Dollars. max_unique_calls: distinct (tool, arguments). max_tokens: input plus output.
        reserve_usd_per_turn: Reserved for a turn whose worst case is not declared.
        max_age_s: Wall-clock seconds since the run began or was queued; `max_seconds` counts only those at work.
    """

    max_steps: int | None = 250
    max_seconds: float | None = 900.0
    max_tool_calls: int | None = 250
    max_usd: float | None = 1.0
    max_unique_calls: int | None = None
    max_tokens: int | None = None
    reserve_usd_per_turn: float | None = None
    max_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A cap that would be broken: its reason, key, and limit; `run_wide` is False for a cap of one tool."""

    reason: StopReason
    key: str
    limit: float
    run_wide: bool = True

    def error(self, subject: str) -> BudgetExceeded:
        """Return the refusal as an error that names the key to change."""
        return BudgetExceeded(
            self.reason,
            f"{subject}: {self.key} = {self.limit:g} is used up",
            for_model=_FOR_MODEL.get(self.reason),
            details={"budget": self.key, "limit": self.limit},
            run_wide=self.run_wide,
        )


@dataclass(slots=True)
class Reservation:
    """What a model turn under way holds: `usd` and `tokens` at worst; `exact` if the turn was declared."""

    usd: float
    tokens: int
    exact: bool


class Meter:
    """The counter of one run; pure: no clock, no I/O.

    Attributes:
        steps, calls, unique, tokens, usd: Used so far, children included.
        unpriced: A model whose price is unknown, once one has been charged.
        overdrawn: The cap on dollars was passed by a turn that was not declared.
    """

    __slots__ = (
        "_capped_usd",
        "_chain",
        "_dearest_usd",
        "_per_tool",
        "_reserved_tokens",
        "_reserved_usd",
        "_unique",
        "calls",
        "options",
        "steps",
        "tokens",
        "unpriced",
        "usd",
    )

    def __init__(self, options: BudgetOptions, parent: Meter | None = None) -> None:
        self.options = options
        # A meter and what it draws on, nearest first.
        self._chain: tuple[Meter, ...] = (self, *parent._chain) if parent is not None else (self,)
        self._capped_usd = any(meter.options.max_usd is not None for meter in self._chain)
        self.steps = 0
        self.calls = 0
        self.tokens = 0
        self.usd = 0.0
        self.unpriced: str | None = None
        self._reserved_usd = 0.0
        self._reserved_tokens = 0
        self._dearest_usd = 0.0
        # Distinct calls are kept only where a cap needs them.
        self._unique: set[int] | None = set() if options.max_unique_calls is not None else None
        self._per_tool: dict[str, int] = {}

    @property
    def overdrawn(self) -> bool:
        """Whether more dollars were spent than the cap allows."""
        return self.options.max_usd is not None and self.usd > self.options.max_usd

    def admit_call(self, tool: str, key: int, max_calls: int | None) -> Refused | None:
        """Count one call of `tool`, here and in every parent; or count nothing and say which cap is reached.

        Args:
            tool: Its name. key: hash of tool and arguments.
            max_calls: The tool's own cap in one run and its children, or None.
        """
        for meter in self._chain:
            refused = meter._call_refused(tool, key, max_calls)
            if refused is not None:
                return refused
        for meter in self._chain:
            meter.calls += 1
            if meter._unique is not None:
                meter._unique.add(key)
            if max_calls is not None:
                meter._per_tool[tool] = meter._per_tool.get(tool, 0) + 1
        return None

    def _call_refused(self, tool: str, key: int, max_calls: int | None) -> Refused | None:
        options = self.options
        if options.max_tool_calls is not None and self.calls >= options.max_tool_calls:
            return Refused(StopReason.TOOL_BUDGET, "agent.budgets.max_tool_calls", options.max_tool_calls)
        if max_calls is not None and self._per_tool.get(tool, 0) >= max_calls:
            return Refused(StopReason.TOOL_BUDGET, f"tools.budgets.{tool}.max_calls", max_calls, run_wide=False)
        cap = options.max_unique_calls
        if cap is not None and self._unique is not None and key not in self._unique and len(self._unique) >= cap:
            return Refused(StopReason.TOOL_BUDGET, "agent.budgets.max_unique_calls", cap)
        return None

    def count_answered(self) -> None:
        """Count a call that was answered from the record before it reached the caps."""
        for meter in self._chain:
            meter.calls += 1

    def not_executed(self, tool: str, key: int, *, first: bool) -> None:
        """Take a call that the journal answered out of the unique and per-tool counts; it stays a tool call."""
        for meter in self._chain:
            if first and meter._unique is not None:
                meter._unique.discard(key)
            if meter._per_tool.get(tool):
                meter._per_tool[tool] -= 1

    def knows(self, key: int) -> bool:
        """Whether this call has been counted as unique before."""
        return self._unique is not None and key in self._unique

    def admit_turn(self, worst_usd: float | None, worst_tokens: int | None) -> Reservation | Refused:
        """Count and reserve one model turn; None for a worst case that is not declared."""
        for meter in self._chain:
            refused = meter._turn_refused(worst_usd, worst_tokens)
            if refused is not None:
                return refused
        return self.take_turn(worst_usd, worst_tokens)

    def take_turn(self, worst_usd: float | None, worst_tokens: int | None) -> Reservation:
        """Count and reserve one model turn, whatever the caps say."""
        held = Reservation(self._hold_usd(worst_usd), worst_tokens or 0, worst_usd is not None)
        for meter in self._chain:
            meter.steps += 1
            meter._reserved_usd += held.usd
            meter._reserved_tokens += held.tokens
        return held

    def admit_wrap_up(self, worst_usd: float | None) -> Reservation | Refused:
        """Reserve the one turn after a stop: no step, no tokens; but dollars that are not there are not spent."""
        for meter in self._chain:
            refused = meter._usd_refused(worst_usd)
            if refused is not None:
                return refused
        held = Reservation(self._hold_usd(worst_usd), 0, worst_usd is not None)
        for meter in self._chain:
            meter._reserved_usd += held.usd
        return held

    def _hold_usd(self, worst_usd: float | None) -> float:
        if worst_usd is not None:
            return worst_usd
        if self.options.reserve_usd_per_turn is not None:
            return self.options.reserve_usd_per_turn
        return self._dearest_usd

    def _turn_refused(self, worst_usd: float | None, worst_tokens: int | None) -> Refused | None:
        options = self.options
        if options.max_steps is not None and self.steps >= options.max_steps:
            return Refused(StopReason.STEP_BUDGET, "agent.budgets.max_steps", options.max_steps)
        refused = self._usd_refused(worst_usd)
        if refused is not None:
            return refused
        if options.max_tokens is not None:
            used = self.tokens + self._reserved_tokens
            worst = worst_tokens or 0
            if used + worst > options.max_tokens or (not worst and used >= options.max_tokens):
                return Refused(StopReason.TOKEN_BUDGET, "agent.budgets.max_tokens", options.max_tokens)
        return None

    def _usd_refused(self, worst_usd: float | None) -> Refused | None:
        most_usd = self.options.max_usd
        if most_usd is None:
            return None
        committed = self.usd + self._reserved_usd
        held = self._hold_usd(worst_usd)
        # A turn whose worst case is unknown may start while anything at all is left.
        if committed + held > most_usd or (not held and committed >= most_usd):
            return Refused(StopReason.COST_BUDGET, "agent.budgets.max_usd", most_usd)
        return None

    def replay_turn(self, usd: float, tokens: int) -> None:
        """Count a model turn that an earlier attempt took; it is not judged again."""
        for meter in self._chain:
            meter.steps += 1
            meter.usd += usd
            meter.tokens += tokens
            meter._dearest_usd = max(meter._dearest_usd, usd)

    def cancel_turn(self, held: Reservation) -> None:
        """Take back a turn that was admitted here and then did not start."""
        self.settle_turn(held, 0.0, 0)
        for meter in self._chain:
            meter.steps -= 1

    def settle_turn(self, held: Reservation, usd: float, tokens: int) -> None:
        """Replace what a turn held by what it cost."""
        for meter in self._chain:
            meter._reserved_usd -= held.usd
            meter._reserved_tokens -= held.tokens
            meter.usd += usd
            meter.tokens += tokens
            meter._dearest_usd = max(meter._dearest_usd, usd)

    def charge_lost(self, usd: float, tokens: int) -> None:
        """Count what model turns of earlier attempts cost that no record of a turn says."""
        for meter in self._chain:
            meter.usd += usd
            meter.tokens += tokens

    def reserved(self) -> tuple[float, int]:
        """Return the dollars and tokens that all turns under way hold, of the root and all its children."""
        root = self._chain[-1]
        return max(0.0, root._reserved_usd), max(0, root._reserved_tokens)

    def mark_unpriced(self, model: str) -> None:
        """Remember that a turn of this model could not be priced, here and in every parent."""
        for meter in self._chain:
            meter.unpriced = meter.unpriced or model

    def capped_usd(self) -> bool:
        """Whether a cap on dollars applies, here or in a parent."""
        return self._capped_usd


class Metered(RunFacts):
    """What the guard needs of a run."""

    __slots__ = ()
    meter: Meter


M = TypeVar("M", bound=Metered)


class MeterGuard:
    """Guard `meter`.

    Args:
        max_calls_of: Returns the cap of one tool in one run (`tools.budgets`), or None.
    """

    __slots__ = ("_max_calls_of",)

    def __init__(self, max_calls_of: Callable[[str], int | None]) -> None:
        self._max_calls_of = max_calls_of

    def __call__(self, tool: ToolSpec, proceed: Proceed[M]) -> Proceed[M]:
        """See `Guard`."""
        name = tool.name
        max_calls = self._max_calls_of(name)

        async def meter(call: Call[M]) -> Answer:
            run = call.run
            counter = run.meter
            if run.clock.monotonic() >= run.deadline_s:
                limit_s = counter.options.max_seconds or 0.0
                call.refuse(Refused(StopReason.TIME_BUDGET, "agent.budgets.max_seconds", limit_s).error(name))
            key = hash((name, call.digest))
            known = counter.knows(key)
            refused = counter.admit_call(name, key, max_calls)
            if refused is not None:
                call.refuse(refused.error(name))
                counter.count_answered()
            answer = await proceed(call)
            if answer.status == "replayed":
                counter.not_executed(name, key, first=not known)
            return answer

        return meter
