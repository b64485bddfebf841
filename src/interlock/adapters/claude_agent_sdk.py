"""Claude Agent SDK: its sessions as runs of the gate; hooks that fail closed, and its own tools with the full funnel.

    from interlock.adapters import claude_agent_sdk

    tools = claude_agent_sdk.create_sdk_mcp_server(gate, "tickets", tools=[create_ticket])    # was: the SDK's
    result = await claude_agent_sdk.run(gate, "Users can't log in", options, request_id="req_7842")   # was: query(…)

Tools made with `@tool` pass the funnel whole: retries, keys, stored results. What the command line executes by
itself (Bash, Edit, MCP servers that it starts) is judged in hooks, before and after.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any

from interlock.adapters.packages import needs, tested

with needs("claude-agent-sdk"):
    import claude_agent_sdk as sdk
    from claude_agent_sdk import AssistantMessage, ClaudeAgentOptions, ResultMessage, SdkMcpTool, TextBlock

from interlock.adapters.agents import AgentRun
from interlock.adapters.claude_agent_sdk_session import Session, Use
from interlock.adapters.claude_agent_sdk_turns import PATIENCE_S
from interlock.adapters.seam import Seam
from interlock.adapters.values import parsed
from interlock.config.gate import Interlock
from interlock.core.calls import Stop
from interlock.core.errors import NoRun
from interlock.core.reasons import StopReason
from interlock.core.results import RunResult
from interlock.gateway.tools import attempt_under_way
from interlock.supervisor.run import Run

__all__ = ["ClaudeResult", "Session", "create_sdk_mcp_server", "query", "run", "run_sync", "session"]

tested("claude-agent-sdk", "0.2")

KEY = "idempotency_key"
# Where the command line says the model's id of a call, and what it says of the one that this task serves.
ID = "claudecode/toolUseId"
_CALL_ID: ContextVar[str | None] = ContextVar("interlock_claude_call_id", default=None)
# Servers whose every tool passes the funnel in its handler; hooks leave them alone.
_GUARDED: weakref.WeakKeyDictionary[Any, _Server] = weakref.WeakKeyDictionary()
_ENDS = {
    "error_max_turns": (StopReason.STEP_BUDGET, "ClaudeAgentOptions.max_turns is used up"),
    "error_max_budget_usd": (StopReason.COST_BUDGET, "ClaudeAgentOptions.max_budget_usd is used up"),
}


@dataclass(frozen=True, slots=True)
class ClaudeResult(RunResult):
    """A run's result, with the session's own messages.

    Attributes:
        native: Every message of the session, the `ResultMessage` last; empty where the request had its outcome before.
    """

    native: Sequence[Any] = ()


async def run(
    gate: Interlock,
    prompt: Any,
    options: ClaudeAgentOptions | None = None,
    *,
    on_message: Callable[[Any], Any] | None = None,
    provider: str = "anthropic",
    **words: Any,
) -> ClaudeResult:
    """Do what `query(prompt=…, options=…)` does, as one run of the gate; never raises for what happens inside.

    Args:
        gate: The gate.
        prompt: A text; or an iterator of messages, and then `payload=` with a `request_id`.
        options: As they are; hooks of the application stay, behind ours.
        on_message: Takes each message, sync or async.
        provider: For the price, e.g. `aws` where the session runs on Bedrock.
        words: Of `Interlock.run`: `tenant_id`, `request_id`, `budgets`, …

    Raises:
        AlreadyRunning: As `Interlock.run`.
    """
    work = _Work(gate, prompt, options or ClaudeAgentOptions(), on_message, provider)
    words.setdefault("agent_name", "claude")
    return work.result(await gate.run(work.run, prompt if isinstance(prompt, str) else None, **words))


def run_sync(gate: Interlock, prompt: Any, options: ClaudeAgentOptions | None = None, **words: Any) -> ClaudeResult:
    """Do what `run` does, from sync code."""
    on_message, provider = words.pop("on_message", None), words.pop("provider", "anthropic")
    work = _Work(gate, prompt, options or ClaudeAgentOptions(), on_message, provider)
    words.setdefault("agent_name", "claude")
    return work.result(gate.run_sync(work.run, prompt if isinstance(prompt, str) else None, **words))


async def query(
    gate: Interlock, *, prompt: Any, options: ClaudeAgentOptions | None = None, provider: str = "anthropic"
) -> AsyncGenerator[Any, None]:
    """Do what the SDK's `query` does, inside the current run; inside a tool of one, in a child of it.

    Raises:
        NoRun: There is no current run of this gate: use `run`, `gate.run` or `gate.open_run`.
    """
    here = Seam(gate).run()
    if here is None:
        raise NoRun("claude_agent_sdk.query was called outside a run of its gate: use gate.run or gate.open_run")
    async with AgentRun(here, "query") as run:
        opened = session(gate, run, options, provider)
        async with contextlib.aclosing(opened.read(sdk.query(prompt=prompt, options=opened.options))) as messages:
            async for message in messages:
                yield message


def session(
    gate: Interlock, run: Run, options: ClaudeAgentOptions | None = None, provider: str = "anthropic"
) -> Session:
    """Bind a session to a run, for a `ClaudeSDKClient` of the application's own.

    Give `session.options` to the client, and read its messages through `session.read(client.receive_response())`.
    """
    given = options or ClaudeAgentOptions()
    found: list[_Server] = []
    guarded: dict[str, str] = {}
    servers = given.mcp_servers if isinstance(given.mcp_servers, dict) else {}
    for name, config in servers.items():
        server = _GUARDED.get(config.get("instance")) if config.get("type") == "sdk" else None
        if server is not None:
            found.append(server)
            guarded |= {f"mcp__{_as_named(name)}__{_as_named(tool)}": tool for tool in server.tools}
    opened = Session(Seam(gate), run, given, guarded, provider)
    for server in found:
        server.sessions.add(opened)
        opened.told.append(server.told)
    return opened


def _as_named(name: str) -> str:
    """Return a server's or a tool's name as the command line puts it into its own name of the tool."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)


