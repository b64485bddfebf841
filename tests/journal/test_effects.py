"""At most one effect per key: what the model, the run and the remote see of it."""

from __future__ import annotations

import asyncio

import pytest
from desks import Desk, write

from interlock.core.calls import Effect, OnUnknown, Repeat, Stop
from interlock.core.errors import (
    ConfigError,
    NotPerformed,
    OutcomeUnknown,
    RunStopped,
    ToolFailed,
    ToolOutputInvalid,
)
from interlock.core.reasons import StopReason
from interlock.journal.store import ClaimState, Settlement
from interlock.policy.switches import SwitchKind, SwitchScope
from interlock.stores.sqlite import SqliteStore


async def claims(desk):
    return [claim for run in await desk.store.runs() for claim in await desk.store.claims_of(run.run_id)]


async def only_claim(desk):
    (claim,) = await claims(desk)
    return claim


async def test_the_intent_is_in_the_journal_before_the_tool_sees_the_call(desk):
    seen = []

    async def tool(call):
        seen.append(await desk.store.find(call.key))
        return {"ok": True}

    answer = await desk.guarded(write(), tool)(await desk.run(), title="x")
    assert [claim.state for claim in seen] == [ClaimState.INTENT]
    assert (answer.value, answer.status) == ({"ok": True}, "success")
    claim = await only_claim(desk)
    assert (claim.state, claim.result, claim.settled_by) == (ClaimState.DONE, b'{"ok":true}', "tool")


async def test_reads_are_not_journaled(desk):
    read = write(name="kb.read", effect=Effect.READ)
    propose = desk.guarded(read)
    run = await desk.run()
    assert (await propose(run, q="x")).value == {"id": 1}
    assert (await propose(run, q="x")).value == {"id": 2}
    assert await claims(desk) == []


async def test_an_effect_that_depends_on_the_arguments(desk):
    tool = write(name="sql", effect=lambda args: "read" if args["q"].startswith("select") else "write")
    propose = desk.guarded(tool)
    run = await desk.run()
    for q in ("select 1", "select 1", "delete", "delete"):
        await propose(run, q=q)
    assert len(desk.remote.effects) == 3
    assert len(await claims(desk)) == 1


async def test_an_equal_write_is_answered_from_the_record(desk):
    propose = desk.guarded(write())
    run = await desk.run()
    first = await propose(run, title="x")
    second = await propose(run, title="x")
    assert (second.value, second.status, second.json) == (first.value, "replayed", b'{"id":1}')
    assert len(desk.remote.effects) == 1


async def test_a_run_that_knows_of_no_earlier_write_is_told_by_the_claim_itself(desk, remote, monkeypatch):
    """A fresh request asks no store whether its first write was made; what stands all the same answers it."""
    asked = []
    find = desk.store.find
    monkeypatch.setattr(desk.store, "find", lambda key: asked.append(key) or find(key))
    propose = desk.guarded(write())
    run = await desk.run()
    first = await propose(run, title="a")
    assert len(asked) == 1
    run.proposed = set()
    second = await propose(run, title="a")
    assert (first.value, second.value, second.status) == ({"id": 1}, {"id": 1}, "replayed")
    assert len(asked) == 1
    await propose(run, title="b")
    await propose(run, title="b")
    assert len(asked) == 2
    assert len(remote.effects) == 2


async def test_other_arguments_another_request_or_another_tenant_are_other_effects(desk):
    propose = desk.guarded(write())
    run, other = await desk.run("req-1"), await desk.run("req-2")
    await propose(run, title="x")
    await propose(run, title="y")
    await propose(other, title="x")
    assert len(desk.remote.effects) == 3
    assert len(set(desk.remote.keys)) == 3


async def test_the_next_run_of_the_request_does_not_repeat_what_was_done(desk):
    propose = desk.guarded(write())
    run = await desk.run()
    await propose(run, title="x")
    await desk.store.end(run.run_id, run.fence, "ended", "tool_failed", {}, None)
    desk.clock.advance(3600.0)
    again = await desk.run(retry=True)
    assert again.run_id != run.run_id
    assert (await propose(again, title="x")).status == "replayed"
    assert len(desk.remote.effects) == 1


