"""Takes the time of every call of a load test: in the gate, in its store, waiting for a place, and in the tool.

Four layers in the funnel do it, and add some two microseconds to a call. What the tool takes, and what a fault in its
place takes, is not the gate's; nor is a backoff that it waits on purpose.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

from interlock.chaos.arming import Armed, place
from interlock.chaos.faults import ACTS, STORE_KINDS, TOOL_KINDS, Fault, Kind
from interlock.chaos.latencies import Latencies
from interlock.chaos.trial_store import TrialStore
from interlock.config.opening import Store
from interlock.config.trial import Trial
from interlock.core.calls import Answer, Call, Effect, Proceed, ToolSpec
from interlock.core.clock import SYSTEM, Clock
from interlock.core.errors import ConfigError, InterlockError
from interlock.gateway.pipeline import Funnel

__all__ = ["LOAD_KINDS", "LoadMeter", "MeteredClock", "Taken", "chance_of"]

LOAD_KINDS = (TOOL_KINDS | STORE_KINDS) - {Kind.CLOCK_JUMP, Kind.KILL_SWITCH}
"""Faults that a load test can have: of tools and of the store, but for those that would end it."""

# Eight bytes each; beyond so many, percentiles are of the first.
MOST_SAMPLES = 2_000_000


def chance_of(*what: object) -> float:
    """Return a number from 0 to 1 that the seed and the place in the test decide."""
    drawn = hashlib.sha256(":".join(map(str, what)).encode()).digest()
    return (int.from_bytes(drawn[:6], "big") + 0.5) / (1 << 48)


@dataclass(eq=False, slots=True)
class _Call:
    """Where one call has spent its time."""

    tool_s: float = 0.0
    tool_since_s: float | None = None
    slept_s: float = 0.0
    store_s: float = 0.0
    place_s: float = 0.0
    admitting_since_s: float | None = None
    claiming_since_s: float | None = None
    tried_until_s: float | None = None


_call: ContextVar[_Call | None] = ContextVar("interlock_load_call", default=None)
_run: ContextVar[int] = ContextVar("interlock_load_run", default=0)


class MeteredClock:
    """Another clock; what a call waits on it (a backoff) is counted with the call."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self.monotonic, self.boot, self.wall = clock.monotonic, clock.boot, clock.wall
        self.uniform, self.token = clock.uniform, clock.token

    async def sleep(self, delay_s: float) -> None:
        """See `Clock.sleep`."""
        call = _call.get()
        began_s = self.monotonic()
        try:
            await self._clock.sleep(delay_s)
        finally:
            if call is not None:
                call.slept_s += self.monotonic() - began_s


@dataclass(eq=False)
class Taken:
    """What was measured in one level of a load test; seconds, one entry a call.

    Attributes:
        overhead_s: In the gate: the whole call, but for the tool and its backoffs. store_s: of it, until its intent and
            its result were durable (writes only). place_s: of it, until it was admitted.
        tool_s: In the tool and its faults.
        calls: All calls. refused: stop reason to calls that ended with it. injected: fault to how often.
    """

    overhead_s: array[float] = field(default_factory=lambda: array("d"))
    store_s: array[float] = field(default_factory=lambda: array("d"))
    place_s: array[float] = field(default_factory=lambda: array("d"))
    tool_s: array[float] = field(default_factory=lambda: array("d"))
    calls: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)


