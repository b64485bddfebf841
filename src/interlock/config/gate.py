"""The public object: settings, tools and runs of one gate."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from interlock.config.build import House, build
from interlock.config.declarations import Declarations
from interlock.config.handler import Field, Handler
from interlock.config.sections import Settings
from interlock.config.settings import load_settings
from interlock.config.trial import UNTRIED, Trial, stand_in_for
from interlock.core.calls import Approval, ToolSpec
from interlock.core.clock import SYSTEM, Clock, timed_token
from interlock.core.errors import StoreUnavailable
from interlock.core.results import RunResult
from interlock.gateway.tools import Registry, Tool
from interlock.memory.hooks import MemoryHooks
from interlock.supervisor.bridge import Bridge, Portal
from interlock.supervisor.open_run import OpenRun
from interlock.supervisor.requests import RunRequest
from interlock.supervisor.worker import Worker, WorkerOptions

__all__ = ["Interlock"]

Invariant = Callable[[Any], bool] | tuple[str, Callable[[Any], bool]]


class Interlock:
    """A gate between agents and the world.

    Args:
        config: A YAML file, a mapping of the same shape, settings, or None for profile `default`.
        store: `sqlite:///path/file.db` or `sqlite:///:memory:`; else INTERLOCK_STORE, the file's `store`, or
            `interlock.db` beside the file or in the working directory. Opened on first use.
        profile: `default`, `article`, `support`, `coding` or `research`.
        clock: Time and chance; tests pass their own.

    Attributes:
        memory: What you bring to memory: validators, a token counter, an embedder.

    Raises:
        ConfigError: Names the file, line and key to change.
    """

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] | Settings | None = None,
        *,
        store: str | None = None,
        profile: str | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.settings = config if isinstance(config, Settings) else load_settings(config, profile=profile)
        self._declarations = Declarations(self.settings)
        self._registry = Registry(strict=self.settings.validation.input.strict)
        self._store_url = store
        self._clock = clock
        self._portal = Portal()
        self._house: House | None = None
        self._trial = UNTRIED
        self._lock = threading.Lock()
        self.memory = MemoryHooks()

    # -- tools

    def tool(
        self,
        name: str | None = None,
        *,
        effect: Literal["read", "write"] | Callable[[Mapping[str, Any]], Any] | None = None,
        on_unknown: Literal["resend", "lookup", "stop", "tell"] | None = None,
        lookup: Callable[..., Any] | None = None,
        natural: bool = False,
        identity: Sequence[str] = (),
        repeat: Literal["collapse", "allow", "ask"] = "collapse",
        approval: Literal["required"] | bool | Approval | None = None,
        input: Any = None,  # noqa: A002 - the word users expect
        output: Any = None,
        timeout_s: float | None = None,
        invariants: Sequence[Invariant] = (),
        scopes: Sequence[str] = (),
        compensate: str | None = None,
        outcome: Mapping[int, str] | Callable[[int | None, Any], str | None] | None = None,
        settle_s: float | None = None,
        allow: bool = False,
    ) -> Callable[[Callable[..., Any]], Tool]:
        """Register a function as a guarded tool.

        Args:
            name: As policy and model write it; the function's own name when left out.
            effect: `read` or `write`, or a function of the arguments. There is no default.
            on_unknown: When nobody knows whether a write happened. `resend` if the function takes
                `idempotency_key` (you promise that the remote dedupes on it) or is `natural`; `lookup` if one is
                given; else `stop`. `tell` only for a workspace that the agent can inspect itself.
            lookup: Called with the tool's arguments (and `idempotency_key`, if it takes one): returns the tool's
                result if the write happened, None if it did not, raises if it cannot tell.
            natural: Repeating the write is harmless, even after a later write to the same object.
            identity: Arguments that identify the effect; all of them when left out.
            repeat: What an equal second write of one request means.
            approval: True or "required": a person decides, in the store; or a callable that says yes or no.
            input: pydantic model or JSON Schema of the arguments; the function's type hints when left out.
            output: Type, pydantic model or JSON Schema of the output; the value is validated into it.
            timeout_s: Of one attempt.
            invariants: Conditions on the output: callables, or (name, callable).
            scopes: Permissions that a run must hold.
            compensate: Name of the tool that undoes this one; told to people who settle a doubt.
            outcome: Reading of HTTP statuses, e.g. {409: "not_performed"}.
            settle_s: Seconds after the last send from which a lookup's "no" counts.
            allow: Permit a write that can neither be re-sent nor looked up, where no file says what is allowed.

        Raises:
            ConfigError: The words do not fit together, or the name is taken.
        """

        def decorate(fn: Callable[..., Any]) -> Tool:
            spec = self._registry.declare(
                fn,
                fn.__name__ if name is None else name,
                effect=effect,
                on_unknown=on_unknown,
                lookup=lookup,
                natural=natural,
                identity=identity,
                repeat=repeat,
                approval=approval,
                input=input,
                output=output,
                timeout_s=timeout_s,
                invariants=invariants,
                scopes=scopes,
                compensate=compensate,
                outcome=outcome,
                settle_s=settle_s,
                allow=allow,
                check=self._declarations.check,
            )
            return Tool(spec)

        return decorate

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The registered tools, as the configuration sees them."""
        return tuple(self._declarations.settled(spec) for spec in self._registry)

    # -- runs

    async def run(
        self,
        agent: Callable[..., Any],
        task: Any = None,
        *,
        tenant_id: str = "default",
        request_id: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        payload: Any = None,
        scopes: Sequence[str] = (),
        allow: Sequence[str] | None = None,
        budgets: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        retry: bool | Literal["resume"] = False,
        agent_name: str | None = None,
        wait_s: float | None = None,
    ) -> RunResult:
        """Run an agent, `agent(run, task, **inputs)`, to its end; never raises for what happens inside.

        Args:
            agent: Async function, or sync (then in a worker thread).
            task: What it is given. With a `request_id` it must be JSON or a pydantic model, or pass `payload`.
            tenant_id: Whose run it is.
            request_id: The caller's idempotency key: one run per (tenant, request id); a duplicate gets the outcome.
            inputs: Further keyword arguments of the agent; part of the payload.
            payload: What the request is about, as JSON, where task and inputs are not.
            scopes: Permissions that the run holds.
            allow: Globs; the run may use what matches these and what the policy allows.
            budgets: Caps of this run by key, e.g. `{"max_usd": 0.5}`.
            deadline: Wall-clock time (Unix seconds) at which its time is over.
            retry: True: start a request that has an outcome afresh, under the same effect keys.
            agent_name: For the record and the kill switch; the function's name when left out.
            wait_s: How long to wait for a run of the same request elsewhere; None until it has ended, or until its
                worker dies and the run is taken over.

        Raises:
            AlreadyRunning: It still runs elsewhere, after `wait_s`.
        """
        request = RunRequest(
            agent=agent_name or str(getattr(agent, "__name__", type(agent).__name__)),
            task=task,
            inputs=inputs or {},
            tenant_id=tenant_id,
            request_id=request_id,
            payload=payload,
            scopes=scopes,
            allow=allow,
            budgets=budgets,
            deadline=deadline,
            retry=retry,
        )
        try:
            house = self.house()
        except StoreUnavailable as error:
            details = {"error": type(error).__name__, "message": str(error)}
            return RunResult("", error.reason, tenant_id=tenant_id, request_id=request_id or "", details=details)
        return await house.supervisor.run(agent, request, wait_s)

    def run_sync(self, agent: Callable[..., Any], task: Any = None, **options: Any) -> RunResult:
        """Do what `run` does, from sync code; see there."""
        return self._portal.call(self.run(agent, task, **options))

    def open_run(
        self,
        task: Any = None,
        *,
        agent_name: str = "open_run",
        tenant_id: str = "default",
        request_id: str | None = None,
        payload: Any = None,
        scopes: Sequence[str] = (),
        allow: Sequence[str] | None = None,
        budgets: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        retry: bool | Literal["resume"] = False,
        wait_s: float = 0.0,
    ) -> OpenRun:
        """Open a run for a hand-written loop: `async with gate.open_run(task) as run: …`, then `run.result`.

        The block is the agent. `RunStopped` ends it quietly; other errors are recorded and raised. Set
        `run.output` to what it produced.

        Args:
            wait_s: How long to wait for a run of the same request elsewhere. For the others see `run`.

        Raises:
            AlreadyEnded: On entry: the request has an outcome, or cannot begin. AlreadyRunning: it runs elsewhere.
        """
        request = RunRequest(
            agent=agent_name,
            task=task,
            tenant_id=tenant_id,
            request_id=request_id,
            payload=payload,
            scopes=scopes,
            allow=allow,
            budgets=budgets,
            deadline=deadline,
            retry=retry,
        )
        return OpenRun(self.house().supervisor, request, self._bridge(), wait_s)

    async def submit(
        self,
        agent_name: str,
        task: Any = None,
        *,
        tenant_id: str = "default",
        request_id: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        payload: Any = None,
        scopes: Sequence[str] = (),
        allow: Sequence[str] | None = None,
        budgets: Mapping[str, Any] | None = None,
        deadline: float | None = None,
    ) -> str:
        """Queue a run for the workers of this store (`interlock worker`), and return its run id at once.

        A request that was submitted or run before gets the id of its run.

        Args:
            agent_name: Of the agent, as its workers know it. For the others see `run`.

        Raises:
            AlreadyEnded: It cannot be queued (other payload, a task that is not JSON); `result` says why.
            StoreUnavailable: It is not known to be queued: submit again with the same request id.
        """
        request = RunRequest(
            agent=agent_name,
            task=task,
            inputs=inputs or {},
            tenant_id=tenant_id,
            request_id=request_id or f"req_{timed_token(self._clock)}",
            payload=payload,
            scopes=scopes,
            allow=allow,
            budgets=budgets,
            deadline=deadline,
        )
        return (await self.house().supervisor.submit(request)).run_id

    def handler(
        self,
        *,
        request_id: Field,
        tenant_id: Field | None = None,
        wait_s: float | None = None,
        **options: Any,
    ) -> Callable[[Callable[..., Any]], Handler]:
        """Make an agent the handler of a queue or a web route: each message is one run, however often it comes.

        Args:
            request_id: Where a message has its id: a key or attribute of it, or a function of it.
            tenant_id: Likewise; everybody is `default` when left out.
            wait_s: How long a concurrent duplicate waits, then `AlreadyRunning` with the run id; None: to the end.
            options: Further words of `run`.
        """

        def decorate(agent: Callable[..., Any]) -> Handler:
            return Handler(self.run, self.run_sync, agent, request_id, tenant_id, wait_s, options)

        return decorate

    def worker(self, agents: Mapping[str, Callable[..., Any]], options: WorkerOptions, **more: Any) -> Worker:
        """Return what takes submitted runs from the store and works on them; see `interlock worker`."""
        house = self.house()
        return Worker(house.supervisor, house.store.leases, self._clock, agents, options, house.rounds, **more)

    def _bridge(self) -> Bridge:
        try:
            return Bridge(asyncio.get_running_loop())
        except RuntimeError:
            return Bridge(self._portal.loop())

    # -- the house

    def house(self) -> House:
        """Return the wired parts; the first call opens the store.

        Raises:
            ConfigError, StoreUnavailable: The store cannot be opened.
        """
        tried = stand_in_for(self)
        if tried is not self:
            return tried.house()
        house = self._house
        if house is None:
            with self._lock:
                house = self._house
                if house is None:
                    house = self._house = build(
                        self.settings,
                        self._registry,
                        self._declarations,
                        store=self._store_url,
                        clock=self._clock,
                        trial=self._trial,
                        hooks=self.memory,
                    )
        return house

    def on_trial(self, trial: Trial, *, settings: Settings, store: str, clock: Clock) -> Interlock:
        """Return another gate with the tools of this one, on a store and a clock of its own, changed by `trial`."""
        tried = Interlock(settings, store=store, clock=clock)
        tried._registry, tried._trial, tried.memory = self._registry, trial, self.memory
        return tried

    def metrics(self) -> str:
        """Return this process's counters as Prometheus text."""
        return self.house().sinks.metrics.render()

    async def aclose(self) -> None:
        """Stop runs, wait for writes under way (`shutdown_grace_s`), and close the store."""
        house, self._house = self._house, None
        if house is not None:
            await house.aclose()
        self._portal.close()

    def close(self) -> None:
        """Do what `aclose` does, from sync code."""
        if self._house is not None:
            self._portal.call(self._close_house())
        self._portal.close()

    async def _close_house(self) -> None:
        house, self._house = self._house, None
        if house is not None:
            await house.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
