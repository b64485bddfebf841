"""Writes under way: cancelled runs, equal writes of one moment, late answers, shutdown, a store that is away."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest
from desks import Desk, Remote, write

from interlock.core.calls import Answer, Call, OnUnknown, Repeat
from interlock.core.canonical import canonical_json, digest
from interlock.core.clock import LoopClock, run_virtual
from interlock.core.errors import (
    ApprovalExpired,
    LeaseLost,
    NotPerformed,
    OutcomeUnknown,
    RunStopped,
    StoreUnavailable,
    ToolDenied,
    ToolFailed,
)
from interlock.core.reasons import StopReason
from interlock.journal.store import ClaimState
from interlock.policy.approval import ApprovalRequest
from interlock.policy.switches import SwitchKind, SwitchScope
from interlock.stores.sqlite import SqliteStore


async def claims(desk):
    return [claim for run in await desk.store.runs() for claim in await desk.store.claims_of(run.run_id)]


async def only_claim(desk):
    (claim,) = await claims(desk)
    return claim


class Gate:
    """A step of the remote that the test opens."""

    def __init__(self):
        self.entered = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self):
        self.entered.set()
        await self.open.wait()
        return "ok"


class TestCancelledRun:
    async def test_a_write_under_way_is_finished_and_recorded(self, desk):
        gate = Gate()
        desk.remote.plan = [gate]
        agent = asyncio.create_task(desk.guarded(write())(await desk.run(), title="x"))
        await gate.entered.wait()
        agent.cancel()
        with pytest.raises(asyncio.CancelledError):
            await agent
        assert (await only_claim(desk)).state is ClaimState.INTENT
        gate.open.set()
        assert await desk.inflight.aclose(60.0) == 0
        assert (await only_claim(desk)).state is ClaimState.DONE
        assert len(desk.remote.effects) == 1

    async def test_what_has_not_been_sent_when_the_caller_goes_is_not_sent(self, desk, monkeypatch):
        committing = asyncio.Event()
        goes_on = asyncio.Event()
        claim = desk.store.claim

        async def slow_claim(intent):
            answer = await claim(intent)
            committing.set()
            await goes_on.wait()
            return answer

        monkeypatch.setattr(desk.store, "claim", slow_claim)
        agent = asyncio.create_task(desk.guarded(write())(await desk.run(), title="x"))
        await committing.wait()
        agent.cancel()
        with pytest.raises(asyncio.CancelledError):
            await agent
        goes_on.set()
        await desk.inflight.aclose(60.0)
        assert desk.remote.keys == []
        assert (await only_claim(desk)).state is ClaimState.FAILED_CLEAN

    async def test_a_resend_that_is_not_sent_leaves_the_doubt(self, desk, monkeypatch):
        propose = desk.guarded(write(on_unknown=OnUnknown.RESEND, takes_key=True))
        run = await desk.run()
        desk.remote.plan = ["lost"]
        with pytest.raises(OutcomeUnknown):
            await propose(run, title="x")
        resending, goes_on = asyncio.Event(), asyncio.Event()
        resend = desk.store.resend

        async def slow_resend(*args, **kw):
            answer = await resend(*args, **kw)
            resending.set()
            await goes_on.wait()
            return answer

        monkeypatch.setattr(desk.store, "resend", slow_resend)
        agent = asyncio.create_task(propose(run, title="x"))
        await resending.wait()
        agent.cancel()
        with pytest.raises(asyncio.CancelledError):
            await agent
        goes_on.set()
        await desk.inflight.aclose(60.0)
        assert len(desk.remote.keys) == 1
        assert (await only_claim(desk)).state is ClaimState.IN_DOUBT


class TestOneFlight:
    async def test_equal_writes_of_one_moment_are_one_effect(self, desk):
        propose = desk.guarded(write())
        run = await desk.run()
        gate = Gate()
        desk.remote.plan = [gate]
        calls = [asyncio.create_task(propose(run, title="x")) for _ in range(10)]
        await gate.entered.wait()
        gate.open.set()
        answers = await asyncio.gather(*calls)
        assert sorted(answer.status for answer in answers) == ["replayed"] * 9 + ["success"]
        assert {answer.value["id"] for answer in answers} == {1}
        assert len(desk.remote.keys) == 1

    async def test_when_the_first_proves_not_performed_the_second_is_sent(self, desk):
        propose = desk.guarded(write())
        run = await desk.run()
        desk.remote.plan = ["refused", "ok"]
        first, second = await asyncio.gather(*(propose(run, title="x") for _ in range(2)), return_exceptions=True)
        assert isinstance(first, ToolFailed)
        assert second.status == "success"
        assert len(desk.remote.effects) == 1

    async def test_when_the_first_ends_in_doubt_nobody_sends_it_again(self, desk):
        propose = desk.guarded(write())
        run = await desk.run()
        desk.remote.plan = ["lost"]
        outcomes = await asyncio.gather(*(propose(run, title="x") for _ in range(5)), return_exceptions=True)
        assert all(isinstance(outcome, OutcomeUnknown) for outcome in outcomes)
        assert len(desk.remote.keys) == 1

    async def test_where_repeating_is_allowed_they_run_side_by_side(self, desk):
        propose = desk.guarded(write(repeat=Repeat.ALLOW))
        run = await desk.run()
        gates = [Gate(), Gate()]
        desk.remote.plan = list(gates)
        calls = [asyncio.create_task(propose(run, lamp="on")) for _ in range(2)]
        for gate in gates:
            await gate.entered.wait()
        for gate in gates:
            gate.open.set()
        assert [answer.status for answer in await asyncio.gather(*calls)] == ["success", "success"]


class TestLateAnswers:
    """A sync tool outlived its timeout; `call.late` is its thread's future."""

    def timing_out(self, desk, late):
        async def perform(call):
            if call.attempts == 1 and not late.done():
                call.late = late
                raise TimeoutError
            return {"id": 2}

        return perform

    async def test_a_late_answer_settles_the_claim(self, desk):
        late = asyncio.get_running_loop().create_future()
        propose = desk.guarded(write(), self.timing_out(desk, late))
        run = await desk.run()
        with pytest.raises(OutcomeUnknown):
            await propose(run, title="x")
        late.set_result({"id": 1})
        await desk.inflight.aclose(60.0)
        claim = await only_claim(desk)
        assert (claim.state, claim.settled_by, claim.result) == (ClaimState.DONE, "late_answer", b'{"id":1}')
        assert (await propose(run, title="x")).value == {"id": 1}

    async def test_a_late_not_performed_releases_it_only_if_no_other_attempt_is_unknown(self, desk):
        late = asyncio.get_running_loop().create_future()
        propose = desk.guarded(write(), self.timing_out(desk, late))
        with pytest.raises(OutcomeUnknown):
            await propose(await desk.run(), title="x")
        late.set_exception(NotPerformed())
        await desk.inflight.aclose(60.0)
        assert (await only_claim(desk)).state is ClaimState.FAILED_CLEAN

    async def test_a_late_not_performed_clears_only_its_own_attempt(self, desk):
        late = asyncio.get_running_loop().create_future()
        desk.max_attempts = 2

        async def perform(call):
            if call.attempts == 2:
                call.late = late
            raise TimeoutError

        propose = desk.guarded(write(on_unknown=OnUnknown.RESEND, takes_key=True), perform)
        with pytest.raises(OutcomeUnknown):
            await propose(await desk.run(), title="x")
        late.set_exception(NotPerformed())
        await desk.inflight.aclose(60.0)
        assert (await only_claim(desk)).state is ClaimState.IN_DOUBT

    async def test_a_late_failure_leaves_the_doubt(self, desk):
        late = asyncio.get_running_loop().create_future()
        propose = desk.guarded(write(), self.timing_out(desk, late))
        with pytest.raises(OutcomeUnknown):
            await propose(await desk.run(), title="x")
        late.set_exception(ConnectionResetError())
        await desk.inflight.aclose(60.0)
        claim = await only_claim(desk)
        assert claim.state is ClaimState.IN_DOUBT
        assert claim.evidence[-1]["by"] == "late_answer"

    async def test_while_the_thread_lives_nothing_is_sent_again(self, desk):
        late = asyncio.get_running_loop().create_future()
        propose = desk.guarded(write(on_unknown=OnUnknown.RESEND, takes_key=True), self.timing_out(desk, late))
        run = await desk.run()
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await propose(run, title="x")
        assert (await only_claim(desk)).sends == 1
        late.set_exception(ConnectionResetError())
        await desk.inflight.aclose(60.0)
        assert (await propose(run, title="x")).value == {"id": 2}

    async def test_while_the_thread_lives_no_lookup_can_say_no(self, desk):
        late = asyncio.get_running_loop().create_future()
        tool = write(on_unknown=OnUnknown.LOOKUP, lookup=desk.remote.lookup)
        with pytest.raises(OutcomeUnknown):
            await desk.guarded(tool, self.timing_out(desk, late))(await desk.run(), title="x")
        assert (await only_claim(desk)).state is ClaimState.IN_DOUBT
        late.cancel()


