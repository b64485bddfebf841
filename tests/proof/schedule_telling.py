"""Stories beside the drawn schedules: each brings about one situation that chance hardly ever meets, on virtual time.

A story says line by line what can be observed (so that any change shows) and what of it must be so. It is one history:
told twice, it says the same.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from interlock import Interlock
from interlock.chaos.account import account_of
from interlock.chaos.hearing import Hearing
from interlock.chaos.scene import Scene, TrialClock
from interlock.config.trial import Trial
from interlock.core.clock import run_virtual
from interlock.core.errors import StoreUnavailable

MODEL = "m:1"
USAGE = {"input_tokens": 100, "output_tokens": 20}
PRICES = {MODEL: {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 10.0}}
# Real seconds that threads get before time goes on without them, in stories that have some.
PATIENCE_S = 0.25

# What differs in each run: identifiers, keys of a store's own secret, places in files.
_VARYING = [
    (re.compile(r"\b(run|req|apr|art|fact|call)_(?=[a-z]*[0-9])[0-9a-z]{6,}\b"), r"\1_#"),
    (re.compile(r"\bil1_[0-9a-z]+\b"), "il1_#"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{12,}\b"), "#"),
    (re.compile(r"\.py:\d+"), ".py"),
]


@dataclass
class Told:
    """What was observed, in order, and what of it should not be."""

    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def normal(text: str) -> str:
    for pattern, instead in _VARYING:
        text = pattern.sub(instead, text)
    return text


def plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


async def ask(*_: Any) -> dict[str, Any]:
    """The model: what it says is of no interest."""
    return {"text": "go on", "usage": USAGE}


class Failing:
    """A store, or a part of one, that does not answer what stands in `away`."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.away: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name not in self.away:
            return getattr(self._store, name)

        async def fails(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable(f"{name}: the store is away")

        return fails


def _with_a_known_secret(opens: Callable[[], Any]) -> Any:
    """Open a store whose keys come in the same order each time."""
    store = opens()
    store.secret = bytes(32)
    store.switches = Failing(store.switches)
    store.approvals = Failing(store.approvals)
    return Failing(store)


class Teller:
    """A story under way: its clock, its gates, and what it says."""

    def __init__(self, seed: int = 7) -> None:
        self.clock = TrialClock(seed=seed)
        self.told = Told()
        self.began_s = 0.0
        self._gates: list[tuple[Interlock, Scene, Hearing]] = []

    def say(self, *words: Any) -> None:
        at_s = round(self.clock.monotonic() - self.began_s, 3)
        said = " ".join(word if isinstance(word, str) else plain(word) for word in words)
        self.told.lines.append(normal(f"{at_s:g} s: {said}"))

    def expect(self, what: str, found: Any, wanted: Any) -> None:
        self.say(f"{what}:", found)
        if found != wanted:
            self.told.wrong.append(normal(f"{what}: {found!r}, not {wanted!r}"))

    def gate(self, *, beside: Interlock | None = None, **config: Any) -> Interlock:
        """Open a gate on a store in memory; `beside` another one, on the same store, as another process would be."""
        whole = {"prices": PRICES, "logging": {"level": "error"}, "shutdown_grace_s": 0, **config}
        found = Interlock(whole, store="sqlite:///:memory:", clock=self.clock)
        opened = _with_a_known_secret if beside is None else lambda _: beside.house().store
        hearing = Hearing()
        scene = Scene((), seed=7, clock=self.clock, hearing=hearing)
        found._trial = Trial(funnel=scene.trial().funnel, store=opened)  # the tools are registered later
        self._gates.append((found, scene, hearing))
        return found

    async def use(self, run: Any, tool: str, *, said: bool = True, **args: Any) -> Any:
        """Use a tool, and say what came of it."""
        seen = await run.observe(tool, args)
        if said:
            shown = plain(seen.value)[:120] if seen.ok else f"{seen.reason}; {seen.error}"
            details = getattr(seen.error, "details", None)
            self.say(f"{tool}{plain(args)[:120]} {seen.status}: {shown}", details or "", f"/ {seen.for_model[:160]}")
        return seen

    async def run(self, gate: Interlock, agent: Callable[..., Any], task: Any = None, **options: Any) -> Any:
        """Run an agent, and say how that ended and what is on record."""
        result = await gate.run(agent, task, agent_name="a", **options)
        self.say(
            f"ended {result.reason}, {result.steps} turns, {result.tool_calls} calls, {result.tokens} tokens, "
            f"${result.cost_usd:.6f}{', replayed' if result.replayed else ''}",
            result.output,
            result.details,
        )
        await self.recorded(gate, result.run_id)
        return result

    async def recorded(self, gate: Interlock, run_id: str) -> None:
        """Say what the store has of a run."""
        store = gate.house().store
        await store.flush()
        row = await store.run(run_id) if run_id else None
        if row is None:
            return
        for each in (row.record or {}).get("trace", ()):
            more = {key: each[key] for key in ("policy", "would_have", "budget", "note") if each.get(key)}
            self.say("row", *(str(each.get(key, "-")) for key in ("tool", "status", "reason", "attempts")), more or "")
        await self.claims(gate, run_id)

    async def claims(self, gate: Interlock, run_id: str) -> None:
        """Say how the claims of a run stand; they come in the order of their keys, which are another store's each."""
        lines = []
        for claim in await gate.house().store.claims_of(run_id):
            evidence = [" ".join(str(v) for key, v in entry.items() if key != "at") for entry in claim.evidence]
            lines.append(f"{claim.tool} {claim.state} by {claim.settled_by or '-'}, {claim.sends} sent: {evidence}")
        for line in sorted(lines):
            self.say("claim", line)

    async def account(self) -> None:
        """Say what else can be seen of each gate that is open: calls and attempts in full, the store, the guards."""
        for number, (gate, scene, hearing) in enumerate(self._gates):
            if gate._house is None:
                continue
            try:
                lines = await account_of(scene, hearing, gate.house().store, [gate], ())
            except StoreUnavailable as error:
                lines = (f"no account: {error}",)
            self.told.lines += [normal(f"gate {number}: {line}") for line in lines]

    async def close(self) -> None:
        for gate, _, _ in self._gates:
            await gate.aclose()


def script(
    teller: Teller, *turns: list[tuple[str, dict[str, Any]]], seen: list[Any] | None = None, said: bool = True
) -> Callable[..., Awaitable[str]]:
    """Return an agent that takes these model turns and makes their calls, those of one turn side by side."""

    async def agent(run: Any, task: Any) -> str:
        for calls in turns:
            await run.model(ask, "go on", model=MODEL, max_output_tokens=20, input_tokens=100)
            found = await asyncio.gather(*(teller.use(run, tool, said=said, **args) for tool, args in calls))
            if seen is not None:
                seen.extend(found)
        return "done"

    return agent


Story = Callable[[Teller], Awaitable[None]]
STORIES: dict[str, tuple[Story, float]] = {}


def story(name: str, *, threads: bool = False) -> Callable[[Story], Story]:
    def kept(tells: Story) -> Story:
        STORIES[name] = (tells, PATIENCE_S if threads else 0.0)
        return tells

    return kept


def told(name: str) -> Told:
    """Tell a story to its end; an error that it does not expect is wrong as well."""
    tells, patience_s = STORIES[name]
    return run_virtual(_tell(tells, in_full=not patience_s), patience_s=patience_s)


async def _tell(tells: Story, *, in_full: bool) -> Told:
    teller = Teller()
    teller.began_s = teller.clock.monotonic()
    try:
        async with asyncio.timeout(7_200.0):
            await tells(teller)
    except Exception as error:
        teller.told.wrong.append(normal(f"{type(error).__name__}: {error}"))
    try:
        if in_full:  # not where threads answer at their own time
            await teller.account()
        await teller.close()
    except Exception as error:
        teller.told.wrong.append(normal(f"closing: {type(error).__name__}: {error}"))
    return teller.told
