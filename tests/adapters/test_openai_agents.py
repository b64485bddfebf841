"""OpenAI Agents SDK: its own runner, its own tools; only the model is scripted, by the SDK's own testing model."""

from __future__ import annotations

import asyncio
import json

import pytest
from adapter_scenes import Remote
from agents import (
    Agent,
    MaxTurnsExceeded,
    ModelBehaviorError,
    RunConfig,
    RunHooks,
    Runner,
    function_tool,
    handoff,
)
from agents.mcp import MCPServerStdio
from agents.testing import ScriptedModel
from agents.usage import Usage
from mcp.types import CallToolResult, ListToolsResult, Tool
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseFunctionWebSearch,
    ResponseOutputMessage,
    ResponseOutputText,
)
from pydantic import BaseModel

import interlock
from interlock.adapters import idempotency_key, openai_agents
from interlock.core.reasons import StopReason
from interlock.gateway.tools import current_run

BARE = RunConfig(tracing_disabled=True)


def use(name, args, call_id="c1"):
    raw = args if isinstance(args, str) else json.dumps(args)
    return ResponseFunctionToolCall(type="function_call", call_id=call_id, name=name, arguments=raw, id=f"fc_{call_id}")


def say(text):
    part = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[part])


def scripted(*turns):
    return ScriptedModel([list(turn) if isinstance(turn, tuple) else [turn] for turn in turns])


def outputs(native):
    """What the model was told of its tool uses."""
    items = native.new_items
    return [item.output for item in items if item.type == "tool_call_output_item"]


def ticket_tool(remote):
    @function_tool
    async def create_ticket(title: str) -> str:
        """Create a ticket."""
        return json.dumps(remote.act(title, idempotency_key()))

    return create_ticket


async def guarded(gate, agent, text="go", **options):
    options.setdefault("run_config", BARE)
    return await openai_agents.run(gate, agent, text, **options)


async def test_bare_an_obedient_model_makes_a_ticket_each_time_and_is_told_to_try_again():
    remote = Remote(lost=2)
    model = scripted(*(use("create_ticket", {"title": "t"}, f"c{i}") for i in range(3)), say("done"))
    result = await Runner.run(Agent(name="a", model=model, tools=[ticket_tool(remote)]), "go", run_config=BARE)
    assert len(remote.effects) == 3
    assert "Please try again" in outputs(result)[0]


async def test_a_lost_answer_is_sent_again_under_one_key_and_the_model_is_not_asked_to(opened):
    remote = Remote(lost=2)
    gate = opened(writes={"create_ticket": {"on_unknown": "resend"}})
    model = scripted(use("create_ticket", {"title": "t"}), use("create_ticket", {"title": "t"}, "c2"), say("done"))
    agent = Agent(name="a", model=model, tools=[ticket_tool(remote)])
    tools, inner = list(agent.tools), agent.model
    result = await guarded(gate, agent, request_id="r1")
    assert (result.reason, result.output, len(remote.effects), remote.sends) == ("success", "done", 1, 3)
    assert outputs(result.native)[0] == '{"n": 1}'
    assert agent.tools == tools, "the agent is as it was"
    assert agent.model is inner


async def test_an_unknown_outcome_stops_at_the_next_model_turn_with_all_that_was_said(opened):
    remote = Remote(lost=1)
    model = scripted((say("I make it."), use("create_ticket", {"title": "t"})), say("never asked"))
    result = await guarded(opened(), Agent(name="a", model=model, tools=[ticket_tool(remote)]), request_id="r1")
    assert (result.reason, result.steps, len(remote.effects)) == ("outcome_unknown", 1, 1)
    assert result.parked
    assert result.details["partial"]["text"] == "I make it."
    assert [item.type for item in result.native.new_items][-1] == "tool_call_output_item"
    assert "may have happened; it will not be sent again" in outputs(result.native)[0]
    assert len(model.calls) == 1


async def test_siblings_of_a_refused_call_settle(opened):
    remote, done = Remote(), []

    @function_tool
    async def slow_write(title: str) -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done.append(title)
        return "written"

    model = scripted((use("slow_write", {"title": "a"}, "c1"), use("create_ticket", {"title": "t"}, "c2")), say("done"))
    gate = opened(allow=["slow_write"])
    result = await guarded(gate, Agent(name="a", model=model, tools=[slow_write, ticket_tool(remote)]))
    assert (result.reason, done, remote.effects) == ("success", ["a"], [])
    assert outputs(result.native) == [
        "written",
        "This tool is not permitted here. It was not executed, and will not be.",
    ]


