"""Opens, drives and ends runs; always answers with a `RunResult`.

Nothing that happens inside a run is raised: only cancellation and interrupts of the caller pass through.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interlock.budget.meter import BudgetOptions
from interlock.core.calls import Stop
from interlock.core.canonical import NotCanonical
from interlock.core.errors import AlreadyEnded, AlreadyRunning, ConfigError, InterlockError, LeaseLost, StoreUnavailable
from interlock.core.reasons import StopReason
from interlock.core.results import RunResult
from interlock.gateway.remembering import take_back
from interlock.gateway.scope import RunScope
from interlock.gateway.tape import Tape
from interlock.gateway.tools import current_run
from interlock.journal.replay import History, ReplayStore
from interlock.journal.store import Begun, NewRun, RunRow, RunState, RunStore
from interlock.supervisor.bridge import Bridge
from interlock.supervisor.caretaker import Caretaker
from interlock.supervisor.deadline import Deadline
from interlock.supervisor.machinery import Machinery
from interlock.supervisor.outcome import failed, judge, refused, stored_result
from interlock.supervisor.requests import RunRequest
from interlock.supervisor.run import Run
from interlock.supervisor.scopes import ScopeMaker
from interlock.supervisor.secretary import Secretary

__all__ = ["Supervisor"]

# How often a duplicate looks whether the run it waits for has ended.
WAIT_POLL_S = 0.05
# What a cancelled agent gets before its run is closed without it.
CANCEL_GRACE_S = 1.0
# How long closing waits for runs to take notice.
CLOSE_PATIENCE_S = 5.0


class Supervisor:
    """Runs of one gate.

    Attributes:
        secretary: Writes down how runs end. caretaker: sees to runs that nobody works on.

    Args:
        machinery: What runs share.
        scopes: Makes the scope of a run out of a request.
        secretary: Writes down how runs end.
        store: Where runs are claimed. history: where their turns and results are recorded.
    """

    def __init__(
        self,
        machinery: Machinery,
        scopes: ScopeMaker,
        secretary: Secretary,
        store: RunStore,
        history: ReplayStore,
    ) -> None:
        self._machinery = machinery
        self._scopes = scopes
        self.secretary = secretary
        self._store = store
        self._history = history
        self.caretaker = Caretaker(machinery, history, secretary)
        self._live: set[Run] = set()
        self.returning = False  # whether a worker drains: no run of the queue is begun

    # -- a whole run

    async def run(self, agent: Callable[..., Any], request: RunRequest, wait_s: float | None = None) -> RunResult:
        """Run an agent to its end and return the outcome; a request with an outcome gets that one.

        Raises:
            AlreadyRunning: It runs elsewhere, after `wait_s`.
        """
        return await self._to_the_end(await self._open(request, wait_s), agent, request)

    async def work(
        self, agent: Callable[..., Any], row: RunRow, request: RunRequest, asked_s: float
    ) -> RunResult | None:
        """Go on with a run that this worker has taken from the queue; None where it was handed back."""
        opened = await self.enter(self._scopes.root(request)[0], Begun(True, row), asked_s)
        if self.returning and isinstance(opened, Run):
            self._left(opened)
            await self._machinery.leases.hand_back(row.run_id, row.fence, row.used_s)
            return None
        return await self._to_the_end(opened, agent, request)

    async def submit(self, request: RunRequest) -> RunRow:
        """Queue a request for the workers, and return its run; one that stands is returned as it is.

        Raises:
            AlreadyEnded: It cannot be queued; `result` says why. StoreUnavailable: it is not known to be queued.
        """
        fault = request.fault()
        try:
            new = None if fault else self._scopes.root(request)[1]
        except (NotCanonical, ConfigError) as error:
            fault = str(error)
        if fault or new is None:
            raise AlreadyEnded(refused(request, fault or ""))
        if new.task is None or not self._history.keeps:
            why = "a task that is not JSON, or a store with replay: off, cannot be queued for other processes"
            raise AlreadyEnded(refused(request, why))
        row = (await self._machinery.leases.queue(new)).row
        if row.payload_hash != new.payload_hash:
            text = f"request_id {request.request_id!r} was used with another payload"
            raise AlreadyEnded(refused(request, text, row.run_id))
        if row.state is RunState.ENDED and self.caretaker.may_be_revived(row):
            begun = await self._store.begin(new, resume=True, revive=True)
            if begun.fresh:
                await self._machinery.leases.hand_back(row.run_id, begun.row.fence, begun.row.used_s)
        return row

    def return_runs(self) -> None:
        """Begin no more runs from the queue, and hand back those under way, once their writes have settled."""
        self.returning = True
        for run in list(self._live):
            run.returning = True
            run.stop(Stop(StopReason.CANCELLED, "the worker drains; another one goes on with this run"))

    async def _to_the_end(self, opened: Run | RunResult, agent: Callable[..., Any], request: RunRequest) -> RunResult:
        while not isinstance(opened, RunResult):
            result = await self._drive(opened, agent, request)
            # None: another worker has taken the run over; its outcome is the outcome, unless it dies too.
            opened = result or await self._elsewhere(opened, request)
        return opened

    async def _drive(self, run: Run, agent: Callable[..., Any], request: RunRequest) -> RunResult | None:
        """Drive a run to its end; None where it is another worker's by then."""
        finished: asyncio.Future[None] = run.bridge.loop.create_future()
        before = current_run.set(run)
        try:
            work = asyncio.ensure_future(self._agent(agent, run, request))
        finally:
            current_run.reset(before)
        # A closure, no partial: some frameworks write down their task at every step, and with it what it calls back.
        work.add_done_callback(lambda ended: _finish(finished, ended))
        run.watch(functools.partial(_cancel, work, finished))
        deadline = self.at_deadline(run)
        try:
            await finished
        except asyncio.CancelledError as error:
            # The caller was cancelled: record it and leave; a write under way goes on as a task of the gate.
            work.cancel()
            run.stop(Stop(StopReason.CANCELLED, "the caller of gate.run was cancelled"))
            if not run.lost:
                self.secretary.close_soon(run, judge(run, error=error))
            raise
        finally:
            deadline()
            self._left(run)
        if run.returning and await self._hand_back(run):
            return judge(run, work=work)
        return None if run.lost else await self.secretary.close(run, judge(run, work=work))

    async def _hand_back(self, run: Run) -> bool:
        """Queue a run again, with what it has done on record; False where it has ended by itself, or is not ours."""
        scope = run.scope
        if scope.stop is None or scope.stop.reason is not StopReason.CANCELLED or not scope.keyed:
            return False
        while scope.in_flight:
            await scope.clock.sleep(WAIT_POLL_S)  # a write finishes, or its grace is over
        used_s = scope.clock.monotonic() - scope.started_s
        return await self._machinery.leases.hand_back(scope.run_id, scope.fence, used_s)

    async def _agent(self, agent: Callable[..., Any], run: Run, request: RunRequest) -> Any:
        inputs = dict(request.inputs)
        if inspect.iscoroutinefunction(agent) or inspect.iscoroutinefunction(getattr(agent, "__call__", None)):  # noqa: B004
            return await agent(run, request.task, **inputs)
        call = functools.partial(agent, run, request.task, **inputs)
        output = await self._machinery.threads.submit(call, {}, "agent")
        return await output if inspect.isawaitable(output) else output

    def at_deadline(self, run: Run) -> Callable[[], None]:
        """Stop a run when its time is over; return what calls that off."""
        left_s = run.scope.deadline_s - run.scope.clock.monotonic()
        if left_s == float("inf") or run.scope.observing:
            return lambda: None
        run.deadline = Deadline(run.bridge.loop, left_s, run.stop)
        return run.deadline.cancel

    # -- opening

    async def _open(self, request: RunRequest, wait_s: float | None) -> Run | RunResult:
        """Claim the request and open its run; or return its outcome, waiting for it if it runs elsewhere."""
        fault = request.fault()
        if fault is not None:
            return refused(request, fault)
        try:
            scope, new = self._scopes.root(request)
        except (NotCanonical, ConfigError) as error:
            return refused(request, str(error))
        asked_s = scope.clock.boot()
        if request.request_id is not None:
            self.caretaker.reap_soon()
        try:
            begun = await self._begin(new, request)
            if begun is None:
                scope.request_time_ms = self._store.begin_soon(new)
            elif not begun.fresh:
                return await self._standing(begun.row, request, new, wait_s)
        except (AlreadyRunning, LeaseLost):
            raise
        except InterlockError as error:
            return failed(request, new.run_id, new.request_id, error)
        return await self._opened(scope, begun, History(), asked_s)

    async def _opened(self, scope: RunScope, begun: Begun | None, history: History, asked_s: float) -> Run | RunResult:
        if begun is None or (begun.first and not scope.retrying):
            scope.proposed = set()
        if begun is not None:
            scope.run_id = scope.root_run_id = scope.trace.run_id = begun.row.run_id
            scope.request_time_ms = begun.row.request_time_ms
            scope.fence = scope.trace.fence = begun.row.fence
            scope.meter.charge_lost(begun.row.spent_usd, begun.row.spent_tokens)
            if self._history.keeps:
                scope.tape = Tape(self._history, scope.run_id, scope.fence, history)
                take_back(scope, history)
        lease = scope.lease = self._machinery.leases.hold(scope.run_id, scope.fence, asked_s)
        run = Run(self._machinery, self, scope, Bridge(asyncio.get_running_loop()))
        run.watch_lease(lease)
        self._live.add(run)
        return await self._with_a_place(run)

    async def _with_a_place(self, run: Run) -> Run | RunResult:
        """Wait until the tenant may have one more run under way."""
        scope = run.scope
        try:
            until_s = scope.started_s if scope.observing else scope.deadline_s  # watching must not slow anybody down
            cap = await self._machinery.tenants.enter(scope.tenant_id, scope.run_id, until_s)
        except asyncio.CancelledError as error:
            self._left(run)
            self.secretary.close_soon(run, judge(run, error=error))
            raise
        except InterlockError as error:
            return run if scope.spared(error.reason) else await self.close(run, error) or await self._elsewhere_now(run)
        if cap is None or scope.spared(StopReason.TIME_BUDGET):
            return run
        key = f"tenants.{scope.tenant_id}.budgets.max_concurrent_runs"
        run.stop(Stop(StopReason.TIME_BUDGET, f"{key} = {cap}: no place until the run's time was up"))
        return await self.close(run, None) or await self._elsewhere_now(run)

    def _left(self, run: Run) -> None:
        self._live.discard(run)
        if run.scope.lease is not None:
            self._machinery.leases.let_go(run.scope.lease)
        self._machinery.tenants.leave(run.scope.tenant_id, run.scope.run_id)

    async def _begin(self, new: NewRun, request: RunRequest) -> Begun | None:
        if request.request_id is None:
            return None
        return await self._store.begin(new, retry=request.retry is True)

    async def _standing(self, row: RunRow, request: RunRequest, new: NewRun, wait_s: float | None) -> Run | RunResult:
        """Return what stands for a request: its outcome, or the run itself where this worker may go on with it."""
        if row.payload_hash != new.payload_hash:
            return refused(request, f"request_id {request.request_id!r} was used with another payload", row.run_id)
        waited_s = 0.0
        clock = self._machinery.clock
        while (opened := await self._at_hand(row, request)) is None:
            if wait_s is not None and waited_s >= wait_s:
                raise AlreadyRunning(row.run_id)
            await clock.sleep(WAIT_POLL_S)
            waited_s += WAIT_POLL_S
            found = await self._store.run(row.run_id)
            if found is None:
                return refused(request, f"run {row.run_id} is gone from the store", row.run_id)
            row = found
        return opened

    async def _at_hand(self, row: RunRow, request: RunRequest) -> Run | RunResult | None:
        """Return the outcome of a run, or the run itself, taken over; None while somebody else works on it."""
        if row.state is RunState.PARKED and (request.retry == "resume" or await self.secretary.may_go_on(row)):
            if await self.caretaker.can_go_on(row.run_id):
                return await self._take_over(request)
            result = stored_result(row)
            result.details["not_resumable"] = "its model turns were not recorded (replay: off, or run.step)"
            return result
        if row.state is RunState.ENDED and self.caretaker.may_be_revived(row):
            return await self._take_over(request, revive=True)
        if row.state in (RunState.PARKED, RunState.ENDED):
            return stored_result(row)
        dead = row.lease_left_s is not None and row.lease_left_s <= 0
        return await self._take_over(request) if dead or row.state is RunState.QUEUED else None

    async def _elsewhere(self, run: Run, request: RunRequest) -> Run | RunResult:
        """Return the outcome of a run that another worker has taken over; or the run, taken back when that one died."""
        try:
            row = await self._store.run(run.run_id)
            if row is None:
                return refused(request, f"run {run.run_id} is gone from the store", run.run_id)
            return await self._standing(row, request, self._scopes.root(request)[1], None)
        except StoreUnavailable as error:
            return failed(request, run.run_id, run.request_id, error)

    async def _elsewhere_now(self, run: Run) -> RunResult:
        row = await self._store.run(run.run_id)
        if row is None or row.reason is None:
            raise LeaseLost(f"run {run.run_id}: another worker has taken it over")
        return stored_result(row)

    async def _take_over(self, request: RunRequest, *, revive: bool = False) -> Run | RunResult | None:
        """Make a run ours that nobody works on (any more), and go on with it; None where somebody was faster."""
        scope, new = self._scopes.root(request)
        asked_s = scope.clock.boot()
        begun = await self._store.begin(new, resume=True, revive=revive)
        return await self.enter(scope, begun, asked_s) if begun.fresh else None

    async def enter(self, scope: RunScope, begun: Begun, asked_s: float) -> Run | RunResult:
        """Go on with a run that this worker has just taken, by replay; or give it up, where that cannot be."""
        row = begun.row
        try:
            history = await self._history.history(row.run_id) if self._history.keeps else History()
        except ConfigError as error:
            return await self.secretary.give_up(row, str(error), StopReason.INTERNAL_ERROR)
        why = await self._unfit(row, history)
        if why is not None:
            return await self.secretary.give_up(row, why)
        if not history.complete:
            # It has written nothing: it may begin anew, without what it cannot be told again.
            self._history.forget_soon(row.run_id, row.fence)
            scope.meter.charge_lost(sum(turn.usd for turn in history.turns), sum(turn.tokens for turn in history.turns))
            history = History()
        self._scopes.go_on(scope, row)
        return await self._opened(scope, begun, history, asked_s)

    async def _unfit(self, row: RunRow, history: History) -> str | None:
        """Return why a run is not entered again, or None."""
        if row.barren >= self._machinery.abandon_after:
            return f"{row.barren} workers in a row died over it without recording anything new (abandon_after)"
        places = [(claim.path, claim.turn) for claim in await self.secretary.claims(row)]
        if row.attempts <= 1 and not places:
            return None
        if not self._history.keeps:
            return "an attempt at it was cut short, and nothing is kept to go on from (replay: off)"
        if places and not history.covers(places):
            return "an attempt at it was cut short after a write, and not all of its model turns were recorded"
        return None

    def open_child(
        self, parent: Run, name: str, budgets: Mapping[str, Any] | BudgetOptions | None, allow: Sequence[str] | None
    ) -> Run:
        """See `Family.open_child`."""
        scope, new = self._scopes.child(parent.scope, name, budgets, allow)
        self._store.begin_soon(new)
        return Run(self._machinery, self, scope, parent.bridge, parent=parent)

    async def opened(self, request: RunRequest, wait_s: float) -> Run:
        """Open a run for a block.

        Raises:
            AlreadyEnded: It has an outcome, or cannot begin. AlreadyRunning: it runs elsewhere, after `wait_s`.
        """
        opened = await self._open(request, wait_s)
        if isinstance(opened, RunResult):
            raise AlreadyEnded(opened)
        return opened

    async def close(self, run: Run, error: BaseException | None) -> RunResult | None:
        """See `Family.close`."""
        if not run.scope.path:
            self._left(run)
        if run.lost:
            return None
        return await self.secretary.close(run, judge(run, error=error))

    async def aclose(self) -> None:
        """Stop every run under way and wait until it has settled; one whose block is not left is not waited for."""
        for run in list(self._live):
            run.stop(Stop(StopReason.CANCELLED, "the gate was closed"))
        waited_s = 0.0
        while self._live and waited_s < CLOSE_PATIENCE_S:
            await self._machinery.clock.sleep(WAIT_POLL_S)
            waited_s += WAIT_POLL_S
        await self.caretaker.aclose()


def _cancel(work: asyncio.Future[Any], finished: asyncio.Future[None]) -> None:
    """Cancel an agent that goes on after its stop; if it ignores that, close its run without it."""
    work.cancel()
    loop = work.get_loop()
    loop.call_later(CANCEL_GRACE_S, _finish, finished)


def _finish(finished: asyncio.Future[None], work: asyncio.Future[Any] | None = None) -> None:
    if work is not None and not work.cancelled():
        work.exception()  # seen, even where another worker's outcome is the one that counts
    if not finished.done():
        finished.set_result(None)
