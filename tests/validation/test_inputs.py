"""Arguments: strict, whole, and refused without being repeated."""

# Annotations are read as text on purpose here, as most modules have them.
from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
import gc
import uuid
import weakref
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field, RootModel, field_validator, model_validator
from pydantic_core import PydanticCustomError
from validation_scenes import answering, make_call, make_tool

from interlock.core.canonical import NotCanonical, canonical_json
from interlock.core.errors import ConfigError, InvalidArguments
from interlock.core.reasons import StopReason
from interlock.validation.inputs import Inputs, invalid_arguments
from interlock.validation.schemas import SchemaMismatch, compile_inputs

SECRET = "sk-live-0123456789"
CLIENT = object()


class Colour(enum.Enum):
    RED = "red"


class Line(BaseModel):
    sku: str
    quantity: int = Field(ge=1)


@dataclass
class Address:
    city: str


def strict(source, **kw):
    return compile_inputs(source, strict=True, **kw)


def refused(schema, args):
    with pytest.raises(SchemaMismatch) as mismatch:
        schema.validate(args)
    return mismatch.value


def create(title: str, priority: int = 3, *, tags: list[str] | None = None, idempotency_key: str = ""): ...


def test_what_fits_comes_back_with_its_defaults():
    assert strict(create).validate({"title": "x"}) == {"title": "x", "priority": 3, "tags": None}
    given_args = {"title": "x", "priority": 1, "tags": ["a"]}
    assert strict(create).validate(given_args) == given_args


def test_the_names_are_known():
    assert strict(create).names == ("title", "priority", "tags")
    assert not strict(create).open


@pytest.mark.parametrize(
    ("args", "kind", "loc"),
    [
        ({}, "missing", ["title"]),
        ({"title": 5}, "string_type", ["title"]),
        ({"title": None}, "string_type", ["title"]),
        ({"title": "x", "priority": "3"}, "int_type", ["priority"]),
        ({"title": "x", "priority": 3.0}, "int_type", ["priority"]),
        ({"title": "x", "priority": True}, "int_type", ["priority"]),
        ({"title": "x", "tags": ["a", 1]}, "string_type", ["tags", 1]),
        ({"title": "x", "zzz": 1}, "extra_forbidden", ["?"]),
        ({"title": "x", "idempotency_key": "mine"}, "extra_forbidden", ["?"]),
        ([], "dict_type", []),
        ("title", "dict_type", []),
        (None, "dict_type", []),
    ],
)
def test_what_does_not_fit_is_refused(args, kind, loc):
    error = refused(strict(create), args).errors[0]
    assert (error["type"], error["loc"]) == (kind, loc)
    assert set(error) == {"loc", "type", "msg"}


def test_all_faults_are_told_at_once():
    assert [e["loc"] for e in refused(strict(create), {"priority": "x", "tags": 1}).errors] == [
        ["title"],
        ["priority"],
        ["tags"],
    ]


def test_the_nearest_name_is_told_to_the_developer_and_not_to_the_model():
    mismatch = refused(strict(create), {"titel": "x"})
    assert "'titel' is not an argument: did you mean 'title'?" in str(mismatch)
    told = invalid_arguments("t", mismatch).for_model
    assert "titel" not in told
    assert "there are: title, priority, tags" in told, "which ones there are, it may know"


def test_not_strict_converts_as_pydantic_does():
    schema = compile_inputs(create, strict=False)
    assert schema.validate({"title": "x", "priority": "3"})["priority"] == 3
    assert refused(schema, {"title": "x", "more": 1}).errors[0]["type"] == "extra_forbidden"


# Types that JSON writes as text


def book(
    at: dt.datetime,
    day: dt.date,
    ref: uuid.UUID,
    price: decimal.Decimal,
    colour: Colour,
    line: Line,
    address: Address,
    pair: tuple[int, str],
    wait: dt.timedelta = dt.timedelta(0),
): ...


