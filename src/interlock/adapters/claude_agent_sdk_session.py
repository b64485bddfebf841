"""One Claude Code session inside a run: its hooks are where tools are judged, and where the run stops.

A tool that the command line executes by itself (Bash, an MCP server of its own) is judged before it starts and
settled when it has ended: its call stays open in the funnel in between. What the funnel answers by itself (a refusal,
a stored result) goes back as the reason why it was not executed. `continue: false` counts at the end of a batch
alone; after a single tool the command line passes over it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from claude_agent_sdk import (
    ClaudeAgentOptions,
    HookMatcher,
    ServerToolUseBlock,
    StreamEvent,
    SystemMessage,
    TaskStartedMessage,
    ToolResultBlock,
    ToolUseBlock,
)

from interlock.adapters.claude_agent_sdk_turns import COUNTED, Turns
from interlock.adapters.outcome import Outcome
from interlock.adapters.seam import Seam
from interlock.adapters.values import as_json
from interlock.core.errors import LeaseLost, NotPerformed, RunStopped
from interlock.record.trace import Kind, pack
from interlock.supervisor.child import Child
from interlock.supervisor.run import Run

__all__ = ["Session", "ToolReported", "Use", "matchers"]

# Tools of the command line that change nothing; every other is a write until the configuration says what it is.
READS = frozenset(
    {"Agent", "BashOutput", "Glob", "Grep", "LS", "ListAgents", "NotebookRead", "Read", "Task", "TaskGet", "TaskList"}
    | {"TaskOutput", "ToolSearch", "WebFetch", "WebSearch"}
)
# The command line has timeouts of its own; ours is for a hook that never comes.
PATIENCE_S = 3_600.0
DONE_BEFORE = "no error: this was done before, was not done again, and this is its result: "


class ToolReported(Exception):
    """The command line reports that a tool failed; what had happened by then is not known."""


def matchers(guarded: Iterable[str]) -> dict[str, str | None]:
    """Return the events that a session has hooks on, each with the tools that it is told of; None: of all.

    Every hook is a message there and one back. A tool whose handler passes the funnel is judged and settled there:
    of the two hooks around tools these alone are left out, each by its whole name.
    """
    names = "|".join(map(re.escape, guarded))
    others = f"^(?!(?:{names})$)" if names else None
    return {
        "UserPromptSubmit": None,
        "PreToolUse": others,
        "PostToolUse": others,
        "PostToolUseFailure": None,
        "PostToolBatch": None,
        "SubagentStart": None,
        "SubagentStop": None,
    }


@dataclass(frozen=True, slots=True)
class Use:
    """A tool use, as the session's messages tell of it.

    Attributes:
        call_id: The model's. name: as the command line calls the tool. agent: "" for the session itself.
        run: Of that agent.
    """

    call_id: str
    name: str
    args: Mapping[str, Any]
    agent: str
    run: Run


class Session:
    """The hooks of one session, bound to a run.

    Attributes:
        options: What to give to `query` or `ClaudeSDKClient`. run: the run.
        told: Called whenever the session has told of a tool use.

    Args:
        seam: Of the gate. run: the run.
        given: The options of the application.
        guarded: Tools whose handlers pass the funnel by themselves: their own names, by the command line's
            (`mcp__tickets__create`).
        provider: For the price.
    """

    def __init__(
        self, seam: Seam, run: Run, given: ClaudeAgentOptions, guarded: Mapping[str, str], provider: str
    ) -> None:
        self._seam = seam
        self.run = run
        self._guarded = guarded
        self._turns = Turns(provider, recorded=run.scope.tape is not None)
        self._pending: dict[str, _Pending] = {}
        self._children: dict[str, tuple[Child[Run], Run]] = {}
        self._agents: dict[str, str] = {}
        self._offered: frozenset[str] = frozenset()
        self.told: list[Callable[[], None]] = []
        self._uses: dict[str, Use] = {}
        self._entered: set[str] = set()
        self._notes: set[asyncio.Task[Outcome]] = set()
        self._shows_pieces = given.include_partial_messages
        hooks = {name: list(matchers) for name, matchers in (given.hooks or {}).items()}
        ours = self._hooks()
        for name, tools in matchers(guarded).items():
            # Fail closed: what raises here blocks the tool.
            matcher = HookMatcher(tools, hooks=[ours[name]], timeout=PATIENCE_S, on_failure="block")
            hooks[name] = [matcher, *hooks.get(name, ())]
        self.options = replace(given, hooks=hooks, include_partial_messages=True)

    def _hooks(self) -> dict[str, Callable[..., Any]]:
        return {
            "UserPromptSubmit": self._prompted,
            "PreToolUse": self._before,
            "PostToolUse": self._after,
            "PostToolUseFailure": self._failed,
            "PostToolBatch": self._batch_over,
            "SubagentStart": self._agent_begun,
            "SubagentStop": self._agent_over,
        }

    # -- messages

    async def read(self, messages: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """Yield the session's messages, having charged what they say; and settle everything at their end."""
        error: BaseException | None = None
        try:
            try:
                async for message in messages:
                    if isinstance(message, StreamEvent):
                        if message.event.get("type") in COUNTED:
                            self._turns.streamed(message.event, self._agents.get(message.parent_tool_use_id or "", ""))
                        if not self._shows_pieces:
                            continue
                    else:
                        self._heard(message)
                    yield message
            finally:
                # Closed, it ends the session.
                close = getattr(messages, "aclose", None)
                if close is not None:
                    await close()
        except BaseException as raised:
            error = raised
            raise
        finally:
            for pending in self._pending.values():
                pending.end(ToolReported("the session ended before this tool was heard of again"))
            await asyncio.gather(*(pending.task for pending in self._pending.values()), return_exceptions=True)
            await asyncio.gather(*self._notes, return_exceptions=True)
            await self._turns.end_all(error)
            for agent in list(self._children):
                await self._close_child(agent)

    def _heard(self, message: Any) -> None:
        if isinstance(message, TaskStartedMessage) and message.tool_use_id:
            self._agents[message.tool_use_id] = message.task_id
        elif isinstance(message, SystemMessage) and message.subtype == "init":
            self._offered = frozenset(message.data.get("tools") or ())
        agent = self._agents.get(getattr(message, "parent_tool_use_id", None) or "", "")
        self._turns.heard(message, agent)
        blocks = getattr(message, "content", None)
        for block in blocks if isinstance(blocks, list) else ():
            if isinstance(block, ToolUseBlock):
                self._proposed(Use(block.id, block.name, block.input, agent, self._run_of(agent)))
            elif isinstance(block, ToolResultBlock):
                self._answered(block.tool_use_id)
            elif isinstance(block, ServerToolUseBlock):
                scope = self.run.scope
                words = Kind(block.name, "not_guarded_hosted", "write", None)
                scope.trace.add(words, pack(scope.seq, scope.turn, 1, scope.clock.wall(), 0.0, bytes(16)))

    def _answered(self, call_id: str) -> None:
        """Take in that the model is told of a tool use: one that no hook has seen was refused by the command line."""
        pending = self._pending.get(call_id)
        if pending is not None:
            # A permission rule or a person said no.
            pending.end(NotPerformed("the command line did not execute it"))
        use = self._uses.pop(call_id, None)
        if use is not None:
            own = self._own(use.name)
            if use.name in self._offered:
                note = self._seam.invalid(use.run, own, call_id)
            else:
                note = self._seam.absent(use.run, own, use.args, call_id)
            task = asyncio.create_task(note)
            self._notes.add(task)
            task.add_done_callback(self._notes.discard)

    def _own(self, name: str) -> str:
        """Return a tool's own name, where its server is guarded; else the command line's."""
        return self._guarded.get(name, name)

    # -- turns

    async def _prompted(self, _input: Mapping[str, Any], _id: str | None, _context: Any) -> dict[str, Any]:
        return await self._next_turn(self.run, "")

    async def _batch_over(self, given: Mapping[str, Any], _id: str | None, _context: Any) -> dict[str, Any]:
        agent = given.get("agent_id") or ""
        return await self._next_turn(self._run_of(agent), agent)

    async def _next_turn(self, run: Run, agent: str) -> dict[str, Any]:
        if self._notes:
            await asyncio.gather(*self._notes, return_exceptions=True)
        try:
            await self._turns.begin(run, agent)
        except (RunStopped, LeaseLost) as error:
            return {"continue_": False, "stopReason": error.for_model}
        return {}

    async def _agent_begun(self, given: Mapping[str, Any], _id: str | None, _context: Any) -> dict[str, Any]:
        agent = given["agent_id"]
        child = self.run.child(given.get("agent_type"))
        self._children[agent] = (child, await child.open())
        return await self._next_turn(self._run_of(agent), agent)

    async def _agent_over(self, given: Mapping[str, Any], _id: str | None, _context: Any) -> dict[str, Any]:
        await self._turns.end(given["agent_id"])
        await self._close_child(given["agent_id"])
        return {}

    def _run_of(self, agent: str) -> Run:
        child = self._children.get(agent)
        return self.run if child is None else child[1]

    async def _close_child(self, agent: str) -> None:
        child = self._children.pop(agent, None)
        if child is not None:
            await child[0].close(None)

    # -- tools

    def _proposed(self, use: Use) -> None:
        if use.call_id in self._entered:  # it had to go on before it was heard of
            self._entered.discard(use.call_id)
            return
        self._uses[use.call_id] = use
        for tell in self.told:
            tell()

    def use(self, tool: str, args: Mapping[str, Any], call_id: str | None) -> Use | None:
        """Return what was told of a call that has reached the handler of a guarded tool; None: nothing yet."""
        if call_id is not None:
            return self._uses.get(call_id)
        spelled = _spelled(args)
        uses = (use for use in self._uses.values() if self._guarded.get(use.name) == tool)
        return next((use for use in uses if _spelled(use.args) == spelled), None)

    async def entered(self, use: Use) -> None:
        """Take in that the handler of a guarded tool goes on with this; its turn ends first."""
        self._uses.pop(use.call_id, None)
        await self._turns.settle(use.agent)

    async def unheard(self, call_id: str | None) -> None:
        """Take in that the handler of a guarded tool goes on with a call that nothing was told of."""
        if call_id is not None:
            self._entered.add(call_id)
        await self._turns.settle()

    async def _before(self, given: Mapping[str, Any], tool_use_id: str | None, _context: Any) -> dict[str, Any]:
        name, args, agent = given["tool_name"], given["tool_input"], given.get("agent_id") or ""
        call_id = tool_use_id or given["tool_use_id"]
        run = self._run_of(agent)
        await self._turns.settle(agent)
        self._uses.pop(call_id, None)
        pending = _Pending(self._seam, run, name, args, call_id)
        self._pending[call_id] = pending
        if await pending.judged():
            return {}
        del self._pending[call_id]
        outcome = await pending.task
        # The command line tells any reason as an error; a stored result must not read like one.
        text = f"{DONE_BEFORE}{outcome.for_model}" if outcome.ok else outcome.for_model
        said = {"permissionDecision": "deny", "permissionDecisionReason": text}
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", **said}}

    async def _after(self, given: Mapping[str, Any], tool_use_id: str | None, _context: Any) -> dict[str, Any]:
        pending = self._pending.pop(tool_use_id or given["tool_use_id"], None)
        if pending is None:
            return {}
        pending.answer(given.get("tool_response"))
        outcome = await pending.task
        if outcome.ok and outcome.note is None:
            return {}
        text = (
            [{"type": "text", "text": outcome.for_model}]
            if given["tool_name"].startswith("mcp__")
            else outcome.for_model
        )
        return {"hookSpecificOutput": {"hookEventName": "PostToolUse", "updatedToolOutput": text}}

    async def _failed(self, given: Mapping[str, Any], tool_use_id: str | None, _context: Any) -> dict[str, Any]:
        call_id = tool_use_id or given["tool_use_id"]
        pending = self._pending.pop(call_id, None)
        if pending is None:
            return await self._never_entered(given, call_id)
        pending.end(ToolReported(str(given.get("error", ""))[:500]))
        return _also(await pending.task)

    async def _never_entered(self, given: Mapping[str, Any], call_id: str) -> dict[str, Any]:
        """Put on record a call of a guarded tool that failed before its handler: its arguments did not fit."""
        use = self._uses.get(call_id)
        own = self._guarded.get(given["tool_name"])
        if use is None or own is None:
            return {}
        del self._uses[call_id]
        return _also(await self._seam.invalid(use.run, own, call_id))


