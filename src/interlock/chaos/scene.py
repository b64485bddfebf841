"""One trial of one task: its faults at their places, and everything that is counted while it runs.

What is placed into the funnel has the shape of a guard, `(tool, proceed) -> proceed`, and stands at a named point;
a gate that is not on trial has none of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

from interlock.chaos.arming import Armed, place
from interlock.chaos.doom import Doom
from interlock.chaos.faults import (
    ACTS,
    MEMORY_KINDS,
    MODEL_KINDS,
    STORE_KINDS,
    TOOL_KINDS,
    WORKER_KINDS,
    Fault,
    HttpFault,
    Kind,
)
from interlock.chaos.hearing import Hearing, overheard
from interlock.chaos.proxy import Injected
from interlock.chaos.replies import falsified
from interlock.chaos.trial_clock import RealTrialClock, TrialClock
from interlock.chaos.trial_memory import TrialMemory
from interlock.chaos.trial_store import TrialStore
from interlock.chaos.witness import watched
from interlock.config.opening import Store
from interlock.config.trial import Trial
from interlock.core.calls import Answer, Call, Proceed, RunFacts, ToolSpec
from interlock.core.canonical import NotCanonical, canonical_json
from interlock.gateway.pipeline import Funnel
from interlock.policy.switches import SwitchKind, SwitchScope

__all__ = ["GUARDS", "Injection", "RealTrialClock", "Request", "Scene", "TrialClock"]

GUARDS = (
    "recorder",
    "switches",
    "loops",
    "allowlist",
    "meter",
    "inputs",
    "taint",
    "state",
    "recall",
    "approval",
    "admission",
    "claim",
    "retry",
    "timeout",
    "outputs",
)
"""The guards of the funnel, outermost first; each can be switched off for a trial."""


class Injection(NamedTuple):
    """One injected fault: what, where (tool, `model`, or change of the store), and which call, attempt and second."""

    fault: str
    where: str
    run_id: str
    seq: int
    attempt: int
    at_s: float


class Request(NamedTuple):
    """One attempt that reached the tool, or the fault that stands there for it.

    Attributes:
        executed: The tool's own function was entered. output: digest of what it gave; None where it raised.
        key: The effect's idempotency key, if it is a write. meant: what stands for the effect: its key, else the
            arguments. writes: it is a write. apart: the remote can tell it, when it comes again, from a new one.
        at_s, done_s: When it began and ended, in seconds since the first thing happened.
    """

    tool: str
    run_id: str
    seq: int
    attempt: int
    at_s: float
    executed: bool
    output: bytes | None
    key: str | None
    meant: str = ""
    done_s: float = 0.0
    writes: bool = False
    apart: bool = False


def _switched_off(_tool: ToolSpec, proceed: Proceed[Any]) -> Proceed[Any]:
    return proceed


class Scene:
    """What one trial sees.

    Args:
        faults: To inject. seed: of chance. off: guards (see `GUARDS`) that are switched off.
        worker: Number, from 0, of the process that this scene is in, where a task has several; else None.
        tell: Told of everything that is counted, at once: the name of the list, and the item.
        hearing: Takes in what an account of the trial needs besides; keys are then those of the seed alone.

    Attributes:
        injections: Faults so far. requests: attempts so far. proposed: tools of all proposed calls, in order.
        calls: The same calls, by run and number.
        prompts: What the model was asked, as text. acted: guards that acted, in order.
        began_s: When the first thing happened, on the monotonic clock.
    """

    def __init__(
        self,
        faults: Sequence[Fault],
        *,
        seed: int,
        clock: TrialClock,
        off: Sequence[str] = (),
        worker: int | None = None,
        tell: Callable[[str, Any], None] | None = None,
        hearing: Hearing | None = None,
    ) -> None:
        self.clock = clock
        self.seed = seed
        self.off = tuple(off)
        self._tell = tell
        self._hearing = hearing
        self.injections: list[Injection] = []
        self.requests: list[Request] = []
        self.proposed: list[str] = []
        self.calls: list[tuple[str, int]] = []
        self.prompts: list[str] = []
        self.acted: list[str] = []
        self.began_s: float | None = None
        armed = [Armed(fault, number, seed) for number, fault in enumerate(faults)]
        self._of_tools = [each for each in armed if each.fault.kind in TOOL_KINDS]
        self._of_model = [each for each in armed if each.fault.kind in MODEL_KINDS]
        self._of_memory = [each for each in armed if each.fault.kind in MEMORY_KINDS]
        self._of_store = [each for each in armed if each.fault.kind in STORE_KINDS]
        doomed = [a for a in armed if a.fault.kind in WORKER_KINDS and worker is not None and worker < a.fault.times]
        self._doom = Doom(doomed, self._struck_down, self._elapsed_s, self._flushed) if doomed else None
        self._changes = 0
        self._recalls = 0
        self._turns = 0
        self._last_reply: Any = None
        self.store: Store | None = None

    def trial(self) -> Trial:
        """Return what is put into the gate."""
        return Trial(funnel=self._funnel, store=self._open, asks=self._asks)

    def note(self, where: str, item: Any) -> None:
        """Take in one more item of the list of this name."""
        getattr(self, where).append(item)
        if self._tell is not None:
            self._tell(where, item)

    def note_request_fault(self, fault: Fault, where: str) -> None:
        """Take in that a fault of the request itself was injected."""
        self.note("injections", Injection(fault.label, where, "", 0, 0, self._elapsed_s()))

    def note_wire_fault(self, server: str, injected: Injected) -> None:
        """Take in that a fault was injected before a server; which run it met, a proxy does not know."""
        self.note("injections", Injection(injected.fault, server, "", 0, 0, self._elapsed_s()))

    def of_run(self, run_id: str) -> list[dict[str, Any]]:
        """Return the faults that this run has met, for its record."""
        return [injection._asdict() for injection in self.injections if injection.run_id in {run_id, ""}]

    def _elapsed_s(self) -> float:
        now_s = self.clock.monotonic()
        if self.began_s is None:
            self.began_s = now_s
        return now_s - self.began_s

    # -- the funnel

    def _funnel(self, funnel: Funnel) -> Funnel:
        off: dict[str, Any] = dict.fromkeys(self.off, _switched_off)
        funnel = replace(funnel, **off)
        if self._doom is not None:
            funnel = self._doom.placed(funnel)
        funnel = watched(funnel, GUARDS, lambda name: self.note("acted", name))
        funnel = place(funnel, "perform", self._faulty)
        return place(funnel, "recorder", self._seen)

    def _seen(self, tool: ToolSpec, proceed: Proceed[Any]) -> Proceed[Any]:
        async def seen(call: Call[Any]) -> Answer:
            self.note("proposed", tool.name)
            self.note("calls", (call.run.run_id, call.seq))
            if self._hearing is None:
                return await proceed(call)
            return await overheard(call, proceed, self._hearing, self._elapsed_s)

        return seen

    def _faulty(self, tool: ToolSpec, proceed: Proceed[Any]) -> Proceed[Any]:
        mine = [armed for armed in self._of_tools if armed.globs.match(tool.name)]

        async def faulty(call: Call[Any]) -> Answer:
            elapsed_s = self._elapsed_s()
            executed = False

            async def entered(entering: Call[Any]) -> Answer:
                nonlocal executed
                executed = True
                return await proceed(entering)

            output: bytes | None = None
            try:
                answer = await self._struck(mine, call, entered, elapsed_s)
                output = _digest(answer.value)
                return answer
            finally:
                self.note("requests", self._request(call, elapsed_s, executed, output))

        return faulty

    async def _flushed(self) -> None:
        if self.store is not None:
            await self.store.flush()

    def _request(self, call: Call[Any], at_s: float, executed: bool, output: bytes | None) -> Request:
        meant = call.key.hex() if call.key is not None else call.digest.hex()
        return Request(
            tool=call.tool.name,
            run_id=call.run.run_id,
            seq=call.seq,
            attempt=call.attempts,
            at_s=at_s,
            executed=executed,
            output=output,
            key=call.sent_key or (None if call.key is None else meant),
            meant=meant,
            done_s=self._elapsed_s(),
            writes=call.writes,
            apart=call.key is not None and (call.tool.takes_key or call.tool.natural),
        )

    def _struck_down(self, fault: Fault, call: Call[Any], executed: bool) -> None:
        at_s = self._elapsed_s()
        injection = Injection(fault.label, call.tool.name, call.run.run_id, call.seq, max(1, call.attempts), at_s)
        self.note("injections", injection)
        if executed and fault.kind is Kind.WORKER_KILLED:
            self.note("requests", self._request(call, at_s, executed, None))

    async def _struck(self, mine: Sequence[Armed], call: Call[Any], proceed: Proceed[Any], elapsed_s: float) -> Answer:
        attempt = max(1, call.attempts)
        for armed in mine:
            fault = armed.fault
            if fault.when is not None and not fault.when(call):
                continue
            if not armed.strikes((call.run.run_id, call.seq), attempt, elapsed_s):
                continue
            self.note(
                "injections", Injection(fault.label, call.tool.name, call.run.run_id, call.seq, attempt, elapsed_s)
            )
            if fault.kind is Kind.CLOCK_JUMP:
                self.clock.jump_wall(3_600.0 if fault.delay_s is None else fault.delay_s)
            elif fault.kind is Kind.KILL_SWITCH and self.store is not None:
                await self.store.switches.set(
                    SwitchScope.GLOBAL, "", SwitchKind.KILL, reason="a trial", actor="interlock chaos"
                )
            else:
                return await ACTS[fault.kind](fault, call, proceed, self.clock)
        return await proceed(call)

    # -- the store

    def _open(self, opens: Callable[[], Store]) -> Store:
        if self.store is None:
            self.store = opens()
        memory = TrialMemory(
            self.store.memory, self._before_recall, self.clock.token, lambda: self.note("acted", "state")
        )
        secret = self.store.secret if self._hearing is None else self._hearing.secret(self.seed)
        # A store in every way, by delegation.
        return cast("Store", TrialStore(self.store, self._before_change, self._marked, memory, secret))

    async def _before_recall(self, verb: str) -> list[Fault]:
        elapsed_s = self._elapsed_s()
        self._recalls += 1
        call = ("", self._recalls)
        struck = [a.fault for a in self._of_memory if a.globs.match(verb) and a.strikes(call, 1, elapsed_s)]
        for fault in struck:
            self.note("injections", Injection(fault.label, verb, "", 0, 1, elapsed_s))
        return struck

    async def _before_change(self, name: str) -> bool:
        """Called before each change of the store; raises, or returns whether its answer is lost."""
        elapsed_s = self._elapsed_s()
        self._changes += 1
        lost = False
        for armed in self._of_store:
            fault = armed.fault
            if not armed.globs.match(name) or not armed.strikes(("", self._changes), 1, elapsed_s):
                continue
            self.note("injections", Injection(fault.label, name, "", 0, 1, elapsed_s))
            if fault.kind is Kind.STORE_UNAVAILABLE:
                raise TrialStore.away("the store did not get it")
            if fault.kind is Kind.STORE_SLOW:
                await self.clock.sleep(1.0 if fault.delay_s is None else fault.delay_s)
            lost = lost or fault.kind is Kind.STORE_ANSWER_LOST
        return lost

    def _marked(self, run_id: str, record: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**record, "injected": self.of_run(run_id)}

    # -- the model

    def _asks(self, run: RunFacts, fn: Callable[..., Any]) -> Callable[..., Any]:
        async def asked(*args: Any, **words: Any) -> Any:
            self.note("prompts", repr((args, words)))
            elapsed_s = self._elapsed_s()
            self._turns += 1
            struck = [a.fault for a in self._of_model if a.strikes(("", self._turns), 1, elapsed_s)]
            for fault in struck:
                self.note("injections", Injection(fault.label, "model", run.run_id, run.turn, 1, elapsed_s))
                if fault.kind is Kind.MODEL_SLOW:
                    await self.clock.sleep(30.0 if fault.delay_s is None else fault.delay_s)
                elif fault.kind is Kind.MODEL_RATE_LIMITED:
                    after_s = fault.retry_after_s
                    raise HttpFault(429, {} if after_s is None else {"Retry-After": f"{after_s:g}"})
            if any(fault.kind is Kind.MODEL_REPEATS for fault in struck) and self._last_reply is not None:
                return self._last_reply
            if inspect.iscoroutinefunction(fn):
                reply = await fn(*args, **words)
            else:
                reply = await asyncio.to_thread(fn, *args, **words)
                if inspect.isawaitable(reply):
                    reply = await reply
            self._last_reply = reply
            for fault in struck:
                reply = falsified(fault.kind, reply)
            return reply

        return asked


def _digest(value: Any) -> bytes:
    try:
        text = canonical_json(value)
    except (NotCanonical, TypeError, ValueError):
        text = repr(value).encode()
    return hashlib.sha256(text).digest()[:8]
