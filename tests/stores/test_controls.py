"""The contracts of `SwitchStore` and `ApprovalStore`, on every store."""

from __future__ import annotations

import asyncio

import pytest

from interlock.core.errors import ConfigError
from interlock.policy.approval import ApprovalRequest, ApprovalState
from interlock.policy.switches import Switch, SwitchKind, SwitchScope, SwitchSnapshot

GLOBAL_KILL = (SwitchScope.GLOBAL, "", SwitchKind.KILL)


class TestSwitches:
    async def test_nothing_is_switched_at_first(self, store):
        assert await store.switches.read() == SwitchSnapshot()

    async def test_what_is_set_is_read_in_order(self, store, clock):
        first = await store.switches.set(*GLOBAL_KILL, reason="fire", actor="ada")
        assert first == Switch(*GLOBAL_KILL, "fire", "ada", clock.wall())
        clock.advance(1.0)
        second = await store.switches.set(
            SwitchScope.TOOL, "db.*", SwitchKind.KILL, reason="slow", actor="bob", expires_at=clock.wall() + 9.0
        )
        assert await store.switches.read() == SwitchSnapshot((first, second))

    async def test_setting_again_replaces(self, store, clock):
        await store.switches.set(*GLOBAL_KILL, reason="fire", actor="ada", expires_at=clock.wall() + 1.0)
        again = await store.switches.set(*GLOBAL_KILL, reason="still burning", actor="bob")
        assert await store.switches.read() == SwitchSnapshot((again,))

    async def test_kill_and_safe_mode_are_two_switches(self, store):
        await store.switches.set(*GLOBAL_KILL, reason="fire", actor="ada")
        await store.switches.set(SwitchScope.GLOBAL, "", SwitchKind.SAFE_MODE, reason="fire", actor="ada")
        assert len((await store.switches.read()).switches) == 2
        assert await store.switches.lift(*GLOBAL_KILL, reason="out", actor="ada")
        assert [switch.kind for switch in (await store.switches.read()).switches] == [SwitchKind.SAFE_MODE]

    async def test_lifting_says_whether_one_stood(self, store, clock):
        assert not await store.switches.lift(*GLOBAL_KILL, reason="out", actor="ada")
        await store.switches.set(*GLOBAL_KILL, reason="fire", actor="ada", expires_at=clock.wall() + 1.0)
        clock.advance(1.0)
        assert not await store.switches.lift(*GLOBAL_KILL, reason="out", actor="ada")

    async def test_an_expired_switch_is_not_in_force(self, store, clock):
        await store.switches.set(*GLOBAL_KILL, reason="fire", actor="ada", expires_at=clock.wall() + 1.0)
        clock.advance(0.5)
        assert (await store.switches.read()).switches
        clock.advance(0.5)
        assert not (await store.switches.read()).switches

    @pytest.mark.parametrize("words", [{"reason": " "}, {"actor": ""}])
    async def test_why_and_who_are_needed_to_set_and_to_lift(self, store, words):
        who = {"reason": "fire", "actor": "ada", **words}
        with pytest.raises(ConfigError):
            await store.switches.set(*GLOBAL_KILL, **who)
        with pytest.raises(ConfigError):
            await store.switches.lift(*GLOBAL_KILL, **who)
        assert not (await store.switches.read()).switches


