"""Words in which the tests of stores are written."""

from __future__ import annotations

import hashlib

from interlock.journal.store import ClaimState, Intent, NewRun, RunState, Settlement

DONE = Settlement(ClaimState.DONE, b'{"id":1}')
CLEAN = Settlement(ClaimState.FAILED_CLEAN)
DOUBT = Settlement(ClaimState.IN_DOUBT, evidence=({"attempt": 1, "kind": "read_timeout"},))


def new_run(run_id="r1", request_id="q1", **words):
    return NewRun(
        **{
            "run_id": run_id,
            "tenant_id": "acme",
            "request_id": request_id,
            "agent": "support",
            "payload_hash": "h",
            "root_run_id": run_id,
            **words,
        }
    )


class Scene:
    """One run at work on a store."""

    def __init__(self, store, clock):
        self.store = store
        self.clock = clock
        self.row = None

    async def begin(self, run_id="r1", request_id="q1", **words):
        begin = {name: words.pop(name) for name in ("retry", "resume") if name in words}
        begun = await self.store.begin(new_run(run_id, request_id, **words), **begin)
        if begun.fresh:
            self.row = begun.row
        return begun

    def key(self, name="x"):
        return self.row.request_time_ms.to_bytes(8, "big") + hashlib.blake2b(name.encode(), digest_size=16).digest()

    def intent(self, name="x", **words):
        return Intent(
            **{
                "key": self.key(name),
                "tenant_id": self.row.tenant_id,
                "request_id": self.row.request_id,
                "run_id": self.row.run_id,
                "path": "",
                "agent": "support",
                "tool": "ticket.create",
                "args_digest": b"d" * 16,
                "occurrence": 1,
                "on_unknown": "stop",
                "sent_key": "il1_" + name,
                "fence": self.row.fence,
                "turn": 1,
                "seq": 1,
                **words,
            }
        )

    async def claim(self, name="x", **words):
        return await self.store.claim(self.intent(name, **words))

    async def settle(self, settlement, name="x"):
        return await self.store.settle(self.key(name), settlement)

    async def find(self, name="x"):
        return await self.store.find(self.key(name))

    async def end(self, state=RunState.ENDED, reason="success", **words):
        row = self.row
        facts = {"record": {"stop_reason": reason}, "output": b'"done"', "fence": row.fence, **words}
        return await self.store.end(row.run_id, facts["fence"], state, reason, facts["record"], facts["output"])
