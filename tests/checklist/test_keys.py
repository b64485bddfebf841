"""Each key of the configuration has an effect: two values, two outcomes."""

from __future__ import annotations

import os

import pytest
from keys import PROBES, Probe
from reference import config_keys

# Keys that the file knows and nothing obeys yet. The list may only shrink.
NOT_YET: dict[str, str] = {}

CASES = [pytest.param(probe, id=key) for key, probe in PROBES.items()]


def leaves() -> set[str]:
    """Keys that hold a value; sections, and mappings to sections, only hold keys."""
    return {key.path for key in config_keys() if key.default is not None and key.kind != "mapping to section"}


@pytest.mark.parametrize("probe", CASES)
async def test_two_values_have_two_outcomes(probe: Probe, make, tmp_path_factory, monkeypatch):
    for name in [name for name in os.environ if name.startswith("INTERLOCK_")]:
        monkeypatch.delenv(name)
    found = []
    for value, expected in probe.outcomes:
        directory = tmp_path_factory.mktemp("scene")
        monkeypatch.chdir(directory)
        found.append(await probe.scene(make, probe.config(value), directory))
        assert found[-1] == expected, f"{probe.key}: {value!r}"
    assert len({repr(outcome) for outcome in found}) == len(probe.outcomes) >= 2


def test_no_key_is_forgotten():
    assert leaves() - set(PROBES) == set(NOT_YET)
    assert set(PROBES) - leaves() == set()
