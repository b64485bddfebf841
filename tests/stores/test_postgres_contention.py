"""Many processes pull at a few requests at once: each request has one run under way at a time, and fences only rise."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from scenes import new_run

from interlock.journal.store import RunState
from interlock.stores.pg_address import parse_address
from interlock.stores.postgres import PostgresStore
from interlock.stores.writer import WriterOptions

SCALE = int(os.environ.get("INTERLOCK_PROOF_SCALE", "1"))
SEED = int(os.environ.get("INTERLOCK_PROOF_SEED", "1"))
REQUESTS = 3
TURNS = 80
TTL_S = 0.15


class Puller:
    """One process: begins, takes, ends, parks, hands back and requeues, by chance."""

    def __init__(self, store, seed, n):
        self.store = store
        self.chance = random.Random(f"{seed}-{n}")
        self.n = n
        self.mine = []
        self.fences = []

    async def pull(self, request, i):
        act = self.chance.choice([self.begin, self.begin, self.take, self.finish, self.give_back, self.wake])
        await act(request, f"run-{self.n}-{i}")

    def keep(self, row):
        self.fences.append((row.run_id, row.fence))
        self.mine.append(row)

    async def begin(self, request, name):
        how = self.chance.choice([{}, {"retry": True}, {"resume": True}, {"resume": True, "revive": True}])
        begun = await self.store.begin(new_run(name, request), **how)
        if begun.fresh:
            self.keep(begun.row)

    async def take(self, request, name):
        if self.chance.random() < 0.5:
            await self.store.leases.queue(new_run(name, request))
        row = await self.store.leases.take(["support"], None, {})
        if row is not None:
            self.keep(row)

    async def finish(self, request, name):
        if self.mine:
            row = self.mine.pop(self.chance.randrange(len(self.mine)))
            state, reason = self.chance.choice(
                [("ended", "success"), ("ended", "abandoned"), ("parked", "outcome_unknown")]
            )
            await self.store.end(row.run_id, row.fence, RunState(state), reason, {"duration_s": 1.0}, None)

    async def give_back(self, request, name):
        if self.mine:
            row = self.mine.pop()
            await self.store.leases.hand_back(row.run_id, row.fence, 1.0)

    async def wake(self, request, name):
        for row in await self.store.runs(state=RunState.PARKED, limit=3):
            await self.store.leases.requeue(row.run_id)


@pytest.mark.parametrize("seed", range(SEED, SEED + SCALE))
async def test_one_run_of_a_request_is_under_way_at_a_time(pg_server, pg_url, seed):
    schema = parse_address(pg_url).schema
    pg_server.execute(
        f"create or replace function {schema}.up_since_s() returns double precision language sql stable "
        "as 'select 0::double precision'"
    )
    options = WriterOptions(patience_s=30.0, linger_s=0.01)
    stores = [
        PostgresStore(pg_url, environ={}, replay="plaintext", lease_ttl_s=TTL_S, options=options) for _ in range(4)
    ]
    pullers = [Puller(store, seed, n) for n, store in enumerate(stores)]
    more = f"""select request_id, array_agg(run_id) from {schema}.runs
      where state <> 'ended' and path = '' group by request_id having count(*) > 1"""
    lost = f"""select r.run_id from {schema}.runs r join {schema}.requests q using (tenant_id, request_id, path)
      where r.state <> 'ended' and q.run_id <> r.run_id"""
    chance = random.Random(seed)
    try:
        for i in range(TURNS):
            request = f"q{chance.randrange(REQUESTS)}"
            # All of them at one moment, at one request; several times each, so that they share transactions.
            await asyncio.gather(*(puller.pull(request, f"{i}-{k}") for k in range(2) for puller in pullers))
            assert await stores[0]._reader.fetch(more) == []
            assert await stores[0]._reader.fetch(lost) == []
            await asyncio.sleep(chance.choice([0.0, 0.0, 0.0, TTL_S]))
    finally:
        for store in stores:
            store.close()
    # Each fence of a run was given to one owner, once.
    fences = [one for puller in pullers for one in puller.fences]
    assert len(fences) == len(set(fences)) > 10