def create_sdk_mcp_server(
    gate: Interlock, name: str, version: str = "1.0.0", tools: Sequence[SdkMcpTool[Any]] = ()
) -> Any:
    """Do what the SDK's `create_sdk_mcp_server` does, with every tool behind the funnel, under its own name.

    A tool whose schema has `idempotency_key` gets it filled and hidden from the model; any other can read it with
    `interlock.adapters.idempotency_key()`. Effects come from the configuration, or from `readOnlyHint`.
    """
    server = _Server(gate, [tool.name for tool in tools])
    config = sdk.create_sdk_mcp_server(name, version, [server.guarded(tool) for tool in tools])
    _say_ids(config["instance"])
    _GUARDED[config["instance"]] = server
    return config


def _say_ids(server: Any) -> None:
    """Let the handlers of a server's tools know the model's id of a call; under `mcp` 1 the call is looked for."""
    known = getattr(server, "get_request_handler", lambda _: None)("tools/call")
    if known is None:
        return

    async def call(context: Any, params: Any) -> Any:
        token = _CALL_ID.set((context.meta or {}).get(ID))
        try:
            return await known.handler(context, params)
        finally:
            _CALL_ID.reset(token)

    server.add_request_handler("tools/call", known.params_type, call)


class _Server:
    """The guarded tools of one server, and the sessions that may call them."""

    def __init__(self, gate: Interlock, tools: Sequence[str]) -> None:
        self.tools = tuple(tools)
        self._seam = Seam(gate)
        self._waiting: set[asyncio.Future[None]] = set()
        self.sessions: weakref.WeakSet[Session] = weakref.WeakSet()

    def guarded(self, tool: SdkMcpTool[Any]) -> SdkMcpTool[Any]:
        schema = tool.input_schema
        said = schema if isinstance(schema, dict) and "properties" in schema else None
        keyed = isinstance(schema, dict) and KEY in (schema.get("properties") or schema)
        # A hint of this very process, not of a server elsewhere.
        hints = None if tool.annotations is None else tool.annotations.model_dump(by_alias=True)
        effect: Any = "read" if hints and hints.get("readOnlyHint") else None

        async def handler(args: Any) -> dict[str, Any]:
            run, call_id = await self._belongs(tool.name, args)
            if run is None:
                bare: dict[str, Any] = await tool.handler(args)
                return bare
            native: dict[str, Any] = {}

            async def attempt(given: dict[str, Any]) -> Any:
                under_way = attempt_under_way.get()
                if keyed and under_way is not None:
                    given = {**given, KEY: under_way.sent_key or ""}
                native.clear()
                native.update(await tool.handler(given))
                return _plain(native)

            outcome = await self._seam.call(
                run,
                tool.name,
                dict(args),
                attempt,
                effect=effect,
                schema=said,
                tool_call_id=call_id,
                # Not cut: what it comes to after the timeout still settles the claim.
                threaded=True,
            )
            if outcome.ok and outcome.fresh and outcome.note is None:
                return native
            # Not as an error: the command line would add that the call should be corrected and made again.
            return {"content": [{"type": "text", "text": outcome.for_model}]}

        return replace(tool, handler=handler, input_schema=_without_key(schema) if keyed else schema)

    def told(self) -> None:
        """Take in that a session has told of a tool use."""
        here = asyncio.get_running_loop()
        for news in tuple(self._waiting):
            if news.get_loop() is here:
                _wake(news)
                continue
            with contextlib.suppress(RuntimeError):  # its loop is closed
                news.get_loop().call_soon_threadsafe(_wake, news)

    async def _belongs(self, tool: str, args: Mapping[str, Any]) -> tuple[Run | None, str | None]:
        """Return the run that a call belongs to, and the model's id of it; None outside of runs.

        Raises:
            LookupError: There are several that it may belong to, and none of them tells of it.
        """
        # The session's own tasks carry its run; those of a client that was connected elsewhere carry none.
        here, call_id = self._seam.run(), _CALL_ID.get()
        sessions = [
            opened
            for opened in list(self.sessions)
            if opened.run is here or (here is None and opened.run.result is None)
        ]
        found = await self._found(sessions, tool, args, call_id) if sessions else None
        if found is not None:
            opened, use = found
            await opened.entered(use)
            return use.run, use.call_id
        if len(sessions) > 1:
            raise LookupError("It was not executed: the session that it belongs to does not tell of it.")
        for opened in sessions:  # whose messages nobody reads: it is guarded nevertheless
            await opened.unheard(call_id)
            return opened.run, call_id
        return here, call_id

    async def _found(
        self, sessions: Sequence[Session], tool: str, args: Mapping[str, Any], call_id: str | None
    ) -> tuple[Session, Use] | None:
        """Return what its session tells of a call: that comes by another way than the call, and may come after it."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + PATIENCE_S
        while True:
            for opened in sessions:
                use = opened.use(tool, args, call_id)
                if use is not None:
                    return opened, use
            news: asyncio.Future[None] = loop.create_future()
            self._waiting.add(news)
            try:
                async with asyncio.timeout_at(deadline_s):
                    await news
            except TimeoutError:
                return None
            finally:
                self._waiting.discard(news)


def _wake(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)


def _without_key(schema: Mapping[str, Any]) -> dict[str, Any]:
    if "properties" not in schema:
        return {name: kind for name, kind in schema.items() if name != KEY}
    found = {**schema, "properties": {name: said for name, said in schema["properties"].items() if name != KEY}}
    if "required" in schema:
        found["required"] = [name for name in schema["required"] if name != KEY]
    return found


def _plain(result: Mapping[str, Any]) -> Any:
    """Return what a handler answered as its author means it: the JSON in its one text, the text, or all of it."""
    content: Sequence[Any] = result.get("content") or ()
    if result.get("is_error") or len(content) != 1 or content[0].get("type") != "text":
        return dict(result)
    return parsed(content[0]["text"]) if content[0]["text"] else ""


class _Work:
    """One `run`: the session, and what came of it."""

    def __init__(
        self,
        gate: Interlock,
        prompt: Any,
        options: ClaudeAgentOptions,
        on_message: Callable[[Any], Any] | None,
        provider: str,
    ) -> None:
        self._gate = gate
        self._prompt = prompt
        self._options = options
        self._on_message = on_message
        self._provider = provider
        self._messages: list[Any] = []

    async def run(self, run: Run, _task: Any) -> Any:
        """Be the agent of the run."""
        said: list[str] = []
        asked = query(self._gate, prompt=self._prompt, options=self._options, provider=self._provider)
        async with contextlib.aclosing(asked) as messages:
            async for message in messages:
                await self._take(run, message, said)
        last = self._messages[-1] if self._messages else None
        if not isinstance(last, ResultMessage) or run.scope.stop is not None:
            return None
        if last.is_error and last.subtype not in _ENDS:
            raise sdk.ResultError(str(last.result or last.subtype))
        return last.result if last.structured_output is None else last.structured_output

    async def _take(self, run: Run, message: Any, said: list[str]) -> None:
        self._messages.append(message)
        if isinstance(message, AssistantMessage) and message.parent_tool_use_id is None:
            said += [block.text for block in message.content if isinstance(block, TextBlock)]
            run.partial = {"text": "\n".join(said)}
        elif isinstance(message, ResultMessage) and message.subtype in _ENDS:
            run.stop(Stop(*_ENDS[message.subtype], {"subtype": message.subtype}))
        if self._on_message is not None:
            seen = self._on_message(message)
            if inspect.isawaitable(seen):
                await seen

    def result(self, result: RunResult) -> ClaudeResult:
        """Return the gate's result, with the session's messages."""
        given = {field.name: getattr(result, field.name) for field in fields(RunResult)}
        return ClaudeResult(**given, native=tuple(self._messages))
