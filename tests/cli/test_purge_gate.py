"""After a purge the gate answers from tombstones: an old request, and an old equal write."""

from __future__ import annotations

import asyncio

import interlock


def test_an_old_request_and_an_old_write_after_their_content_is_gone(typed, here):
    sent = []

    async def played(retry):
        gate = interlock.Interlock({"logging": {"level": "error"}}, store="sqlite:///interlock.db")

        @gate.tool("ticket.create", effect="write", allow=True)
        async def create(title: str) -> dict:
            sent.append(title)
            return {"id": 17}

        async def agent(run, task):
            return await run.call("ticket.create", {"title": task})

        try:
            return await gate.run(agent, "Login outage", request_id="req_7842", retry=retry)
        finally:
            await gate.aclose()

    first = asyncio.run(played(False))
    assert (first.output, sent) == ({"id": 17}, ["Login outage"])
    assert typed("purge", "--older-than", 0, "--content-only", "--json").json["content"] == 1

    again = asyncio.run(played(False))
    assert (again.replayed, again.reason, again.output) == (True, "success", None)
    assert again.details["output"] == "done, result not kept"
    assert (again.steps, again.tool_calls) == (first.steps, first.tool_calls)

    anew = asyncio.run(played(True))
    assert not anew.replayed
    assert (anew.output, sent) == (None, ["Login outage"])
    shown = typed("show", anew.run_id, "--json").json
    assert [call["status"] for call in shown["trace"]] == ["replayed"]
    assert [(claim["state"], claim["sends"], claim["result_kept"]) for claim in shown["claims"]] == [("done", 1, False)]