async def test_agents_that_are_handed_off_to_are_guarded_with_their_own_models(opened):
    remote = Remote()
    gate = opened(deny=["create_ticket"])
    last = Agent(
        name="last", model=scripted(use("create_ticket", {"title": "t"}), say("no")), tools=[ticket_tool(remote)]
    )
    first = Agent(name="first", model=scripted(use("transfer_to_last", {})), handoffs=[handoff(last)])
    last.handoffs = [first]  # a circle
    result = await guarded(gate, first)
    assert (result.reason, result.output, result.steps, remote.effects) == ("success", "no", 3, [])
    assert result.native.last_agent.name == "last"


async def test_an_agent_as_a_tool_works_in_a_child_and_its_stop_is_no_invitation(opened):
    remote = Remote(lost=1)
    helper = Agent(name="helper", model=scripted(use("create_ticket", {"title": "t"})), tools=[ticket_tool(remote)])
    model = scripted(use("helper", {"input": "x"}))
    agent = Agent(name="a", model=model, tools=[helper.as_tool("helper", "Helps.")])
    result = await guarded(opened(), agent, request_id="r1")
    assert (result.reason, len(remote.effects)) == ("outcome_unknown", 1)
    assert "again." not in outputs(result.native)[0].replace("sent again.", "")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_as_a_tool_has_one_child_streamed_or_not(opened, stream):
    seen, events = [], []

    @function_tool
    async def where() -> str:
        seen.append(current_run.get().scope.path)
        return "here"

    helper = Agent(name="helper", model=scripted(use("where", {}), say("found")), tools=[where])
    on_stream = events.append if stream else None
    agent = Agent(
        name="a",
        model=scripted(use("ask", {"input": "x"}), say("done")),
        tools=[helper.as_tool("ask", "", on_stream=on_stream)],
    )
    result = await guarded(opened(), agent, request_id="r1")
    assert (result.output, result.steps, seen, bool(events)) == ("done", 4, ["/ask"], stream)


async def test_agents_that_tools_run_by_themselves_are_guarded_too(opened):
    remote = Remote()
    inner = Agent(
        name="inner", model=scripted(use("create_ticket", {"title": "t"}), say("x")), tools=[ticket_tool(remote)]
    )

    @function_tool
    async def delegate() -> str:
        return (await Runner.run(inner, "go", run_config=BARE)).final_output

    agent = Agent(name="a", model=scripted(use("delegate", {}), say("done")), tools=[delegate])
    result = await guarded(opened(deny=["create_ticket"]), agent)
    assert (result.output, remote.effects, result.steps) == ("done", [], 4)


async def test_turns_are_charged_and_a_dollar_cap_stops_before_the_next(opened):
    gate = opened(
        agent={"budgets": {"max_usd": 0.013}},
        prices={"openai:ScriptedModel": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}},
        effects={"look": "read"},
    )

    @function_tool
    def look(at: int) -> int:
        return at

    model = ScriptedModel(
        [
            {
                "output": [use("look", {"at": i}, f"c{i}")],
                "usage": Usage(requests=1, input_tokens=6000, output_tokens=0),
            }
            for i in range(5)
        ]
    )
    seen = []
    for on_event in (None, seen.append):
        result = await guarded(gate, Agent(name="a", model=model, tools=[look]), on_event=on_event)
        assert (result.reason, result.steps) == ("cost_budget", 2)
        assert result.cost_usd == pytest.approx(0.012)
    assert any(event.type == "run_item_stream_event" for event in seen)


async def test_a_streamed_run_gives_its_events_and_its_result(opened):
    remote, seen = Remote(), []
    model = scripted(use("create_ticket", {"title": "t"}), say("done"))

    async def on_event(event):
        seen.append(event.type)

    result = await guarded(
        opened(), Agent(name="a", model=model, tools=[ticket_tool(remote)]), on_event=on_event, request_id="r1"
    )
    assert (result.output, result.steps, len(remote.effects)) == ("done", 2, 1)
    assert "raw_response_event" in seen