class TestApprovals:
    KEY = bytes(range(24))

    def request(self, clock, **words):
        return ApprovalRequest(
            **{
                "effect_key": self.KEY,
                "tenant_id": "acme",
                "run_id": "r1",
                "tool": "refund.create",
                "policy_version": "v1",
                "rendered": "refund.create(order_id=7)",
                "expires_at": clock.wall() + 60.0,
                **words,
            }
        )

    async def test_a_request_is_pending(self, store, clock):
        row = await store.approvals.request(self.request(clock))
        asked = self.request(clock)
        for field in ("effect_key", "tenant_id", "run_id", "tool", "policy_version", "rendered", "expires_at"):
            assert getattr(row, field) == getattr(asked, field), field
        assert (row.state, row.requested_at, row.decided_at) == (ApprovalState.PENDING, clock.wall(), None)
        assert await store.approvals.get(self.KEY, "v1") == row
        assert await store.approvals.get(self.KEY, "v2") is None

    async def test_two_askers_get_one_row(self, store, clock):
        rows = await asyncio.gather(*(store.approvals.request(self.request(clock, run_id=f"r{i}")) for i in range(20)))
        assert len({row.id for row in rows}) == 1
        assert len(await store.approvals.list()) == 1

    @pytest.mark.parametrize(("approved", "state"), [(True, ApprovalState.APPROVED), (False, ApprovalState.DENIED)])
    async def test_a_decision_stands(self, store, clock, approved, state):
        row = await store.approvals.request(self.request(clock))
        clock.advance(30.0)
        decided = await store.approvals.decide(row.id, approved, "ada", "seen")
        assert (decided.state, decided.decided_by, decided.reason) == (state, "ada", "seen")
        assert decided.decided_at == clock.wall()
        assert decided.expires_at == clock.wall() + 60.0
        assert await store.approvals.decide(row.id, not approved, "bob") == decided
        assert await store.approvals.request(self.request(clock)) == decided
        assert await store.approvals.get(self.KEY, "v1") == decided

    async def test_nobody_decided_in_time(self, store, clock):
        row = await store.approvals.request(self.request(clock))
        clock.advance(60.0)
        assert (await store.approvals.get(self.KEY, "v1")).state is ApprovalState.EXPIRED
        late = await store.approvals.decide(row.id, True, "ada")
        assert (late.state, late.decided_by) == (ApprovalState.EXPIRED, "")
        again = await store.approvals.request(self.request(clock))
        assert again.id != row.id
        assert again.state is ApprovalState.PENDING
        assert await store.approvals.get(self.KEY, "v1") == again

    async def test_a_grant_expires_too(self, store, clock):
        row = await store.approvals.request(self.request(clock))
        await store.approvals.decide(row.id, True, "ada")
        clock.advance(60.0)
        assert (await store.approvals.get(self.KEY, "v1")).state is ApprovalState.EXPIRED

    async def test_another_policy_supersedes_what_is_open_but_not_what_was_denied(self, store, clock):
        row = await store.approvals.request(self.request(clock))
        other = await store.approvals.request(self.request(clock, effect_key=b"o" * 24))
        newer = await store.approvals.request(self.request(clock, policy_version="v2"))
        assert newer.state is ApprovalState.PENDING
        assert (await store.approvals.get(self.KEY, "v1")).state is ApprovalState.SUPERSEDED
        assert (await store.approvals.decide(row.id, True, "ada")).state is ApprovalState.SUPERSEDED
        assert (await store.approvals.get(other.effect_key, "v1")).state is ApprovalState.PENDING
        await store.approvals.decide(newer.id, False, "ada")
        await store.approvals.request(self.request(clock, policy_version="v3"))
        assert (await store.approvals.get(self.KEY, "v2")).state is ApprovalState.DENIED

    async def test_who_decides_is_needed(self, store, clock):
        row = await store.approvals.request(self.request(clock))
        with pytest.raises(ConfigError):
            await store.approvals.decide(row.id, True, "  ")
        assert (await store.approvals.get(self.KEY, "v1")).state is ApprovalState.PENDING

    async def test_there_is_nothing_to_decide_where_nothing_was_asked(self, store):
        assert await store.approvals.decide("nope", True, "ada") is None

    async def test_lists(self, store, clock):
        ids = []
        for i in range(4):
            tenant_id = "acme" if i % 2 else "globex"
            asked = self.request(clock, effect_key=bytes([i]) * 24, tenant_id=tenant_id)
            ids.append((await store.approvals.request(asked)).id)
            clock.advance(10.0)
        await store.approvals.decide(ids[0], True, "ada")
        listed = store.approvals.list
        assert [row.id for row in await listed()] == [ids[3], ids[2], ids[1]]
        assert [row.id for row in await listed(limit=1)] == [ids[3]]
        assert [row.id for row in await listed(tenant_id="acme")] == [ids[3], ids[1]]
        assert [row.id for row in await listed(state=ApprovalState.APPROVED)] == [ids[0]]
        assert len(await listed(state=None)) == 4
        clock.advance(35.0)
        assert [row.id for row in await listed(state=ApprovalState.EXPIRED)] == [ids[1]]
        assert [row.id for row in await listed()] == [ids[3], ids[2]]
