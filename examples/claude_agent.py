"""A session of the Claude Agent SDK behind the gate: the three lines that changed end in `# <-`.

The remote creates the ticket and loses the answer; an obedient model asks for the ticket once more. Bare, that makes
two tickets. Here the write is sent again under the same key, and the remote keeps one. No API key: the SDK's own
command line runs, and talks to a few lines below that stand in for the API.

    python examples/claude_agent.py        (pip install "interlock[claude-agent-sdk]")
"""

import asyncio
import json
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, create_sdk_mcp_server, query, tool

import interlock
from interlock.adapters import claude_agent_sdk, idempotency_key  # <-


class Remote:
    """Creates tickets, loses its first answer, and knows keys that it has seen."""

    def __init__(self) -> None:
        self.tickets: list[str] = []
        self.keys: dict[str, str] = {}
        self.lost = False

    def create(self, title: str, key: str | None = None) -> str:
        """Create a ticket, or return the one that was created under this key."""
        url = self.keys.get(key) if key else None
        if url is None:
            self.tickets.append(title)
            url = f"https://tickets.example/{len(self.tickets)}"
            if key:
                self.keys[key] = url
        if not self.lost:
            self.lost = True
            raise TimeoutError("the ticket is there; its address was lost on the way")
        return url


def ticket_tool(remote: Remote, key: Callable[[], str | None]) -> Any:
    """Return the tool; it sends a key where there is one."""

    @tool("create_ticket", "Create a ticket and return its address.", {"title": str})
    async def create_ticket(args: dict[str, Any]) -> dict[str, Any]:
        url = remote.create(args["title"], key())
        return {"content": [{"type": "text", "text": url}]}

    return create_ticket


def options_for(server: Any, api: str, home: str) -> ClaudeAgentOptions:
    """Return the session's options; those of a real one would be shorter."""
    env = {"ANTHROPIC_BASE_URL": api, "ANTHROPIC_API_KEY": "none", "HOME": home, "ENABLE_TOOL_SEARCH": "false"}
    env["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] = "1"
    return ClaudeAgentOptions(
        model="claude-opus-4-6",
        mcp_servers={"tickets": server},
        allowed_tools=["mcp__tickets"],
        tools=[],
        setting_sources=[],
        cwd=home,
        env=env,
    )


async def bare(api: str, home: str) -> None:
    """Run the session as it was."""
    remote, said = Remote(), None
    server = create_sdk_mcp_server("tickets", tools=[ticket_tool(remote, lambda: None)])
    async for message in query(prompt="Users cannot log in", options=options_for(server, api, home)):
        said = message.result if isinstance(message, ResultMessage) else said
    print("bare:   ", said, "| tickets in the world:", len(remote.tickets))


CONFIG: dict[str, Any] = {
    "tools": {"allow": ["create_ticket"], "writes": {"create_ticket": {"on_unknown": "resend"}}},
    "logging": {"level": "error"},
}


async def guarded(api: str, home: str) -> None:
    """Run it behind the gate."""
    remote = Remote()
    gate = interlock.Interlock(CONFIG, store="sqlite:///:memory:")
    tools = [ticket_tool(remote, idempotency_key)]
    server = claude_agent_sdk.create_sdk_mcp_server(gate, "tickets", tools=tools)  # <-
    options = options_for(server, api, home)
    result = await claude_agent_sdk.run(gate, "Users cannot log in", options, request_id="req_1")  # <-
    print("guarded:", result.output, "| tickets in the world:", len(remote.tickets), "|", result.reason)
    print(f"         {result.steps} model turns, ${result.cost_usd:.6f}")
    await gate.aclose()


class ScriptedApi(BaseHTTPRequestHandler):
    """Stands in for the API: asks for the ticket until there is an address, then answers."""

    def do_HEAD(self) -> None:
        """Be there."""
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        """Answer as a stream of events."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        last = str(body["messages"][-1]["content"])
        block: dict[str, Any] = {"type": "text", "text": ""}
        delta: dict[str, Any] = {"type": "text_delta", "text": "Done."}
        if body.get("tools") and "https://tickets" not in last:
            name = body["tools"][-1]["name"]
            block = {"type": "tool_use", "id": f"toolu_{len(body['messages'])}", "name": name, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps({"title": "Login fails"})}
        head = {"id": "m", "type": "message", "role": "assistant", "model": body["model"], "content": []}
        start = {**head, "stop_reason": None, "usage": {"input_tokens": 200, "output_tokens": 1}}
        stop = "tool_use" if block["type"] == "tool_use" else "end_turn"
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 20}},
            {"type": "message_stop"},
        ]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in events:
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def main() -> None:
    """Run both, with an API of their own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), ScriptedApi)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    api = f"http://127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        asyncio.run(bare(api, home))
        asyncio.run(guarded(api, home))
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    main()
