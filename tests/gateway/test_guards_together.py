"""Guards met from the outside, through a gate: policy, limits, breaker, retries, outputs, loops."""

import asyncio

import pytest
from pydantic import BaseModel

import interlock
from interlock import StopReason
from interlock.core.clock import LoopClock, run_virtual


def virtual(config=None, **options):
    clock = LoopClock()
    return interlock.Interlock(config or {}, store="sqlite:///:memory:", clock=clock, **options), clock


async def observe_all(gate, calls, **options):
    seen = []

    async def agent(run, task):
        for tool, args in calls:
            async with run.step():
                pass
            seen.append(await run.observe(tool, args))
        return "done"

    return await gate.run(agent, "x", **options), seen


# -- policy


async def test_deny_wins_over_allow_and_what_is_not_listed_is_denied(make_gate):
    gate = make_gate({"tools": {"allow": ["db.*", "kb.read"], "deny": ["db.write"]}})
    for name in ("db.read", "db.write", "kb.read", "web.read"):
        gate.tool(name, effect="read")(_one)
    _, seen = await observe_all(gate, [(n, {}) for n in ("db.read", "db.write", "kb.read", "web.read")])
    assert [s.ok for s in seen] == [True, False, True, False]
    assert seen[1].error.details["policy"] == "deny"
    assert seen[3].error.details["policy"] == "not_allowed"
    assert "tools.allow" in str(seen[3].error)
    assert "tools.allow" not in seen[3].for_model


async def _one() -> int:
    return 1


async def test_a_tenant_and_a_run_can_only_narrow(make_gate):
    gate = make_gate({"tools": {"allow": ["a", "b"]}, "tenants": {"acme": {"allow": ["b", "c"]}}})
    for name in ("a", "b", "c"):
        gate.tool(name, effect="read")(_one)
    calls = [(n, {}) for n in ("a", "b", "c")]
    assert [s.ok for s in (await observe_all(gate, calls, tenant_id="acme"))[1]] == [False, True, False]
    assert [s.ok for s in (await observe_all(gate, calls, tenant_id="other"))[1]] == [True, True, False]
    assert [s.ok for s in (await observe_all(gate, calls, tenant_id="other", allow=["a", "c"]))[1]] == [
        True,
        False,
        False,
    ]


async def test_a_scope_that_the_run_does_not_hold_denies(make_gate):
    gate = make_gate({"tools": {"scopes": {"b": ["billing"]}}})
    gate.tool("a", effect="read", scopes=("tickets",))(_one)
    gate.tool("b", effect="read")(_one)
    calls = [("a", {}), ("b", {})]
    assert [s.ok for s in (await observe_all(gate, calls))[1]] == [False, False]
    assert [s.ok for s in (await observe_all(gate, calls, scopes=("tickets", "billing")))[1]] == [True, True]


async def test_the_file_says_the_effect_of_a_tool_and_unknown_means_write(make_gate):
    gate = make_gate({"tools": {"allow": ["x.*"], "effects": {"x.read": "write"}}})
    gate.tool("x.read", effect="read")(_one)
    gate.tool("x.other", effect="read")(_one)
    effects = {tool.name: tool.effect for tool in gate.tools}
    assert effects == {"x.read": "write", "x.other": "read"}


async def test_the_effect_may_depend_on_the_arguments(make_gate):
    gate = make_gate({"safe_mode": {"enabled": True, "allowed_tools": ["sql"]}})

    @gate.tool("sql", effect=lambda args: "read" if args["q"].startswith("select") else "write", allow=True)
    async def sql(q: str) -> int:
        return 1

    _, seen = await observe_all(gate, [("sql", {"q": "select 1"}), ("sql", {"q": "drop"})])
    assert [s.ok for s in seen] == [True, False]


# -- budgets of one tool


async def test_a_cap_of_one_tool_is_told_and_does_not_end_the_run(make_gate):
    gate = make_gate({"tools": {"budgets": {"read": {"max_calls": 2}}}})

    @gate.tool("read", effect="read")
    async def read(n: int) -> int:
        return n

    result, seen = await observe_all(gate, [("read", {"n": n}) for n in range(4)])
    assert result.ok
    assert [s.reason for s in seen] == [None, None, StopReason.TOOL_BUDGET, StopReason.TOOL_BUDGET]


# -- retries, breaker, limits: on virtual time


class Flaky(Exception):
    def __init__(self, status, retry_after=None):
        super().__init__(status)
        self.status = status
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


def test_a_read_is_retried_within_the_backoff_and_never_before_retry_after():
    async def main():
        gate, clock = virtual({"tools": {"retries": {"max_attempts": 3, "backoff_ms": [250, 750]}}})
        times, script = [], [Flaky(503), Flaky(429, retry_after=7)]

        @gate.tool("read", effect="read")
        async def read() -> int:
            times.append(clock.monotonic())
            if script:
                raise script.pop(0)
            return 1

        _, seen = await observe_all(gate, [("read", {})])
        assert seen[0].ok
        assert 0 <= times[1] - times[0] <= 0.25
        assert times[2] - times[1] >= 7
        await gate.aclose()

    run_virtual(main())


