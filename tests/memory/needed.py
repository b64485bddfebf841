"""What memory's promises rest on, each with a test that fails without it; `make checklist` tries them in a copy."""

from __future__ import annotations

from dataclasses import dataclass

from requirements import Off

__all__ = ["NEEDED", "Needed"]

CONTRACT = "tests/memory/test_store_contract.py::"
ERASURE = "tests/memory/test_erasure.py::"
SCOPE = "tests/memory/test_postgres_scope.py::"
POLICIES = "src/interlock/stores/sql/postgres/004_memory.sql"


@dataclass(frozen=True)
class Needed:
    """Something that is taken away, and the tests of which one must then fail."""

    name: str
    off: Off
    tests: tuple[str, ...]


NEEDED = (
    Needed(
        "memory: the scope clause of SQLite, for reads",
        Off(
            "src/interlock/stores/memory_scoped.py",
            "\"{visible}\": \"f.tenant_id = :tenant and f.user_id in ('', :user) and f.session_id in ('', :session)\"",
            '"{visible}": "true"',
        ),
        (CONTRACT + "test_agents_read_up_and_never_sideways",),
    ),
    Needed(
        "memory: the scope clause of SQLite, for changes",
        Off(
            "src/interlock/stores/memory_scoped.py",
            '"{mine}": "f.tenant_id = :tenant and f.user_id = :user and f.session_id = :session"',
            '"{mine}": "true"',
        ),
        (CONTRACT + "test_a_change_needs_exactly_the_scope",),
    ),
    Needed(
        "memory: the tenant in the policy of PostgreSQL, for reads",
        Off(
            POLICIES,
            "create policy reading on memory_facts for select using (\n"
            "  (select memory_reach()) = 'read' and tenant_id = (select this_tenant())\n",
            "create policy reading on memory_facts for select using (\n  (select memory_reach()) = 'read'\n",
        ),
        (SCOPE + "test_a_statement_without_any_condition_sees_its_scope_alone",),
    ),
    Needed(
        "memory: row-level security holds the owner too",
        Off(POLICIES, "alter table memory_facts force row level security;\n", ""),
        (SCOPE + "test_an_owner_without_privileges_is_bound_too",),
    ),
    Needed(
        "memory: a superuser becomes a role that is bound",
        Off("src/interlock/stores/postgres.py", "exempt=opened.exempt)", "exempt=False)"),
        (SCOPE + "test_a_store_becomes_a_role_that_the_policies_hold",),
    ),
    Needed(
        "erasure: what SQLite deletes is overwritten (secure_delete)",
        # Some builds of SQLite overwrite by themselves: without the statement others would not.
        Off("src/interlock/stores/database.py", "pragma secure_delete = on", "pragma secure_delete = off"),
        (ERASURE + "test_nothing_is_left_of_rows_history_index_and_runs[file]",),
    ),
    Needed(
        "erasure: the index of words is merged (FTS optimize)",
        Off(
            "src/interlock/stores/memory_desk.py",
            "db.execute(\"insert into memory_index (memory_index) values ('optimize')\")",
            "pass",
        ),
        (ERASURE + "test_the_proof_finds_its_canary_first_and_nothing_afterwards[file]",),
    ),
    Needed(
        "erasure: SQLite's log is emptied",
        Off("src/interlock/stores/erasure.py", "pragma wal_checkpoint(truncate)", "pragma wal_checkpoint(passive)"),
        (ERASURE + "test_nothing_is_left_of_rows_history_index_and_runs[file]",),
    ),
    Needed(
        "erasure: PostgreSQL writes the tables anew",
        Off("src/interlock/stores/pg_erasure.py", "'full, ' if full else ''", "''"),
        (ERASURE + "test_nothing_is_left_of_rows_history_index_and_runs[postgres]",),
    ),
    Needed(
        "erasure: PostgreSQL's log is gone through",
        Off("src/interlock/stores/pg_erasure.py", "in range(await db.fetchval(_SEGMENTS) + 1):", "in range(0):"),
        (ERASURE + "test_nothing_is_left_of_rows_history_index_and_runs[postgres]",),
    ),
    Needed(
        "erasure: PostgreSQL keeps no samples of what people say",
        Off(POLICIES, "alter column text set statistics 0", "alter column text set statistics 100"),
        (ERASURE + "test_no_sample_of_a_value_stays_with_the_planner",),
    ),
    Needed(
        "erasure: runs that speak of the subject lose their content",
        Off("src/interlock/supervisor/erasure.py", "kept = await store.erasure.drop(run_ids)", "kept = []"),
        (ERASURE + "test_nothing_is_left_of_rows_history_index_and_runs[memory]",),
    ),
    Needed(
        "erasure: the words beside keys are blanked",
        Off("src/interlock/stores/erasure.py", "db.execute(_BLANK_CLAIMS, mine)", "pass"),
        (ERASURE + "test_nothing_is_left_of_rows_history_index_and_runs[memory]",),
    ),
)
