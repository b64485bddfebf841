"""Load tests draw on the timings of real traces: the gaps between calls, where a record has no times of answers."""

from __future__ import annotations

import pytest

from interlock.chaos.latencies import read_latencies


@pytest.mark.parametrize("dataset", ["mini_swe", "tau2", "letta_fs"])
def test_the_timings_of_real_traces(data, dataset):
    found = read_latencies(str(data / dataset))
    assert found.of == "gaps"
    assert len(found.all) > 100
    assert 0.0 < found.draw("", 0.5) < found.draw("", 0.95) < 600.0
    assert list(found.all) == sorted(found.all)
