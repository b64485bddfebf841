"""The contract of `Journal`: the states of a claim, on every store."""

from __future__ import annotations

import asyncio

import pytest
from scenes import CLEAN, DONE, DOUBT, new_run

from interlock.journal.store import ClaimState, Fenced, KilledAtClaim, RunState, Settlement, SpentApproval
from interlock.policy.approval import ApprovalRequest, ApprovalState
from interlock.policy.switches import SwitchKind, SwitchScope


async def test_a_claim_is_found_as_it_was_made(scene):
    await scene.begin()
    assert await scene.claim(path="sub", occurrence=2, turn=3, seq=4, on_unknown="lookup") is None
    claim = await scene.find()
    intent = scene.intent(path="sub", occurrence=2, turn=3, seq=4, on_unknown="lookup")
    for field in ("key", "tenant_id", "request_id", "run_id", "path", "agent", "tool", "args_digest", "occurrence",
                  "on_unknown", "sent_key", "fence", "turn", "seq"):  # fmt: skip
        assert getattr(claim, field) == getattr(intent, field), field
    assert (claim.state, claim.sends, claim.settled_at) == (ClaimState.INTENT, 1, None)
    assert claim.first_sent_at == claim.last_sent_at == scene.clock.wall()


async def test_nothing_is_found_where_nothing_is(scene):
    await scene.begin()
    assert await scene.find() is None


@pytest.mark.parametrize("settlement", [DONE, DOUBT, None])
async def test_what_stands_is_returned_and_not_touched(scene, settlement):
    await scene.begin()
    await scene.claim()
    if settlement is not None:
        await scene.settle(settlement)
    before = await scene.find()
    scene.clock.advance(5.0)
    assert await scene.claim(seq=9) == before
    assert await scene.find() == before


async def test_a_released_claim_is_taken_anew_and_its_history_kept(scene):
    await scene.begin()
    await scene.claim()
    await scene.store.resend(scene.key(), "r1", 1)
    await scene.settle(Settlement(ClaimState.FAILED_CLEAN, evidence=({"attempt": 1},), by="tool", reason="refused"))
    scene.clock.advance(5.0)
    assert await scene.claim(seq=7) is None
    claim = await scene.find()
    assert (claim.state, claim.seq, claim.sends) == (ClaimState.INTENT, 7, 1)
    assert claim.first_sent_at == claim.last_sent_at == scene.clock.wall()
    assert (claim.settled_at, claim.settled_by, claim.settle_reason) == (None, "", "")
    assert claim.evidence == ({"attempt": 1},)


