"""What a look-up is asked with: of the call's arguments those that it takes."""

from __future__ import annotations

import pytest

import interlock

MEMORY = "sqlite:///:memory:"


def by_key(asked):
    async def find(idempotency_key):
        asked.append(idempotency_key)
        return "INV-17"

    return find


def by_part(asked):
    def find(order_id, *, tenant="acme"):
        asked.append((order_id, tenant))
        return "INV-17"

    return find


def by_all(asked):
    async def find(**kwargs):
        asked.append(sorted(kwargs))
        return "INV-17"

    return find


@pytest.mark.parametrize(
    ("look_up", "said"),
    [(by_key, None), (by_part, ("o-17", "acme")), (by_all, ["cents", "order_id"])],
    ids=["the key alone", "a part", "everything"],
)
async def test_a_lookup_gets_what_it_takes(look_up, said):
    asked: list = []
    sent: list = []

    async def keyed(order_id: str, cents: int, *, idempotency_key: str) -> str:
        sent.append(idempotency_key)
        raise TimeoutError("the answer was lost")

    async def plain(order_id: str, cents: int) -> str:
        raise TimeoutError("the answer was lost")

    async with interlock.Interlock(store=MEMORY) as gate:
        tool = gate.tool("invoice.send", effect="write", lookup=look_up(asked), on_unknown="lookup")
        tool(keyed if look_up is by_key else plain)

        async def agent(run, task):
            return await run.call("invoice.send", {"order_id": "o-17", "cents": 100})

        result = await gate.run(agent, "x")
    assert result.output == "INV-17"
    assert asked == [sent[0] if said is None else said]


def test_a_lookup_that_asks_for_what_no_call_has_is_refused():
    gate = interlock.Interlock(store=MEMORY)
    with pytest.raises(interlock.ConfigError, match=r"invoice\.send: lookup takes 'order', which is not an argument"):

        @gate.tool("invoice.send", effect="write", lookup=lambda order: None)
        def send(order_id: str) -> str:
            return order_id

    @gate.tool("invoice.open", effect="write", lookup=lambda order: None)
    def anything(**kwargs) -> str:
        return "any"

    gate.close()


async def test_a_lookup_that_does_not_say_what_it_takes_gets_all_there_is():
    async with interlock.Interlock(store=MEMORY) as gate:

        @gate.tool("invoice.send", effect="write", lookup=dict, on_unknown="lookup", output=dict)
        def send(order_id: str) -> dict:
            raise TimeoutError("the answer was lost")

        async def agent(run, task):
            return await run.call("invoice.send", {"order_id": "o-17"})

        assert (await gate.run(agent, "x")).output == {"order_id": "o-17"}
