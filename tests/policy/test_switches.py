"""Kill switches and safe mode: seen in time, never softened, and no reason to hang when the store does."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_scenes import MemorySwitches, Scope, Through, make_call, make_tool

from interlock.core.calls import Effect, Stop
from interlock.core.clock import LoopClock, ManualClock, run_virtual
from interlock.core.errors import ConfigError, RunStopped, StoreUnavailable, ToolDenied
from interlock.core.reasons import StopReason
from interlock.policy.switch_guard import SwitchGuard
from interlock.policy.switches import AHEAD_S, FRESH_S, SafeModeOptions, Switches, new_switch

READ = make_tool("kb.read")
WRITE = make_tool("ticket.create", effect=Effect.WRITE)


class Scene:
    """One process: its switches, its guard, and what got through."""

    def __init__(self, clock=None, *, enabled=False, allowed=("kb.*",)):
        self.clock = clock or ManualClock()
        self.store = MemorySwitches(self.clock)
        self.switches = Switches(self.store, self.clock, SafeModeOptions(enabled, allowed))
        self.guard = SwitchGuard(self.switches)
        self.through = Through()

    async def call(self, tool=READ, **facts):
        run = Scope(self.clock, **facts)
        call = make_call(run, tool)
        await self.guard(tool, self.through)(call)
        return call


async def test_nothing_set_lets_everything_through():
    scene = Scene()
    await scene.call(READ)
    await scene.call(WRITE)
    assert len(scene.through.calls) == 2


@pytest.mark.parametrize(
    ("scope", "subject"),
    [("global", ""), ("tenant", "acme"), ("agent", "triage"), ("run", "run_1")],
)
@pytest.mark.parametrize("observing", [False, True])
async def test_a_kill_stops_the_run_even_when_observing(scope, subject, observing):
    scene = Scene()
    await scene.store.set(scope, subject, "kill", reason="leaking", actor="ann")
    with pytest.raises(RunStopped) as stopped:
        await scene.call(READ, observing=observing)
    assert stopped.value.reason is StopReason.KILLED
    assert stopped.value.details == {"scope": scope, "subject": subject, "actor": "ann", "kill_reason": "leaking"}
    assert "leaking" in str(stopped.value)
    assert "leaking" not in stopped.value.for_model
    with pytest.raises(RunStopped):
        await scene.guard.check_turn(Scope(scene.clock, observing=observing))
    assert not scene.through.calls


@pytest.mark.parametrize(
    ("scope", "subject"), [("tenant", "globex"), ("agent", "tri"), ("run", "run_2"), ("tool", "kb"), ("tool", "db.*")]
)
async def test_a_kill_of_another_concerns_nobody_else(scope, subject):
    scene = Scene()
    await scene.store.set(scope, subject, "kill")
    await scene.call(READ)
    await scene.guard.check_turn(Scope(scene.clock))
    assert len(scene.through.calls) == 1


@pytest.mark.parametrize("subject", ["kb.read", "kb.*", "*"])
@pytest.mark.parametrize("observing", [False, True])
async def test_a_killed_tool_is_refused_and_the_run_goes_on(subject, observing):
    scene = Scene()
    await scene.store.set("tool", subject, "kill")
    with pytest.raises(ToolDenied) as denied:
        await scene.call(READ, observing=observing)
    assert denied.value.details["policy"] == "kill_switch"
    assert denied.value.details["rule"] == subject
    await scene.guard.check_turn(Scope(scene.clock))


@pytest.mark.parametrize("agent", ["triage/search", "triage/search/deep"])
async def test_a_kill_of_an_agent_covers_its_sub_agents(agent):
    scene = Scene()
    await scene.store.set("agent", "triage", "kill")
    with pytest.raises(RunStopped):
        await scene.call(READ, agent=agent)
    await scene.call(READ, agent="triage2")


async def test_a_kill_of_the_root_covers_its_children():
    scene = Scene()
    await scene.store.set("run", "run_root", "kill")
    run = Scope(scene.clock)
    run.root_run_id = "run_root"
    with pytest.raises(RunStopped):
        await scene.guard(READ, scene.through)(make_call(run, READ))


async def test_a_kill_is_seen_within_a_quarter_of_a_second_and_not_read_for_more_often():
    scene = Scene()
    await scene.call()
    await scene.store.set("global", "", "kill")
    scene.clock.advance(0.25)
    await scene.call()
    assert scene.store.reads == 1
    scene.clock.advance(0.01)
    with pytest.raises(RunStopped):
        await scene.call()
    assert scene.store.reads == 2


async def test_a_lifted_kill_lets_through_again():
    scene = Scene()
    await scene.store.set("tenant", "acme", "kill")
    with pytest.raises(RunStopped):
        await scene.call()
    await scene.store.lift("tenant", "acme", "kill")
    scene.clock.advance(0.3)
    await scene.call()
    assert len(scene.through.calls) == 1


async def test_a_decided_stop_refuses_every_further_call_even_one_that_waits_for_the_switches():
    scene = Scene()
    run = Scope(scene.clock)
    run.stop = Stop(StopReason.COST_BUDGET, "used up", {"usd": 1})
    with pytest.raises(RunStopped) as stopped:
        await scene.guard(READ, scene.through)(make_call(run, READ))
    assert (stopped.value.reason, stopped.value.details) == (StopReason.COST_BUDGET, {"usd": 1})
    assert scene.store.reads == 0
    run.stop = None
    waiting = scene.guard(READ, scene.through)(make_call(run, READ))
    run.stop = Stop(StopReason.KILLED)
    with pytest.raises(RunStopped):
        await waiting
    assert not scene.through.calls


async def test_an_attempt_of_a_killed_tool_is_refused_and_that_of_a_write_needs_a_readable_snapshot():
    scene = Scene()
    write, read = await scene.call(WRITE), await scene.call(READ)
    scene.store.error = StoreUnavailable("gone")
    scene.clock.advance(3)
    with pytest.raises(StoreUnavailable):
        await scene.switches.check_attempt(write)
    await scene.switches.check_attempt(read)
    scene.store.error = None
    await scene.store.set("tool", "ticket.*", "kill")
    scene.clock.advance(3)
    with pytest.raises(ToolDenied):
        await scene.switches.check_attempt(write)
    await scene.switches.check_attempt(read)


async def test_an_attempt_asks_the_fresh_snapshot_without_reading():
    scene = Scene(enabled=True)
    call = await scene.call(READ)
    assert scene.store.reads == 1
    await scene.switches.check_attempt(call)
    assert scene.store.reads == 1


async def test_a_snapshot_that_ages_is_read_anew_beside_the_calls():
    """One read for all calls of the moment, and none of them waits: the next finds it fresh, and the kill in it."""
    scene = Scene()
    call = await scene.call(READ)
    scene.clock.advance(AHEAD_S)
    assert (scene.switches.idle(), scene.store.reads) == (True, 1)
    scene.clock.advance(0.01)
    await scene.store.set("global", "", "kill")
    for _ in range(3):
        assert scene.switches.check_attempt(call) is None
    await asyncio.sleep(0)
    assert scene.store.reads == 2
    with pytest.raises(RunStopped):
        await scene.switches.check_attempt(call)


async def test_event_loops_do_not_read_ahead_of_each_other(monkeypatch):
    scene = Scene()
    await scene.call(READ)
    scene.clock.advance((AHEAD_S + FRESH_S) / 2)
    answered, read = asyncio.Event(), scene.store.read

    async def slow():
        snapshot = await read()
        await answered.wait()
        return snapshot

    async def idle_elsewhere():
        idle = scene.switches.idle()
        await asyncio.sleep(0)
        return idle

    monkeypatch.setattr(scene.store, "read", slow)
    assert scene.switches.idle()
    await asyncio.sleep(0)
    assert await asyncio.to_thread(asyncio.run, idle_elsewhere())
    assert scene.switches.idle()
    await asyncio.sleep(0)
    assert scene.store.reads == 2
    answered.set()


async def test_a_store_that_fails_is_not_asked_ahead_again_and_again():
    scene = Scene()
    await scene.call(READ)
    scene.clock.advance((AHEAD_S + FRESH_S) / 2)
    scene.store.error = OSError("away")
    for _ in range(3):
        assert scene.switches.idle(), "the snapshot is good for what is left of its time"
        await asyncio.sleep(0)
    assert scene.store.reads == 2
    scene.clock.advance(FRESH_S)
    assert not scene.switches.idle()


async def test_an_attempt_is_asked_again():
    scene = Scene()
    call = await scene.call(WRITE)
    assert scene.switches.check_attempt(call) is None, "nothing is set, and the snapshot is fresh"
    await scene.store.set("global", "", "kill")
    scene.clock.advance(0.3)
    with pytest.raises(RunStopped):
        await scene.switches.check_attempt(call)


# Safe mode


@pytest.mark.parametrize("by_file", [True, False])
@pytest.mark.parametrize(
    ("tool", "rule"),
    [
        (WRITE, "writes"),
        (make_tool("kb.write", effect=Effect.WRITE), "writes"),
        (make_tool("db.read"), "safe_mode.allowed_tools"),
    ],
)
async def test_safe_mode_permits_only_listed_reads(by_file, tool, rule):
    scene = Scene(enabled=by_file)
    if not by_file:
        await scene.store.set("global", "", "safe_mode")
    with pytest.raises(ToolDenied) as denied:
        await scene.call(tool)
    assert denied.value.details == {"policy": "safe_mode", "rule": rule}
    await scene.call(READ)
    assert [call.tool for call in scene.through.calls] == [READ]
    assert scene.switches.safe_mode()


async def test_safe_mode_of_the_file_is_not_lifted_by_the_store():
    scene = Scene(enabled=True)
    await scene.store.lift("global", "", "safe_mode")
    with pytest.raises(ToolDenied):
        await scene.call(WRITE)


async def test_observing_softens_safe_mode():
    scene = Scene(enabled=True)
    call = await scene.call(WRITE, observing=True)
    assert call.would_have == [StopReason.TOOL_DENIED]
    assert scene.through.calls == [call]


async def test_a_kill_is_said_before_safe_mode():
    scene = Scene(enabled=True)
    await scene.store.set("global", "", "kill")
    with pytest.raises(RunStopped):
        await scene.call(WRITE)


# A store that fails


async def test_an_unreadable_snapshot_refuses_writes_and_lets_reads_go_on():
    scene = Scene()
    await scene.call(WRITE)
    scene.store.error = StoreUnavailable("disk gone")
    scene.clock.advance(2.0)
    await scene.call(WRITE)
    scene.clock.advance(0.01)
    with pytest.raises(StoreUnavailable, match="disk gone"):
        await scene.call(WRITE)
    await scene.call(READ)
    await scene.guard.check_turn(Scope(scene.clock))
    scene.store.error = None
    scene.clock.advance(0.3)
    await scene.call(WRITE)


async def test_a_call_that_a_crowded_loop_kept_waiting_is_served_by_the_answer_to_its_own_question():
    scene = Scene()
    answer = scene.store.read

    async def and_the_loop_was_busy():
        snapshot = await answer()
        scene.clock.advance(3.0)  # other tasks, between the answer and the call that waited for it
        return snapshot

    scene.store.read = and_the_loop_was_busy
    await scene.call(WRITE)
    await scene.store.set("tool", "ticket.*", "kill")
    with pytest.raises(ToolDenied):
        await scene.call(WRITE)


async def test_a_store_that_was_never_read_refuses_writes():
    scene = Scene()
    scene.store.error = StoreUnavailable("no such file")
    with pytest.raises(StoreUnavailable, match="no such file"):
        await scene.call(WRITE)
    await scene.call(READ)


async def test_a_kill_once_seen_holds_while_the_store_is_away():
    scene = Scene()
    await scene.store.set("global", "", "kill")
    with pytest.raises(RunStopped):
        await scene.call()
    scene.store.error = StoreUnavailable("gone")
    scene.clock.advance(100)
    with pytest.raises(RunStopped):
        await scene.call()


async def test_a_failing_store_is_asked_four_times_a_second_not_by_every_call():
    scene = Scene()
    scene.store.error = StoreUnavailable("gone")
    for _ in range(50):
        await scene.call(READ)
    assert scene.store.reads == 1


@pytest.mark.parametrize("error", [RuntimeError("bug"), asyncio.CancelledError()])
async def test_a_store_with_a_bug_counts_as_unreadable(error):
    scene = Scene()
    scene.store.error = error
    await scene.call(READ)
    with pytest.raises(StoreUnavailable):
        await scene.call(WRITE)


def test_a_thousand_runs_read_once():
    async def main():
        scene = Scene(LoopClock())
        scene.store.delay_s = 0.05
        await asyncio.gather(*(scene.call() for _ in range(1000)))
        return scene

    scene = run_virtual(main())
    assert scene.store.reads == 1
    assert len(scene.through.calls) == 1000


def test_an_answer_that_began_too_early_does_not_serve_a_later_call():
    async def main():
        scene = Scene(LoopClock())
        scene.store.delay_s = 0.4
        first = asyncio.create_task(scene.call())
        await scene.clock.sleep(0.1)
        await scene.store.set("global", "", "kill")  # after the first read was answered inside the store
        await scene.clock.sleep(0.26)
        with pytest.raises(RunStopped):
            await scene.call()
        await first
        return scene

    assert run_virtual(main()).store.reads == 2


def test_a_hanging_store_holds_nobody_for_longer_than_two_seconds():
    async def main():
        scene = Scene(LoopClock())
        scene.store.delay_s = 1e6
        begun = scene.clock.monotonic()
        await scene.call(READ)
        waited = scene.clock.monotonic() - begun
        assert 1.0 < waited <= 2.0
        with pytest.raises(StoreUnavailable, match="no answer"):
            await scene.call(WRITE)
        # From then on nobody waits for long, and nobody piles up.
        begun = scene.clock.monotonic()
        await scene.clock.sleep(0.3)
        await asyncio.gather(*(scene.call(READ) for _ in range(20)))
        assert scene.clock.monotonic() - begun < 0.6
        assert len(asyncio.all_tasks()) <= 2
        scene.store.delay_s = 0.0
        await scene.clock.sleep(0.3)
        await scene.call(WRITE)

    run_virtual(main())


def test_a_cancelled_caller_does_not_take_the_read_from_the_others():
    async def main():
        scene = Scene(LoopClock())
        scene.store.delay_s = 0.1
        first, second = asyncio.create_task(scene.call()), asyncio.create_task(scene.call())
        await scene.clock.sleep(0.05)
        first.cancel()
        await second
        return scene

    scene = run_virtual(main())
    assert scene.store.reads == 1
    assert len(scene.through.calls) == 1


def test_two_event_loops_do_not_wait_for_each_other_and_an_old_answer_does_not_hide_a_new_one():
    scene = Scene()
    begun, finish = threading.Event(), threading.Event()
    read_at_once = scene.store.read

    async def read_slowly():
        snapshot = await read_at_once()
        begun.set()
        await asyncio.to_thread(finish.wait, 10)
        return snapshot

    scene.store.read = read_slowly

    def run_first():
        with pytest.raises(RunStopped):
            asyncio.run(scene.call())

    first = threading.Thread(target=run_first)
    first.start()
    assert begun.wait(10)

    async def second():
        scene.clock.advance(0.1)
        await scene.store.set("global", "", "kill")
        with pytest.raises(RunStopped):
            await scene.call()
        finish.set()
        await asyncio.to_thread(first.join, 10)
        with pytest.raises(RunStopped):
            await scene.call()

    scene.store.read = read_at_once
    asyncio.run(second())


# Any history

steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.05, 0.2, 0.3, 1.0, 2.5])),
        st.tuples(st.sampled_from(["kill", "lift", "break", "mend", "read", "write"]), st.none()),
    ),
    max_size=30,
)


@given(steps)
def test_in_any_history_a_call_passes_only_on_what_is_known(steps):
    """Whatever passes: no kill was in the last answer; it is young, or the store was failing; a write's is under 2 s."""

    async def main():
        scene = Scene()
        known_at, killed_then = float("-inf"), False
        real_read = scene.store.read

        async def read():
            nonlocal known_at, killed_then
            snapshot = await real_read()
            known_at, killed_then = scene.clock.monotonic(), bool(snapshot.switches)
            return snapshot

        scene.store.read = read
        failed_at = float("-inf")
        for step, value in steps:
            if step == "wait":
                scene.clock.advance(value)
            elif step == "kill":
                await scene.store.set("global", "", "kill")
            elif step == "lift":
                await scene.store.lift("global", "", "kill")
            elif step in {"break", "mend"}:
                scene.store.error = StoreUnavailable("gone") if step == "break" else None
            else:
                reads, tool = scene.store.reads, READ if step == "read" else WRITE
                refusal = None
                try:
                    await scene.call(tool)
                except (RunStopped, StoreUnavailable) as error:
                    refusal = error
                now = scene.clock.monotonic()
                if scene.store.error is not None and scene.store.reads > reads:
                    failed_at = now
                age = now - known_at
                assert age <= 0.25 or now - failed_at <= 0.25
                if killed_then:
                    assert isinstance(refusal, RunStopped)
                elif tool is WRITE and age > 2:
                    assert isinstance(refusal, StoreUnavailable)
                else:
                    assert refusal is None

    asyncio.run(main())


# Words


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"reason": " "}, "reason"),
        ({"actor": ""}, "actor"),
        ({"scope": "planet"}, "planet"),
        ({"kind": "pause"}, "pause"),
        ({"scope": "global", "subject": "acme"}, "no subject"),
        ({"scope": "tenant", "subject": " "}, "a subject"),
        ({"scope": "tenant", "subject": "acme", "kind": "safe_mode"}, "safe mode is global"),
        ({"scope": "tool", "subject": "db.[x]"}, "not a tool name"),
        ({"expires_at": 10.0}, "expired"),
        ({"expires_at": float("nan")}, "expired"),
    ],
)
def test_a_switch_says_why_who_and_whom(words, says):
    right = {"scope": "global", "subject": "", "kind": "kill", "reason": "r", "actor": "a", "set_at": 10.0} | words
    with pytest.raises(ConfigError, match=says):
        new_switch(right.pop("scope"), right.pop("subject"), right.pop("kind"), **right)


def test_a_bad_glob_in_the_file_is_found_at_once():
    with pytest.raises(ConfigError, match=r"safe_mode\.allowed_tools"):
        Scene(allowed=["a b"])
