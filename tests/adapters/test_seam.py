"""The seam: what holds for every framework, shown without one."""

import asyncio
import dataclasses
import datetime as dt
import gc
import json
import subprocess
import sys
import threading
import weakref
from typing import Annotated

import pytest
from adapter_scenes import Remote, make_gate
from pydantic import AfterValidator, BaseModel, create_model, field_validator

import interlock
from interlock import StopReason
from interlock.adapters import idempotency_key, packages
from interlock.adapters.agents import AgentRun, Turn
from interlock.adapters.seam import Seam
from interlock.adapters.shelf import Schemas, code_of, own_rules


async def within(gate, work, **words):
    """Run `work(run, seam)` inside a run of the gate; return its output, or raise what it raised."""
    raised = []

    async def agent(run, _task):
        try:
            return await work(run, Seam(gate))
        except interlock.InterlockError:
            raise
        except Exception as error:
            raised.append(error)

    result = await gate.run(agent, "x", **words)
    if raised:
        raise raised[0]
    return result


def answers(value):
    async def handler(args):
        return value(args) if callable(value) else value

    return handler


# -- whose word holds


@pytest.mark.parametrize(
    ("said", "config", "effect"),
    [
        (None, {}, "write"),
        ("read", {}, "read"),
        ("read", {"effects": {"t": "write"}}, "write"),
        ("write", {"effects": {"t": "read"}}, "read"),
        ("read", {"writes": {"t": {"repeat": "allow"}}}, "write"),
        (None, {"effects": {"t*": "read"}}, "read"),
    ],
)
async def test_the_configuration_goes_before_the_frameworks_metadata_and_nothing_at_all_is_a_write(
    opened, said, config, effect
):
    async def work(run, seam):
        await seam.call(run, "t", {}, answers(1), effect=said)
        return [call["effect"] for call in run.scope.trace.rows()]

    result = await within(opened(**config), work)
    assert result.output == [effect]


async def test_a_declaration_goes_before_the_metadata(opened):
    gate = opened()

    @gate.tool("t", effect="read")
    async def declared(q: str) -> str:
        raise AssertionError("the framework's own handler is what is called")

    async def work(run, seam):
        outcome = await seam.call(run, "t", {"q": "a"}, answers("mine"), effect="write")
        return [outcome.value, run.scope.trace.rows()[0]["effect"]]

    assert (await within(gate, work)).output == ["mine", "read"]


async def test_two_agents_tools_of_one_name_keep_their_own_effect_schema_and_handler(opened):
    async def work(run, seam):
        read = await seam.call(run, "t", {"a": 1}, answers("of A"), effect="read", schema={"properties": {"a": {}}})
        write = await seam.call(run, "t", {"b": 1}, answers("of B"), effect="write", schema={"properties": {"b": {}}})
        calls = run.scope.trace.rows()
        return [read.value, write.value, [call["effect"] for call in calls]]

    assert (await within(opened(), work)).output == ["of A", "of B", ["read", "write"]]


async def test_without_a_file_a_write_that_says_nothing_is_refused_and_the_developer_is_told_what_to_do():
    gate = interlock.Interlock(store="sqlite:///:memory:")

    async def work(run, seam):
        outcome = await seam.call(run, "t", {}, answers(1))
        return [outcome.reason, outcome.for_model, str(outcome.error)]

    reason, for_model, for_developer = (await within(gate, work)).output
    assert reason == StopReason.TOOL_DENIED
    assert "tools.allow" in for_developer
    assert "tools.allow" not in for_model
    await gate.aclose()


async def test_a_tool_that_must_close_unknown_outcomes_and_cannot_is_refused(opened):
    remote = Remote()

    async def work(run, seam):
        return (await seam.call(run, "pay", {"a": 1}, answers(lambda a: remote.act("p")))).reason

    assert (await within(opened(idempotency_required=["pay"]), work)).output == StopReason.TOOL_DENIED
    assert remote.effects == []
    closed = opened(idempotency_required=["pay"], writes={"pay": {"on_unknown": "resend"}})
    assert (await within(closed, work)).output is None
    assert remote.effects == ["p"]


# -- keys


