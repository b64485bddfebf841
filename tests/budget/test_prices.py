"""Usage is read from the shapes that exist; an unknown price is a state, never zero."""

from types import SimpleNamespace

import genai_prices
import pytest

from interlock.budget.prices import ModelPrice, Prices, Usage, read_model, read_usage


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, Usage(10, 5)),
        ({"input_tokens": 10, "output_tokens": 5}, Usage(10, 5)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(10, 5, 4)),
        (
            {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20},
            Usage(130, 5, 100, 20),
        ),
        ({"cost_usd": 0.25}, Usage(cost_usd=0.25)),
    ],
    ids=["openai-chat", "plain", "openai-cached", "anthropic-cached", "stated"],
)
def test_usage_is_read_from_mappings_and_objects(usage, expected):
    assert read_usage({"usage": usage}) == expected
    assert read_usage(SimpleNamespace(usage=SimpleNamespace(**usage))) == expected


def test_a_reply_without_usage_says_so():
    assert read_usage("plain text") is None
    assert read_usage({"usage": None}) is None
    assert read_usage({"usage": {}}) is None


def test_another_shape_is_read_by_the_callers_function():
    assert read_usage({"meta": 3}, lambda reply: {"input_tokens": reply["meta"], "output_tokens": 1}) == Usage(3, 1)


@pytest.mark.parametrize("bad", [-1, 1.5, "10", True])
def test_counts_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="input_tokens"):
        read_usage({"usage": {"input_tokens": bad, "output_tokens": 1}})


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf"), "1", False])
def test_costs_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="cost_usd"):
        read_usage({"usage": {"cost_usd": bad}})


def test_listed_prices_know_provider_and_model():
    cost = Prices().cost_usd("openai:gpt-4o", Usage(1_000, 1_000))
    assert cost == pytest.approx(0.0125)


def test_overrides_win():
    prices = Prices({"openai:gpt-4o": ModelPrice(1.0, 2.0)})
    assert prices.cost_usd("openai:gpt-4o", Usage(1_000_000, 500_000)) == pytest.approx(2.0)


def test_an_unknown_model_has_no_price():
    assert Prices().cost_usd("nobody:no-such-model", Usage(10, 10)) is None


def test_a_stated_cost_needs_no_price():
    assert Prices().cost_usd("nobody:no-such-model", Usage(10, 10, cost_usd=0.5)) == pytest.approx(0.5)


def test_the_model_is_read_where_the_reply_names_it():
    assert read_model({"model": "gpt-4o"}) == "gpt-4o"
    assert read_model(SimpleNamespace(model="")) is None
    assert read_model("text") is None


@pytest.mark.parametrize(
    "model",
    [
        "openai:gpt-4o",
        "openai:gpt-5",
        "anthropic:claude-sonnet-4-5",  # dearer beyond 200,000 tokens
        "anthropic:claude-opus-4-1",
        "google:gemini-2.5-pro",
        "deepseek:deepseek-chat",  # cheaper at night
        "gpt-4o-mini",
    ],
)
def test_a_price_is_the_one_of_the_list_at_any_size(model):
    shapes = [
        (7, 3, 0, 0),
        (1, 0, 0, 0),
        (0, 9, 0, 0),
        (99_999, 1, 0, 0),
        (100_001, 5, 50, 5),
        (900_000, 200_000, 10, 1),
    ]
    shapes += [(n, 11, n // 3, n // 5) for n in (10, 1_000, 64_000, 150_000, 250_000)]
    for given, output, read, write in shapes:
        cost = Prices().cost_usd(model, Usage(given, output, read, write))
        listed = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=given,
                output_tokens=output,
                cache_read_tokens=read or None,
                cache_write_tokens=write or None,
            ),
            model_ref=model.rpartition(":")[2],
            provider_id=model.rpartition(":")[0] or None,
        )
        assert cost == pytest.approx(float(listed.total_price), rel=1e-9), (given, output, read, write)
