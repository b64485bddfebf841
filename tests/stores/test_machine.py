"""The claim as a state machine: whatever is done in whatever order, the store says what the model says."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pg_server import DatabaseClock
from scenes import Scene

from interlock.journal.store import ClaimState, Fenced, KilledAtClaim, RunState, Settlement
from interlock.policy.switches import SwitchKind, SwitchScope
from interlock.stores.pg_address import parse_address
from interlock.stores.postgres import PostgresStore
from interlock.stores.sqlite import SqliteStore

NAMES = st.sampled_from(["a", "b", "c"])
OPEN = {ClaimState.INTENT, ClaimState.IN_DOUBT}
KILL = (SwitchScope.TENANT, "acme", SwitchKind.KILL)


class Claims(RuleBasedStateMachine):
    """One request, its runs one after the other, and three effects."""

    def open_store(self):
        raise NotImplementedError

    @initialize()
    def begin(self):
        self.loop = asyncio.new_event_loop()
        self.clock = DatabaseClock()
        self.store = self.open_store()
        self.scene = Scene(self.store, self.clock)
        self.do(self.scene.begin("r0"))
        self.runs = 1
        self.run_state = RunState.RUNNING
        self.killed = False
        self.model = {}
        self.row = self.scene.row

    def do(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            self.loop.close()

    def may_send(self, fence):
        """What the store must raise, or None."""
        if self.run_state is not RunState.RUNNING or fence != self.row.fence:
            return Fenced
        return KilledAtClaim if self.killed else None

    def sending(self, coroutine, fence):
        expected = self.may_send(fence)
        if expected is None:
            return True, self.do(coroutine)
        with pytest.raises(expected):
            self.do(coroutine)
        return False, None

    @rule(name=NAMES, stale=st.booleans())
    def claim(self, name, stale):
        fence = self.row.fence - stale
        sent, standing = self.sending(self.scene.claim(name, fence=fence), fence)
        known = self.model.get(name)
        if not sent:
            return
        if known is None or known["state"] is ClaimState.FAILED_CLEAN:
            assert standing is None
            self.model[name] = {
                "state": ClaimState.INTENT, "sends": 1, "result": None, "verified": True,
                "first": self.clock.wall(), "last": self.clock.wall(), "run": self.row.run_id,
            }  # fmt: skip
        else:
            assert standing.state is known["state"]

    @rule(name=NAMES, stale=st.booleans())
    def resend(self, name, stale):
        fence = self.row.fence - stale
        known = self.model.get(name)
        coroutine = self.store.resend(self.scene.key(name), self.row.run_id, fence)
        if known is None:
            with pytest.raises(Fenced):
                self.do(coroutine)
            return
        sent, closed = self.sending(coroutine, fence)
        if sent and known["state"] in OPEN:
            assert closed is None
            sends = known["sends"] + 1
            known |= {"state": ClaimState.INTENT, "sends": sends, "last": self.clock.wall(), "run": self.row.run_id}
        elif sent:
            assert closed.state is known["state"]

    @rule(
        name=NAMES,
        state=st.sampled_from([ClaimState.DONE, ClaimState.FAILED_CLEAN, ClaimState.IN_DOUBT]),
        verified=st.booleans(),
        soon=st.booleans(),
    )
    def settle(self, name, state, verified, soon):
        """By whoever: an owner, a fenced owner whose answer is late, a person."""
        done = state is ClaimState.DONE
        settlement = Settlement(state, b"1" if done and verified else None, verified=verified or not done)
        known = self.model.get(name)
        is_open = known is not None and known["state"] in OPEN
        if soon:
            self.store.settle_soon(self.scene.key(name), settlement)
            self.do(self.store.flush())
        else:
            assert self.do(self.scene.settle(settlement, name)) == is_open
        if is_open:
            known |= {"state": state, "result": settlement.result, "verified": settlement.verified}

    @precondition(lambda self: self.run_state is RunState.RUNNING)
    @rule(state=st.sampled_from([RunState.PARKED, RunState.ENDED]), stale=st.booleans())
    def end(self, state, stale):
        assert self.do(self.scene.end(state, fence=self.row.fence - stale)) == (not stale)
        if not stale:
            self.run_state = state

    @rule(resume=st.booleans(), retry=st.booleans())
    def begin_again(self, resume, retry):
        begun = self.do(self.scene.begin(f"r{self.runs}", resume=resume, retry=retry))
        if retry and self.run_state is not RunState.RUNNING:
            assert begun.fresh
            assert begun.row.run_id == f"r{self.runs}"
            self.runs += 1
        elif resume and self.run_state is RunState.PARKED:
            assert begun.fresh
            assert (begun.row.run_id, begun.row.fence) == (self.row.run_id, self.row.fence + 1)
        else:
            assert not begun.fresh
            return
        self.row = begun.row
        self.run_state = RunState.RUNNING

    @rule(on=st.booleans())
    def kill(self, on):
        if on:
            self.do(self.store.switches.set(*KILL, reason="fire", actor="ada"))
        else:
            assert self.do(self.store.switches.lift(*KILL, reason="out", actor="ada")) == self.killed
        self.killed = on

    @rule(delta_s=st.floats(0.0, 100.0))
    def time_passes(self, delta_s):
        self.clock.advance(delta_s)

    @invariant()
    def the_store_says_what_the_model_says(self):
        if not hasattr(self, "model"):
            return
        for name in ("a", "b", "c"):
            claim, known = self.do(self.scene.find(name)), self.model.get(name)
            if known is None:
                assert claim is None
                continue
            assert (claim.state, claim.sends, claim.result, claim.verified, claim.run_id) == (
                known["state"], known["sends"], known["result"], known["verified"], known["run"],
            )  # fmt: skip
            assert (claim.first_sent_at, claim.last_sent_at) == (known["first"], known["last"])
            assert (claim.settled_at is None) == (claim.state in OPEN)

    @invariant()
    def every_doubt_is_listed(self):
        if not hasattr(self, "model"):
            return
        over = self.run_state is not RunState.RUNNING
        doubts = {
            self.scene.key(name)
            for name, known in self.model.items()
            if known["state"] is ClaimState.IN_DOUBT
            or (known["state"] is ClaimState.INTENT and (over or known["run"] != self.row.run_id))
        }
        assert {claim.key for claim in self.do(self.store.doubts())} == doubts


class InMemory(Claims):
    def open_store(self):
        return SqliteStore(":memory:", clock=self.clock, replay="plaintext", environ={})


class InFile(Claims):
    def open_store(self):
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "interlock.db"
        # Its owner lives for as long as the machine runs, whatever its clock does.
        return SqliteStore(path, clock=self.clock, replay="plaintext", lease_ttl_s=1e9, environ={})

    def teardown(self):
        super().teardown()
        with contextlib.suppress(AttributeError):
            self.folder.cleanup()


@pytest.fixture(scope="class")
def machine_on_postgres(request, pg_server, pg_schema):
    """Hypothesis makes its machines itself, without fixtures."""
    OnPostgres.server, OnPostgres.url = pg_server, pg_schema


class OnPostgres(Claims):
    server, url = None, ""

    def open_store(self):
        self.clock.govern(self.server, parse_address(self.url).schema)
        return PostgresStore(self.url, clock=self.clock, replay="plaintext", lease_ttl_s=1e9, environ={})

    def teardown(self):
        super().teardown()
        self.server.empty(self.url)


TestInMemory = InMemory.TestCase
TestInMemory.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestInFile = InFile.TestCase
TestOnPostgres = pytest.mark.usefixtures("machine_on_postgres")(OnPostgres.TestCase)
TestOnPostgres.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)
TestInFile.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)
