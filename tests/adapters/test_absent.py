"""A framework that is not there, or that nobody has tried, is said in a word that helps."""

from __future__ import annotations

import importlib
import importlib.util

import pytest

from interlock.adapters import packages
from interlock.adapters.packages import MissingExtra, UntestedVersion
from interlock.core.errors import ConfigError


@pytest.mark.skipif(importlib.util.find_spec("crewai") is not None, reason="CrewAI is installed")
def test_an_adapter_whose_framework_is_absent_says_what_to_install():
    with pytest.raises(MissingExtra, match=r'pip install "interlock\[crewai\]"') as raised:
        importlib.import_module("interlock.adapters.crewai")
    assert isinstance(raised.value, ConfigError)
    assert isinstance(raised.value, ImportError)


def test_a_version_that_nobody_has_tried_is_a_warning_that_names_those_that_were():
    with pytest.warns(
        UntestedVersion, match=r"openai-agents .* not a version that Interlock was tested with \(0\.1, 9\)"
    ):
        packages.tested("openai-agents", "0.1", "9")
    packages.tested("openai-agents", "0")