AS_JSON = {
    "at": "2026-11-22T10:00:00Z",
    "day": "2026-11-22",
    "ref": "12345678-1234-5678-1234-567812345678",
    "price": "10.50",
    "colour": "red",
    "line": {"sku": "a", "quantity": 2},
    "address": {"city": "Bern"},
    "pair": [1, "a"],
}


def test_dates_and_models_are_read_as_the_json_they_came_from():
    args = strict(book).validate(AS_JSON)
    assert args["at"].year == 2026
    assert args["price"] == decimal.Decimal("10.50")
    assert args["line"] == Line(sku="a", quantity=2)
    assert args["address"] == Address("Bern")
    assert args["colour"] is Colour.RED
    assert args["pair"] == (1, "a")


def test_python_values_of_the_right_types_fit_too():
    once = strict(book).validate(AS_JSON)
    assert strict(book).validate(once) == once


def test_strict_json_is_still_strict():
    assert refused(strict(book), {**AS_JSON, "line": {"sku": "a", "quantity": "2"}}).errors[0]["loc"] == [
        "line",
        "quantity",
    ]
    assert refused(strict(book), {**AS_JSON, "day": 20000}).errors[0]["loc"] == ["day"]


def test_rich_arguments_have_canonical_json():
    schema = strict(book)
    args = schema.validate(AS_JSON)
    with pytest.raises(NotCanonical):
        canonical_json(args)
    data = orjson.loads(schema.dump(args))
    assert data["price"] == "10.50"
    assert data["line"] == {"sku": "a", "quantity": 2}
    assert schema.validate(data) == args


def test_nan_does_not_become_none():
    def fn(x: float | None): ...

    for bad in (float("nan"), float("inf")):
        assert refused(strict(fn), {"x": bad}).errors[0]["type"] == "finite_number"
    assert strict(fn).validate({"x": None}) == {"x": None}


def test_an_int_is_the_float_it_stands_for():
    def fn(x: float): ...

    assert canonical_json(strict(fn).validate({"x": 1})) == canonical_json(strict(fn).validate({"x": 1.0}))


def test_equal_effects_have_equal_arguments_whether_the_default_is_said_or_not():
    schema = strict(create)
    said = schema.validate({"tags": None, "priority": 3, "title": "x"})
    assert canonical_json(schema.validate({"title": "x"})) == canonical_json(said)


# Signatures


def test_parameters_may_have_any_name():
    def fn(schema: str, model_config: int, _id: int, json: str, self_: str = "", copy: bool = False): ...

    args = {"schema": "s", "model_config": 1, "_id": 2, "json": "{}", "self_": "", "copy": True}
    assert strict(fn).validate(args) == args


def test_what_is_not_annotated_takes_anything():
    def fn(a, b=1, **rest): ...

    schema = strict(fn)
    assert schema.open
    assert schema.validate({"a": [1], "c": {"d": None}}) == {"a": [1], "b": 1, "c": {"d": None}}
    assert refused(schema, {}).errors[0]["type"] == "missing"


def test_the_key_cannot_be_smuggled_in_through_kwargs():
    def fn(a: int, idempotency_key: str = "", **rest): ...

    assert refused(strict(fn), {"a": 1, "idempotency_key": "mine"}).errors[0]["type"] == "extra_forbidden"


def test_star_args_take_nothing():
    def fn(a: int, *more: int, b: int = 2): ...

    assert strict(fn).validate({"a": 1}) == {"a": 1, "b": 2}
    assert refused(strict(fn), {"a": 1, "more": [1]})


def test_constraints_hold_however_they_are_written():
    def fn(a: Annotated[int, Field(ge=1)], b: int = Field(5, le=9), c: Literal["x", "y"] = "x"): ...

    schema = strict(fn)
    assert schema.validate({"a": 1}) == {"a": 1, "b": 5, "c": "x"}
    assert refused(schema, {"a": 0}).errors[0]["type"] == "greater_than_equal"
    assert refused(schema, {"a": 1, "b": 10}).errors[0]["type"] == "less_than_equal"
    assert refused(schema, {"a": 1, "c": "z"}).errors[0]["type"] == "literal_error"


