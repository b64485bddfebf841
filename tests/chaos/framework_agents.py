"""One agent for each framework, in the framework's own runtime, on a scripted model server; for `--agent`.

`framework_agents:pydantic_ai` and so on open their runs themselves, as the frameworks' entrances do. The model turns
pages, tries again what failed and does as it is told; it speaks over HTTP, and what it was told is kept.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path

from interlock import Interlock
from interlock.chaos.suite import GOLDEN, load_suite
from interlock.chaos.trying import try_once

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from conformance.column import Job, Tool  # noqa: E402 - beside `tests`, not in the product
from conformance.conversation import Turn, Use  # noqa: E402
from conformance.model import ModelServer  # noqa: E402
from framework_models import try_all  # noqa: E402 - needs the same path

MODEL = "gpt-4o"
ANTHROPIC = "claude-sonnet-5-5"
TRIES, PAGES = 12, 60
TOLD: list[str] = []

gate = Interlock({"logging": {"level": "error"}}, store="sqlite:///:memory:")


async def search_read(query: str, page: int = 1) -> dict:
    """Search the knowledge base."""
    return {"results": [{"title": f"About {query}, page {page}"}], "partial": False, "next_page": None}


async def db_write(table: str) -> dict:
    """Write a row."""
    return {"written": table}


def parameters(**properties):
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties)[:1],
        "additionalProperties": False,
    }
    return {**schema}


TOOLS = (
    Tool("search_read", "Search the knowledge base.", search_read,
         parameters(query={"type": "string"}, page={"type": "integer"}), "read"),
    Tool("db_write", "Write a row.", db_write, parameters(table={"type": "string"}), "write"),
)  # fmt: skip


def script(seen):
    """Answer as the article's agents did."""
    heard = [each.text for each in seen.heard if each.tool == "search_read"]
    TOLD.extend(each.text for each in seen.heard)
    if "call db.write" in seen.told and not seen.times("db_write"):
        return Turn((Use("db_write", {"table": "users"}),))
    if heard and re.search(r"partial\W+true", heard[-1], re.IGNORECASE) and len(heard) < PAGES:
        return Turn((Use("search_read", {"query": "log in", "page": len(heard) + 1}),))
    found = any("About" in text for text in heard)
    if len(heard) < (4 if found else TRIES):
        return Turn((Use("search_read", {"query": f"log in, try {len(heard)}"}),))
    return Turn(text="That is what is known." if found else "I could not find anything.")


def entrance(name):
    column = importlib.import_module(f"conformance.columns.{name}").COLUMN

    async def agent(gate, task, **options):
        server = ModelServer(lambda _session: script, lambda _seen: False, lambda seen: bool(seen.offered))
        await server.start()
        try:
            url = f"{server.url}/chaos/1"
            model = ANTHROPIC if column.wire == "anthropic" else MODEL
            job = Job(
                "Use the tools.", str(task or "Users cannot log in."), TOOLS, f"{url}/v1", url, model, options=options
            )
            return await column.guarded(job, gate)
        finally:
            await server.close()

    return agent


def __getattr__(name):
    if name.startswith("_") or not (ROOT / "conformance" / "columns" / f"{name}.py").exists():
        raise AttributeError(name)
    return entrance(name)


# The article's words on the wire: models know no dots. Times are small, as frameworks work in real time.
CONFIG = {
    "profile": "article",
    "agent": {
        "budgets": {"max_steps": 20, "max_seconds": 60, "max_usd": 5.0},
        "stop_on": [
            "step_budget", "tool_budget", "time_budget", "cost_budget", "loop_detected", "no_progress", "killed",
            "outcome_unknown", "tool_auth_failed", "tool_output_invalid", "tool_rate_limit",
        ],
    },
    "tools": {
        "allow": ["search_read"],
        "deny": ["db_write"],
        "idempotency_required": [],
        "effects": {"search_read": "read", "db_write": "write"},
        "invariants": {"search_read": ["output.partial in [True, False]"]},
        "timeouts_s": {"default": 0.3},
        "retries": {"max_attempts": 3, "backoff_ms": [20, 40]},
    },
    "prices": {
        name: {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10.0}
        for name in (MODEL, f"openai:{MODEL}", ANTHROPIC, f"anthropic:{ANTHROPIC}")
    },
    "logging": {"level": "error"},
}  # fmt: skip


def main(name, *plan):
    """Try the six golden tasks on a framework's agent, and faults of the model (`KIND:whole`): a line of JSON each."""
    suite = replace(load_suite(GOLDEN), profile=None, config=CONFIG, clock="real", seed=1)
    agent = entrance(name)
    for task in suite.tasks:
        TOLD.clear()
        tried = try_once(agent, gate, suite, task, seed=suite.seed)
        print(json.dumps({**asdict(tried), "name": task.name, "told": TOLD}), flush=True)
    column = importlib.import_module(f"conformance.columns.{name}").COLUMN
    model = ANTHROPIC if column.wire == "anthropic" else MODEL
    words = [(kind, how == "streamed") for kind, _, how in (word.partition(":") for word in plan)]
    for tried in try_all(column, gate, CONFIG, model, words):
        print(json.dumps(tried), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
