"""The words of one call: the tool, what is proposed, what came back, and the shape of a guard.

A guard is a factory: given a tool and what comes after it in the funnel, it returns what to call instead.
A guard that has nothing to do for a tool returns `proceed` itself, so that a plain read pays only for the
guards that concern it. The funnel is folded once for each tool (`gateway/pipeline.py`).
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from interlock.core.clock import Clock
from interlock.core.errors import InterlockError, InvalidArguments
from interlock.core.reasons import StopReason
from interlock.core.trust import Lineage

__all__ = [
    "Answer",
    "Approval",
    "Call",
    "Effect",
    "Guard",
    "OnUnknown",
    "Proceed",
    "Repeat",
    "RunFacts",
    "Stop",
    "ToolSpec",
]


class Effect(StrEnum):
    """What a call does to the world. There is no default: unknown means write."""

    READ = "read"
    WRITE = "write"


class OnUnknown(StrEnum):
    """What to do when nobody knows whether a write happened.

    RESEND: the remote deduplicates on our key (or repeating is harmless): send the same again.
    LOOKUP: ask the remote first. STOP: never send again; a person decides.
    TELL: tell the model and go on; only for a workspace that the agent can inspect itself.
    """

    RESEND = "resend"
    LOOKUP = "lookup"
    STOP = "stop"
    TELL = "tell"


class Repeat(StrEnum):
    """What an equal second write of one request means: the same effect, another one, or ask a person."""

    COLLAPSE = "collapse"
    ALLOW = "allow"
    ASK = "ask"


Approval = Callable[["Call[Any]"], "bool | Awaitable[bool]"]


class Schema(Protocol):
    """A compiled schema of arguments or of an output (see `validation/`)."""

    def validate(self, value: Any) -> Any:
        """Return the validated value, or raise `SchemaMismatch` (a `ValueError`) with `.errors`."""
        ...

    def dump(self, value: Any) -> bytes:
        """Return the canonical JSON of a validated value, or raise `NotCanonical`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ToolSpec:
    """What is known of a tool.

    Attributes:
        name: As the model and the policy write it, e.g. `ticket.create`.
        fn: The user's function; called with the validated arguments as keywords.
        is_async: Whether `fn` is awaited (else it runs in a worker thread).
        effect: READ, WRITE, or a function of the arguments.
        on_unknown, natural, lookup, settle_s: How an unknown outcome is closed.
        identity: Argument names that identify the effect; empty means all.
        repeat: What an equal second write means.
        approval: None, "required" (decided in the store) or a callable.
        timeout_s: Of one attempt; None takes the configuration's.
        scopes: Permissions the run must hold.
        outcome: Per-tool reading of HTTP statuses ({409: "not_performed"}) or a callable (status, payload) -> str.
        takes_key: Whether `fn` has a parameter `idempotency_key`, which Interlock fills.
        inputs, output: Compiled schemas, or None where nothing is known.
        invariants: Conditions on the output: (name, predicate).
        known: False for a name that nobody registered.
        allow: Registered with `allow=True`: permitted without a configuration file although it is a write.
    """

    name: str
    fn: Callable[..., Any]
    is_async: bool
    effect: Effect | Callable[[Mapping[str, Any]], Effect | str] = Effect.WRITE
    on_unknown: OnUnknown = OnUnknown.STOP
    natural: bool = False
    lookup: Callable[..., Any] | None = None
    settle_s: float | None = None
    identity: tuple[str, ...] = ()
    repeat: Repeat = Repeat.COLLAPSE
    approval: str | Approval | None = None
    timeout_s: float | None = None
    scopes: frozenset[str] = frozenset()
    outcome: Mapping[int, str] | Callable[[int | None, Any], str | None] | None = None
    takes_key: bool = False
    inputs: Schema | None = None
    output: Schema | None = None
    invariants: tuple[tuple[str, Callable[[Any], bool]], ...] = ()
    compensate: str | None = None
    known: bool = True
    allow: bool = False
    description: str = ""

    @property
    def may_write(self) -> bool:
        """Whether some call of this tool may be a write."""
        return self.effect is not Effect.READ

    def effect_of(self, args: Mapping[str, Any]) -> Effect:
        """Return the effect of a call with these arguments; a function that fails means write."""
        if isinstance(self.effect, Effect):
            return self.effect
        try:
            return Effect(self.effect(args))
        except Exception:
            return Effect.WRITE


@dataclass(frozen=True, slots=True)
class Stop:
    """A decided stop: why, and the facts for the record."""

    reason: StopReason
    message: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


