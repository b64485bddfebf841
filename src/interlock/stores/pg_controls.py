"""What people decide, kept on PostgreSQL: kill switches, safe mode and approvals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interlock.core.clock import Clock
from interlock.core.errors import ConfigError
from interlock.policy.approval import ApprovalRequest, ApprovalRow, ApprovalState
from interlock.policy.switches import Switch, SwitchKind, SwitchScope, SwitchSnapshot, new_switch
from interlock.stores.pg_reader import PgReader
from interlock.stores.pg_text import read_text, write_text
from interlock.stores.pg_time import ServerTime
from interlock.stores.pg_work import alone
from interlock.stores.pg_writer import PgWriter

__all__ = ["PgApprovals", "PgSwitches"]

_READ = """select scope, subject, kind, reason, actor, set_at, expires_at from {s}.switches
where expires_at is null or expires_at > {s}.now_s() order by set_at, scope, subject, kind"""

_SET = """insert into {s}.switches (scope, subject, kind, reason, actor, set_at, expires_at)
values ($1, $2, $3, $4, $5, {s}.now_s(), $6) on conflict (scope, subject, kind) do update
set reason = excluded.reason, actor = excluded.actor, set_at = excluded.set_at, expires_at = excluded.expires_at
returning set_at"""

_LIFT = """delete from {s}.switches where scope = $1 and subject = $2 and kind = $3
returning expires_at is null or expires_at > {s}.now_s()"""

_NOTE = """insert into {s}.switch_events (at, action, scope, subject, kind, reason, actor)
values ({s}.now_s(), $1, $2, $3, $4, $5, $6)"""


class PgSwitches:
    """Port `SwitchStore`."""

    def __init__(self, reader: PgReader, schema: str, time: ServerTime, clock: Clock) -> None:
        self._reader = reader
        self._time = time
        self._clock = clock
        self._read, self._set, self._lift, self._note = (
            text.replace("{s}", schema) for text in (_READ, _SET, _LIFT, _NOTE)
        )
        self._lock = f"lock table {schema}.switches in access exclusive mode"

    async def read(self) -> SwitchSnapshot:
        """Return the switches in force."""
        rows = await self._reader.fetch(self._read)
        return SwitchSnapshot(tuple(_switch(row, self._time) for row in rows))

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
        now_s = self._clock.wall()
        switch = new_switch(scope, subject, kind, reason=reason, actor=actor, set_at=now_s, expires_at=expires_at)
        words = _words(switch)

        async def query(db: Any) -> float:
            await self._after_claims_under_way(db)
            until = None if expires_at is None else self._time.theirs(expires_at)
            set_at: float = await db.fetchval(self._set, *words, until)
            await db.execute(self._note, "set", *words)
            return set_at

        set_at = self._time.ours(await self._reader.ask(query, repeat=False))
        return Switch(switch.scope, switch.subject, switch.kind, switch.reason, switch.actor, set_at, switch.expires_at)

    async def lift(self, scope: SwitchScope, subject: str, kind: SwitchKind, *, reason: str, actor: str) -> bool:
        """Lift a switch; return whether one stood."""
        words = _words(new_switch(scope, subject, kind, reason=reason, actor=actor, set_at=self._clock.wall()))

        async def query(db: Any) -> bool:
            stood: bool | None = await db.fetchval(self._lift, *words[:3])
            if stood is not None:
                await db.execute(self._note, "lift", *words)
            return bool(stood)

        lifted: bool = await self._reader.ask(query, repeat=False)
        return lifted

    async def _after_claims_under_way(self, db: Any) -> None:
        """Let the intents under way commit first, so that none commits after the switch; but not for long.

        One that is stuck on the server must not hold up a kill.
        """
        await db.execute("savepoint before_lock")
        try:
            await db.execute("set local lock_timeout = '500ms'")
            await db.execute(self._lock)
        except Exception as error:
            if getattr(error, "sqlstate", None) not in {"55P03", "42501"}:
                raise
            await db.execute("rollback to before_lock")


def _words(switch: Switch) -> tuple[str, ...]:
    words = (str(switch.scope), switch.subject, str(switch.kind), switch.reason, switch.actor)
    return tuple(map(write_text, words))


def _switch(row: Any, time: ServerTime) -> Switch:
    scope, subject, kind, reason, actor, set_at, expires_at = map(read_text, row)
    kept = (SwitchScope(scope), subject, SwitchKind(kind), reason, actor)
    return Switch(*kept, time.ours(set_at), time.ours_or_none(expires_at))


_APPROVAL = """id, effect_key, tenant_id, run_id, tool, policy_version, rendered,
  case when state in ('pending', 'approved') and expires_at <= {s}.now_s() then 'expired' else state end as shown,
  requested_at, expires_at, decided_at, decided_by, decided_reason"""

_NEWEST = f"""select {_APPROVAL} from {{s}}.approvals where effect_key = $1 and policy_version = $2
order by n desc limit 1"""

_SUPERSEDE = """update {s}.approvals set state = 'superseded' where effect_key = $1 and policy_version <> $2
and state in ('pending', 'approved')"""

_REQUEST = f"""insert into {{s}}.approvals (id, effect_key, tenant_id, run_id, tool, policy_version, rendered, state,
  requested_at, expires_at) values ($1, $2, $3, $4, $5, $6, $7, 'pending', {{s}}.now_s(), $8) returning {_APPROVAL}"""

_DECIDE = """update {s}.approvals set state = $2, decided_at = {s}.now_s(), decided_by = $3, decided_reason = $4,
  expires_at = {s}.now_s() + expires_at - requested_at
