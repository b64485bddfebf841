"""Globs: what matches, which pattern is named, and that a model's names cannot fill the memory."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.errors import ConfigError
from interlock.policy import globs
from interlock.policy.globs import GlobSet, valid_tool_name

names = st.text("ab.", min_size=1, max_size=12)
patterns = st.lists(st.text("ab.*?", min_size=1, max_size=8), max_size=12)


@given(patterns, names)
def test_matches_as_fnmatch_does(given_patterns, name):
    globset = GlobSet(given_patterns)
    matching = {p for p in given_patterns if fnmatch.fnmatchcase(name, p)}
    found = globset.match(name)
    assert (found is not None) == bool(matching)
    assert found is None or found in matching
    assert globset.match(name) == found, "the remembered answer is the same"


@given(patterns, names)
def test_an_exact_name_is_named_before_any_glob(given_patterns, name):
    assert GlobSet([*given_patterns, name, "*"]).match(name) == name


def test_the_most_specific_glob_is_named():
    globset = GlobSet(["*", "db.*", "db.users.*", "db.*.write", "*.write"])
    assert globset.match("db.users.write") == "db.users.*"
    assert globset.match("db.orders.write") == "db.*.write"
    assert globset.match("mail.write") == "*.write"
    assert globset.match("db.read") == "db.*"
    assert globset.match("mail.read") == "*"


def test_a_pattern_comes_back_as_it_was_written():
    assert GlobSet(["fs.**"]).match("fs.read") == "fs.**"


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*", "", True),
        ("?", "", False),
        ("??", "ab", True),
        ("db.*", "db.", True),
        ("db.*", "db", False),
        ("db.*", "DB.read", False),
        ("*.read", "read", False),
        ("a.*.c", "a.b.c.d.c", True),
        ("*b*b*", "abab", True),
        ("*b*b*", "ab", False),
        ("a.b", "axb", False),
    ],
)
def test_edges(pattern, name, matches):
    assert (GlobSet([pattern]).match(name) is not None) is matches


@pytest.mark.parametrize("pattern", ["", "db.[rw]", "a b", "a\n", "ü", "x" * 129, "{a,b}", 5, None])
def test_what_no_tool_can_be_called_is_an_error_that_names_its_key(pattern):
    with pytest.raises(ConfigError, match=r"tools\.deny"):
        GlobSet(["ok", pattern], key="tools.deny")


def test_a_text_is_not_a_list_of_globs():
    with pytest.raises(ConfigError, match=r"tools\.allow: a list is needed"):
        GlobSet("db.*", key="tools.allow")


def test_the_memory_of_names_is_bounded(monkeypatch):
    monkeypatch.setattr(globs, "MEMO_SIZE", 10)
    globset = GlobSet(["a*"])
    for n in range(100):
        globset.match(f"b{n}")
        globset.match("x" * 200 + str(n))
    assert len(globset._memo) <= 10
    assert globset.match("a1") == "a*"


def test_many_stars_do_not_explode():
    globset = GlobSet(["*a" * 30 + "*b"])
    assert globset.match("a" * 128) is None
    assert globset.match("a" * 60 + "b") is not None


def test_an_empty_set_is_false_and_matches_nothing():
    assert not GlobSet([])
    assert GlobSet([]).match("a") is None


@pytest.mark.parametrize("name", ["a", "ticket.create", "mcp:files/read_text-2", "x" * 128])
def test_valid_names(name):
    assert valid_tool_name(name)


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a\n", "tïcket", "a*", "drop;", "\x00"])
def test_invalid_names(name):
    assert not valid_tool_name(name)
