"""Tools that a gate has declared, as LangChain's tools: what they promise of their output is judged by what they return."""

from __future__ import annotations

import pytest
from langchain_core.tools import StructuredTool
from langchain_scene import agent, asks, gate, given, model, says, told, use
from pydantic import BaseModel


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
