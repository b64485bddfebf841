"""What the loop detector remembers of calls: the same whether packed or in a dict, and little of it."""

from __future__ import annotations

import gc
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.budget.loops import FEW_CALLS, LoopDetector, LoopOptions, Outcomes, key_of

WORDS = st.integers(0, 2**60 - 1)
# Keys of few distinct bytes are found across the borders of others.
KEYS = st.one_of(
    WORDS, st.binary(min_size=8, max_size=8).map(lambda b: int.from_bytes(bytes(x & 1 for x in b), "little"))
)


@given(st.lists(st.tuples(KEYS, WORDS), max_size=2 * FEW_CALLS), KEYS)
def test_it_remembers_what_a_dict_does(calls, other):
    outcomes, model = Outcomes(), {}
    for key, packed in calls:
        assert outcomes.get(key) == model.get(key)
        outcomes.set(key, packed)
        model[key] = packed
        assert outcomes.get(key) == packed
    assert all(outcomes.get(key) == packed for key, packed in model.items())
    assert (other in outcomes) == (other in model)


def test_a_key_found_across_two_others_is_not_there():
    outcomes = Outcomes()
    outcomes.set(0x0202020200000000, 1)
    outcomes.set(0x0000000002020202, 2)
    assert outcomes.get(0x0202020202020202) is None
    outcomes.set(0x0202020202020202, 3)
    assert [outcomes.get(k) for k in (0x0202020200000000, 0x0202020202020202)] == [1, 3]


@pytest.mark.parametrize("n", [FEW_CALLS, FEW_CALLS + 1, 1_000])
def test_nothing_is_lost_when_the_calls_are_no_longer_few(n):
    outcomes = Outcomes()
    for key in range(n):
        outcomes.set(key << 40, key)
    assert [outcomes.get(key << 40) for key in range(n)] == list(range(n))


def test_a_short_run_is_remembered_in_little():
    detector = LoopDetector(LoopOptions())
    for i in range(25):
        detector.settle(key_of("orders.read", bytes([i]) * 16), hash(i), i, i, None)
    held = [detector._seen, *gc.get_referents(detector._seen)]
    assert sum(sys.getsizeof(part) for part in held if not isinstance(part, type)) < 1_000


@given(st.text(max_size=10), st.binary(min_size=16, max_size=16))
def test_a_key_fits_where_it_is_packed(tool, digest):
    assert 0 <= key_of(tool, digest) < 2**60
    assert key_of(tool, digest) == key_of(tool, digest)