class TestShutdown:
    def test_what_outlives_the_grace_is_marked_in_doubt(self):
        async def scene():
            clock = LoopClock()
            store = SqliteStore(":memory:", clock=clock, environ={})
            desk = Desk(clock, store, Remote())

            async def stubborn(_call):
                for _ in range(2):
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(3600)

            async def yielding(_call):
                await asyncio.sleep(3600)

            run = await desk.run()
            calls = [
                asyncio.create_task(desk.guarded(write(name=name), tool)(run, title="x"))
                for name, tool in (("stubborn", stubborn), ("yielding", yielding))
            ]
            await asyncio.sleep(1.0)
            began = clock.monotonic()
            assert await desk.inflight.aclose(10.0) == 2
            assert clock.monotonic() - began == pytest.approx(11.0, abs=0.1)
            states = {claim.tool: (claim.state, claim.settled_by) for claim in await claims(desk)}
            assert states == dict.fromkeys(("stubborn", "yielding"), (ClaimState.IN_DOUBT, "shutdown"))
            await asyncio.wait(calls)
            assert all(call.cancelled() for call in calls[1:])
            store.close()

        run_virtual(scene())

    async def test_closing_with_nothing_under_way_returns_at_once(self, desk):
        assert await desk.inflight.aclose(1e9) == 0
        assert len(desk.inflight) == 0

    async def test_a_write_that_ends_within_the_grace_is_settled_normally(self, desk):
        gate = Gate()
        desk.remote.plan = [gate]
        call = asyncio.create_task(desk.guarded(write())(await desk.run(), title="x"))
        await gate.entered.wait()
        closing = asyncio.create_task(desk.inflight.aclose(60.0))
        gate.open.set()
        assert await closing == 0
        assert (await call).status == "success"