def test_a_list_of_the_signature_is_not_shared_by_calls():
    def fn(tags: list[str] = []): ...  # noqa: B006 - on purpose

    schema = strict(fn)
    schema.validate({})["tags"].append("x")
    assert schema.validate({}) == {"tags": []}


def test_a_default_that_json_cannot_hold_is_left_to_the_function():
    def fn(a: int = 1, client: Any = CLIENT): ...

    assert strict(fn).validate({}) == {"a": 1}


class Client:
    def create(self, title: str): ...

    def __call__(self, query: str): ...

    @classmethod
    def build(cls, size: int): ...

    @staticmethod
    def plain(flag: bool): ...


def traced(fn):
    @functools.wraps(fn)
    def inner(*args, **kwargs):
        return fn(*args, **kwargs)

    return inner


@pytest.mark.parametrize(
    ("fn", "args", "wrong"),
    [
        (Client().create, {"title": "x"}, {"title": 1}),
        (Client(), {"query": "x"}, {"query": 1}),
        (Client.build, {"size": 1}, {"size": "1"}),
        (Client.plain, {"flag": True}, {"flag": 1}),
        (functools.partial(create, "x"), {"priority": 1, "tags": None}, {"priority": "1"}),
        (functools.partial(create, tags=None), {"title": "x", "priority": 1, "tags": ["a"]}, {"title": 1}),
        (traced(create), {"title": "x", "priority": 1, "tags": None}, {"title": 1}),
        (lambda q: None, {"q": object}, {}),
    ],
)
def test_every_kind_of_function(fn, args, wrong):
    assert strict(fn).validate(args) == args
    refused(strict(fn), wrong)


def test_a_return_type_known_to_type_checkers_only_is_no_matter():
    def fn(a: int) -> Nowhere: ...  # noqa: F821 - on purpose

    assert strict(fn).validate({"a": 1}) == {"a": 1}


def test_a_type_may_be_defined_beside_its_tool():
    class Local(BaseModel):
        x: int

    def fn(local: Local): ...

    assert strict(fn).validate({"local": {"x": 1}}) == {"local": Local(x=1)}


def positional(a: int, /): ...


def unresolved(a: Nowhere): ...  # noqa: F821 - on purpose


def unusable(a: int[str]): ...


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (positional, "'a' is positional-only"),
        (unresolved, "module level"),
        (unusable, "cannot be"),
        (RootModel[int], "RootModel"),
        (dict.fromkeys, "dict.fromkeys"),
    ],
)
def test_what_cannot_be_compiled_says_what_to_do(fn, says):
    with pytest.raises(ConfigError, match=says):
        strict(fn)


# Models


class Order(BaseModel):
    order_id: int = Field(alias="orderId")
    note: str = ""
    lines: list[Line] = []

    @field_validator("note")
    @classmethod
    def no_shouting(cls, note):
        if note.isupper():
            raise ValueError(f"{note} is shouted")
        return note

    @model_validator(mode="after")
    def whole(self):
        return self


def test_a_model_gives_its_fields():
    args = strict(Order).validate({"orderId": 5, "lines": [{"sku": "a", "quantity": 1}]})
    assert args == {"order_id": 5, "note": "", "lines": [Line(sku="a", quantity=1)]}


def test_a_model_refuses_what_it_does_not_name_and_stays_as_it_was():
    assert refused(strict(Order), {"orderId": 5, "more": 1}).errors[0]["type"] == "extra_forbidden"
    assert Order.model_validate({"orderId": 5, "more": 1}).order_id == 5
    assert refused(strict(Order), {"orderId": "5"}).errors[0]["type"] == "int_type"


def test_a_model_that_takes_others_gets_them():
    class Open(BaseModel, extra="allow"):
        a: int

    assert strict(Open).validate({"a": 1, "b": 2}) == {"a": 1, "b": 2}


# Nothing of what was rejected leaves


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


def picky(
    note: Annotated[str, Field(max_length=3)] = "",
    order: Order | None = None,
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None,
    table: dict[str, int] | None = None,
    when: dt.datetime | None = None,
    ref: uuid.UUID | None = None,
): ...


