"""The model turns of a Claude Code session, as turns of the run: opened where it asks, charged by what it reports.

The command line talks to the model by itself. It says so in hooks (a prompt, the end of a batch of tools), which is
where a run can stop; what a turn used comes with its stream, and the sum of it all with the result.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from claude_agent_sdk import AssistantMessage, ResultMessage

from interlock.adapters.values import as_json
from interlock.budget.prices import Usage
from interlock.supervisor.run import Run
from interlock.supervisor.turns import ModelTurn

__all__ = ["COUNTED", "Turns"]

# For the end of a stream whose tools have ended already.
PATIENCE_S = 5.0
# The pieces of a message that say what it used.
COUNTED = frozenset({"message_start", "message_delta", "message_stop"})


class Turns:
    """The turns of one session; one at a time for each agent of it.

    Args:
        provider: For the price, e.g. `anthropic`.
        recorded: What the model says is kept, so that the run can be gone on with.
    """

    def __init__(self, provider: str, *, recorded: bool) -> None:
        self._provider = provider
        self._recorded = recorded
        self._open: dict[str, ModelTurn] = {}
        self._streamed: dict[str, dict[str, Any]] = {}
        self._models: dict[str, str] = {}
        self._seen: dict[str, dict[str, int]] = {}
        self._said: dict[str, list[dict[str, Any]]] = {}
        self._charged: dict[str, asyncio.Event] = {}
        self._settling = asyncio.Lock()

    async def begin(self, run: Run, agent: str = "") -> None:
        """Begin the next turn of an agent.

        Args:
            agent: The session's id of a sub-agent; "" for the session itself.

        Raises:
            RunStopped: The run is over, or a budget does not allow the turn.
        """
        await self.settle(agent)
        # The session asks the model whatever is recorded: what it says must only be the same, where it is replayed.
        turn = await run.step(record=dict).uncut().open()
        self._open[agent], self._said[agent], self._charged[agent] = turn, [], asyncio.Event()

    async def settle(self, agent: str = "") -> None:
        """End the open turn once its message is whole: on record before any of its tools is used."""
        if agent not in self._open and not self._settling.locked():
            return
        async with self._settling:
            await self._told(agent)
            await self.end(agent)

    async def _told(self, agent: str) -> None:
        """Wait until the stream has said what the open turn used: it and the hooks come by different ways."""
        charged = self._charged.get(agent)
        if charged is not None and not charged.is_set() and agent in self._open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await charged.wait()

    async def end(self, agent: str = "", error: BaseException | None = None) -> None:
        """End the turn that an agent has open, if it has one."""
        turn = self._open.pop(agent, None)
        if turn is not None:
            if not turn.replayed:
                turn.reply = {"content": self._said.pop(agent, [])}
            await turn.close(error)

    async def end_all(self, error: BaseException | None = None) -> None:
        """End whatever is open."""
        for agent in list(self._open):
            await self.end(agent, error)

    def heard(self, message: Any, agent: str = "") -> None:
        """Take in a message of the session."""
        if self._recorded and isinstance(message, AssistantMessage):
            self._said.setdefault(agent, []).extend(as_json(list(message.content)))
        if isinstance(message, AssistantMessage) and agent and message.usage:
            # A sub-agent's turns are not streamed: of its output, the result alone tells.
            self._charge(agent, message.model, message.usage)
        elif isinstance(message, ResultMessage):
            self._total(message)

    def streamed(self, event: Mapping[str, Any], agent: str = "") -> None:
        """Take in a piece of a model's message: one of `COUNTED`; the others say nothing of what it used."""
        kind = event.get("type")
        if kind == "message_start":
            said = event["message"]
            self._models[agent] = said["model"]
            self._streamed[agent] = dict(said.get("usage") or {})
        elif kind == "message_delta" and agent in self._streamed:
            given = {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
            self._streamed[agent] |= given
        elif kind == "message_stop" and agent in self._streamed:
            self._charge(agent, self._models[agent], self._streamed.pop(agent))

    def _charge(self, agent: str, model: str, usage: Mapping[str, Any]) -> None:
        turn = self._open.get(agent)
        if turn is None:
            return
        used = {said: int(usage.get(name) or 0) for name, said in _NAMES.items()}
        if usage.get("input_tokens") is not None or usage.get("output_tokens") is not None:
            fresh, output, read, written = used.values()
            turn.charge(Usage(fresh + read + written, output, read, written), model=f"{self._provider}:{model}")
        self._charged[agent].set()
        seen = self._seen.setdefault(model, {})
        for said, count in used.items():
            seen[said] = seen.get(said, 0) + count

    def _total(self, result: ResultMessage) -> None:
        """Charge what the session used beyond what was seen: sub-agents' output, its own side questions."""
        turn = self._open.get("")
        for model, used in (result.model_usage or {}).items():
            seen = self._seen.setdefault(model, {})
            more = {name: max(0, int(used.get(said) or 0) - seen.get(said, 0)) for name, said in _NAMES.items()}
            if turn is not None and any(more.values()):
                turn.charge(more, model=f"{self._provider}:{model}")
                for name, said in _NAMES.items():
                    seen[said] = seen.get(said, 0) + more[name]


# As a message says it, and as the result of a session does.
_NAMES = {
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "cache_read_input_tokens": "cacheReadInputTokens",
    "cache_creation_input_tokens": "cacheCreationInputTokens",
}
