"""Hand-written loops: the vendors' own clients, over HTTP, against the scripted model of the conformance matrix."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import asynccontextmanager

import pytest
from adapter_scenes import Remote, make_gate
from anthropic import Anthropic, AsyncAnthropic
from conformance.conversation import Turn, Use
from conformance.model import ModelServer
from openai import AsyncOpenAI, OpenAI

import interlock
from interlock.adapters import chat
from interlock.core.errors import ConfigError, RunStopped

CHAT, RESPONSES, ANTHROPIC = "chat", "responses", "anthropic"
FORMS = (CHAT, RESPONSES, ANTHROPIC)


@asynccontextmanager
async def model(*turns):
    """Serve a model that says these turns."""
    server = ModelServer(lambda _: lambda seen: turns[min(seen.turn, len(turns)) - 1], lambda _: False, lambda _: True)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def client_of(form, url, *, sync=False):
    base = f"{url}/s/1"
    if form == ANTHROPIC:
        return (Anthropic if sync else AsyncAnthropic)(base_url=base, api_key="x", max_retries=0)
    return (OpenAI if sync else AsyncOpenAI)(base_url=f"{base}/v1", api_key="x", max_retries=0)


def create_of(form, client):
    if form == ANTHROPIC:
        return client.messages.create
    return client.chat.completions.create if form == CHAT else client.responses.create


def request(form, messages):
    if form == ANTHROPIC:
        return {"model": "claude-scripted", "max_tokens": 100, "messages": messages}
    return {"model": "gpt-4o", "messages" if form == CHAT else "input": messages}


def said(form, reply):
    """The messages that a loop appends for a reply."""
    if form == CHAT:
        return [reply.choices[0].message]
    return [{"role": "assistant", "content": reply.content}] if form == ANTHROPIC else list(reply.output)


async def loop(run, tools, form, create, *, stream=False, pieces=None):
    messages = [{"role": "user", "content": "go"}]
    while True:
        if stream:
            async with chat.stream(run, create, **request(form, messages)) as reading:
                async for piece in reading:
                    if pieces is not None:
                        pieces.append(piece)
            reply = reading.reply
        else:
            reply = await chat.ask(run, create, **request(form, messages))
        messages += said(form, reply)
        if not chat.uses_of(reply):
            return chat.text_of(reply)
        messages += await tools.results(run, reply)


def ticket(remote):
    async def ticket_create(title: str) -> dict:
        return remote.act(title)

    return {"ticket_create": ticket_create}


def told(server):
    return server.asked("s").told()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", FORMS)
async def test_a_loop_in_each_format_plain_and_streamed(opened, form, stream):
    remote, gate = Remote(), opened(prices=PRICES)
    uses = (Use("ticket_create", {"title": "a"}), Use("ticket_create", {"title": "b"}))
    async with model(Turn(uses), Turn(text="done")) as server:
        tools = chat.Tools(gate, ticket(remote))

        async def agent(run, _task):
            async with client_of(form, server.url) as client:
                return await loop(run, tools, form, create_of(form, client), stream=stream)

        result = await gate.run(agent, "go")
        assert (result.reason, result.output, result.steps, remote.effects) == ("success", "done", 2, ["a", "b"])
        assert told(server) == ['{"n":1}', '{"n":2}']
        assert result.tokens == 2 * 1_050
        assert result.cost_usd == pytest.approx(2 * (1_000 * 2.5 + 50 * 10) / 1e6)


PRICE = {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10.0}
PRICES = {"openai:gpt-4o": PRICE, "anthropic:claude-scripted": PRICE}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", FORMS)
async def test_a_run_that_is_taken_up_again_asks_the_model_nothing_twice(tmp_path, form, stream):
    remote = Remote()
    config = {
        "tools": {"allow": ["*"], "writes": {"ticket_create": {"approval": "required"}}},
        "approvals": {"wait_s": 0},
        "agent": {"budgets": {"max_usd": None}},
        "logging": {"level": "error"},
    }
    async with model(Turn((Use("ticket_create", {"title": "a"}),), text="I try."), Turn(text="done")) as server:

        async def deliver(pieces):
            gate = interlock.Interlock(config, store=f"sqlite:///{tmp_path / 'i.db'}")
            tools = chat.Tools(gate, ticket(remote))

            async def agent(run, _task):
                async with client_of(form, server.url) as client:
                    return await loop(run, tools, form, create_of(form, client), stream=stream, pieces=pieces)

            result = await gate.run(agent, "go", request_id="r1")
            for row in await gate.house().store.approvals.list():
                await gate.house().store.approvals.decide(row.id, True, "me")
            await gate.aclose()
            return result

        first, second = [], []
        assert (await deliver(first)).reason == "approval_pending"
        assert server.asked("s").requests == 1
        done = await deliver(second)
        assert (done.reason, done.output, done.steps, remote.effects) == ("success", "done", 2, ["a"])
        assert server.asked("s").requests == 2
    # What is replayed comes in the same kind of pieces, fewer of them.
    if stream:
        assert {type(piece).__module__.partition(".")[0] for piece in second} == {
            "anthropic" if form == ANTHROPIC else "openai"
        }


async def test_a_refusal_stands_beside_what_its_siblings_did(opened):
    remote, gate = Remote(), opened(deny=["row_append"])

    async def row_append(table: str) -> dict:
        return remote.act(table)

    uses = (Use("row_append", {"table": "t"}), Use("ticket_create", {"title": "a"}), Use("ticket_purge", {}))
    async with model(Turn(uses), Turn(text="done")) as server:
        tools = chat.Tools(gate, {**ticket(remote), "row_append": row_append})

        async def agent(run, _task):
            async with client_of(CHAT, server.url) as client:
                return await loop(run, tools, CHAT, create_of(CHAT, client))

        result = await gate.run(agent, "go")
        assert (result.reason, remote.effects) == ("success", ["a"])
        denied, made, unknown = told(server)
        assert denied.startswith("This tool is not permitted here.")
        assert made == '{"n":1}'
        assert "not permitted" in unknown


async def test_after_a_stop_every_use_is_answered_and_the_next_turn_raises(opened):
    remote, gate = Remote(lost=1), opened()
    uses = tuple(Use("ticket_create", {"title": f"t{i}"}) for i in range(6))
    async with model(Turn(uses[:1]), Turn(uses), Turn(text="done")) as server, client_of(CHAT, server.url) as client:
        tools, create = chat.Tools(gate, ticket(remote)), create_of(CHAT, client)
        async with gate.open_run("go") as run:
            reply = await chat.ask(run, create, **request(CHAT, [{"role": "user", "content": "go"}]))
            answers = await tools.results(run, reply)
            assert "may have happened; it will not be sent again" in answers[0]["content"]
            again = await tools.results(run, reply)
            assert [sorted(answer) for answer in again] == [["content", "role", "tool_call_id"]]
            with pytest.raises(RunStopped):
                await chat.ask(run, create, **request(CHAT, [{"role": "user", "content": "go"}]))
        assert run.result.reason == "outcome_unknown"
        assert len(remote.effects) == 1
        assert server.asked("s").requests == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", [CHAT, ANTHROPIC])
def test_a_sync_loop_with_a_sync_client(form, stream):
    remote, gate = Remote(), make_gate()
    loop_ = asyncio.new_event_loop()
    thread = threading.Thread(target=loop_.run_forever, daemon=True)
    thread.start()
    server = ModelServer(
        lambda _: lambda seen: Turn((Use("ticket_create", {"title": "a"}),)) if seen.turn == 1 else Turn(text="done"),
        lambda _: False,
        lambda _: True,
    )
    asyncio.run_coroutine_threadsafe(server.start(), loop_).result()

    def ticket_create(title: str) -> dict:
        return remote.act(title)

    tools = chat.Tools(gate, {"ticket_create": ticket_create})
    messages = [{"role": "user", "content": "go"}]
    with client_of(form, server.url, sync=True) as client, gate.open_run("go") as run:
        for _ in range(2):
            if stream:
                with chat.stream(run, create_of(form, client), **request(form, messages)) as reading:
                    assert list(reading)
                reply = reading.reply
            else:
                reply = chat.ask(run, create_of(form, client), **request(form, messages))
            messages += said(form, reply)
            messages += tools.results(run, reply)
        run.output = chat.text_of(reply)
    asyncio.run_coroutine_threadsafe(server.close(), loop_).result()
    loop_.call_soon_threadsafe(loop_.stop)
    thread.join()
    loop_.close()
    gate.close()
    assert (run.result.reason, run.result.output, run.result.steps, remote.effects) == ("success", "done", 2, ["a"])


async def test_a_stream_that_breaks_off_is_no_recorded_turn(opened):
    async def create(**_):
        async def pieces():
            yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "I "}}], "model": "m"}
            raise ConnectionError("gone")

        return pieces()

    gate = opened()
    with pytest.raises(ConnectionError):  # noqa: PT012
        async with gate.open_run("go") as run, chat.stream(run, create, model="gpt-4o", messages=[]) as reading:
            async for _ in reading:
                pass
    assert reading.reply is None


async def test_a_stream_is_cut_by_the_runs_deadline(opened):
    async def create(**_):
        async def pieces():
            yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "I "}}], "model": "m"}
            await asyncio.Event().wait()

        return pieces()

    gate = opened(agent={"budgets": {"max_usd": None, "max_seconds": 0.2}})
    async with gate.open_run("go") as run, chat.stream(run, create, model="gpt-4o", messages=[]) as reading:
        async for _ in reading:
            pass
    assert run.result.reason == "time_budget"


async def test_tools_of_the_gate_are_known_by_the_names_that_models_take(opened):
    gate = opened()

    @gate.tool("ticket.create", effect="write")
    async def create_ticket(title: str, *, idempotency_key: str) -> dict:
        return {"title": title, "key": idempotency_key[:4]}

    call = {"id": "c", "type": "function", "function": {"name": "ticket_create", "arguments": '{"title": "a"}'}}
    reply = {"choices": [{"message": {"role": "assistant", "tool_calls": [call]}}]}
    async with gate.open_run("go") as run:
        (answer,) = await chat.Tools(gate).results(run, reply)
    assert json.loads(answer["content"]) == {"title": "a", "key": "il1_"}


async def test_two_tools_of_one_name_are_a_mistake(opened):
    async def one() -> None: ...

    with pytest.raises(ConfigError, match="two tools would be called a_b"):
        chat.Tools(opened(), {"a.b": one, "a_b": one})


async def test_a_streamed_request_is_sent_to_the_right_word(opened):
    async with opened().open_run("go") as run:
        with pytest.raises(ConfigError, match=r"chat\.stream"):
            chat.ask(run, print, stream=True)


async def test_an_effect_is_what_the_configuration_says(opened):
    remote, gate = Remote(lost=2), opened(effects={"ticket_create": "read"})
    call = {"id": "c", "type": "function", "function": {"name": "ticket_create", "arguments": '{"title": "a"}'}}
    reply = {"choices": [{"message": {"role": "assistant", "tool_calls": [call]}}]}
    async with gate.open_run("go") as run:
        (answer,) = await chat.Tools(gate, ticket(remote)).results(run, reply)
    assert (answer["content"], remote.sends) == ('{"n":3}', 3)
