"""Several writes at once, on a store and a remote that fail and workers that die: one seed is one history.

`tests/journal/test_crashes.py` lets one write of one class meet every point; here whole workers, with writes of
every class in flight together, are cut off at an instant of virtual time, beside answers of the store that are lost
after their commit, requests that arrive late, and writes that arrive when nobody waits for them any more.
A failure names its seed: `INTERLOCK_PROOF_SEED=<seed> pytest tests/proof/test_simulation.py` repeats that history.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter

import pytest
from desks import Desk, write
from proof_driver import SCALE

from interlock.core.calls import OnUnknown
from interlock.core.clock import LoopClock, run_virtual
from interlock.core.errors import InterlockError, NotPerformed, StoreUnavailable
from interlock.journal.store import ClaimState, RunState, Settlement
from interlock.stores.sqlite import SqliteStore

SEED = int(os.environ.get("INTERLOCK_PROOF_SEED", "1"))
SEEDS_A_TEST = 25
TESTS = 8 if SCALE == 1 else 12 * SCALE

CLASSES = ("resend", "natural", "lookup", "stop", "tell")
WINDOW_S = 100.0
TIMEOUT_S = 2.0
LATEST_S = 1.5  # what has left arrives within this time, whatever became of its sender
SETTLE_S = TIMEOUT_S + LATEST_S


class SimulatedClock(LoopClock):
    """The virtual time of one loop, in every thread."""

    loop = None

    def monotonic(self):
        if self.loop is not None:
            self._now_s = self.loop.time()
        return self._now_s


class StillStore:
    """A store whose every answer takes no virtual time: the simulation waits for its threads, and so is repeatable."""

    def __init__(self, store, outside):
        self._store = store
        self._outside = outside

    def __getattr__(self, name):
        method = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(method):
            return method

        async def still(*args, **words):
            return asyncio.run_coroutine_threadsafe(method(*args, **words), self._outside).result()

        return still


class Dead(BaseException):
    """Of a worker that is dead: nothing that it would do is done."""


class FaultyStore:
    """The store as one worker has it: it may fail before or after a commit, and does nothing once he is dead."""

    def __init__(self, store, chance, faults):
        self._store = store
        self._chance = chance
        self._faults = faults
        self.dead = False

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def _change(self, name, *args):
        await asyncio.sleep(self._chance.uniform(0.0, 0.05))
        fate = self._chance.random()
        if self.dead:
            raise Dead
        if fate < self._faults:
            raise StoreUnavailable("the store did not get it")
        answer = await getattr(self._store, name)(*args)
        await asyncio.sleep(self._chance.uniform(0.0, 0.05))
        if self.dead:
            raise Dead
        if fate < 2 * self._faults:
            raise StoreUnavailable("the store got it, and its answer was lost")
        return answer

    async def claim(self, intent):
        return await self._change("claim", intent)

    async def resend(self, *args, **words):
        assert not words.get("observing")
        return await self._change("resend", *args)

    async def settle(self, key, settlement):
        return await self._change("settle", key, settlement)

    def settle_soon(self, key, settlement):
        if not self.dead:
            self._store.settle_soon(key, settlement)


class SlowRemote:
    """A remote at a distance: what was sent arrives, later, even if its sender is dead by then."""

    def __init__(self, chance):
        self.chance = chance
        self.effects = []  # (tool, meant, key)
        self.tasks = set()
        self.calm = False

    async def attempt(self, call, worker):
        if worker.dead:
            raise Dead
        arrival = asyncio.ensure_future(self._arrive(call.tool.name, call.args["meant"], call.sent_key))
        self.tasks.add(arrival)
        arrival.add_done_callback(self.tasks.discard)
        fate = 1.0 if self.calm else self.chance.random()
        async with asyncio.timeout(TIMEOUT_S):
            happened = await asyncio.shield(arrival)
            await asyncio.sleep(self.chance.uniform(0.0, 0.5))
            if fate < 0.2:
                await asyncio.sleep(3_600.0)  # the answer is lost: only the timeout ends this
        if worker.dead:
            raise Dead
        if not happened:
            raise NotPerformed
        return {"id": call.args["meant"]}

    async def _arrive(self, tool, meant, key):
        await asyncio.sleep(self.chance.uniform(0.0, LATEST_S))
        if not self.calm and self.chance.random() < 0.1:
            return False
        if not (tool == "resend" and any(key == had for _, _, had in self.effects)):
            self.effects.append((tool, meant, key))
        return True

    async def lookup(self, meant, *, idempotency_key):
        await asyncio.sleep(self.chance.uniform(0.0, 0.2))
        if not self.calm and self.chance.random() < 0.1:
            raise TimeoutError
        return {"id": meant} if any(idempotency_key == key for _, _, key in self.effects) else None

    async def quiet(self):
        while self.tasks:
            await asyncio.wait(self.tasks)


def tool_of(name, remote):
    words = {
        "resend": {"on_unknown": OnUnknown.RESEND},
        "natural": {"on_unknown": OnUnknown.RESEND, "natural": True},
        "lookup": {"on_unknown": OnUnknown.LOOKUP, "lookup": remote.lookup, "settle_s": SETTLE_S},
        "stop": {"on_unknown": OnUnknown.STOP},
        "tell": {"on_unknown": OnUnknown.TELL},
    }[name]
    return write(name=name, takes_key=True, **words)


class History:
    """One seed: workers come and go until one of them lives to the end; then a person settles."""

    def __init__(self, seed, outside):
        self.chance = random.Random(seed)
        self.clock = SimulatedClock()
        self.closing = SqliteStore(":memory:", clock=self.clock, replay="plaintext", environ={})
        self.store = StillStore(self.closing, outside)
        self.remote = SlowRemote(self.chance)
        self.meant = [(name, f"{name}-{i}") for name in CLASSES for i in range(2)]
        self.failures = []

    async def live(self):
        """Return what can be told of this history: what happened, in order, and how every claim ended."""
        self.clock.loop = asyncio.get_running_loop()
        try:
            return await self.told()
        finally:
            self.closing.close()

    async def told(self):
        for n in range(self.chance.randint(1, 5)):
            await self.worker(first=n == 0, lives_s=self.chance.uniform(0.0, 6.0))
            await asyncio.sleep(self.chance.choice([0.0, 1.0, 10.0, 2 * WINDOW_S]))
        # Judged while nobody works: what is open is listed, and nothing is there that should not be.
        await self.remote.quiet()
        await self.judge()
        self.remote.calm = True
        for doubt in sorted(await self.store.doubts(), key=lambda doubt: doubt.sent_key):
            if doubt.tool in {"stop", "tell"} or self.chance.random() < 0.5:
                happened = any(doubt.sent_key == key for _, _, key in self.remote.effects)
                state = ClaimState.DONE if happened else ClaimState.FAILED_CLEAN
                assert await self.store.settle(doubt.key, Settlement(state, b"{}" if happened else None, by="ada"))
        await asyncio.sleep(SETTLE_S)
        await self.worker(first=False, lives_s=None)
        await self.remote.quiet()
        claims = await self.judge()
        # Whoever lives in calm weather leaves every write done, but a doubt whose key the remote has forgotten.
        for claim in claims:
            forgotten = claim.tool == "resend" and self.clock.wall() - claim.first_sent_at > WINDOW_S
            assert claim.state is ClaimState.DONE or forgotten, claim
        assert len(claims) == len(self.meant)
        return self.remote.effects, sorted((c.sent_key, c.tool, c.state, c.sends) for c in claims)

    async def worker(self, *, first, lives_s):
        """A worker proposes every write at once; after `lives_s` he is dead, wherever he was."""
        faults = 0.0 if lives_s is None else self.chance.choice([0.0, 0.05, 0.2])
        store = FaultyStore(self.store, self.chance, faults)
        desk = Desk(self.clock, store, self.remote)
        desk.max_attempts = 2
        run = await desk.run(resume=not first)
        tasks = [asyncio.ensure_future(self.propose(desk, run, store, *one)) for one in self.meant]
        await asyncio.wait(tasks, timeout=lives_s)
        store.dead = True
        for task in [*tasks, *(flight.task for flight in desk.inflight._flights.values())]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.store.end(run.run_id, run.fence, RunState.PARKED, "outcome_unknown", {}, None)
        assert not self.failures, self.failures

    async def propose(self, desk, run, store, name, meant):
        guarded = desk.guarded(tool_of(name, self.remote), lambda call: self.remote.attempt(call, store))
        try:
            answer = await guarded(run, meant=meant)
        except (InterlockError, Dead):
            return
        if answer.value not in ({"id": meant}, {}):
            self.failures.append((name, meant, answer.value))

    async def judge(self):
        """Hold the remote's count against the record, at an instant at which nobody works; return the claims."""
        effects = self.remote.effects
        (run,) = await self.store.runs()
        claims = await self.store.claims_of(run.run_id)
        keys = {claim.sent_key: claim for claim in claims}
        assert not [one for one in effects if one[2] not in keys], "an effect without an intent"
        times = Counter((name, meant) for name, meant, _ in effects)
        again = [(one, n) for one, n in times.items() if n > 1 and one[0] != "natural"]
        # A key that the remote has forgotten makes no promise, and is not sent again (see dedupe_window_s).
        assert not again, f"more than one effect of what was meant once: {again}"
        happened = {key for _, _, key in effects}
        listed = {doubt.key for doubt in await self.store.doubts()}
        for claim in claims:
            if claim.state is ClaimState.DONE:
                assert claim.sent_key in happened, f"done, and never happened: {claim}"
            elif claim.state is ClaimState.FAILED_CLEAN:
                assert claim.sent_key not in happened, f"happened, and is recorded as not performed: {claim}"
            else:
                assert claim.key in listed, f"a doubt that nobody can see: {claim}"
        return claims


@pytest.fixture(scope="module")
def outside():
    """A loop of real time, in a thread of its own, on which the store is asked."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def tell(seed, outside):
    try:
        return run_virtual(History(seed, outside).live(), patience_s=0)
    except BaseException as error:
        error.add_note(f"INTERLOCK_PROOF_SEED={seed} pytest tests/proof/test_simulation.py")
        raise


@pytest.mark.parametrize("first", range(SEED, SEED + TESTS * SEEDS_A_TEST, SEEDS_A_TEST))
def test_no_history_makes_two_effects_of_one_or_a_record_that_is_not_so(first, outside):
    for seed in range(first, first + SEEDS_A_TEST):
        tell(seed, outside)


def test_a_seed_is_one_history(outside):
    for seed in range(SEED, SEED + 5):
        assert tell(seed, outside) == tell(seed, outside)
