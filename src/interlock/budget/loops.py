"""Is it getting anywhere: the same call again, a cycle, or nothing new.

A call repeats when tool, canonical arguments *and output* equal the one before it. After two settled equal
outputs (threshold 3) the next proposal is answered from the record, with a warning, instead of executed;
after two such answers the run stops. An executed write clears what was counted, for re-reading after a
write is verification; a transient failure does not count; calls of one batch do not count against each
other. Only the journal answers a write: an equal write is a repeat like any other, and a third executed one
with no other write between stops the run, as does a cycle of period 2 to 4 on its third round.

The detector is a pure machine; a run of 10,000 calls costs it what one of 25 does.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any, TypeVar

from interlock.budget.meter import Metered
from interlock.core.calls import Answer, Call, Proceed, Repeat, ToolSpec
from interlock.core.errors import InterlockError, LoopDetected
from interlock.core.reasons import StopReason

__all__ = ["LoopDetector", "LoopGuard", "LoopOptions", "Looped", "key_of"]

# Answers from the record before the run stops: the third and fourth proposal are answered, the fifth stops.
ANSWERS_BEFORE_STOP = 2
# An executed write with this many equal predecessors, and no other write between, stops the run.
EQUAL_WRITES_BEFORE_STOP = 2
LONGEST_CYCLE = 4
# Calls of one generation; two are remembered, and the older is forgotten as a whole: a bound, not a rule, for no
# loop is this long. (Forgetting the oldest call alone makes a dict search past all that were deleted before it.)
REMEMBERED_CALLS = 2048
KEPT_OUTPUT_BYTES = 65_536

# Of so many calls it is quicker to look through the packed keys than it is worth keeping a dict.
FEW_CALLS = 64

# Hashes are cut to 60 bits, and what is packed beside each stays within 60: an integer of one more bit is half as
# large again, and every call of a long run keeps two.
_KEY_MASK = (1 << 60) - 1
_OUTPUT_MASK = (1 << 36) - 1
_BATCH_BITS = 24
_BATCH_MASK = (1 << _BATCH_BITS) - 1


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """`agent.loop_detection`: thresholds (None switches the rule off) and globs of tools that may poll."""

    repeated_calls_threshold: int | None = 3
    no_progress_threshold: int | None = 6
    exempt: tuple[str, ...] = field(default=())


class Repeated:
    """A call that has come back with the same output: how often, and what it said."""

    __slots__ = ("answer", "answered", "batch", "count", "step")

    def __init__(self, step: int) -> None:
        self.count = 1
        self.answered = 0
        self.batch: int | None = None
        self.step = step
        self.answer: Answer | None = None


class Outcomes:
    """The packed output that each call last had.

    Most runs have few calls: those lie in two buffers, a quarter of what a dict and its integers take.
    """

    __slots__ = ("_keys", "_values", "table")

    def __init__(self) -> None:
        self._keys = bytearray()
        self._values = array("Q")
        self.table: dict[int, int] | None = None

    def get(self, key: int) -> int | None:
        """Return what was set for `key`, or None."""
        if self.table is not None:
            return self.table.get(key)
        at = self._place(key.to_bytes(8, "little"))
        return None if at < 0 else self._values[at]

    def add(self, key: int, packed: int) -> int | None:
        """Return what was set for `key`; or set `packed` (each of at most 60 bits) if nothing was, and return None."""
        if self.table is not None:
            before = self.table.get(key)
            if before is None:
                self.table[key] = packed
            return before
        name = key.to_bytes(8, "little")
        keys, values = self._keys, self._values
        if name in keys and (at := self._place(name)) >= 0:
            return values[at]
        keys += name
        values.append(packed)
        if len(values) > FEW_CALLS:
            each = (int.from_bytes(keys[at : at + 8], "little") for at in range(0, len(keys), 8))
            self.table = dict(zip(each, values, strict=True))
            self._keys, self._values = bytearray(), array("Q")
        return None

    def set(self, key: int, packed: int) -> None:
        """Remember `packed` for `key`."""
        if self.add(key, packed) is None:
            return
        if self.table is not None:
            self.table[key] = packed
        else:
            self._values[self._place(key.to_bytes(8, "little"))] = packed

    def _place(self, name: bytes) -> int:
        at = self._keys.find(name)
        while at != -1 and at % 8:  # found across two keys
            at = self._keys.find(name, at + 1)
        return at // 8  # what is nowhere is at -1 of these, too

    def __contains__(self, key: int) -> bool:
        return self.get(key) is not None


class LoopDetector:
    """The pure machine of one run; keys and outputs are hashes."""

    __slots__ = (
        "_cycle",
        "_older",
        "_repeats",
        "_seen",
        "_threshold",
        "_unchanged",
        "_unchanged_cap",
        "_write",
        "_write_batch",
        "_write_count",
    )

    def __init__(self, options: LoopOptions) -> None:
        self._threshold = options.repeated_calls_threshold
        self._unchanged_cap = options.no_progress_threshold
        self._unchanged = 0
        # One packed integer a call (output hash, batch): a run of unique calls allocates nothing else.
        self._seen = Outcomes()
        self._older: Outcomes | None = None
        self._repeats: dict[int, Repeated] = {}
        self._write: int | None = None
        self._write_batch: int | None = None
        self._write_count = 0
        self._cycle: list[tuple[int, int]] | None = None

    def propose(self, key: int, batch: int, *, write: bool, allowed: bool) -> Repeated | StopReason | None:
        """Judge a proposal: None passes, a `Repeated` is to be answered from the record, a reason stops.

        Args:
            key: Hash of tool and arguments.
            batch: Calls with the same number do not count against each other.
            write: Whether it is a write. allowed: whether the tool declares `repeat: allow`.
        """
        cap = self._unchanged_cap
        if cap is not None and self._unchanged >= cap:
            return StopReason.NO_PROGRESS
        if self._threshold is None:
            return None
        if write and self._third_write(key, batch, allowed=allowed):
            return StopReason.LOOP_DETECTED
        if not self._repeats or allowed:
            return None
        seen = self._repeats.get(key)
        if seen is None or seen.count < self._threshold - 1:
            return None
        if seen.batch != batch:
            if seen.answered >= ANSWERS_BEFORE_STOP:
                return StopReason.LOOP_DETECTED
            seen.answered += 1
            seen.batch = batch
            self._unchanged += 1
        return None if write else seen

    def _third_write(self, key: int, batch: int, *, allowed: bool) -> bool:
        if key == self._write and self._write_count >= EQUAL_WRITES_BEFORE_STOP and batch != self._write_batch:
            return True
        return allowed and self._cycle is not None and _continues_cycle(self._cycle, key)

    def settle(
        self, key: int, output: int, batch: int, step: int, answer: Answer | None, *, counts: bool = True
    ) -> None:
        """Take in what a call brought back: a new result, or the same again.

        Args:
            key: Hash of tool and arguments. output: hash of what came back, of a failure too.
            batch: See `propose`. step: for people. answer: to answer the next equal proposal with.
            counts: False for a failure that may be proposed again; it only brings nothing new.
        """
        if self._cycle is not None:
            self._cycle.append((key, output))
            del self._cycle[: -2 * LONGEST_CYCLE]
        packed = (output & _OUTPUT_MASK) << _BATCH_BITS | batch & _BATCH_MASK
        seen = self._seen
        before = seen.add(key, packed)
        added = before is None
        if added and self._older is not None:
            before = self._older.get(key)
        if before is None or before >> _BATCH_BITS != packed >> _BATCH_BITS:
            if not added:
                seen.set(key, packed)
            self._unchanged = 0
            if before is not None:
                self._repeats.pop(key, None)
            elif seen.table is not None and len(seen.table) > REMEMBERED_CALLS:
                self._repeats = {key: repeat for key, repeat in self._repeats.items() if key in seen}
                self._older, self._seen = seen, Outcomes()
        else:
            if before & _BATCH_MASK == batch & _BATCH_MASK:
                return
            self._unchanged += 1
            if counts:
                if not added:
                    seen.set(key, packed)
                self._count(key, step, answer)

    def _count(self, key: int, step: int, answer: Answer | None) -> None:
        repeat = self._repeats.get(key)
        if repeat is None:
            repeat = self._repeats[key] = Repeated(step)
        repeat.count += 1
        # The output is kept only once it may be needed, so that ordinary calls hold nothing.
        small = answer is not None and (answer.json is None or len(answer.json) <= KEPT_OUTPUT_BYTES)
        repeat.answer = answer if small else None

    def settle_write(self, key: int, batch: int, *, allowed: bool) -> None:
        """Take in that a write was executed: it is progress, and what was read before it may have changed."""
        self._unchanged = 0
        if key != self._write:
            self._write, self._write_count, self._write_batch = key, 1, batch
        elif batch != self._write_batch:
            self._write_count += 1
            self._write_batch = batch
        if allowed:
            if self._cycle is None:
                self._cycle = []
            return
        own, own_repeat = self._seen.get(key), self._repeats.get(key)
        if own is None and self._older is not None:
            own = self._older.get(key)
        self._seen, self._older = Outcomes(), None
        self._repeats.clear()
        if own is not None:
            self._seen.set(key, own)
        if own_repeat is not None:
            self._repeats[key] = own_repeat


def _continues_cycle(history: list[tuple[int, int]], key: int) -> bool:
    for period in range(2, LONGEST_CYCLE + 1):
        if (
            len(history) >= 2 * period
            and history[-period][0] == key
            and history[-period:] == history[-2 * period : -period]
        ):
            return True
    return False


def key_of(tool: str, digest: bytes) -> int:
    """Return what tells a call from others: of its tool and the digest of its arguments."""
    return hash((tool, digest)) & _KEY_MASK


class Looped(Metered):
    """What the guard needs of a run."""

    __slots__ = ()
    loops: LoopDetector


L = TypeVar("L", bound=Looped)


class LoopGuard:
    """Guard `loops`; it stands before the allow list, so that refused calls count too."""

    __slots__ = ("_exempt",)

    def __init__(self, exempt: Any) -> None:
        """Take `exempt`, a callable that says of a tool's name whether it may poll."""
        self._exempt = exempt

    def __call__(self, tool: ToolSpec, proceed: Proceed[L]) -> Proceed[L]:
        """See `Guard`."""
        if self._exempt(tool.name):
            return proceed
        name = tool.name
        allowed = tool.repeat is Repeat.ALLOW

        async def loops(call: Call[L]) -> Answer:
            detector = call.run.loops
            key = hash((name, call.digest)) & _KEY_MASK  # `key_of`, without a call of its own
            write = call.writes
            verdict = detector.propose(key, call.batch, write=write, allowed=write and allowed)
            if verdict is not None:
                answer = _answer(call, verdict)
                if answer is not None:
                    return answer
            try:
                answer = await proceed(call)
            except InterlockError as error:
                _settle_failure(call, detector, key, error)
                raise
            output = hash(answer.json)
            if answer.status == "success" and write:
                detector.settle_write(key, call.batch, allowed=allowed)
            detector.settle(key, output, call.batch, call.turn or call.seq, answer)
            return answer

        return loops