async def test_a_second_delivery_gets_the_stored_outcome(opened):
    remote, gate = Remote(), opened()
    agent = Agent(
        name="a", model=scripted(use("create_ticket", {"title": "t"}), say("done")), tools=[ticket_tool(remote)]
    )
    first = await guarded(gate, agent, request_id="r1")
    again = await guarded(gate, agent, request_id="r1")
    assert (first.run_id, first.output) == (again.run_id, again.output)
    assert again.replayed
    assert again.native is None
    assert len(remote.effects) == 1


async def test_what_a_model_calls_without_having_it_is_refused_on_record(opened):
    gate = opened()
    model = scripted(use("ticket_purge", {"all": True}), use("create_ticket", "{", "c2"), say("done"))
    kept = []

    async def work(run, text):
        result = await Runner.run(Agent(name="a", model=model, tools=[ticket_tool(Remote())]), text, run_config=BARE)
        kept.extend(run.scope.trace.rows())
        return outputs(result)

    openai_agents.install(gate)
    result = await gate.run(work, "go")
    assert [(row["tool"], row["status"]) for row in kept] == [
        ("ticket_purge", "denied"),
        ("create_ticket", "invalid_arguments"),
    ]
    assert all("ot executed" in text for text in result.output)


async def test_arguments_that_do_not_fit_say_what_does_not(opened):
    model = scripted(use("create_ticket", {"title": 7, "text": "?"}), say("done"))
    result = await guarded(opened(), Agent(name="a", model=model, tools=[ticket_tool(Remote())]))
    assert outputs(result.native)[0].startswith("The arguments do not fit the tool's schema (")
    assert "title" in outputs(result.native)[0]


async def test_one_call_id_for_two_calls_is_two_calls(opened):
    remote = Remote()
    model = scripted(use("create_ticket", {"title": "a"}), use("create_ticket", {"title": "b"}), say("done"))
    result = await guarded(opened(), Agent(name="a", model=model, tools=[ticket_tool(remote)]))
    assert (result.reason, remote.effects) == ("success", ["a", "b"])


async def test_bare_one_call_id_for_two_calls_ends_the_run():
    model = scripted(use("create_ticket", {"title": "a"}), use("create_ticket", {"title": "b"}), say("done"))
    with pytest.raises(ModelBehaviorError):
        await Runner.run(Agent(name="a", model=model, tools=[ticket_tool(Remote())]), "go", run_config=BARE)


async def test_a_decorated_tool_is_the_gates_own_with_its_key(opened):
    remote, gate = Remote(lost=1), opened()

    @gate.tool("ticket.create", effect="write")
    async def create_ticket(title: str, *, idempotency_key: str) -> dict:
        """Create a ticket."""
        return remote.act(title, idempotency_key)

    tool = openai_agents.function_tool(create_ticket)
    assert "idempotency_key" not in tool.params_json_schema["properties"]
    model = scripted(use("create_ticket", {"title": "t"}), say("done"))
    result = await guarded(gate, Agent(name="a", model=model, tools=[tool]), request_id="r1")
    assert (result.reason, len(remote.effects), remote.sends) == ("success", 1, 2)


async def test_a_parameter_called_idempotency_key_is_hidden_and_filled(opened):
    remote = Remote(lost=1)

    @function_tool
    def create_ticket(title: str, *, idempotency_key: str) -> str:
        """Create a ticket."""
        return json.dumps(remote.act(title, idempotency_key))

    model = scripted(use("create_ticket", {"title": "t"}), say("done"))
    gate = opened(writes={"create_ticket": {"on_unknown": "resend"}})
    result = await guarded(gate, Agent(name="a", model=model, tools=[create_ticket]))
    offered = model.calls[0].tools[0].params_json_schema
    assert list(offered["properties"]) == offered["required"] == ["title"]
    assert (result.reason, len(remote.effects), remote.sends) == ("success", 1, 2)


async def test_tools_that_a_hook_adds_on_the_way_are_guarded(opened):
    remote = Remote()

    class Adds(RunHooks):
        async def on_agent_start(self, context, agent):
            agent.tools.append(ticket_tool(remote))

    model = scripted(use("create_ticket", {"title": "t"}), say("done"))
    result = await guarded(opened(deny=["create_ticket"]), Agent(name="a", model=model), hooks=Adds())
    assert (result.output, remote.effects) == ("done", [])