class TestSwitches:
    """SEMANTICS B3: a kill that is committed before the intent means not sent."""

    @pytest.mark.parametrize(
        ("scope", "subject"),
        [
            (SwitchScope.GLOBAL, ""),
            (SwitchScope.TENANT, "acme"),
            (SwitchScope.AGENT, "support"),
            (SwitchScope.RUN, None),
        ],
    )
    async def test_a_kill_stops_the_run_and_nothing_is_sent(self, desk, scope, subject):
        run = await desk.run()
        subject = run.run_id if subject is None else subject
        await desk.store.switches.set(scope, subject, SwitchKind.KILL, reason="fire", actor="ada")
        with pytest.raises(RunStopped) as caught:
            await desk.guarded(write())(run, title="x")
        assert caught.value.reason is StopReason.KILLED
        assert caught.value.details["actor"] == "ada"
        assert desk.remote.keys == []
        assert await claims(desk) == []

    async def test_a_killed_tool_is_refused_and_the_others_go_on(self, desk):
        await desk.store.switches.set(SwitchScope.TOOL, "ticket.*", SwitchKind.KILL, reason="fire", actor="ada")
        run = await desk.run()
        with pytest.raises(ToolDenied) as caught:
            await desk.guarded(write())(run, title="x")
        assert caught.value.details["policy"] == "kill_switch"
        assert (await desk.guarded(write(name="mail.send"))(run, title="x")).status == "success"

    @pytest.mark.parametrize(
        ("scope", "subject"),
        [(SwitchScope.TENANT, "globex"), (SwitchScope.TOOL, "mail.*"), (SwitchScope.RUN, "another")],
    )
    async def test_a_kill_of_somebody_else_concerns_nobody_here(self, desk, scope, subject):
        await desk.store.switches.set(scope, subject, SwitchKind.KILL, reason="fire", actor="ada")
        assert (await desk.guarded(write())(await desk.run(), title="x")).status == "success"

    async def test_an_expired_kill_is_none(self, desk):
        kill = {"reason": "fire", "actor": "ada", "expires_at": desk.clock.wall() + 5.0}
        await desk.store.switches.set(SwitchScope.GLOBAL, "", SwitchKind.KILL, **kill)
        run = await desk.run()
        with pytest.raises(RunStopped):
            await desk.guarded(write())(run, title="x")
        desk.clock.advance(5.0)
        assert (await desk.guarded(write())(run, title="x")).status == "success"

    async def test_safe_mode_refuses_every_write(self, desk):
        await desk.store.switches.set(SwitchScope.GLOBAL, "", SwitchKind.SAFE_MODE, reason="incident", actor="ada")
        with pytest.raises(ToolDenied) as caught:
            await desk.guarded(write())(await desk.run(), title="x")
        assert caught.value.details["policy"] == "safe_mode"
        assert desk.remote.keys == []

    async def test_a_kill_between_two_attempts_stops_the_second(self, desk):
        desk.max_attempts = 2

        async def killed_meanwhile():
            await desk.store.switches.set(SwitchScope.GLOBAL, "", SwitchKind.KILL, reason="fire", actor="ada")
            return "lost"

        desk.remote.plan = [killed_meanwhile]
        with pytest.raises(OutcomeUnknown):
            await desk.guarded(write(on_unknown=OnUnknown.RESEND, takes_key=True))(await desk.run(), title="x")
        assert len(desk.remote.keys) == 1


