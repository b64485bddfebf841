"""Tools that a gate has declared, as LangChain's tools: what they promise of their output is judged by what they return."""

from __future__ import annotations

from typing import Annotated

import pytest
from langchain_core.tools import StructuredTool
from langchain_scene import agent, asks, gate, given, model, says, told, use
from pydantic import AfterValidator, BaseModel, create_model, field_validator


class Page(BaseModel):
    """What a search promises."""

    results: list[str]
    partial: bool


@pytest.mark.parametrize("made", ["function", "coroutine"])
@pytest.mark.parametrize("right", [True, False])
async def test_output_is_judged_as_the_function_returned_it(made, right):
    async with gate() as g:

        @g.tool("search", effect="read", output=Page)
        async def search(q: str) -> dict:
            return {"results": [q], "partial": False if right else "perhaps not"}

        words = {"func" if made == "function" else "coroutine": search}
        tool = StructuredTool.from_function(name="search", description="Search.", **words)
        work = agent(g, model(asks(use("search", q="log in")), says("done")), [tool])
        states = []

        async def body(_run, _task):
            states.append(await work.ainvoke(given()))
            return "done"

        result = await g.run(body, "go")
    assert result.ok
    (answer,) = told(states[0])
    assert ("log in" in answer.text, answer.status) == ((True, "success") if right else (False, "error"))


@pytest.mark.parametrize("how", ["annotated", "decorated", "nested"])
async def test_rules_that_go_by_what_they_have_seen_are_each_tools_own(how):
    """Tools made anew for each tenant, by one function and alike as text: one tenant's list is not the other's."""

    def made(allowed):
        def check(value):
            if value not in allowed:
                raise ValueError("not of this tenant")
            return value

        if how == "nested":
            inner = create_model("Inner", name=(Annotated[str, AfterValidator(check)], ...))
            wanted = create_model("Wanted", account=(inner, ...))
        elif how == "annotated":
            wanted = create_model("Wanted", account=(Annotated[str, AfterValidator(check)], ...))
        else:
            rules = {"known": field_validator("account")(check)}
            wanted = create_model("Wanted", account=(str, ...), __validators__=rules)

        async def read(account) -> str:
            return f"of {account.name if how == 'nested' else account}"

        return StructuredTool.from_function(
            name="read", description="Read.", coroutine=read, args_schema=wanted, metadata={"effect": "read"}
        )

    async with gate() as g:
        said = []
        for own in ("ann", "ben"):
            states = []
            # One gate for all: what is compiled for the first tool must not judge the second.
            work = agent(
                g,
                model(asks(use("read", account={"name": own} if how == "nested" else own)), says("done")),
                [made({own})],
            )

            async def body(_run, _task, work=work, states=states):
                states.append(await work.ainvoke(given()))

            await g.run(body, "go")
            (answer,) = told(states[0])
            said.append(answer.text)
    assert said == ["of ann", "of ben"]
