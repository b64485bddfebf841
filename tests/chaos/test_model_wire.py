"""Faults of the model on the wire: what the vendors' own clients get of each, whole and streamed, in each dialect."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import sys
import time
from pathlib import Path

import anthropic
import httpx
import openai
import pytest
from aiohttp import web

from interlock.chaos.proxy import FaultProxy
from interlock.chaos.spoken import spoken_wire_fault

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from conformance.conversation import Turn, Use  # noqa: E402 - beside `tests`, not in the product
from conformance.model import ModelServer  # noqa: E402

ARGS = {"title": "Users cannot log in", "page": 3}
SAYS = "I open a ticket for that."
CALLS = Turn((Use("open_ticket", ARGS),), text=SAYS)
TEXT = Turn(text=SAYS)
DIALECTS = ("chat", "responses", "anthropic")
TOOLS = {"open_ticket": {"type": "object", "properties": {"title": {"type": "string"}}}}


class Got(dict):
    """What a client makes of an answer: text, calls as (name, arguments as text), why it ended, and its ids."""


class Client:
    """A vendor's own client, its own retries off."""

    def __init__(self, dialect, base, *, stream, told="Be brief.", retries=0):
        self.dialect, self.stream, self.told = dialect, stream, told
        words = {"api_key": "k", "max_retries": retries}
        if dialect == "anthropic":
            self.client = anthropic.AsyncAnthropic(base_url=f"{base}/s/1", **words)
        else:
            self.client = openai.AsyncOpenAI(base_url=f"{base}/s/1/v1", **words)

    async def ask(self, prompt="Log-in fails"):
        return await getattr(self, f"_{self.dialect}")(prompt)

    async def _chat(self, prompt):
        messages = [{"role": "system", "content": self.told}, {"role": "user", "content": prompt}]
        tools = [{"type": "function", "function": {"name": n, "parameters": s}} for n, s in TOOLS.items()]
        words = {"model": "gpt-4o", "messages": messages, "tools": tools}
        if not self.stream:
            reply = await self.client.chat.completions.create(**words)
            choice = reply.choices[0]
            calls = [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()]
            ids = [c.id for c in choice.message.tool_calls or ()]
            return Got(text=choice.message.content, calls=calls, end=choice.finish_reason, ids=ids)
        text, calls, end, ids = "", {}, None, []
        async for chunk in await self.client.chat.completions.create(**words, stream=True):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                end = choice.finish_reason or end
                for call in choice.delta.tool_calls or ():
                    ids += [call.id] if call.id else []
                    old = calls.get(call.index, ("", ""))
                    calls[call.index] = (old[0] + (call.function.name or ""), old[1] + call.function.arguments)
        return Got(text=text, calls=list(calls.values()), end=end, ids=ids)

    async def _responses(self, prompt):
        tools = [{"type": "function", "name": n, "parameters": s, "strict": False} for n, s in TOOLS.items()]
        words = {"model": "gpt-4o", "instructions": self.told, "input": prompt, "tools": tools}
        deltas = {"text": "", "args": ""}
        if self.stream:
            numbers = []
            async for event in await self.client.responses.create(**words, stream=True):
                numbers.append(event.sequence_number)
                deltas["text"] += event.delta if event.type == "response.output_text.delta" else ""
                deltas["args"] += event.delta if event.type == "response.function_call_arguments.delta" else ""
            reply = event.response
            assert event.type == f"response.{reply.status}"
            assert numbers == list(range(len(numbers)))
        else:
            reply = await self.client.responses.create(**words)
        items = [item for item in reply.output if item.type == "function_call"]
        if self.stream:
            assert deltas == {"text": reply.output_text, "args": "".join(item.arguments for item in items)}
        calls = [(item.name, item.arguments) for item in items]
        why = reply.incomplete_details and reply.incomplete_details.reason
        return Got(text=reply.output_text, calls=calls, end=why or reply.status, ids=[i.call_id for i in items])

    async def _anthropic(self, prompt):
        tools = [{"name": n, "input_schema": s} for n, s in TOOLS.items()]
        words = {"model": "claude", "system": self.told, "max_tokens": 99, "tools": tools}
        words["messages"] = [{"role": "user", "content": prompt}]
        if not self.stream:
            reply = await self.client.messages.create(**words)
            text = "".join(b.text for b in reply.content if b.type == "text")
            uses = [b for b in reply.content if b.type == "tool_use"]
            calls = [(b.name, json.dumps(b.input)) for b in uses]
            return Got(text=text, calls=calls, end=reply.stop_reason, ids=[b.id for b in uses])
        text, calls, end, ids = "", {}, None, []
        async for event in await self.client.messages.create(**words, stream=True):
            if event.type == "content_block_start" and event.content_block.type == "tool_use":
                calls[event.index] = (event.content_block.name, "")
                ids.append(event.content_block.id)
            elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                text += event.delta.text
            elif event.type == "content_block_delta":
                calls[event.index] = (calls[event.index][0], calls[event.index][1] + event.delta.partial_json)
            elif event.type == "message_delta":
                end = event.delta.stop_reason
        return Got(text=text, calls=list(calls.values()), end=end, ids=ids)