class TestOwner:
    async def test_a_fenced_owner_sends_nothing(self, desk):
        run = await desk.run()
        await desk.store.end(run.run_id, run.fence, "parked", "outcome_unknown", {}, None)
        await desk.run(resume=True)
        with pytest.raises(LeaseLost):
            await desk.guarded(write())(run, title="x")
        assert desk.remote.keys == []

    async def test_a_fenced_owner_makes_no_second_attempt_but_its_result_is_accepted(self, desk):
        desk.max_attempts = 2
        run = await desk.run()

        async def taken_over():
            await desk.store.end(run.run_id, run.fence, "parked", "outcome_unknown", {}, None)
            await desk.run(resume=True)
            return "lost"

        desk.remote.plan = [taken_over]
        with pytest.raises(OutcomeUnknown):
            await desk.guarded(write(on_unknown=OnUnknown.RESEND, takes_key=True))(run, title="x")
        assert len(desk.remote.keys) == 1

    async def test_the_late_result_of_a_fenced_owner_is_accepted(self, desk):
        run = await desk.run()

        async def taken_over():
            await desk.store.end(run.run_id, run.fence, "parked", "outcome_unknown", {}, None)
            await desk.run(resume=True)
            return "ok"

        desk.remote.plan = [taken_over]
        assert (await desk.guarded(write())(run, title="x")).status == "success"
        assert (await only_claim(desk)).state is ClaimState.DONE


