"""A gate on the embedded store, and a remote that counts effects and misbehaves as told."""

import asyncio

import pytest

import interlock

MEMORY = "sqlite:///:memory:"


class HttpError(Exception):
    def __init__(self, status, headers=None):
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = headers or {}


class Remote:
    """Counts effects by key. `script` says of each send: `ok`, `lost` (done, answer lost), a status, or a callable."""

    def __init__(self, *script, dedupes=True):
        self.script = list(script)
        self.dedupes = dedupes
        self.effects = []
        self.sends = 0

    def send(self, key=None, **fields):
        self.sends += 1
        word = self.script.pop(0) if self.script else "ok"
        if callable(word):
            word = word()
        if isinstance(word, int):
            raise HttpError(word)
        answer = self._perform(key, fields)
        if word == "lost":
            raise HttpError(502)
        if word == "timeout":
            raise TimeoutError
        return answer

    def _perform(self, key, fields):
        if self.dedupes and key is not None:
            for effect in self.effects:
                if effect["key"] == key:
                    return effect["answer"]
        answer = {"id": str(len(self.effects) + 1)}
        self.effects.append({"key": key, "answer": answer, **fields})
        return answer

    def lookup(self, key):
        return next((e["answer"] for e in self.effects if e["key"] == key), None)


@pytest.fixture
def remote():
    return Remote


@pytest.fixture
async def make_gate():
    gates = []

    def make(config=None, **options):
        config = {"tools": {"retries": {"backoff_ms": [1], "max_attempts": 3}}} if config is None else config
        gate = interlock.Interlock(config, **{"store": MEMORY, **options})
        gates.append(gate)
        return gate

    yield make
    for gate in gates:
        await gate.aclose()
    await asyncio.sleep(0)
