"""What a caller asks for: one run, its identity, and the hash of what it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import orjson

from interlock.budget.meter import BudgetOptions
from interlock.core.canonical import NotCanonical, canonical_json, plain_hash

__all__ = ["MAX_ID_LENGTH", "RunRequest"]

MAX_ID_LENGTH = 512
# Tenant and request together are a key in an index, and PostgreSQL takes no key of more than 2,700 bytes.
MAX_ID_BYTES = 1_024


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One request for a run.

    Attributes:
        request_id: The caller's idempotency key; None makes a fresh one.
        inputs: Keyword arguments of the agent beside the task.
        payload: What the request is about, where task and inputs are not JSON.
        scopes: Permissions the run holds. allow: globs that narrow the policy.
        budgets: Caps that replace the configuration's, by key.
        deadline: Wall-clock time (Unix seconds) at which the run's time is over, whatever `max_seconds` says.
        retry: True starts a request with an outcome afresh under the same effect keys; "resume" goes on with a
            parked one.
    """

    agent: str
    task: Any = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    tenant_id: str = "default"
    request_id: str | None = None
    payload: Any = None
    scopes: Sequence[str] = ()
    allow: Sequence[str] | None = None
    budgets: Mapping[str, Any] | BudgetOptions | None = None
    deadline: float | None = None
    retry: bool | Literal["resume"] = False

    def fault(self) -> str | None:
        """Return what is wrong with the identity of this request, or None."""
        identity: dict[str, Any] = {"tenant_id": self.tenant_id}
        if self.request_id is not None:
            identity["request_id"] = self.request_id
        for name, value in identity.items():
            if not isinstance(value, str) or not value:
                return f"{name} must be text, and not empty"
            if len(value) > MAX_ID_LENGTH or not value.isprintable() or len(value.encode()) > MAX_ID_BYTES:
                return f"{name} must be at most {MAX_ID_LENGTH} printable characters, {MAX_ID_BYTES:,} bytes in UTF-8"
        return None

    def payload_hash(self) -> str:
        """Return the hash that tells this request from another with the same id.

        Raises:
            NotCanonical: Neither `payload` nor task and inputs are JSON.
        """
        if self.payload is not None:
            return plain_hash({"payload": self.payload})
        try:
            return plain_hash({"task": self.task, "inputs": dict(self.inputs)})
        except NotCanonical as error:
            raise NotCanonical(f"{error}: pass payload= (what this request is about, as JSON)") from None

    def task_json(self) -> bytes | None:
        """Return what another worker needs to go on with this request, as JSON; None where it is not."""
        budgets = asdict(self.budgets) if isinstance(self.budgets, BudgetOptions) else self.budgets
        words = {
            "task": self.task,
            "inputs": dict(self.inputs),
            "payload": self.payload,
            "scopes": list(self.scopes),
            "allow": None if self.allow is None else list(self.allow),
            "budgets": None if budgets is None else dict(budgets),
            "deadline": self.deadline,
        }
        try:
            return canonical_json({name: value for name, value in words.items() if value or name == "task"})
        except NotCanonical:
            return None

    @classmethod
    def read(cls, agent: str, tenant_id: str, request_id: str, task: bytes | None) -> RunRequest:
        """Return a request out of what `task_json` wrote.

        Raises:
            NotCanonical: It was not kept.
        """
        if task is None:
            raise NotCanonical("its task is not kept: it is not JSON, or cannot be unsealed with this INTERLOCK_KEY")
        return cls(agent, tenant_id=tenant_id, request_id=request_id, **orjson.loads(task))
