"""What should not happen, does: each is a clear error or a named reason, the run recorded, nothing hung."""

import asyncio

import pytest

import interlock
from interlock import StopReason


async def observed(gate, tool, args, **options):
    seen = []

    async def agent(run, task):
        seen.append(await run.observe(tool, args))
        return "went on"

    result = await gate.run(agent, "x", **options)
    assert result.run_id
    assert await gate.house().store.flush() is None
    assert (await gate.house().store.run(result.run_id)).reason == result.reason
    return seen[0], result


@pytest.fixture
def gate(make_gate):
    gate = make_gate()

    @gate.tool("anything", effect="read")
    async def anything(value: object = None) -> str:
        return "fine"

    return gate


def cycle():
    loop = []
    loop.append(loop)
    return loop


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        b"bytes",
        cycle(),
        deep(5_000),
        2**70,
        {1: "key"},
        {"a", "b"},
        "\ud800",
        "x" * 10_000_000,
    ],
    ids=["nan", "inf", "bytes", "cycle", "deep", "2**70", "int-key", "set", "surrogate", "10MB"],
)
async def test_arguments_that_are_not_json_are_refused_and_not_echoed(gate, value):
    seen, result = await observed(gate, "anything", {"value": value})
    assert not seen.ok
    assert seen.reason is StopReason.INVALID_INPUT
    assert len(seen.for_model) < 1_000
    assert result.output == "went on"


async def test_arguments_outside_the_schema_name_the_field_and_not_the_value(make_gate):
    gate = make_gate()

    @gate.tool("search", effect="read")
    async def search(query: str, limit: int = 10) -> list:
        return []

    seen, _ = await observed(gate, "search", {"query": "q", "limit": "s3cret-value"})
    assert seen.reason is StopReason.INVALID_INPUT
    assert "limit" in seen.for_model
    assert "s3cret" not in seen.for_model
    extra, _ = await observed(gate, "search", {"query": "q", "limits": 3})
    assert extra.reason is StopReason.INVALID_INPUT


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "x" * 129, "💥", "a/../b;rm"])
async def test_an_unknown_or_unusable_tool_name_is_denied(gate, name):
    seen, _ = await observed(gate, name, {})
    assert seen.reason is StopReason.TOOL_DENIED


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "💥", "a*"])
def test_a_tool_cannot_be_registered_under_such_a_name(make_gate, name):
    with pytest.raises(interlock.ConfigError, match="tool name"):
        make_gate().tool(name, effect="read")(_nothing)


async def _nothing() -> None:
    return None


def test_a_tool_registered_twice_is_an_error(make_gate):
    gate = make_gate()
    gate.tool("a", effect="read")(_nothing)
    with pytest.raises(interlock.ConfigError, match="twice"):
        gate.tool("a", effect="read")(_nothing)


def test_a_tool_without_effect_is_an_error_that_says_what_to_write(make_gate):
    with pytest.raises(interlock.ConfigError, match='effect="read"'):
        make_gate().tool("a")(_nothing)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"effect": "delete"}, "'read', 'write'"),
        ({"effect": "write", "on_unknown": "retry"}, "on_unknown"),
        ({"effect": "write", "on_unknown": "lookup"}, "needs lookup="),
        ({"effect": "write", "on_unknown": "resend"}, "idempotency_key"),
        ({"effect": "write", "repeat": "twice"}, "repeat"),
        ({"effect": "read", "timeout_s": -1}, "timeout_s"),
        ({"effect": "read", "timeout_s": float("nan")}, "timeout_s"),
        ({"effect": "write", "identity": "order_id"}, "sequence"),
        ({"effect": "read", "invariants": ["output > 1"]}, "callable"),
    ],
)
def test_words_that_do_not_fit_together_are_refused(make_gate, options, match):
    with pytest.raises(interlock.ConfigError, match=match):
        make_gate().tool("a", **options)(_nothing)


async def test_an_idempotency_requirement_that_a_tool_cannot_meet_fails_its_registration(make_gate):
    gate = make_gate({"tools": {"allow": ["a"], "idempotency_required": ["a"]}})
    with pytest.raises(interlock.ConfigError, match="idempotency_required"):
        gate.tool("a", effect="write")(_nothing)


