"""Canonical JSON: equal values give equal bytes, and what JSON cannot hold is refused, wherever it hides."""

from __future__ import annotations

import json
import math
import sys
from collections import UserDict
from dataclasses import dataclass
from datetime import date
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from interlock.core.canonical import NotCanonical, canonical_json, digest, hasher, plain_hash

SECRET = b"s" * 32
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])


@dataclass
class Price:
    amount: Any
    note: Any = None


@dataclass(slots=True)
class SlottedPrice:
    amount: Any
    note: Any = None


class PriceModel(BaseModel):
    amount: Any
    note: Any = None


class Odd(Enum):
    NOT_A_NUMBER = math.nan
    NOTHING = None


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Endless:
    def model_dump(self, *, mode):
        return {"note": None, "self": self}


class Leaky:
    def model_dump(self, *, mode):
        raise ValueError("card 4111 1111")


def nested(levels, innermost):
    value = innermost
    for _ in range(levels):
        value = [value]
    return value


def cycle():
    value: list[Any] = [None]
    value.append(value)
    return value


# Equal values


@given(JSON)
def test_the_bytes_read_back_as_the_value(value):
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=6), st.randoms())
def test_the_order_of_keys_does_not_matter(value, chance):
    items = list(value.items())
    chance.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


@given(JSON, JSON)
def test_values_of_unlike_json_have_unlike_bytes(one, other):
    same_text = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical_json(one) == canonical_json(other)) == same_text


@given(JSON)
def test_bytes_are_a_fixed_point(value):
    data = canonical_json(value)
    assert canonical_json(json.loads(data)) == data


def test_keys_are_sorted_at_every_depth_and_nothing_is_padded():
    assert canonical_json({"b": [{"d": 1, "c": 2}], "a": "é"}) == '{"a":"é","b":[{"c":2,"d":1}]}'.encode()


def test_one_and_one_point_nought_are_two_values():
    assert canonical_json(1) == b"1"
    assert canonical_json(1.0) == b"1.0"
    assert canonical_json(True) == b"true"


def test_minus_nought_keeps_its_sign():
    assert canonical_json([-0.0, 0.0, 0]) == b"[-0.0,0.0,0]"


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 0])
def test_an_integer_of_64_bits_is_written_in_full(value):
    assert canonical_json({"n": value}) == b'{"n":%d}' % value


