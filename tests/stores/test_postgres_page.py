"""What docs/postgres.md shows is so: its roles may do what it says, and no more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pg_server import Server
from scenes import new_run

from interlock.core.errors import ConfigError, StoreUnavailable
from interlock.stores.postgres import PostgresStore

PAGE = (Path(__file__).parents[2] / "docs/postgres.md").read_text(encoding="utf-8")
SQL = dict(re.findall(r"^```sql (\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.remove()


def opened(server, user, **words):
    return PostgresStore(server.url(user=user, **words), environ={}, replay="off")


async def test_the_roles_of_the_page(server):
    assert SQL.keys() == {"workers", "service", "pooler"}
    server.execute(SQL["workers"])
    workers = opened(server, "interlock_workers")
    for tenant in ("acme", "globex"):
        await workers.begin(new_run(f"run-{tenant}", "q", tenant_id=tenant))
    server.execute(SQL["service"])
    service = opened(server, "support_service", tenant="acme")
    assert [row.run_id for row in await service.runs()] == ["run-acme"]
    assert await service.run("run-globex") is None
    with pytest.raises(StoreUnavailable):
        await service.switches.set("tenant", "globex", "kill", reason="no", actor="mallory")
    await service.switches.set("tenant", "acme", "kill", reason="fire", actor="ada")
    service.close()
    with pytest.raises(ConfigError, match=r"add \?tenant="):
        opened(server, "support_service")
    # The owner of the schema owns nothing else, and makes nothing beside it.
    with pytest.raises(StoreUnavailable, match="permission denied"):
        opened(server, "interlock_workers", schema="another")
    server.execute(SQL["pooler"])
    workers.close()
