"""Requests that cannot be, or that are not the caller's; results beyond any measure: a clear word each, and no harm."""

import asyncio

import pytest
from pg_server import Server

import interlock
from interlock import StopReason
from interlock.core.errors import AlreadyEnded, ToolOutputInvalid
from interlock.journal.store import ClaimState, RunState

BAD_IDS = {
    "10 kB": "x" * 10_000,
    "a line break": "req\n1",
    "an escape": "req\x1b[31m1",
    "a null": "\x00",
    "a direction": "req\u202e1",
    "half a character": "req\ud800",
    "a number": 7,
    "nothing": "",
}


@pytest.fixture(scope="module")
def pg_server():
    server = Server()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
async def make(request, tmp_path, monkeypatch):
    """Return a function that opens a gate on this test's store."""
    monkeypatch.setenv("INTERLOCK_KEY", "5e" * 32)
    url = f"sqlite:///{tmp_path / 'i.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("pg_server").new_url()
    gates = []

    def make(**config):
        gates.append(interlock.Interlock(config, store=url))
        return gates[-1]

    yield make
    for gate in gates:
        await gate.aclose()


async def never(run, task):
    raise AssertionError("never run")


@pytest.mark.parametrize("make", ["sqlite"], indirect=True)
@pytest.mark.parametrize("field", ["request_id", "tenant_id"])
@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
async def test_an_id_that_cannot_be_is_invalid_input_by_whichever_door(make, bad, field):
    gate = make()
    words = {"request_id": "r1", "tenant_id": "acme", field: bad}
    result = await gate.run(never, "x", **words)
    assert result.reason is StopReason.INVALID_INPUT
    assert field in result.details["message"]
    assert len(result.details["message"]) < 200  # it does not echo what it was given
    if bad != "" or field == "tenant_id":
        with pytest.raises(AlreadyEnded) as refused:
            await gate.submit("never", "x", **words)
        assert refused.value.result.reason is StopReason.INVALID_INPUT
    with pytest.raises(AlreadyEnded):
        async with gate.open_run("x", **words):
            raise AssertionError("never")
    assert await gate.house().store.runs() == []


async def test_the_longest_ids_that_can_be_are_kept(make):
    gate = make()

    async def agent(run, task):
        return [len(run.tenant_id), len(run.request_id)]

    words = {"request_id": "\u00e9" * 512, "tenant_id": "t" * 512}
    assert (await gate.run(agent, "x", **words)).output == [512, 512]
    assert (await gate.run(agent, "x", **words)).replayed


async def test_a_tenant_never_gets_another_s_run(make):
    gate = make()
    sent = []

    @gate.tool("post", effect="write")
    async def post(text: str, *, idempotency_key: str) -> str:
        sent.append(idempotency_key)
        return text

    async def agent(run, task):
        return [run.tenant_id, await run.call("post", {"text": task})]

    mine = await gate.run(agent, "x", request_id="r1", tenant_id="acme")
    for words in ({}, {"retry": True}, {"retry": "resume"}):
        theirs = await gate.run(agent, "x", request_id="r1", tenant_id="globex", **words)
        assert theirs.output == ["globex", "x"]
        assert theirs.run_id != mine.run_id
    other = await gate.submit("agent", "other", request_id="r1", tenant_id="initech")
    assert other not in {mine.run_id, theirs.run_id}
    assert len(set(sent)) == 2  # one effect for each tenant, under a key of its own
    rows = await gate.house().store.runs(tenant_id="globex")
    assert {row.tenant_id for row in rows} == {"globex"}


@pytest.mark.parametrize("make", ["sqlite"], indirect=True)
async def test_a_result_of_50_mb_is_kept_and_answered_where_it_is_allowed(make):
    gate = make(tools={"max_output_bytes": 60_000_000})
    calls = []

    @gate.tool("export", effect="write")
    async def export(*, idempotency_key: str) -> str:
        calls.append(1)
        return "x" * 50_000_000

    async def agent(run, task):
        first = await run.call("export", {})
        return first if await run.call("export", {}) == first else "another"

    result = await gate.run(agent, "x", request_id="r1")
    assert (len(result.output), calls) == (50_000_000, [1])
    again = await gate.run(agent, "x", request_id="r1")
    assert again.replayed
    assert again.output == result.output


async def test_a_result_of_50_mb_is_withheld_where_it_is_not_and_the_write_is_done(make):
    gate = make()
    calls = []

    @gate.tool("export", effect="write")
    async def export(*, idempotency_key: str) -> str:
        calls.append(1)
        return "x" * 50_000_000

    async def agent(run, task):
        said = []
        for _ in range(2):
            with pytest.raises(ToolOutputInvalid) as refused:
                await run.call("export", {})
            said.append(len(str(refused.value)) < 1_000)
        return said

    result = await gate.run(agent, "x", request_id="r1")
    (claim,) = await gate.house().store.claims_of(result.run_id)
    assert (result.output, calls) == ([True, True], [1])
    assert (claim.state, claim.verified, claim.result) == (ClaimState.DONE, False, None)


async def test_two_programs_that_ask_for_one_request_with_other_words_do_not_mix(make):
    gate, other = make(), make()

    async def agent(run, task):
        return task

    results = await asyncio.gather(
        *(g.run(agent, task, request_id="r1") for g, task in ((gate, "a"), (other, "b"), (gate, "a"), (other, "b")))
    )
    reasons = sorted(str(result.reason) for result in results)
    assert reasons == ["invalid_input", "invalid_input", "success", "success"]
    (row,) = await gate.house().store.runs()
    assert row.state is RunState.ENDED
