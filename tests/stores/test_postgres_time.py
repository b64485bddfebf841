"""A machine whose clock is an hour off, or is set while it works: the server's clock decides, and ours reads right."""

from __future__ import annotations

import pytest
from scenes import DONE, Scene, new_run

from interlock.core.clock import ManualClock
from interlock.journal.store import RunState
from interlock.policy.approval import ApprovalRequest, ApprovalState
from interlock.stores.pg_address import parse_address
from interlock.stores.postgres import PostgresStore

HOUR = 3600.0


class Both:
    """The server's clock and ours, that go on together and are not set alike."""

    def __init__(self, server, apart_s):
        self.server = server
        self.ours = ManualClock(start_s=server.monotonic(), wall_s=server.wall() + apart_s)

    def advance(self, delta_s):
        self.server.advance(delta_s)
        self.ours.advance(delta_s)


@pytest.fixture(params=[-HOUR, HOUR])
def both(request, pg_server, pg_url, clock):
    clock.govern(pg_server, parse_address(pg_url).schema)
    return Both(clock, request.param)


@pytest.fixture
def store(pg_url, both):
    store = PostgresStore(pg_url, clock=both.ours, replay="plaintext", environ={})
    yield store
    store.close()


async def ask(store, scene, both, name="x"):
    return await store.approvals.request(
        ApprovalRequest(scene.key(name), "acme", "r1", "t", "v1", "…", both.ours.wall() + 60.0)
    )


async def test_times_read_right_beside_our_own(store, both):
    scene = Scene(store, both.ours)
    begun = await scene.begin()
    assert begun.row.started_at == both.ours.wall()
    await scene.claim()
    both.advance(5.0)
    await scene.settle(DONE)
    claim = await scene.find()
    assert (claim.first_sent_at, claim.settled_at) == (both.ours.wall() - 5.0, both.ours.wall())
    assert begun.row.request_time_ms == int((both.server.wall() - 5.0) * 1000)
    assert store.begin_soon(new_run("r2", "q2")) == int(both.server.wall() * 1000)
    store.end_soon("r2", 1, RunState.ENDED, "success", {}, None)
    await store.flush()
    assert (await store.run("r2")).ended_at == both.ours.wall()
    (attempt,) = await store.leases.attempts_of("r1")
    assert attempt.started_at == both.ours.wall() - 5.0


async def test_an_approval_is_good_for_as_long_as_it_was_asked_for(store, both):
    scene = Scene(store, both.ours)
    await scene.begin()
    row = await ask(store, scene, both)
    assert (row.state, row.requested_at, row.expires_at) == (
        ApprovalState.PENDING,
        both.ours.wall(),
        both.ours.wall() + 60.0,
    )
    both.advance(59.0)
    assert (await store.approvals.get(scene.key(), "v1")).state is ApprovalState.PENDING
    both.advance(1.0)
    assert (await store.approvals.get(scene.key(), "v1")).state is ApprovalState.EXPIRED


async def test_a_switch_is_in_force_for_as_long_as_it_was_set_for(store, both):
    until = both.ours.wall() + 60.0
    switch = await store.switches.set("tool", "db.*", "kill", reason="fire", actor="ada", expires_at=until)
    assert (await store.switches.read()).switches == (switch,)
    assert (switch.set_at, switch.expires_at) == (both.ours.wall(), until)
    both.advance(60.0)
    assert (await store.switches.read()).switches == ()


async def test_a_clock_that_is_set_while_it_works_is_found_out_with_the_next_renewal(store, both):
    scene = Scene(store, both.ours)
    await scene.begin()
    lease = store.leases.hold("r1", 1, both.ours.boot())
    both.ours.jump_wall(7 * HOUR)
    await store.leases.confirm(lease)
    await scene.claim()
    assert (await scene.find()).first_sent_at == both.ours.wall()
    assert (await ask(store, scene, both)).state is ApprovalState.PENDING


async def test_clocks_that_agree_within_a_second_are_left_alone(pg_server, pg_url, clock):
    clock.govern(pg_server, parse_address(pg_url).schema)
    near = Both(clock, 0.4)
    store = PostgresStore(pg_url, clock=near.ours, replay="plaintext", environ={})
    scene = Scene(store, near.ours)
    begun = await scene.begin()
    assert begun.row.started_at == clock.wall()
    store.close()