class RunFacts:
    """What any guard may know of the run that a call belongs to.

    Attributes:
        root_request_id: Request id that effect keys use: the root's, so that children share it.
        request_time_ms: When (tenant, root request id) was first claimed; effect keys begin with it.
        path: Child path below the root ("" for the root).
        turn: Number of the model turn under way or last ended; 0 before the first.
        deadline_s: On the monotonic clock; no new attempt starts after it, reads are cut at it.
        stop: Set once, when a stop is decided.
        retrying: This run plans afresh a request that an earlier run has worked on.
        observing: `mode: observe`: guards note what they would have done and let the call through.
        lineage: What this run, its parents and its children have read, and how far that may be believed.
    """

    __slots__ = (
        "agent",
        "clock",
        "deadline_s",
        "fence",
        "lineage",
        "observing",
        "path",
        "request_id",
        "request_time_ms",
        "retrying",
        "root_request_id",
        "root_run_id",
        "run_id",
        "scopes",
        "stop",
        "tenant_id",
        "turn",
    )

    run_id: str
    root_run_id: str
    tenant_id: str
    request_id: str
    root_request_id: str
    request_time_ms: int
    path: str
    agent: str
    scopes: frozenset[str]
    clock: Clock
    deadline_s: float
    turn: int
    fence: int
    stop: Stop | None
    observing: bool
    retrying: bool
    lineage: Lineage


R = TypeVar("R", bound=RunFacts)


class Call(Generic[R]):
    """One proposed tool use, from the proposal to its outcome.

    Attributes:
        run: The run, as the guards of the funnel see it.
        args: Validated arguments (as proposed, where `invalid` is set).
        args_json: Their canonical JSON. `digest`: its keyed digest.
        invalid: The refusal that the `inputs` guard will raise at its place, if the arguments do not fit.
        effect: Of this call. `batch`: calls of one batch do not count against each other in loops.
        seq: Number of the call in its run, from 1. `turn`: the model turn that proposed it.
        key: The 24-byte key of the effect; set by `recall`, for writes. `sent_key`: what the tool receives.
        occurrence: n-th equal write of the run, from 1.
        attempts: Attempts begun. `unknown`: at least one attempt's outcome is not known.
        late: A sync tool that outlived its timeout: the future of its late answer.
        permit: The limiter slot and breaker permit of the attempt under way (owned by `admission`).
        perform: Makes one attempt in place of `tool.fn`: a framework's own handler of this very call; else None.
        approval_id: Id of the granted approval that the claim consumes.
        evidence: What is known of each attempt, for the journal: dicts without content.
        would_have: What guards would have refused with, when observing.
        raw: What the tool returned, before validation, when validation refused it.
    """

    __slots__ = (
        "approval_id",
        "args",
        "args_json",
        "attempts",
        "batch",
        "digest",
        "effect",
        "evidence",
        "invalid",
        "key",
        "late",
        "occurrence",
        "perform",
        "permit",
        "raw",
        "run",
        "sent_key",
        "seq",
        "started_s",
        "tool",
        "tool_call_id",
        "turn",
        "unknown",
        "would_have",
    )

    def __init__(
        self,
        run: R,
        tool: ToolSpec,
        args: dict[str, Any],
        args_json: bytes,
        digest: bytes,
        effect: Effect,
        seq: int,
        turn: int,
        batch: int,
        invalid: InvalidArguments | None = None,
        tool_call_id: str | None = None,
    ) -> None:
        self.run = run
        self.tool = tool
        self.args = args
        self.args_json = args_json
        self.digest = digest
        self.effect = effect
        self.seq = seq
        self.turn = turn
        self.batch = batch
        self.invalid = invalid
        self.tool_call_id = tool_call_id
        self.attempts = 0
        self.unknown = False
        self.started_s = 0.0
        self.occurrence = 1
        self.key: bytes | None = None
        self.sent_key: str | None = None
        self.approval_id: str | None = None
        self.late: Future[Any] | None = None
        self.evidence: list[dict[str, Any]] | None = None
        self.would_have: list[StopReason] | None = None
        self.raw: Any = None
        self.permit: Any = None
        self.perform: Callable[[Call[R]], Awaitable[Answer]] | None = None

    @property
    def writes(self) -> bool:
        """Whether this call changes the world."""
        return self.effect is Effect.WRITE

    def refuse(self, error: InterlockError) -> None:
        """Raise `error`; when observing, note its reason and return, so that the guard lets the call through."""
        if not self.run.observing:
            raise error
        if self.would_have is None:
            self.would_have = []
        self.would_have.append(error.reason)


class Answer:
    """What came back of a call.

    Attributes:
        value: Validated output.
        json: Its canonical JSON, once some guard has computed it.
        status: `success` (executed), `replayed` (from the journal), `repeated` (from the loop guard).
        note: What the model should be told beside the value, or None.
    """

    __slots__ = ("json", "note", "status", "value")

    def __init__(self, value: Any, json: bytes | None = None, status: str = "success", note: str | None = None) -> None:
        self.value = value
        self.json = json
        self.status = status
        self.note = note


Proceed = Callable[[Call[R]], Awaitable[Answer]]


class Guard(Protocol[R]):
    """One layer of the funnel."""

    def __call__(self, tool: ToolSpec, proceed: Proceed[R]) -> Proceed[R]:
        """Return what the funnel calls at this place for `tool`: `proceed` itself, or a function around it."""
        ...
