"""Stories of the machines behind the guards, each at its boundaries: breaker, limiter, loops, retries, and what is said."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from schedule_limit_stories import BREAKER, LOST, make, paced
from schedule_telling import Teller, story

from interlock.budget.loops import FEW_CALLS, LoopDetector, LoopOptions
from interlock.budget.meter import BudgetOptions, Meter, Refused
from interlock.core.calls import Answer, OnUnknown
from interlock.core.clock import ManualClock
from interlock.core.errors import ToolFailed
from interlock.core.reasons import StopReason
from interlock.resilience.breaker import Breaker
from interlock.resilience.failure import Failure
from interlock.resilience.limiter import Limiter, TokenBucket
from interlock.resilience.retry import RetryOptions, decide
from interlock.resilience.wording import as_error


@story("a breaker, moment by moment")
async def moments(teller: Teller) -> None:
    words = {"f": "failure", "s": "success", "r": "release"}
    plans = {
        "just within": [(0.0, "f"), (9.5, "f")],
        "just not within": [(0.0, "f"), (10.0, "f"), (19.5, "f")],
        "its rest": [(0.0, "f"), (0.0, "f"), (9.5, "?"), (10.0, "?"), (10.0, "s"), (11.0, "f"), (12.0, "?")],
        "opens again": [(0.0, "f"), (1.0, "f"), (11.0, "?"), (12.0, "f"), (21.0, "?"), (22.0, "?"), (23.0, "s")],
        "a probe is out": [(0.0, "f"), (0.0, "f"), (10.0, "?"), (19.5, "?"), (20.0, "?"), (29.5, "?"), (30.0, "?")],
        "called off": [(0.0, "f"), (0.0, "f"), (10.0, "?"), (11.0, "r"), (11.0, "?"), (12.0, "r-"), (12.0, "?")],
        "others, begun before": [(0.0, "f"), (0.0, "f"), (5.0, "s-"), (10.0, "?"), (11.0, "s-"), (12.0, "f-")],
        "two probes": [(0.0, "f"), (0.0, "f"), (10.0, "?"), (20.0, "?"), (21.0, "f"), (22.0, "s"), (31.0, "?")],
        "two probes fail": [(0.0, "f"), (0.0, "f"), (10.0, "?"), (20.0, "?"), (21.0, "f"), (22.0, "f"), (31.0, "?")],
        "no probe": [(0.0, "f"), (0.0, "f"), (1.0, "s"), (1.0, "f")],
    }
    for name, plan in plans.items():
        breaker = Breaker(2, 10.0)
        for at_s, what in plan:
            passes: Any = ""
            if what == "?":
                passes = (breaker.ready(at_s), breaker.allow(at_s))
            else:
                getattr(breaker, words[what[0]])(at_s, probe=not what.endswith("-"))
            stands = (breaker.state(at_s).value, breaker.opens, breaker.opens_in_s(at_s))
            teller.say(name, str(at_s), what, passes, stands)
            if name == "others, begun before" and at_s:
                teller.expect("only the probe tells", breaker.closed, False)


@story("a breaker while calls from before are still out")
async def still_out(teller: Teller) -> None:
    gate, tried = make(teller, [14.0, LOST, LOST, 8.0], timeouts_s={"default": 30}, **BREAKER)
    before = asyncio.ensure_future(gate.run(paced(teller, ("a.read",) * 3)))
    await asyncio.sleep(10.0)
    probe = asyncio.ensure_future(gate.run(paced(teller, "a.read")))
    await asyncio.sleep(6.0)
    teller.say("the probe is out", gate.house().admission.status())
    await gate.run(paced(teller, "a.read"))
    teller.expect("tried while the probe is out", len(tried), 4)
    await asyncio.gather(before, probe)
    teller.say("the probe has answered", gate.house().admission.status())
    gate, tried = make(teller, [LOST, LOST, 25.0, 1.0], timeouts_s={"default": 30}, **BREAKER)
    await gate.run(paced(teller, "a.read", "a.read"))
    await asyncio.sleep(10.0)
    probe = asyncio.ensure_future(gate.run(paced(teller, "a.read")))
    for wait_s in (9.5, 0.5):
        await asyncio.sleep(wait_s)
        await gate.run(paced(teller, "a.read"))
    teller.expect("another probe, a whole rest later", tried[3] - tried[2], 10.0)
    await probe


@story("a bucket, token by token")
async def tokens(teller: Teller) -> None:
    bucket = TokenBucket(0.5, 3)
    for at_s in (10.0, 10.0, 10.0, 10.0, 11.0, 12.0, 12.0, 13.0, 9.0, 13.5, 14.0, 100.0, 100.0, 100.0, 100.0):
        teller.say("take", str(at_s), bucket.take(at_s), [bucket.wait_s(at_s, ahead) for ahead in (0, 1, 2)])
    for _ in range(5):
        bucket.give_back()
    teller.expect("no more than the burst", [bucket.take(100.0) for _ in range(4)], [True, True, True, False])
    slow = TokenBucket(1.0, 1)
    slow.take(0.0)
    teller.expect("a rounding error early", [slow.take(1.0 - 1e-6), slow.take(1.0 - 1e-10)], [False, True])


@story("who waits for a slot, and who is gone")
async def queue(teller: Teller) -> None:
    def never() -> bool:
        return False

    later_s = teller.clock.monotonic() + 1_000.0
    limiter = Limiter(1, None, None, teller.clock)
    began_s = teller.clock.monotonic()
    found = await limiter.acquire(later_s, 0.25, never)
    teller.expect("at once", [found, teller.clock.monotonic() - began_s], [True, 0.0])
    limiter.release()
    teller.expect("a slot", [limiter.try_acquire(), limiter.try_acquire()], [True, False])
    waiting = asyncio.ensure_future(limiter.acquire(later_s, 0.25, never))
    await asyncio.sleep(0)
    teller.expect("waiting", limiter.waiting, 1)
    limiter.release()
    waiting.cancel()  # it had just been granted
    await asyncio.gather(waiting, return_exceptions=True)
    teller.expect("given back", [limiter.try_acquire(), limiter.waiting], [True, 0])
    # One whose loop is gone is passed over.
    gone = asyncio.new_event_loop()
    lost = gone.create_task(limiter.acquire(float("inf"), 0.25, never))

    def begun() -> None:
        gone.run_until_complete(asyncio.sleep(0.001))
        gone.close()

    thread = threading.Thread(target=begun)
    thread.start()
    thread.join()
    waiting = asyncio.ensure_future(limiter.acquire(later_s, 0.25, never))
    await asyncio.sleep(0)
    teller.expect("both wait", limiter.waiting, 2)
    limiter.release()
    teller.expect("the next one has it", [await waiting, limiter.waiting, limiter.try_acquire()], [True, 0, False])
    limiter.release()
    teller.expect("one slot, no more", [limiter.try_acquire(), limiter.try_acquire()], [True, False])
    lost._log_destroy_pending = False  # type: ignore[attr-defined]
    limiter = Limiter(2, 1.0, 1, teller.clock)
    limiter.try_acquire()
    limiter.undo()
    teller.expect("slot and token", [limiter.try_acquire(), limiter.try_acquire()], [True, False])
    await asyncio.sleep(5.0)
    teller.expect("the second slot, and none", [limiter.try_acquire(), limiter.try_acquire()], [True, False])
    limiter.release()
    teller.expect("a slot, but no token", limiter.try_acquire(), False)
    # A rate by a clock that only its own sleep moves.
    clock = ManualClock()
    limiter = Limiter(None, 0.5, 1, clock)
    limiter.try_acquire()
    began_s = clock.monotonic()
    found = await limiter.acquire(began_s + 60.0, 0.25, never)
    teller.expect("by that clock", [found, round(clock.monotonic() - began_s, 3)], [True, 2.0])
    # Nobody waits beyond his patience, and who is told to stop does not wait on.
    limiter = Limiter(1, None, None, teller.clock)
    limiter.try_acquire()
    began_s = teller.clock.monotonic()
    for until_s, stopped in ((began_s, False), (began_s + 1.1, False), (began_s + 9.0, True)):
        found = await limiter.acquire(until_s, 0.25, lambda stopped=stopped: stopped)  # type: ignore[misc]
        teller.say("until", until_s - began_s, found, round(teller.clock.monotonic() - began_s, 3), limiter.waiting)


@story("whether to try again, and when")
async def verdicts(teller: Teller) -> None:
    options = RetryOptions(max_attempts=3, backoff_ms=(1_000.0, 4_000.0), max_retries=2)
    usual: dict[str, Any] = {
        "attempt": 1,
        "failure": Failure(StopReason.TOOL_FAILED, "unknown", "http_503", status=503, transient=True),
        "write": False,
        "closes_by": OnUnknown.STOP,
        "now_s": 100.0,
        "deadline_s": 110.0,
        "retries_used": 0,
        "draw": 0.5,
    }

    def asks(s: float, status: int | None = 429) -> Failure:
        return Failure(StopReason.TOOL_RATE_LIMIT, "no", "http_429", status=status, retry_after_s=s, transient=True)

    cases: dict[str, dict[str, Any]] = {
        "as usual": {},
        "the second": {"attempt": 2},
        "the last": {"attempt": 3},
        "in all used": {"retries_used": 2},
        "nearly all used": {"retries_used": 1},
        "a write": {"write": True},
        "a write that is resent": {"write": True, "closes_by": OnUnknown.RESEND},
        "a write that was not done": {"write": True, "failure": asks(0.0)},
        "another status": {"failure": Failure(StopReason.TOOL_FAILED, "unknown", "x", status=508, transient=True)},
        "for good": {"failure": Failure(StopReason.TOOL_FAILED, "unknown", "x", status=503)},
        "in time": {"deadline_s": 100.0 + 0.5 + 1e-6},
        "at the deadline": {"deadline_s": 100.5},
        "past the deadline": {"deadline_s": 100.0},
        "asked to wait": {"failure": asks(7.0)},
        "asked to wait less": {"failure": asks(0.25)},
        "asked to wait too long": {"failure": asks(10.0)},
        "asked to wait an hour": {"failure": asks(3_600.0), "deadline_s": float("inf")},
        "asked to wait longer": {"failure": asks(3_600.5), "deadline_s": float("inf")},
        "no wait drawn": {"draw": 0.0},
        "the longest drawn": {"draw": 1.0, "attempt": 2},
    }
    for name, words in cases.items():
        verdict = decide(options, **(usual | words))
        teller.say(name, getattr(verdict, "why", None), getattr(verdict, "delay_s", None))
    for waits in ((), (0.0,), (500.0,)):
        for attempt in (1, 4):
            verdict = decide(RetryOptions(max_attempts=9, backoff_ms=waits), **(usual | {"attempt": attempt}))
            teller.say(list(waits), str(attempt), getattr(verdict, "delay_s", None))


@story("what is said of a failure")
async def wording(teller: Teller) -> None:
    reasons = (
        StopReason.TOOL_TIMEOUT,
        StopReason.TOOL_RATE_LIMIT,
        StopReason.TOOL_AUTH_FAILED,
        StopReason.TIME_BUDGET,
        StopReason.TOOL_FAILED,
        StopReason.NO_PROGRESS,
    )
    why = ("", "attempts", "retry_after", "max_retries", "status", "unknown_outcome")
    for reason in reasons:
        for number, gave_up in enumerate(why):
            performed: Any = "no" if number % 2 else "unknown"
            failure = Failure(
                reason,
                performed,
                "exception" if number == 5 else "read_timeout",
                status=503 if number in {1, 4} else None,
                retry_after_s=9.0 if number in {2, 3} else None,
                transient=number == 2,
            )
            error = as_error(failure, "a.put", ValueError("secret"), number, write=number % 3 == 0, gave_up=gave_up)
            shown = (type(error).__name__, str(error.reason), error.transient, str(error), error.for_model)
            teller.say(*(str(each) for each in shown), error.details)
            teller.expect("no content", "secret" in f"{error} {error.for_model} {error.details}", False)
    own = ToolFailed("x")
    failure = Failure(StopReason.TOOL_FAILED, "unknown", "refused")
    teller.expect("our own goes up as it is", as_error(failure, "a", own, 1, write=True) is own, True)


@story("a loop, call by call")
async def detector(teller: Teller) -> None:
    kept = Answer("same", b'"same"')

    def lived(name: str, options: LoopOptions, calls: list[tuple[Any, ...]]) -> list[Any]:
        """Live through calls of (key, output, batch, kind); return what each was judged."""
        machine, verdicts = LoopDetector(options), []
        for step, (key, output, batch, *kind) in enumerate(calls):
            write, allowed = "write" in kind, "allowed" in kind
            verdict = machine.propose(key, batch, write=write, allowed=allowed)
            answered = getattr(verdict, "step", None)
            verdicts.append(verdict if answered is None else f"as in {answered}")
            if verdict is not None:
                continue
            if write:
                machine.settle_write(key, batch, allowed=allowed)
            machine.settle(key, output, batch, step, kept, counts="proved" not in kind)
        teller.say(name, [str(each) if each else "" for each in verdicts])
        return verdicts

    usual, calm = LoopOptions(), LoopOptions(no_progress_threshold=None)
    many = [(n << 32, n, n) for n in range(FEW_CALLS + 2)]
    lived("alike", usual, [(1, 7, n) for n in range(6)])
    lived("of one batch", usual, [(1, 7, n // 3) for n in range(12)])
    lived("answered in one batch", usual, [(1, 7, 0), (1, 7, 1), *[(1, 7, 2)] * 4, (1, 7, 3), (1, 7, 4)])
    lived("now so, now so", usual, [(1, n % 2, n) for n in range(8)])
    changing = lived("always another", usual, [(1, (n << 1) + (n << 37), n) for n in range(12)])
    teller.expect("what changes is no loop", set(changing), {None})
    lived("another after a while", LoopOptions(5, None), [(1, 7 + n // 3, n) for n in range(10)])
    lived("six of old ones", usual, [(n % 3, 0, n) for n in range(12)])
    lived("writes", usual, [(1, 7, n, "write") for n in range(5)])
    lived("a write's own", LoopOptions(3, 1), [(1, 7, 0, "write"), (1, 7, 1, "write"), (2, 0, 2)])
    lived("writes of one batch", usual, [(1, 7, n // 4, "write") for n in range(8)])
    lived("writes by turns", usual, [(n % 2 + 1, 7, n, "write") for n in range(8)])
    lived("proved not done", usual, [(1, 7, n, "proved") for n in range(9)])
    lived("a write between", usual, [(1, 7, 0), (1, 7, 1), (2, 0, 2, "write"), (1, 7, 3), (1, 7, 4), (1, 7, 5)])
    lived("its own write", usual, [(1, 7, 0, "write"), (1, 7, 1, "write"), (2, 0, 2, "write"), (1, 7, 3, "write")])
    for period in (2, 3, 4, 5):
        lived(f"every {period}", usual, [(n % period + 1, 0, n, "write", "allowed") for n in range(14)])
        lived(
            f"every {period}, with other answers",
            usual,
            [(n % period + 1, n, n, "write", "allowed") for n in range(14)],
        )
    lived("after more than a few", calm, [*many, *many[:2], (0, 0, 900), (0, 0, 901), (FEW_CALLS << 32, 0, 902)])
    halves = [(0x0202020200000000, 1, 0), (0x0000000002020202, 2, 1)]
    lived("a key across two others", calm, [*halves, (0x0202020202020202, 3, 2), *halves, (0x0202020202020202, 3, 3)])
    for n in (0, 5, 6, 7):
        halting = [(1, 7, 0), *[(1, 7, step) for step in range(1, n)], (2, n, 50), (1, 7, 51), (1, 7, 52)]
        lived(f"something new after {n}", LoopOptions(None), halting)
    for threshold in (2, 4):
        lived(f"threshold {threshold}", LoopOptions(threshold, None), [(1, 7, n) for n in range(8)])
        lived(f"nothing new for {threshold}", LoopOptions(None, threshold), [(1, 7, n) for n in range(8)])


@story("a meter, turn by turn")
async def metered(teller: Teller) -> None:
    def used(meter: Meter) -> tuple[Any, ...]:
        return meter.steps, meter.calls, meter.tokens, meter.usd, meter.overdrawn, meter.unpriced, meter.reserved()

    root = Meter(BudgetOptions(max_steps=5, max_usd=1.0, max_tokens=100, max_tool_calls=4, max_unique_calls=2))
    child = Meter(BudgetOptions(max_usd=None, max_tokens=None, reserve_usd_per_turn=0.25), root)
    for words in ((0.5, 60), (0.25, 40), (0.25, 41), (0.5, 40), (0.51, 40), (None, None), (None, 1)):
        held = child.admit_turn(*words)
        teller.say("a turn", list(words), held.key if isinstance(held, Refused) else (held.usd, held.exact), used(root))
        if not isinstance(held, Refused):
            child.cancel_turn(held)
            teller.expect("taken back", (root.steps, child.steps, root.reserved()), (0, 0, (0.0, 0)))
    held = child.take_turn(0.5, 50)
    teller.say("held", used(root), used(child))
    other = root.admit_turn(None, None)
    teller.expect("while one is under way", isinstance(other, Refused), False)
    child.settle_turn(held, 0.125, 30)
    teller.say("settled", used(root), used(child))
    wrap_ups = [meter.admit_wrap_up(usd) for usd in (None, 0.75, 0.875, 1.0) for meter in (root, child)]
    teller.say("a last one", [each.key if isinstance(each, Refused) else each.usd for each in wrap_ups], used(root))
    for each in wrap_ups:
        if not isinstance(each, Refused):
            teller.expect("it holds no tokens", each.tokens, 0)
            child.settle_turn(each, 0.0, 0)
    teller.say("let go of", used(root), used(child))
    root.replay_turn(0.0625, 5)
    child.charge_lost(0.5, 7)
    child.mark_unpriced("first")
    root.mark_unpriced("second")
    teller.say("replayed and lost", used(root), used(child), root.capped_usd(), child.capped_usd())
    teller.expect("lost ones are no steps", (child.steps, child.tokens), (1, 37))
    child.replay_turn(0.5, 1)
    teller.expect("more than there was", (root.overdrawn, child.overdrawn), (True, False))
    words = Meter(BudgetOptions(max_tokens=100))
    words.charge_lost(0.0, 99)
    some = words.admit_turn(None, None)
    words.charge_lost(0.0, 1)
    teller.expect(
        "words are left, or none",
        [isinstance(each, Refused) for each in (some, words.admit_turn(None, None))],
        [False, True],
    )
    full = Meter(BudgetOptions(max_usd=1.0))
    full.charge_lost(1.0, 0)
    teller.expect(
        "all of it, and no more", (full.overdrawn, isinstance(full.admit_turn(None, 0), Refused)), (False, True)
    )
    for key, tool in ((1, "a"), (1, "a"), (2, "a"), (3, "a"), (2, "b"), (2, "b")):
        refused = child.admit_call(tool, key, 3)
        teller.say("a call", tool, str(key), None if refused is None else (refused.key, refused.run_wide), used(root))
    child.not_executed("a", 2, first=True)
    child.not_executed("a", 1, first=False)
    child.not_executed("c", 1, first=False)
    teller.say("answered", [root.knows(key) for key in (1, 2)], [child.knows(1), child._per_tool, root._per_tool])