where id = $1 and state = 'pending' and expires_at > {s}.now_s()"""

_BY_ID = f"select {_APPROVAL} from {{s}}.approvals where id = $1"

_LIST = f"""select * from (select {_APPROVAL}, n from {{s}}.approvals where ($1::text is null or tenant_id = $1)) as a
where $2::text is null or shown = $2 order by n desc limit $3"""

_STANDS = frozenset({ApprovalState.PENDING, ApprovalState.APPROVED, ApprovalState.DENIED})
_SHOWN = 7


class PgApprovals:
    """Port `ApprovalStore`. What changes goes through the writer: never before what its run did earlier."""

    def __init__(self, writer: PgWriter, reader: PgReader, schema: str, time: ServerTime, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._time = time
        self._clock = clock
        self._newest, self._supersede, self._request, self._decide, self._by_id, self._list = (
            text.replace("{s}", schema) for text in (_NEWEST, _SUPERSEDE, _REQUEST, _DECIDE, _BY_ID, _LIST)
        )

    async def request(self, request: ApprovalRequest) -> ApprovalRow:
        """Return the standing row of (effect key, policy version), or insert a PENDING one."""
        approval_id = self._clock.token(8)
        policy_version = write_text(request.policy_version)

        async def work(db: Any) -> Any:
            # Two processes that ask at one moment: the second one finds the row of the first.
            await db.execute("select pg_advisory_xact_lock(hashtextextended(encode($1, 'hex'), 0))", request.effect_key)
            standing = await db.fetchrow(self._newest, request.effect_key, policy_version)
            if standing is not None and standing[_SHOWN] in _STANDS:
                return standing
            await db.execute(self._supersede, request.effect_key, policy_version)
            return await db.fetchrow(
                self._request,
                approval_id,
                request.effect_key,
                write_text(request.tenant_id),
                write_text(request.run_id),
                write_text(request.tool),
                policy_version,
                write_text(request.rendered),
                self._time.theirs(request.expires_at),
            )

        return _row(await self._writer.submit(alone(work)), self._time)

    async def get(self, effect_key: bytes, policy_version: str) -> ApprovalRow | None:
        """Return the newest row of this effect and policy version."""
        rows = await self._reader.fetch(self._newest, effect_key, write_text(policy_version))
        return _row(rows[0], self._time) if rows else None

    async def decide(self, id: str, approved: bool, by: str, reason: str = "") -> ApprovalRow | None:  # noqa: A002
        """Decide a PENDING row and return it; any other is returned as it stands."""
        if not by.strip():
            raise ConfigError("approval: say who decides (by); it may not be empty")

        async def work(db: Any) -> Any:
            state = ApprovalState.APPROVED if approved else ApprovalState.DENIED
            await db.execute(self._decide, write_text(id), str(state), write_text(by.strip()), write_text(reason))
            return await db.fetchrow(self._by_id, write_text(id))

        row = await self._writer.submit(alone(work))
        return None if row is None else _row(row, self._time)

    async def list(
        self, *, tenant_id: str | None = None, state: ApprovalState | None = ApprovalState.PENDING, limit: int = 50
    ) -> Sequence[ApprovalRow]:
        """Return the newest first."""
        tenant = None if tenant_id is None else write_text(tenant_id)
        rows = await self._reader.fetch(self._list, tenant, None if state is None else str(state), limit)
        return [_row(row, self._time) for row in rows]


def _row(record: Any, time: ServerTime) -> ApprovalRow:
    row = [read_text(value) for value in record]
    return ApprovalRow(
        id=row[0],
        effect_key=row[1],
        tenant_id=row[2],
        run_id=row[3],
        tool=row[4],
        policy_version=row[5],
        rendered=row[6],
        state=ApprovalState(row[7]),
        requested_at=time.ours(row[8]),
        expires_at=time.ours(row[9]),
        decided_at=time.ours_or_none(row[10]),
        decided_by=row[11] or "",
        reason=row[12] or "",
    )
