"""Verbs `submit` and `worker`: runs put into the store's queue, and the process that takes them out."""

from __future__ import annotations

import asyncio
import gc
import importlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from interlock.cli.configuration import the_settings
from interlock.cli.opening import Store, in_store
from interlock.cli.options import ConfigOption, JsonOption, StoreOption
from interlock.cli.output import note, print_json, print_text
from interlock.config.gate import Interlock
from interlock.config.handler import Handler
from interlock.core.errors import AlreadyEnded, ConfigError, InterlockError
from interlock.journal.store import RunState
from interlock.supervisor.worker import WorkerOptions

__all__ = ["app"]

app = typer.Typer()


@app.command()
def submit(
    agent: Annotated[str | None, typer.Argument(metavar="AGENT", help="Name of the agent.")] = None,
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="What it is given: JSON, else text.")] = None,
    request_id: Annotated[str | None, typer.Option(help="One run a request id; a duplicate gets its run.")] = None,
    tenant: Annotated[str, typer.Option(help="Whose run it is.")] = "default",
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN", help="Queue a parked run again, as it is.")
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Queue a run for the workers of the store, and print its id; or queue a parked one again."""
    if (agent is None) is (resume is None):
        raise typer.BadParameter("say either AGENT and TASK, or --resume RUN")
    if resume is not None:
        run_id = in_store(store, config, lambda opened: _requeue(opened, resume))
    else:
        run_id = asyncio.run(_submit(store, config, str(agent), _value(task), request_id, tenant))
    if as_json:
        print_json({"run_id": run_id})
    else:
        print_text(run_id)


async def _submit(
    store: str | None, config: Path | None, agent: str, task: Any, request_id: str | None, tenant: str
) -> str:
    async with Interlock(the_settings(config), store=store) as gate:
        try:
            return await gate.submit(agent, task, request_id=request_id, tenant_id=tenant)
        except AlreadyEnded as error:
            raise ConfigError(str(error.result.details.get("message", error))) from None


async def _requeue(opened: Store, run_id: str) -> str:
    row = await opened.run(run_id)
    if row is None:
        raise ConfigError(f"no run has the id {run_id!r}; `interlock runs` lists them")
    if row.state is not RunState.PARKED or not await opened.leases.requeue(run_id):
        raise ConfigError(f"run {run_id} is not parked: it is {row.state.value}")
    return run_id


def _value(task: str | None) -> Any:
    if task is None:
        return None
    try:
        return orjson.loads(task)
    except orjson.JSONDecodeError:
        return task


@app.command()
def worker(
    agent: Annotated[
        list[str],
        typer.Option(metavar="MODULE:FUNCTION", help="Agent that it can run, as NAME=MODULE:FUNCTION too; repeat."),
    ],
    gate: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="The gate; else the one in the module of the first agent.")
    ] = None,
    tenants: Annotated[str | None, typer.Option(help="Only these, separated by commas.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Most runs at once.")] = 8,
    per_tenant: Annotated[int | None, typer.Option(min=1, help="Most runs of one tenant at once.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Work on submitted runs and those of dead workers, and ask remotes about doubts, until SIGTERM: then hand back."""
    sys.path.insert(0, "")
    agents = dict(_agent(words) for words in agent)
    found = _gate(gate or agent[0].partition("=")[2] or agent[0], named=gate is not None)
    only = None if tenants is None else [name.strip() for name in tenants.split(",") if name.strip()]
    calm_the_collector()
    asyncio.run(_work(found, agents, WorkerOptions(only, concurrency, per_tenant)))
    if as_json:
        print_json({"agents": list(agents), "drained": True})


def calm_the_collector() -> None:
    """Let the garbage collector look at what runs leave behind, more rarely, and no more at what was imported.

    A run waits for models and disks with hundreds of objects in hand, which each full collection goes through. This
    process is ours: a library leaves such settings to the program it is part of.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


async def _work(gate: Interlock, agents: dict[str, Callable[..., Any]], options: WorkerOptions) -> None:
    async with gate:
        working = gate.worker(agents, options, failed=_tell)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, working.drain)
        note(f"working on {', '.join(agents)}")
        await working.run()
        note("drained")


def _tell(error: InterlockError) -> None:
    note(f"warning: {error}")


def _agent(words: str) -> tuple[str, Callable[..., Any]]:
    name, _, place = words.rpartition("=")
    found = _load(place)
    if not callable(found):
        raise ConfigError(f"--agent {words}: not a function")
    agent = found.agent if isinstance(found, Handler) else found
    return name or str(getattr(found, "__name__", place.rpartition(":")[2])), agent


def _gate(place: str, *, named: bool) -> Interlock:
    if named:
        found = _load(place)
        if not isinstance(found, Interlock):
            raise ConfigError(f"--gate {place}: not a gate (interlock.Interlock)")
        return found
    module = importlib.import_module(place.partition(":")[0])
    gates = {id(value): value for value in vars(module).values() if isinstance(value, Interlock)}
    if len(gates) != 1:
        raise ConfigError(f"{module.__name__} has {len(gates)} gates: name one with --gate MODULE:NAME")
    return next(iter(gates.values()))


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    if not name:
        raise ConfigError(f"{place}: say MODULE:NAME")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{place}: {error}") from error
