"""The remote of the proofs, in a process of its own: it counts what really happened, by what was meant.

One JSON line a request over a Unix socket. It finishes what it has received even when its caller is dead,
deduplicates on the key only for tools that promise it, and may lose an answer or refuse, by its seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys

LONGEST_S = 0.015


class Remote:
    """What happened, in order: (tool, meant, key, value) for each effect."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.effects = []
        self.by_key = {}
        self.lost = self.refused = 0.0
        self.under_way = self.received = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def answer(self, ask):
        return await getattr(self, "do_" + ask.pop("do"))(**ask)

    async def count(self, ask):
        """Answer a write; until then this remote is not idle."""
        self.under_way += 1
        self.received += 1
        self.idle.clear()
        try:
            return await self.answer(ask)
        finally:
            self.under_way -= 1
            if not self.under_way:
                self.idle.set()

    async def do_write(self, tool, meant, key, value, dedupes):
        await asyncio.sleep(self.random.uniform(0, LONGEST_S))
        if self.random.random() < self.refused:
            return {"refused": True}
        if not (dedupes and key in self.by_key):
            self.effects.append([tool, meant, key, value])
        self.by_key[key] = {"id": meant}
        await asyncio.sleep(self.random.uniform(0, LONGEST_S))
        return None if self.random.random() < self.lost else {"ok": {"id": meant}}

    async def do_find(self, key):
        return {"ok": self.by_key.get(key)}

    async def do_read(self):
        return {"ok": self.random.random()}

    async def do_faults(self, lost, refused):
        self.lost, self.refused = lost, refused
        return {"ok": True}

    async def do_received(self):
        """Return how many writes have been asked for."""
        return {"ok": self.received}

    async def do_effects(self):
        """Return what happened, once nothing that was received is under way any more."""
        await self.idle.wait()
        return {"ok": self.effects}

    async def serve(self, reader, writer):
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            line = await reader.readline()
            if not line.endswith(b"\n"):
                return  # its caller died while it spoke: nothing was asked for
            asked = json.loads(line)
            answer = await (self.count(asked) if asked["do"] == "write" else self.answer(asked))
            if answer is not None:
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()


async def ask(path, asked=None, **words):
    """Ask the remote, and return its answer; None where the connection was closed without one.

    `asked` (an event) is set once the request has left this process.
    """
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 26)
    try:
        writer.write(json.dumps(words).encode() + b"\n")
        await writer.drain()
        if asked is not None:
            asked.set()
        line = await reader.readline()
    finally:
        writer.close()
    return json.loads(line) if line.endswith(b"\n") else None


async def main(path, seed):
    server = await asyncio.start_unix_server(Remote(int(seed)).serve, path, limit=1 << 26, backlog=1024)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