@pytest.mark.parametrize("output", [object(), {"x": float("nan")}, b"raw", {1, 2}, cycle()])
async def test_an_output_that_is_not_json_is_withheld(make_gate, output):
    gate = make_gate()

    @gate.tool("read", effect="read")
    async def read() -> object:
        return output

    seen, result = await observed(gate, "read", {})
    assert seen.reason is StopReason.TOOL_OUTPUT_INVALID
    assert result.output == "went on"


async def test_an_output_beyond_the_size_limit_is_withheld(make_gate):
    gate = make_gate({"tools": {"max_output_bytes": 1_000}})

    @gate.tool("read", effect="read")
    async def read() -> str:
        return "x" * 2_000

    seen, _ = await observed(gate, "read", {})
    assert seen.reason is StopReason.TOOL_OUTPUT_INVALID


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("odd")])
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_tool_that_raises_a_base_exception_has_failed_and_the_process_lives(make_gate, error, kind):
    gate = make_gate()
    if kind == "async":

        @gate.tool("read", effect="read")
        async def read() -> int:
            raise error
    else:

        @gate.tool("read", effect="read")
        def read() -> int:
            raise error

    seen, result = await observed(gate, "read", {})
    assert seen.reason is StopReason.TOOL_FAILED
    assert result.output == "went on"


@pytest.mark.parametrize("kind", ["async", "sync", "swallows"])
async def test_a_tool_that_never_returns_times_out(make_gate, kind):
    import threading

    gate = make_gate({"tools": {"retries": {"max_attempts": 1}}})
    release = threading.Event()
    if kind == "sync":

        @gate.tool("read", effect="read", timeout_s=0.05)
        def read() -> int:
            release.wait(20)
            return 1
    elif kind == "async":

        @gate.tool("read", effect="read", timeout_s=0.05)
        async def read() -> int:
            await asyncio.Event().wait()
            return 1
    else:

        @gate.tool("read", effect="read", timeout_s=0.05)
        async def read() -> int:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    continue

    seen, result = await observed(gate, "read", {})
    release.set()
    assert seen.reason is StopReason.TOOL_TIMEOUT
    assert result.output == "went on"


async def test_an_agent_whose_output_is_not_json_succeeds_and_a_duplicate_learns_that_it_was_not_kept(make_gate):
    gate = make_gate()

    async def agent(run, task):
        return object()

    first = await gate.run(agent, "x", request_id="r1")
    assert first.ok
    second = await gate.run(agent, "x", request_id="r1")
    assert second.ok
    assert second.output is None
    assert "not kept" in second.details["output"]


@pytest.mark.parametrize(
    "budgets", [{"max_tools": 3}, {"max_steps": -1}, {"max_usd": "1"}, {"max_seconds": True}], ids=str
)
async def test_a_budget_that_is_none_is_invalid_input(make_gate, budgets):
    gate = make_gate()

    async def agent(run, task):
        raise AssertionError("never run")

    result = await gate.run(agent, "x", budgets=budgets)
    assert result.reason is StopReason.INVALID_INPUT
    assert next(iter(budgets)) in result.details["message"]


async def test_usage_that_cannot_be_read_ends_the_run_by_name(make_gate):
    gate = make_gate()

    async def agent(run, task):
        async with run.step() as step:
            step.charge({"input_tokens": "many"})

    result = await gate.run(agent, "x")
    assert result.reason is StopReason.INTERNAL_ERROR
    assert "usage.input_tokens" in result.details["message"]


async def test_an_unknown_store_url_says_what_is_known(make_gate):
    gate = make_gate(store="redis://localhost")

    async def agent(run, task):
        return 1

    with pytest.raises(interlock.ConfigError, match="sqlite:///"):
        await gate.run(agent, "x")


async def test_arguments_of_a_declared_type_are_written_as_the_type_writes_them(make_gate):
    from decimal import Decimal

    gate = make_gate()

    @gate.tool("price", effect="read")
    async def price(amount: Decimal, tags: set[str]) -> str:
        assert isinstance(amount, Decimal)
        return f"{amount} {sorted(tags)}"

    seen, _ = await observed(gate, "price", {"amount": Decimal("1.50"), "tags": {"b", "a"}})
    assert seen.value == "1.50 ['a', 'b']"