class _Pending:
    """A call that the command line executes: open in the funnel until its end is heard of."""

    def __init__(self, seam: Seam, run: Run, name: str, args: Mapping[str, Any], call_id: str) -> None:
        self._may_start = asyncio.Event()
        self._end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        effect: Literal["read"] | None = "read" if name in READS else None
        call = seam.call(
            run,
            name,
            copy.deepcopy(dict(args)),
            self._attempt,
            effect=effect,
            tool_call_id=call_id,
            timeout_s=PATIENCE_S,
        )
        self.task: asyncio.Task[Outcome] = asyncio.create_task(call)

    async def _attempt(self, _args: dict[str, Any]) -> Any:
        if self._may_start.is_set():
            # The command line executes a tool once; a second attempt would only wait for it.
            raise NotPerformed("the command line does not repeat a tool")
        self._may_start.set()
        return await asyncio.shield(self._end)

    async def judged(self) -> bool:
        """Wait for the funnel; return whether the command line may execute the tool."""
        start = asyncio.create_task(self._may_start.wait())
        try:
            await asyncio.wait((start, self.task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            start.cancel()
        return self._may_start.is_set()

    def answer(self, value: Any) -> None:
        """Take in what the tool answered."""
        if not self._end.done():
            self._end.set_result(as_json(value))

    def end(self, error: Exception) -> None:
        """Take in that the tool came to nothing, if no answer is known."""
        if not self._end.done():
            self._end.set_exception(error)
            self._end.exception()  # looked at, even where no attempt waits for it any more


def _also(outcome: Outcome) -> dict[str, Any]:
    """Return what tells the model of a failure more than its text."""
    return {"hookSpecificOutput": {"hookEventName": "PostToolUseFailure", "additionalContext": outcome.for_model}}


def _spelled(args: Mapping[str, Any]) -> str:
    return json.dumps(args, sort_keys=True, default=str)
