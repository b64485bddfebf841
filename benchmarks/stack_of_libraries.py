"""The same guards as a competent user assembles them today, out of well-known libraries.

pydantic (arguments, output), stamina (retry), purgatory or pybreaker (circuit), asyncio.timeout, structlog (log
line), OpenTelemetry with its batch processor (span), prometheus_client (counter, histogram), fnmatch (policy),
json and hashlib (canonical arguments, loop detection). Each guard is one layer around the next.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson
import purgatory
import pybreaker
import stamina
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as MetricCounter

from benchmarks.work import ALLOW, DENY, TOOL, Arguments, Found

__all__ = ["Run", "StackOfLibraries"]

MANY = 1_000_000

Layer = Callable[[dict[str, Any]], Awaitable[Any]]


@dataclass
class Run:
    """What the layers keep of one run."""

    id: str = "run_abc123"
    started: float = field(default_factory=time.monotonic)
    calls: int = 0
    usd: float = 0.0
    seen: Counter[tuple[str, str, str]] = field(default_factory=Counter)


class Nowhere(SpanExporter):
    """Takes spans and keeps none: the exporter's own cost is not the question."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def canonical_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class StackOfLibraries:
    """One guarded tool.

    Args:
        breaker: `purgatory` or `pybreaker`. spans: with OpenTelemetry.
    """

    def __init__(
        self, fn: Callable[..., Awaitable[Any]], log: BinaryIO, *, breaker: str = "purgatory", spans: bool = True
    ) -> None:
        self.fn = fn
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=65_536, max_export_batch_size=4_096))
        self.tracer = provider.get_tracer("benchmark")
        self.log = structlog.wrap_logger(
            structlog.BytesLogger(log),
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.processors.JSONRenderer(serializer=orjson.dumps),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(20),
        ).bind()
        registry = CollectorRegistry()
        self.counter = MetricCounter("tool_calls", "Calls.", ["tool", "status"], registry=registry)
        self.histogram = Histogram("tool_seconds", "Seconds.", ["tool"], registry=registry)
        self.breakers = purgatory.AsyncCircuitBreakerFactory(default_threshold=5, default_ttl=60)
        self.breaker = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=60)
        self.retry = stamina.AsyncRetryingCaller(attempts=2).on(ConnectionError)
        self.killed: dict[str, str] = {}
        layers = [self.metrics, self.span, self.line, self.switches, self.policy, self.budget, self.loop, self.inputs]
        if not spans:
            layers.remove(self.span)
        layers += [
            self.purgatory if breaker == "purgatory" else self.pybreaker,
            self.retries,
            self.timeout,
            self.output,
        ]
        proceed: Layer = self.perform
        for layer in reversed(layers):
            proceed = layer(proceed)
        self._proceed = proceed

    async def open(self) -> StackOfLibraries:
        await self.breakers.initialize()
        return self

    async def call(self, run: Run, args: dict[str, Any]) -> Any:
        return await self._proceed({"tool": TOOL, "args": args, "run": run})

    async def perform(self, call: dict[str, Any]) -> Any:
        return await self.fn(**call["args"])

    def metrics(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            begun = time.perf_counter()
            result = await proceed(call)
            self.counter.labels(call["tool"], "success").inc()
            self.histogram.labels(call["tool"]).observe(time.perf_counter() - begun)
            return result

        return layer

    def span(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            with self.tracer.start_as_current_span("execute_tool") as span:
                span.set_attribute("gen_ai.tool.name", call["tool"])
                span.set_attribute("run.id", call["run"].id)
                span.set_attribute("status", "success")
                return await proceed(call)

        return layer

    def line(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            begun = time.perf_counter()
            result = await proceed(call)
            self.log.info(
                "tool_call",
                run_id=call["run"].id,
                tenant_id="acme",
                tool=call["tool"],
                args_hash=call["hash"],
                status="success",
                elapsed_s=time.perf_counter() - begun,
                step=call["run"].calls,
            )
            return result

        return layer

    def switches(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            if self.killed:
                raise PermissionError("killed")
            return await proceed(call)

        return layer

    def policy(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            tool = call["tool"]
            if any(fnmatch.fnmatchcase(tool, glob) for glob in DENY):
                raise PermissionError(tool)
            if not any(fnmatch.fnmatchcase(tool, glob) for glob in ALLOW):
                raise PermissionError(tool)
            return await proceed(call)

        return layer

    def budget(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            run = call["run"]
            if run.calls >= MANY or run.usd > MANY or time.monotonic() - run.started > MANY:
                raise RuntimeError("budget")
            run.calls += 1
            return await proceed(call)

        return layer

    def loop(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            call["hash"] = canonical_hash(call["args"])
            result = await proceed(call)
            seen, key = call["run"].seen, (call["tool"], call["hash"], canonical_hash(result))
            seen[key] += 1
            if seen[key] > MANY:
                raise RuntimeError("loop")
            return result

        return layer

    def inputs(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            call["args"] = Arguments.model_validate(call["args"]).model_dump()
            return await proceed(call)

        return layer

    def purgatory(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            async with await self.breakers.get_breaker(call["tool"]):
                return await proceed(call)

        return layer

    def pybreaker(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            with self.breaker.calling():
                return await proceed(call)

        return layer

    def retries(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            return await self.retry(proceed, call)

        return layer

    def timeout(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            async with asyncio.timeout(10):
                return await proceed(call)

        return layer

    def output(self, proceed: Layer) -> Layer:
        async def layer(call: dict[str, Any]) -> Any:
            return Found.model_validate(await proceed(call)).model_dump()

        return layer
