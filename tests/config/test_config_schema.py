"""The published JSON Schema: every key described, and it agrees with the loader."""

from __future__ import annotations

import jsonschema_rs
import pytest
import yaml

from interlock.config.settings import PROFILES, json_schema, load_settings, profile_text
from interlock.core.errors import ConfigError

SCHEMA = json_schema()
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)


def test_every_key_has_a_description():
    bare = [
        f"{name}.{key}"
        for name, part in {"": SCHEMA, **SCHEMA["$defs"]}.items()
        for key, value in part.get("properties", {}).items()
        if not value.get("description")
    ]
    assert bare == []


def test_sections_are_described_in_one_paragraph():
    assert SCHEMA["description"] == "The whole configuration."
    assert all("Attributes:" not in part.get("description", "") for part in SCHEMA["$defs"].values())


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_satisfy_it(name):
    VALIDATOR.validate(yaml.safe_load(profile_text(name)))


@pytest.mark.parametrize(
    "data",
    [
        {"agent": {"budgets": {"max_tools": 3}}},
        {"agent": {"budgets": {"max_steps": -1}}},
        {"tools": {"allow": ["a b"]}},
        {"tools": {"writes": {"a.b": {"on_unknown": "perhaps"}}}},
        {"mode": "watch"},
        {"zzz": 1},
    ],
)
def test_what_it_refuses_the_loader_refuses(data):
    assert not VALIDATOR.is_valid(data)
    with pytest.raises(ConfigError):
        load_settings(data)
