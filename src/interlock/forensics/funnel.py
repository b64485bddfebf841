"""Drives the live funnel with a recorded agent: recorded turns decide, recorded outputs answer.

Nothing touches a disk and nothing sleeps: the store is in memory and time is virtual, moved on to where the
record says the agent was. What the recorded model would have done *after* an answer it never got is unknown:
its recorded turns go on as they were, so what is saved is an upper bound.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from interlock.config.declarations import Declarations
from interlock.config.gate import Interlock
from interlock.config.sections import Settings
from interlock.core.calls import Effect, OnUnknown, Repeat, ToolSpec
from interlock.core.clock import LoopClock, run_virtual
from interlock.core.errors import ApprovalPending, RunStopped, ToolDenied
from interlock.core.results import RunResult
from interlock.forensics.driven import ASSUMED_TURN_S, DrivenRun, bursts_of, declared
from interlock.forensics.effects import SetEffects
from interlock.forensics.tape import Tape, arguments_of
from interlock.forensics.traces import RecordedCall, RecordedRun, RecordedTurn
from interlock.supervisor.observation import Observation
from interlock.supervisor.run import Run

__all__ = ["drive"]


def drive(run: RecordedRun, settings: Settings, effects: SetEffects, *, recorded_time: bool = True) -> DrivenRun:
    """Drive one run through a funnel of its own (no breaker or limiter is shared) and say what became of it.

    Args:
        run: The recorded run.
        settings: Configuration of the funnel; its store and its sinks are left out, and it is enforced.
        effects: What the tools of the run's data set do.
        recorded_time: Move time on as recorded (a whole run's seconds evenly, where its turns have none), so that
            `max_seconds` means something; else, and where nothing is known, each turn takes `ASSUMED_TURN_S`.

    Raises:
        ConfigError: The configuration does not permit these tools to be registered.
    """
    driver = _Driver(run, effects, recorded_time=recorded_time)
    # Store and tools answer on the loop itself: there is no thread to wait for.
    return run_virtual(driver.drive(_silent(settings, effects)), patience_s=0.0)


class _Driver:
    """One recorded run on its way through the funnel."""

    def __init__(self, run: RecordedRun, effects: SetEffects, *, recorded_time: bool) -> None:
        self._run = run
        self._effects = effects
        self._timed = recorded_time and any(turn.at_s is not None for turn in run.turns)
        self._pace_s = run.seconds / run.steps if recorded_time and run.seconds and run.steps else ASSUMED_TURN_S
        self._tape = Tape(run, effects)
        self._clock = LoopClock()
        self._began_s = 0.0
        self._driven = DrivenRun(run)
        self._specs: dict[str, ToolSpec] = {}
        self._seen: set[tuple[str, str, int]] = set()

    async def drive(self, settings: Settings) -> DrivenRun:
        self._began_s = self._clock.monotonic()
        gate = Interlock(settings, store="sqlite:///:memory:", clock=self._clock)
        try:
            self._register(gate, Declarations(settings))
            # What the model was told is the task: values in it are the user's own.
            told = [self._run.task, *self._run.said]
            block = gate.open_run(told, agent_name=self._run.dataset or "recorded")
            async with block as run:
                await self._through(run)
            result = run.result
        finally:
            await gate.aclose()
        assert result is not None
        return self._judged(result)

    def _register(self, gate: Interlock, declarations: Declarations) -> None:
        tools, self._driven.undeclared = declared(self._run, self._effects, infer=False)
        for name, effect in tools.items():
            # The record does not show a tool's key and lookup; where the configuration counts on one, it is there.
            closing = declarations.closing(name)
            gate.tool(
                name,
                effect=effect.effect.value,
                on_unknown=effect.on_unknown.value,
                lookup=_nobody_knows if closing is OnUnknown.LOOKUP else None,
                natural=effect.natural or closing is OnUnknown.RESEND,
                repeat=effect.repeat.value,
                allow=True,
            )(self._recorded_tool(name))
        # As the configuration sees them: it may know better.
        self._specs = {spec.name: spec for spec in gate.tools}

    def _recorded_tool(self, name: str) -> Callable[..., Any]:
        tape = self._tape

        async def recorded(**args: Any) -> str:
            return tape.answer(name, args)

        return recorded

    async def _through(self, run: Run) -> None:
        """Take the recorded turns, until the record ends or the run is stopped (then `RunStopped` leaves)."""
        for number, turn in enumerate(self._run.turns, start=1):
            async with run.step() as step:
                await self._clock.sleep(self._until(turn, last=number == self._run.steps))
                if turn.cost_usd is not None:
                    step.charge({"cost_usd": turn.cost_usd})
            self._driven.steps += 1
            for call in turn.calls:
                await self._call(run, call)

    def _until(self, turn: RecordedTurn, *, last: bool) -> float:
        """Return the seconds from now to where this turn ended."""
        if not self._timed:
            return self._pace_s
        at_s = self._run.seconds if turn.at_s is None and last else turn.at_s
        return 0.0 if at_s is None else self._began_s + at_s - self._clock.monotonic()

    async def _call(self, run: Run, call: RecordedCall) -> None:
        driven, tape = self._driven, self._tape
        driven.proposed += 1
        tape.proposed(call)
        before = tape.attempts
        try:
            seen: Observation = await run.observe(call.tool, arguments_of(call))
        except RunStopped:  # decided by an earlier call of the same turn
            driven.refused += 1
            raise
        if tape.attempts > before:
            driven.executed += 1
            if not seen.ok and tape.is_transient(tape.last):
                driven.transient_seen += 1
                self._seen.add(tape.last_place)
        elif seen.ok:
            driven.answered += 1
            driven.stale += self._specs[call.tool].effect is Effect.READ and seen.value != tape.would_say(call)
        else:
            driven.refused += 1
            _note_policy(driven, seen)
        if driven.stopped_at is None and run.scope.stop is not None:
            driven.stopped_at = driven.proposed

    def _judged(self, result: RunResult) -> DrivenRun:
        driven, tape = self._driven, self._tape
        driven.reason = result.reason
        driven.message = str(result.details.get("message", ""))
        driven.attempts = tape.attempts
        driven.strayed = tape.strayed
        driven.transient_recorded = sum(tape.is_transient(call) for call in self._run.calls)
        bursts = bursts_of(self._run, tape.is_transient)
        driven.bursts_recorded = len({b for places in bursts.values() for b in places if b is not None})
        driven.bursts_seen = len({bursts[(tool, digest)][place] for tool, digest, place in self._seen} - {None})
        performed = Counter((c.tool, c.args_hash) for c in self._run.calls if tape.comes_back_as(c) is None)
        driven.duplicates_recorded = self._duplicates(performed)
        driven.duplicates_executed = self._duplicates(tape.performed)
        return driven

    def _duplicates(self, performed: Mapping[tuple[str, str], int]) -> int:
        """Return how many writes were performed beyond the first of their kind, where that is no other effect."""
        return sum(
            times - 1
            for (tool, _), times in performed.items()
            if times > 1 and (spec := self._specs.get(tool)) and spec.may_write and spec.repeat is Repeat.COLLAPSE
        )


def _note_policy(driven: DrivenRun, seen: Observation) -> None:
    """Take in that the policy kept a call back: the lists, or a rule about tainted runs (nothing else asks here)."""
    error = seen.error
    if isinstance(error, ApprovalPending) or (
        isinstance(error, ToolDenied) and error.details.get("policy") == "when_tainted"
    ):
        driven.withheld.append(driven.proposed)
    elif isinstance(error, ToolDenied):
        driven.denied.append(driven.proposed)


def _nobody_knows(**_args: Any) -> Any:
    raise LookupError("the record does not say what a look-up would have found")


def _silent(settings: Settings, effects: SetEffects) -> Settings:
    """Return the settings enforced, without lines and records; what the data set exempts may poll."""
    loops = settings.agent.loop_detection
    return replace(
        settings,
        agent=replace(settings.agent, loop_detection=replace(loops, exempt=(*loops.exempt, *effects.exempt))),
        logging=replace(settings.logging, level="error", to=os.devnull),
        record=replace(settings.record, path=None),
        mode="enforce",
        replay="plaintext",
    )