class TestIdentity:
    async def test_only_the_named_arguments_identify_the_effect(self, desk):
        propose = desk.guarded(write(identity=("order_id",)))
        run = await desk.run()
        await propose(run, order_id=1, note="please refund")
        assert (await propose(run, order_id=1, note="refund, please")).status == "replayed"
        assert (await propose(run, order_id=2, note="please refund")).status == "success"
        assert len(desk.remote.effects) == 2

    async def test_a_call_without_a_named_argument_is_identified_by_all_it_has(self, desk):
        propose = desk.guarded(write(identity=("order_id",)))
        run = await desk.run()
        await propose(run, note="one")
        await propose(run, note="two")
        assert len(desk.remote.effects) == 2

    async def test_a_name_that_is_no_argument_is_an_error_of_registration(self, desk):
        async def refund(order_id: int) -> None: ...

        with pytest.raises(ConfigError, match=r'"refund".identity'):
            desk.guarded(write(name="refund", fn=refund, identity=("ordre_id",)))


class TestRepeat:
    async def test_allow_makes_the_nth_equal_write_an_effect_of_its_own(self, desk):
        propose = desk.guarded(write(repeat=Repeat.ALLOW))
        run = await desk.run()
        for _ in range(3):
            assert (await propose(run, lamp="on")).status == "success"
        assert len(set(desk.remote.keys)) == 3
        assert sorted(claim.occurrence for claim in await claims(desk)) == [1, 2, 3]

    async def test_a_second_run_of_the_request_replays_occurrence_by_occurrence(self, desk):
        propose = desk.guarded(write(repeat=Repeat.ALLOW))
        run = await desk.run()
        await propose(run, lamp="on")
        await propose(run, lamp="on")
        await desk.store.end(run.run_id, run.fence, "ended", "killed", {}, None)
        again = await desk.run(retry=True)
        assert [(await propose(again, lamp="on")).status for _ in range(3)] == ["replayed", "replayed", "success"]

    async def test_what_was_proved_not_to_have_happened_is_no_occurrence(self, desk):
        propose = desk.guarded(write(repeat=Repeat.ALLOW))
        run = await desk.run()
        desk.remote.plan = ["refused"]
        with pytest.raises(ToolFailed):
            await propose(run, lamp="on")
        await propose(run, lamp="on")
        assert (await only_claim(desk)).occurrence == 1

    async def test_what_may_have_happened_is_one(self, desk):
        propose = desk.guarded(write(repeat=Repeat.ALLOW))
        run = await desk.run()
        desk.remote.plan = ["lost"]
        with pytest.raises(OutcomeUnknown):
            await propose(run, lamp="on")
        await propose(run, lamp="on")
        assert sorted(claim.occurrence for claim in await claims(desk)) == [1, 2]


