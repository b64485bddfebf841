"""Fields of what libraries return: read as the library itself would give them."""

from __future__ import annotations

from types import MappingProxyType, SimpleNamespace

import pytest
from pydantic import BaseModel, ConfigDict

from interlock.core.fields import is_mapping, read_field


class Usage(BaseModel):
    """As a vendor's client has it: it keeps what it does not know."""

    model_config = ConfigDict(extra="allow")
    prompt_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Not stored anywhere."""
        return self.prompt_tokens + 1


class Closed(BaseModel):
    """Without anything of its own."""


class Lively(Usage):
    """Answers whatever it is asked."""

    def __getattr__(self, name):
        return f"made up: {name}"


@pytest.mark.parametrize(
    "value",
    [
        {"prompt_tokens": 3},
        MappingProxyType({"prompt_tokens": 3}),
        Usage(prompt_tokens=3),
        Usage.model_construct(prompt_tokens=3),
        Lively(prompt_tokens=3),
        SimpleNamespace(prompt_tokens=3),
    ],
)
def test_a_field_is_read_from_whatever_has_it(value):
    assert read_field(value, "prompt_tokens") == 3


@pytest.mark.parametrize("value", [{}, MappingProxyType({}), Usage(), Closed(), SimpleNamespace(), None, 7, "text"])
def test_a_field_that_is_not_there_is_none(value):
    assert read_field(value, "cost_usd") is None


def test_of_a_model_also_what_it_was_not_declared_with_and_what_its_class_makes():
    usage = Usage(prompt_tokens=3, cache_read_input_tokens=2)
    assert read_field(usage, "cache_read_input_tokens") == 2
    assert read_field(usage, "total_tokens") == 4
    assert read_field(Lively(), "anything") == "made up: anything"


def test_what_counts_as_a_mapping():
    assert is_mapping({})
    assert is_mapping(MappingProxyType({}))
    assert not any(is_mapping(value) for value in (Usage(), [], None, "text", SimpleNamespace()))
