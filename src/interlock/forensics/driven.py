"""What became of a recorded run under a configuration, and what its tools are declared as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from interlock.core.calls import Effect
from interlock.core.reasons import StopReason
from interlock.forensics.effects import SetEffects, ToolEffect
from interlock.forensics.traces import RecordedCall, RecordedRun
from interlock.forensics.writes_seen import writes_of
from interlock.policy.globs import valid_tool_name

__all__ = ["ASSUMED_TURN_S", "DrivenRun", "bursts_of", "declared"]

# A turn of unknown length still takes time: breakers and rate limits recover while a model thinks. Short enough
# that the default profile's 250 steps never use up its 900 seconds.
ASSUMED_TURN_S = 3.0


@dataclass(slots=True)
class DrivenRun:
    """What became of a recorded run in the live funnel.

    Attributes:
        run: The recorded run.
        reason: Why it ended; `success` when the recorded agent came to its end.
        steps, proposed: Model turns and calls that were reached.
        executed: Calls whose tool was asked; `attempts` counts each asking.
        answered: Calls answered from the journal or the record instead. refused: calls refused.
        stale: Reads answered from the record although the recorded tool had something else to say.
        duplicates_recorded, duplicates_executed: Equal writes performed beyond the first, before and now.
        transient_recorded, transient_seen: Passing failures the recorded model met, and still meets.
        bursts_recorded, bursts_seen: Passing failures of one call in a row; those of which the model meets one still.
        strayed: Attempts whose arguments the record does not know; always 0, or the funnel changed them.
        stopped_at: Number of the call, from 1, at which the stop was decided, or None.
        withheld: Numbers of the calls, from 1, that `tools.when_tainted` refused or let wait for a person.
        denied: Numbers of those that are not allowed at all.
        undeclared: Tools of which the effects say nothing: reads if the record says so, else writes.
        message: The developer's sentence of the stop.
    """

    run: RecordedRun
    reason: StopReason = StopReason.SUCCESS
    steps: int = 0
    proposed: int = 0
    executed: int = 0
    attempts: int = 0
    answered: int = 0
    refused: int = 0
    stale: int = 0
    duplicates_recorded: int = 0
    duplicates_executed: int = 0
    transient_recorded: int = 0
    transient_seen: int = 0
    bursts_recorded: int = 0
    bursts_seen: int = 0
    strayed: int = 0
    stopped_at: int | None = None
    withheld: list[int] = field(default_factory=list)
    denied: list[int] = field(default_factory=list)
    undeclared: tuple[str, ...] = ()
    message: str = ""

    @property
    def recorded(self) -> int:
        """Calls that the recorded agent made."""
        return sum(1 for _ in self.run.calls)

    @property
    def saved(self) -> int:
        """Calls that the recorded agent made and that no tool was asked for."""
        return self.recorded - self.executed

    @property
    def saved_usd(self) -> float | None:
        """Dollars of the model turns that were not taken; None where the record has no cost."""
        costs = [turn.cost_usd for turn in self.run.turns[self.steps :]]
        return None if self.run.cost_usd is None and not any(costs) else sum(cost or 0.0 for cost in costs)

    @property
    def saved_s(self) -> float | None:
        """Seconds from the last turn that was taken to the end; None where the record has no times."""
        if not self.stopped or self.steps >= self.run.steps:
            return 0.0 if self.run.seconds is not None else None
        if self.run.seconds is None:
            return None
        at_s = self.run.turns[self.steps].at_s
        # Without times of its turns, a run is taken to have gone evenly.
        return max(
            0.0, self.run.seconds * (1 - self.steps / self.run.steps) if at_s is None else self.run.seconds - at_s
        )

    @property
    def stopped(self) -> bool:
        """Whether the run was ended before the recorded agent's end."""
        return self.reason is not StopReason.SUCCESS


def bursts_of(run: RecordedRun, is_passing: Callable[[RecordedCall], bool]) -> dict[tuple[str, str], list[int | None]]:
    """Return, for each call (tool, arguments hash), which burst of passing failures each of its answers is part of.

    A burst behind which the record has no further answer to that call is none: nobody knows how it went on.
    """
    found: dict[tuple[str, str], list[int | None]] = {}
    number = -1
    for call in run.calls:
        places = found.setdefault((call.tool, call.args_hash), [])
        if not is_passing(call):
            places.append(None)
            continue
        before = places[-1] if places else None
        if before is None:
            number += 1
        places.append(number if before is None else before)
    return {key: _without_open_end(places) for key, places in found.items()}


def _without_open_end(places: list[int | None]) -> list[int | None]:
    last = places[-1]
    return [None if place == last else place for place in places]


def declared(run: RecordedRun, effects: SetEffects, *, infer: bool) -> tuple[dict[str, ToolEffect], tuple[str, ...]]:
    """Return what each tool of a run is registered with, and those of which the effects say nothing.

    Of those, the record says it: a read, if every call of it is on record as one. Where the record has no opinion
    either, what the calls brought back tells it (`infer`), or unknown means write. Names that no tool can have are
    left out: models invent them, and they are refused.
    """
    found: dict[str, ToolEffect] = {}
    silent: dict[str, bool] = {}
    for call in run.calls:
        name = call.tool
        if name in found or name in silent or not valid_tool_name(name):
            continue
        if effects.states(name):
            found[name] = effects.of(name)
        else:
            silent[name] = False
    if silent:
        writes = writes_of(run) if infer else [call.write is not False for call in run.calls]
        for call, write in zip(run.calls, writes, strict=True):
            if call.tool in silent:
                silent[call.tool] |= write
        found |= {name: effects.of(name) if write else ToolEffect(Effect.READ) for name, write in silent.items()}
    return found, tuple(silent)
