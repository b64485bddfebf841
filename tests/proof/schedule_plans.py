"""Plans of the fault schedules: an agent, its caps and its faults, as values that Hypothesis draws and shrinks."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from schedule_world import TOOLS

from interlock.chaos.faults import MODEL_KINDS, STORE_KINDS, TOOL_KINDS, Fault, Kind

MOST_CALLS = 40
KINDS = sorted(TOOL_KINDS | MODEL_KINDS | STORE_KINDS | {Kind.DUPLICATE_DELIVERY, Kind.TWO_WORKERS})


@dataclass(frozen=True)
class Turn:
    """A model turn and the batch of calls that it asks for, at once."""

    calls: tuple[tuple[str, int], ...]
    usd: float | None = None  # of a turn that does not declare its worst case


@dataclass(frozen=True)
class Plan:
    """One schedule.

    Attributes:
        lanes: Turns, one after the other; lanes run side by side in one run.
        again: What failed is proposed once more.
        caps: Of the run. slow_s: tool to seconds that its answer takes. wrap_up: one last turn after a stop.
    """

    lanes: tuple[tuple[Turn, ...], ...]
    again: bool
    caps: dict[str, float]
    slow_s: dict[str, float]
    wrap_up: bool
    faults: tuple[Fault, ...]
    seed: int
    person: bool = False

    @property
    def calls(self) -> int:
        return sum(len(turn.calls) for lane in self.lanes for turn in lane) * (2 if self.again else 1)


CALL = st.tuples(st.sampled_from(TOOLS), st.integers(0, 6))
TURN = st.builds(
    Turn,
    st.lists(CALL, max_size=3).map(tuple),
    st.sampled_from([None, None, None, 0.002, 0.02]),
)
CAPS = st.fixed_dictionaries(
    {},
    optional={
        "max_steps": st.integers(1, 12),
        "max_tool_calls": st.integers(0, 15),
        "max_unique_calls": st.integers(1, 10),
        "max_seconds": st.sampled_from([1.0, 20.0, 70.0]),
        "max_usd": st.sampled_from([0.0005, 0.004, 0.03]),
        "max_tokens": st.sampled_from([100, 700]),
    },
)
NUMBERS = st.lists(st.integers(1, 12), max_size=3, unique=True).map(lambda found: tuple(sorted(found)))
CHANGES = st.sampled_from(["*", "claim", "settle", "resend", "begin", "end"])


@st.composite
def faults(draw):
    kind = draw(st.sampled_from(KINDS))
    return Fault(
        kind,
        tool=draw(CHANGES) if kind in STORE_KINDS else draw(st.sampled_from(["*", "*.send", "note.*", *TOOLS])),
        calls=draw(st.one_of(st.just(()), NUMBERS)),
        attempts=draw(st.sampled_from([(), (), (1,), (2,), (1, 2)])),
        probability=draw(st.sampled_from([1.0, 0.5, 0.2])),
        from_s=draw(st.sampled_from([0.0, 0.0, 2.0])),
        until_s=draw(st.sampled_from([None, None, 30.0])),
        status=draw(st.sampled_from([401, 404, 409, 429, 500, 502, 503, 504])),
        retry_after_s=draw(st.sampled_from([None, 0.5, 3.0, 600.0])),
        delay_s=draw(st.sampled_from([None, 0.0, 0.3, 4.0, 40.0])),
        size_bytes=draw(st.sampled_from([2_000, 1_500_000])),
    )


@st.composite
def plans(draw):
    again = draw(st.booleans())
    left = MOST_CALLS // 2 if again else MOST_CALLS
    lanes = []
    for lane in draw(st.lists(st.lists(TURN, min_size=1, max_size=14), min_size=1, max_size=3)):
        turns = []
        for turn in lane:
            if len(turn.calls) <= left:
                turns.append(turn)
                left -= len(turn.calls)
        lanes.append(tuple(turns))
    return Plan(
        tuple(lanes),
        again,
        draw(st.one_of(st.just({}), CAPS)),
        draw(st.dictionaries(st.sampled_from(TOOLS), st.sampled_from([0.5, 5.0, 60.0]), max_size=2)),
        draw(st.booleans()),
        draw(st.lists(faults(), min_size=1, max_size=6).map(tuple)),
        draw(st.integers(0, 1_000)),
        draw(st.booleans()),
    )


def directed(*calls, lanes=1, faults=(), **words):
    """Return a plan for one guard: a call a turn, in each lane."""
    words = {"again": True, "caps": {}, "slow_s": {}, "wrap_up": False, "seed": 1, **words}
    return Plan((tuple(Turn((call,)) for call in calls),) * lanes, faults=tuple(faults), **words)


# Plans that drawing rarely meets, each for one guard; what is wrong without it is in `test_fault_schedules`.
DIRECTED = {
    "claim": directed(("order.place", 1), faults=[Fault(Kind.ANSWER_LOST)]),
    "allowlist": directed(("db.drop", 1)),
    "meter": directed(("note.send", 1), ("note.send", 2), caps={"max_tool_calls": 1}),
    "dollars held by turns under way": directed(("note.send", 1), lanes=3, caps={"max_usd": 0.0015}),
    "tokens held by turns under way": directed(("note.send", 1), lanes=3, caps={"max_tokens": 150}),
    "approval": directed(("refund.pay", 1)),
    "per-tool cap": directed(*(("refund.pay", n) for n in (0, 2, 4))),
    "rate": directed(*(("lamp.flip", n) for n in range(5))),
    "readers": directed(("note.read", 1), lanes=3, slow_s={"note.read": 5.0}),
    "breaker": directed(*(("note.send", n) for n in range(6)), faults=[Fault(Kind.CONNECT_REFUSED)]),
    "recorder": directed(("note.read", 1)),
}
