"""A worker goes round the doubts and asks the remotes: a lie, a hang or a fault closes nothing."""

import asyncio
import itertools
import threading

import pytest
from desks import write

from interlock.core.calls import OnUnknown
from interlock.core.errors import OutcomeUnknown
from interlock.journal.rounds import RoundOptions, Rounds
from interlock.journal.store import ClaimState

# The tool's timeout is 10 s, the lease 5 s: a "no" counts 15 s after the last send.


class Doubt:
    """A write of which nobody knows, and who goes round."""

    def __init__(self, desk, lookup, **words):
        self.desk = desk
        self.tool = write(on_unknown=OnUnknown.LOOKUP, lookup=lookup, **words)
        self.known = {self.tool.name: self.tool}
        self.rounds = Rounds(desk.effects.ledger, self.known.get)

    async def arise(self, happened=True):
        """The answer is lost, and the look-up of that moment is of no use."""
        propose = self.desk.guarded(write(on_unknown=OnUnknown.LOOKUP, lookup=down))
        self.desk.remote.plan = ["lost" if happened else "gone"]
        self.run = await self.desk.run()
        with pytest.raises(OutcomeUnknown):
            await propose(self.run, title="x")

    async def claim(self):
        (claim,) = await self.desk.store.claims_of(self.run.run_id)
        return claim


async def down(**_):
    raise ConnectionError("down")


async def test_a_yes_closes_the_doubt_at_once_with_the_result_and_the_evidence(desk):
    doubt = Doubt(desk, desk.remote.lookup)
    await doubt.arise()
    assert await doubt.rounds.go() == 1
    claim = await doubt.claim()
    assert (claim.state, claim.result, claim.settled_by) == (ClaimState.DONE, b'{"id":1}', "lookup")
    assert claim.evidence[-1] == {"by": "lookup", "why": "lookup found it"}
    assert len(desk.remote.keys) == 1


async def test_a_no_counts_only_when_nothing_can_arrive_any_more(desk):
    doubt = Doubt(desk, desk.remote.lookup)
    await doubt.arise(happened=False)
    assert await doubt.rounds.go() == 0
    desk.clock.advance(14.0)
    assert await doubt.rounds.go() == 0
    assert desk.remote.lookups == 1  # before that moment there is no use in asking again
    desk.clock.advance(1.0)
    assert await doubt.rounds.go() == 1
    claim = await doubt.claim()
    assert (claim.state, claim.settled_by, claim.args) == (ClaimState.FAILED_CLEAN, "lookup", None)


@pytest.mark.parametrize(
    ("lookup", "why"),
    [
        (down, "lookup failed: ConnectionError"),
        (lambda **_: {"id": 7, "idempotency_key": "il1_of_another"}, "lookup answered for another idempotency key"),
        (lambda **_: float("nan"), "lookup returned what cannot be the tool's output"),
    ],
    ids=["raises", "another key", "no output"],
)
async def test_what_proves_nothing_leaves_the_doubt_and_is_on_record_once(desk, lookup, why):
    doubt = Doubt(desk, lookup)
    await doubt.arise()
    for _ in range(3):
        desk.clock.advance(60.0)
        assert await doubt.rounds.go() == 0
    claim = await doubt.claim()
    assert claim.state is ClaimState.IN_DOUBT
    assert [entry["why"] for entry in claim.evidence if entry.get("by") == "lookup"].count(why) == 1


async def test_it_is_asked_less_and_less_often(desk):
    asked = []

    async def lookup(**_):
        asked.append(desk.clock.boot())
        raise ConnectionError

    doubt = Doubt(desk, lookup)
    await doubt.arise()
    desk.clock.advance(15.0)
    for _ in range(1_000):
        await doubt.rounds.go()
        desk.clock.advance(1.0)
    waits = [round(after - before) for before, after in itertools.pairwise(asked)]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]


async def test_a_lookup_that_hangs_is_left_behind_and_holds_nothing_up(desk):
    async def hangs(**_):
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if over.is_set():
                    raise

    over = asyncio.Event()
    doubt = Doubt(desk, hangs, timeout_s=0.01)
    await doubt.arise()
    other = write(on_unknown=OnUnknown.LOOKUP, lookup=lambda **_: {"id": 2}, name="other")
    doubt.known["other"] = other
    propose = desk.guarded(write(on_unknown=OnUnknown.LOOKUP, lookup=down, name="other"))
    desk.remote.plan = ["lost"]
    with pytest.raises(OutcomeUnknown):
        await propose(doubt.run, title="y")
    assert await doubt.rounds.go() == 1
    states = {claim.tool: claim.state for claim in await desk.store.claims_of(doubt.run.run_id)}
    assert states == {"ticket.create": ClaimState.IN_DOUBT, "other": ClaimState.DONE}
    over.set()
    for inquiry in doubt.rounds._inquiries.values():
        for asked in list(inquiry._asked):
            asked.cancel()


async def test_of_a_lookup_that_blocks_its_thread_not_every_round_starts_another(desk):
    over, started = threading.Event(), []

    def blocks(**_):
        started.append(1)
        over.wait(30.0)

    doubt = Doubt(desk, blocks, timeout_s=0.01)
    await doubt.arise()
    try:
        for _ in range(5):
            desk.clock.advance(400.0)
            assert await doubt.rounds.go() == 0
        assert len(started) == RoundOptions().busy
    finally:
        over.set()


async def test_a_tool_of_another_process_is_left_to_it(desk):
    doubt = Doubt(desk, desk.remote.lookup)
    await doubt.arise()
    assert await Rounds(desk.effects.ledger, lambda _name: None).go() == 0
    assert desk.remote.lookups == 0


async def test_doubts_of_other_tenants_are_left_alone_where_they_are_named(desk):
    doubt = Doubt(desk, desk.remote.lookup)
    await doubt.arise()
    assert await doubt.rounds.go(["globex"]) == 0
    assert await doubt.rounds.go(["acme"]) == 1


async def test_without_the_arguments_it_is_asked_by_the_key_alone_or_not_at_all(desk):
    doubt = Doubt(desk, lambda title: {"id": 1})
    await doubt.arise()
    await desk.store._writer.submit(lambda db: db.execute("update journal set args = null"))
    assert await doubt.rounds.go() == 0
    assert "arguments" in (await doubt.claim()).evidence[-1]["why"]
    keys = []

    def by_key(*, idempotency_key):
        keys.append(idempotency_key)
        return {"id": 1}

    rounds = Rounds(desk.effects.ledger, lambda _name: write(on_unknown=OnUnknown.LOOKUP, lookup=by_key))
    assert await rounds.go() == 1
    assert keys == [(await doubt.claim()).sent_key]


async def test_a_write_that_this_process_is_at_is_not_asked_about(desk):
    doubt = Doubt(desk, desk.remote.lookup)
    await doubt.arise()
    held = asyncio.Event()
    desk.inflight.await_late((await doubt.claim()).key, held.wait())
    assert await doubt.rounds.go() == 0
    assert desk.remote.lookups == 0
    held.set()


async def test_a_no_that_comes_late_says_nothing_of_what_was_sent_since(desk):
    async def lookup(**_):
        claim = await doubt.claim()
        assert await desk.store.resend(claim.key, doubt.run.run_id, doubt.run.fence) is None

    doubt = Doubt(desk, lookup)
    await doubt.arise(happened=False)
    desk.clock.advance(60.0)
    assert await doubt.rounds.go() == 0
    assert (await doubt.claim()).state is ClaimState.INTENT
