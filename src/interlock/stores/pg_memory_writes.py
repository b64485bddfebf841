"""What agents' and operators' changes to memory have in common, on a connection whose transaction names the scope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interlock.stores.pg_memory_rows import COLUMNS

__all__ = ["BY_ID", "LINE", "bury_line", "supersede"]

BY_ID = f"select {COLUMNS} from {{s}}.memory_facts f where f.fact_id = $1 and f.tenant_id = $2"
# Facts, and all versions before them.
LINE = """with recursive line (fact_id) as (
  select unnest($1::text[]) collate "C" union
  select f.fact_id from line join {s}.memory_facts f on f.superseded_by = line.fact_id where f.tenant_id = $2)"""

_BURY = f"""{LINE}, gone as (
  delete from {{s}}.memory_facts f using line where f.fact_id = line.fact_id and f.tenant_id = $2 returning f.fact_id)
insert into {{s}}.memory_gone (tenant_id, fact_id, at) select $2, fact_id, {{s}}.now_s() from gone
on conflict (tenant_id, fact_id) do nothing"""
# What a fact replaces: the one that it names, and statements of its subject and key.
_SUPERSEDE = """with n as (select * from {s}.memory_facts f where f.fact_id = $1 and f.tenant_id = $2)
update {s}.memory_facts f set state = 'superseded', superseded_by = n.fact_id, superseded_at = $3, pinned = false
from n where f.tenant_id = $2 and f.fact_id <> $1 and f.state = 'active'
  and (f.user_id, f.session_id) = (n.user_id, n.session_id) and f.fact_id = any(array(
    select n.supersedes from n union all
    select r.fact_id from n join {s}.memory_facts r on (r.subject, r.key) = (n.subject, n.key)
    where r.tenant_id = $2 and r.key <> '' and r.state = 'active'))"""


async def bury_line(db: Any, schema: str, tenant: str, fact_ids: Sequence[str]) -> int:
    """Delete facts and the versions before them, leaving tombstones; return how many rows."""
    status: str = await db.execute(_BURY.replace("{s}", schema), list(fact_ids), tenant)
    return int(status.rpartition(" ")[2])


async def supersede(db: Any, schema: str, tenant: str, fact_id: str, at: float) -> None:
    """Make history of what an ACTIVE fact replaces."""
    await db.execute(_SUPERSEDE.replace("{s}", schema), fact_id, tenant, at)