class TestSettle:
    async def test_done_keeps_the_result_and_who_closed_it(self, scene):
        await scene.begin()
        await scene.claim()
        assert await scene.settle(
            Settlement(ClaimState.DONE, b'{"id":7}', evidence=({"a": 1}, {"b": 2}), by="ada", reason="seen in the CRM")
        )
        claim = await scene.find()
        assert (claim.state, claim.result, claim.result_kept) == (ClaimState.DONE, b'{"id":7}', True)
        assert (claim.settled_by, claim.settle_reason) == ("ada", "seen in the CRM")
        assert claim.settled_at == scene.clock.wall()
        assert claim.evidence == ({"a": 1}, {"b": 2})

    @pytest.mark.parametrize("first", [DONE, CLEAN])
    @pytest.mark.parametrize("then", [DONE, CLEAN, DOUBT])
    async def test_a_closed_claim_never_changes(self, scene, first, then):
        await scene.begin()
        await scene.claim()
        assert await scene.settle(first)
        before = await scene.find()
        assert not await scene.settle(then)
        assert await scene.find() == before

    @pytest.mark.parametrize("then", [DONE, CLEAN])
    async def test_a_doubt_can_be_closed(self, scene, then):
        await scene.begin()
        await scene.claim()
        assert await scene.settle(DOUBT)
        assert (await scene.find()).settled_at is None
        assert await scene.settle(then)
        claim = await scene.find()
        assert claim.state is then.state
        assert claim.evidence == DOUBT.evidence

    async def test_a_doubt_over_a_doubt_adds_evidence(self, scene):
        await scene.begin()
        await scene.claim()
        await scene.settle(DOUBT)
        assert await scene.settle(DOUBT)
        assert (await scene.find()).evidence == (*DOUBT.evidence, *DOUBT.evidence)

    async def test_nothing_is_settled_where_nothing_was_claimed(self, scene):
        await scene.begin()
        assert not await scene.settle(DONE)
        assert await scene.find() is None

    async def test_a_result_belongs_to_done_alone(self, scene):
        await scene.begin()
        await scene.claim()
        await scene.settle(Settlement(ClaimState.IN_DOUBT, b"1"))
        claim = await scene.find()
        assert (claim.result, claim.result_kept) == (None, False)

    async def test_settle_soon_is_written_before_anything_queued_after_it(self, scene):
        await scene.begin()
        await scene.claim()
        scene.store.settle_soon(scene.key(), DONE)
        assert (await scene.claim()).state is ClaimState.DONE

    @pytest.mark.parametrize("text", ['"; drop table journal; --', "\x00", "é🙂\u2028", "a" * 100_000])
    async def test_any_text_survives(self, scene, text):
        await scene.begin()
        await scene.claim(tool=text[:100], agent=text)
        await scene.settle(Settlement(ClaimState.DONE, text.encode(), evidence=({"x": text},), by=text, reason=text))
        claim = await scene.find()
        assert (claim.agent, claim.settled_by, claim.settle_reason) == (text, text, text)
        assert claim.result == text.encode()
        assert claim.evidence == ({"x": text},)


class TestFence:
    async def test_only_the_owner_claims(self, scene):
        await scene.begin()
        with pytest.raises(Fenced):
            await scene.claim(fence=2)
        assert await scene.find() is None

    async def test_nobody_claims_for_a_run_that_is_not_there(self, scene):
        await scene.begin()
        with pytest.raises(Fenced):
            await scene.claim(run_id="another")

    @pytest.mark.parametrize("state", [RunState.ENDED, RunState.PARKED])
    async def test_nobody_claims_for_a_run_that_is_not_running(self, scene, state):
        await scene.begin()
        await scene.end(state)
        with pytest.raises(Fenced):
            await scene.claim()

    async def test_an_old_owner_is_refused_after_a_takeover_but_its_result_counts(self, scene):
        await scene.begin()
        await scene.claim("before")
        old = scene.row
        await scene.end(RunState.PARKED, "outcome_unknown")
        begun = await scene.begin(resume=True)
        assert begun.row.fence == old.fence + 1
        with pytest.raises(Fenced):
            await scene.claim("after", fence=old.fence)
        with pytest.raises(Fenced):
            await scene.store.resend(scene.key("before"), old.run_id, old.fence)
        assert await scene.settle(DONE, "before")

    async def test_a_fenced_claim_does_not_even_see_what_stands(self, scene):
        await scene.begin()
        await scene.claim()
        with pytest.raises(Fenced):
            await scene.claim(fence=0)


