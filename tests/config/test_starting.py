"""What a process pays for when it starts: the code of what it uses, and not of what it might."""

from __future__ import annotations

import json
import subprocess
import sys

A_GATE = """
import json, sys
import interlock
gate = interlock.Interlock(store="sqlite:///:memory:")

@gate.tool("orders.read", effect="read")
async def search(query: str) -> dict:
    return {}

gate.house()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""

# Each with what needs it: a YAML file, a sealed result, a PostgreSQL address, a JSON Schema, a price, the command line.
NOT_YET = {"yaml", "cryptography", "asyncpg", "jsonschema_rs", "genai_prices", "rich", "typer"}


def test_a_gate_imports_only_what_its_runs_need():
    done = subprocess.run([sys.executable, "-c", A_GATE], capture_output=True, check=True, text=True)
    imported = set(json.loads(done.stdout))
    assert {"pydantic", "sqlite3", "orjson"} <= imported
    assert NOT_YET & imported == set()
