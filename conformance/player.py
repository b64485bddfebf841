"""Plays scenarios through one column, on one side; a process of its own, for the framework's sake and for kill -9.

python -m conformance.player --column loop --side guarded \
        --model URL --world URL --work DIR --out FILE NAME…
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from conformance.column import Column, Job, Nested, Wire
from conformance.conversation import agent_mark
from conformance.report import Ended, Played
from conformance.scenario import Delivery, Scenario
from conformance.scenarios import RESEARCHER, TRIAGE, configuration, scenario
from conformance.tools import make_tool
from conformance.world import Fault
from interlock import Interlock, RunResult
from interlock.chaos.http_client import HttpClient
from interlock.core.clock import SYSTEM

__all__ = ["Player", "load_column", "main", "session_name"]

PATIENCE_S = 150.0  # a loaded machine is no fault of a framework
GIVES_UP_AFTER = 3
INSTRUCTIONS = f"{agent_mark(TRIAGE)} Use the tools; answer in one sentence."
PROMPT = "Users cannot log in: see to it."


def load_column(source: str) -> Column:
    """Return the column that `module:NAME` is.

    Raises:
        ImportError: There is no such module, or the framework is not installed.
    """
    module, _, name = source.partition(":")
    column: Column = getattr(importlib.import_module(module), name)
    return column


def session_name(scenario_name: str, column: str, *, guarded: bool) -> str:
    """Return the name by which both servers know one cell."""
    return f"{scenario_name}.{column}.{'guarded' if guarded else 'bare'}"


class Player:
    """Plays one column.

    Args:
        source: Where the column is, for the process that dies. model_url, world_url: where the servers are.
        work: Directory of the stores.
    """

    def __init__(
        self, column: Column, source: str, *, guarded: bool, model_url: str, world_url: str, work: Path
    ) -> None:
        self._column = column
        self._source = source
        self._guarded = guarded
        self._model_url = model_url
        self._world_url = world_url
        self._work = work
        self._world = HttpClient(world_url)
        self._version = metadata.version(column.distribution)

    async def play(self, played: Scenario, only: int | None = None) -> Played:
        """Play one scenario; `only` one of its deliveries, in a process that dies of it."""
        gate = self._gate(played) if self._guarded else None
        deliveries: list[tuple[Ended, ...]] = []
        try:
            for number, delivery in enumerate(played.deliveries, 1):
                if only is not None and number != only:
                    continue
                if delivery.if_failed and gate is None and not any(e.error for e in deliveries[-1]):
                    continue
                deliveries.append(await self._deliver(played, number, delivery, gate, dying=only is not None))
            if any(Fault.LATE in (*plan.first, plan.then) for plan in played.plans.values()):
                await self._person(played, "wait")
            record = () if gate is None else await _record(gate)
        finally:
            if gate is not None:
                await gate.aclose()
        return self.result(played.name, deliveries=tuple(deliveries), record=tuple(sorted(record)))

    def result(self, name: str, **fields: Any) -> Played:
        """Return what is reported of the scenario with this name."""
        column = self._column
        cannot = (column.cannot if self._guarded else column.cannot_bare).get(name)
        return Played(name, column.name, self._guarded, self._version, cannot=cannot, **fields)

    def _gate(self, played: Scenario) -> Interlock:
        place = self._work / session_name(played.name, self._column.name, guarded=True)
        place.mkdir(parents=True, exist_ok=True)
        return Interlock(configuration(played.config), store=f"sqlite:///{place}/interlock.db")

    async def _person(self, played: Scenario, action: str) -> None:
        session = session_name(played.name, self._column.name, guarded=self._guarded)
        await self._world.request("POST", f"/operator/{session}/{action}", body={})

    async def _deliver(
        self, played: Scenario, number: int, delivery: Delivery, gate: Interlock | None, *, dying: bool
    ) -> tuple[Ended, ...]:
        if delivery.before is not None:
            await self._person(played, delivery.before)
        if delivery.dies is not None and not dying:
            return (await self._die(played, number),)
        jobs = [self._job(played, number, delivery, tenant) for tenant in played.tenants]
        ended = await asyncio.gather(*(self._run(job, gate) for job in jobs))
        session = session_name(played.name, self._column.name, guarded=self._guarded)
        effects = (await self._world.request("GET", f"/effects/{session}")).body
        return tuple(_with_effects(one, effects) for one in ended)

    async def _die(self, played: Scenario, number: int) -> Ended:
        words = ["--column", self._source, "--side", "guarded" if self._guarded else "bare"]
        words += ["--model", self._model_url, "--world", self._world_url, "--work", str(self._work)]
        words += ["--delivery", str(number), "--out", "/dev/null", played.name]
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "conformance.player", *words)
        code = await process.wait()
        return Ended(
            "died", died=code == -9, error=None if code == -9 else f"the worker ended with {code}, not by kill"
        )

    def _job(self, played: Scenario, number: int, delivery: Delivery, tenant: str) -> Job:
        session = session_name(played.name, self._column.name, guarded=self._guarded)
        model = f"{self._model_url}/{session}/{number}"
        tools = tuple(
            make_tool(
                given.name,
                f"{self._world_url}/{session}",
                keyed=given.keyed and self._guarded,
                sync=given.sync,
                timeout_s=given.timeout_s,
                dies=delivery.dies == given.name,
            )
            for given in played.given
        )
        nested = None
        if played.nested is not None:
            nested = Nested(RESEARCHER, "Looks into a problem.", f"{agent_mark(RESEARCHER)} Use the tools.", tools)
        return Job(
            system=INSTRUCTIONS,
            prompt=PROMPT,
            tools=tools,
            openai_url=f"{model}/v1",
            anthropic_url=model,
            model="claude-sonnet-5-5" if self._column.wire is Wire.ANTHROPIC else "gpt-4o",
            stream=played.stream,
            nested=nested,
            own_retries=played.own_retries,
            options={"tenant_id": tenant, "request_id": "req-1", "agent_name": TRIAGE},
        )

    async def _run(self, job: Job, gate: Interlock | None) -> Ended:
        tenant = str(job.options["tenant_id"])
        try:
            async with asyncio.timeout(PATIENCE_S) as patience:
                if gate is None:
                    return Ended("answered", tenant, output=str(await self._column.bare(job)))
                return _ended(await self._column.guarded(job, gate), tenant)
        except Exception as error:
            if patience.expired():
                return Ended("stuck", tenant, error=f"did not end within {PATIENCE_S:g} s")
            text = traceback.format_exc()[-1500:] if gate is not None else f"{type(error).__name__}: {error}"[:300]
            return Ended("raised", tenant, error=text)


def _ended(result: RunResult, tenant: str) -> Ended:
    return Ended(
        result.reason.value,
        tenant,
        output=None if result.output is None else str(result.output),
        replayed=result.replayed,
        steps=result.steps,
        cost_usd=round(result.cost_usd, 6),
        message=str(result.details.get("message", ""))[:500],
    )


def _with_effects(ended: Ended, effects: Any) -> Ended:
    fields = {name: getattr(ended, name) for name in Ended.__slots__}
    return Ended(**fields | {"effects": effects})


async def _record(gate: Interlock) -> list[tuple[str, ...]]:
    """Return every call of every run in the store, as all columns must have them."""
    store = gate.house().store
    await store.flush()
    found = []
    for row in await store.runs(limit=1000):
        full = await store.run(row.run_id)
        for call in full.record["trace"] if full is not None and full.record is not None else ():
            if call["tool"] != RESEARCHER:  # one framework calls a sub-agent a tool, another does not
                found.append((row.tenant_id, call["tool"], call["args_hash"], call["status"], call.get("reason") or ""))
    return found


async def _main(options: argparse.Namespace, out: Any) -> None:
    guarded = options.side == "guarded"
    column = load_column(options.column)
    player = Player(
        column,
        options.column,
        guarded=guarded,
        model_url=options.model,
        world_url=options.world,
        work=Path(options.work),
    )
    stuck = 0
    for name in options.scenarios:
        began_s = SYSTEM.monotonic()
        try:
            if stuck >= GIVES_UP_AFTER:
                raise TimeoutError(f"{stuck} scenarios before it did not end")
            played = await player.play(scenario(name), options.delivery)
            stuck += any(ended.reason == "stuck" for some in played.deliveries for ended in some)
        except Exception:
            played = player.result(name, failed=traceback.format_exc()[-1500:])
        played = replace(played, elapsed_s=round(SYSTEM.monotonic() - began_s, 3))
        out.write(played.as_json() + "\n")
        out.flush()


def main(argv: Sequence[str] | None = None) -> None:
    """Play, and write one line a scenario to `--out`."""
    parser = argparse.ArgumentParser(prog="python -m conformance.player")
    for name in ("--column", "--model", "--world", "--work", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--side", choices=("bare", "guarded"), required=True)
    parser.add_argument("--delivery", type=int, help="play this delivery alone, and die where it says")
    parser.add_argument("scenarios", nargs="+", metavar="NAME")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # a framework's own deprecations say nothing about ours
    with Path(options.out).open("a", encoding="utf-8") as out:
        asyncio.run(_main(options, out))


if __name__ == "__main__":
    main()
