"""What an agent is told of an answer, whatever a tool has answered."""

import pytest

import interlock


@pytest.mark.parametrize(
    "config",
    [
        {"mode": "observe"},
        {"validation": {"output": {"fail_closed": False}}},
    ],
    ids=["observed", "let through"],
)
async def test_an_answer_that_is_no_json_and_is_let_through_is_told_as_it_prints(config):
    gate = interlock.Interlock({**config, "tools": {"allow": ["*"]}}, store="sqlite:///:memory:")

    @gate.tool("odd.read", effect="read", output=dict)
    async def read() -> set:
        return {1}

    async def agent(run, task):
        seen = await run.observe("odd.read")
        return [seen.ok, seen.for_model]

    result = await gate.run(agent)
    await gate.aclose()
    assert result.output[0] is True
    assert result.output[1].endswith("{1}")