class TestApproval:
    async def granted(self, desk, key, policy_version="v1"):
        row = await desk.store.approvals.request(
            ApprovalRequest(key, "acme", "r", "ticket.create", policy_version, "…", desk.clock.wall() + 60.0)
        )
        return await desk.store.approvals.decide(row.id, True, "ada")

    def asking(self, desk, tool, approve):
        """The two guards with an approval between them."""

        async def attempts(call):
            return Answer(await desk.remote.attempt(call))

        claim = desk.effects.claim(tool, attempts)

        async def approval(call):
            call.approval_id = await approve(call)
            return await claim(call)

        recall = desk.effects.recall(tool, approval)

        async def propose(run, **args):
            data = canonical_json(args)
            return await recall(
                Call(run, tool, args, data, digest(data, desk.store.secret), tool.effect_of(args), 1, 1, 1)
            )

        return propose

    async def test_the_claim_consumes_it(self, desk):
        rows = []

        async def approve(call):
            rows.append(await self.granted(desk, call.key))
            return rows[-1].id

        await self.asking(desk, write(), approve)(await desk.run(), title="x")
        assert (await desk.store.approvals.get(rows[0].effect_key, "v1")).state == "consumed"

    async def test_it_is_good_for_one_effect_only(self, desk):
        run = await desk.run()
        spent = []

        async def approve(call):
            if not spent:
                spent.append((await self.granted(desk, call.key)).id)
            return spent[0]

        propose = self.asking(desk, write(), approve)
        await propose(run, title="x")
        with pytest.raises(ApprovalExpired):
            await propose(run, title="y")
        assert len(desk.remote.effects) == 1

    async def test_it_expires(self, desk):
        async def approve(call):
            row = await self.granted(desk, call.key)
            desk.clock.advance(61.0)
            return row.id

        with pytest.raises(ApprovalExpired):
            await self.asking(desk, write(), approve)(await desk.run(), title="x")
        assert desk.remote.keys == []
        assert await claims(desk) == []

    async def test_a_kill_leaves_it_unspent(self, desk):
        rows = []

        async def approve(call):
            rows.append(await self.granted(desk, call.key))
            await desk.store.switches.set(SwitchScope.GLOBAL, "", SwitchKind.KILL, reason="fire", actor="ada")
            return rows[-1].id

        with pytest.raises(RunStopped):
            await self.asking(desk, write(), approve)(await desk.run(), title="x")
        assert (await desk.store.approvals.get(rows[0].effect_key, "v1")).state == "approved"


class TestStoreAway:
    async def test_no_intent_no_call(self, desk):
        run = await desk.run()
        desk.store.close()
        with pytest.raises(StoreUnavailable) as caught:
            await desk.guarded(write())(run, title="x")
        assert "nothing was sent" in caught.value.for_model
        assert desk.remote.keys == []

    async def test_a_result_that_cannot_be_committed_is_given_and_written_later(self, desk, monkeypatch):
        settle = desk.store.settle

        async def away(*_):
            raise StoreUnavailable("disk full")

        monkeypatch.setattr(desk.store, "settle", away)
        run = await desk.run()
        propose = desk.guarded(write())
        assert (await propose(run, title="x")).value == {"id": 1}
        monkeypatch.setattr(desk.store, "settle", settle)
        assert (await only_claim(desk)).state is ClaimState.DONE
        assert (await propose(run, title="x")).status == "replayed"


class TestLanding:
    async def test_a_flight_cut_before_it_began_lets_its_caller_go(self, desk):
        propose, run = desk.guarded(write()), await desk.run()
        agent = asyncio.create_task(propose(run, title="x"))
        for _ in range(100):
            if not len(desk.inflight):
                await asyncio.sleep(0)
        # Its caller waits, its own task has not had its first step: the loop's end comes in between.
        (flight,) = desk.inflight._flights.values()
        flight.task.cancel()
        assert await desk.inflight.aclose(0.0) == 0
        with pytest.raises(asyncio.CancelledError):
            await agent
        assert not len(desk.inflight)
        assert not desk.remote.effects

    async def test_nobody_asks_for_the_failure_of_a_flight_whose_caller_has_gone(self, desk):
        gate, said = Gate(), []

        async def lost():
            await gate()
            return "lost"

        desk.remote.plan = [lost]
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        agent = asyncio.create_task(desk.guarded(write())(await desk.run(), title="x"))
        await gate.entered.wait()
        agent.cancel()
        with pytest.raises(asyncio.CancelledError):
            await agent
        gate.open.set()
        await desk.inflight.aclose(60.0)
        gc.collect()
        assert (await only_claim(desk)).state is ClaimState.IN_DOUBT
        assert said == []