async def test_a_decorated_tool_passes_the_funnel_once_and_gets_its_key(opened):
    gate, remote = opened(), Remote(lost=1)

    @gate.tool("ticket.create", effect="write")
    async def create_ticket(title: str, *, idempotency_key: str) -> dict:
        return remote.act(title, idempotency_key)

    async def work(run, seam):
        async def handler(args):
            return await create_ticket(**args)

        outcome = await seam.call(run, "create_ticket", {"title": "a"}, handler, function=create_ticket)
        return [outcome.value, [call["tool"] for call in run.scope.trace.rows()]]

    assert (await within(gate, work)).output == [{"n": 1}, ["ticket.create"]]
    assert (remote.effects, remote.sends) == (["a"], 2)


async def test_frameworks_see_a_decorated_tool_without_the_key():
    gate = make_gate()

    @gate.tool("ticket.create", effect="write")
    async def create_ticket(title: str, *, idempotency_key: str) -> dict:
        """Create a ticket."""

    import inspect
    from typing import get_type_hints

    assert list(inspect.signature(create_ticket).parameters) == ["title"]
    assert set(get_type_hints(create_ticket)) == {"title", "return"}
    assert (create_ticket.__name__, create_ticket.__doc__) == ("create_ticket", "Create a ticket.")
    await gate.aclose()


async def test_a_tool_of_the_same_name_that_does_not_send_the_key_is_never_sent_again(opened):
    """The declaration promises that its own function sends the key; another handler makes no such promise."""
    gate, remote = opened(), Remote(lost=1)

    @gate.tool("pay", effect="write")
    async def pay(order: str, *, idempotency_key: str) -> dict:
        raise AssertionError

    async def work(run, seam):
        outcome = await seam.call(run, "pay", {"order": "o"}, answers(lambda args: remote.act("o")))
        return outcome.reason

    result = await within(gate, work)
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert (remote.effects, remote.sends) == (["o"], 1)


async def test_an_undecorated_tool_can_read_its_key_and_be_sent_again_where_the_configuration_says_so(opened):
    remote = Remote(lost=1)
    assert idempotency_key() is None

    async def work(run, seam):
        outcome = await seam.call(run, "pay", {"order": "o"}, answers(lambda args: remote.act("o", idempotency_key())))
        read = await seam.call(run, "look", {}, answers(lambda args: idempotency_key()), effect="read")
        return [outcome.value, read.value]

    gate = opened(writes={"pay": {"on_unknown": "resend"}})
    assert (await within(gate, work)).output == [{"n": 1}, None]
    assert (remote.effects, remote.sends) == (["o"], 2)


async def test_a_second_use_inside_an_attempt_is_a_call_of_its_own(opened):
    gate, remote = opened(), Remote()

    @gate.tool("post", effect="write")
    async def post(text: str, *, idempotency_key: str) -> dict:
        return remote.act(text, idempotency_key)

    async def work(run, seam):
        async def handler(args):
            await post(**args)
            return await post("another")

        await seam.call(run, "post", {"text": "one"}, handler, function=post)
        return [call["tool"] for call in run.scope.trace.rows()]

    assert (await within(gate, work)).output == ["post", "post"]
    assert remote.effects == ["one", "another"]
    assert len(remote.keys) == 2


# -- arguments


async def test_defaults_are_part_of_what_was_asked(opened):
    remote, schema = Remote(), {"properties": {"to": {"type": "string"}, "copies": {"type": "integer", "default": 1}}}

    async def work(run, seam):
        for args in ({"to": "a"}, {"copies": 1, "to": "a"}, {"to": "a", "copies": 2}):
            await seam.call(run, "send", args, answers(lambda args: remote.act(args.get("copies"))), schema=schema)

    await within(opened(), work)
    assert remote.effects == [None, 2]


async def test_arguments_that_a_tool_changes_change_neither_the_key_nor_the_next_attempt(opened):
    remote, seen = Remote(lost=1), []

    async def work(run, seam):
        def act(args):
            seen.append(json.dumps(args))
            args["rows"].append("and one more")
            return remote.act("rows", idempotency_key())

        given = {"rows": ["a"]}
        first = await seam.call(run, "post", given, answers(act))
        second = await seam.call(run, "post", {"rows": ["a"]}, answers(act))
        return [first.status, second.status, given]

    gate = opened(writes={"post": {"on_unknown": "resend"}})
    assert (await within(gate, work)).output == ["success", "replayed", {"rows": ["a"]}]
    assert seen == ['{"rows": ["a"]}'] * 2
    assert remote.effects == ["rows"]


