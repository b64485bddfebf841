"""Workers are killed at random instants, and their requests redelivered: the remote counts one effect an intent.

README.md says how the full run is started, and how a seed is repeated.
"""

from __future__ import annotations

import contextlib
import os
import sys

import pytest
from proof_driver import COUNTED, SCALE, Figures, Ground, count, kill_loop

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="counts on pidfd")]

SEED = int(os.environ.get("INTERLOCK_PROOF_SEED", "1"))
KILLS = 30


@pytest.mark.parametrize("seed", range(SEED, SEED + SCALE))
def test_no_kill_makes_a_second_effect_or_loses_one(store_url, seed):
    figures = Figures(store_url.partition(":")[0], seed)
    with contextlib.ExitStack() as stack:
        ground = Ground(stack, store_url, seed)
        requests = kill_loop(ground, figures, KILLS, at_once=64, longest_s=0.7)
        count(ground, figures)
        complaints = ground.complaints()
    COUNTED.append(figures)
    print(figures.line())
    assert complaints == ""
    assert figures.kills >= KILLS
    assert figures.runs == len(requests)
    assert figures.effects_without_intent == 0
    assert figures.done_without_effect == 0
    assert figures.duplicates_resend == 0
    assert figures.duplicates_natural == 0
    assert figures.duplicates_stop == 0
    assert figures.duplicates_tell == 0
    # Kept at 0 by settle_s, which is longer than the remote takes: the one promise here that rests on a time.
    assert figures.duplicates_lookup == 0
    assert figures.doubts_seen > 0
    assert figures.doubts_left == 0
    assert figures.runs_not_ended == 0
    # A run whose workers all died before they had recorded anything new may be given up: by name, like any end.
    assert figures.reasons.keys() <= {"success", "abandoned"}
