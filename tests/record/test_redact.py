"""Secrets do not leave the process."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.record.redact import HIDDEN, Redactor

ARTICLE_KEYS = ("authorization", "cookie", "token", "api_key")


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "Authorization",
        "AUTHORIZATION",
        "Proxy-Authorization",
        "cookie",
        "Set-Cookie",
        "token",
        "access_token",
        "accessToken",
        "X-Auth-Token",
        "idToken",
        "api_key",
        "api-key",
        "apiKey",
        "apikey",
        "APIKey",
        "X-API-Key",
        "OPENAI_API_KEY",
        " token ",
    ],
)
def test_hides_the_articles_names_in_every_spelling_and_as_suffix(name):
    assert Redactor(ARTICLE_KEYS).value({name: "s3cret"}) == {name: HIDDEN}


@pytest.mark.parametrize(
    "name",
    ["max_tokens", "tokens", "token_count", "tokenizer", "cookies_accepted", "author", "api", "key", "mytoken", ""],
)
def test_leaves_names_alone_that_only_contain_a_telling_word(name):
    assert Redactor(ARTICLE_KEYS).value({name: "plain"}) == {name: "plain"}


def test_the_list_in_the_configuration_is_the_list():
    assert Redactor(("pin",)).value({"pin": "1234", "token": "x"}) == {"pin": HIDDEN, "token": "x"}


def test_configured_names_may_be_written_with_dashes_and_capitals():
    assert Redactor(("Api-Key",)).value({"api_key": "x"}) == {"api_key": HIDDEN}


def test_any_depth_and_any_type_of_value():
    given = {"a": [{"b": {"password": {"old": 1, "new": [2]}}}, {"client_secret": 7}], "n": None, "token": None}
    assert Redactor().value(given) == {
        "a": [{"b": {"password": HIDDEN}}, {"client_secret": HIDDEN}],
        "n": None,
        "token": None,
    }


def test_the_original_is_left_alone():
    given = {"headers": {"authorization": "Bearer abc"}}
    Redactor().value(given)
    assert given == {"headers": {"authorization": "Bearer abc"}}


# Put together here, so that no scanner takes this file for a leak.
BODY = "A1b2C3d4" * 5


@pytest.mark.parametrize(
    "secret",
    [
        "sk-" + "ant-api03-" + BODY,
        "sk-" + "proj-" + BODY[:16],
        "sk_" + "live_" + BODY,
        "rk_" + "test_" + BODY,
        "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "gh" + "p_" + BODY,
        "github_" + "pat_" + BODY,
        "gl" + "pat-" + BODY,
        "xox" + "b-1234567890-abcdef",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "AIza" + BODY[:35],
    ],
)
def test_hides_known_kinds_of_keys_inside_a_text(secret):
    hidden = Redactor(()).text(f"request with {secret} was refused")
    assert secret not in hidden
    assert hidden == f"request with {HIDDEN} was refused"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("GET https://bob:hunter2@db.example/x failed", "hunter2"),
        ("postgresql://app:p4ss@db:5432/app", "p4ss"),
        ("header Authorization: Bearer abcdef123456", "abcdef123456"),
        ("header authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("sent bearer abcdef123456 to it", "abcdef123456"),
        ("GET /x?api_key=k-1&q=shoes", "k-1"),
        ("login failed for password='correct horse'", "correct horse"),
        ('body {"access_token": "abc def", "ok": true}', "abc def"),
        ('body {\\"token\\": \\"abc\\"}', "abc"),
        ("Cookie: session=abc; csrf=def", "def"),
        ("accessToken=abc", "abc"),
        ("API-KEY = abc", "abc"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----", "MIIEow"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEow", "MIIEow"),
    ],
)
def test_hides_what_stands_under_a_telling_name_inside_a_text(text, secret):
    assert secret not in Redactor().text(text)


def test_what_stands_beside_a_secret_stays_readable():
    assert Redactor().text("GET /x?api_key=k-1&q=shoes") == f"GET /x?api_key={HIDDEN}&q=shoes"
    assert Redactor().text("https://bob:pw@db.example/x") == f"https://{HIDDEN}@db.example/x"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the user cannot log in",
        "max_tokens=1024, total_tokens: 7",
        "see https://example.com:8080/token/help",
        "a task-sk- and a risk-free desk",
        "Tokenization: done",
    ],
)
def test_ordinary_text_is_left_as_it_is(text):
    assert Redactor().text(text) == text


def test_a_secret_used_as_a_name_is_hidden_too():
    assert Redactor().value({"sk-" + BODY: 1}) == {HIDDEN: 1}


def test_what_is_not_json_becomes_the_name_of_its_type():
    class Handle:
        def __repr__(self):
            return "Handle(token=s3cret)"

    assert Redactor().value({"h": Handle(), "b": b"s3cret", "s": {1}}) == {"h": "[Handle]", "b": "[bytes]", "s": [1]}


def test_cycles_depth_and_odd_values_end_in_something_json_can_hold():
    cycle: list = []
    cycle += [cycle, cycle]
    odd = {"big": 2**80, "surrogate": "\udcff", 5: "number as name", "cycle": cycle}
    written = orjson.loads(orjson.dumps(Redactor().value(odd)))
    assert written["big"] == str(2**80)
    assert written["5"] == "number as name"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.sampled_from(["token", "Api-Key", "user_password"]))
def test_nothing_under_a_telling_name_survives_anywhere(value, name):
    marker = "M4RK3R"
    hidden = Redactor().value([value, {"x": [{name: [marker, value]}]}])
    assert marker not in orjson.dumps(hidden).decode()


@given(st.text(max_size=200))
def test_redacting_twice_changes_nothing_more(text):
    redactor = Redactor()
    once = redactor.text(text)
    assert redactor.text(once) == once


@pytest.mark.parametrize("piece", ["-eyJ", "token=", "sk-", "://a:", "a_token", "-----BEGIN PRIVATE KEY", "bearer "])
def test_hostile_text_takes_linear_work(piece):
    # 100 kB: quadratic work would take minutes, and the suite's patience is shorter.
    assert isinstance(Redactor().text(piece * (100_000 // len(piece))), str)


def test_the_memo_of_names_is_bounded():
    redactor = Redactor()
    for i in range(10_000):
        redactor.hides(f"name{i}")
    assert len(redactor._hides) < 5_000
    assert redactor.hides("late_token")
