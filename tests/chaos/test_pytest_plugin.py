"""The pytest plugin in suites of its users: real pytest processes, a bare loop and Pydantic AI behind the gate."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import interlock
from interlock.chaos.faults import Fault, Kind
from interlock.chaos.in_tests import Chaos, ChaosFailed

pytest_plugins = ("pytester",)

SUBJECT = """
    import interlock
    import pytest

    gate = interlock.Interlock({"tools": {"allow": ["*"]}, "logging": {"level": "error"}})
    TICKETS = {}

    @gate.tool("ticket.create", effect="write")
    async def create(title: str, *, idempotency_key: str) -> dict:
        return {"n": TICKETS.setdefault(idempotency_key, len(TICKETS) + 1)}

    @gate.tool("note.read", effect="read")
    async def read(n: int) -> dict:
        return {"text": f"note {n}"}

    async def triage(run, task):
        return (await run.call("ticket.create", {"title": task}))["n"]

    async def reads(run, task):
        return [(await run.call("note.read", {"n": n}))["text"] for n in range(3)]
"""


@pytest.fixture
def suite(pytester):
    """Return a function that runs pytest on a test file below the subject, in a process of its own."""

    def run(text, *words):
        pytester.makepyfile(test_it=textwrap.dedent(SUBJECT) + textwrap.dedent(text))
        return pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function", "--strict-markers", *words
        )

    return run


def test_a_marked_test_tries_an_agent_and_counts_what_happened(suite, pytester):
    done = suite("""
        @pytest.mark.chaos({"kind": "answer_lost", "attempts": [1]}, expect="success")
        def test_a_lost_answer_is_one_ticket(interlock_chaos):
            outcome = interlock_chaos(triage, "login fails", gate=gate)
            (only,) = outcome.repetitions
            assert only.injected == {"answer_lost": 1}
            assert only.requests == {"ticket.create": 2}
            assert only.effects == {"ticket.create": 1}
            assert len(TICKETS) == 1

        @pytest.mark.chaos("timeout_50%", expect={"reasons": ["success", "tool_timeout", "circuit_open"]}, repetitions=5)
        def test_each_repetition_has_a_seed(interlock_chaos):
            outcome = interlock_chaos(reads, gate=gate)
            assert [each.seed for each in outcome.repetitions] == [0, 1, 2, 3, 4]

        def test_without_a_mark_nothing_is_injected(interlock_chaos):
            assert interlock_chaos(triage, "x", gate=gate).repetitions[0].injected == {}
    """)  # fmt: skip
    done.assert_outcomes(passed=3)
    assert not list(pytester.path.glob("*.db")), "a trial writes no store"


def test_a_failure_names_the_command_that_repeats_it(suite):
    text = """
        @pytest.mark.chaos("reset", expect="success", repetitions=3, seed=40)
        def test_it(interlock_chaos):
            interlock_chaos(reads, gate=gate)

        @pytest.mark.chaos({"kind": "reset", "tool": "nobody.*"})
        def test_nothing_is_proved(interlock_chaos):
            interlock_chaos(reads, gate=gate)
    """
    done = suite(text)
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(["*failed: ended as *, not success (seed 40)*"])
    done.stdout.fnmatch_lines(["*again: pytest 'test_it.py::test_it' --interlock-chaos-seed 40"])
    done.stdout.fnmatch_lines(["*not exercised: no fault was injected*"])
    again = suite(text, "test_it.py::test_it", "--interlock-chaos-seed", "41")
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["*(seed 41)*"])


def test_words_that_cannot_be_used_are_said(suite):
    done = suite("""
        @pytest.mark.chaos("timeuot")
        def test_a(interlock_chaos):
            interlock_chaos(reads, gate=gate)

        @pytest.mark.chaos("reset", expects="success")
        def test_b(interlock_chaos):
            interlock_chaos(reads, gate=gate)

        @pytest.mark.chaos("reset")
        async def test_c(interlock_chaos):
            interlock_chaos(reads, gate=gate)
    """, "-o", "asyncio_mode=auto")  # fmt: skip
    done.assert_outcomes(failed=3)
    done.stdout.fnmatch_lines(["*no fault is called timeuot; did you mean timeout?*"])
    done.stdout.fnmatch_lines(["*unknown word expects; did you mean expect?*"])
    done.stdout.fnmatch_lines(["*call it in a plain `def` test*"])


def test_agents_that_open_their_runs_themselves_and_an_adapter(suite, pytester):
    done = suite('''
        from pydantic_ai import Agent
        from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
        from pydantic_ai.models.function import FunctionModel
        from interlock.adapters.pydantic_ai import interlock_capability

        own = interlock.Interlock({
            "tools": {"allow": ["*"], "writes": {"open_ticket": {"on_unknown": "resend"}}},
            "agent": {"budgets": {"max_usd": None}}, "logging": {"level": "error"},
        })
        WORLD = {}

        async def open_ticket(title: str, *, idempotency_key: str) -> str:
            """Open a ticket."""
            return f"ticket {WORLD.setdefault(idempotency_key, len(WORLD) + 1)}"

        def model(messages, info):
            if any(isinstance(part, ToolReturnPart) for part in messages[-1].parts):
                return ModelResponse(parts=[TextPart("done")])
            return ModelResponse(parts=[ToolCallPart("open_ticket", {"title": "login"})])

        agent = Agent(FunctionModel(model), tools=[open_ticket], capabilities=[interlock_capability(own)])

        async def support(run, task):
            return (await agent.run(task)).output

        @pytest.mark.chaos({"kind": "answer_lost", "attempts": [1]}, expect="success")
        def test_in_a_run(interlock_chaos):
            WORLD.clear()
            (only,) = interlock_chaos(support, "help", gate=own).repetitions
            assert (only.injected, only.requests) == ({"answer_lost": 1}, {"open_ticket": 2})
            assert len(WORLD) == 1

        @pytest.mark.chaos({"kind": "answer_lost", "attempts": [1]})
        async def test_by_itself(interlock_chaos):
            WORLD.clear()
            async with interlock_chaos.around(own) as tried:
                assert (await agent.run("help")).output == "done"
            assert tried.reasons == ["success"]
            assert (tried.injected, tried.requests) == ({"answer_lost": 1}, {"open_ticket": 2})
            assert tried.effects == {"open_ticket": 1}
            assert [each["fault"] for each in tried.records[0]["injected"]] == ["answer_lost"]
            assert len(WORLD) == 1

        async def test_a_loop_of_its_own(interlock_chaos):
            interlock_chaos.inject("503_errors")
            async with interlock_chaos.around(gate) as tried:
                async with gate.open_run("x") as run:
                    await run.observe("note.read", {"n": 1})
            assert tried.reasons == ["success"]
            assert tried.injected["http_503"] >= 1

        @pytest.mark.chaos("reset")
        async def test_nothing_ran(interlock_chaos):
            async with interlock_chaos.around(gate):
                pass

        @pytest.mark.chaos({"kind": "timeout", "attempts": [1]}, expect="success")
        def test_time_is_virtual_though_the_framework_has_threads(interlock_chaos):
            WORLD.clear()
            (only,) = interlock_chaos(support, "help", gate=own).repetitions
            assert only.elapsed_s > 20
    ''', "-o", "asyncio_mode=auto")  # fmt: skip
    done.assert_outcomes(passed=4, failed=1)
    done.stdout.fnmatch_lines(["*not exercised: no fault was injected*"])
    assert not list(pytester.path.glob("*.db")), "a trial writes no store"


MY_AGENTS = """
    import interlock
    from interlock.adapters.pydantic_ai import interlock_capability
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
    from pydantic_ai.models.function import FunctionModel

    gate = interlock.Interlock({
        "tools": {"allow": ["*"], "writes": {"open_ticket": {"on_unknown": "resend"}}},
        "agent": {"budgets": {"max_usd": None}}, "logging": {"level": "error"},
    })

    @gate.tool("ticket.create", effect="write")
    async def create(title: str, *, idempotency_key: str) -> dict:
        return {"title": title}

    async def triage(run, task):
        return (await run.observe("ticket.create", {"title": task})).for_model

    async def open_ticket(title: str, *, idempotency_key: str) -> str:
        return "opened"

    def model(messages, info):
        if any(isinstance(part, ToolReturnPart) for part in messages[-1].parts):
            return ModelResponse(parts=[TextPart("done")])
        return ModelResponse(parts=[ToolCallPart("open_ticket", {"title": "login"})])

    framework_agent = Agent(FunctionModel(model), tools=[open_ticket], capabilities=[interlock_capability(gate)])
