"""The agent of a load test when no other is named: a scripted model and three tools, which only take time.

Each call asks for something else, and is answered with something new: a guard that ends such a run has stopped what
it should not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from typing_extensions import TypedDict

from interlock.config.gate import Interlock
from interlock.config.sections import Settings
from interlock.supervisor.run import Run

__all__ = ["MODEL", "LoadAgent"]

MODEL = "load:scripted"
PRICE = {"input_usd_per_mtok": 0.5, "output_usd_per_mtok": 2.0}
INPUT_TOKENS, OUTPUT_TOKENS = 1_200, 80


class Found(TypedDict):
    """A page of search results."""

    results: list[str]


class Ticket(TypedDict):
    """A ticket."""

    id: str
    status: str


class LoadAgent:
    """The agent, its gate, and the remote that its tools stand for.

    Args:
        calls: Tool calls of one run. writes: share of them that create a ticket.
        think: Awaited in each model turn, with the run's number and the turn's.

    Attributes:
        requests: Creations that reached the remote, by the title of the ticket. tickets: idempotency key to title.
    """

    def __init__(
        self, settings: Settings, calls: int, writes: float, think: Callable[[int, int], Awaitable[None]]
    ) -> None:
        self._calls = calls
        self._writes = writes
        self._think = think
        self.requests: Counter[str] = Counter()
        self.tickets: dict[str, str] = {}
        self.gate = Interlock(settings)
        self.gate.tool("search.read", effect="read", output=Found)(self._search)
        self.gate.tool("kb.read", effect="read", output=Found)(self._article)
        self.gate.tool("ticket.create", effect="write", output=Ticket)(self._create)

    @property
    def duplicates(self) -> int:
        """Tickets beyond the first of one title: every title is asked for once."""
        return len(self.tickets) - len(set(self.tickets.values()))

    async def agent(self, run: Run, task: int) -> dict[str, int]:
        """Ask the model, use the tool it names, and so on; what goes wrong is told to the model, which goes on."""
        done = 0
        for turn in range(self._calls):
            reply = await run.model(self._reply, task, turn, model=MODEL, max_output_tokens=OUTPUT_TOKENS)
            seen = await run.observe(reply["tool"], reply["args"])
            done += seen.ok
        return {"calls": done}

    async def _reply(self, task: int, turn: int) -> dict[str, Any]:
        await self._think(task, turn)
        # Spread over the run: of each four calls one is a write, not the last quarter of them.
        writes = int((turn + 1) * self._writes) > int(turn * self._writes)
        if writes:
            tool, args = "ticket.create", {"title": f"Report {turn} of run {task}"}
        elif turn % 2:
            tool, args = "kb.read", {"topic": f"topic {turn} of run {task}"}
        else:
            tool, args = "search.read", {"query": f"question {turn} of run {task}"}
        usage = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
        return {"tool": tool, "args": args, "usage": usage}

    async def _search(self, query: str) -> Found:
        return {"results": [f"About {query}"]}

    async def _article(self, topic: str) -> Found:
        return {"results": [f"All of {topic}"]}

    async def _create(self, title: str, *, idempotency_key: str) -> Ticket:
        self.requests[title] += 1
        self.tickets.setdefault(idempotency_key, title)
        return {"id": idempotency_key[-8:], "status": "created"}