@pytest.mark.parametrize(
    "value",
    [
        {"amount": 1, "note": None},
        MappingProxyType({"note": None, "amount": 1}),
        UserDict(note=None, amount=1),
        Price(1),
        SlottedPrice(1),
        PriceModel(amount=1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_mappings_models_and_dataclasses_are_written_as_objects(value):
    assert canonical_json(value) == b'{"amount":1,"note":null}'
    assert canonical_json([value, None]) == b'[{"amount":1,"note":null},null]'


def test_times_are_written_as_text_beside_a_null_too():
    assert canonical_json([date(2026, 1, 2), None]) == b'["2026-01-02",null]'


def test_enums_are_written_as_their_values():
    assert canonical_json([Colour.RED, Size.LARGE, Odd.NOTHING]) == b'["red",3,null]'


def test_a_value_with_many_nulls_is_written():
    value = {f"k{i}": [None, 1, "x", 1.5, True] for i in range(2_000)}
    assert canonical_json(value).count(b"null") == 2_000


def test_the_word_null_in_a_text_is_only_a_text():
    assert canonical_json({"a": "null", "b": 1.5}) == b'{"a":"null","b":1.5}'


# What is refused


@given(NOT_FINITE)
@pytest.mark.parametrize(
    "hide",
    [
        lambda x: x,
        lambda x: [None, x],
        lambda x: {"a": None, "b": {"c": [1, (x,)]}},
        lambda x: MappingProxyType({"a": x}),
        lambda x: [UserDict(a=x), None],
        lambda x: PriceModel(amount=x),
        lambda x: [None, PriceModel(amount={"deep": [x]})],
        Price,
        lambda x: {"a": SlottedPrice([x])},
        lambda x: PriceModel(amount=Price(x)),
    ],
)
def test_what_is_no_number_is_refused_wherever_it_hides(hide, number):
    with pytest.raises(NotCanonical, match="NaN and infinities"):
        canonical_json(hide(number))


def test_an_enum_that_is_no_number_is_refused():
    with pytest.raises(NotCanonical, match="NaN and infinities"):
        canonical_json({"a": Odd.NOT_A_NUMBER})


def test_an_attribute_added_to_a_dataclass_is_looked_at_too():
    price = Price(1)
    price.later = math.nan
    with pytest.raises(NotCanonical, match=r"\$\.later"):
        canonical_json(price)


def test_the_message_says_where():
    with pytest.raises(NotCanonical, match=r"^\$\.a\[1\]\.b: "):
        canonical_json({"a": [None, {"b": math.inf}]})


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**40])
def test_an_integer_beyond_64_bits_is_refused_and_not_echoed(value):
    with pytest.raises(NotCanonical, match="64 bits") as refused:
        canonical_json({"n": value})
    assert str(value) not in str(refused.value)


@pytest.mark.parametrize("key", [1, None, 1.5, True, b"k", (1, 2)])
def test_a_key_that_is_no_text_is_refused(key):
    with pytest.raises(NotCanonical, match="keys must be text"):
        canonical_json({"a": {key: 1}})


@pytest.mark.parametrize("value", [{1, 2}, frozenset("ab")])
def test_a_set_is_refused_with_what_to_use_instead(value):
    with pytest.raises(NotCanonical, match="use a list"):
        canonical_json({"a": value})


@pytest.mark.parametrize("value", [b"bytes", object(), 1j, range(3), Price, len])
def test_what_is_not_json_is_refused_by_its_type(value):
    with pytest.raises(NotCanonical, match=type(value).__name__):
        canonical_json([value])


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, ["ok", "a\ud800b"]])
def test_text_that_is_not_unicode_is_refused(value):
    with pytest.raises(NotCanonical, match="Unicode"):
        canonical_json(value)


@pytest.mark.parametrize("value", [cycle(), Endless(), nested(255, 1)], ids=["cycle", "endless", "deep"])
def test_what_contains_itself_or_is_too_deep_is_refused(value):
    with pytest.raises(NotCanonical, match="254 levels, or contains itself"):
        canonical_json(value)


@pytest.mark.parametrize("innermost", [1, None])
def test_depth_is_counted_alike_with_and_without_a_null(innermost):
    assert canonical_json(nested(254, innermost)).count(b"[") == 254


def test_a_dump_that_grows_deeper_at_the_second_look_is_refused():
    class Growing:
        def model_dump(self, *, mode):
            return None if mode == "json" else self

    with pytest.raises(NotCanonical, match="254 levels"):
        canonical_json(Growing())


def test_what_a_dump_complains_of_is_not_repeated():
    with pytest.raises(NotCanonical) as refused:
        canonical_json(Leaky())
    assert "4111" not in str(refused.value)
    assert refused.value.__cause__ is None


@given(JSON, NOT_FINITE, st.integers(0, 3))
def test_a_value_with_a_hidden_infinity_never_passes(value, number, levels):
    with pytest.raises(NotCanonical):
        canonical_json([value, nested(levels, {"x": number})])


# Hashes


def test_the_plain_hash_is_the_same_on_every_machine():
    assert plain_hash({"b": 1, "a": [None, 1.5]}) == "bb6a3f978baea29b2809500f8d59dc27b8270055737e63e65472aaaad0ae3bad"


def test_the_digest_is_keyed_and_short():
    assert digest(b"{}", SECRET).hex() == "5098a7e3d30a0b4c177f272b2e7728a1"
    assert digest(b"{}", b"t" * 32) != digest(b"{}", SECRET)
    assert len(digest(b"{}" * 1_000, SECRET)) == 16


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_a_hasher_is_the_digest_with_its_key_taken_in(parts):
    keyed = hasher(SECRET)
    assert [keyed(part) for part in parts] == [digest(part, SECRET) for part in parts]


def test_bytes_are_kept_at_their_own_size():
    assert sys.getsizeof(canonical_json({"a": 1})) < 100