class TestUnknown:
    """SEMANTICS A1: an unknown is never laundered."""

    async def test_a_lost_answer_leaves_a_doubt_that_is_never_sent_again(self, desk):
        propose = desk.guarded(write())
        run = await desk.run()
        desk.remote.plan = ["lost"]
        with pytest.raises(OutcomeUnknown) as caught:
            await propose(run, title="x")
        claim = await only_claim(desk)
        assert claim.state is ClaimState.IN_DOUBT
        assert caught.value.details["key"] == claim.key.hex()
        assert caught.value.details["cause"] == "tool_failed"
        assert isinstance(caught.value.__cause__, ToolFailed)
        assert caught.value.run_wide
        assert [entry["performed"] for entry in claim.evidence] == ["unknown"]
        with pytest.raises(OutcomeUnknown):
            await propose(run, title="x")
        assert len(desk.remote.keys) == 1
        assert [doubt.key for doubt in await desk.store.doubts()] == [claim.key]

    async def test_what_the_model_reads_names_no_setting_and_invites_no_retry(self, desk):
        propose = desk.guarded(write())
        desk.remote.plan = ["lost"]
        with pytest.raises(OutcomeUnknown) as caught:
            await propose(await desk.run(), title="secret-title")
        assert "will not be sent again" in caught.value.for_model
        assert "idempotency_key" in str(caught.value)
        assert "idempotency_key" not in caught.value.for_model
        assert "secret-title" not in str(caught.value) + caught.value.for_model

    async def test_a_refusal_after_an_unknown_attempt_proves_nothing(self, desk):
        desk.max_attempts = 2
        propose = desk.guarded(write(on_unknown=OnUnknown.RESEND, takes_key=True))
        desk.remote.plan = ["lost", "refused"]
        with pytest.raises(OutcomeUnknown):
            await propose(await desk.run(), title="x")
        claim = await only_claim(desk)
        assert (claim.state, claim.sends) == (ClaimState.IN_DOUBT, 2)
        assert [entry["performed"] for entry in claim.evidence] == ["unknown", "no"]

    async def test_attempts_that_were_all_refused_release_the_claim(self, desk):
        desk.max_attempts = 2
        propose = desk.guarded(write())
        run = await desk.run()
        desk.remote.plan = ["refused", "refused"]
        with pytest.raises(ToolFailed):
            await propose(run, title="x")
        assert (await only_claim(desk)).state is ClaimState.FAILED_CLEAN
        assert (await propose(run, title="x")).status == "success"
        claim = await only_claim(desk)
        assert (claim.state, claim.sends) == (ClaimState.DONE, 1)

    async def test_a_tool_that_raises_cancelled_error_itself_leaves_a_doubt_not_a_cancelled_run(self, desk):
        propose = desk.guarded(write())
        desk.remote.plan = [asyncio.CancelledError()]
        with pytest.raises(OutcomeUnknown):
            await propose(await desk.run(), title="x")
        assert (await only_claim(desk)).state is ClaimState.IN_DOUBT

    async def test_tell_leaves_the_doubt_on_record_and_the_run_going(self, desk):
        propose = desk.guarded(write(name="shell.run", on_unknown=OnUnknown.TELL))
        run = await desk.run()
        desk.remote.plan = ["lost"]
        with pytest.raises(OutcomeUnknown) as caught:
            await propose(run, command="make")
        assert not caught.value.run_wide
        assert "Look at the present state" in caught.value.for_model
        with pytest.raises(OutcomeUnknown):
            await propose(run, command="make")
        assert len(desk.remote.keys) == 1

    async def test_an_intent_that_a_dead_worker_left_is_a_doubt(self, desk, clock, store, remote):
        class Died(BaseException):
            pass

        propose = desk.guarded(write())
        run = await desk.run()
        desk.remote.plan = [Died()]
        with pytest.raises(Died):
            await propose(run, title="x")
        assert (await only_claim(desk)).state is ClaimState.INTENT
        await store.end(run.run_id, run.fence, "ended", "internal_error", {}, None)
        assert len(await store.doubts()) == 1
        next_worker = Desk(clock, store, remote)
        with pytest.raises(OutcomeUnknown):
            await next_worker.guarded(write())(await next_worker.run(retry=True), title="x")
        assert len(remote.keys) == 1

    async def test_a_person_who_says_it_did_not_happen_lets_it_be_sent(self, desk):
        propose = desk.guarded(write())
        run = await desk.run()
        desk.remote.plan = ["gone"]
        with pytest.raises(OutcomeUnknown):
            await propose(run, title="x")
        key = (await only_claim(desk)).key
        assert await desk.store.settle(key, Settlement(ClaimState.FAILED_CLEAN, by="ada", reason="not in the CRM"))
        assert (await propose(run, title="x")).status == "success"
        assert len(desk.remote.effects) == 1


