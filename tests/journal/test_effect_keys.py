"""Keys: stable, unforgeable, silent about what they name."""

from __future__ import annotations

import base64
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.journal import keys
from interlock.journal.keys import KEY_BYTES, effect_key, sent_key

SECRET = b"s" * 32
WORDS = st.text(max_size=12)
FIELDS = st.tuples(WORDS, WORDS, WORDS, st.binary(max_size=12), st.integers(1, 50))


def key(fields, time_ms=1, secret=SECRET):
    return effect_key(time_ms, *fields, secret)


@given(FIELDS, FIELDS)
def test_equal_keys_name_equal_effects(one, other):
    assert (key(one) == key(other)) == (one == other)
    assert (sent_key(*one) == sent_key(*other)) == (one == other)


@given(WORDS, WORDS, st.integers(0, 12))
def test_no_separator_moves_text_from_one_field_to_another(left, right, cut):
    both = left + right
    shifted = (both[:cut], both[cut:])
    assert (key((*shifted, "t", b"", 1)) == key((left, right, "t", b"", 1))) == (shifted == (left, right))


@given(FIELDS, st.integers(0, 2**62))
def test_rows_of_one_time_lie_together(fields, time_ms):
    assert len(key(fields, time_ms)) == KEY_BYTES
    assert key(fields, time_ms)[:8] == time_ms.to_bytes(8, "big")
    assert key(fields, time_ms) < key(fields, time_ms + 1)


@given(FIELDS)
def test_the_effect_key_depends_on_the_secret_the_sent_key_on_none(fields):
    assert key(fields) != key(fields, secret=b"other")
    assert re.fullmatch(r"il1_[a-z2-7]{52}", sent_key(*fields))


@given(st.binary(min_size=32, max_size=32))
def test_the_sent_key_is_a_digest_in_base32(digest):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keys.hashlib, "sha256", lambda _: SimpleNamespace(digest=lambda: digest))
        said = sent_key("acme", "req_1", "ticket.create", b"{}", 1)
    assert said == "il1_" + base64.b32encode(digest).decode().rstrip("=").lower()


def test_the_sent_key_stays_what_it_is():
    # A remote remembers it across releases: a change of this value is a change of contract.
    assert sent_key("acme", "req_1", "ticket.create", b'{"title":"x"}', 1) == (
        "il1_hdrm4gdkv2eimhqj5rgrn2pae6fmhpaahur3usdv4kulbfkipqma"
    )
