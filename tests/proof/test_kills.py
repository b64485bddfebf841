"""Workers are killed at random instants, and their requests redelivered: the remote counts one effect an intent.

README.md says how the full run is started, and how a seed is repeated.
"""

from __future__ import annotations

import contextlib
import os
import sys

import pytest
from proof_driver import COUNTED, SCALE, Figures, Ground, count, kill_loop, pause_loop

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="counts on pidfd")]

SEED = int(os.environ.get("INTERLOCK_PROOF_SEED", "1"))
KILLS, PAUSES = 30, 2
SEEDS = range(SEED, SEED + SCALE)


def count_up(store_url, seed, loop, *args):
    """Drive one loop on a new ground, and return what it counted."""
    figures = Figures(store_url.partition(":")[0], seed)
    with contextlib.ExitStack() as stack:
        ground = Ground(stack, store_url, seed)
        requests = loop(ground, figures, *args)
        count(ground, figures)
        complaints = ground.complaints()
    COUNTED.append(figures)
    print(figures.line())
    assert complaints == ""
    assert figures.runs == len(requests)
    assert figures.effects_without_intent == 0
    assert figures.done_without_effect == 0
    assert figures.duplicates_resend == 0
    assert figures.duplicates_natural == 0
    assert figures.duplicates_stop == 0
    assert figures.duplicates_tell == 0
    assert figures.doubts_left == 0
    assert figures.runs_not_ended == 0
    # Neither kills nor pauses are a reason to end otherwise: not for the store of a slow machine either.
    assert figures.reasons == {"success": figures.runs}
    return figures


@pytest.mark.parametrize("seed", SEEDS)
def test_no_kill_makes_a_second_effect_or_loses_one(store_url, seed):
    figures = count_up(store_url, seed, kill_loop, KILLS, 64, 40)
    assert figures.kills == KILLS
    # Kept at 0 by settle_s, which is longer than the remote takes: the one promise here that rests on a time.
    assert figures.duplicates_lookup == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_worker_that_was_stopped_for_longer_than_its_lease_sends_nothing_twice(store_url, seed):
    figures = count_up(store_url, seed, pause_loop, PAUSES, 32, 40)
    # For `lookup` the figure is counted, and not promised: between the last look at the lease and the send a
    # process can be stopped for any time.
    assert figures.pauses == PAUSES
