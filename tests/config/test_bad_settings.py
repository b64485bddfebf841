"""A configuration that cannot be used says which line to change, and to what."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.config.settings import load_settings
from interlock.core.errors import ConfigError


def complaint(path: Path, text: str) -> str:
    file = path / "interlock.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    return str(caught.value).replace(f"{file}:", "line ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "agent:\n  budgets:\n    max_tools: 3",
            "line 3: agent.budgets.max_tools: unknown key; did you mean max_tool_calls?",
        ),
        (
            "agent:\n  budgets:\n    max_time: 3",
            "line 3: agent.budgets.max_time: unknown key; did you mean max_seconds?",
        ),
        ("agent: {budgets: {max_spend: 3}}", "did you mean max_usd?"),
        ("agent: {budgets: {max_stepps: 3}}", "did you mean max_steps?"),
        ("max_steps: 3", "did you mean agent.budgets.max_steps?"),
        ("tool: {}", "did you mean tools?"),
        (
            "tools:\n  writes:\n    a.b:\n      onunknown: stop",
            "line 4: tools.writes.a.b.onunknown: unknown key; did you mean on_unknown?",
        ),
        ("tenants: {acme: {alow: []}}", "tenants.acme.alow: unknown key; did you mean allow?"),
        ("zzz: 1", "known here: profile, mode"),
    ],
)
def test_an_unknown_key_names_its_line_and_the_nearest_known_key(tmp_path, text, says):
    assert says in complaint(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("agent:\n  budgets:\n    max_steps: -3", "line 3: agent.budgets.max_steps: -3 is out of range: write at least 1, or null"),
        ("agent: {budgets: {max_steps: 0}}", "at least 1"),
        ("agent: {budgets: {max_usd: -0.01}}", "at least 0"),
        ("agent: {budgets: {max_usd: 1e12}}", "at most 1000000"),
        ("agent: {budgets: {max_seconds: 0}}", "more than 0"),
        ("agent: {budgets: {max_seconds: 90000000}}", "at most"),
        ("agent: {budgets: {max_steps: 99999999999999999999}}", "out of range"),
        ("agent: {budgets: {max_steps: " + "9" * 5000 + "}}", "whole number"),
        ("agent: {budgets: {max_usd: .inf}}", "not a finite number: write null where unlimited is meant"),
        ("agent: {budgets: {max_usd: .nan}}", "not a finite number"),
        ("agent: {budgets: {max_usd: 1e999}}", "not a finite number"),
        ("agent: {budgets: {max_steps: '25'}}", "must be a whole number, without quotes or unit, not '25'"),
        ("agent: {budgets: {max_steps: 2.5}}", "must be a whole number"),
        ("agent: {budgets: {max_steps: true}}", "must be a whole number"),
        ("agent: {budgets: {max_seconds: 10m}}", "must be a number of seconds, without quotes or unit, not '10m'"),
        ("agent: {budgets: [1]}", "must be keys below it"),
        ("agent: 5", "must be keys below it"),
        ("agent: {loop_detection: {repeated_calls_threshold: 1}}", "at least 2"),
        ("agent: {stop_on: [kiled]}", "did you mean killed?"),
        ("agent: {stop_on: killed}", "must be a list"),
        ("agent: {on_stop: wrapup}", "must be one of wrap_up"),
        ("agent: {max_refusals: 0}", "at least 1"),
        ("tools: {timeouts_s: {default: 10s}}", "must be a number of seconds"),
        ("tools: {timeouts_s: {default: null}}", "cannot be null"),
        ("tools: {timeouts_s: {default: 0}}", "more than 0"),
        ("tools: {timeouts_s: {'a b': 1}}", "is no tool name or glob"),
        ("tools:\n  allow:\n    - kb.read\n    - '[a-z]*'", "line 4: tools.allow.1: '[a-z]*' is no tool name or glob"),
        ("tools: {allow: kb.read}", "must be a list"),
        ("tools: {allow: [7]}", "must be text, not 7: put it in quotes"),
        ("tools: {allow: [" + "a" * 129 + "]}", "is no tool name or glob"),
        ("tools:\n  allow:", "line 2: tools.allow: is empty: write [] to allow nothing, or leave the key out"),
        ("tenants:\n  acme:\n    allow:\n", "line 3: tenants.acme.allow: is empty"),
        ("tools: {effects: {a.b: raed}}", "must be one of read, write; did you mean read?"),
        ("tools: {writes: {a.b: {natural: yes}}}", "must be true or false, not 'yes'"),
        ("tools: {writes: {a.b: {approval: maybe}}}", "must be one of required"),
        ("tools: {writes: {a.b: resend}}", "must be keys below it"),
        ("tools: {retries: {max_attempts: 0}}", "at least 1"),
        ("tools: {retries: {retryable_status: [42]}}", "at least 100"),
        ("tools: {retries: {backoff_ms: []}}", "must not be empty"),
        ("tools: {retries: {backoff_ms: [-1]}}", "at least 0"),
        ("tools: {outcome: {a.b: {often: not_performed}}}", "tools.outcome.a.b.often: the key 'often' must be a whole number"),
        ("tools: {outcome: {a.b: {409: done}}}", "must be one of not_performed, unknown"),
        ("tools: {limits: {a.b: {rate_per_s: 0}}}", "more than 0"),
        ("tools:\n  invariants:\n    a.b:\n      - output.n > 0\n      - output.n >", "line 5: tools.invariants.a.b"),
        ("tools: {invariants: {a.b: [\"open('x')\"]}}", "line 1: tools.invariants.a.b"),
        ("prices:\n  m: {input_usd_per_mtok: 1}", "line 2: prices.m.output_usd_per_mtok: the key 'output_usd_per_mtok' is missing"),
        ("logging: {level: inof}", "did you mean info?"),
        ("safe_mode: {enabled: 'false'}", "must be true or false"),
        ("mode: watch", "must be one of enforce, observe"),
        ("store: ''", "must not be empty"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_meant(tmp_path, text, says):
    assert says in complaint(tmp_path, text)


def test_all_complaints_come_at_once_in_the_order_of_the_file(tmp_path):
    text = complaint(tmp_path, "mode: x\nagent: {max_refusals: 0}\ntools: {allow: 1}\n")
    assert [line.split(":")[0] for line in text.splitlines()] == ["line 1", "line 2", "line 3"]


def test_a_password_in_the_stores_url_is_not_repeated(tmp_path):
    text = complaint(tmp_path, "store: postgresql://me:hunter2@db/" + "x" * 300)
    assert "store" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("agent: [1", "line 2: not valid YAML"),
        ("agent:\n  budgets: {max_steps: 3\ntools: {}", "not valid YAML"),
        ("tools:\n\tallow: []", "line 2: not valid YAML (column 1): found character that cannot start any token; indent with spaces"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: *nowhere", "not valid YAML"),
        ("- agent", "line 1: the top level must be keys"),
        ("hello", "line 1: the top level must be keys"),
        ("agent: {}\nmode: observe\nagent: {}", "line 3: agent stands here twice; first on line 1"),
        ("tools: {outcome: {a.b: {409: unknown, '409': unknown}}}", "stands here twice"),
        ("? [a]\n: 1", "a key must be one word"),
        ("mode: !!python/object/apply:os.system ['true']", "is not supported: remove it"),
        ("agent: !mine {}", "the tag !mine is not supported"),
        ("agent: &x\n  budgets: *x", "go in circles"),
        ("agent: &a {}\ntools:\n  <<: *a", "merge keys"),
        ("[" * 3000, "not valid YAML"),
    ],
)  # fmt: skip
def test_broken_yaml(tmp_path, text, says):
    assert says in complaint(tmp_path, text)


def test_an_alias_bomb_does_not_go_off(tmp_path):
    lines = ["x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "aliases" in complaint(tmp_path, "\n".join(lines))


def test_a_file_that_is_no_text(tmp_path):
    file = tmp_path / "interlock.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_settings(file)
    file.write_bytes(b"mode: \x00")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_settings(file)
    file.write_text("#" * 5_000_000)
    with pytest.raises(ConfigError, match="larger than"):
        load_settings(file)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file; `interlock init` writes one"):
        load_settings(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings("a\0b")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", object(), print])
def test_a_mapping_with_what_no_file_could_hold(value):
    with pytest.raises(ConfigError, match="cannot stand in a configuration"):
        load_settings({"agent": {"budgets": {"max_usd": value}}})


def test_a_mapping_that_contains_itself():
    data: dict = {"tenants": {}}
    data["tenants"]["acme"] = data
    with pytest.raises(ConfigError, match="nested too deeply"):
        load_settings(data)


def test_text_that_is_not_unicode(tmp_path):
    assert "store" in complaint(tmp_path, 'store: "\\ud800"') or "Unicode" in complaint(tmp_path, 'store: "\\ud800"')


words = st.sampled_from(
    ["agent", "tools", "budgets", "allow", "writes", "max_usd", "default", "timeouts_s", "x.y", "on"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)


def loads_or_says(source) -> str | None:
    try:
        load_settings(source)
    except ConfigError as error:
        return str(error)
    return None


@given(st.dictionaries(words, values, max_size=4))
def test_whatever_stands_there_is_settings_or_a_config_error(data):
    assert loads_or_says(data) != ""


@given(st.text(max_size=200))
def test_whatever_text_a_file_holds_is_settings_or_a_config_error(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    assert "any.yaml" in (loads_or_says(file) or "any.yaml")
