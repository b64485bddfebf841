"""Stories of what is read out of a reply, and of how often the list of prices is asked what that costs."""

from __future__ import annotations

from typing import Any

import genai_prices
from schedule_telling import Teller, story

from interlock.budget import prices


@story("the list of prices is asked once for a model")
async def asked_once(teller: Teller) -> None:
    asked, calculates = [0], genai_prices.calc_price

    def counted(*args: Any, **words: Any) -> Any:
        asked[0] += 1
        return calculates(*args, **words)

    for cache in (prices._rates, prices._listed_cost_usd):
        cache.cache_clear()
    genai_prices.calc_price = counted
    try:
        for model in (
            "openai:gpt-4.1",
            "anthropic:claude-3-5-haiku-latest",
            "deepseek:deepseek-chat",
            "google:gemini-1.5-pro",
            "openai:no-such",
        ):
            told, table = [], prices.Prices()
            for given, output, read, write in (
                (1_000, 10, 0, 0),
                (1_001, 10, 0, 0),
                (1_001, 10, 0, 0),
                (100_000, 100_000, 9, 0),
                (100_001, 1, 0, 0),
                (1, 100_001, 0, 0),
                (5_000, 10, 4_000, 1_000),
            ):
                before = asked[0]
                table.cost_usd(model, prices.Usage(given, output, read, write))
                told.append(asked[0] - before)
            teller.say(
                model, told, table.cost_usd(model, prices.Usage(1_000, 10)), table.cost_usd(model, prices.Usage())
            )
            if model.startswith(("openai:gpt", "anthropic")):
                teller.expect("a line", told[1:4], [0, 0, 0])
    finally:
        genai_prices.calc_price = calculates


@story("what a reply's use is read as")
async def read_as(teller: Teller) -> None:
    replies: list[dict[str, Any]] = [
        {"input_tokens": 5},
        {"output_tokens": 5},
        {"input_tokens": 0, "output_tokens": 0},
        {"input_tokens": 5, "prompt_tokens": 6, "completion_tokens": 7, "response_tokens": 8},
        {"input_tokens": 5, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2},
        {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}},
        {"input_tokens": 9, "input_tokens_details": {"cached_tokens": None}},
        {"cost_usd": 0.5},
        {"cost_usd": 2, "output_tokens": 1},
        {},
    ]
    for usage in replies:
        found = prices.read_usage({"usage": usage})
        teller.say(usage, str(found), None if found is None else found.tokens)
    own = prices.read_usage({"said": {"input_tokens": 3}}, lambda reply: reply["said"])
    teller.expect("by a reader of one's own", own, prices.Usage(3, 0, 0, 0))
    for reply in ({"model": "m"}, {"model": ""}, {"model": 3}, {}):
        teller.say(reply, prices.read_model(reply))
