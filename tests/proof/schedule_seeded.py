"""Plans by number, drawn with Python's own chance: a plan of a number is the same in every version of everything."""

from __future__ import annotations

import random

from schedule_plans import KINDS, MOST_CALLS, Plan, Turn
from schedule_world import TOOLS

from interlock.chaos.faults import STORE_KINDS, Fault, Kind

CAPS = {
    "max_steps": (1, 2, 3, 5, 8, 12),
    "max_tool_calls": (0, 1, 2, 4, 9, 15),
    "max_unique_calls": (1, 2, 3, 6, 10),
    "max_seconds": (1.0, 20.0, 70.0),
    "max_usd": (0.0005, 0.004, 0.03),
    "max_tokens": (100, 700),
}
CHANGES = ("*", "claim", "settle", "resend", "begin", "end")


def plan_of(number: int) -> Plan:
    """Return the plan of a number: small ones, whose account is short, and every seventh one as large as may be."""
    chance = random.Random(f"plan {number}")
    again = chance.random() < 0.4
    left = MOST_CALLS if number % 7 == 0 else chance.choice((3, 5, 8))
    left //= 2 if again else 1
    lanes = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        turns = []
        while left > 0 and len(turns) < 14 and (not turns or chance.random() < 0.8):
            calls = tuple(
                (chance.choice(TOOLS), chance.randrange(4)) for _ in range(min(left, chance.choice((1, 1, 2, 3))))
            )
            left -= len(calls)
            turns.append(Turn(calls, chance.choice((None, None, None, 0.002, 0.02))))
        lanes.append(tuple(turns))
    some = chance.random() < 0.4
    caps = {name: chance.choice(CAPS[name]) for name in chance.sample(sorted(CAPS), chance.choice((1, 1, 2)))}
    return Plan(
        tuple(lane for lane in lanes if lane),
        again,
        caps if some else {},
        {tool: chance.choice((0.5, 5.0, 60.0)) for tool in chance.sample(TOOLS, chance.choice((0, 0, 1, 2)))},
        chance.random() < 0.3,
        tuple(_fault(chance) for _ in range(chance.choice((1, 1, 2, 3)))),
        chance.randrange(1_000),
        chance.random() < 0.5,
    )


def _fault(chance: random.Random) -> Fault:
    kind = Kind(chance.choice(KINDS))
    return Fault(
        kind,
        tool=chance.choice(CHANGES) if kind in STORE_KINDS else chance.choice(("*", "*", "*.send", "note.*", *TOOLS)),
        calls=chance.choice(((), (), (1,), (2,), (1, 3), (2, 3, 4))),
        attempts=chance.choice(((), (), (1,), (2,), (1, 2))),
        probability=chance.choice((1.0, 1.0, 0.5, 0.2)),
        from_s=chance.choice((0.0, 0.0, 0.0, 2.0)),
        until_s=chance.choice((None, None, 30.0)),
        status=chance.choice((401, 404, 409, 429, 429, 500, 502, 503, 504)),
        retry_after_s=chance.choice((None, 0.5, 3.0, 600.0)),
        delay_s=chance.choice((None, 0.0, 0.3, 4.0, 40.0)),
        size_bytes=chance.choice((2_000, 1_500_000)),
    )
