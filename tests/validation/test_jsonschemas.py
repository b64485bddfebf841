"""JSON Schema from elsewhere: checked, closed, and unable to fetch anything."""

from __future__ import annotations

import datetime as dt
import sys

import pytest
from validation_scenes import make_tool

from interlock.core.errors import ConfigError
from interlock.validation.outputs import OutputCheck, rebuild
from interlock.validation.schemas import SchemaMismatch, compile_inputs, compile_output

SECRET = "sk-live-0123456789"
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 10},
        "count": {"type": "integer", "minimum": 1},
        "kind": {"enum": ["a", "b"]},
        "rows": {"type": "array", "items": {"$ref": "#/$defs/row"}},
    },
    "required": ["title"],
    "$defs": {"row": {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]}},
}


def inputs(schema=SCHEMA, *, strict=True):
    return compile_inputs(schema, strict=strict)


def refused(schema, value):
    with pytest.raises(SchemaMismatch) as mismatch:
        schema.validate(value)
    return mismatch.value


def test_what_fits_comes_back_as_a_new_dict():
    args = {"title": "x", "rows": [{"sku": "a", "more": 1}]}
    valid = inputs().validate(args)
    assert valid == args
    assert valid is not args


@pytest.mark.parametrize(
    ("args", "kind", "loc", "message"),
    [
        ({}, "required", [], "'title' is required"),
        ({"title": 5}, "type", ["title"], "does not fit `type: string`"),
        ({"title": "x", "count": 0}, "minimum", ["count"], "does not fit `minimum: 1`"),
        ({"title": "x", "kind": "c"}, "enum", ["kind"], "does not fit `enum: ['a', 'b']`"),
        ({"title": "x", "rows": [{}]}, "required", ["rows", 0], "'sku' is required"),
        ({"title": "x" * 11}, "maxLength", ["title"], "does not fit `maxLength: 10`"),
        ([], "type", [], "does not fit `type: object`"),
        (None, "type", [], "does not fit `type: object`"),
    ],
)
def test_what_does_not_fit_is_told_in_the_words_of_the_schema(args, kind, loc, message):
    assert refused(inputs(), args).errors == [{"loc": loc, "type": kind, "msg": message}]


def test_arguments_that_the_schema_does_not_name_are_refused():
    mismatch = refused(inputs(), {"title": "x", "cuont": 1})
    assert mismatch.errors[0]["type"] == "extra_forbidden"
    assert "did you mean 'count'" in str(mismatch)
    assert mismatch.errors[0]["msg"].endswith("there are: title, count, kind, rows")


@pytest.mark.parametrize(
    "opening",
    [
        {"additionalProperties": True},
        {"patternProperties": {"^x": {}}},
        {"allOf": [{"properties": {"x1": {}}}]},
        {"unevaluatedProperties": True},
    ],
)
def test_a_schema_that_says_there_may_be_others_is_believed(opening):
    assert inputs({**SCHEMA, **opening}).validate({"title": "x", "x1": 1})["x1"] == 1


def test_without_strict_or_properties_others_are_taken():
    assert inputs(strict=False).validate({"title": "x", "more": 1})["more"] == 1
    assert inputs({"type": "object"}).validate({"more": 1}) == {"more": 1}
    assert refused(inputs({"type": "object", "properties": {}}), {"more": 1})


@pytest.mark.parametrize(
    "args", [{"title": SECRET}, {SECRET: 1}, {"title": "x", "kind": SECRET}, {"title": "x", "rows": [{SECRET: 1}]}]
)
def test_rejected_content_is_in_no_error(args):
    schema = {**SCHEMA, "additionalProperties": False}
    mismatch = refused(inputs(schema), args)
    assert SECRET not in str(mismatch.errors)


def test_keys_in_a_path_are_masked():
    schema = {"additionalProperties": {"type": "integer"}}
    assert refused(inputs(schema), {SECRET: "x"}).errors[0]["loc"] == ["?"]


def test_a_schema_cannot_fetch_anything(tmp_path):
    there = tmp_path / "other.json"
    there.write_text('{"type": "integer"}')
    for uri in (there.as_uri(), "http://127.0.0.1:9/other.json"):
        with pytest.raises(ConfigError, match=r"may not refer to .*put the definition under \$defs"):
            inputs({"properties": {"a": {"$ref": uri}}})
    with pytest.raises(ConfigError, match="JSON Schema cannot be used"):
        inputs({"properties": {"a": {"$ref": "other.json"}}})


@pytest.mark.parametrize(
    "schema", [{"type": "nonsense"}, {"properties": 5}, {"pattern": "("}, {"$schema": "https://x.test/draft"}]
)
def test_a_schema_that_is_none_says_so(schema):
    with pytest.raises(ConfigError, match="JSON Schema cannot be used"):
        inputs(schema)


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    with pytest.raises(ConfigError, match=r"pip install interlock\[jsonschema\]"):
        inputs()


def test_python_values_are_checked_as_the_json_they_become():
    schema = inputs({"properties": {"at": {"type": "string"}}})
    assert schema.validate({"at": dt.date(2026, 11, 22)}) == {"at": "2026-11-22"}
    assert refused(schema, {"at": object()}).errors[0]["type"] == "not_json"


@pytest.mark.parametrize("depth", [300, 50_000])
def test_nesting_does_not_overrun_the_stack(depth):
    nested: list = []
    for _ in range(depth):
        nested = [nested]
    schema = compile_output({"type": "array", "items": {"$ref": "#"}})
    assert refused(schema, nested).errors[0]["type"] == "not_json"
    looped: list = []
    looped.append(looped)
    assert refused(schema, looped).errors[0]["type"] == "not_json"


def test_what_was_kept_and_is_no_json_is_refused():
    with pytest.raises(SchemaMismatch, match="not JSON"):
        compile_output(SCHEMA).load(b"{")


def test_a_rule_that_is_itself_a_schema_is_only_named():
    schema = compile_output({"properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "b": False}})
    assert refused(schema, {"a": "x"}).errors[0]["msg"] == "does not fit `anyOf`"
    assert refused(schema, {"b": 1}).errors[0]["loc"] == ["b"]


def test_errors_are_few_whatever_is_sent():
    schema = compile_output({"type": "array", "items": {"type": "integer"}})
    assert len(refused(schema, ["x"] * 10_000).errors) == 20


def test_outputs_may_have_more_than_the_schema_names_and_replay():
    tool = make_tool(output=compile_output(SCHEMA))
    value, data = OutputCheck(tool, 1000).accept({"title": "x", "more": 1})
    assert value == {"title": "x", "more": 1} == rebuild(tool, data)


def test_the_draft_that_a_schema_names_is_its_draft():
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 5, "exclusiveMinimum": True}
    assert refused(compile_output(old), 5)
    assert compile_output(old).validate(6) == 6
