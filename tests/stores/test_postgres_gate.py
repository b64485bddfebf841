"""A gate whose store is on PostgreSQL: the URL is all that changes."""

from __future__ import annotations

import asyncio

import pytest

import interlock
from interlock import StopReason
from interlock.config.opening import open_store
from interlock.config.settings import load_settings
from interlock.core.clock import SYSTEM
from interlock.core.errors import ConfigError
from interlock.journal.store import ClaimState, Settlement
from interlock.stores.postgres import PostgresStore


@pytest.fixture
def make_gate(pg_url):
    """Return a function that opens one more gate on the store of this test, with the tool `post`."""
    gates = []

    def make(sent, fail=False):
        gate = interlock.Interlock({"replay": "plaintext"}, store=pg_url)
        gates.append(gate)

        @gate.tool("post", effect="write", allow=True)
        async def post(text: str) -> dict:
            sent.append(text)
            if fail and len(sent) == 1:
                raise TimeoutError
            return {"n": len(sent)}

        return gate

    yield make
    for gate in gates:
        gate.close()


async def agent(run, text):
    first = await run.call("post", {"text": text})
    second = await run.call("post", {"text": text + "!"})
    return [first, second]


async def test_one_request_over_two_gates_has_one_effect_each(make_gate):
    sent = []
    gates = [make_gate(sent), make_gate(sent)]
    results = await asyncio.gather(*(gate.run(agent, "hello", request_id="q1") for gate in gates * 8))
    assert sent == ["hello", "hello!"]
    assert {result.run_id for result in results} == {results[0].run_id}
    assert [result.output for result in results] == [[{"n": 1}, {"n": 2}]] * 16


async def test_a_run_without_a_request_id_is_on_record_too(make_gate):
    sent = []
    gate = make_gate(sent)
    result = await gate.run(agent, "hello")
    store = gate.house().store
    await store.flush()
    row = await store.run(result.run_id)
    assert (row.reason, [call["status"] for call in row.record["trace"]]) == ("success", ["success"] * 2)
    assert [claim.state for claim in await store.claims_of(result.run_id)] == [ClaimState.DONE] * 2


async def test_a_parked_run_goes_on_in_another_process_when_its_doubt_is_settled(make_gate):
    sent = []
    parked = await make_gate(sent, fail=True).run(agent, "hello", request_id="q1")
    assert parked.reason is StopReason.OUTCOME_UNKNOWN
    other = make_gate(sent)
    key = bytes.fromhex(parked.details["doubts"][0])
    await other.house().store.settle(key, Settlement(ClaimState.DONE, b'{"n":1}', by="ada", reason="looked"))
    result = await other.run(agent, "hello", request_id="q1", retry="resume")
    assert (result.reason, result.output) == (StopReason.SUCCESS, [{"n": 1}, {"n": 2}])
    assert sent == ["hello", "hello!"]


async def test_a_kill_of_another_process_stops_the_next_write(make_gate):
    sent = []
    gate, other = make_gate(sent), make_gate(sent)

    async def slow(run, text):
        await run.call("post", {"text": text})
        await other.house().store.switches.set("global", "", "kill", reason="fire", actor="ada")
        await run.call("post", {"text": text + "!"})

    result = await gate.run(slow, "hello")
    assert result.reason is StopReason.KILLED
    assert sent == ["hello"]


class TestOpening:
    def test_the_url_names_the_store(self, pg_url):
        settings = load_settings(None)
        for url in (pg_url, pg_url.replace("postgresql://", "postgres://")):
            store = open_store(url, settings, clock=SYSTEM, environ={})
            assert isinstance(store, PostgresStore)
            store.close()
        store = open_store(None, settings, clock=SYSTEM, environ={"INTERLOCK_STORE": pg_url})
        assert isinstance(store, PostgresStore)
        assert store.leases.ttl_s == settings.lease_ttl_s
        store.close()

    @pytest.mark.parametrize("url", ["mysql://h/d", "sqlite://h/d", "http://h"])
    def test_another_scheme_is_an_error_that_says_what_there_is(self, url):
        with pytest.raises(ConfigError, match=r"not supported.*sqlite:///.*postgresql://"):
            open_store(url, load_settings(None), clock=SYSTEM, environ={})