class Order(BaseModel):
    id: str
    due: dt.date


@dataclasses.dataclass
class Line:
    sku: str


async def test_typed_arguments_are_one_effect_with_their_json(opened):
    remote = Remote()

    async def work(run, seam):
        order = Order(id="o1", due=dt.date(2026, 1, 2))
        typed = {"order": order, "lines": [Line("a")]}
        plain = {"order": {"id": "o1", "due": "2026-01-02"}, "lines": [{"sku": "a"}]}
        one = await seam.call(run, "buy", typed, answers(lambda args: remote.act(args["order"].id)))
        other = await seam.call(run, "buy", plain, answers(lambda args: remote.act("again")))
        return [one.status, other.status]

    assert (await within(opened(), work)).output == ["success", "replayed"]
    assert remote.effects == ["o1"]


@pytest.mark.parametrize("args", ['{"a": 1', "[1, 2]", "null", '"text"', 7, {"a": float("nan")}, {"a": object()}])
async def test_what_is_no_json_object_is_refused_on_record_and_not_executed(opened, args):
    async def work(run, seam):
        async def handler(args):
            raise AssertionError

        outcome = await seam.call(run, "t", args, handler)
        return [outcome.status, outcome.for_model, run.scope.trace.rows()[0]["status"]]

    status, for_model, on_record = (await within(opened(), work)).output
    assert (status, on_record) == ("invalid_arguments", "invalid_arguments")
    assert "not executed" in for_model


async def test_json_text_is_read_and_nothing_is_no_arguments(opened):
    async def work(run, seam):
        out = [
            await seam.call(run, "t", args, answers(lambda args: args), effect="read") for args in ('{"a":1}', "", None)
        ]
        return [outcome.value for outcome in out]

    assert (await within(opened(), work)).output == [{"a": 1}, {}, {}]


async def test_what_the_framework_does_not_offer_or_accept_is_refused_on_record(opened):
    async def work(run, seam):
        out = [
            await seam.absent(run, "hidden", '{"a": 1}', "c1"),
            await seam.invalid(run, "known", "c2", effect="read"),
        ]
        return [[o.status for o in out], [call["status"] for call in run.scope.trace.rows()]]

    said = ["denied", "invalid_arguments"]
    assert (await within(opened(), work)).output == [said, said]


# -- outputs


async def test_a_fresh_value_is_the_frameworks_own_and_an_earlier_one_its_json(opened):
    async def work(run, seam):
        value = Line("a")
        first = await seam.call(run, "t", {}, answers(value))
        again = await seam.call(run, "t", {}, answers(value))
        assert first.value is value
        return [first.fresh, again.fresh, again.status, again.value, again.for_model]

    assert (await within(opened(), work)).output == [True, False, "replayed", {"sku": "a"}, '{"sku":"a"}']


async def test_a_declared_output_is_what_the_framework_gets(opened):
    gate = opened()

    class Ticket(BaseModel):
        url: str

    @gate.tool("t", effect="read", output=Ticket)
    async def t(q: int) -> dict:
        raise AssertionError

    async def work(run, seam):
        good = await seam.call(run, "t", {"q": 1}, answers({"url": "u", "more": 1}))
        bad = await seam.call(run, "t", {"q": 2}, answers({"link": "u"}))
        return [good.value.model_dump(), good.fresh, bad.ok, bad.reason]

    assert (await within(gate, work)).output == [{"url": "u"}, False, False, StopReason.TOOL_OUTPUT_INVALID]


# -- control flow, stops


class Control(Exception):
    pass


async def test_the_frameworks_own_control_flow_goes_on_and_releases_the_claim(opened):
    remote = Remote()

    async def work(run, seam):
        async def first(args):
            raise Control("ask the person")

        with pytest.raises(Control, match="ask the person"):
            await seam.call(run, "pay", {"a": 1}, first, passes=(Control,))
        outcome = await seam.call(run, "pay", {"a": 1}, answers(lambda a: remote.act("paid")), passes=(Control,))
        return outcome.status

    assert (await within(opened(), work)).output == "success"
    assert remote.effects == ["paid"]