def test_a_retry_after_beyond_the_deadline_is_tool_rate_limit():
    async def main():
        gate, _ = virtual()

        @gate.tool("read", effect="read")
        async def read() -> int:
            raise Flaky(429, retry_after=10_000)

        _, seen = await observe_all(gate, [("read", {})])
        assert seen[0].reason is StopReason.TOOL_RATE_LIMIT
        await gate.aclose()

    run_virtual(main())


@pytest.mark.parametrize(("statuses", "attempts"), [([429, 500, 503, 504], 1), ([429, 500, 502, 503, 504], 3)])
def test_retryable_status_narrows(statuses, attempts):
    async def main():
        gate, _ = virtual({"tools": {"retries": {"retryable_status": statuses}}})
        tries = []

        @gate.tool("read", effect="read")
        async def read() -> int:
            tries.append(1)
            raise Flaky(502)

        _, seen = await observe_all(gate, [("read", {})])
        assert seen[0].reason is StopReason.TOOL_FAILED
        assert len(tries) == attempts
        await gate.aclose()

    run_virtual(main())


def test_max_retries_caps_the_resends_of_a_tool_over_a_whole_run():
    async def main():
        gate, _ = virtual(
            {
                "tools": {
                    "budgets": {"read": {"max_retries": 2}},
                    "retries": {"max_attempts": 2},
                    "circuit_breakers": {"enabled": False},
                }
            }
        )
        tries = []

        @gate.tool("read", effect="read")
        async def read(n: int) -> int:
            tries.append(n)
            raise Flaky(503)

        await observe_all(gate, [("read", {"n": n}) for n in range(4)])
        assert tries == [0, 0, 1, 1, 2, 3]
        await gate.aclose()

    run_virtual(main())


def test_the_breaker_opens_after_its_threshold_and_probes_once_after_its_window():
    async def main():
        gate, clock = virtual(
            {
                "tools": {
                    "retries": {"max_attempts": 1},
                    "circuit_breakers": {"failure_threshold": 3, "window_seconds": 60},
                },
                "agent": {"max_refusals": None},
            }
        )
        sends, healthy = [], []

        @gate.tool("read", effect="read")
        async def read(n: int) -> int:
            sends.append(n)
            if not healthy:
                raise Flaky(503)
            return n

        _, seen = await observe_all(gate, [("read", {"n": n}) for n in range(6)])
        assert sends == [0, 1, 2]
        assert [s.reason for s in seen[3:]] == [StopReason.CIRCUIT_OPEN] * 3
        assert gate.house().admission.status()[0]["breaker"] == "open"
        await clock.sleep(61)
        healthy.append(True)
        _, seen = await observe_all(gate, [("read", {"n": 10}), ("read", {"n": 11})])
        assert [s.ok for s in seen] == [True, True]
        await gate.aclose()

    run_virtual(main())


def test_concurrency_and_rate_are_shared_by_all_runs():
    async def main():
        gate, clock = virtual({"tools": {"limits": {"read": {"concurrency": 2, "rate_per_s": 10, "burst": 2}}}})
        under_way, peak, starts = 0, 0, []

        @gate.tool("read", effect="read")
        async def read(n: int) -> int:
            nonlocal under_way, peak
            starts.append(clock.monotonic())
            under_way += 1
            peak = max(peak, under_way)
            await asyncio.sleep(0.05)
            under_way -= 1
            return n

        async def agent(run, task):
            return await run.call("read", {"n": task})

        results = await asyncio.gather(*(gate.run(agent, n) for n in range(12)))
        assert all(r.ok for r in results)
        assert peak == 2
        assert starts[-1] - starts[0] >= (12 - 2) / 10 - 1e-6
        await gate.aclose()

    run_virtual(main())


def test_a_read_is_cut_at_the_runs_deadline():
    async def main():
        gate, clock = virtual()

        @gate.tool("read", effect="read", timeout_s=100)
        async def read() -> int:
            await asyncio.sleep(1_000)
            return 1

        async def agent(run, task):
            await run.observe("read")
            async with run.step():
                raise AssertionError("the run is over")

        started = clock.monotonic()
        result = await gate.run(agent, "x", budgets={"max_seconds": 5})
        assert result.reason is StopReason.TIME_BUDGET
        assert clock.monotonic() - started < 7
        await gate.aclose()

    run_virtual(main())


# -- outputs


class Ticket(BaseModel):
    id: str
    status: str


async def test_an_output_that_fails_its_schema_is_withheld_and_nothing_of_it_is_shown(make_gate):
    gate = make_gate()

    @gate.tool("ticket.get", effect="read", output=Ticket)
    async def get() -> dict:
        return {"id": "77", "state": "SECRET-STATE"}

    result, seen = await observe_all(gate, [("ticket.get", {})])
    assert seen[0].reason is StopReason.TOOL_OUTPUT_INVALID
    error = seen[0].error
    assert isinstance(error, interlock.ToolOutputInvalid)
    assert error.tool == "ticket.get"
    assert [tuple(e["loc"]) for e in error.errors] == [("status",)]
    assert "SECRET" not in seen[0].for_model + str(error) + repr(error.errors) + str(result.details)


