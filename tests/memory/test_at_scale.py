"""Twenty thousand facts of a hundred tenants: a recall finds its own, within its budget, and no commit is its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import interlock
from interlock.memory.scope import Scope
from interlock.memory.store import Search
from interlock.stores.writer import WriterThread

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from benchmarks import remembering  # noqa: E402 - the path is set above

FACTS, TENANTS = 20_000, 100


async def test_among_many_facts_of_many_tenants_a_recall_finds_its_own(tmp_path):
    gate = interlock.Interlock({"logging": {"level": "error"}}, store=f"sqlite:///{tmp_path / 'interlock.db'}")
    memory = gate.house().store.memory
    await remembering.fill(memory, FACTS, TENANTS)
    now_s = remembering.SYSTEM.wall()
    counted = sum([(await memory.stats(Scope(f"tenant-{n}"), now_s)).active for n in range(TENANTS)])
    assert counted == FACTS
    found = 0
    for scope, question in remembering.questions(TENANTS, 60):
        words = tuple(question.split())
        hits = await memory.search(scope, Search(words=words, limit=16), now_s)
        assert all(scope.sees(hit.fact.scope) for hit in hits)
        assert all(set(words) & set(hit.fact.text.split()) for hit in hits)
        found += len(hits)

        async def agent(run, task, scope=scope):
            return await run.memory.recall(task, scope=scope, k=16, max_tokens=500)

        recalled = (await gate.run(agent, question, tenant_id=scope.tenant)).output
        assert recalled.tokens <= 500
        assert len(recalled.facts) + len(recalled.dropped) >= len(hits)
    assert found > 300
    await gate.aclose()


@pytest.mark.parametrize("facts_a_call", [1, 5])
async def test_remember_adds_no_commit_to_a_run_that_commits(tmp_path, facts_a_call):
    gate = interlock.Interlock({"logging": {"level": "error"}}, store=f"sqlite:///{tmp_path / 'interlock.db'}")

    @gate.tool("note.write", effect="write", natural=True)
    async def write(n: int) -> int:
        return n

    writer = gate.house().store._writer
    assert isinstance(writer, WriterThread)

    async def commits(base, facts):
        async def agent(run, task):
            before = writer.batches
            for n in range(base, base + 20):
                for fact in range(facts):
                    await run.memory.remember(f"fact {n} {fact}", scope={"user": "ann"})
                await run.call("note.write", {"n": n})
            return writer.batches - before

        return (await gate.run(agent, "t", request_id=f"r{base}")).output

    without = await commits(0, 0)
    with_facts = await commits(100, facts_a_call)
    # One that waits longer than the writer's linger for this process to go on may be written alone: now and then.
    assert with_facts < without + 10
    assert without >= 20
    await gate.aclose()