class TestResend:
    @pytest.mark.parametrize("settlement", [DOUBT, None])
    async def test_an_open_claim_is_sent_once_more(self, scene, settlement):
        await scene.begin()
        await scene.claim()
        first_sent_at = scene.clock.wall()
        if settlement is not None:
            await scene.settle(settlement)
        scene.clock.advance(3.0)
        assert await scene.store.resend(scene.key(), "r1", 1) is None
        claim = await scene.find()
        assert (claim.state, claim.sends) == (ClaimState.INTENT, 2)
        assert (claim.first_sent_at, claim.last_sent_at) == (first_sent_at, scene.clock.wall())

    @pytest.mark.parametrize("settlement", [DONE, CLEAN])
    async def test_a_closed_claim_is_returned_and_not_sent(self, scene, settlement):
        await scene.begin()
        await scene.claim()
        await scene.settle(settlement)
        claim = await scene.find()
        assert await scene.store.resend(scene.key(), "r1", 1) == claim
        assert await scene.find() == claim

    async def test_what_was_never_claimed_is_not_sent(self, scene):
        await scene.begin()
        with pytest.raises(Fenced):
            await scene.store.resend(scene.key(), "r1", 1)

    async def test_the_next_run_of_the_request_takes_the_claim_over(self, scene):
        await scene.begin()
        await scene.claim()
        await scene.settle(DOUBT)
        await scene.end(reason="outcome_unknown")
        key = scene.key()
        await scene.begin("r2", retry=True)
        assert scene.key() == key
        assert await scene.store.resend(key, "r2", 1) is None
        assert (await scene.find()).run_id == "r2"

    async def test_a_kill_forbids_it(self, scene):
        await scene.begin()
        await scene.claim()
        await scene.store.switches.set(SwitchScope.RUN, "r1", SwitchKind.KILL, reason="fire", actor="ada")
        with pytest.raises(KilledAtClaim):
            await scene.store.resend(scene.key(), "r1", 1)
        assert (await scene.find()).sends == 1


class TestSwitches:
    KILLS = (
        (SwitchScope.GLOBAL, ""),
        (SwitchScope.TENANT, "acme"),
        (SwitchScope.AGENT, "support"),
        (SwitchScope.RUN, "r1"),
        (SwitchScope.TOOL, "ticket.create"),
        (SwitchScope.TOOL, "ticket.*"),
        (SwitchScope.TOOL, "*"),
        (SwitchScope.TOOL, "ticket.creat?"),
    )
    OTHERS = (
        (SwitchScope.TENANT, "acme2"),
        (SwitchScope.AGENT, "Support"),
        (SwitchScope.RUN, "r"),
        (SwitchScope.TOOL, "ticket"),
        (SwitchScope.TOOL, "Ticket.*"),
        (SwitchScope.TOOL, "ticket.create?"),
    )

    @pytest.mark.parametrize(("scope", "subject"), KILLS)
    async def test_a_kill_committed_first_means_not_claimed(self, scene, scope, subject):
        await scene.begin()
        await scene.store.switches.set(scope, subject, SwitchKind.KILL, reason="fire", actor="ada")
        for observing in (False, True):
            with pytest.raises(KilledAtClaim) as caught:
                await scene.claim(observing=observing)
        kill = caught.value
        assert (kill.kind, kill.scope, kill.subject, kill.reason, kill.actor) == ("kill", scope, subject, "fire", "ada")
        assert await scene.find() is None

    @pytest.mark.parametrize(("scope", "subject"), OTHERS)
    async def test_a_kill_of_another_concerns_nobody_here(self, scene, scope, subject):
        await scene.begin()
        await scene.store.switches.set(scope, subject, SwitchKind.KILL, reason="fire", actor="ada")
        assert await scene.claim() is None

    async def test_a_lifted_or_expired_kill_is_none(self, scene):
        await scene.begin()
        kill = (SwitchScope.GLOBAL, "", SwitchKind.KILL)
        await scene.store.switches.set(*kill, reason="fire", actor="ada")
        await scene.store.switches.lift(*kill, reason="out", actor="ada")
        assert await scene.claim("one") is None
        await scene.store.switches.set(*kill, reason="fire", actor="ada", expires_at=scene.clock.wall() + 1.0)
        with pytest.raises(KilledAtClaim):
            await scene.claim("two")
        scene.clock.advance(1.0)
        assert await scene.claim("two") is None

    async def test_safe_mode_holds_up_writes_but_not_what_is_only_observed(self, scene):
        await scene.begin()
        await scene.store.switches.set(SwitchScope.GLOBAL, "", SwitchKind.SAFE_MODE, reason="drill", actor="ada")
        with pytest.raises(KilledAtClaim) as caught:
            await scene.claim()
        assert caught.value.kind == "safe_mode"
        assert await scene.claim(observing=True) is None

    async def test_a_kill_speaks_before_safe_mode(self, scene):
        await scene.begin()
        for kind in (SwitchKind.SAFE_MODE, SwitchKind.KILL):
            await scene.store.switches.set(SwitchScope.GLOBAL, "", kind, reason="fire", actor="ada")
        with pytest.raises(KilledAtClaim) as caught:
            await scene.claim()
        assert caught.value.kind == "kill"


