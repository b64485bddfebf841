"""The scripted model speaks three dialects, plain and as streams, well enough for the vendors' own clients."""

from __future__ import annotations

import json

import anthropic
import openai
import pytest
from conformance.conversation import Heard, Turn, Use
from conformance.model import ModelServer

ONE = Use("ticket_create", {"title": "Login outage", "description": 'a "quoted" line\nand — another'})
TWO = Use("search_read", {"query": "why"})
SAID = "There are two tickets, and both — are open."
PARAMETERS = {"type": "object", "properties": {"title": {"type": "string"}}}


def script(seen):
    if seen.turn == 1:
        return Turn((ONE, TWO), input_tokens=321, output_tokens=45)
    return Turn(text=f"{SAID} {seen.last('ticket_create')}")


@pytest.fixture
async def server():
    server = ModelServer(lambda _: script, lambda seen: "nested" in seen.told, lambda seen: bool(seen.offered))
    await server.start()
    yield server
    await server.close()


async def chat(url, *, stream, results=None):
    """Return calls, text and usage of one request, and what to send back with the results."""
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "help"}]
    for message, texts in results or []:
        messages.append(message)
        messages += [{"role": "tool", "tool_call_id": i, "content": text} for i, text in texts.items()]
    tools = [{"type": "function", "function": {"name": n, "parameters": PARAMETERS}} for n in (ONE.tool, TWO.tool)]
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x") as client:
        asked = {"model": "gpt-4o", "messages": messages, "tools": tools}
        if stream:
            async with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
                reply = await events.get_final_completion()
        else:
            reply = await client.chat.completions.create(**asked)
    message = reply.choices[0].message
    calls = [(c.id, c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or []]
    usage = (reply.usage.prompt_tokens, reply.usage.completion_tokens)
    sent = [{"id": i, "type": "function", "function": {"name": n, "arguments": json.dumps(a)}} for i, n, a in calls]
    return calls, message.content, usage, {"role": "assistant", "content": None, "tool_calls": sent}


async def responses(url, *, stream, results=None):
    items = [{"role": "user", "content": "help"}]
    for output, texts in results or []:
        items += output
        items += [{"type": "function_call_output", "call_id": i, "output": text} for i, text in texts.items()]
    tools = [{"type": "function", "name": n, "parameters": PARAMETERS, "strict": False} for n in (ONE.tool, TWO.tool)]
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x") as client:
        asked = {"model": "gpt-4o", "instructions": "be brief", "input": items, "tools": tools}
        if stream:
            async with client.responses.stream(**asked) as events:
                reply = await events.get_final_response()
        else:
            reply = await client.responses.create(**asked)
    found = [item for item in reply.output if item.type == "function_call"]
    calls = [(item.call_id, item.name, json.loads(item.arguments)) for item in found]
    sent = [{"type": "function_call", "call_id": i, "name": n, "arguments": json.dumps(a)} for i, n, a in calls]
    return calls, reply.output_text or None, (reply.usage.input_tokens, reply.usage.output_tokens), sent


async def messages(url, *, stream, results=None):
    said = [{"role": "user", "content": "help"}]
    for content, texts in results or []:
        said.append({"role": "assistant", "content": content})
        blocks = [{"type": "tool_result", "tool_use_id": i, "content": text} for i, text in texts.items()]
        said.append({"role": "user", "content": blocks})
    tools = [{"name": n, "input_schema": PARAMETERS} for n in (ONE.tool, TWO.tool)]
    async with anthropic.AsyncAnthropic(base_url=url, api_key="x") as client:
        asked = {
            "model": "claude-sonnet-5-5",
            "max_tokens": 100,
            "system": "be brief",
            "messages": said,
            "tools": tools,
        }
        if stream:
            async with client.messages.stream(**asked) as events:
                reply = await events.get_final_message()
        else:
            reply = await client.messages.create(**asked)
    calls = [(b.id, b.name, b.input) for b in reply.content if b.type == "tool_use"]
    text = "".join(b.text for b in reply.content if b.type == "text")
    sent = [{"type": "tool_use", "id": i, "name": n, "input": a} for i, n, a in calls]
    return calls, text or None, (reply.usage.input_tokens, reply.usage.output_tokens), sent


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("ask", [chat, responses, messages])
async def test_a_conversation_in_every_dialect(server, ask, stream):
    url = f"{server.url}/row.column.bare/1"
    calls, text, usage, sent = await ask(url, stream=stream)
    assert calls == [("call_1_1", ONE.tool, ONE.args), ("call_1_2", TWO.tool, TWO.args)]
    assert (text, usage) == (None, (321, 45))

    results = {"call_1_1": "made", "call_1_2": "nothing new"}
    calls, text, _, _ = await ask(url, stream=stream, results=[(sent, results)])
    assert (calls, text) == ([], f"{SAID} made")
    heard = server.asked("row.column.bare")
    assert heard.requests == 2
    assert list(heard.heard) == [
        (False, Heard("call_1_1", ONE.tool, "made")),
        (False, Heard("call_1_2", TWO.tool, "nothing new")),
    ]


async def test_a_clients_side_question_is_no_turn(server):
    async with anthropic.AsyncAnthropic(base_url=f"{server.url}/row.column.bare/1", api_key="x") as client:
        asked = [{"role": "user", "content": "a title, please"}]
        reply = await client.messages.create(model="claude-sonnet-5-5", max_tokens=10, messages=asked)
    assert reply.content[0].text
    assert server.asked("row.column.bare").requests == 0


async def test_tools_behind_a_server_s_name_are_called_by_it(server):
    tools = [{"name": f"mcp__desk__{n}", "input_schema": PARAMETERS} for n in (ONE.tool, TWO.tool)]
    async with anthropic.AsyncAnthropic(base_url=f"{server.url}/row.column.bare/1", api_key="x") as client:
        reply = await client.messages.create(
            model="claude-sonnet-5-5", max_tokens=10, messages=[{"role": "user", "content": "help"}], tools=tools
        )
    assert [block.name for block in reply.content] == ["mcp__desk__ticket_create", "mcp__desk__search_read"]


async def test_a_request_that_cannot_be_read_is_the_client_s_fault(server):
    async with openai.AsyncOpenAI(base_url=f"{server.url}/row.column.bare/1/v1", api_key="x") as client:
        with pytest.raises(openai.BadRequestError, match="unreadable"):
            await client.chat.completions.create(model="gpt-4o", messages=["?"], tools=[])