class TestResend:
    def tool(self, **words):
        return write(on_unknown=OnUnknown.RESEND, takes_key=True, **words)

    async def test_a_doubt_is_sent_again_under_the_same_key_while_the_remote_remembers_it(self, desk):
        propose = desk.guarded(write(on_unknown=OnUnknown.RESEND, takes_key=True))
        run = await desk.run()
        desk.remote.plan = ["lost"]
        with pytest.raises(OutcomeUnknown):
            await propose(run, title="x")
        desk.clock.advance(99.0)
        assert (await propose(run, title="x")).status == "success"
        assert len(set(desk.remote.keys)) == 1
        claim = await only_claim(desk)
        assert (claim.state, claim.sends) == (ClaimState.DONE, 2)

    @pytest.mark.parametrize("jump_s", [101.0, -1.0])
    async def test_a_key_that_the_remote_may_have_forgotten_is_not_sent(self, desk, jump_s):
        propose = desk.guarded(write(on_unknown=OnUnknown.RESEND, takes_key=True))
        run = await desk.run()
        desk.remote.plan = ["lost"]
        with pytest.raises(OutcomeUnknown):
            await propose(run, title="x")
        desk.clock.jump_wall(jump_s)
        with pytest.raises(OutcomeUnknown):
            await propose(run, title="x")
        assert len(desk.remote.keys) == 1

    async def test_after_the_window_a_declared_lookup_decides(self, desk):
        propose = desk.guarded(write(on_unknown=OnUnknown.RESEND, takes_key=True, lookup=desk.remote.lookup))
        run = await desk.run()
        desk.remote.plan = ["lost"]
        with pytest.raises(OutcomeUnknown):
            await propose(run, title="x")
        desk.clock.advance(101.0)
        answer = await propose(run, title="x")
        assert (answer.value, answer.status) == ({"id": 1}, "replayed")
        assert (await only_claim(desk)).settled_by == "lookup"

    async def test_the_window_counts_from_the_first_send(self, desk):
        propose = desk.guarded(write(on_unknown=OnUnknown.RESEND, takes_key=True))
        run = await desk.run()
        desk.remote.plan = ["lost", "lost"]
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await propose(run, title="x")
            desk.clock.advance(60.0)
        with pytest.raises(OutcomeUnknown):
            await propose(run, title="x")
        assert len(desk.remote.keys) == 2

    async def test_between_two_attempts_of_one_call_the_window_counts_too(self, desk):
        desk.max_attempts = 3

        async def lost_for_long():
            desk.clock.advance(101.0)
            return "lost"

        desk.remote.plan = [lost_for_long]
        propose = desk.guarded(self.tool())
        with pytest.raises(OutcomeUnknown, match="dedupe_window_s"):
            await propose(await desk.run(), title="x")
        assert len(desk.remote.keys) == 1
        assert (await only_claim(desk)).state is ClaimState.IN_DOUBT

    async def test_attempts_that_were_proved_not_performed_know_no_window(self, desk):
        desk.max_attempts = 3

        async def refused_after_long():
            desk.clock.advance(101.0)
            return "refused"

        desk.remote.plan = [refused_after_long]
        propose = desk.guarded(self.tool())
        assert (await propose(await desk.run(), title="x")).status == "success"

    async def test_between_two_attempts_a_declared_lookup_decides_after_the_window(self, desk):
        desk.max_attempts = 3

        async def lost_for_long():
            desk.clock.advance(101.0)
            return "lost"

        desk.remote.plan = [lost_for_long]
        propose = desk.guarded(self.tool(lookup=desk.remote.lookup))
        assert (await propose(await desk.run(), title="x")).value == {"id": 1}
        assert len(desk.remote.keys) == 1

    async def test_a_natural_write_may_always_be_repeated(self, desk):
        propose = desk.guarded(write(on_unknown=OnUnknown.RESEND, natural=True))
        run = await desk.run()
        desk.remote.plan = ["lost"]
        with pytest.raises(OutcomeUnknown):
            await propose(run, path="a", text="b")
        desk.clock.advance(1e6)
        run.deadline_s = float("inf")
        assert (await propose(run, path="a", text="b")).status == "success"

    async def test_a_resend_that_is_refused_proves_nothing_of_the_first(self, desk):
        propose = desk.guarded(write(on_unknown=OnUnknown.RESEND, takes_key=True))
        run = await desk.run()
        desk.remote.plan = ["lost", "refused"]
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await propose(run, title="x")
        assert (await only_claim(desk)).state is ClaimState.IN_DOUBT


