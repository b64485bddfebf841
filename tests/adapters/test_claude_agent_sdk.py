"""Claude Agent SDK: its own command line, pointed at the scripted model of the conformance matrix."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager

import claude_agent_sdk as sdk
import pytest
from adapter_scenes import Remote
from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, HookMatcher, ResultMessage, StreamEvent, tool
from conformance.conversation import Turn, Use
from conformance.model import ModelServer

from interlock.adapters import claude_agent_sdk, idempotency_key
from interlock.core.errors import NoRun

pytestmark = pytest.mark.process

READY = {"agent": {"budgets": {"max_usd": None, "max_seconds": 60}}}


@asynccontextmanager
async def scene(tmp_path, *turns):
    """Serve a model that says these turns, and return it with options for a session that asks it."""
    server = ModelServer(
        lambda _: lambda seen: turns[min(seen.turn, len(turns)) - 1], lambda _: False, lambda seen: bool(seen.offered)
    )
    await server.start()
    env = {
        "ANTHROPIC_BASE_URL": f"{server.url}/s/1",
        "ANTHROPIC_API_KEY": "x",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "ENABLE_TOOL_SEARCH": "false",
        "HOME": str(tmp_path),
        "IS_SANDBOX": "1",
    }

    def options(**more):
        given = {
            "model": "claude-sonnet-4-5",
            "system_prompt": "x",
            "setting_sources": [],
            "cwd": str(tmp_path),
            "env": env,
        }
        return ClaudeAgentOptions(**{**given, **more})

    try:
        yield server, options
    finally:
        await server.close()


def ticket_tool(remote):
    @tool("ticket_create", "Create a ticket.", {"title": str})
    async def ticket_create(args):
        return {"content": [{"type": "text", "text": json.dumps(remote.act(args["title"], idempotency_key()))}]}

    return ticket_create


def told(server):
    return server.asked("s").told()


async def test_its_own_tools_have_the_whole_funnel(opened, tmp_path):
    remote = Remote(lost=2)
    gate = opened(writes={"ticket_create": {"on_unknown": "resend"}}, **READY)
    ask = Use("ticket_create", {"title": "t"})
    async with scene(tmp_path, Turn((ask,)), Turn((ask,)), Turn(text="done")) as (server, options):
        tools = claude_agent_sdk.create_sdk_mcp_server(gate, "work", tools=[ticket_tool(remote)])
        given = options(mcp_servers={"work": tools}, allowed_tools=["mcp__work"], tools=[])
        seen = []
        result = await claude_agent_sdk.run(gate, "go", given, request_id="r1", on_message=seen.append)
        assert (result.reason, result.output, result.steps) == ("success", "done", 3)
        assert (len(remote.effects), remote.sends) == (1, 3), "two lost answers, one effect; the repeat is replayed"
        assert told(server)[0].startswith('{"n": 1}')
        assert result.tokens == 3 * 1_050
        assert isinstance(result.native[-1], ResultMessage)
        assert tuple(seen) == result.native
        assert not any(isinstance(message, StreamEvent) for message in seen)
        assert given.hooks is None, "the application's options stay as they are"
        again = await claude_agent_sdk.run(gate, "go", given, request_id="r1")
        assert (again.output, again.replayed, again.native) == ("done", True, ())


async def test_an_unknown_outcome_ends_the_session_after_its_batch(opened, tmp_path):
    remote = Remote(lost=1)
    gate = opened(effects={"look_read": "read"}, **READY)

    @tool("look_read", "Look.", {"at": str})
    async def look_read(args):
        return {"content": [{"type": "text", "text": args["at"]}]}

    uses = (Use("ticket_create", {"title": "t"}), Use("look_read", {"at": "here"}))
    async with scene(tmp_path, Turn(uses, text="I try."), Turn(text="never")) as (server, options):
        tools = claude_agent_sdk.create_sdk_mcp_server(gate, "work", tools=[ticket_tool(remote), look_read])
        given = options(mcp_servers={"work": tools}, allowed_tools=["mcp__work"], tools=[])
        result = await claude_agent_sdk.run(gate, "go", given, request_id="r1")
        assert (result.reason, result.steps, len(remote.effects)) == ("outcome_unknown", 1, 1)
        assert result.details["partial"] == {"text": "I try."}
        assert server.asked("s").requests == 1


async def test_tools_of_the_command_line_are_judged_before_and_settled_after(opened, tmp_path):
    gate = opened(deny=["Write"], writes={"Bash": {"repeat": "allow"}}, **READY)
    uses = (
        Use("Bash", {"command": "echo one >> effects"}),
        Use("Write", {"file_path": str(tmp_path / "no"), "content": "x"}),
    )
    rows = []
    async with scene(tmp_path, Turn(uses), Turn(text="done")) as (server, options):

        async def work(run, prompt):
            async for _ in claude_agent_sdk.query(
                gate, prompt=prompt, options=options(allowed_tools=["Bash", "Write"])
            ):
                pass
            rows.extend(run.scope.trace.rows())

        result = await gate.run(work, "go")
        assert result.reason == "success"
        assert [(row["tool"], row["status"], row["attempts"]) for row in rows] == [
            ("Bash", "success", 1),
            ("Write", "denied", 0),
        ]
        assert (tmp_path / "effects").read_text() == "one\n"
        assert not (tmp_path / "no").exists()
        assert any("This tool is not permitted here. It was not executed" in text for text in told(server))


async def test_beside_guarded_tools_those_of_the_command_line_are_settled_by_its_hooks(opened, tmp_path):
    remote = Remote()
    gate = opened(writes={"ticket_create": {"on_unknown": "resend"}}, **READY)
    uses = (Use("ticket_create", {"title": "t"}), Use("Bash", {"command": "echo one >> effects"}))
    async with scene(tmp_path, Turn(uses), Turn(text="done")) as (_, options):
        tools = claude_agent_sdk.create_sdk_mcp_server(gate, "work", tools=[ticket_tool(remote)])
        given = options(mcp_servers={"work": tools}, allowed_tools=["mcp__work", "Bash"])
        async with gate.open_run("go") as run:
            opened_session = claude_agent_sdk.session(gate, run, given)
            for event in ("PreToolUse", "PostToolUse"):
                judged = opened_session.options.hooks[event][0].matcher
                assert not re.search(judged, "mcp__work__ticket_create"), "no message for what its handler does"
                for other in ("Bash", "mcp__work__ticket_create_all", "mcp__work__other__ticket_create"):
                    assert re.search(judged, other), "a name that only begins like it is no guarded tool's"
            async for _ in opened_session.read(sdk.query(prompt="go", options=opened_session.options)):
                pass
            rows = [(row["tool"], row["status"], row["attempts"]) for row in run.scope.trace.rows()]
        assert sorted(rows) == [("Bash", "success", 1), ("ticket_create", "success", 1)]
        assert (len(remote.effects), (tmp_path / "effects").read_text()) == (1, "one\n")


async def test_a_write_of_the_command_line_that_fails_is_in_doubt(opened, tmp_path):
    gate = opened(**READY)
    async with scene(tmp_path, Turn((Use("Bash", {"command": "exit 3"}),)), Turn(text="never")) as (server, options):
        result = await claude_agent_sdk.run(gate, "go", options(allowed_tools=["Bash"]), request_id="r1")
        assert (result.reason, result.steps) == ("outcome_unknown", 1)
        assert server.asked("s").requests == 1


async def test_an_equal_write_of_the_command_line_is_answered_from_the_record(opened, tmp_path):
    gate = opened(**READY)
    ask = Use("Bash", {"command": "echo one >> effects; echo made"})
    async with scene(tmp_path, Turn((ask,)), Turn((ask,)), Turn(text="done")) as (server, options):
        result = await claude_agent_sdk.run(gate, "go", options(allowed_tools=["Bash"]), request_id="r1")
        assert result.reason == "success"
        assert (tmp_path / "effects").read_text() == "one\n"
        assert "made" in told(server)[1]
        assert "done before" in told(server)[1]


async def test_what_its_permissions_refuse_was_not_done(opened, tmp_path):
    gate = opened(**READY)
    use = Use("Write", {"file_path": str(tmp_path / "no"), "content": "x"})
    async with scene(tmp_path, Turn((use,)), Turn(text="done")) as (_server, options):
        result = await claude_agent_sdk.run(gate, "go", options(), request_id="r1")
        assert (result.reason, result.output) == ("success", "done")
        assert not (tmp_path / "no").exists()


async def test_hooks_of_the_application_stay_and_ours_fail_closed(opened, tmp_path):
    gate, seen = opened(**READY), []

    async def theirs(given, _id, _context):
        seen.append(given["tool_name"])
        return {}

    async with scene(tmp_path, Turn((Use("Bash", {"command": "echo hi"}),)), Turn(text="done")) as (server, options):
        given = options(hooks={"PreToolUse": [HookMatcher(hooks=[theirs])]}, allowed_tools=["Bash"])

        async def work(run, prompt):
            opened_ = claude_agent_sdk.session(gate, run, given)
            opened_._seam = None  # a defect of ours
            async for _ in opened_.read(sdk.query(prompt=prompt, options=opened_.options)):
                pass

        await gate.run(work, "go")
        assert seen == ["Bash"]
        assert "hi" not in told(server)[0]
        assert "blocking" in told(server)[0]


async def test_a_client_of_the_applications_own(opened, tmp_path):
    remote, gate = Remote(), opened(**READY)
    async with scene(tmp_path, Turn((Use("ticket_create", {"title": "t"}),)), Turn(text="done")) as (_server, options):
        tools = claude_agent_sdk.create_sdk_mcp_server(gate, "work", tools=[ticket_tool(remote)])
        given = options(mcp_servers={"work": tools}, allowed_tools=["mcp__work"], tools=[])
        async with gate.open_run("go") as run:
            session = claude_agent_sdk.session(gate, run, given)
            async with ClaudeSDKClient(options=session.options) as client:
                await client.query("go")
                async for message in session.read(client.receive_response()):
                    if isinstance(message, ResultMessage):
                        run.output = message.result
        assert (run.result.output, run.result.steps, remote.effects) == ("done", 2, ["t"])


async def test_the_sessions_own_cap_of_turns_is_a_step_budget(opened, tmp_path):
    gate = opened(effects={"look_read": "read"}, **READY)

    @tool("look_read", "Look.", {"at": str})
    async def look_read(args):
        return {"content": [{"type": "text", "text": args["at"]}]}

    turns = [Turn((Use("look_read", {"at": str(i)}),)) for i in range(5)]
    async with scene(tmp_path, *turns) as (_server, options):
        tools = claude_agent_sdk.create_sdk_mcp_server(gate, "work", tools=[look_read])
        given = options(mcp_servers={"work": tools}, allowed_tools=["mcp__work"], tools=[], max_turns=2)
        result = await claude_agent_sdk.run(gate, "go", given)
        # The third was begun, and then not asked: its cap comes after the end of a batch.
        assert (result.reason, result.steps) == ("step_budget", 3)
        assert result.details["subtype"] == "error_max_turns"


async def test_outside_a_run(opened):
    with pytest.raises(NoRun, match=r"gate\.run"):
        await anext(claude_agent_sdk.query(opened(), prompt="go"))


async def test_its_tools_outside_of_runs_are_what_they_were(opened):
    remote, gate = Remote(), opened(deny=["*"])
    config = claude_agent_sdk.create_sdk_mcp_server(gate, "work", tools=[ticket_tool(remote)])
    from mcp import Client

    async with Client(config["instance"]) as client:
        result = await client.call_tool("ticket_create", {"title": "t"})
    assert (result.content[0].text, remote.effects) == ('{"n": 1}', ["t"])


async def test_a_call_that_comes_without_its_id_is_found_by_what_it_says(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(claude_agent_sdk, "ID", "not said")  # as under `mcp` 1, where handlers cannot read it
    remote, gate = Remote(), opened(writes={"ticket_create": {"repeat": "allow"}}, **READY)
    uses = tuple(Use("ticket_create", {"title": title}) for title in ("a", "b"))
    async with scene(tmp_path, Turn(uses), Turn(text="done")) as (_server, options):
        tools = claude_agent_sdk.create_sdk_mcp_server(gate, "work", tools=[ticket_tool(remote)])
        given = options(mcp_servers={"work": tools}, allowed_tools=["mcp__work"], tools=[])
        async with gate.open_run("go") as run:
            session = claude_agent_sdk.session(gate, run, given)
            async for _ in session.read(sdk.query(prompt="go", options=session.options)):
                pass
            rows = [(row["tool"], row["status"]) for row in run.scope.trace.rows()]
    assert (rows, sorted(remote.effects)) == ([("ticket_create", "success")] * 2, ["a", "b"])


async def test_a_call_whose_arguments_do_not_fit_is_on_record(opened, tmp_path):
    remote, gate = Remote(), opened(**READY)
    async with scene(tmp_path, Turn((Use("ticket_create", {"title": 1}),)), Turn(text="done")) as (server, options):
        tools = claude_agent_sdk.create_sdk_mcp_server(gate, "work", tools=[ticket_tool(remote)])
        given = options(mcp_servers={"work": tools}, allowed_tools=["mcp__work"], tools=[])
        async with gate.open_run("go") as run:
            session = claude_agent_sdk.session(gate, run, given)
            async for _ in session.read(sdk.query(prompt="go", options=session.options)):
                pass
            rows = [(row["tool"], row["status"]) for row in run.scope.trace.rows()]
        assert (rows, remote.effects) == ([("ticket_create", "invalid_arguments")], [])
        assert "validation" in told(server)[0]


async def test_a_call_that_no_session_tells_of_is_guarded_nevertheless_or_refused(opened, monkeypatch):
    monkeypatch.setattr(claude_agent_sdk, "PATIENCE_S", 0.01)
    remote, gate = Remote(), opened(deny=["ticket_create"], **READY)
    from mcp import Client

    config = claude_agent_sdk.create_sdk_mcp_server(gate, "work", tools=[ticket_tool(remote)])
    options, said = ClaudeAgentOptions(mcp_servers={"work": config}), []
    async with Client(config["instance"]) as client, gate.open_run("go") as run:
        sessions = []
        for _ in range(2):
            sessions.append(claude_agent_sdk.session(gate, run, options))
            said.append((await client.call_tool("ticket_create", {"title": "t"})).content[0].text)
    assert remote.effects == []
    assert "not permitted" in said[0], "the one session there is: its messages are not read, but its run is known"
    assert "does not tell of it" in said[1]
