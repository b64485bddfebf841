"""What people decide, kept in the store: kill switches, safe mode and approvals."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from interlock.core.clock import Clock
from interlock.core.errors import ConfigError
from interlock.policy.approval import ApprovalRequest, ApprovalRow, ApprovalState
from interlock.policy.switches import Switch, SwitchKind, SwitchScope, SwitchSnapshot, new_switch
from interlock.stores.reader import Reader
from interlock.stores.writer import Writer

__all__ = ["SqliteApprovals", "SqliteSwitches"]

_APPROVAL = """id, effect_key, tenant_id, run_id, tool, policy_version, rendered,
  case when state in ('pending', 'approved') and expires_at <= :now then 'expired' else state end as shown,
  requested_at, expires_at, decided_at, decided_by, decided_reason"""

_NEWEST = f"""select {_APPROVAL} from approvals where effect_key = :effect_key and policy_version = :policy_version
order by n desc limit 1"""  # noqa: S608 - our own column names

_STANDS = frozenset({ApprovalState.PENDING, ApprovalState.APPROVED, ApprovalState.DENIED})


class SqliteSwitches:
    """Port `SwitchStore`."""

    def __init__(self, writer: Writer, reader: Reader, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock

    async def read(self) -> SwitchSnapshot:
        """Return the switches in force."""
        rows = await self._reader.read(_read_switches, self._clock.wall())
        return SwitchSnapshot(
            tuple(Switch(SwitchScope(scope), subject, SwitchKind(kind), *rest) for scope, subject, kind, *rest in rows)
        )

    async def set(
        self,
        scope: SwitchScope,
        subject: str,
        kind: SwitchKind,
        *,
        reason: str,
        actor: str,
        expires_at: float | None = None,
    ) -> Switch:
        """Set a switch, or replace the one that stands; durable when it returns."""
        switch = new_switch(
            scope, subject, kind, reason=reason, actor=actor, set_at=self._clock.wall(), expires_at=expires_at
        )
        await self._writer.submit(_set_switch, switch)
        return switch

    async def lift(self, scope: SwitchScope, subject: str, kind: SwitchKind, *, reason: str, actor: str) -> bool:
        """Lift a switch; return whether one stood."""
        switch = new_switch(scope, subject, kind, reason=reason, actor=actor, set_at=self._clock.wall())
        lifted: bool = await self._writer.submit(_lift_switch, switch)
        return lifted


def _read_switches(db: sqlite3.Connection, now: float) -> list[tuple[Any, ...]]:
    return db.execute(
        "select scope, subject, kind, reason, actor, set_at, expires_at from switches "
        "where expires_at is null or expires_at > ? order by set_at, scope, subject, kind",
        (now,),
    ).fetchall()


def _set_switch(db: sqlite3.Connection, switch: Switch) -> None:
    db.execute(
        "insert or replace into switches (scope, subject, kind, reason, actor, set_at, expires_at) "
        "values (?, ?, ?, ?, ?, ?, ?)",
        (
            switch.scope,
            switch.subject,
            switch.kind,
            switch.reason,
            switch.actor,
            switch.set_at,
            switch.expires_at,
        ),
    )
    _note(db, switch, "set")


def _lift_switch(db: sqlite3.Connection, switch: Switch) -> bool:
    stood = db.execute(
        "delete from switches where scope = ? and subject = ? and kind = ? returning expires_at",
        (switch.scope, switch.subject, switch.kind),
    ).fetchall()
    if not stood:
        return False
    _note(db, switch, "lift")
    expires_at = stood[0][0]
    return expires_at is None or expires_at > switch.set_at


def _note(db: sqlite3.Connection, switch: Switch, action: str) -> None:
    db.execute(
        "insert into switch_events (at, action, scope, subject, kind, reason, actor) values (?, ?, ?, ?, ?, ?, ?)",
        (switch.set_at, action, switch.scope, switch.subject, switch.kind, switch.reason, switch.actor),
    )


class SqliteApprovals:
    """Port `ApprovalStore`."""

    def __init__(self, writer: Writer, reader: Reader, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock

    async def request(self, request: ApprovalRequest) -> ApprovalRow:
        """Return the standing row of (effect key, policy version), or insert a PENDING one."""
        return _row(await self._writer.submit(_request, request, self._clock.token(8), self._clock.wall()))

    async def get(self, effect_key: bytes, policy_version: str) -> ApprovalRow | None:
        """Return the newest row of this effect and policy version."""
        row = await self._reader.read(_newest, effect_key, policy_version, self._clock.wall())
        return None if row is None else _row(row)

    async def decide(self, id: str, approved: bool, by: str, reason: str = "") -> ApprovalRow | None:  # noqa: A002
        """Decide a PENDING row and return it; any other is returned as it stands."""
        if not by.strip():
            raise ConfigError("approval: say who decides (by); it may not be empty")
        row = await self._writer.submit(_decide, id, approved, by.strip(), reason, self._clock.wall())
        return None if row is None else _row(row)

    async def list(
        self, *, tenant_id: str | None = None, state: ApprovalState | None = ApprovalState.PENDING, limit: int = 50
    ) -> Sequence[ApprovalRow]:
        """Return the newest first."""
        rows = await self._reader.read(_list_approvals, tenant_id, state, limit, self._clock.wall())
        return [_row(row) for row in rows]


def _request(db: sqlite3.Connection, request: ApprovalRequest, approval_id: str, now: float) -> tuple[Any, ...]:
    standing = _newest(db, request.effect_key, request.policy_version, now)
    if standing is not None and standing[7] in _STANDS:
        return standing
    db.execute(
        "update approvals set state = 'superseded' where effect_key = ? and policy_version <> ? "
        "and state in ('pending', 'approved')",
        (request.effect_key, request.policy_version),
    )
    db.execute(
        "insert into approvals (id, effect_key, tenant_id, run_id, tool, policy_version, rendered, state, "
        "requested_at, expires_at) values (?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?)",
        (
            approval_id,
            request.effect_key,
            request.tenant_id,
            request.run_id,
            request.tool,
            request.policy_version,
            request.rendered,
            now,
            request.expires_at,
        ),
    )
    row = _newest(db, request.effect_key, request.policy_version, now)
    assert row is not None
    return row


def _newest(db: sqlite3.Connection, effect_key: bytes, policy_version: str, now: float) -> tuple[Any, ...] | None:
    facts = {"effect_key": effect_key, "policy_version": policy_version, "now": now}
    row: tuple[Any, ...] | None = db.execute(_NEWEST, facts).fetchone()
    return row


def _decide(
    db: sqlite3.Connection, approval_id: str, approved: bool, by: str, reason: str, now: float
) -> tuple[Any, ...] | None:
    db.execute(
        "update approvals set state = ?, decided_at = ?, decided_by = ?, decided_reason = ?, "
        "expires_at = ? + expires_at - requested_at where id = ? and state = 'pending' and expires_at > ?",
        ("approved" if approved else "denied", now, by, reason, now, approval_id, now),
    )
    row: tuple[Any, ...] | None = db.execute(
        f"select {_APPROVAL} from approvals where id = :id",  # noqa: S608 - our own column names
        {"id": approval_id, "now": now},
    ).fetchone()
    return row


def _list_approvals(
    db: sqlite3.Connection, tenant_id: str | None, state: str | None, limit: int, now: float
) -> list[tuple[Any, ...]]:
    return db.execute(
        f"select {_APPROVAL} from approvals where (:tenant_id is null or tenant_id = :tenant_id) "  # noqa: S608
        "and (:state is null or shown = :state) order by n desc limit :limit",
        {"tenant_id": tenant_id, "state": state, "limit": limit, "now": now},
    ).fetchall()


def _row(row: tuple[Any, ...]) -> ApprovalRow:
    return ApprovalRow(
        id=row[0],
        effect_key=row[1],
        tenant_id=row[2],
        run_id=row[3],
        tool=row[4],
        policy_version=row[5],
        rendered=row[6],
        state=ApprovalState(row[7]),
        requested_at=row[8],
        expires_at=row[9],
        decided_at=row[10],
        decided_by=row[11] or "",
        reason=row[12] or "",
    )