class TestLookup:
    """SEMANTICS A3. The tool's timeout is 10 s, the lease 5 s: a "no" counts 15 s after the last send."""

    def tool(self, desk, **words):
        return write(on_unknown=OnUnknown.LOOKUP, lookup=desk.remote.lookup, **words)

    async def test_a_yes_closes_the_claim_with_the_result(self, desk):
        propose = desk.guarded(self.tool(desk))
        desk.remote.plan = ["lost"]
        answer = await propose(await desk.run(), title="x")
        assert (answer.value, answer.status) == ({"id": 1}, "success")
        claim = await only_claim(desk)
        assert (claim.state, claim.settled_by, claim.result) == (ClaimState.DONE, "lookup", b'{"id":1}')
        assert len(desk.remote.keys) == 1

    async def test_a_no_counts_only_when_nothing_can_arrive_any_more_then_it_is_sent_again(self, desk):
        propose = desk.guarded(self.tool(desk))
        run = await desk.run()
        desk.remote.plan = ["gone"]
        began_s = desk.clock.monotonic()
        assert (await propose(run, title="x")).status == "success"
        assert desk.clock.monotonic() - began_s == pytest.approx(15.0)
        assert desk.remote.lookups == 2
        assert len(desk.remote.keys) == 2
        claim = await only_claim(desk)
        assert (claim.state, claim.settled_by) == (ClaimState.DONE, "tool")
        assert {"by": "lookup", "why": "lookup did not find it"} in claim.evidence

    async def test_settle_s_of_the_tool_wins(self, desk):
        propose = desk.guarded(self.tool(desk, settle_s=2.0))
        desk.remote.plan = ["gone"]
        began_s = desk.clock.monotonic()
        await propose(await desk.run(), title="x")
        assert desk.clock.monotonic() - began_s == pytest.approx(2.0)

    async def test_it_is_counted_from_the_last_send_not_the_first(self, desk):
        desk.max_attempts = 2
        propose = desk.guarded(self.tool(desk))

        async def refused_after_10_s():
            desk.clock.advance(10.0)
            return "refused"

        async def gone_after_4_s():
            desk.clock.advance(4.0)
            return "gone"

        desk.remote.plan = [refused_after_10_s, gone_after_4_s]
        began_s = desk.clock.monotonic()
        assert (await propose(await desk.run(), title="x")).status == "success"
        assert desk.clock.monotonic() - began_s == pytest.approx(10.0 + 15.0)

    async def test_a_run_that_is_being_stopped_does_not_wait_for_a_no_to_count(self, desk):
        run = await desk.run()

        async def lookup(**_):
            run.stop = Stop(StopReason.KILLED)

        propose = desk.guarded(write(on_unknown=OnUnknown.LOOKUP, lookup=lookup))
        desk.remote.plan = ["gone"]
        began_s = desk.clock.monotonic()
        with pytest.raises(OutcomeUnknown):
            await propose(run, title="x")
        assert desk.clock.monotonic() - began_s < 1.0

    async def test_a_no_that_would_count_only_after_the_deadline_stays_a_doubt(self, desk):
        propose = desk.guarded(self.tool(desk))
        run = await desk.run()
        run.deadline_s = desk.clock.monotonic() + 14.0
        desk.remote.plan = ["gone"]
        with pytest.raises(OutcomeUnknown, match="too early"):
            await propose(run, title="x")
        assert (await only_claim(desk)).state is ClaimState.IN_DOUBT

    async def test_a_second_no_ends_the_call_as_not_performed(self, desk):
        propose = desk.guarded(self.tool(desk))
        run = await desk.run()
        desk.remote.plan = ["gone", "gone"]
        with pytest.raises(ToolFailed) as caught:
            await propose(run, title="x")
        assert "did not happen" in caught.value.for_model
        assert (await only_claim(desk)).state is ClaimState.FAILED_CLEAN
        assert (await propose(run, title="x")).status == "success"

    async def test_what_a_no_has_cleared_does_not_taint_the_second_send(self, desk):
        propose = desk.guarded(self.tool(desk))
        desk.remote.plan = ["gone", "refused"]
        with pytest.raises(ToolFailed):
            await propose(await desk.run(), title="x")
        assert (await only_claim(desk)).state is ClaimState.FAILED_CLEAN
        assert desk.remote.lookups == 2

    async def test_a_lookup_that_fails_says_nothing(self, desk):
        async def broken(**_):
            raise ConnectionError("down")

        propose = desk.guarded(write(on_unknown=OnUnknown.LOOKUP, lookup=broken))
        desk.remote.plan = ["gone"]
        with pytest.raises(OutcomeUnknown, match="lookup failed: ConnectionError"):
            await propose(await desk.run(), title="x")
        assert (await only_claim(desk)).state is ClaimState.IN_DOUBT

    async def test_a_doubt_of_an_earlier_run_is_looked_up_before_anything_is_sent(self, desk):
        down = True

        async def lookup(title, *, idempotency_key):
            if down:
                raise ConnectionError
            assert idempotency_key == desk.remote.keys[0]
            return desk.remote.lookup(title=title)

        propose = desk.guarded(write(on_unknown=OnUnknown.LOOKUP, lookup=lookup))
        run = await desk.run()
        desk.remote.plan = ["lost"]
        with pytest.raises(OutcomeUnknown):
            await propose(run, title="x")
        down = False
        answer = await propose(run, title="x")
        assert (answer.value, answer.status) == ({"id": 1}, "replayed")
        assert len(desk.remote.keys) == 1

    async def test_a_lookup_that_hangs_says_nothing_and_holds_nobody_up(self, desk):
        async def hangs(**_):
            hanging.append(asyncio.current_task())
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if desk.clock.monotonic() > 5_000.0:
                        raise

        hanging = []
        propose = desk.guarded(write(on_unknown=OnUnknown.LOOKUP, lookup=hangs, timeout_s=0.01))
        desk.remote.plan = ["lost"]
        with pytest.raises(OutcomeUnknown, match="lookup failed: TimeoutError"):
            await propose(await desk.run(), title="x")
        desk.clock.advance(10_000.0)
        hanging[0].cancel()

    async def test_what_cannot_be_the_tool_s_output_proves_nothing(self, desk):
        propose = desk.guarded(write(on_unknown=OnUnknown.LOOKUP, lookup=lambda **_: float("nan")))
        desk.remote.plan = ["lost"]
        with pytest.raises(OutcomeUnknown, match="cannot be the tool's output"):
            await propose(await desk.run(), title="x")
        claim = await only_claim(desk)
        assert claim.state is ClaimState.IN_DOUBT
        assert claim.evidence[-1] == {"by": "lookup", "why": "lookup returned what cannot be the tool's output"}

    @pytest.mark.parametrize("key", ["il1_of_another", "its own"])
    async def test_an_answer_that_names_another_key_is_of_another_write(self, desk, key):
        def lookup(title, *, idempotency_key):
            return {"id": 1, "idempotency_key": idempotency_key if key == "its own" else key}

        propose = desk.guarded(write(on_unknown=OnUnknown.LOOKUP, lookup=lookup))
        desk.remote.plan = ["lost"]
        if key == "its own":
            assert (await propose(await desk.run(), title="x")).value["id"] == 1
            return
        with pytest.raises(OutcomeUnknown, match="another idempotency key"):
            await propose(await desk.run(), title="x")
        assert (await only_claim(desk)).state is ClaimState.IN_DOUBT

    @pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
    async def test_a_wall_clock_that_jumps_neither_hurries_a_no_nor_holds_it_up(self, desk, jump_s):
        async def lookup(title):
            if not desk.remote.lookups:
                desk.clock.jump_wall(jump_s)
            return desk.remote.lookup(title=title)

        propose = desk.guarded(write(on_unknown=OnUnknown.LOOKUP, lookup=lookup))
        desk.remote.plan = ["gone"]
        began_s = desk.clock.monotonic()
        assert (await propose(await desk.run(), title="x")).status == "success"
        assert desk.clock.monotonic() - began_s == pytest.approx(15.0)

    async def test_a_no_that_comes_late_says_nothing_of_what_was_sent_since(self, desk):
        """Another process has sent the write once more while this one asked."""
        run = await desk.run()
        key = None

        async def lookup(title):
            if key is not None:
                assert await desk.store.resend(key, run.run_id, run.fence) is None

        propose = desk.guarded(write(on_unknown=OnUnknown.LOOKUP, lookup=lookup))
        run.deadline_s = desk.clock.monotonic() + 1.0  # it cannot wait for a "no" to count
        desk.remote.plan = ["gone"]
        with pytest.raises(OutcomeUnknown):
            await propose(run, title="x")
        key = (await only_claim(desk)).key
        desk.clock.advance(60.0)
        run.deadline_s = desk.clock.monotonic() + 900.0
        with pytest.raises(OutcomeUnknown, match="sent again"):
            await propose(run, title="x")
        assert (await only_claim(desk)).state is ClaimState.INTENT
        assert len(desk.remote.keys) == 1


