"""A human says yes before a risky write: bound to one effect and one policy version, used once.

An approval belongs to an effect key (with its occurrence) and to the version of the policy that asked for
it; the claim of that effect consumes it in the transaction that commits the intent. Nobody deciding is not
a no: the run parks, and whoever resumes it finds the same approval.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from interlock.core.calls import Answer, Approval, Call, Proceed, Repeat, RunFacts, ToolSpec
from interlock.core.canonical import canonical_json
from interlock.core.clock import Clock
from interlock.core.errors import (
    ApprovalDenied,
    ApprovalExpired,
    ApprovalPending,
    ConfigError,
    InterlockError,
    RunStopped,
    StoreUnavailable,
)

__all__ = [
    "ApprovalOptions",
    "ApprovalRequest",
    "ApprovalRow",
    "ApprovalState",
    "ApprovalStore",
    "Approvals",
    "given",
    "refused",
    "standing",
]

A = TypeVar("A", bound=RunFacts)


class ApprovalState(StrEnum):
    """Where an approval stands: PENDING → APPROVED → CONSUMED, or DENIED, EXPIRED, SUPERSEDED."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    CONSUMED = "consumed"


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """What a person is asked.

    Attributes:
        effect_key: 24 bytes (see `Intent.key`); the occurrence is in it.
        run_id: The root of the run that asks, which is parked for it. policy_version: of the rules that demand it.
        rendered: What the person reads: tool and redacted arguments.
        expires_at: Wall-clock seconds (Unix); undecided by then, it is EXPIRED.
    """

    effect_key: bytes
    tenant_id: str
    run_id: str
    tool: str
    policy_version: str
    rendered: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """An approval as the store knows it. Times are wall-clock seconds (Unix)."""

    id: str
    effect_key: bytes
    tenant_id: str
    run_id: str
    tool: str
    policy_version: str
    rendered: str
    state: ApprovalState
    requested_at: float
    expires_at: float
    decided_at: float | None = None
    decided_by: str = ""
    reason: str = ""


class ApprovalStore(Protocol):
    """Where approvals are kept. A row past its `expires_at` reads as EXPIRED while PENDING or APPROVED.

    Every method that changes something returns after its commit and raises `StoreUnavailable` if that is
    not known. CONSUMED is set by the journal's `claim` alone, of an APPROVED row that has not expired.
    """

    async def request(self, request: ApprovalRequest) -> ApprovalRow:
        """Return the standing row of (effect key, policy version), or insert a PENDING one and return that.

        PENDING, APPROVED and DENIED rows stand (a no is not asked again); after EXPIRED, SUPERSEDED or
        CONSUMED a new row is inserted. PENDING and APPROVED rows of the same effect key under another policy
        version become SUPERSEDED. One transaction: two askers get one row.
        """
        ...

    async def get(self, effect_key: bytes, policy_version: str) -> ApprovalRow | None:
        """Return the newest row of this effect and policy version, or None."""
        ...

    async def decide(self, id: str, approved: bool, by: str, reason: str = "") -> ApprovalRow | None:  # noqa: A002
        """Decide a PENDING row and return it; a row in any other state is returned as it stands.

        An approval is good for as long again as the request was: `expires_at` becomes the time of the
        decision plus (old `expires_at` - `requested_at`). None: there is no such id.

        Raises:
            ConfigError: `by` is empty.
        """
        ...

    async def list(
        self, *, tenant_id: str | None = None, state: ApprovalState | None = ApprovalState.PENDING, limit: int = 50
    ) -> Sequence[ApprovalRow]:
        """Return the newest first; `state=None` means all of them."""
        ...


def given(_call: Call[Any]) -> bool:
    """Say yes: the approver of calls that a person has approved elsewhere. Nobody is asked."""
    return True


def refused(_call: Call[Any]) -> bool:
    """Say no: the approver of calls that a person has refused elsewhere."""
    return False