def _answer(call: Call[L], verdict: Repeated | StopReason) -> Answer | None:
    """Answer or refuse a repeated call; None when the run only observes and the call goes on."""
    tool = call.tool.name
    if isinstance(verdict, StopReason):
        key = "no_progress_threshold" if verdict is StopReason.NO_PROGRESS else "repeated_calls_threshold"
        call.refuse(
            LoopDetected(verdict, f"{tool}: {verdict} (agent.loop_detection.{key}; exempt a polling tool there)")
        )
        return None
    if call.run.observing:
        call.refuse(LoopDetected(StopReason.LOOP_DETECTED))
        return None
    call.run.meter.count_answered()
    note = f"Not executed again: unchanged since step {verdict.step}."
    if verdict.answer is None:
        raise LoopDetected(
            StopReason.LOOP_DETECTED,
            f"{tool}: repeated, and its output was not kept (failed, refused, or too large)",
            for_model=f"Not executed again: this call failed the same way since step {verdict.step}.",
            run_wide=False,
        )
    return Answer(verdict.answer.value, verdict.answer.json, "repeated", note)


def _settle_failure(call: Call[L], detector: LoopDetector, key: int, error: InterlockError) -> None:
    if error.transient:
        return
    # A write proved not performed is no repeat: the agent may propose it again. It is no new result either.
    counts = not (call.writes and call.attempts and not call.unknown)
    output = hash((error.reason, error.for_model))
    detector.settle(key, output, call.batch, call.turn or call.seq, None, counts=counts)