class TestUnverified:
    async def test_a_write_whose_answer_fails_validation_happened(self, desk):
        async def tool(call):
            desk.remote.effects.append("x")
            raise ToolOutputInvalid(call.tool.name, [{"loc": ["id"], "type": "missing", "msg": "missing"}])

        propose = desk.guarded(write(), tool)
        run = await desk.run()
        with pytest.raises(ToolOutputInvalid):
            await propose(run, title="x")
        claim = await only_claim(desk)
        assert (claim.state, claim.verified, claim.result) == (ClaimState.DONE, False, None)
        assert [c.key for c in await desk.store.doubts(unverified=True)] == [claim.key]
        assert await desk.store.doubts() == []
        with pytest.raises(ToolOutputInvalid) as caught:
            await propose(run, title="x")
        assert "was not done again" in caught.value.for_model
        assert len(desk.remote.effects) == 1


class TestReplayOff:
    async def test_a_duplicate_is_not_repeated_though_its_result_is_not_kept(self, clock, remote):
        store = SqliteStore(":memory:", clock=clock, replay="off", environ={})
        desk = Desk(clock, store, remote)
        propose = desk.guarded(write())
        run = await desk.run()
        await propose(run, title="x")
        answer = await propose(run, title="x")
        assert (answer.value, answer.status) == (None, "replayed")
        assert "not kept" in answer.note
        assert len(remote.effects) == 1
        store.close()


