"""Approvals: no yes, no call; nobody waits for ever; a grant is found again and belongs to one effect."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_scenes import MemoryApprovals, Scope, Through, make_call, make_tool

from interlock.core.calls import Effect, Repeat, Stop
from interlock.core.clock import LoopClock, ManualClock, run_virtual
from interlock.core.errors import ApprovalDenied, ApprovalExpired, ApprovalPending, ConfigError, RunStopped
from interlock.core.reasons import StopReason
from interlock.policy.approval import ApprovalOptions, ApprovalRow, Approvals, ApprovalState, standing

WRITE = make_tool("refund.create", effect=Effect.WRITE)


class Scene:
    """A guard over a store in memory."""

    def __init__(self, clock=None, *, required="required", version="v1", options=None):
        self.clock = clock or ManualClock()
        self.store = MemoryApprovals(self.clock)
        self.through = Through()
        self.required = required
        self.guard = Approvals(
            self.store,
            self.clock,
            options or ApprovalOptions(),
            required_for=lambda tool: self.required,
            policy_version=version,
            render=lambda call: f"{call.tool.name} {sorted(call.args)}",
        )

    def proposed(self, tool=WRITE, *, run=None, **kw):
        return make_call(run or Scope(self.clock), tool, **kw)

    async def call(self, call=None):
        call = call or self.proposed()
        await self.guard(call.tool, self.through)(call)
        return call

    async def decide_after(self, delay_s, approved, reason=""):
        await self.clock.sleep(delay_s)
        await self.store.decide(self.store.rows[-1].id, approved, "ann", reason)


def test_tools_that_need_no_approval_pay_nothing():
    scene = Scene(required=None)
    assert scene.guard(WRITE, scene.through) is scene.through
    asks_but_reads = make_tool("kb.read", repeat=Repeat.ASK)
    assert scene.guard(asks_but_reads, scene.through) is scene.through


@pytest.mark.parametrize("required", ["yes", True, 1, ["required"]])
def test_a_word_that_is_not_known_is_found_when_the_guard_is_folded(required):
    with pytest.raises(ConfigError, match=r"refund\.create"):
        Scene(required=required).guard(WRITE, Through())


def test_a_yes_while_we_wait_lets_the_call_through_with_its_id():
    async def main():
        scene = Scene(LoopClock())
        call = scene.proposed(args={"order": 1})
        await asyncio.gather(scene.call(call), scene.decide_after(5, True))
        assert scene.through.calls == [call]
        assert call.approval_id == "apr_1"
        asked = scene.store.requests[0]
        assert (asked.effect_key, asked.policy_version, asked.tool) == (b"k" * 24, "v1", "refund.create")
        assert asked.rendered == "refund.create ['order']"
        assert asked.expires_at == pytest.approx(scene.clock.wall() + 3600, abs=10)

    run_virtual(main())


def test_a_no_ends_the_call_and_stays_a_no():
    async def main():
        scene = Scene(LoopClock())
        with pytest.raises(ApprovalDenied) as denied:
            await asyncio.gather(scene.call(), scene.decide_after(1, False, "wrong customer"))
        assert "wrong customer" in str(denied.value)
        assert "wrong customer" not in denied.value.for_model
        assert denied.value.details["decided_by"] == "ann"
        begun = scene.clock.monotonic()
        with pytest.raises(ApprovalDenied):
            await scene.call()
        assert scene.clock.monotonic() == begun, "a decided question is not waited for"
        assert len(scene.store.rows) == 1

    run_virtual(main())


async def test_nobody_deciding_parks_the_run():
    scene = Scene()
    begun = scene.clock.monotonic()
    with pytest.raises(ApprovalPending, match="interlock approvals approve apr_1") as pending:
        await scene.call()
    assert scene.clock.monotonic() - begun == pytest.approx(60)
    assert pending.value.reason is StopReason.APPROVAL_PENDING
    assert pending.value.details["approval_id"] == "apr_1"
    assert not scene.through.calls


async def test_no_wait_at_all_parks_at_once():
    scene = Scene(options=ApprovalOptions(wait_s=0))
    with pytest.raises(ApprovalPending):
        await scene.call()
    assert scene.clock.monotonic() == 1000.0


async def test_a_parked_run_finds_its_grant_again():
    scene = Scene()
    with pytest.raises(ApprovalPending):
        await scene.call()
    await scene.store.decide("apr_1", True, "ann")
    call = await scene.call()
    assert call.approval_id == "apr_1"
    assert len(scene.store.rows) == 1


async def test_a_grant_of_other_rules_does_not_count():
    scene = Scene()
    with pytest.raises(ApprovalPending):
        await scene.call()
    await scene.store.decide("apr_1", True, "ann")
    newer = Scene(scene.clock, version="v2")
    newer.store.rows = scene.store.rows
    with pytest.raises(ApprovalPending):
        await newer.call()


async def test_a_grant_of_another_effect_does_not_count():
    scene = Scene()
    with pytest.raises(ApprovalPending):
        await scene.call()
    await scene.store.decide("apr_1", True, "ann")
    with pytest.raises(ApprovalPending):
        await scene.call(scene.proposed(key=b"x" * 24))


async def test_an_expired_question_is_not_a_no():
    scene = Scene(options=ApprovalOptions(wait_s=100, expires_s=10))
    with pytest.raises(ApprovalExpired, match=r"approvals\.expires_s"):
        await scene.call()
    assert scene.clock.monotonic() == pytest.approx(1010)
    with pytest.raises(ApprovalExpired):
        await scene.call()
    assert len(scene.store.rows) == 2, "whoever proposes it again asks again"


async def test_a_grant_expires_too():
    scene = Scene(options=ApprovalOptions(wait_s=0, expires_s=10))
    with pytest.raises(ApprovalPending):
        await scene.call()
    await scene.store.decide("apr_1", True, "ann")
    scene.clock.advance(10)
    with pytest.raises(ApprovalPending):
        await scene.call()
    assert not scene.through.calls


@pytest.mark.parametrize(
    ("state", "error"), [(ApprovalState.SUPERSEDED, ApprovalExpired), (ApprovalState.CONSUMED, None)]
)
async def test_what_happens_to_the_row_while_we_wait(state, error):
    scene = Scene()

    async def change():
        scene.store.put(scene.store.rows[-1], state=state)
        scene.store.on_get = None

    scene.store.on_get = change
    if error is None:
        # An equal call was quicker; the claim decides between the two.
        assert (await scene.call()).approval_id == "apr_1"
    else:
        with pytest.raises(error):
            await scene.call()


async def test_a_row_that_vanishes_is_no_grant():
    scene = Scene()

    async def purge():
        scene.store.rows.clear()

    scene.store.on_get = purge
    with pytest.raises(ApprovalExpired):
        await scene.call()


async def test_a_store_away_for_a_moment_decides_nothing():
    scene = Scene()
    scene.store.broken = 20

    async def decide_late():
        if scene.store.broken == 0:
            await scene.store.decide("apr_1", True, "ann")

    scene.store.on_get = decide_late
    assert (await scene.call()).approval_id == "apr_1"


@pytest.mark.parametrize("required", ["required", lambda call: asyncio.sleep(1e6, result=True)])
def test_a_stopped_run_stops_waiting(required):
    async def main():
        scene = Scene(LoopClock(), required=required)
        run = Scope(scene.clock)

        async def stop():
            await scene.clock.sleep(3)
            run.stop = Stop(StopReason.TIME_BUDGET, "60 s are over")

        begun = scene.clock.monotonic()
        with pytest.raises(RunStopped) as stopped:
            await asyncio.gather(scene.call(scene.proposed(run=run)), stop())
        assert stopped.value.reason is StopReason.TIME_BUDGET
        assert scene.clock.monotonic() - begun < 4

    run_virtual(main())


async def test_the_deadline_of_the_run_parks_it():
    scene = Scene()
    run = Scope(scene.clock)
    run.deadline_s = scene.clock.monotonic() + 5
    with pytest.raises(ApprovalPending):
        await scene.call(scene.proposed(run=run))
    assert scene.clock.monotonic() == pytest.approx(run.deadline_s)


async def test_observing_asks_nobody():
    asked = []
    scene = Scene(required=asked.append)
    call = await scene.call(scene.proposed(run=Scope(scene.clock, observing=True)))
    assert call.would_have == [StopReason.APPROVAL_PENDING]
    assert scene.through.calls == [call]
    scene = Scene()
    await scene.call(scene.proposed(run=Scope(scene.clock, observing=True)))
    assert not asked
    assert not scene.store.requests


# Which calls


async def test_a_second_equal_write_is_asked_for_under_repeat_ask():
    scene = Scene(required=None)
    tool = make_tool("mail.send", effect=Effect.WRITE, repeat=Repeat.ASK)
    await scene.call(scene.proposed(tool))
    assert not scene.store.requests
    with pytest.raises(ApprovalPending):
        await scene.call(scene.proposed(tool, occurrence=2))


async def test_of_a_tool_that_reads_and_writes_only_writes_are_asked_for():
    scene = Scene()
    tool = make_tool("http.request", effect=lambda args: args["effect"])
    await scene.call(scene.proposed(tool, args={"effect": "read"}))
    assert not scene.store.requests
    with pytest.raises(ApprovalPending):
        await scene.call(scene.proposed(tool, args={"effect": "write"}))


async def test_a_read_that_demands_approval_shares_it_with_equal_reads_of_its_request():
    scene = Scene()
    tool = make_tool("pii.read")
    with pytest.raises(ApprovalPending):
        await scene.call(scene.proposed(tool))
    await scene.store.decide("apr_1", True, "ann")
    await scene.call(scene.proposed(tool))
    await scene.call(scene.proposed(tool))
    other = scene.proposed(tool)
    other.digest = b"e" * 16
    with pytest.raises(ApprovalPending):
        await scene.call(other)
    keys = {request.effect_key for request in scene.store.requests}
    assert {len(key) for key in keys} == {24}
    assert len(keys) == 2


# Callable approvers


async def yes(call):
    return True


async def no(call):
    return False


async def broken(call):
    raise RuntimeError("secret-value")


async def cancelled(call):
    raise asyncio.CancelledError


def hand_on(approver):
    """A plain function that returns something to await."""

    def plain(call):
        return approver(call)

    return plain


class Approver:
    async def __call__(self, call):
        await asyncio.sleep(0)
        return call.args["amount"] < 100


@pytest.mark.parametrize(
    "approver", [yes, lambda call: True, hand_on(yes), lambda call: call.args["amount"] < 100, Approver()]
)
async def test_an_approver_says_yes(approver):
    scene = Scene(LoopClock(), required=approver)
    call = await scene.call(scene.proposed(args={"amount": 5}))
    assert scene.through.calls == [call]
    assert call.approval_id is None
    assert not scene.store.requests


@pytest.mark.parametrize(
    "approver",
    [no, broken, lambda call: False, lambda call: None, lambda call: "yes", lambda call: 1, lambda call: 1 / 0, lambda: True,
     hand_on(no), lambda call: (_ for _ in ()).throw(SystemExit), lambda call: next(iter(())), Approver()],
)  # fmt: skip
async def test_everything_but_true_is_a_no(approver):
    scene = Scene(LoopClock(), required=approver)
    with pytest.raises(ApprovalDenied) as denied:
        await scene.call(scene.proposed(args={"amount": 500}))
    assert "secret-value" not in str(denied.value)
    assert not scene.through.calls


async def test_an_approver_that_cancels_itself_is_a_no():
    scene = Scene(LoopClock(), required=cancelled)
    with pytest.raises(ApprovalDenied):
        await scene.call()


def test_an_approver_that_answers_leaves_nothing_waiting():
    async def main():
        scene = Scene(LoopClock(), required=lambda call: asyncio.sleep(0.6, result=True))
        await scene.call()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())


def test_an_approver_that_never_answers_is_left_behind():
    async def main():
        scene = Scene(LoopClock(), required=lambda call: asyncio.sleep(1e6, result=True))
        begun = scene.clock.monotonic()
        with pytest.raises(ApprovalExpired, match=r"approvals\.wait_s"):
            await scene.call()
        assert scene.clock.monotonic() - begun == pytest.approx(60)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1, "nothing is left running"

    run_virtual(main())


def test_a_blocking_approver_holds_neither_the_loop_nor_the_call():
    release = threading.Event()
    other = []

    def at_the_prompt(call):
        return release.wait(30)

    async def main():
        scene = Scene(LoopClock(), required=at_the_prompt, options=ApprovalOptions(wait_s=1))

        async def goes_on():
            await asyncio.sleep(0.5)
            other.append("ran")

        with pytest.raises(ApprovalExpired):
            await asyncio.gather(scene.call(), goes_on())

    run_virtual(main())
    release.set()
    assert other == ["ran"]


def test_a_cancelled_call_leaves_no_approver_running():
    seen = []

    async def waiting(call):
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main():
        scene = Scene(LoopClock(), required=waiting)
        task = asyncio.create_task(scene.call())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())
    assert seen == ["cancelled"]


@pytest.mark.parametrize("options", [{"wait_s": -1}, {"expires_s": 0}, {"poll_s": 0}, {"wait_s": float("nan")}])
def test_options_that_could_hang_or_spin_are_refused(options):
    with pytest.raises(ConfigError, match="approvals"):
        ApprovalOptions(**options)


@given(st.sampled_from(ApprovalState), st.floats(0, 100), st.floats(0, 100))
def test_only_time_makes_a_row_expire_and_only_an_open_one(state, expires_at, now):
    row = ApprovalRow("a", b"", "t", "r", "x", "v", "", state, 0, expires_at)
    seen = standing(row, now)
    if now >= expires_at and state in {ApprovalState.PENDING, ApprovalState.APPROVED}:
        assert seen is ApprovalState.EXPIRED
    else:
        assert seen is state


acts = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([1, 5, 12])),
        st.tuples(st.just("propose"), st.sampled_from([("a", "v1"), ("a", "v2"), ("b", "v1")])),
        st.tuples(st.sampled_from(["approve", "deny", "use"]), st.integers(0, 3)),
    ),
    max_size=25,
)


@given(acts)
def test_in_any_history_a_call_passes_only_on_a_living_yes_for_exactly_it(acts):
    async def main():
        clock = ManualClock()
        scenes = {v: Scene(clock, version=v, options=ApprovalOptions(wait_s=0, expires_s=10)) for v in ("v1", "v2")}
        scenes["v2"].store = scenes["v2"].guard._store = store = scenes["v1"].store
        granted = {}  # (key, version) -> (row id, good until)
        for act, value in acts:
            if act == "wait":
                clock.advance(value)
            elif act == "propose":
                key, version = value
                call = scenes[version].proposed(key=key.encode() * 24)
                row_id, until = granted.get(value, (None, 0))
                if row_id is not None and clock.monotonic() < until:
                    assert (await scenes[version].call(call)).approval_id == row_id
                else:
                    rows = len(store.rows)
                    with pytest.raises((ApprovalPending, ApprovalDenied)):
                        await scenes[version].call(call)
                    if len(store.rows) > rows:
                        granted.pop((key, "v2" if version == "v1" else "v1"), None)
            elif value < len(store.rows):
                row = store.rows[value]
                if act == "use":
                    store.put(row, state=ApprovalState.CONSUMED)
                    granted = {what: row_of for what, row_of in granted.items() if row_of[0] != row.id}
                    continue
                was_open = standing(row, clock.wall()) is ApprovalState.PENDING
                await store.decide(row.id, act == "approve", "ann")
                if was_open and act == "approve":
                    granted[row.effect_key[:1].decode(), row.policy_version] = (row.id, clock.monotonic() + 10)

    asyncio.run(main())