def standing(row: ApprovalRow, wall_s: float) -> ApprovalState:
    """Return what `row` is worth at `wall_s` (Unix seconds): an old question or grant has EXPIRED."""
    if row.state in _PASSING and wall_s >= row.expires_at:
        return ApprovalState.EXPIRED
    return row.state


_PASSING = frozenset({ApprovalState.PENDING, ApprovalState.APPROVED})


@dataclass(frozen=True, slots=True)
class ApprovalOptions:
    """How long to wait for a person.

    Attributes:
        wait_s: The call waits this long; then the run parks (a callable approver: the approval has expired).
        expires_s: The question, and afterwards the grant, is good for this long.
        poll_s: How often the store is asked.
    """

    wait_s: float = 60.0
    expires_s: float = 3600.0
    poll_s: float = 0.25

    def __post_init__(self) -> None:
        if not (self.wait_s >= 0 and self.expires_s > 0 and self.poll_s > 0):
            raise ConfigError("approvals: wait_s must not be negative, expires_s and poll_s must be above 0")


class Approvals:
    """Guard: a call that needs a yes waits for it, and goes no further without.

    It concerns the writes of the tools that `required_for` names, every call of such a tool if it only
    reads, and the second and later equal writes under `repeat: ask`.

    Args:
        required_for: Of a tool: None, "required" (decided in the store) or a callable approver.
        policy_version: A grant under other rules does not count.
        render: What the person reads of a call: tool and redacted arguments.

    Raises:
        ConfigError: At folding, if `required_for` answers with anything else.
    """

    def __init__(
        self,
        store: ApprovalStore,
        clock: Clock,
        options: ApprovalOptions,
        *,
        required_for: Callable[[ToolSpec], str | Approval | None],
        policy_version: str,
        render: Callable[[Call[Any]], str],
    ) -> None:
        self._store = store
        self._clock = clock
        self._options = options
        self._required_for = required_for
        self._policy_version = policy_version
        self._render = render

    def __call__(self, tool: ToolSpec, proceed: Proceed[A]) -> Proceed[A]:
        required = self._required_for(tool)
        asks = tool.repeat is Repeat.ASK and tool.may_write
        if required is given or (required is None and not asks):
            return proceed
        if required is not None and required != "required" and not callable(required):
            raise ConfigError(f'{tool.name}: approval must be "required", a callable or left out, not {required!r}')
        always = required is not None and not tool.may_write
        approver = required if callable(required) else None

        async def approval(call: Call[A]) -> Answer:
            if always or (call.writes and (required is not None or call.occurrence > 1)):
                if call.run.observing:
                    # Nobody is asked for what will be done anyway.
                    call.refuse(ApprovalPending(f"{tool.name}: would have waited for approval"))
                elif approver is not None:
                    await self._ask(call, approver)
                else:
                    await self._ask_store(call)
            return await proceed(call)

        return approval

    async def _ask_store(self, call: Call[A]) -> None:
        clock, options = self._clock, self._options
        give_up_s = self._give_up_s(call)
        key = call.key if call.key is not None else _key_of_read(call)
        row: ApprovalRow | None = await self._store.request(
            ApprovalRequest(
                effect_key=key,
                tenant_id=call.run.tenant_id,
                run_id=call.run.root_run_id,
                tool=call.tool.name,
                policy_version=self._policy_version,
                rendered=self._render(call),
                expires_at=clock.wall() + options.expires_s,
            )
        )
        while row is not None and standing(row, clock.wall()) is ApprovalState.PENDING:
            _stop_if_stopped(call)
            left_s = give_up_s - clock.monotonic()
            if left_s <= 0:
                raise _pending(call, row)
            await clock.sleep(min(options.poll_s, left_s))
            # A store that is away for a moment has not decided anything.
            with contextlib.suppress(StoreUnavailable):
                row = await self._store.get(key, self._policy_version)
        _stop_if_stopped(call)
        call.approval_id = self._granted(call, row)

    def _granted(self, call: Call[A], row: ApprovalRow | None) -> str:
        state = ApprovalState.EXPIRED if row is None else standing(row, self._clock.wall())
        if row is not None and state in _GRANTED:
            return row.id
        if row is not None and state is ApprovalState.DENIED:
            text = f"{call.tool.name}: denied by {row.decided_by}: {row.reason or 'no reason given'}"
            raise ApprovalDenied(text, details=_details(row))
        text = f"{call.tool.name}: nobody approved it in time (approvals.expires_s is {self._options.expires_s} s)"
        if state is ApprovalState.SUPERSEDED:
            text = f"{call.tool.name}: the policy changed while the approval was open; the call must be asked anew"
        raise ApprovalExpired(text, details=_details(row) if row is not None else None)

    async def _ask(self, call: Call[A], approver: Approval) -> None:
        give_up_s = self._give_up_s(call)
        answer = asyncio.ensure_future(_answer(approver, call))
        try:
            while not answer.done():
                _stop_if_stopped(call)
                left_s = give_up_s - self._clock.monotonic()
                if left_s <= 0:
                    raise ApprovalExpired(
                        f"{call.tool.name}: its approver did not answer within {self._options.wait_s} s "
                        f"(approvals.wait_s) or before the run's deadline"
                    )
                await self._wait(answer, min(self._options.poll_s, left_s))
        finally:
            answer.cancel()
        _stop_if_stopped(call)
        refusal = answer.result()
        if refusal is not None:
            raise ApprovalDenied(f"{call.tool.name}: {refusal}")

    async def _wait(self, answer: asyncio.Future[Any], delay_s: float) -> None:
        nap = asyncio.ensure_future(self._clock.sleep(delay_s))
        try:
            await asyncio.wait((answer, nap), return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()

    def _give_up_s(self, call: Call[A]) -> float:
        return min(self._clock.monotonic() + self._options.wait_s, call.run.deadline_s)


# CONSUMED while we waited: an equal call was quicker. The claim lets only one of the two through.
_GRANTED = frozenset({ApprovalState.APPROVED, ApprovalState.CONSUMED})


def _key_of_read(call: Call[A]) -> bytes:
    """A read has no effect key: equal reads of a request share one approval, until it expires."""
    run = call.run
    words = canonical_json(["read", run.tenant_id, run.root_request_id, call.tool.name, call.digest.hex()])
    return run.request_time_ms.to_bytes(8, "big") + hashlib.blake2b(words, digest_size=16).digest()


def _stop_if_stopped(call: Call[A]) -> None:
    stop = call.run.stop
    if stop is not None:
        raise RunStopped(stop.reason, stop.message, details=stop.details)


def _pending(call: Call[A], row: ApprovalRow) -> InterlockError:
    return ApprovalPending(
        f"{call.tool.name}: undecided; `interlock approvals approve {row.id}` or `deny` lets the parked run go on",
        details=_details(row),
    )


def _details(row: ApprovalRow) -> dict[str, Any]:
    return {"approval_id": row.id, "decided_by": row.decided_by, "expires_at": row.expires_at}


async def _answer(approver: Approval, call: Call[A]) -> str | None:
    """Return None for a yes, else why it is a no. Only `True` is a yes; an approver that fails says no."""
    try:
        said: Any
        if inspect.iscoroutinefunction(approver):
            said = await approver(call)
        else:
            said = await _in_thread(approver, call)
            if inspect.isawaitable(said):
                said = await said
    except (Exception, asyncio.CancelledError) as error:
        return f"its approver failed ({type(error).__name__}), which counts as a no"
    if said is True:
        return None
    return "its approver said no" if said is False else f"its approver answered {type(said).__name__}, not True"


def _in_thread(approver: Callable[[Call[Any]], Any], call: Call[A]) -> asyncio.Future[Any]:
    """Ask a plain function on a daemon thread: a person at a prompt must not hold up every other run."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(said: Any, error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(said)
        else:
            future.set_exception(error)

    def ask() -> None:
        said, failure = None, None
        try:
            said = context.run(approver, call)
        except BaseException as error:
            failure = RuntimeError(type(error).__name__)
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(settle, said, failure)

    threading.Thread(target=ask, name="interlock-approver", daemon=True).start()
    return future
