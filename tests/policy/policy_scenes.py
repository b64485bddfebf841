"""Runs, tools and calls as the policy guards see them, and stores in memory that keep the ports' promises."""

from __future__ import annotations

from dataclasses import replace

from interlock.core.calls import Answer, Call, Effect, RunFacts, ToolSpec
from interlock.core.errors import StoreUnavailable
from interlock.policy.approval import ApprovalRow, ApprovalState
from interlock.policy.switches import SwitchSnapshot, new_switch


class Scope(RunFacts):
    __slots__ = ("policy", "seq")

    def __init__(self, clock, *, tenant_id="acme", agent="triage", scopes=(), observing=False, policy=None):
        self.clock = clock
        self.run_id = self.root_run_id = "run_1"
        self.tenant_id = tenant_id
        self.request_id = self.root_request_id = "req_1"
        self.request_time_ms = 1_700_000_000_000
        self.path = ""
        self.agent = agent
        self.scopes = frozenset(scopes)
        self.deadline_s = float("inf")
        self.turn = 1
        self.fence = 1
        self.stop = None
        self.observing = observing
        self.policy = policy


async def nothing(**_args):
    return None


def make_tool(name="search.read", *, effect=Effect.READ, **kw):
    return ToolSpec(name, nothing, is_async=True, effect=effect, **kw)


def make_call(run, tool, *, args=None, key=None, occurrence=1):
    call = Call(run, tool, args or {}, b"{}", b"d" * 16, tool.effect_of(args or {}), seq=1, turn=1, batch=1)
    call.key = key if key is not None or not call.writes else b"k" * 24
    call.occurrence = occurrence
    return call


class Through:
    """What comes after the guard: counts the calls that get there."""

    def __init__(self):
        self.calls = []

    async def __call__(self, call):
        self.calls.append(call)
        return Answer("done")


class MemorySwitches:
    """Port `SwitchStore`, with a door to break it."""

    def __init__(self, clock):
        self.clock = clock
        self.rows = {}
        self.reads = 0
        self.error = None
        self.delay_s = 0.0

    async def read(self):
        self.reads += 1
        if self.error is not None:
            raise self.error
        snapshot = SwitchSnapshot(
            tuple(s for s in self.rows.values() if s.expires_at is None or s.expires_at > self.clock.wall())
        )
        if self.delay_s:
            await self.clock.sleep(self.delay_s)
        return snapshot

    async def set(self, scope, subject, kind, *, reason="broken", actor="ann", expires_at=None):
        switch = new_switch(
            scope, subject, kind, reason=reason, actor=actor, set_at=self.clock.wall(), expires_at=expires_at
        )
        self.rows[switch.scope, switch.subject, switch.kind] = switch
        return switch

    async def lift(self, scope, subject, kind, *, reason="mended", actor="ann"):
        switch = new_switch(scope, subject, kind, reason=reason, actor=actor, set_at=self.clock.wall())
        return self.rows.pop((switch.scope, switch.subject, switch.kind), None) is not None


class MemoryApprovals:
    """Port `ApprovalStore`."""

    def __init__(self, clock):
        self.clock = clock
        self.rows = []
        self.requests = []
        self.broken = 0
        self.on_get = None

    def _seen(self, row):
        passing = row.state in {ApprovalState.PENDING, ApprovalState.APPROVED}
        return replace(row, state=ApprovalState.EXPIRED) if passing and self.clock.wall() >= row.expires_at else row

    def _newest(self, key, version):
        rows = [r for r in self.rows if r.effect_key == key and r.policy_version == version]
        return self._seen(rows[-1]) if rows else None

    def put(self, row, **changes):
        self.rows[self.rows.index(next(r for r in self.rows if r.id == row.id))] = replace(row, **changes)

    async def request(self, request):
        self.requests.append(request)
        row = self._newest(request.effect_key, request.policy_version)
        if row is not None and row.state in {ApprovalState.PENDING, ApprovalState.APPROVED, ApprovalState.DENIED}:
            return row
        for other in self.rows:
            alike = other.effect_key == request.effect_key and other.policy_version != request.policy_version
            if alike and other.state in {ApprovalState.PENDING, ApprovalState.APPROVED}:
                self.put(other, state=ApprovalState.SUPERSEDED)
        row = ApprovalRow(
            id=f"apr_{len(self.rows) + 1}",
            effect_key=request.effect_key,
            tenant_id=request.tenant_id,
            run_id=request.run_id,
            tool=request.tool,
            policy_version=request.policy_version,
            rendered=request.rendered,
            state=ApprovalState.PENDING,
            requested_at=self.clock.wall(),
            expires_at=request.expires_at,
        )
        self.rows.append(row)
        return row

    async def get(self, effect_key, policy_version):
        if self.on_get is not None:
            await self.on_get()
        if self.broken > 0:
            self.broken -= 1
            raise StoreUnavailable("the store is away")
        return self._newest(effect_key, policy_version)

    async def decide(self, approval_id, approved, by, reason=""):
        row = next((r for r in self.rows if r.id == approval_id), None)
        if row is not None and self._seen(row).state is ApprovalState.PENDING:
            now = self.clock.wall()
            self.put(
                row,
                state=ApprovalState.APPROVED if approved else ApprovalState.DENIED,
                decided_at=now,
                decided_by=by,
                reason=reason,
                expires_at=now + row.expires_at - row.requested_at,
            )
        return next((self._seen(r) for r in self.rows if r.id == approval_id), None)