async def test_after_a_stop_a_large_batch_comes_back_and_the_next_turn_says_so(opened):
    remote = Remote(lost=1)

    async def work(run, seam):
        async with Turn(run, record=dict) as turn:
            turn.reply = {}
        await seam.call(run, "pay", {"n": 0}, answers(lambda a: remote.act("p")))
        out = [await seam.call(run, "look", {"n": n}, answers(n), effect="read") for n in range(20)]
        assert {outcome.reason for outcome in out} == {StopReason.OUTCOME_UNKNOWN}
        with pytest.raises(interlock.RunStopped):
            async with Turn(run, record=dict):
                raise AssertionError
        return "came to its end"

    result = await within(opened(), work)
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert result.details["partial"] == "came to its end"


async def test_an_observing_gate_hands_the_tools_own_exception_through(opened):
    async def work(run, seam):
        async def handler(args):
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await seam.call(run, "t", {}, handler)

    assert (await within(opened(mode="observe"), work)).reason is StopReason.SUCCESS


async def test_a_mistake_in_the_configuration_ends_the_run_with_the_key_to_change(opened):
    async def work(run, seam):
        await seam.call(run, "t", {}, answers(1))
        async with Turn(run):
            raise AssertionError

    result = await within(opened(writes={"t": {"on_unknown": "lookup"}}), work)
    assert result.reason is StopReason.INVALID_INPUT
    assert "tools.writes.t" in result.details["message"]


async def test_a_persons_yes_that_the_framework_got_is_a_yes(opened):
    remote = Remote()

    async def work(run, seam):
        asks = seam.needs_approval("pay")
        outcome = await seam.call(run, "pay", {"n": 1}, answers(lambda a: remote.act("p")), approval="given")
        return [asks, seam.needs_approval("look"), outcome.ok]

    gate = opened(effects={"look": "read"}, writes={"pay": {"approval": "required"}}, approvals={"wait_s": 0})
    assert (await within(gate, work)).output == [True, False, True]
    assert remote.effects == ["p"]


async def test_a_framework_that_demands_approval_has_it_in_the_store(opened):
    async def work(run, seam):
        return (await seam.call(run, "pay", {"n": 1}, answers(1), approval="required")).reason

    assert (await within(opened(approvals={"wait_s": 0}), work)).reason is StopReason.APPROVAL_PENDING


# -- loops and threads


async def test_a_framework_on_another_event_loop_keeps_its_handlers_there(opened):
    gate = opened()
    seam = Seam(gate)

    def agent(run, _task):
        async def inner():
            here = asyncio.get_running_loop()
            async with AgentRun(run) as own, Turn(own, record=dict) as turn:
                turn.reply = {}

                async def handler(args):
                    return asyncio.get_running_loop() is here and idempotency_key() is not None

                return (await seam.call(own, "t", {}, handler)).value

        return asyncio.run(inner())

    result = await gate.run(agent, "x")
    assert (result.output, result.steps) == (True, 1)


async def test_a_sync_framework_is_served_in_threads(opened):
    gate, remote = opened(writes={"pay": {"on_unknown": "resend"}}), Remote(lost=1)
    seam = Seam(gate)

    def agent(run, _task):
        assert seam.run() is run
        with AgentRun(run) as own, Turn(own, record=dict) as turn:
            turn.reply = {}

            def handler(args):
                assert threading.current_thread().name == "interlock-tool"
                return remote.act("p", idempotency_key())

            return seam.call_sync(own, "pay", {"a": [1]}, handler).value

    assert (await gate.run(agent, "x")).output == {"n": 1}
    assert remote.effects == ["p"]


async def test_a_sync_call_on_the_runs_own_loop_is_refused_before_it_blocks(opened):
    async def work(run, seam):
        with pytest.raises(interlock.ConfigError, match="await its async form"):
            seam.call_sync(run, "t", {}, lambda args: 1)
        return "on it goes"

    assert (await within(opened(), work)).output == "on it goes"


async def test_the_late_answer_of_a_threads_write_settles_the_claim(opened):
    gate, remote, late = opened(timeouts_s={"default": 0.05}), Remote(), threading.Event()

    async def work(run, seam):
        async def handler(args):
            return await asyncio.to_thread(lambda: late.wait() and remote.act("p"))

        first = await seam.call(run, "pay", {"a": 1}, handler, threaded=True)
        late.set()
        return first.reason

    first = await within(gate, work, request_id="r1")
    assert first.reason is StopReason.OUTCOME_UNKNOWN
    store = gate.house().store
    for _ in range(500):
        if not await store.doubts():
            break
        await asyncio.sleep(0.01)
    again = await within(
        gate, lambda run, seam: seam.call(run, "pay", {"a": 1}, answers(1)), request_id="r1", retry=True
    )
    assert again.output.status == "replayed"
    assert remote.effects == ["p"]