async def test_hosted_tools_are_reported_as_not_guarded(opened):
    gate, rows = opened(), []
    search = ResponseFunctionWebSearch.model_validate(
        {"id": "ws", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
    )
    openai_agents.install(gate)

    async def work(run, text):
        await Runner.run(Agent(name="a", model=scripted((search, say("found")))), text, run_config=BARE)
        rows.extend(run.scope.trace.rows())

    await gate.run(work, "go")
    assert [(row["tool"], row["status"]) for row in rows] == [("web_search", "not_guarded_hosted")]


async def test_the_sdks_own_approval_parks_and_its_yes_counts(opened):
    remote = Remote()

    @function_tool(needs_approval=True)
    async def refund(order: str) -> str:
        """Refund an order."""
        return json.dumps(remote.act(order))

    gate = opened(writes={"refund": {"approval": "required"}})
    agent = Agent(name="a", model=scripted(use("refund", {"order": "o1"}), say("done")), tools=[refund])
    parked = await guarded(gate, agent, request_id="r1")
    assert (parked.reason, parked.parked, remote.effects) == ("approval_pending", True, [])
    state = parked.native.to_state()
    state.approve(parked.native.interruptions[0])
    done = await guarded(gate, agent, state, request_id="r1", payload="go", retry=True)
    assert (done.reason, done.output, remote.effects) == ("success", "done", ["o1"])


async def test_an_approval_that_the_gate_demands_can_be_the_sdks_own_interruption(opened):
    remote = Remote()
    gate = opened(writes={"create_ticket": {"approval": "required"}})
    model = scripted(use("create_ticket", {"title": "t"}), say("done"))
    agent = Agent(name="a", model=model, tools=[ticket_tool(remote)])
    parked = await guarded(gate, agent, request_id="r1", approvals="framework")
    assert (parked.reason, parked.parked, remote.effects) == ("approval_pending", True, [])
    assert await gate.house().store.approvals.list() == []
    state = parked.native.to_state()
    state.approve(parked.native.interruptions[0])
    done = await guarded(gate, agent, state, request_id="r1", payload="go", retry=True, approvals="framework")
    assert (done.reason, done.output, remote.effects) == ("success", "done", ["t"])


async def test_an_approval_that_the_gate_demands_waits_in_the_store(opened):
    remote = Remote()
    gate = opened(writes={"create_ticket": {"approval": "required"}}, approvals={"wait_s": 0})
    agent = Agent(name="a", model=scripted(use("create_ticket", {"title": "t"})), tools=[ticket_tool(remote)])
    parked = await guarded(gate, agent, request_id="r1")
    assert (parked.reason, remote.effects) == ("approval_pending", [])
    assert "waits for a person" in outputs(parked.native)[0]
    approvals = gate.house().store.approvals
    (row,) = await approvals.list()
    await approvals.decide(row.id, True, "me")
    agent.model = scripted(say("done"))
    done = await guarded(gate, agent, request_id="r1")
    assert (done.reason, done.output, remote.effects) == ("success", "done", ["t"])


async def test_the_runners_own_cap_of_turns_is_a_step_budget(opened):
    gate = opened(effects={"look": "read"})

    @function_tool
    def look(at: int) -> int:
        return at

    model = scripted(*(use("look", {"at": i}, f"c{i}") for i in range(4)))
    result = await guarded(gate, Agent(name="a", model=model, tools=[look]), max_turns=3)
    assert (result.reason, result.steps, result.details["budget"]) == ("step_budget", 3, "max_turns")
    assert result.details["error"] == MaxTurnsExceeded.__name__


async def test_a_last_turn_has_no_tools(opened):
    gate = opened(
        agent={"budgets": {"max_usd": None, "max_tool_calls": 1}, "on_stop": "wrap_up"}, effects={"look": "read"}
    )

    @function_tool
    def look(at: int) -> int:
        return at

    model = scripted((use("look", {"at": 1}, "c1"), use("look", {"at": 2}, "c2")), say("what there is"))
    result = await guarded(gate, Agent(name="a", model=model, tools=[look]))
    assert (result.reason, result.details["partial"]) == ("tool_budget", "what there is")
    assert model.calls[-1].tools == []


class Verdict(BaseModel):
    good: bool


async def test_a_typed_output_is_kept_as_json(opened):
    gate = opened()
    agent = Agent(name="a", model=scripted(say('{"good": true}')), output_type=Verdict)
    result = await guarded(gate, agent, request_id="r1")
    assert result.output == {"good": True}
    assert result.native.final_output == Verdict(good=True)
    assert (await guarded(gate, agent, request_id="r1")).output == {"good": True}


class LosesAnswers:
    """An MCP session whose remote acts, and whose answers get lost."""

    def __init__(self, remote):
        self.remote = remote

    async def list_tools(self, **_):
        tool = Tool.model_validate({"name": "create_ticket", "inputSchema": {"type": "object", "properties": {}}})
        return ListToolsResult(tools=[tool])

    async def call_tool(self, name, arguments, **_):
        self.remote.act("t")
        return CallToolResult.model_validate({"content": [{"type": "text", "text": "made"}]})


def mcp_server(remote):
    server = MCPServerStdio({"command": "true"}, name="tickets", max_retry_attempts=3, retry_backoff_seconds_base=0.0)
    server.session = LosesAnswers(remote)
    return server


async def test_bare_an_mcp_server_of_the_sdk_repeats_a_write_by_itself():
    remote = Remote(lost=3)
    model = scripted(use("create_ticket", {}), say("done"))
    await Runner.run(Agent(name="a", model=model, mcp_servers=[mcp_server(remote)]), "go", run_config=BARE)
    assert len(remote.effects) == 4


async def test_tools_of_mcp_servers_pass_the_funnel_and_the_sdk_repeats_nothing(opened):
    remote = Remote(lost=3)
    server = mcp_server(remote)
    result = await guarded(
        opened(), Agent(name="a", model=scripted(use("create_ticket", {})), mcp_servers=[server]), request_id="r1"
    )
    assert (result.reason, len(remote.effects)) == ("outcome_unknown", 1)
    assert "may have happened" in json.dumps(outputs(result.native)[0])
    assert server.max_retry_attempts == 3


async def test_an_mcp_tool_answers_natively(opened):
    remote = Remote()
    model = scripted(use("create_ticket", {}), use("create_ticket", "{", "c2"), say("done"))
    result = await guarded(opened(), Agent(name="a", model=model, mcp_servers=[mcp_server(remote)]))
    assert result.output == "done"
    assert outputs(result.native)[0] == {"type": "text", "text": "made"}
    assert outputs(result.native)[1] == "The arguments are not valid JSON. It was not executed."


async def test_an_approval_of_an_mcp_tool_can_be_the_sdks_own_interruption(opened):
    remote = Remote()
    gate = opened(writes={"create_ticket": {"approval": "required"}})
    model = scripted(use("create_ticket", {}), say("done"))
    agent = Agent(name="a", model=model, mcp_servers=[mcp_server(remote)])
    parked = await guarded(gate, agent, request_id="r1", approvals="framework")
    assert (parked.reason, parked.parked, remote.effects) == ("approval_pending", True, [])
    assert await gate.house().store.approvals.list() == []
    state = parked.native.to_state()
    state.approve(parked.native.interruptions[0])
    done = await guarded(gate, agent, state, request_id="r1", payload="go", retry=True, approvals="framework")
    assert (done.reason, done.output, remote.effects) == ("success", "done", ["t"])


async def test_outside_of_runs_nothing_changes(opened):
    openai_agents.install(opened(deny=["*"]))
    remote = Remote()
    model = scripted(use("create_ticket", {"title": "t"}), say("done"))
    result = await Runner.run(Agent(name="a", model=model, tools=[ticket_tool(remote)]), "go", run_config=BARE)
    assert (result.final_output, remote.effects) == ("done", ["t"])


def test_sync_code_runs_it_too():
    from adapter_scenes import make_gate

    remote, gate = Remote(), make_gate()
    model = scripted(use("create_ticket", {"title": "t"}), say("done"))
    agent = Agent(name="a", model=model, tools=[ticket_tool(remote)])
    result = openai_agents.run_sync(gate, agent, "go", run_config=BARE)
    gate.close()
    assert (result.output, result.steps, remote.effects) == ("done", 2, ["t"])


async def test_while_observing_the_sdk_does_as_it_always_did(opened):
    remote = Remote(lost=1)
    model = scripted(use("create_ticket", {"title": "t"}), say("done"))
    result = await guarded(opened(mode="observe"), Agent(name="a", model=model, tools=[ticket_tool(remote)]))
    assert result.reason is StopReason.SUCCESS
    assert "Please try again" in outputs(result.native)[0]


def test_the_stop_is_both_ours_and_the_sdks():
    from agents import AgentsException

    assert issubclass(openai_agents.Stopped, interlock.RunStopped)
    assert issubclass(openai_agents.Stopped, AgentsException)