@contextlib.asynccontextmanager
async def asking(dialect, *faults, turn=CALLS, stream=False, told=None, **words):
    """A scripted model behind a proxy with these faults, and a client of it."""
    turns = iter(turn) if isinstance(turn, list) else None
    server = ModelServer(lambda _: lambda _: next(turns) if turns else turn, lambda _: False, lambda _: True)
    await server.start()
    try:
        faults = [spoken_wire_fault(fault) for fault in faults]
        async with FaultProxy(server.url.removeprefix("http://"), faults, framing="model", told=told) as proxy:
            client = Client(dialect, f"http://{proxy.address}", stream=stream, **words)
            try:
                yield proxy, client
            finally:
                await client.client.close()
    finally:
        await server.close()


every = pytest.mark.parametrize("dialect", DIALECTS)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
TRUNCATED = {"chat": "length", "responses": "max_output_tokens", "anthropic": "max_tokens"}
ENDED = {"chat": "stop", "responses": "completed", "anthropic": "end_turn"}
USED = {"chat": "tool_calls", "responses": "completed", "anthropic": "tool_use"}


@every
@both
async def test_what_no_fault_concerns_is_what_the_model_said(dialect, stream):
    async with asking(dialect, "model_empty calls=[2]", "model_repeats calls=[9]", stream=stream) as (proxy, client):
        assert (await client.ask()).items() >= {"text": SAYS, "end": USED[dialect]}.items()
        assert proxy.injected == {}


@every
@both
async def test_truncated(dialect, stream):
    async with asking(dialect, "model_truncated", stream=stream) as (proxy, client):
        got = await client.ask()
    said = len(SAYS) + len(json.dumps(ARGS))
    assert (got["text"], got["end"]) == (SAYS, TRUNCATED[dialect])
    ((name, arguments),) = got["calls"]
    assert name == "open_ticket"
    if dialect == "anthropic" and not stream:
        assert json.loads(arguments) == {"title": ARGS["title"]}  # comes parsed: half of it
    else:
        assert len(got["text"] + arguments) == said // 2
        assert json.dumps(ARGS).startswith(arguments)
    assert proxy.injected == {"model_truncated": 1}


