"""A process of its own, for the tests of several processes: does what its first argument says to the store in the second."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time

from interlock.journal.store import ClaimState, Intent, NewRun, RunState, Settlement
from interlock.stores.postgres import PostgresStore
from interlock.stores.sqlite import SqliteStore
from interlock.stores.turnlock import TurnLock

DONE = Settlement(ClaimState.DONE, b'{"id":1}')


def opened(address):
    make = PostgresStore if "://" in address else SqliteStore
    return make(address, environ={})


async def begin(store, run_id):
    return (await store.begin(NewRun(run_id, "t", f"q-{run_id}", "a", "h", run_id))).row


def intent(row, n):
    key = row.request_time_ms.to_bytes(8, "big") + row.run_id.encode()[-8:].rjust(8, b"_") + n.to_bytes(8, "big")
    return Intent(key, "t", row.request_id, row.run_id, "", "a", "tool", b"d", 1, "stop", "k", row.fence, 1, n)


def tell(*words):
    # One write for each line: a killed process must not leave half of one.
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


async def claim_for_ever(path, run_id, callers):
    store = opened(path)
    row = await begin(store, run_id)
    numbers = itertools.count()

    async def caller():
        while True:
            mine = intent(row, next(numbers))
            assert await store.claim(mine) is None
            tell("claimed", mine.key.hex())
            assert await store.settle(mine.key, DONE)
            tell("settled", mine.key.hex())

    await asyncio.gather(*(caller() for _ in range(int(callers))))


async def open_each(folder, count):
    for n in range(int(count)):
        opened(f"{folder}/{n}.db").close()
    tell("[]")


async def claim_one(path, run_id):
    store = opened(path)
    mine = intent(await begin(store, run_id), 1)
    await store.claim(mine)
    tell("claimed", mine.key.hex())
    await asyncio.sleep(3600)


async def claim(path, run_id, callers, seconds, together=""):
    store = opened(path)
    row = await begin(store, run_id)
    numbers, waits = itertools.count(), []
    if together:
        tell("ready")
        await asyncio.to_thread(sys.stdin.readline)
    stop = time.monotonic() + float(seconds)

    async def caller():
        while (began := time.monotonic()) < stop:
            mine = intent(row, next(numbers))
            assert await store.claim(mine) is None
            assert await store.settle(mine.key, DONE)
            waits.append(time.monotonic() - began)

    await asyncio.gather(*(caller() for _ in range(int(callers))))
    store.close()
    waits.sort()
    tell(json.dumps({"claims": len(waits), "p99_s": waits[int(len(waits) * 0.99)], "longest_s": waits[-1]}))


async def begin_same(path, name, callers):
    store = opened(path)
    begun = await asyncio.gather(
        *(store.begin(NewRun(f"{name}-{i}", "t", "the request", "a", "h", f"{name}-{i}")) for i in range(int(callers)))
    )
    tell(json.dumps({"fresh": sum(b.fresh for b in begun), "runs": [b.row.run_id for b in begun]}))
    store.close()


async def open_new(path):
    store = opened(path)
    run_id = f"run-{time.monotonic_ns()}"
    row = await begin(store, run_id)
    await store.end(run_id, row.fence, RunState.ENDED, "success", {}, b'"sealed"')
    tell(json.dumps({"secret": store.secret.hex(), "run_id": run_id}))
    store.close()


async def hold(path):
    lock = TurnLock(path)
    lock.acquire()
    tell("held")
    await asyncio.sleep(3600)


async def exit_(path):
    store = opened(path)
    store.begin_soon(NewRun("r1", "t", "q", "a", "h", "r1"))
    store.end_soon("r1", 1, RunState.ENDED, "success", {}, None)
    tell("{}")


VERBS = {
    "claim-for-ever": claim_for_ever,
    "claim-one": claim_one,
    "claim": claim,
    "begin": begin_same,
    "open": open_new,
    "hold": hold,
    "exit": exit_,
    "open-each": open_each,
}

if __name__ == "__main__":
    asyncio.run(VERBS[sys.argv[1]](*sys.argv[2:]))
