"""Sub-agents that share one budget: what a child spends, its parent has spent.

Three researchers work in parallel on the caps of one run. One has a narrower cap of its own, which stops it
alone; the run's cap stops everybody.

    python examples/sub_agents.py
"""

import asyncio

import interlock

gate = interlock.Interlock({"agent": {"budgets": {"max_tool_calls": 12}}}, store="sqlite:///:memory:")


@gate.tool("search.read", effect="read")
async def search(query: str) -> str:
    """Return something about the query."""
    return f"a page about {query}"


async def research(run: interlock.Run, topic: str, pages: int) -> int:
    """Read some pages about a topic, and say how many were read."""
    for page in range(pages):
        await run.call("search.read", {"query": f"{topic}, page {page + 1}"})
    return pages


async def editor(run: interlock.Run, task: str) -> list[str]:
    """Send out three researchers and collect what they bring, whatever stops them."""

    async def send(topic: str, pages: int, budgets: dict[str, int] | None = None) -> str:
        try:
            async with run.child(topic, budgets=budgets) as child:
                read = await research(child, f"{topic} of {task}", pages)
        except interlock.InterlockError as error:
            return f"{topic}: stopped, {error.reason}"
        return f"{topic}: {read} pages"

    return list(
        await asyncio.gather(
            send("causes", 3),
            send("history", 8, budgets={"max_tool_calls": 2}),
            send("remedies", 3),
        )
    )


async def main() -> None:
    """Run the editor, once within the budget and once beyond it."""
    result = await gate.run(editor, "the outage")
    print(result.reason, "|", result.tool_calls, "calls")
    print(*result.output, sep="\n")

    async def greedy(run: interlock.Run, task: str) -> None:
        async with run.child("greedy") as child:
            await research(child, task, 1_000)

    result = await gate.run(greedy, "everything")
    print(result.reason, "|", result.tool_calls, "calls")
    await gate.aclose()


if __name__ == "__main__":
    asyncio.run(main())