class TestApproval:
    async def granted(self, scene, name="x", **words):
        request = {
            "effect_key": scene.key(name),
            "tenant_id": "acme",
            "run_id": "r1",
            "tool": "ticket.create",
            "policy_version": "v1",
            "rendered": "…",
            "expires_at": scene.clock.wall() + 60.0,
            **words,
        }
        row = await scene.store.approvals.request(ApprovalRequest(**request))
        return (await scene.store.approvals.decide(row.id, True, "ada")).id

    async def state(self, scene, name="x"):
        return (await scene.store.approvals.get(scene.key(name), "v1")).state

    async def test_the_claim_consumes_it(self, scene):
        await scene.begin()
        assert await scene.claim(approval_id=await self.granted(scene)) is None
        assert await self.state(scene) is ApprovalState.CONSUMED

    async def test_it_is_used_once(self, scene):
        await scene.begin()
        approval_id = await self.granted(scene)
        await scene.claim(approval_id=approval_id)
        await scene.settle(CLEAN)
        with pytest.raises(SpentApproval):
            await scene.claim(approval_id=approval_id)
        assert (await scene.find()).state is ClaimState.FAILED_CLEAN

    @pytest.mark.parametrize("decision", [None, False])
    async def test_what_is_not_granted_is_no_approval(self, scene, decision):
        await scene.begin()
        row = await scene.store.approvals.request(
            ApprovalRequest(scene.key(), "acme", "r1", "t", "v1", "…", scene.clock.wall() + 60.0)
        )
        if decision is not None:
            await scene.store.approvals.decide(row.id, decision, "ada")
        with pytest.raises(SpentApproval):
            await scene.claim(approval_id=row.id)
        assert await scene.find() is None

    async def test_an_expired_one_is_none(self, scene):
        await scene.begin()
        approval_id = await self.granted(scene)
        scene.clock.advance(60.0)
        with pytest.raises(SpentApproval):
            await scene.claim(approval_id=approval_id)

    @pytest.mark.parametrize("other", [{"name": "y"}, {"tenant_id": "globex"}])
    async def test_one_of_another_effect_or_tenant_is_none(self, scene, other):
        await scene.begin()
        approval_id = await self.granted(scene, **other)
        with pytest.raises(SpentApproval):
            await scene.claim(approval_id=approval_id)

    async def test_an_unknown_id_is_none(self, scene):
        await scene.begin()
        with pytest.raises(SpentApproval):
            await scene.claim(approval_id="nope")

    async def test_a_standing_claim_needs_and_spends_none(self, scene):
        await scene.begin()
        await scene.claim()
        approval_id = await self.granted(scene)
        assert (await scene.claim(approval_id=approval_id)).state is ClaimState.INTENT
        assert await self.state(scene) is ApprovalState.APPROVED

    @pytest.mark.parametrize("why", ["kill", "fence"])
    async def test_a_refused_claim_spends_none(self, scene, why):
        await scene.begin()
        approval_id = await self.granted(scene)
        if why == "kill":
            await scene.store.switches.set(SwitchScope.GLOBAL, "", SwitchKind.KILL, reason="fire", actor="ada")
        with pytest.raises(KilledAtClaim if why == "kill" else Fenced):
            await scene.claim(approval_id=approval_id, fence=9 if why == "fence" else 1)
        assert await self.state(scene) is ApprovalState.APPROVED