"""


def test_what_the_page_shows_works(pytester):
    page = Path(__file__).parents[2] / "docs" / "chaos-pytest.md"
    shown = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    pytester.makepyfile(
        my_agents=textwrap.dedent(MY_AGENTS), test_it="from my_agents import framework_agent\n".join(shown)
    )
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "--strict-markers")
    done.assert_outcomes(passed=3)


def test_a_suite_that_does_not_use_it_pays_nothing(pytester):
    pytester.makepyfile(test_it="""
        import sys

        def test_nothing_of_ours_is_here():
            ours = sorted(name for name in sys.modules if name.split(".")[0] == "interlock")
            assert ours == ["interlock", "interlock.chaos", "interlock.chaos.pytest_plugin"]
    """)  # fmt: skip
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:hypothesispytest")
    done.assert_outcomes(passed=1)


def test_loading_it_imports_neither_pydantic_nor_asyncio():
    text = (
        "import pytest, sys; before = set(sys.modules); import interlock.chaos.pytest_plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, env={**os.environ}, timeout=60
    )
    assert done.stdout.split() == ["interlock", "interlock.chaos", "interlock.chaos.pytest_plugin"]


def test_faults_may_be_values_and_their_order_is_kept():
    chaos = Chaos(["timeout_50%", {"kind": "reset"}, Fault(Kind.EMPTY)], {"probe": "builtins:dict"}, seed=7)
    suite, probe = chaos._suite()
    assert [fault.label for fault in suite.tasks[0].faults] == ["timeout", "reset", "empty"]
    assert (suite.seed, probe) == (7, dict)


async def test_a_block_refuses_faults_that_it_cannot_inject():
    gate = interlock.Interlock(store="sqlite:///:memory:")
    with pytest.raises(interlock.errors.ConfigError, match="two_workers"):
        async with Chaos(["two_workers"], seed=None).around(gate):
            pass


def test_a_failure_is_an_assertion():
    assert issubclass(ChaosFailed, AssertionError)
