"""Pydantic AI behind the gate: its real runtime, with a model made of a function."""

import asyncio
import json
import subprocess
import sys
import threading

import pytest
from adapter_scenes import Remote
from fastmcp.client.transports import StdioTransport
from pydantic_ai import (
    Agent,
    ApprovalRequired,
    DeferredToolRequests,
    DeferredToolResults,
    ModelRetry,
    RunContext,
    Tool,
    ToolReturn,
)
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import AgentRunError, UserError
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.toolsets import FunctionToolset
from pydantic_ai.usage import RequestUsage

import interlock
from interlock import StopReason
from interlock.adapters.pydantic_ai import AgentStopped, interlock_capability
from interlock.journal.store import ClaimState, Settlement


class Script:
    """A model that answers turn by turn: a text, or the calls `(tool, args)` of one batch; then `done`."""

    def __init__(self, *turns, usage=None):
        self.turns = list(turns)
        self.usage = usage
        self.asked = 0
        self.told = []
        self.offered = []

    def see(self, info):
        """Look at what the model is offered."""

    def _say(self, messages, info):
        self.asked += 1
        self.see(info)
        self.offered.append([tool.name for tool in info.function_tools])
        self.told += [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
        n = sum(isinstance(message, ModelResponse) for message in messages)
        turn = self.turns[n] if n < len(self.turns) else "done"
        return [TextPart(turn)] if isinstance(turn, str) else [ToolCallPart(name, args) for name, args in turn]

    def reply(self, messages, info):
        used = {} if self.usage is None else {"usage": RequestUsage(**self.usage)}
        return ModelResponse(parts=self._say(messages, info), **used)

    async def stream(self, messages, info):
        for i, part in enumerate(self._say(messages, info)):
            if isinstance(part, TextPart):
                yield part.content
            else:
                args = part.args if isinstance(part.args, str) else json.dumps(part.args)
                yield {i: DeltaToolCall(name=part.tool_name, json_args=args, tool_call_id=f"call_{self.asked}_{i}")}

    def agent(self, gate, tools, *more, **words):
        capabilities = [*more, interlock_capability(gate, **words.pop("gate_words", {}))]
        model = FunctionModel(self.reply, stream_function=self.stream, model_name="m")
        return Agent(model, tools=tools, capabilities=capabilities, name="helper", **words)

    def texts(self):
        return [part.model_response_str() for part in self.told]


async def run(gate, agent, *, stream=False, **words):
    async def work(_run, task):
        if not stream:
            return (await agent.run(task)).output
        async with agent.run_stream(task) as reply:
            return await reply.get_output()

    return await gate.run(work, "go", **words)


def statuses(result_run):
    return [call["status"] for call in result_run.scope.trace.rows()]


def _pay(remote):
    def pay(order: str) -> dict:
        return remote.act(order)

    return pay


def raises(error):
    def tool(q: str) -> str:
        raise error

    return tool


@pytest.mark.parametrize("stream", [False, True])
async def test_a_lost_answer_is_asked_for_again_under_one_key(opened, stream):
    gate, remote = opened(), Remote(lost=1)

    @gate.tool("ticket.create", effect="write")
    async def create_ticket(title: str, *, idempotency_key: str) -> dict:
        """Create a ticket."""
        return remote.act(title, idempotency_key)

    script = Script([("create_ticket", {"title": "a"})])
    result = await run(gate, script.agent(gate, [create_ticket]), stream=stream)
    assert (result.reason, result.output, result.steps, result.tool_calls) == (StopReason.SUCCESS, "done", 2, 1)
    assert (remote.effects, remote.sends) == (["a"], 2)
    assert script.texts() == ['{"n":1}']


async def test_an_undecorated_tool_that_takes_a_key_gets_it_and_the_model_does_not_see_it(opened):
    gate, remote, schemas = opened(writes={"create_ticket": {"on_unknown": "resend"}}), Remote(lost=1), []

    def create_ticket(title: str, *, idempotency_key: str) -> dict:
        return remote.act(title, idempotency_key)

    script = Script([("create_ticket", {"title": "a"}), ("create_ticket", {"title": "b", "idempotency_key": "my own"})])
    script.see = lambda info: schemas.append(info.function_tools[0].parameters_json_schema)
    result = await run(gate, script.agent(gate, [create_ticket]))
    assert result.reason is StopReason.SUCCESS
    assert (remote.effects, remote.sends) == (["a", "b"], 3)
    assert all(key.startswith("il1_") for key in remote.keys)
    assert (list(schemas[0]["properties"]), schemas[0]["required"]) == (["title"], ["title"])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_batch_settles_and_the_run_stops_at_the_next_request(opened, stream):
    gate, remote, begun = opened(), Remote(), asyncio.Event()

    async def post(text: str) -> dict:
        await begun.wait()
        await asyncio.sleep(0.01)
        return remote.act(text)

    async def pay(order: str) -> dict:
        begun.set()
        raise TimeoutError

    script = Script([("pay", {"order": "o"}), ("post", {"text": "a"}), ("post", {"text": "b"})])
    errors = []

    async def work(_run, task):
        agent = script.agent(gate, [post, pay])
        try:
            if stream:
                async with agent.run_stream(task) as reply:
                    return await reply.get_output()
            return (await agent.run(task)).output
        except AgentRunError as error:
            errors.append(error)
            raise

    result = await gate.run(work, "go")
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert sorted(remote.effects) == ["a", "b"]
    assert script.asked == 1
    error = errors[0]
    assert isinstance(error, AgentStopped)
    assert (error.reason, error.result) == (StopReason.OUTCOME_UNKNOWN, None)
    returns = [part for part in error.messages[-1].parts if isinstance(part, ToolReturnPart)]
    assert [(part.tool_name, part.outcome) for part in returns] == [
        ("pay", "failed"),
        ("post", "success"),
        ("post", "success"),
    ]
    assert returns[0].content == "This write may have happened; it will not be sent again. Do not repeat it."
    assert len(result.details["partial"]["messages"]) == 3


async def test_what_there_was_to_say_is_kept(opened):
    gate = opened(agent={"budgets": {"max_usd": None, "max_steps": 1}})

    def both(messages, info):
        return ModelResponse(parts=[TextPart("I shall look."), ToolCallPart("look", {})])

    agent = Agent(
        FunctionModel(both),
        tools=[Tool(lambda: 1, name="look", metadata={"effect": "read"})],
        capabilities=[interlock_capability(gate)],
    )
    result = await run(gate, agent)
    assert result.reason is StopReason.STEP_BUDGET
    assert result.details["partial"]["text"] == "I shall look."


async def test_the_wrap_up_turn_has_no_tools_and_its_answer_is_kept(opened):
    gate = opened(agent={"budgets": {"max_usd": None, "max_steps": 1}, "on_stop": "wrap_up"})
    script = Script([("look", {"q": "a"})], "This is how far I came.")
    agent = script.agent(gate, [Tool(raises(KeyError()), name="look", metadata={"effect": "read"})])
    result = await run(gate, agent)
    assert result.reason is StopReason.STEP_BUDGET
    assert script.offered == [["look"], []]
    assert result.details["partial"] == "This is how far I came."


class Again(AbstractCapability):
    """Another capability that calls a failed tool twice more."""

    def __init__(self):
        self.tries = 0

    async def wrap_tool_execute(self, ctx, *, call, tool_def, args, handler):
        for _ in range(2):
            self.tries += 1
            try:
                return await handler(args)
            except Exception:
                continue
        self.tries += 1
        return await handler(args)


@pytest.mark.parametrize("first", [True, False])
async def test_the_retries_of_another_capability_cannot_multiply_a_write(opened, first):
    gate, remote, again = opened(), Remote(lost=9), Again()
    script = Script([("pay", {"order": "o"})])
    ours = interlock_capability(gate)
    capabilities = [ours, again] if first else [again, ours]
    agent = Agent(FunctionModel(script.reply), tools=[_pay(remote)], capabilities=capabilities)
    result = await run(gate, agent)
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert (remote.effects, again.tries) == (["o"], 3)


class Rewrites(AbstractCapability):
    """Another capability that changes arguments on their way."""

    async def before_tool_execute(self, ctx, *, call, tool_def, args):
        args["order"] = args["order"].strip()
        return args


async def test_the_key_is_of_the_arguments_that_are_sent(opened):
    gate, remote = opened(), Remote()
    script = Script([("pay", {"order": "o"})], [("pay", {"order": " o "})])
    result = await run(gate, script.agent(gate, [_pay(remote)], Rewrites()))
    assert result.reason is StopReason.SUCCESS
    assert remote.effects == ["o"]


async def test_a_retry_that_a_tool_asks_for_because_of_a_lost_answer_is_an_unknown_outcome(opened):
    gate, remote = opened(), Remote(lost=9)

    def pay(order: str) -> dict:
        try:
            return remote.act(order)
        except TimeoutError as error:
            raise ModelRetry("it did not work, try again") from error

    script = Script([("pay", {"order": "o"})], [("pay", {"order": "o"})])
    result = await run(gate, script.agent(gate, [pay], retries=5))
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert (remote.effects, script.asked) == (["o"], 1)


async def test_a_retry_that_a_tool_asks_for_of_its_own_accord_is_the_frameworks_and_nothing_was_done(opened):
    gate, remote = opened(), Remote()

    def pay(order: str) -> dict:
        if not order.startswith("o-"):
            raise ModelRetry("order ids begin with o-")
        return remote.act(order)

    script = Script([("pay", {"order": "1"})], [("pay", {"order": "o-1"})])
    result = await run(gate, script.agent(gate, [pay]))
    assert (result.reason, remote.effects) == (StopReason.SUCCESS, ["o-1"])
    assert [part.outcome for part in script.told] == ["retried", "success"]
    assert "order ids begin with o-" in script.told[0].model_response_str()


async def test_a_sync_write_that_outlives_the_frameworks_timeout_settles_its_claim_and_is_not_sent_twice(opened):
    gate, remote, late = opened(), Remote(), threading.Event()

    def pay(order: str) -> dict:
        late.wait()
        return remote.act(order)

    script = Script([("pay", {"order": "o"})], [("pay", {"order": "o"})])
    agent = script.agent(gate, [Tool(pay, timeout=0.05)])
    first = await run(gate, agent, request_id="r1")
    assert first.reason is StopReason.OUTCOME_UNKNOWN
    late.set()
    for _ in range(1_000):
        if not await gate.house().store.doubts():
            break
        await asyncio.sleep(0.01)
    again = await run(gate, agent, request_id="r1")
    assert (again.reason, again.run_id) == (StopReason.SUCCESS, first.run_id)
    assert remote.effects == ["o"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_resumed_run_answers_recorded_turns_without_the_model(opened, stream):
    gate, remote = opened(), Remote(lost=1)
    script = Script([("look", {"q": "a"})], [("pay", {"order": "o"})])
    reads = []

    def look(q: str) -> str:
        reads.append(q)
        return "found"

    agent = script.agent(gate, [Tool(look, metadata={"effect": "read"}), _pay(remote)])
    parked = await run(gate, agent, stream=stream, request_id="r1")
    assert (parked.reason, script.asked) == (StopReason.OUTCOME_UNKNOWN, 2)
    key = bytes.fromhex(parked.details["doubts"][0])
    assert await gate.house().store.settle(key, Settlement(ClaimState.DONE, b'{"n":1}', by="anna", reason="looked"))
    script.told.clear()
    result = await run(gate, agent, stream=stream, request_id="r1")
    assert (result.output, result.run_id) == ("done", parked.run_id)
    assert (script.asked, reads, remote.effects) == (3, ["a"], ["o"])
    assert script.texts() == ['{"n":1}']
    assert (result.steps, result.tool_calls) == (3, 2)


async def test_what_the_model_may_not_call_is_refused_on_record_and_told_by_the_framework(opened):
    gate, rows = opened(deny=["secret"]), []
    offered = FunctionToolset(
        [Tool(raises(AssertionError()), name="known"), Tool(raises(AssertionError()), name="hidden")]
    )
    script = Script(
        [
            ("nope", {"a": 1}),
            ("hidden", {"q": "a"}),
            ("known", {"q": 1}),
            ("known", "{not json"),
            ("secret", {"q": "a"}),
        ]
    )
    agent = Agent(
        FunctionModel(script.reply),
        toolsets=[offered.filtered(lambda ctx, tool: tool.name != "hidden")],
        tools=[Tool(raises(AssertionError()), name="secret")],
        capabilities=[interlock_capability(gate)],
        retries=5,
    )

    async def work(own, task):
        output = (await agent.run(task)).output
        rows.extend((call["tool"], call["status"]) for call in own.scope.trace.rows())
        return output

    assert (await gate.run(work, "go")).output == "done"
    assert sorted(rows) == [
        ("hidden", "denied"),
        ("known", "invalid_arguments"),
        ("known", "invalid_arguments"),
        ("nope", "denied"),
        ("secret", "denied"),
    ]
    said = {part.tool_name: part for part in script.told}
    assert "Unknown tool name: 'hidden'" in said["hidden"].model_response_str()
    assert said["secret"].content == "This tool is not permitted here. It was not executed, and will not be."
    assert said["secret"].outcome == "failed"


async def test_one_tool_call_id_for_two_calls_is_refused_by_the_framework_before_anything_is_sent(opened):
    gate, remote = opened(), Remote()

    def both(messages, info):
        if len(messages) > 1:
            return ModelResponse(parts=[TextPart("done")])
        return ModelResponse(parts=[ToolCallPart("pay", {"order": o}, tool_call_id="same") for o in ("a", "b", "a")])

    agent = Agent(FunctionModel(both), tools=[_pay(remote)], capabilities=[interlock_capability(gate)])
    result = await run(gate, agent)
    assert (result.reason, remote.effects) == (StopReason.INTERNAL_ERROR, [])
    assert "unique `tool_call_id`" in result.details["message"]


# -- approvals


async def test_approval_in_the_store_parks_the_run(opened):
    gate, remote = opened(writes={"pay": {"approval": "required"}}, approvals={"wait_s": 0}), Remote()
    script = Script([("pay", {"order": "o"})])
    agent = script.agent(gate, [_pay(remote)])
    parked = await run(gate, agent, request_id="r1")
    assert (parked.reason, parked.parked, remote.effects) == (StopReason.APPROVAL_PENDING, True, [])
    store = gate.house().store
    (asked,) = await store.approvals.list()
    await store.approvals.decide(asked.id, True, "anna")
    result = await run(gate, agent, request_id="r1")
    assert (result.output, remote.effects, script.asked) == ("done", ["o"], 2)


@pytest.mark.parametrize("yes", [True, False])
async def test_approval_by_the_frameworks_own_deferred_requests(opened, yes):
    gate, remote = opened(writes={"pay": {"approval": "required"}}), Remote()
    script = Script([("pay", {"order": "o"})])
    agent = script.agent(
        gate, [_pay(remote)], output_type=[str, DeferredToolRequests], gate_words={"approvals": "framework"}
    )
    first = await agent.run("go")
    assert isinstance(first.output, DeferredToolRequests)
    assert remote.effects == []
    results = DeferredToolResults(approvals={first.output.approvals[0].tool_call_id: yes})
    second = await agent.run(message_history=first.all_messages(), deferred_tool_results=results)
    assert second.output == "done"
    assert remote.effects == (["o"] if yes else [])


async def test_the_frameworks_own_approvals_and_deferrals_stay_the_frameworks(opened):
    gate, remote = opened(), Remote()

    def pay(ctx: RunContext[None], order: str) -> dict:
        if not ctx.tool_call_approved:
            raise ApprovalRequired({"order": order})
        return remote.act(order)

    script = Script([("pay", {"order": "o"})])
    agent = script.agent(gate, [pay], output_type=[str, DeferredToolRequests])
    first = await agent.run("go")
    results = DeferredToolResults(approvals={first.output.approvals[0].tool_call_id: True})
    assert (await agent.run(message_history=first.all_messages(), deferred_tool_results=results)).output == "done"
    assert remote.effects == ["o"]


# -- runs


async def test_outside_a_run_each_agent_run_is_one_for_its_tenant_and_request(opened):
    gate, remote, results = opened(), Remote(), []
    script = Script([("pay", {"order": "o"})])
    agent = script.agent(gate, [_pay(remote)], gate_words={"on_result": results.append})
    words = {"tenant_id": "acme", "request_id": "r1"}
    first = await agent.run("go", metadata=words)
    again = await agent.run("go", metadata=words)
    assert (first.output, again.output, script.asked, remote.effects) == ("done", "done", 2, ["o"])
    assert [(r.tenant_id, r.request_id, r.reason, r.output) for r in results] == [("acme", "r1", "success", "done")]
    assert len(first.all_messages()) == 4


async def test_a_run_that_the_capability_opened_and_that_was_stopped_carries_its_result(opened):
    gate, remote = opened(), Remote(lost=1)
    agent = Script([("pay", {"order": "o"})]).agent(
        gate, [_pay(remote)], gate_words={"tenant_id": lambda ctx: ctx.prompt}
    )
    with pytest.raises(AgentStopped) as raised:
        await agent.run("acme", metadata={"request_id": "r1"})
    assert raised.value.result.parked
    assert raised.value.result.tenant_id == "acme"
    with pytest.raises(AgentStopped) as raised:
        await agent.run("acme", metadata={"request_id": "r1"})
    assert raised.value.result.reason is StopReason.OUTCOME_UNKNOWN
    assert remote.effects == ["o"]


async def test_an_agent_used_as_a_tool_works_in_a_child_on_the_parents_budget(opened):
    gate, remote = opened(effects={"research": "read"}), Remote()
    inner_script = Script([("pay", {"order": "o"})])
    inner = inner_script.agent(gate, [_pay(remote)])

    async def research(topic: str) -> str:
        return (await inner.run(topic)).output

    outer = Script([("research", {"topic": "a"})], [("pay", {"order": "o"})])
    result = await run(gate, outer.agent(gate, [research, _pay(remote)]))
    assert (result.reason, result.steps) == (StopReason.SUCCESS, 5)
    assert remote.effects == ["o"], "equal writes of an agent and its sub-agent are one effect"


async def test_two_tenants_at_once_are_two_runs(opened):
    gate = opened(allow=["*"], timeouts_s={"default": 5})
    seen = []

    def look(ctx: RunContext[str]) -> str:
        return ctx.deps

    async def one(tenant):
        script = Script([("look", {})])
        agent = script.agent(gate, [Tool(look, metadata={"effect": "read"})], deps_type=str)

        async def work(own, task):
            output = await agent.run(task, deps=tenant)
            seen.append((own.tenant_id, script.texts()))
            return output.output

        return await gate.run(work, "go", tenant_id=tenant)

    results = await asyncio.gather(*(one(tenant) for tenant in ("a", "b", "c")))
    assert [result.steps for result in results] == [2, 2, 2]
    assert sorted(seen) == [("a", ["a"]), ("b", ["b"]), ("c", ["c"])]


def test_a_sync_agent_runs_in_a_thread_with_a_loop_of_its_own(tmp_path):
    gate = interlock.Interlock(
        {"tools": {"allow": ["*"]}, "agent": {"budgets": {"max_usd": None}}}, store=f"sqlite:///{tmp_path}/a.db"
    )
    remote = Remote()
    agent = Script([("pay", {"order": "o"})]).agent(gate, [_pay(remote)])
    result = gate.run_sync(lambda run, task: agent.run_sync(task).output, "go")
    assert (result.output, result.steps, remote.effects) == ("done", 2, ["o"])
    gate.close()


async def test_a_sync_run_of_the_agent_on_the_running_loop_is_the_frameworks_error(opened):
    gate = opened()
    agent = Script().agent(gate, [])

    async def work(run, task):
        return agent.run_sync(task)

    result = await gate.run(work, "go")
    assert result.reason is StopReason.INTERNAL_ERROR
    assert "loop is already running" in result.details["message"]


# -- cost


PRICED = {"prices": {"function:m": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}}}


@pytest.mark.parametrize("stream", [False, True])
async def test_each_turn_is_charged_and_the_dollar_cap_stops_the_run(opened, stream):
    gate = opened(agent={"budgets": {"max_usd": 0.0005}}, **PRICED)
    turns = [[("look", {"n": n})] for n in range(50)]
    script = Script(*turns, usage={"input_tokens": 100, "output_tokens": 10})
    agent = script.agent(gate, [Tool(lambda n: n, name="look", metadata={"effect": "read"})])
    result = await run(gate, agent, stream=stream)
    assert result.reason is StopReason.COST_BUDGET
    assert 0 < result.cost_usd <= 0.0005
    assert result.tokens > 0
    assert result.steps == script.asked < 10


async def test_a_turn_is_reserved_with_the_max_tokens_of_the_settings(opened):
    gate = opened(agent={"budgets": {"max_usd": 0.05}}, **PRICED)
    script = Script(usage={"input_tokens": 10, "output_tokens": 10})
    result = await run(gate, script.agent(gate, [], model_settings={"max_tokens": 10_000}))
    assert (result.reason, script.asked) == (StopReason.COST_BUDGET, 0)


async def test_an_unknown_price_under_a_cap_is_refused_before_the_first_turn(opened):
    gate = opened(agent={"budgets": {"max_usd": 1.0}})
    script = Script()
    result = await run(gate, script.agent(gate, []))
    assert (result.reason, script.asked) == (StopReason.COST_BUDGET, 0)
    assert "prices.function:m" in result.details["message"]


# -- outputs


async def test_rich_results_reach_the_framework_as_they_were_and_from_the_record_again(opened):
    gate = opened()

    def post(text: str) -> ToolReturn:
        return ToolReturn(return_value={"id": 1}, content="Look at this.", metadata={"private": True})

    script = Script([("post", {"text": "a"})], [("post", {"text": "a"})])
    result = await run(gate, script.agent(gate, [post]))
    assert result.reason is StopReason.SUCCESS
    assert [part.content for part in script.told] == [{"id": 1}] * 2
    assert [part.metadata for part in script.told] == [{"private": True}] * 2


async def test_the_declared_output_of_a_decorated_tool_is_checked_whatever_is_wrapped_around_it(opened):
    gate = opened()

    @gate.tool("look", effect="read", output=dict[str, int])
    async def look(n: int) -> ToolReturn:
        return ToolReturn(return_value={"n": n} if n else {"n": "none"}, content="See.", metadata=n)

    script = Script([("look", {"n": 1}), ("look", {"n": 0})])
    await run(gate, script.agent(gate, [look]))
    good, bad = script.told
    assert (good.content, good.metadata, good.outcome) == ({"n": 1}, 1, "success")
    assert (bad.outcome, "none" in bad.model_response_str()) == ("failed", False)


DESK = """
import sys
from mcp.server import MCPServer

desk = MCPServer("desk")

@desk.tool()
def ticket_create(title: str, urgent: bool = False) -> dict:
    with open(sys.argv[1], "a") as effects:
        effects.write(f"{title} {urgent}\\n")
    return {"title": title}

@desk.tool()
def kb_read(q: str) -> str:
    return f"about {q}"

desk.run()
"""


@pytest.mark.process
async def test_tools_of_an_mcp_server_pass_the_gate(opened, tmp_path):
    gate = opened(effects={"kb_read": "read"})
    (tmp_path / "desk.py").write_text(DESK)
    effects = tmp_path / "effects"
    desk = MCPToolset(StdioTransport(sys.executable, [str(tmp_path / "desk.py"), str(effects)]), init_timeout=60)
    ticket = ("ticket_create", {"title": "a"})
    script = Script([ticket, ("ticket_create", {"title": "a", "urgent": False}), ("kb_read", {"q": "b"})], [ticket])
    agent = Agent(FunctionModel(script.reply), toolsets=[desk], capabilities=[interlock_capability(gate)])
    result = await run(gate, agent)
    assert result.reason is StopReason.SUCCESS
    assert effects.read_text() == "a False\n"
    assert [part.outcome for part in script.told] == ["success"] * 4


async def test_output_tools_are_not_guarded_and_structured_output_comes_through(opened):
    gate = opened()
    agent = Agent(TestModel(call_tools=[]), output_type=dict[str, int], capabilities=[interlock_capability(gate)])
    result = await run(gate, agent)
    assert result.reason is StopReason.SUCCESS
    assert isinstance(result.output, dict)


async def test_steps_of_iter_and_streamed_events_are_turns_too(opened):
    gate = opened()
    script = Script([("look", {"n": 1})])
    agent = script.agent(gate, [Tool(lambda n: n, name="look", metadata={"effect": "read"})])

    async def work(run, task):
        async with agent.iter(task) as steps:
            async for _ in steps:
                pass
        async with agent.run_stream_events(task) as stream:
            events = [event async for event in stream]
        return [steps.result.output, events[-1].result.output]

    result = await gate.run(work, "go")
    assert (result.output, result.steps) == (["done", "done"], 4)


async def test_leaving_a_stream_early_leaves_the_run_usable(opened):
    gate = opened()
    script = Script("a long story")
    agent = script.agent(gate, [])

    async def work(run, task):
        async with agent.run_stream(task) as reply:
            async for _ in reply.stream_text():
                break
        return (await agent.run(task)).output

    result = await gate.run(work, "go")
    assert (result.reason, result.output) == (StopReason.SUCCESS, "a long story")


async def test_a_second_capability_of_one_agent_is_refused(opened):
    gate = opened()
    with pytest.raises(UserError, match="'interlock' is used by multiple"):
        Agent(TestModel(), capabilities=[interlock_capability(gate), interlock_capability(gate)])


async def test_a_capability_given_to_one_run_guards_that_run(opened):
    gate, remote = opened(), Remote(lost=1)
    script = Script([("pay", {"order": "o"})])
    agent = Agent(FunctionModel(script.reply), tools=[_pay(remote)])

    async def work(_run, task):
        return (await agent.run(task, capabilities=[interlock_capability(gate)])).output

    assert (await gate.run(work, "go")).reason is StopReason.OUTCOME_UNKNOWN
    assert remote.effects == ["o"]


@pytest.mark.parametrize("how", ["stream", "events", "plain"])
async def test_the_deadline_cuts_a_model_that_hangs_and_what_it_said_is_kept(opened, how):
    gate = opened(agent={"budgets": {"max_usd": None, "max_seconds": 0.3}})

    async def says_something_and_hangs(messages, info):
        yield "I have begun"
        await asyncio.Event().wait()

    async def hangs(messages, info):
        await asyncio.Event().wait()

    agent = Agent(
        FunctionModel(hangs, stream_function=says_something_and_hangs), capabilities=[interlock_capability(gate)]
    )

    async def work(_run, task):
        if how == "plain":
            return (await agent.run(task)).output
        if how == "stream":
            async with agent.run_stream(task) as reply:
                return await reply.get_output()
        async with agent.run_stream_events(task) as events:
            return [event async for event in events]

    result = await gate.run(work, "go")
    assert result.reason is StopReason.TIME_BUDGET
    assert result.details["partial"]["text"] == ("" if how == "plain" else "I have begun")


@pytest.mark.process
def test_without_the_framework_the_adapter_says_what_to_install():
    code = (
        "import sys; sys.modules['pydantic_ai'] = None\n"
        "import interlock\n"
        "try:\n    import interlock.adapters.pydantic_ai\n"
        "except interlock.ConfigError as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith('MissingExtra this adapter needs its framework: pip install "interlock[pydantic-ai]"')