class TestLists:
    async def test_doubts_are_listed_oldest_first_and_by_tenant(self, scene):
        await scene.begin("r1", "q1")
        await scene.claim("a")
        await scene.settle(DOUBT, "a")
        await scene.claim("done")
        await scene.settle(DONE, "done")
        await scene.claim("open")
        scene.clock.advance(10.0)
        await scene.begin("r2", "q2", tenant_id="globex")
        await scene.claim("b")
        await scene.settle(DOUBT, "b")
        assert [claim.sent_key for claim in await scene.store.doubts()] == ["il1_a", "il1_b"]
        assert [claim.sent_key for claim in await scene.store.doubts("globex")] == ["il1_b"]
        assert await scene.store.doubts("nobody") == []

    async def test_an_intent_of_a_run_that_is_over_is_a_doubt(self, scene):
        await scene.begin()
        await scene.claim()
        assert await scene.store.doubts() == []
        await scene.end()
        assert [claim.state for claim in await scene.store.doubts()] == [ClaimState.INTENT]

    async def test_unverified_writes_have_a_list_of_their_own(self, scene):
        await scene.begin()
        await scene.claim("good")
        await scene.settle(DONE, "good")
        await scene.claim("bad")
        await scene.settle(Settlement(ClaimState.DONE, verified=False), "bad")
        assert [claim.sent_key for claim in await scene.store.doubts(unverified=True)] == ["il1_bad"]
        assert await scene.store.doubts() == []

    async def test_claims_of_a_run_are_its_own(self, scene):
        await scene.begin("r1", "q1")
        for name in ("a", "b", "c"):
            await scene.claim(name)
        await scene.begin("r2", "q2")
        await scene.claim("d")
        assert {claim.sent_key for claim in await scene.store.claims_of("r1")} == {"il1_a", "il1_b", "il1_c"}
        assert [claim.key for claim in await scene.store.claims_of("r1")] == sorted(
            claim.key for claim in await scene.store.claims_of("r1")
        )
        assert await scene.store.claims_of("nobody") == []


async def test_many_at_once_one_of_each_kind_of_answer(scene):
    """A batch in which some are refused and some stand: each caller hears of his own."""
    await scene.begin()
    await scene.claim("stands")
    outcomes = await asyncio.gather(
        *(scene.claim(f"new-{i}") for i in range(50)),
        *(scene.claim("stands") for _ in range(10)),
        *(scene.claim(f"fenced-{i}", fence=7) for i in range(10)),
        *(scene.claim(f"paid-{i}", approval_id="nope") for i in range(10)),
        return_exceptions=True,
    )
    assert outcomes[:50] == [None] * 50
    assert all(claim.sent_key == "il1_stands" for claim in outcomes[50:60])
    assert all(isinstance(outcome, Fenced) for outcome in outcomes[60:70])
    assert all(isinstance(outcome, SpentApproval) for outcome in outcomes[70:])
    assert len(await scene.store.claims_of("r1")) == 51


async def test_equal_claims_at_once_one_is_taken(scene):
    await scene.begin()
    outcomes = await asyncio.gather(*(scene.claim(seq=i) for i in range(64)))
    assert outcomes.count(None) == 1
    (taken,) = {claim.seq for claim in outcomes if claim is not None}
    assert outcomes[taken] is None


async def test_the_secret_is_made_once(make_store):
    first = make_store()
    assert len(first.secret) == 32
    if make_store.durable:
        assert make_store().secret == first.secret


async def test_what_was_committed_is_there_when_the_store_is_opened_again(make_store, clock):
    from scenes import Scene

    if not make_store.durable:
        pytest.skip("a store in memory forgets")
    store = make_store()
    scene = Scene(store, clock)
    await scene.begin()
    await scene.claim()
    await scene.settle(DONE)
    store.trace_soon("r1", 1, [{"seq": 1, "step": 1}])
    store.close()
    scene.store = make_store()
    assert (await scene.find()).result == b'{"id":1}'
    assert await scene.store.calls_of("r1") == [{"seq": 1, "step": 1}]
    assert not (await scene.store.begin(new_run())).fresh