async def test_each_gate_and_each_tenant_has_its_own_run(opened):
    one, other = opened(), opened()

    async def agent(run, _task):
        seams = Seam(one), Seam(other)
        await asyncio.sleep(0)
        return [seams[0].run() is run, seams[1].run() is None, seams[0].run().tenant_id]

    results = await asyncio.gather(*(one.run(agent, "x", tenant_id=tenant) for tenant in ("a", "b")))
    assert [result.output for result in results] == [[True, True, "a"], [True, True, "b"]]
    assert Seam(one).run() is None


async def test_an_agent_beside_or_inside_another_is_a_child(opened):
    gate = opened()
    seam = Seam(gate)

    async def agent(run, _task):
        async with AgentRun(run, "first") as first:
            async with AgentRun(run, "beside") as beside:
                assert seam.run() is beside

            async def handler(args):
                async with AgentRun(seam.run(), "inside") as inside, Turn(inside):
                    return inside.scope.path

            outcome = await seam.call(run, "delegate", {}, handler, effect="read")
            paths = [first.scope.path, beside.scope.path, outcome.value]
        async with AgentRun(run, "later") as later:
            return [*paths, later.scope.path]

    result = await gate.run(agent, "x")
    assert result.output == ["", "/beside", "/inside", ""]
    assert result.steps == 1


# -- packages


def test_an_absent_framework_is_named_with_what_to_install():
    with (
        pytest.raises(packages.MissingExtra, match=r'pip install "interlock\[nothing\]"') as raised,
        packages.needs("nothing"),
    ):
        import a_framework_that_nobody_has  # noqa: F401
    assert isinstance(raised.value, interlock.ConfigError)
    assert isinstance(raised.value, ImportError)


def test_an_untested_version_is_named_with_those_that_are():
    packages.tested("pytest", __import__("importlib.metadata").metadata.version("pytest"))
    with pytest.warns(packages.UntestedVersion, match=r"pytest .* tested with \(0\.1, 0\.2\)"):
        packages.tested("pytest", "0.1", "0.2")


def test_neither_interlock_nor_the_seam_imports_a_framework():
    code = (
        "import sys, interlock; interlock.Interlock; import interlock.adapters.seam, interlock.adapters.agents;"
        "print([m for m in ('pydantic_ai','langchain','langgraph','agents','claude_agent_sdk','google.adk',"
        "'agent_framework','openai','anthropic','crewai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_tools_that_are_made_anew_share_what_was_compiled_of_them_but_not_with_other_functions_or_gates():
    def made(limit):
        def search(query: str) -> int:
            return limit

        return search

    def other(query: str) -> int:
        return 0

    compiled = []

    def place(fn):
        return ("search", "{}", code_of(fn))

    def compile_it():
        compiled.append(object())
        return compiled[-1]

    gates = [interlock.Interlock(), interlock.Interlock()]
    first, again, elsewhere = Schemas(gates[0]), Schemas(gates[0]), Schemas(gates[1])
    found = [first.of(place(made(1)), compile_it), again.of(place(made(2)), compile_it)]
    assert found == compiled * 2
    found += [again.of(place(other), compile_it), elsewhere.of(place(made(3)), compile_it)]
    assert len({id(schema) for schema in found}) == len(compiled) == 3


def test_a_model_that_checks_by_functions_is_told_from_one_that_looks_alike():
    def check(value):
        return value

    plain = create_model("Plain", account=(str, ...), tags=(list[str] | None, None))
    by_function = create_model("Rules", account=(Annotated[str, AfterValidator(check)], ...))
    for model in (
        by_function,
        create_model("Decorated", account=(str, ...), __validators__={"known": field_validator("account")(check)}),
        create_model("Nested", inside=(list[by_function], ...)),
    ):
        assert own_rules(model) is model
    assert own_rules(plain) is own_rules(create_model("Outer", inside=(plain, ...))) is own_rules(None) is None


def test_a_gate_is_let_go_with_what_was_compiled_for_it():
    gate = interlock.Interlock()
    Schemas(gate).of("place", object)
    gone = weakref.ref(gate)
    del gate
    gc.collect()
    assert gone() is None
