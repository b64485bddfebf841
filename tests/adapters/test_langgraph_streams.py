"""A graph of one's own whose model answers in pieces: what cannot be read in them is told to the model, as in whole."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langchain_scene import USAGE, Streaming, World, gate, given, graph, says

from interlock import StopReason


class Slip(Streaming):
    """Streams, at its first turn, a call whose arguments are no JSON."""

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        if self.asked:
            yield from super()._stream(messages, stop=stop, run_manager=run_manager, **kwargs)
            return
        self.asked.append(messages)
        for args in ('{"q": "lo', 'g in"]'):
            call = {"name": "search", "args": args, "id": "c1", "index": 0}
            piece = AIMessageChunk("", id="r1", tool_call_chunks=[call])
            yield ChatGenerationChunk(message=piece)
        yield ChatGenerationChunk(message=AIMessageChunk("", id="r1", usage_metadata=USAGE))


@pytest.mark.parametrize("way", ["astream", "stream"])
async def test_a_streamed_call_that_cannot_be_read_is_refused_and_not_the_end(way):
    world = World()

    @tool
    def search(q: str) -> str:
        """Search."""
        world.done["search"] += 1
        return q

    chat = Slip(script=[None, says("done")], asked=[], offered=[])
    async with gate() as g:
        work = graph(g, chat, [search])

        async def body(_run, _task):
            pieces = [piece async for piece, _ in work.astream(given(), stream_mode="messages")]
            return pieces[-1].text

        def sync_body(_run, _task):
            return [piece for piece, _ in work.stream(given(), stream_mode="messages")][-1].text

        result = await g.run(sync_body if way == "stream" else body, "go")
    assert (result.reason, result.steps) == (StopReason.SUCCESS, 2)
    assert world.done == {}
    (refused,) = [message for message in chat.asked[1] if message.type == "tool"]
    assert refused.tool_call_id == "c1"
    assert refused.status == "error"
