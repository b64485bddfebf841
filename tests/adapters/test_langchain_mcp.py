"""MCP tools through langchain-mcp-adapters, from a real server over stdio. Runs where that package fits (mcp below 2)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_mcp_adapters")

from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_scene import agent, asks, gate, given, model, says, use

from interlock import StopReason

SERVER = '''
import pathlib, sys
from mcp.server.fastmcp import FastMCP

server = FastMCP("tickets")
world = pathlib.Path(sys.argv[1])

@server.tool()
def ticket(title: str) -> dict[str, str]:
    """Create a ticket."""
    with world.open("a") as file:
        file.write(title + "\\n")
    if title == "lost":
        raise RuntimeError("the answer is lost, please try again")
    return {"url": title}

server.run()
'''


async def test_tools_of_an_mcp_server_pass_the_funnel(tmp_path: Path) -> None:
    server, world = tmp_path / "server.py", tmp_path / "world"
    server.write_text(SERVER)
    connection: Any = {"transport": "stdio", "command": sys.executable, "args": [str(server), str(world)]}
    tools = await MultiServerMCPClient({"tickets": connection}).get_tools()
    script = (
        asks(use("ticket", title="a"), use("ticket", "c2", title=7)),
        asks(use("ticket", "c3", title="a")),
        asks(use("ticket", "c4", title="lost")),
    )
    async with gate() as g:
        work = agent(g, model(*script, says("done")), tools)
        kept: dict[str, Any] = {}

        async def body(_run: Any, _task: str) -> str:
            kept["state"] = await work.ainvoke(given())
            return kept["state"]["messages"][-1].text

        result = await g.run(body, "go", request_id="r1")
    assert result.reason is StopReason.OUTCOME_UNKNOWN, result.details
    assert world.read_text().split() == ["a", "lost"]