@pytest.mark.parametrize(
    "args",
    [
        {"note": SECRET},
        {"order": {"orderId": 1, "note": SECRET.upper()}},
        {"order": {"orderId": SECRET}},
        {"pet": {"kind": SECRET}},
        {"table": {SECRET: "x"}},
        {"when": SECRET},
        {"ref": SECRET},
        {SECRET: 1},
        {"order": SECRET},
    ],
)
def test_rejected_content_is_in_no_error(args):
    mismatch = refused(strict(picky), args)
    refusal = invalid_arguments("t", mismatch)
    assert refusal.reason is StopReason.INVALID_INPUT
    for text in (str(mismatch.errors), refusal.for_model, str(refusal.details)):
        assert SECRET.lower() not in text.lower()
    assert mismatch.errors


def test_a_validator_of_the_users_own_may_say_anything_and_is_not_repeated():
    def own(value):
        raise PydanticCustomError("odd", "{value} is odd", {"value": value})

    def fn(a: Annotated[str, AfterValidator(own)]): ...

    assert refused(strict(fn), {"a": SECRET}).errors == [
        {"loc": ["a"], "type": "custom", "msg": "The value is not valid"}
    ]


def test_errors_are_few_whatever_is_sent():
    def fn(rows: list[int]): ...

    mismatch = refused(strict(fn), {"rows": ["x"] * 1000})
    assert len(mismatch.errors) == 20
    assert len(str(mismatch)) < 4000
    mismatch = refused(strict(fn), {"rows": ["x"] * 10_000})
    assert mismatch.errors == [{"loc": [], "type": "many", "msg": "10,000 faults"}]


class Node(BaseModel):
    below: Node | None = None


@pytest.mark.parametrize("depth", [300, 50_000])
def test_nesting_is_refused_and_its_path_is_not_endless(depth):
    def fn(below: Node | None): ...

    nested: dict[str, Any] = {}
    for _ in range(depth):
        nested = {"below": nested}
    mismatch = refused(strict(fn), nested)
    assert all(len(error["loc"]) <= 16 for error in mismatch.errors)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["title", "priority", "tags", "other"]), json_values, max_size=4))
def test_whatever_a_model_sends_is_either_valid_or_refused(args):
    schema = strict(create)
    before = orjson.dumps(args)
    try:
        valid = schema.validate(args)
    except SchemaMismatch:
        pass
    else:
        assert isinstance(valid["title"], str)
        assert type(valid["priority"]) is int
        assert valid["tags"] is None or all(isinstance(tag, str) for tag in valid["tags"])
        assert schema.validate(valid) == valid, "validating is idempotent"
    assert orjson.dumps(args) == before, "what was proposed is not changed"


# The guard


async def test_the_guard_raises_at_its_place_what_the_gateway_found():
    tool = make_tool()
    found = invalid_arguments(tool.name, refused(strict(create), {}))
    with pytest.raises(InvalidArguments) as error:
        await Inputs()(tool, answering(1))(make_call(tool, invalid=found))
    assert error.value is found
    assert "title: Field required" in found.for_model
    assert found.for_model.endswith("It was not executed.")


async def test_the_guard_lets_valid_calls_and_observed_ones_through():
    tool = make_tool()
    guard = Inputs()(tool, answering(1))
    assert (await guard(make_call(tool))).value == 1
    call = make_call(tool, invalid=InvalidArguments("x"), observing=True)
    assert (await guard(call)).value == 1
    assert call.would_have == [StopReason.INVALID_INPUT]


def test_a_function_is_compiled_once_for_each_way_to_read_it_and_is_let_go():
    def made():
        def tool(amount: int = 1): ...

        return tool

    tool = made()
    compiled = compile_inputs(tool, strict=True)
    assert compile_inputs(tool, strict=True) is compiled
    assert compile_inputs(tool, strict=False) is not compiled
    assert compile_inputs(made(), strict=True) is not compiled
    gone = weakref.ref(tool)
    del tool
    gc.collect()
    assert gone() is None
