"""Other stores of memory, filled and asked in the same way, in an interpreter in which they are installed.

INTERLOCK_BENCH_RIVALS names that interpreter (`pip install langgraph-checkpoint-sqlite mem0ai` in a virtual
environment of its own: their pins clash with those of others); else this one is tried. Telemetry is off, and nothing
is fetched: vectors come from a table of random ones, so that what a model takes is in no figure.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["rivals"]

USERS = 10
ASKED = 300
# One `add` of mem0 takes milliseconds: more would take hours.
MOST_OF_MEM0 = 5_000
PATIENCE_S = 1_200


def rivals(facts: int, tenants: int) -> list[tuple[str, list[float], int, str]]:
    """Return name, milliseconds a search, facts and a note of each that could be measured."""
    python = os.environ.get("INTERLOCK_BENCH_RIVALS", sys.executable)
    environment = {**os.environ, "MEM0_TELEMETRY": "False", "POSTHOG_DISABLED": "1", "ANONYMIZED_TELEMETRY": "False"}
    found: list[tuple[str, list[float], int, str]] = []
    for name in MEASURED:
        command = [python, __file__, name, str(facts), str(tenants)]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
        except subprocess.TimeoutExpired:
            print(f"{name} is left out: it took more than {PATIENCE_S} s", file=sys.stderr)
            continue
        if done.returncode:
            print(f"{name} is left out: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            continue
        said = json.loads(done.stdout.splitlines()[-1])
        found.append((said["name"], said["ms"], said["facts"], said["note"]))
    return found


def places(tenants: int, times: int, seed: int) -> list[tuple[str, str]]:
    """Return tenants and users by chance."""
    chance = random.Random(seed)
    return [(f"tenant-{chance.randrange(tenants)}", f"user-{chance.randrange(USERS)}") for _ in range(times)]


def timed(search: Callable[[str, str], Any], tenants: int) -> list[float]:
    """Return the milliseconds of each search; the first tenth is for caches."""
    found = []
    for tenant, user in places(tenants, ASKED, 3):
        begun = time.perf_counter()
        search(tenant, user)
        found.append((time.perf_counter() - begun) * 1e3)
    return found[ASKED // 10 :]


def text(chance: random.Random) -> str:
    """Return a dozen words."""
    return " ".join(f"word{int(chance.paretovariate(0.6)) % 5_000}" for _ in range(12))


def langgraph(facts: int, tenants: int, directory: str) -> dict[str, Any]:
    """LangGraph's SqliteStore; without sqlite-vec it has no search by text, and lists a namespace."""
    from importlib.metadata import version

    from langgraph.store.base import PutOp
    from langgraph.store.sqlite import SqliteStore

    chance = random.Random(1)
    with SqliteStore.from_conn_string(str(Path(directory) / "store.db")) as store:
        store.setup()
        owners = places(tenants, facts, 2)
        for at in range(0, facts, 1_000):
            store.batch(
                [PutOp(owner, f"k{at + n}", {"text": text(chance)}) for n, owner in enumerate(owners[at : at + 1_000])]
            )
        ms = timed(lambda tenant, user: store.search((tenant, user), limit=8), tenants)
    name = f"LangGraph SqliteStore {version('langgraph-checkpoint-sqlite')}"
    return {"name": name, "ms": ms, "facts": facts, "note": "lists a namespace: it has no search for words"}


def mem0(facts: int, tenants: int, directory: str) -> dict[str, Any]:
    """mem0's local store, with qdrant on disk and vectors out of a table."""
    from importlib.metadata import version

    from langchain_core.embeddings import Embeddings
    from mem0 import Memory

    class Table(Embeddings):
        def __init__(self) -> None:
            self._chance = random.Random(5)
            self._table = [[self._chance.gauss(0, 1) for _ in range(384)] for _ in range(256)]

        def embed_query(self, text: str) -> list[float]:
            return self._chance.choice(self._table)

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [self.embed_query(text) for text in texts]

    facts = min(facts, MOST_OF_MEM0)
    memory = Memory.from_config(
        {
            "vector_store": {
                "provider": "qdrant",
                "config": {"path": f"{directory}/qdrant", "on_disk": True, "embedding_model_dims": 384},
            },
            "embedder": {"provider": "langchain", "config": {"model": Table()}},
            "llm": {"provider": "openai", "config": {"api_key": "none"}},
            "history_db_path": f"{directory}/history.db",
        }
    )
    chance, owners = random.Random(1), places(tenants, facts, 2)
    begun = time.perf_counter()
    for tenant, user in owners:
        memory.add(text(chance), user_id=f"{tenant}/{user}", infer=False)
    added = (time.perf_counter() - begun) / facts * 1e3
    ms = timed(
        lambda tenant, user: memory.search("word1 word2 word3", filters={"user_id": f"{tenant}/{user}"}), tenants
    )
    note = f"qdrant on disk, no model's time; an `add` took {added:.0f} ms, so that no more facts were filled"
    return {"name": f"mem0 {version('mem0ai')}", "ms": ms, "facts": facts, "note": note}


MEASURED: dict[str, Callable[[int, int, str], dict[str, Any]]] = {"langgraph": langgraph, "mem0": mem0}


def main() -> None:
    """Measure one, and print it."""
    name, facts, tenants = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        found = MEASURED[name](int(facts), int(tenants), directory)
    print(f"{name}: p50 {statistics.median(found['ms']):.2f} ms", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