@every
@both
async def test_a_text_is_truncated_in_its_midst_and_calls_after_the_cut_are_lost(dialect, stream):
    turn = Turn((Use("open_ticket", {}), Use("open_ticket", {})), text=SAYS * 3)
    async with asking(dialect, "model_truncated", turn=turn, stream=stream) as (_, client):
        got = await client.ask()
    assert (got["text"], got["calls"]) == ((SAYS * 3)[: (len(SAYS) * 3 + 4) // 2], [])
    assert got["end"] == TRUNCATED[dialect]


@every
@both
async def test_empty(dialect, stream):
    async with asking(dialect, "model_empty", stream=stream) as (proxy, client):
        got = await client.ask()
    assert (got["text"] or "", got["calls"], got["end"]) == ("", [], ENDED[dialect])
    assert proxy.injected == {"model_empty": 1}


@every
@both
async def test_malformed_arguments(dialect, stream):
    async with asking(dialect, "model_malformed_arguments", stream=stream) as (proxy, client):
        got = await client.ask()
    ((name, arguments),) = got["calls"]
    assert (got["text"], name, got["end"]) == (SAYS, "open_ticket", USED[dialect])
    if dialect == "anthropic" and not stream:
        assert json.loads(arguments) == {"not_an_argument": [1, 2]}  # comes parsed: no tool has that
    else:
        with pytest.raises(ValueError, match="delimiter"):
            json.loads(arguments)
        assert arguments[:-1] == json.dumps(ARGS)[:-1]
    assert proxy.injected == {"model_malformed_arguments": 1}


@every
@both
async def test_an_unknown_tool(dialect, stream):
    async with asking(dialect, "model_unknown_tool", stream=stream) as (proxy, client):
        got = await client.ask()
    assert got["calls"] == [("tool_that_does_not_exist", json.dumps(ARGS))]
    assert (got["text"], got["end"]) == (SAYS, USED[dialect])
    assert proxy.injected == {"model_unknown_tool": 1}


@every
@both
async def test_it_repeats_itself_with_ids_of_its_own(dialect, stream):
    later = [CALLS, TEXT, TEXT, TEXT]
    async with asking(dialect, "model_repeats calls=[1, 2, 3]", turn=later, stream=stream) as (proxy, client):
        first, second, third, fourth = [await client.ask() for _ in range(4)]
    assert first["calls"] == second["calls"] == third["calls"] == [("open_ticket", json.dumps(ARGS))]
    assert len({*first["ids"], *second["ids"], *third["ids"]}) == 3
    assert (fourth["text"], fourth["calls"]) == (SAYS, [])
    # Of the first, there was nothing to repeat.
    assert proxy.injected == {"model_repeats": 2}


@every
async def test_what_another_conversation_heard_is_not_repeated(dialect):
    async with asking(dialect, "model_repeats", turn=[CALLS, TEXT, TEXT]) as (proxy, client):
        await client.ask("One thing")
        assert (await client.ask("Another thing"))["calls"] == []
        assert proxy.injected == {}
        assert (await client.ask("One thing"))["calls"] != []
        await proxy.arm([spoken_wire_fault("model_repeats")])
        with pytest.raises((openai.APIError, anthropic.APIError)):  # the script is over: so it was asked
            await client.ask("One thing")


@every
@both
async def test_slow(dialect, stream):
    """A slow answer is the same answer; the client may give up before."""
    async with asking(dialect, "model_slow delay_s=0.2", stream=stream) as (proxy, client):
        began = time.monotonic()
        got = await client.ask()
        assert time.monotonic() - began >= 0.2
        assert (got["text"], got["calls"]) == (SAYS, [("open_ticket", json.dumps(ARGS))])
        assert proxy.injected == {"model_slow": 1}
        await proxy.arm([spoken_wire_fault("model_slow")])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.ask()


@pytest.mark.parametrize("dialect", ["chat", "anthropic"])
async def test_a_slow_stream_comes_piece_by_piece(dialect):
    async with asking(dialect, "model_slow delay_s=0.4") as (proxy, _):
        path, body = ("/v1/chat/completions", {}) if dialect == "chat" else ("/v1/messages", {"max_tokens": 9})
        body |= {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        at = []
        async with (
            httpx.AsyncClient() as http,
            http.stream("POST", f"http://{proxy.address}/s/1{path}", json=body) as reply,
        ):
            async for piece in reply.aiter_bytes():
                at += [time.monotonic()] * piece.count(b"data:")
    assert len(at) > 8
    assert at[-1] - at[0] >= 0.2  # nor did they come together


@every
@both
async def test_rate_limited_and_the_clients_own_retry(dialect, stream):
    fault = "model_rate_limited calls=[1] retry_after_s=0.01"
    async with asking(dialect, fault, stream=stream) as (proxy, client):
        with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)) as caught:
            await client.ask()
        assert caught.value.response.headers["retry-after"] == "0.01"
        error = caught.value.body if dialect == "anthropic" else {"error": caught.value.body}
        assert error["error"]["type"] in {"rate_limit_error", "requests"}
        assert proxy.requests == 1
        assert (await client.ask())["calls"]
    async with asking(dialect, fault, stream=stream, retries=2) as (proxy, client):
        assert (await client.ask())["calls"]
        assert (proxy.requests, proxy.injected) == (2, {"model_rate_limited": 1})


@every
@both
@pytest.mark.parametrize("kind", ["model_unknown_tool", "model_malformed_arguments"])
async def test_a_text_has_no_tool_to_spoil(dialect, stream, kind):
    told = []
    async with asking(dialect, kind, turn=TEXT, stream=stream, told=told.append) as (proxy, client):
        assert (await client.ask()).items() >= {"text": SAYS, "calls": []}.items()
        assert (proxy.injected, told) == ({}, [])


async def test_faults_of_the_wire_go_with_those_of_the_model():
    async with asking("chat", "model_unknown_tool", "drip delay_s=0 chunk_bytes=5", "latency delay_s=0.01") as (
        proxy,
        client,
    ):
        assert (await client.ask())["calls"][0][0] == "tool_that_does_not_exist"
        assert proxy.injected == {"model_unknown_tool": 1, "drip": 1, "latency": 1}
    async with asking("chat", "model_unknown_tool", "reset_mid_body") as (_, client):
        with pytest.raises(openai.APIConnectionError):
            await client.ask()
    async with asking("chat", "model_empty", "answer_lost status=502 calls=[1]") as (_, client):
        with pytest.raises(openai.InternalServerError):
            await client.ask()


async def test_only_turns_count_and_the_others_pass():
    async with asking("anthropic", "model_empty calls=[1]") as (proxy, client):
        words = {"model": "claude", "messages": [{"role": "user", "content": "x"}]}
        assert (await client.client.messages.count_tokens(**words)).input_tokens == 1_000
        assert (await client.ask())["text"] == ""
        assert (proxy.requests, proxy.injected) == (2, {"model_empty": 1})


@contextlib.asynccontextmanager
async def answering(body, *, kind="application/json", status=200, raw=False, **headers):
    """A proxy before a server that always answers the same; returns where, and what it was asked for."""
    asked = []

    async def answer(request):
        asked.append(request.headers.get("Accept-Encoding"))
        if raw:  # no length, no chunks: it ends where the server hangs up
            request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)
            request.transport.close()
            return web.Response()
        return web.Response(body=body, status=status, content_type=kind, headers=headers)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    to = "{}:{}".format(*runner.addresses[0][:2])
    try:
        async with (
            FaultProxy(to, [spoken_wire_fault("model_empty")], framing="model") as proxy,
            httpx.AsyncClient() as http,
        ):

            async def ask():
                return await http.post(f"http://{proxy.address}/v1/chat/completions", json={"messages": []})

            yield ask, proxy, asked
    finally:
        await runner.cleanup()


