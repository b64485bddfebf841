"""Die anywhere, any number of times: the remote counts effects, and no history makes it count too many.

Every example is a history of workers: each proposes the same write, meets what its plan says, and dies at the
point its plan says, if it gets there (`reference: W0-W7`: before and after the intent's commit, before and
after the effect, before and after the result's commit).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from desks import Desk, Remote, write
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interlock.core.calls import OnUnknown
from interlock.core.clock import ManualClock
from interlock.core.errors import InterlockError
from interlock.journal.store import ClaimState, RunState
from interlock.stores.sqlite import SqliteStore


class Died(BaseException):
    """The worker was killed here."""


POINTS = (None, "before claim", "after claim", "before effect", "after effect", "before settle", "after settle")
FATES = ("ok", "lost", "gone", "refused")
CLASSES = ("key", "stop", "lookup", "tell", "natural")


@dataclass
class Worker:
    """What one worker meets: where it dies, what becomes of its attempts, how long until the next one comes."""

    dies: str | None
    fates: list[str] = field(default_factory=list)
    pause_s: float = 0.0
    resumes: bool = False


workers = st.builds(
    Worker,
    st.sampled_from(POINTS),
    st.lists(st.sampled_from(FATES), max_size=3),
    st.sampled_from([0.0, 1.0, 20.0, 99.0, 500.0]),
    st.booleans(),
)


class MortalStore:
    """The journal of a worker that dies at one point."""

    def __init__(self, store, dies):
        self._store = store
        self._dies = dies

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def claim(self, intent):
        if self._dies == "before claim":
            raise Died
        answer = await self._store.claim(intent)
        if self._dies == "after claim":
            raise Died
        return answer

    async def settle(self, key, settlement):
        if self._dies == "before settle":
            raise Died
        answer = await self._store.settle(key, settlement)
        if self._dies == "after settle":
            raise Died
        return answer


class CountingRemote(Remote):
    """A remote that deduplicates on the key, if it is of that class, and dies with its caller at two points."""

    def __init__(self, dedupes):
        super().__init__()
        self.dedupes = dedupes
        self.seen = set()
        self.dies = None

    async def attempt(self, call):
        if self.dies == "before effect":
            raise Died
        before = len(self.effects)
        try:
            answer = await super().attempt(call)
        finally:
            if self.dedupes and call.sent_key in self.seen:
                del self.effects[before:]
            if len(self.effects) > before:
                self.seen.add(call.sent_key)
        if self.dies == "after effect":
            raise Died
        return {"id": len(self.effects)} if answer else answer


def tool_of(kind, remote):
    return {
        "key": lambda: write(on_unknown=OnUnknown.RESEND, takes_key=True),
        "natural": lambda: write(on_unknown=OnUnknown.RESEND, natural=True),
        "lookup": lambda: write(on_unknown=OnUnknown.LOOKUP, lookup=remote.lookup),
        "tell": lambda: write(on_unknown=OnUnknown.TELL),
        "stop": write,
    }[kind]()


async def live(kind, history):
    """Let the workers live and die; return the remote, the claim (or None) and the listed doubts."""
    clock = ManualClock()
    store = SqliteStore(":memory:", clock=clock, replay="plaintext", environ={})
    remote = CountingRemote(dedupes=kind == "key")
    first, run = True, None
    for worker in history:
        mortal = MortalStore(store, worker.dies)
        desk = Desk(clock, mortal, remote)
        desk.max_attempts = 2
        run = await desk.run(resume=worker.resumes, retry=not first and not worker.resumes)
        first = False
        remote.plan, remote.dies = list(worker.fates), worker.dies
        try:
            answer = await desk.guarded(tool_of(kind, remote))(run, title="x")
            assert answer.value["id"] >= 1
        except (InterlockError, Died):
            pass
        # The reaper: whoever comes next finds the run parked, to be resumed or tried anew.
        await store.end(run.run_id, run.fence, RunState.PARKED, "outcome_unknown", {}, None)
        clock.advance(worker.pause_s)
    claims = {claim.key: claim for row in await store.runs() for claim in await store.claims_of(row.run_id)}
    doubts = await store.doubts()
    store.close()
    assert len(claims) <= 1
    return remote, next(iter(claims.values()), None), doubts


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CLASSES), st.lists(workers, min_size=1, max_size=6))
@example("lookup", [Worker("after effect", ["ok"]), Worker(None, [])])
@example("stop", [Worker("after claim"), Worker(None, [])])
@example("key", [Worker("after effect", pause_s=500.0), Worker(None, [])])
def test_no_history_makes_two_effects_of_one_or_a_record_that_is_not_so(kind, history):
    remote, claim, doubts = asyncio.run(live(kind, history))
    if kind != "natural":
        assert len(remote.effects) <= 1
    if claim is None:
        assert remote.effects == []
        return
    if claim.state is ClaimState.DONE:
        assert remote.effects
        assert claim.result is not None
    elif claim.state is ClaimState.FAILED_CLEAN:
        assert remote.effects == []
    else:
        assert [doubt.key for doubt in doubts] == [claim.key]


@settings(max_examples=40, deadline=None)
@given(st.lists(workers, min_size=1, max_size=4))
def test_a_write_that_can_be_closed_is_closed_by_the_next_worker_who_lives(history):
    """`key`: whatever happened before, one healthy worker within the window makes it exactly one."""
    for worker in history:
        worker.pause_s = min(worker.pause_s, 10.0)
    remote, claim, _ = asyncio.run(live("key", [*history, Worker(None, ["ok"])]))
    assert len(remote.effects) == 1
    assert claim.state is ClaimState.DONE


@settings(max_examples=40, deadline=None)
@given(st.lists(workers, min_size=1, max_size=4))
def test_a_lookup_closes_it_once_it_may_say_no(history):
    for worker in history:
        worker.pause_s = 20.0
    remote, claim, _ = asyncio.run(live("lookup", [*history, Worker(None, ["ok"])]))
    assert len(remote.effects) == 1
    assert claim.state is ClaimState.DONE
