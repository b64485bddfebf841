"""Who owns a request first has seen all its writes: only others ask the store what was done before."""

import interlock


async def test_only_a_later_owner_of_a_request_asks_what_was_done():
    done = []
    async with interlock.Interlock({"tools": {"allow": ["*"]}}, store="sqlite:///:memory:") as gate:

        @gate.tool("note.create", effect="write", allow=True)
        async def create(text: str) -> int:
            done.append(text)
            return len(done)

        async def agent(run, task):
            await run.call("note.create", {"text": "a"})
            await run.call("note.create", {"text": "b"})
            async with run.child("helper") as child:
                return await child.call("note.create", {"text": "b"})

        store = gate.house().store
        find, asked = store.find, []

        def counting(key):
            asked.append(key)
            return find(key)

        store.find = counting
        assert (await gate.run(agent)).output == 2
        # Once, by the child: the same write of the same request.
        assert len(asked) == 1
        assert (await gate.run(agent, request_id="q")).output == 4
        assert len(asked) == 2
        assert (await gate.run(agent, request_id="q", retry=True)).output == 4
        assert len(asked) == 5
    assert done == ["a", "b", "a", "b"]
