"""Recorded runs judged by the live decisions, without the machinery around them: thousands of calls in a moment.

Each decision of the funnel is a pure machine (loop detector, policy, meter, breaker, retry, refusals); here they
are fed with what was recorded, in the order of the funnel. `funnel.drive` takes the whole live funnel instead; a
test holds the two equal. Left out is what one run alone does not decide: limits of a rate, people who approve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from interlock.budget.loops import LoopDetector
from interlock.budget.meter import Meter, Refused
from interlock.config.declarations import Declarations
from interlock.config.options import as_options, budgets_for, max_calls_of, policy_options, retries_for
from interlock.config.sections import Settings
from interlock.core.calls import Answer, OnUnknown, Repeat, ToolSpec
from interlock.core.errors import CircuitOpen, InterlockError, LoopDetected, OutcomeUnknown, ToolDenied
from interlock.core.reasons import StopReason
from interlock.forensics.driven import ASSUMED_TURN_S, DrivenRun, bursts_of, declared
from interlock.forensics.effects import SetEffects, ToolEffect
from interlock.forensics.hearsay import Hearsay, nobodys, spec_of
from interlock.forensics.looping import key_of_call
from interlock.forensics.tape import RecordedFailure
from interlock.forensics.traces import RecordedCall, RecordedRun
from interlock.policy.allowlist import Policy
from interlock.policy.globs import GlobSet
from interlock.resilience.admission import BreakerOptions
from interlock.resilience.breaker import Breaker
from interlock.resilience.classify import Failure, as_error, classify
from interlock.resilience.retry import Wait, decide
from interlock.supervisor.stopping import Refusals, StopOptions, stops

__all__ = ["Judge"]

_ANSWERED = Answer(None, None)
_MIDDLING = 0.5  # chance in a backtest is no chance: every wait is half its ceiling


class Judge:
    """Judges runs by one configuration.

    Args:
        settings: The configuration. effects: what the tools of the set do.
        recorded_time: Let recorded seconds count against `max_seconds`.
        infer: Judge tools of which nobody says anything by what they brought back; else they are writes.

    Raises:
        ConfigError: The configuration cannot be used.
    """

    def __init__(
        self, settings: Settings, effects: SetEffects, *, recorded_time: bool = True, infer: bool = True
    ) -> None:
        self._infer = infer
        self.effects = effects
        self.recorded_time = recorded_time
        self.budgets = budgets_for(settings)("")
        self.loops = settings.agent.loop_detection
        self.exempt = GlobSet((*self.loops.exempt, *effects.exempt), key="agent.loop_detection.exempt")
        self.policy = Policy(policy_options(settings)).view("")
        self.max_calls = max_calls_of(settings.tools.budgets)
        self.retries = retries_for(settings)
        breaker = as_options(BreakerOptions, settings.tools.circuit_breakers)
        self.breaker: BreakerOptions | None = breaker if breaker.enabled else None
        self.stopping: StopOptions = as_options(StopOptions, settings.agent)
        self._declarations = Declarations(settings)
        self.tainting = self._declarations.tainting
        self._tools: dict[tuple[str, ToolEffect], Tool] = {}
        self._failures: dict[int | str, Failure] = {}

    def judge(self, run: RecordedRun) -> DrivenRun:
        """Return what would have become of a run."""
        effects, undeclared = declared(run, self.effects, infer=self._infer)
        tools = {name: self._tool(name, effect) for name, effect in effects.items()}
        for call in run.calls:
            if call.tool not in tools:
                tools[call.tool] = Tool(self, self._declarations.settled(nobodys(call.tool)))
        replay = _Replay(self, run, tools)
        replay.driven.undeclared = undeclared
        return replay.go()

    def _tool(self, name: str, effect: ToolEffect) -> Tool:
        found = self._tools.get((name, effect))
        if found is None:
            found = self._tools[(name, effect)] = Tool(self, self._declarations.settled(spec_of(name, effect)))
        return found

    def passes(self, call: RecordedCall) -> bool:
        """Whether a recorded call met a failure that passes by itself."""
        failure = self.failure_of(call)
        return failure is not None and failure.transient

    def failure_of(self, call: RecordedCall) -> Failure | None:
        """Return how a recorded call fails; None for an answer."""
        if call.error is None:
            return None
        comes_back_as = self.effects.errors[call.error]
        if comes_back_as == "output":
            return None
        failure = self._failures.get(comes_back_as)
        if failure is None:
            error = TimeoutError() if comes_back_as == "timeout" else RecordedFailure(int(comes_back_as), "")
            failure = self._failures[comes_back_as] = classify(error)
        return failure


def _is_trouble(failure: Failure) -> bool:
    """Whether the failure says that the tool is in trouble, not that it refused or is busy."""
    if failure.reason is StopReason.TOOL_RATE_LIMIT:
        return False
    return failure.transient or (failure.status is not None and failure.status >= 500)


class Tool:
    """A tool as one configuration sees it."""

    __slots__ = ("allowed", "cap", "closes_by", "collapses", "denied", "exempt", "retry", "spec", "taint", "write")

    def __init__(self, judge: Judge, spec: ToolSpec) -> None:
        decision = judge.policy.decide(spec)
        self.spec = spec
        self.write = spec.may_write
        self.allowed = spec.repeat is Repeat.ALLOW
        self.collapses = self.write and spec.known and spec.repeat is Repeat.COLLAPSE
        self.denied = None if decision.allowed else ToolDenied(f"{spec.name}: {decision.policy} ({decision.source})")
        self.cap = judge.max_calls(spec.name)
        self.exempt = judge.exempt.match(spec.name) is not None
        self.retry = judge.retries(spec)
        self.taint = judge.tainting.rule_of(spec)
        self.closes_by = OnUnknown.RESEND if spec.natural else spec.on_unknown


class _Replay:
    """One run on its way."""

    def __init__(self, judge: Judge, run: RecordedRun, tools: Mapping[str, Tool]) -> None:
        self.driven = DrivenRun(run)
        self._judge = judge
        self._run = run
        self._tools = tools
        self._meter = Meter(judge.budgets)
        self._loops = LoopDetector(judge.loops)
        self._hearsay = Hearsay(judge.tainting, run)
        self._refusals = Refusals(judge.stopping.max_refusals)
        # Only seconds that were recorded may use up a time budget; the pace that is assumed otherwise is for breakers.
        self._cap_s = judge.budgets.max_seconds if judge.recorded_time and run.seconds is not None else None
        self._timed = judge.recorded_time and any(turn.at_s is not None for turn in run.turns)
        self._pace_s = run.seconds / run.steps if judge.recorded_time and run.seconds and run.steps else ASSUMED_TURN_S
        self._now_s = 0.0
        self._done: set[tuple[str, str]] = set()
        self._performed: dict[tuple[str, str], int] = {}
        self._recorded: dict[tuple[str, str], list[RecordedCall]] = {}
        self._own: dict[tuple[str, str], int] = {}
        self._given: dict[tuple[str, str], int] = {}
        self._retries: dict[str, int] = {}
        self._seen: set[tuple[str, str, int]] = set()
        self._breakers: dict[str, Breaker] = {}
        for call in run.calls:
            self._recorded.setdefault((call.tool, call.args_hash), []).append(call)

    def go(self) -> DrivenRun:
        driven, run = self.driven, self._run
        for number, turn in enumerate(run.turns, start=1):
            if not self._turn(turn.at_s, turn.cost_usd or 0.0, last=number == run.steps):
                break
            for call in turn.calls:
                driven.proposed += 1
                if self._is_stopped():
                    driven.refused += 1  # decided by an earlier call of the same turn; the agent goes no further
                    break
                self._call(call)
                if self._is_stopped():
                    driven.stopped_at = driven.proposed
            if self._is_stopped():
                break
        self._sum_up()
        return driven

    def _is_stopped(self) -> bool:
        return self.driven.stopped

    def _turn(self, at_s: float | None, usd: float, *, last: bool) -> bool:
        """Take a model turn; return False where the run was stopped before or in it."""
        stop = self._refusals.turn_over()
        if stop is not None:
            self._stop(stop.reason, stop.message)
            return False
        held = self._meter.admit_turn(None, None)
        if isinstance(held, Refused):
            self._stop(held.reason, str(held.error("a model turn")))
            return False
        then = (self._run.seconds if at_s is None and last else at_s) if self._timed else self._now_s + self._pace_s
        self._now_s = max(self._now_s, then or 0.0)
        self._meter.settle_turn(held, usd, 0)
        if self._cap_s is not None and self._now_s >= self._cap_s:
            self._stop(StopReason.TIME_BUDGET, f"agent.budgets.max_seconds = {self._cap_s:g} is used up")
            return False
        self.driven.steps += 1
        return True

    def _stop(self, reason: StopReason, message: str) -> None:
        if not self.driven.stopped:
            self.driven.reason, self.driven.message = reason, message

    def _refuse(self, error: InterlockError, *, is_refusal: bool = True) -> None:
        """Take note that a call ended with an error; it may end the run."""
        if stops(error, self._judge.stopping.stop_on):
            self._stop(error.reason, str(error))
        if is_refusal:
            self.driven.refused += 1
            self._refusals.note(error, turns=True)
        else:
            self._refusals.note(None, turns=True)

    def _call(self, call: RecordedCall) -> None:
        name = (call.tool, call.args_hash)
        self._own[name] = self._own.get(name, -1) + 1
        tool = self._tools[call.tool]
        key, batch = key_of_call(*name), self._meter.steps
        if not tool.exempt:
            verdict = self._loops.propose(key, batch, write=tool.write, allowed=tool.allowed)
            if isinstance(verdict, StopReason):
                self._refuse(LoopDetected(verdict, f"{call.tool}: {verdict}"))
                return
            if verdict is not None:
                self._answer_again(call, tool, verdict.answer)
                return
        self._past_the_loops(call, tool, key, batch)

    def _answer_again(self, call: RecordedCall, tool: Tool, answer: Answer | None) -> None:
        self._meter.count_answered()
        if answer is None:
            self._refuse(LoopDetected(StopReason.LOOP_DETECTED, f"{call.tool}: repeated", run_wide=False))
            return
        self.driven.answered += 1
        if not tool.write:
            own = self._recorded[(call.tool, call.args_hash)][self._own[(call.tool, call.args_hash)]]
            self.driven.stale += own.output_hash != self._last_output.get((call.tool, call.args_hash))
        self._refusals.note(None, turns=True)

    @property
    def _last_output(self) -> Mapping[tuple[str, str], str | None]:
        return {key: self._recorded[key][place].output_hash for key, place in self._given.items()}

    def _past_the_loops(self, call: RecordedCall, tool: Tool, key: int, batch: int) -> None:
        driven, name = self.driven, (call.tool, call.args_hash)
        if tool.denied is not None:
            driven.denied.append(driven.proposed)
            self._settle_refusal(tool, key, batch, tool.denied)
            return
        knew = self._meter.knows(key)
        refused = self._meter.admit_call(call.tool, key, tool.cap)
        if refused is not None:
            self._settle_refusal(tool, key, batch, refused.error(call.tool))
            return
        if tool.collapses and name in self._done:
            self._meter.not_executed(call.tool, key, first=not knew)
            driven.answered += 1
            first = self._recorded[name][self._given[name]]
            self._settle(tool, key, batch, hash(first.output_hash or first.output), answer=_ANSWERED)
            self._refusals.note(None, turns=True)
            self._hearsay.hear(first, driven.proposed)
            return
        if self._is_withheld(call, tool, key, batch):
            return
        self._execute(call, tool, key, batch)

    def _is_withheld(self, call: RecordedCall, tool: Tool, key: int, batch: int) -> bool:
        """Judge a call by what the run has read; a person who is asked does not answer, and the run parks."""
        refusal = self._hearsay.refusal(tool.taint, call, self.driven.proposed)
        if refusal is None:
            return False
        self.driven.withheld.append(self.driven.proposed)
        self._settle_refusal(tool, key, batch, refusal)
        return True

    def _settle_refusal(self, tool: Tool, key: int, batch: int, error: InterlockError) -> None:
        if not error.transient:
            self._settle(tool, key, batch, hash(error.reason), answer=None)
        self._refuse(error)

    def _settle(
        self, tool: Tool, key: int, batch: int, output: int, *, answer: Answer | None, counts: bool = True
    ) -> None:
        if not tool.exempt:
            self._loops.settle(key, output, batch, batch, answer, counts=counts)

    def _execute(self, call: RecordedCall, tool: Tool, key: int, batch: int) -> None:
        driven, name = self.driven, (call.tool, call.args_hash)
        breaker = self._breaker(tool)
        if breaker is not None and not breaker.allow(self._now_s):
            self._refuse(CircuitOpen(f"{call.tool}: not called after repeated failures (tools.circuit_breakers)"))
            return
        driven.executed += 1
        unknown, attempt = False, 0
        given, failure = self._attempt(name, breaker)
        while failure is not None:
            attempt += 1
            unknown |= failure.performed == "unknown"
            if not self._again(tool, attempt, failure) or not (breaker is None or breaker.allow(self._now_s)):
                self._fail(call, tool, key, batch, failure, unknown=unknown)
                return
            given, failure = self._attempt(name, breaker)
        self._performed[name] = self._performed.get(name, 0) + 1
        if tool.write:
            self._done.add(name)
            if not tool.exempt:
                self._loops.settle_write(key, batch, allowed=tool.allowed)
        self._settle(tool, key, batch, hash(given.output_hash or given.output), answer=_ANSWERED)
        self._refusals.note(None, turns=True)
        self._hearsay.hear(given, driven.proposed)

    def _breaker(self, tool: Tool) -> Breaker | None:
        options = self._judge.breaker
        if options is None:
            return None
        name = tool.spec.name
        found = self._breakers.get(name)
        if found is None:
            found = self._breakers[name] = Breaker(options.failure_threshold, options.window_seconds)
        return found

    def _attempt(self, name: tuple[str, str], breaker: Breaker | None) -> tuple[RecordedCall, Failure | None]:
        """Return the recorded answer that this attempt gets: never one older than its own place in the record."""
        self.driven.attempts += 1
        recorded = self._recorded[name]
        place = self._own[name]
        given = self._given.get(name)
        if given is not None:
            passing = self._judge.failure_of(recorded[given])
            place = max(place, given + (passing is not None and passing.transient))
        place = self._given[name] = min(place, len(recorded) - 1)
        failure = self._judge.failure_of(recorded[place])
        if breaker is not None:
            if failure is None or not _is_trouble(failure):
                breaker.success(self._now_s)
            else:
                breaker.failure(self._now_s)
        return recorded[place], failure

    def _again(self, tool: Tool, attempt: int, failure: Failure) -> bool:
        name = tool.spec.name
        decision = decide(
            tool.retry,
            attempt,
            failure,
            write=tool.write,
            closes_by=tool.closes_by,
            now_s=self._now_s,
            deadline_s=float("inf"),
            retries_used=self._retries.get(name, 0),
            draw=_MIDDLING,
        )
        if isinstance(decision, Wait):
            self._retries[name] = self._retries.get(name, 0) + 1
            return True
        return False

    def _fail(self, call: RecordedCall, tool: Tool, key: int, batch: int, failure: Failure, *, unknown: bool) -> None:
        if failure.transient:
            self.driven.transient_seen += 1
            name = (call.tool, call.args_hash)
            self._seen.add((*name, self._given[name]))
        in_doubt = tool.write and unknown
        error: InterlockError
        if in_doubt:
            told = tool.spec.on_unknown is OnUnknown.TELL
            error = OutcomeUnknown(f"{call.tool}: it may or may not have happened ({call.error})", run_wide=not told)
        else:
            said = replace(failure, performed="unknown") if unknown else failure  # one unknown attempt is enough
            error = as_error(said, call.tool, RecordedFailure(0, str(call.error)), 1, write=tool.write)
        if not error.transient:
            counts = not (tool.write and not unknown)
            self._settle(tool, key, batch, hash((error.reason, error.for_model)), answer=None, counts=counts)
        self._refuse(error, is_refusal=False)

    def _sum_up(self) -> None:
        driven, run = self.driven, self._run
        recorded: dict[tuple[str, str], int] = {}
        for call in run.calls:
            failure = self._judge.failure_of(call)
            if failure is None:
                name = (call.tool, call.args_hash)
                recorded[name] = recorded.get(name, 0) + 1
            elif failure.transient:
                driven.transient_recorded += 1
        if driven.transient_recorded:
            bursts = bursts_of(run, self._judge.passes)
            driven.bursts_recorded = len({b for places in bursts.values() for b in places if b is not None})
            driven.bursts_seen = len({bursts[(tool, digest)][place] for tool, digest, place in self._seen} - {None})
        driven.duplicates_recorded = self._duplicates(recorded)
        driven.duplicates_executed = self._duplicates(self._performed)

    def _duplicates(self, performed: Mapping[tuple[str, str], int]) -> int:
        return sum(n - 1 for (name, _), n in performed.items() if n > 1 and self._tools[name].collapses)