class TestObserving:
    async def observing_run(self, desk):
        run = await desk.run()
        run.observing = True
        return run

    async def test_nothing_is_collapsed_and_everything_is_journaled(self, desk):
        propose = desk.guarded(write())
        run = await self.observing_run(desk)
        for _ in range(2):
            assert (await propose(run, title="x")).status == "success"
        assert len(desk.remote.effects) == 2
        assert [claim.state for claim in await claims(desk)] == [ClaimState.DONE, ClaimState.DONE]

    async def test_a_standing_claim_of_an_earlier_run_is_stepped_over(self, desk):
        propose = desk.guarded(write())
        run = await desk.run()
        await propose(run, title="x")
        await desk.store.end(run.run_id, run.fence, "ended", "killed", {}, None)
        again = await desk.run(retry=True)
        again.observing = True
        assert (await propose(again, title="x")).status == "success"
        assert len(desk.remote.effects) == 2

    async def test_the_tool_s_own_exception_goes_through(self, desk):
        propose = desk.guarded(write())
        desk.remote.plan = ["lost"]
        with pytest.raises(TimeoutError, match="lost"):
            await propose(await self.observing_run(desk), title="x")
        assert (await only_claim(desk)).state is ClaimState.IN_DOUBT

    async def test_without_a_store_the_call_is_made_all_the_same(self, desk):
        propose = desk.guarded(write())
        run = await self.observing_run(desk)
        desk.store.close()
        assert (await propose(run, title="x")).value == {"id": 1}

    async def test_a_kill_is_never_softened(self, desk):
        propose = desk.guarded(write())
        run = await self.observing_run(desk)
        await desk.store.switches.set(SwitchScope.GLOBAL, "", SwitchKind.KILL, reason="fire", actor="ada")
        with pytest.raises(RunStopped):
            await propose(run, title="x")
        assert desk.remote.keys == []


async def test_not_performed_is_what_a_tool_says_it_is(desk):
    async def tool(_call):
        raise NotPerformed("the form was not submitted")

    with pytest.raises(ToolFailed):
        await desk.guarded(write(), tool)(await desk.run(), title="x")
    assert (await only_claim(desk)).state is ClaimState.FAILED_CLEAN