async def test_invariants_from_code_and_from_the_file(make_gate):
    gate = make_gate({"tools": {"invariants": {"total": ["output.total >= 0", 'output.currency in ["EUR", "USD"]']}}})

    @gate.tool("total", effect="read", invariants=[("small", lambda out: out["total"] < 100)])
    async def total(value: int, currency: str = "EUR") -> dict:
        return {"total": value, "currency": currency}

    _, seen = await observe_all(
        gate,
        [
            ("total", {"value": 5}),
            ("total", {"value": -1}),
            ("total", {"value": 500}),
            ("total", {"value": 1, "currency": "XXX"}),
        ],
    )
    assert [s.ok for s in seen] == [True, False, False, False]


async def test_an_output_that_fails_is_let_through_only_where_the_file_says_so(make_gate):
    gate = make_gate({"validation": {"output": {"fail_closed": False}}})

    @gate.tool("ticket.get", effect="read", output=Ticket)
    async def get() -> dict:
        return {"id": "77"}

    _, seen = await observe_all(gate, [("ticket.get", {})])
    assert seen[0].ok
    assert seen[0].value == {"id": "77"}


async def test_strict_input_does_not_bend_and_lax_input_does(make_gate):
    for strict, ok in ((True, False), (False, True)):
        gate = make_gate({"validation": {"input": {"strict": strict}}})

        @gate.tool("read", effect="read")
        async def read(n: int) -> int:
            return n

        _, seen = await observe_all(gate, [("read", {"n": "5"})])
        assert seen[0].ok is ok


# -- loops


async def test_the_third_equal_read_is_answered_from_the_record_and_the_fifth_stops_the_run(make_gate):
    gate = make_gate()
    reads = []

    @gate.tool("search", effect="read")
    async def search(q: str) -> list:
        reads.append(q)
        return ["same"]

    result, seen = await observe_all(gate, [("search", {"q": "a"})] * 8)
    assert result.reason is StopReason.LOOP_DETECTED
    assert len(reads) == 2
    assert [s.status for s in seen] == ["success", "success", "repeated", "repeated", "refused"]
    assert "unchanged since step 2" in seen[2].for_model
    assert seen[2].value == ["same"]
    assert result.tool_calls == 4


async def test_an_exempt_tool_may_poll(make_gate):
    gate = make_gate({"agent": {"loop_detection": {"exempt": ["job.*"]}}})
    gate.tool("job.status", effect="read")(_one)
    result, _ = await observe_all(gate, [("job.status", {})] * 20)
    assert result.ok


async def test_six_calls_without_a_new_result_are_no_progress(make_gate):
    gate = make_gate({"agent": {"loop_detection": {"repeated_calls_threshold": None}}})
    gate.tool("read", effect="read")(_one)
    result, seen = await observe_all(gate, [("read", {})] * 20)
    assert result.reason is StopReason.NO_PROGRESS
    assert len(seen) == 8  # the first is new, six are not, the eighth is refused


async def test_a_transient_failure_is_no_repeat(make_gate):
    gate = make_gate({"tools": {"retries": {"max_attempts": 1}, "circuit_breakers": {"enabled": False}}})

    @gate.tool("read", effect="read")
    async def read() -> int:
        raise Flaky(503)

    result, seen = await observe_all(gate, [("read", {})] * 10)
    assert result.ok
    assert {s.reason for s in seen} == {StopReason.TOOL_FAILED}


async def test_a_denied_call_repeated_is_a_loop_too(make_gate):
    gate = make_gate({"agent": {"max_refusals": None}})
    result, seen = await observe_all(gate, [("db.write", {"x": 1})] * 8)
    assert result.reason is StopReason.LOOP_DETECTED
    assert [s.reason for s in seen[:2]] == [StopReason.TOOL_DENIED] * 2


# -- observing


class Original(Exception):
    status = 502


async def test_an_observing_run_hands_the_tools_own_exception_through_and_tries_once(make_gate):
    gate = make_gate({"mode": "observe"})
    tries = []

    @gate.tool("pay", effect="write", allow=True)
    async def pay(n: int) -> int:
        tries.append(n)
        raise Original

    async def agent(run, task):
        try:
            await pay(n=1)
        except Original:
            return "as ever"

    result = await gate.run(agent, "x")
    assert result.output == "as ever"
    assert tries == [1]
    assert "outcome_unknown" in result.details["would_have"]


async def test_an_unknown_tool_is_denied_even_when_observing_and_leaves_no_doubt(make_gate):
    gate = make_gate({"mode": "observe"})
    _, seen = await observe_all(gate, [("nobody", {"n": 1})])
    assert seen[0].reason is StopReason.TOOL_DENIED
    assert not await gate.house().store.doubts()