class LoadMeter:
    """What stands in the funnel of a gate under load.

    Args:
        faults: To inject. latencies: added before each attempt of a tool. seed: of both.

    Attributes:
        taken: What is measured at present; may be put in place by whoever begins a new level.

    Raises:
        ConfigError: A load test cannot have this fault.
    """

    def __init__(self, faults: Sequence[Fault], latencies: Latencies, seed: int, clock: Clock = SYSTEM) -> None:
        for fault in faults:
            if fault.kind not in LOAD_KINDS:
                raise ConfigError(
                    f"--fault {fault.kind}: a load test has faults of tools and of the store: "
                    f"{', '.join(sorted(LOAD_KINDS))}"
                )
        armed = [Armed(fault, number, seed) for number, fault in enumerate(faults)]
        self._of_tools = [each for each in armed if each.fault.kind in TOOL_KINDS]
        self._of_store = [each for each in armed if each.fault.kind in STORE_KINDS]
        self._latencies = latencies
        self._seed = seed
        self._clock = clock
        self._began_s = clock.monotonic()
        self._changes = 0
        self.taken = Taken()

    def trial(self) -> Trial:
        """Return what is put into the gate."""
        return Trial(funnel=self._funnel, store=self._store) if self._of_store else Trial(funnel=self._funnel)

    @contextmanager
    def run(self, number: int) -> Iterator[None]:
        """What happens within belongs to the run of this number."""
        token = _run.set(number)
        try:
            yield
        finally:
            _run.reset(token)

    # -- the funnel

    def _funnel(self, funnel: Funnel) -> Funnel:
        funnel = place(funnel, "recorder", self._whole)
        funnel = place(funnel, "admission", self._admitting)
        funnel = place(funnel, "claim", self._claiming)
        funnel = place(funnel, "retry", self._trying)
        return place(funnel, "perform", self._performing)

    def _whole(self, tool: ToolSpec, proceed: Proceed[Any]) -> Proceed[Any]:  # noqa: ARG002
        now = self._clock.monotonic

        async def whole(call: Call[Any]) -> Answer:
            spent = _Call()
            token = _call.set(spent)
            began_s = now()
            try:
                answer = await proceed(call)
            except InterlockError as error:
                self.taken.refused[str(error.reason)] += 1
                self._take(spent, began_s, now())
                raise
            else:
                self._take(spent, began_s, now())
                return answer
            finally:  # one that is cut off has taken no time of its own
                _call.reset(token)

        return whole

    def _take(self, spent: _Call, began_s: float, ended_s: float) -> None:
        taken = self.taken
        taken.calls += 1
        if len(taken.overhead_s) >= MOST_SAMPLES:
            return
        tool_s = spent.tool_s
        if spent.tool_since_s is not None:  # a write that outlives its call
            tool_s += ended_s - max(began_s, spent.tool_since_s)
        taken.overhead_s.append(max(0.0, ended_s - began_s - tool_s - spent.slept_s))
        taken.tool_s.append(tool_s)
        if spent.place_s:
            taken.place_s.append(spent.place_s)
        if spent.store_s:
            taken.store_s.append(spent.store_s)

    def _admitting(self, tool: ToolSpec, proceed: Proceed[Any]) -> Proceed[Any]:  # noqa: ARG002
        async def admitting(call: Call[Any]) -> Answer:
            spent = _call.get()
            if spent is not None:
                spent.admitting_since_s = self._clock.monotonic()
            return await proceed(call)

        return admitting

    def _claiming(self, tool: ToolSpec, proceed: Proceed[Any]) -> Proceed[Any]:  # noqa: ARG002
        now = self._clock.monotonic

        async def claiming(call: Call[Any]) -> Answer:
            spent = _call.get()
            if spent is None:
                return await proceed(call)
            at_s = spent.claiming_since_s = now()
            if spent.admitting_since_s is not None:
                spent.place_s += at_s - spent.admitting_since_s
            try:
                return await proceed(call)
            finally:
                if spent.tried_until_s is not None and call.effect is not Effect.READ:
                    spent.store_s += now() - spent.tried_until_s

        return claiming

    def _trying(self, tool: ToolSpec, proceed: Proceed[Any]) -> Proceed[Any]:  # noqa: ARG002
        now = self._clock.monotonic

        async def trying(call: Call[Any]) -> Answer:
            spent = _call.get()
            if spent is None or call.effect is Effect.READ:
                return await proceed(call)
            if spent.claiming_since_s is not None:
                spent.store_s += now() - spent.claiming_since_s
            try:
                return await proceed(call)
            finally:
                spent.tried_until_s = now()

        return trying

    # -- the tool

    def _performing(self, tool: ToolSpec, proceed: Proceed[Any]) -> Proceed[Any]:
        mine = [armed for armed in self._of_tools if armed.globs.match(tool.name)]
        now = self._clock.monotonic

        async def entered(call: Call[Any]) -> Answer:
            chance = chance_of(self._seed, _run.get(), call.seq, call.attempts)
            delay_s = self._latencies.draw(tool.name, chance)
            if delay_s > 0.0:
                await self._clock.sleep(delay_s)
            return await proceed(call)

        async def performing(call: Call[Any]) -> Answer:
            spent = _call.get() or _Call()
            began_s = spent.tool_since_s = now()
            try:
                fault = self._struck(mine, call)
                if fault is None:
                    return await entered(call)
                return await ACTS[fault.kind](fault, call, entered, self._clock)
            finally:
                spent.tool_s += now() - began_s
                spent.tool_since_s = None

        return performing

    def _struck(self, mine: Sequence[Armed], call: Call[Any]) -> Fault | None:
        if not mine:
            return None
        elapsed_s = self._clock.monotonic() - self._began_s
        for armed in mine:
            if armed.strikes((call.run.run_id, call.seq), max(1, call.attempts), elapsed_s):
                self.taken.injected[armed.fault.label] += 1
                return armed.fault
        return None

    # -- the store

    def _store(self, opens: Callable[[], Store]) -> Store:
        # A store in every way, by delegation.
        return cast("Store", TrialStore(opens(), self._before_change, lambda _run_id, record: record))

    async def _before_change(self, name: str) -> bool:
        elapsed_s = self._clock.monotonic() - self._began_s
        self._changes += 1
        lost = False
        for armed in self._of_store:
            if not armed.globs.match(name) or not armed.strikes(("", self._changes), 1, elapsed_s):
                continue
            self.taken.injected[armed.fault.label] += 1
            if armed.fault.kind is Kind.STORE_UNAVAILABLE:
                raise TrialStore.away("the store did not get it")
            if armed.fault.kind is Kind.STORE_SLOW:
                await self._clock.sleep(1.0 if armed.fault.delay_s is None else armed.fault.delay_s)
            lost = lost or armed.fault.kind is Kind.STORE_ANSWER_LOST
        return lost
