"""A run, a remote that counts effects, and the two guards of the journal around it, on a store in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from interlock.core.calls import Answer, Call, Effect, OnUnknown, ToolSpec
from interlock.core.canonical import canonical_json, digest
from interlock.core.clock import ManualClock
from interlock.core.errors import NotPerformed, ToolFailed, ToolOutputInvalid
from interlock.journal.effects import EffectOptions, Effects
from interlock.journal.inflight import InFlight
from interlock.journal.naming import Journaled
from interlock.journal.store import NewRun
from interlock.stores.sqlite import SqliteStore


class Run(Journaled):
    """What the guards see of a run."""

    __slots__ = ("occurrences", "proposed", "seq")

    def __init__(self, clock: ManualClock, run_id: str, request_id: str, request_time_ms: int, fence: int = 1) -> None:
        self.run_id = self.root_run_id = run_id
        self.request_id = self.root_request_id = request_id
        self.request_time_ms = request_time_ms
        self.tenant_id = "acme"
        self.path = ""
        self.agent = "support"
        self.scopes = frozenset()
        self.clock = clock
        self.deadline_s = clock.monotonic() + 900.0
        self.turn = 1
        self.fence = fence
        self.stop = None
        self.observing = False
        self.retrying = False
        self.occurrences: dict[bytes, int] = {}
        self.proposed: set[bytes] | None = None
        self.seq = 0


class Remote:
    """Counts what really happened. `plan` holds what becomes of the next attempts; "ok" when it is empty."""

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.keys: list[str] = []
        self.plan: list[Any] = []
        self.lookups = 0

    async def attempt(self, call: Call[Any]) -> Any:
        self.keys.append(call.sent_key)
        event = self.plan.pop(0) if self.plan else "ok"
        if callable(event):
            event = await event()
        if event == "refused":
            raise NotPerformed
        if event in {"ok", "lost"}:
            self.effects.append(call.args_json.decode())
        if event in {"lost", "gone"}:
            raise TimeoutError(event)
        if isinstance(event, BaseException):
            raise event
        return {"id": len(self.effects)}

    def lookup(self, **args: Any) -> Any:
        self.lookups += 1
        n = self.effects.count(canonical_json({k: v for k, v in args.items() if k != "idempotency_key"}).decode())
        return {"id": n} if n else None


def classify(error: BaseException, _tool: ToolSpec) -> tuple[str, str]:
    return ("no", "not_performed") if isinstance(error, NotPerformed) else ("unknown", "timeout")


async def in_thread(fn: Callable[..., Any], kwargs: dict[str, Any], _tool: str) -> Any:
    return await asyncio.to_thread(fn, **kwargs)


class Desk:
    """One process at work: a store, its guards and a remote."""

    def __init__(self, clock: ManualClock, store: SqliteStore, remote: Remote) -> None:
        self.clock = clock
        self.store = store
        self.remote = remote
        self.max_attempts = 1
        self.inflight = InFlight(store)
        self.effects = Effects(
            store,
            clock,
            EffectOptions(dedupe_window_s=100.0, lease_ttl_s=5.0, timeout_s=10.0, results_deferred=False),
            secret=store.secret,
            rebuild=lambda _tool, data: json.loads(data),
            inflight=self.inflight,
            classify=classify,
            accept=lambda _tool, value: (value, canonical_json(value)),
            in_thread=in_thread,
        )

    async def run(self, request_id: str = "req-1", run_id: str | None = None, **begin: Any) -> Run:
        run_id = run_id or self.clock.token(8)
        begun = await self.store.begin(NewRun(run_id, "acme", request_id, "support", "h", run_id), **begin)
        assert begun.fresh
        run = Run(self.clock, begun.row.run_id, request_id, begun.row.request_time_ms, begun.row.fence)
        run.retrying = begin.get("retry") is True
        return run

    def guarded(self, tool: ToolSpec, perform: Callable[[Call[Any]], Any] | None = None) -> Callable[..., Any]:
        """The two guards around what the retry guard does; `await propose(run, **args)` passes a call through."""

        async def attempts(call: Call[Any]) -> Answer:
            """What the retry guard does: note every failed attempt, repeat what was not performed."""
            while True:
                again = self.effects.before_attempt(call)
                if again is not None:
                    await again
                call.attempts += 1
                try:
                    return Answer(await (perform or self.remote.attempt)(call))
                except ToolOutputInvalid:
                    raise
                except Exception as error:
                    performed, kind = classify(error, tool)
                    call.unknown = call.unknown or performed == "unknown"
                    call.evidence = [
                        *(call.evidence or []),
                        {"attempt": call.attempts, "kind": kind, "performed": performed},
                    ]
                    may_repeat = performed == "no" or tool.on_unknown is OnUnknown.RESEND
                    if call.attempts < self.max_attempts and may_repeat:
                        continue
                    if call.run.observing:
                        raise
                    raise ToolFailed(str(error)) from error

        funnel = self.effects.recall(tool, self.effects.claim(tool, attempts))

        async def propose(run: Run, **args: Any) -> Answer:
            run.seq += 1
            data = canonical_json(args)
            call = Call(run, tool, args, data, digest(data, self.store.secret), tool.effect_of(args), run.seq, 1, 1)
            return await funnel(call)

        return propose


def write(**words: Any) -> ToolSpec:
    """A write tool; nothing known of how to close an unknown outcome, unless said."""

    async def fn(**_: Any) -> None: ...

    return ToolSpec(**{"name": "ticket.create", "fn": fn, "is_async": True, "effect": Effect.WRITE, **words})
