"""The remote that the tools act on: real HTTP, counts what happened where it happens, misbehaves on purpose.

    POST /SESSION/TOOL               the arguments as JSON, with `Idempotency-Key` where the caller has one
    POST /operator/SESSION/ACTION    what a person does at another terminal: approve, deny, wait
    GET  /effects/SESSION            what has happened so far

Effects and their deduplication by key are those of the drill's backend (`interlock.chaos.world`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from interlock.chaos.http_server import HttpServer, Reply, Request, Reset
from interlock.chaos.world import KeyReused, World
from interlock.core.clock import SYSTEM, Clock

__all__ = ["Fault", "Happened", "Plan", "WorldServer"]

RETRY_AFTER_S = 1.0
LATE_S = 0.9
# Tools that change something, and the argument that an effect is known by.
WRITES = {
    "ticket_create": ("ticket", "title"),
    "row_append": ("row", "value"),
    "refund_create": ("refund", "order_id"),
    "note_create": ("note", "text"),
}


class Fault(StrEnum):
    """What goes wrong with one request.

    LOST: it is performed, and the connection is reset instead of an answer. RATE_LIMITED: refused, with
    Retry-After. LATE: performed and answered, after everybody has lost patience. NEW_SHAPE: performed, and
    answered in a shape that nobody agreed on.
    """

    NONE = "none"
    LOST = "lost"
    RATE_LIMITED = "429"
    LATE = "late"
    NEW_SHAPE = "new_shape"


@dataclass(frozen=True, slots=True)
class Plan:
    """What requests to one tool meet: `first`, one after the other, and `then` for ever.

    Attributes:
        person: What an operator does while the n-th request (from 1) is under way: `kill` or `safe_mode`.
    """

    first: tuple[Fault, ...] = ()
    then: Fault = Fault.NONE
    person: Mapping[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class Happened:
    """What one session has done to the world.

    Attributes:
        requests: By tool, refused ones included. hasty: requests that came before Retry-After was over.
    """

    world: World = field(default_factory=World)
    requests: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    hasty: int = 0
    open_at_s: float = 0.0

    def effects(self) -> dict[str, int]:
        """Return how often each thing happened, by `kind:subject`."""
        return dict(Counter(f"{e.kind}:{e.subject}" for e in self.world.effects()))


Operator = Callable[[str, str], Awaitable[None]]


class WorldServer:
    """Answers on one port for all sessions.

    Args:
        plan_of: What requests of a session to a tool meet.
        operator: Does what a person does, given session and action; awaited before the request under way is answered.
    """

    def __init__(self, plan_of: Callable[[str, str], Plan], operator: Operator, clock: Clock = SYSTEM) -> None:
        self._plan_of = plan_of
        self._operator = operator
        self._clock = clock
        self._sessions: dict[str, Happened] = {}
        self._server = HttpServer(self._handle, clock)
        self.url = ""

    def happened(self, session: str) -> Happened:
        """Return what a session has done so far."""
        return self._sessions.setdefault(session, Happened())

    async def start(self) -> None:
        """Listen on a free port of this machine."""
        self.url = f"http://127.0.0.1:{await self._server.start()}"

    async def close(self) -> None:
        """Stop."""
        await self._server.close()

    async def _handle(self, request: Request) -> Reply | Reset:
        match request.path.strip("/").split("/"):
            case ["effects", session]:
                return Reply(200, self.happened(session).effects())
            case ["operator", session, action]:
                await self._operator(session, action)
                return Reply(200, {})
            case [session, tool] if isinstance(request.body, dict):
                return await self._perform(session, tool, request.body, request.headers.get("idempotency-key"))
        return Reply(404, {"error": "no such thing"})

    async def _perform(self, session: str, tool: str, args: dict[str, Any], key: str | None) -> Reply | Reset:
        happened, plan = self.happened(session), self._plan_of(session, tool)
        happened.requests[tool] += 1
        number = happened.requests[tool]
        fault = plan.first[number - 1] if number <= len(plan.first) else plan.then
        now_s = self._clock.monotonic()
        if now_s < happened.open_at_s:
            happened.hasty += 1
            fault = Fault.RATE_LIMITED
        if fault is Fault.RATE_LIMITED:
            happened.open_at_s = now_s + RETRY_AFTER_S
            return Reply(429, {"error": "rate_limited"}, {"Retry-After": f"{RETRY_AFTER_S:.3f}"})
        if fault is Fault.LATE:
            await self._clock.sleep(LATE_S)
        answer = self._effect(happened, tool, args, key) if tool in WRITES else _read(tool, args)
        if number in plan.person:
            await self._operator(session, plan.person[number])
        if fault is Fault.LOST:
            return Reset()
        if fault is Fault.NEW_SHAPE:
            return Reply(200, {"data": {"ref": answer.body.get("id"), "state": "NEW"}})
        return answer

    def _effect(self, happened: Happened, tool: str, args: dict[str, Any], key: str | None) -> Reply:
        kind, subject = WRITES[tool]
        if not isinstance(args.get(subject), str):
            return Reply(422, {"error": f"{subject} is not a text"})
        try:
            effect, _ = happened.world.perform(
                kind, "", args[subject], payload=json.dumps(args, sort_keys=True), key=key, at_s=0.0
            )
        except KeyReused:
            return Reply(422, {"error": "idempotency_key_reused"})
        if key is not None:
            happened.keys.add(key)
        return Reply(200, {"id": effect.id, "status": "created", "url": effect.url})


def _read(tool: str, args: dict[str, Any]) -> Reply:
    match tool:
        case "search_read":
            return Reply(200, {"results": [f"nothing new about {args.get('query')}"]})
        case "stock_check":
            return Reply(200, {"item": args.get("item"), "in_stock": 4})
    return Reply(404, {"error": "no such tool"})