CHAT = {"choices": [{"message": {"role": "assistant", "content": SAYS}, "finish_reason": "stop"}]}


async def test_an_answer_that_is_coded_is_read_all_the_same():
    body = gzip.compress(json.dumps(CHAT).encode())
    async with answering(body, **{"Content-Encoding": "gzip"}) as (ask, proxy, asked):
        assert (await ask()).json()["choices"][0]["message"]["content"] == ""
        assert (asked, proxy.injected) == (["identity"], {"model_empty": 1})


async def test_an_answer_that_ends_where_the_server_hangs_up():
    async with answering(json.dumps(CHAT).encode(), raw=True) as (ask, proxy, _):
        assert (await ask()).json()["choices"][0]["message"]["content"] == ""
        assert proxy.injected == {"model_empty": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"no json",
        b'{"choices": 3}',
        b'{"choices": [{"message": "x"}]}',
        b'{"choices": [7]}',
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_what_is_no_answer_of_a_model_passes_as_it_is(body, kind):
    data = b"data: " + body + b"\n\n" if kind == "text/event-stream" else body
    async with answering(data, kind=kind) as (ask, proxy, _):
        assert (await ask()).content == data
        assert proxy.injected == {}


async def test_an_error_and_an_unknown_coding_pass_as_they_are():
    body = json.dumps(CHAT).encode()
    async with answering(body, status=500) as (ask, proxy, _):
        reply = await ask()
        assert (reply.status_code, reply.content, proxy.injected) == (500, body, {})
    async with answering(body, **{"Content-Encoding": "x-own"}) as (ask, proxy, _):
        assert ((await ask()).content, proxy.injected) == (body, {})
