"""The pure parts: scopes, lives, token budgets, framing, checks, growth, vectors."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_scenes import ANN, NOW, new_fact

from interlock.core.calls import Effect, ToolSpec
from interlock.core.canonical import NotCanonical
from interlock.core.errors import ConfigError, InvalidArguments
from interlock.core.trust import Lineage, Trust
from interlock.memory.checking import check
from interlock.memory.embedding import by_meaning, pack_vector, similarity
from interlock.memory.fact import Fact, Origin
from interlock.memory.fact_json import dump_fact, load_fact
from interlock.memory.growth import PromptGrowth
from interlock.memory.life import SKEW_S, expires_at, is_alive, needs_check
from interlock.memory.options import MemoryOptions
from interlock.memory.recall import HEADER, Checked, Why, fill, words_of
from interlock.memory.scope import Scope
from interlock.memory.store import Hit
from interlock.memory.tokens import count_tokens
from interlock.memory.validated import KNOWN, Validated

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200)


def fact(text="tea", **words):
    new = new_fact(text, **words)
    return Fact(
        fact_id=new.fact_id,
        scope=ANN,
        text=new.text,
        created_at=new.created_at,
        expires_at=new.expires_at,
        verify_by=new.verify_by,
        vector=new.vector,
        trust=new.trust,
        subject=new.subject,
        key=new.key,
        origin=new.origin,
    )


# -- scopes

parts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=8).filter(str.strip)
scopes = st.one_of(st.builds(Scope, parts), st.builds(Scope, parts, parts), st.builds(Scope, parts, parts, parts))


@given(scopes, scopes)
def test_two_scopes_have_one_token_only_if_they_are_one(one, other):
    assert (one.token == other.token) is (one == other)
    assert one.token.isalnum()


@given(scopes, scopes)
def test_what_is_seen_from_a_scope_is_listed_by_it(one, other):
    assert one.sees(other) is (other in one.visible())
    assert other.covers(one) is one.sees(other) or one.parts[1:] == ("", "")


@pytest.mark.parametrize("part", ["", " ", "\t", "a\0", "a\nb", "\x7f", "\ud800", "x" * 257, "ä" * 129, 7, b"a", True])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_part_that_is_no_name_is_refused(part, place):
    given_parts = ["a", "b", "c"]
    given_parts[place] = part
    with pytest.raises(InvalidArguments, match="memory scope"):
        Scope(*given_parts)


def test_a_session_is_a_users():
    with pytest.raises(InvalidArguments, match="needs a user"):
        Scope("a", None, "s")
    with pytest.raises(InvalidArguments):
        Scope(None)


def test_parts_are_not_joined():
    assert len({scope.token for scope in (Scope("a", "b", "c"), Scope("a", "bc"), Scope("ab", "c"), Scope("abc"))}) == 4


# -- lives


def test_a_life_is_counted_in_seconds():
    ends = expires_at(NOW, 60, default_s=1, ceiling_s=60)
    assert ends == NOW + 60
    assert [is_alive(NOW, ends, at) for at in (NOW, NOW + 59.999, NOW + 60)] == [True, True, False]
    assert expires_at(NOW, None, default_s=7, ceiling_s=60) == NOW + 7


@pytest.mark.parametrize("value", ["2099", None, math.nan, math.inf, 2**62, b"x", True])
def test_what_is_no_date_has_passed(value):
    assert not is_alive(NOW, value, NOW)
    assert not is_alive(value, NOW + 60, NOW)


def test_a_fact_of_the_future_waits():
    assert is_alive(NOW + SKEW_S, NOW + 900, NOW)
    assert not is_alive(NOW + SKEW_S + 1, NOW + 900, NOW)


@pytest.mark.parametrize(
    ("by", "needed"), [(None, False), (NOW + 1, False), (NOW, True), (NOW - 1, True), (math.nan, True)]
)
def test_a_check_is_needed_from_its_second_on(by, needed):
    assert needs_check(by, NOW) is needed


# -- labels


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(list(Trust)))))
def test_the_label_of_a_whole_is_that_of_its_least_part(read):
    lineage = Lineage()
    for source, trust in read:
        lineage.read(source, trust)
    assert lineage.trust == min([Trust.NORMAL, *(trust for _, trust in read)])
    assert lineage.sources == tuple(dict.fromkeys(source for source, trust in read if trust < Trust.NORMAL))


# -- recalling


@given(st.lists(texts, max_size=12), st.integers(1, 20), st.integers(1, 2_000))
def test_a_recall_never_exceeds_its_budget_and_says_what_it_left_out(said, k, max_tokens):
    found = [Checked(fact(text)) for text in said]
    for count in (count_tokens, len, lambda text: len(text.split())):
        recalled = fill(found, k=k, max_tokens=max_tokens, count=count)
        assert count(recalled.text) == recalled.tokens <= max_tokens or recalled.text == ""
        assert len(recalled.facts) <= k
        there = [fact.fact_id for fact in recalled.facts] + [dropped.fact_id for dropped in recalled.dropped]
        assert sorted(there) == sorted(checked.fact.fact_id for checked in found)
        for why in {dropped.why for dropped in recalled.dropped}:
            assert why in {Why.OVER_K, Why.OVER_BUDGET}


@given(texts, texts)
def test_no_text_leaves_its_line(text, subject):
    recalled = fill([Checked(fact(text, subject=subject))], k=1, max_tokens=10_000)
    header, line = recalled.text.splitlines()
    assert header == HEADER
    assert (json.loads(line)["text"], json.loads(line)["subject"]) == (text, subject)


def test_a_large_fact_is_skipped_for_a_smaller_one():
    recalled = fill([Checked(fact("x" * 4_000)), Checked(fact("tea"))], k=2, max_tokens=200)
    assert [fact.text for fact in recalled.facts] == ["tea"]
    assert [dropped.why for dropped in recalled.dropped] == [Why.OVER_BUDGET]
    assert recalled.dropped[0].tokens >= 1_000


def test_the_label_of_a_recall_is_its_least():
    assert fill([], k=1, max_tokens=1).trust is Trust.NORMAL
    low = fill([Checked(fact("a", trust=Trust.HIGH)), Checked(fact("b", trust=Trust.LOW))], k=2, max_tokens=900)
    assert low.trust is Trust.LOW


@given(st.text(max_size=300))
def test_words_are_of_letters_and_digits_alone(query):
    words = words_of(query.encode("utf-8", "ignore").decode())
    assert len(words) <= 32
    assert all(word.isalnum() or not word.isascii() for word in words)
    assert len(set(words)) == len(words)


@given(texts)
def test_tokens_are_never_fewer_than_a_quarter_of_the_letters(text):
    assert count_tokens(text) * 4 >= sum(not c.isspace() for c in text)
    assert count_tokens(text) <= len(text.encode())


# -- checks


@pytest.mark.parametrize(
    ("verdict", "why", "confirmed"),
    [
        (True, None, [None]),
        (NOW + 9, None, [NOW + 9]),
        (NOW, Why.UNVERIFIED, []),
        (math.nan, Why.UNVERIFIED, []),
        (math.inf, Why.UNVERIFIED, []),
        (False, Why.REFUTED, []),
        (None, Why.UNVERIFIED, []),
        ("yes", Why.UNVERIFIED, []),
        (LookupError("away"), Why.UNVERIFIED, []),
    ],
)
async def test_what_a_validator_says(verdict, why, confirmed):
    def plain(_):
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    async def waiting(fact):
        return plain(fact)

    for validator in (plain, waiting):
        checks = await check([fact(verify_by=NOW)], NOW, lambda _, v=validator: v, "withhold")
        assert [checked.why for checked in checks.facts] == [why]
        assert [next_s for _, next_s in checks.confirmed] == confirmed


async def test_nobody_is_asked_before_the_day():
    def never(_):
        raise AssertionError

    checks = await check([fact(verify_by=NOW + 1), fact()], NOW, lambda _: never, "withhold")
    assert [checked.why for checked in checks.facts] == [None, None]


async def test_what_is_not_confirmed_may_be_marked():
    checks = await check([fact(verify_by=NOW)], NOW, lambda _: None, "label")
    assert (checks.facts[0].why, checks.facts[0].verified) == (None, False)


# -- growth


def test_growth_is_told_once():
    growth = PromptGrowth(2.0)
    assert [growth.seen(tokens, turn) is not None for turn, tokens in enumerate((0, 10, 20, 21, 99), 1)] == [
        False,
        False,
        False,
        True,
        False,
    ]
    assert (growth.alarm.first_tokens, growth.alarm.tokens, growth.alarm.turn) == (10, 21, 4)
    assert PromptGrowth(None).seen(10**9, 1) is None


# -- outputs


def tool_named(name):
    return ToolSpec(name, dict, is_async=False, effect=Effect.READ)


@given(st.integers(0, 200))
def test_every_output_is_known_by_what_it_is(n):
    validated = Validated()
    for i in range(n):
        validated.note(tool_named(f"tool{i}"), b"%d" % i)
    assert all(validated.find(i) == (f"tool{i}", b"%d" % i) for i in range(n))
    assert validated.find(-1) is None


def test_the_tool_that_said_it_last_is_the_one():
    validated = Validated()
    for name in ("first", "second"):
        validated.note(tool_named(name), b'{"a":1}')
    assert validated.find({"a": 1}) == ("second", b'{"a":1}')


def test_the_oldest_outputs_are_let_go():
    validated = Validated()
    tool = tool_named("t")
    for i in range(3 * KNOWN):
        validated.note(tool, b"%d" % i)
    known = [i for i in range(3 * KNOWN) if validated.find(i) is not None]
    assert KNOWN <= len(known) < 1.2 * KNOWN
    assert known == list(range(known[0], 3 * KNOWN))


def test_what_is_no_json_is_said():
    with pytest.raises(NotCanonical):
        Validated().find({1, 2})


# -- vectors


def test_vectors_compare_by_direction():
    east, north, west = (pack_vector(v, 2) for v in ([2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]))
    assert [round(similarity(east, other), 6) for other in (east, north, west)] == [1.0, 0.0, -1.0]
    assert similarity(east, east[:4]) == similarity(b"abc", b"abc") == -1.0


@pytest.mark.parametrize("vector", [[1.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], []])
def test_what_is_no_vector_is_refused(vector):
    with pytest.raises(ValueError, match="embedding"):
        pack_vector(vector, 2)


def test_words_and_meaning_are_joined_by_rank():
    both = fact("both", vector=pack_vector([1.0, 0.1], 2))
    word, near = fact("word"), fact("near", vector=pack_vector([1.0, 0.0], 2))
    far = fact("far", vector=pack_vector([-1.0, 0.0], 2))
    hits = [Hit(word, 2.0), Hit(both, 1.0), Hit(near, 0.0), Hit(far, 0.0)]
    joined = [hit.fact.text for hit in by_meaning(hits, pack_vector([1.0, 0.0], 2))]
    assert joined[0] == "both"
    assert set(joined) == {"both", "word", "near"}


# -- the rest


@given(texts, st.sampled_from(list(Trust)))
def test_a_fact_comes_back_from_json(text, trust):
    origin = Origin("run_1", "agent", "tool", ("tool:x",), "crm")
    whole = fact(text, trust=trust, origin=origin, verify_by=NOW)
    assert load_fact(json.loads(json.dumps(dump_fact(whole)))) == whole


@pytest.mark.parametrize(
    "words",
    [
        {"default_ttl_s": 0},
        {"default_ttl_s": 10, "max_ttl_s": 9},
        {"max_ttl_s": math.inf},
        {"max_tokens": 0},
        {"max_fact_bytes": 0},
        {"growth_factor": 1},
        {"growth_factor": math.nan},
        {"tainted": "burn"},
        {"unverified": "maybe"},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(words):
    with pytest.raises(ConfigError, match="memory"):
        MemoryOptions(**words)


@pytest.mark.parametrize("hidden", ["\u202e", "\u2066", "\U000e0041", "\x9b", "\u2029"])
def test_what_people_do_not_see_is_shown(hidden):
    (_, line) = fill([Checked(fact(f"a{hidden}b"))], k=1, max_tokens=10_000).text.split("\n")
    assert hidden not in line
    assert json.loads(line)["text"] == f"a{hidden}b"
